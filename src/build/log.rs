// SPDX-License-Identifier: MIT OR Apache-2.0
//! make.log: everything that the steps of a build said, in dkms's layout. Which line of it tells
//! why a build failed is known in `cause`.

use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use fs_err::{File, OpenOptions};

use super::cause::{first_error, last_step};
use crate::module::{ModuleId, Target};
use crate::sys::files;
use crate::sys::tools::{Ended, Output, Run};

const TOO_LONG: &str = "it took longer than [build] timeout allows";

/// The log of one build.
#[derive(Debug)]
pub struct MakeLog {
    file: File,
}

impl MakeLog {
    /// Starts the log in a build directory.
    pub fn start(build_dir: &Path, id: &ModuleId, target: &Target) -> Result<Self> {
        let path = build_dir.join("make.log");
        // Sources may come with one, even with a link of that name to somewhere else.
        files::remove(&path)?;
        let mut log = Self::create(&path)?;
        writeln!(log.file, "DKMS (dkms-{}) make.log for {id} for kernel {target}", crate::VERSION)?;
        writeln!(log.file, "{}", date())?;
        Ok(log)
    }

    /// Goes on with the log of an earlier build, which comes from a store.
    pub fn resume(path: &Path, text: &[u8], store: &str) -> Result<Self> {
        let mut log = Self::create(path)?;
        log.file.write_all(text)?;
        writeln!(log.file, "\nTaken from {store}: nothing was compiled\n{}", date())?;
        Ok(log)
    }

    /// Starts a log without a header, in the place of an earlier one.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.set_len(0)?;
        Ok(Self { file })
    }

    /// Where the log is.
    pub fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }

    /// All that has been logged. What a build has put into the log's place meanwhile is not it.
    pub fn text(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut file = &self.file;
        file.rewind()?;
        file.read_to_end(&mut text)?;
        Ok(text)
    }

    /// What the program of the last step said.
    pub fn last_step(&self) -> Option<String> {
        Some(last_step(&String::from_utf8_lossy(&self.text().ok()?)).to_owned())
    }

    /// Runs one step and logs it: title, the command as `shown`, output, exit code, time.
    pub fn step(&mut self, title: &str, shown: &str, run: Run) -> Result<Ended> {
        writeln!(self.file, "\n{title}\n# command: {shown}")?;
        let begun = Instant::now();
        let ended = run.end(Output::Log(&self.file))?;
        let seconds = begun.elapsed().as_secs();
        if ended.timed_out() {
            writeln!(self.file, "\n# ended: {TOO_LONG}")?;
        }
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let noted = writeln!(
            self.file,
            "\n# exit code: {}\n# elapsed time: {hours:02}:{minutes:02}:{seconds:02}\n{}",
            ended.code(),
            "-".repeat(64)
        );
        // A full disk ends the program and the log alike, and the program's end says more.
        if ended.success() {
            noted?;
        }
        Ok(ended)
    }

    /// A line of our own, for what no program says.
    pub fn note(&self, text: &str) -> Result<()> {
        Ok(writeln!(&mut &self.file, "\n{text}")?)
    }

    /// Why the last step failed, from what it said: one line, shortened to what fits a message.
    pub fn first_error(&self, ended: &Ended) -> Option<String> {
        if ended.timed_out() {
            return Some(TOO_LONG.to_owned());
        }
        let line = first_error(&String::from_utf8_lossy(&self.text().ok()?)).or_else(|| self.full_disk())?;
        // A log is not to play tricks on the terminal of whoever reads the message.
        let line = console::strip_ansi_codes(&line);
        Some(line.chars().filter(|char| !char.is_control()).take(200).collect())
    }

    /// Where there is no space left the log may lack just the line that says so.
    fn full_disk(&self) -> Option<String> {
        let directory = self.file.path().parent()?;
        let left = nix::sys::statvfs::statvfs(directory).ok()?.blocks_available();
        (left == 0).then(|| format!("no space left on the file system of {}", directory.display()))
    }
}

/// The time as date(1) prints it in the C locale, in UTC.
fn date() -> String {
    jiff::Timestamp::now().strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tools::Tool;

    #[test]
    fn a_log_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (build_dir, other) = (dir.path().join("build"), dir.path().join("other"));
        fs_err::create_dir(&build_dir).unwrap();
        fs_err::write(&other, "somebody's").unwrap();
        fs_err::os::unix::fs::symlink(&other, build_dir.join("make.log")).unwrap();
        let id = ModuleId::new("foo", "1.0").unwrap();
        let target =
            Target { kernel: "6.1".parse().unwrap(), arch: crate::module::Arch::new("x86_64").unwrap() };
        MakeLog::start(&build_dir, &id, &target).unwrap();
        assert_eq!(fs_err::read_to_string(&other).unwrap(), "somebody's");
    }

    #[test]
    fn the_error_of_a_message_is_one_plain_short_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = MakeLog::create(&dir.path().join("make.log")).unwrap();
        let script = "printf 'a.c:1:1: \\033[31merror: \\033[0m\\a%0300d' 7; exit 1";
        let ended =
            log.step("Building", "make", Run::new(Tool::Bash).unwrap().arg("-c").arg(script)).unwrap();
        let line = log.first_error(&ended).unwrap();
        assert!(line.starts_with("a.c:1:1: error: 000"), "{line:?}");
        assert_eq!(line.chars().count(), 200);
    }
}
