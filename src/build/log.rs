// SPDX-License-Identifier: MIT OR Apache-2.0
//! make.log: everything that the steps of a build said, in dkms's layout, and the first real
//! error line in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use fs_err::{File, OpenOptions};

use crate::module::{ModuleId, Target};
use crate::sys::files;
use crate::sys::tools::{Ended, Output, Run};

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

    /// Starts a log without a header, in the place of an earlier one.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        file.set_len(0)?;
        Ok(Self { file })
    }

    /// Where the log is.
    pub fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }

    /// Runs one step and logs it: title, the command as `shown`, output, exit code, time.
    pub fn step(&mut self, title: &str, shown: &str, run: Run) -> Result<Ended> {
        writeln!(self.file, "\n{title}\n# command: {shown}")?;
        let begun = Instant::now();
        let ended = run.end(Output::Log(&self.file))?;
        let seconds = begun.elapsed().as_secs();
        if ended.timed_out() {
            writeln!(self.file, "\n# ended: it took longer than [build] timeout allows")?;
        }
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        writeln!(
            self.file,
            "\n# exit code: {}\n# elapsed time: {hours:02}:{minutes:02}:{seconds:02}\n{}",
            ended.code(),
            "-".repeat(64)
        )?;
        Ok(ended)
    }

    /// A line of our own, for what no program says.
    pub fn note(&self, text: &str) -> Result<()> {
        Ok(writeln!(&mut &self.file, "\n{text}")?)
    }

    /// The first line that tells why the build failed, shortened to what fits a message.
    pub fn first_error(&self) -> Option<String> {
        let text = fs_err::read(self.file.path()).ok()?;
        first_error(&String::from_utf8_lossy(&text)).map(|line| line.chars().take(200).collect())
    }
}

/// Finds the first line by which compilers, modpost, make and shells name a cause, not one of
/// the lines by which make merely passes a failure on.
fn first_error(log: &str) -> Option<&str> {
    const CAUSES: [&str; 9] = [
        ": error: ",
        ": fatal error: ",
        "ERROR: modpost: ",
        "No rule to make target",
        ": command not found",
        ": not found",
        "undefined reference",
        "No such file or directory",
        "Error! ",
    ];
    let lines = || log.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines()
        .find(|line| CAUSES.iter().any(|cause| line.contains(cause)))
        .or_else(|| lines().find(|line| line.starts_with("make") && line.contains("***")))
}

/// The time as date(1) prints it in the C locale, in UTC.
fn date() -> String {
    jiff::Timestamp::now().strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::compiler(
        "# command: x\n  CC foo.o\nfoo.c:3:5: error: unknown type\nmake: *** [x] Error 2\n",
        "foo.c:3:5: error: unknown type"
    )]
    #[case::modpost(
        "ERROR: modpost: \"gone\" [foo.ko] undefined!\n",
        "ERROR: modpost: \"gone\" [foo.ko] undefined!"
    )]
    #[case::only_make("make: *** [Makefile:2: all] Error 1\n", "make: *** [Makefile:2: all] Error 1")]
    fn the_cause_comes_before_what_follows_from_it(#[case] log: &str, #[case] want: &str) {
        assert_eq!(first_error(log), Some(want));
    }

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
    fn a_log_without_errors_has_none() {
        assert_eq!(first_error("# error: in a comment\n  LD foo.ko\n"), None);
    }
}
