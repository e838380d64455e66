// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only runner of programs. Every program gets a fixed PATH, no standard input, a process
//! group of its own (so that it can be ended whole; but see [`Run::foreground`]) and none of
//! make's variables unless the caller hands it our jobserver.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
#[allow(clippy::disallowed_types)]
use std::process::Command;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use fs_err::File;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::sys::confine::Confinement;
use crate::sys::{files, report, signals};

/// Where programs are looked for.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What must not leak from our environment into the programs that we run: another make's
/// jobserver and switches, and what makes shells and loaders run foreign code.
const CLEARED: [&str; 9] = [
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "GNUMAKEFLAGS",
    "BASH_ENV",
    "ENV",
    "CDPATH",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
];

/// The environment variables of ours that the programs we run have, too, sorted by name.
pub fn inherited() -> Vec<(String, String)> {
    let kept = |(name, _): &(String, String)| name != "PATH" && !CLEARED.contains(&name.as_str());
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let mut variables: BTreeMap<_, _> =
        std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).filter(kept).collect();
    variables.extend(LENT.get().into_iter().flatten().cloned());
    variables.into_iter().collect()
}

/// What a replayed run's environment had for the programs that it ran.
static LENT: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Lends variables to every program that is run from now on, for the rest of the process.
pub fn lend(variables: Vec<(String, String)>) {
    LENT.get_or_init(|| variables);
}

/// The programs that dkms-hooks ever runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Bash,
    Booster,
    Bsdtar,
    Ccache,
    ClrBootManager,
    CreaterepoC,
    Depmod,
    Distcc,
    DpkgBuildpackage,
    DpkgDeb,
    DpkgQuery,
    Dracut,
    Getent,
    GrubEditenv,
    GrubMkconfig,
    Icecc,
    KernelInstall,
    Kmod,
    Kmodsign,
    LinuxRunHooks,
    Mcopy,
    MkfsErofs,
    MkfsVfat,
    Mkinitcpio,
    Mkinitfs,
    Mkisofs,
    Mksquashfs,
    Modprobe,
    Openssl,
    PacmanConf,
    Patch,
    Rpm,
    Rpmbuild,
    RunParts,
    Sccache,
    Strip,
    UpdateGrub,
    UpdateInitramfs,
    UpdateSecurebootPolicy,
    WeakModules,
    WeakModules2,
}

impl Tool {
    /// The program's file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Booster => "booster",
            Self::Bsdtar => "bsdtar",
            Self::Ccache => "ccache",
            Self::ClrBootManager => "clr-boot-manager",
            Self::CreaterepoC => "createrepo_c",
            Self::Depmod => "depmod",
            Self::Distcc => "distcc",
            Self::DpkgBuildpackage => "dpkg-buildpackage",
            Self::DpkgDeb => "dpkg-deb",
            Self::DpkgQuery => "dpkg-query",
            Self::Dracut => "dracut",
            Self::Getent => "getent",
            Self::GrubEditenv => "grub-editenv",
            Self::GrubMkconfig => "grub-mkconfig",
            Self::Icecc => "icecc",
            Self::KernelInstall => "kernel-install",
            Self::Kmod => "kmod",
            Self::Kmodsign => "kmodsign",
            Self::LinuxRunHooks => "linux-run-hooks",
            Self::Mcopy => "mcopy",
            Self::MkfsErofs => "mkfs.erofs",
            Self::MkfsVfat => "mkfs.vfat",
            Self::Mkinitcpio => "mkinitcpio",
            Self::Mkinitfs => "mkinitfs",
            Self::Mkisofs => "mkisofs",
            Self::Mksquashfs => "mksquashfs",
            Self::Modprobe => "modprobe",
            Self::Openssl => "openssl",
            Self::PacmanConf => "pacman-conf",
            Self::Patch => "patch",
            Self::Rpm => "rpm",
            Self::Rpmbuild => "rpmbuild",
            Self::RunParts => "run-parts",
            Self::Sccache => "sccache",
            Self::Strip => "strip",
            Self::UpdateGrub => "update-grub",
            Self::UpdateInitramfs => "update-initramfs",
            Self::UpdateSecurebootPolicy => "update-secureboot-policy",
            Self::WeakModules => "weak-modules",
            Self::WeakModules2 => "weak-modules2",
        }
    }

    /// The package that brings it, as most distributions call it.
    fn package(self) -> &'static str {
        match self {
            Self::Bsdtar => "libarchive",
            Self::PacmanConf => "pacman",
            Self::DpkgBuildpackage => "dpkg-dev",
            Self::DpkgDeb | Self::DpkgQuery => "dpkg",
            Self::Depmod | Self::Modprobe | Self::WeakModules => "kmod",
            Self::GrubEditenv | Self::GrubMkconfig | Self::UpdateGrub => "grub2-common",
            Self::Getent => "libc-bin",
            Self::KernelInstall => "systemd",
            Self::Kmodsign => "sbsigntool",
            Self::LinuxRunHooks => "linux-base",
            Self::Rpmbuild => "rpm-build (on Debian rpm)",
            Self::RunParts => "debianutils",
            Self::Strip => "binutils",
            Self::Mcopy => "mtools",
            Self::MkfsErofs => "erofs-utils",
            Self::MkfsVfat => "dosfstools",
            Self::Mkisofs => "xorriso",
            Self::Mksquashfs => "squashfs-tools",
            Self::UpdateInitramfs => "initramfs-tools",
            Self::UpdateSecurebootPolicy => "shim-signed",
            Self::WeakModules2 => "suse-module-tools",
            other => other.name(),
        }
    }

    /// Where the program is, if it is installed.
    pub fn find(self) -> Option<PathBuf> {
        match self {
            // Nobody is meant to type it.
            Self::WeakModules2 => find_in("/usr/lib/module-init-tools", self.name()),
            // xorriso and genisoimage are what there is of it today.
            Self::Mkisofs => ["mkisofs", "xorrisofs", "genisoimage"].into_iter().find_map(find),
            // Fedora and SUSE call them so.
            Self::GrubEditenv => find(self.name()).or_else(|| find("grub2-editenv")),
            Self::GrubMkconfig => find(self.name()).or_else(|| find("grub2-mkconfig")),
            _ => find(self.name()),
        }
    }
}

/// Where a program is that is no [`Tool`], because a configuration or another machine names it.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(PATH, name)
}

fn find_in(directories: &str, name: &str) -> Option<PathBuf> {
    directories.split(':').map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

/// Whether there is a program whose name begins like this.
pub fn has_any(prefix: &str) -> bool {
    let begins = |directory: &str| {
        let names = files::names(Path::new(directory)).unwrap_or_default();
        names.iter().any(|name| name.starts_with(prefix))
    };
    PATH.split(':').any(begins)
}

/// Where a program's standard output and standard error go.
#[derive(Debug)]
pub enum Output<'a> {
    /// Both to our own, as they are written.
    Shown,
    /// Both to the end of this file, in the order written.
    Log(&'a File),
    /// Both into [`Ended::output`], in the order written.
    Merged,
    /// Standard output into [`Ended::output`], standard error into [`Ended::errors`].
    Apart,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    timed_out: bool,
    pub output: Vec<u8>,
    pub errors: Vec<u8>,
}

impl Ended {
    /// Whether the program exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code as a shell reports it: 128 + n after signal n.
    pub fn code(&self) -> u8 {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
            (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            (None, None) => u8::MAX,
        }
    }

    /// Whether the program was ended because its time was up.
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }
}

/// A program about to be run.
#[derive(Debug)]
#[allow(clippy::disallowed_types)]
pub struct Run {
    name: String,
    command: Command,
    shown: Vec<String>,
    limit: Option<Duration>,
    foreground: bool,
    confinement: Option<Confinement>,
}

#[allow(clippy::disallowed_types)]
impl Run {
    /// Fails if the program is not installed, naming the package to install.
    pub fn new(tool: Tool) -> Result<Self> {
        let program = tool.find().ok_or_else(|| {
            anyhow!("{} is not installed; install the package {}", tool.name(), tool.package())
        })?;
        let mut run = Self::program(&program);
        run.command.arg0(tool.name());
        run.name = tool.name().to_owned();
        run.shown = vec![tool.name().to_owned()];
        Ok(run)
    }

    /// A program that is no [`Tool`], because a configuration names it.
    pub fn program(path: &Path) -> Self {
        let mut command = Command::new(path);
        command.env("PATH", PATH).stdin(Stdio::null());
        for name in CLEARED {
            command.env_remove(name);
        }
        command.envs(LENT.get().into_iter().flatten().map(|(name, value)| (name, value)));
        let name = path.display().to_string();
        let shown = vec![name.clone()];
        Self { shown, name, command, limit: None, foreground: false, confinement: None }
    }

    /// Like [`Self::new`], the program being kept from the rest of the system.
    pub fn confined(tool: Tool, confinement: &Confinement) -> Result<Self> {
        let found = Self::new(tool)?;
        let mut run = Self::new(Tool::Bash)?.user(confinement.user);
        // By its name, which programs give in their messages. The caller's TMPDIR is not lent to it.
        run.command.args(Confinement::shell_arguments()).arg(tool.name()).env_remove("TMPDIR");
        (run.name, run.shown) = (found.name, found.shown);
        run.confinement = Some(confinement.clone());
        Ok(run)
    }

    /// Has the program be of a user and the group of the same number, and of no other.
    pub fn user(mut self, number: u32) -> Self {
        // The standard library drops the further groups along with the user.
        self.command.uid(number).gid(number);
        self
    }

    /// Where the program is.
    pub fn path(&self) -> PathBuf {
        self.command.get_program().into()
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.shown.push(arg.as_ref().to_string_lossy().into_owned());
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<std::ffi::OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Starts from an empty environment but for PATH.
    pub fn clean_environment(mut self) -> Self {
        self.command.env_clear().env("PATH", PATH);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets environment variables.
    pub fn envs(self, variables: &[(String, String)]) -> Self {
        variables.iter().fold(self, |run, (name, value)| run.env(name, value))
    }

    /// Has the program speak English, whatever the user's language, as far as locale(7) lets us
    /// choose its messages alone.
    pub fn english(mut self) -> Self {
        if let Ok(all) = std::env::var("LC_ALL")
            && !all.is_empty()
        {
            // It overrules LC_MESSAGES; in its stand LANG goes for the rest.
            for name in ["LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_NUMERIC", "LC_TIME"] {
                self.command.env_remove(name);
            }
            self.command.env("LANG", all);
        }
        self.env("LC_MESSAGES", "C")
    }

    /// The directory to run in.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// A file for standard input.
    pub fn input(mut self, file: File) -> Self {
        self.command.stdin(file.into_parts().0);
        self
    }

    /// What the program reads from standard input.
    pub fn text(self, text: &str) -> Result<Self> {
        let named = || format!("passing text to {}", self.name);
        let mut file = tempfile::tempfile().with_context(named)?;
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).with_context(named)?;
        Ok(self.input(File::from_parts(file, "standard input")))
    }

    /// Ends the program and its children when it runs longer.
    pub fn limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// Leaves the program in our own process group, so that it may ask on the terminal, if there
    /// is one: of another group it would be stopped at that (termios(3), SIGTTIN).
    pub fn foreground(mut self) -> Self {
        self.foreground = true;
        self
    }

    /// Lets the makes below this program share our jobserver.
    pub fn jobserver(mut self, client: &jobserver::Client) -> Self {
        client.configure_make(&mut self.command);
        // Cargo's variable means nothing to make.
        self.command.env_remove("CARGO_MAKEFLAGS");
        self
    }

    /// The command as one can paste it into a shell.
    pub fn pasteable(&self) -> String {
        shell_words::join(&self.shown)
    }

    /// Runs to the end; fails only if the program could not be started.
    pub fn end(self, output: Output<'_>) -> Result<Ended> {
        if self.foreground || matches!(output, Output::Shown) {
            return report::aside(|| self.wait(output));
        }
        self.wait(output)
    }

    fn wait(mut self, output: Output<'_>) -> Result<Ended> {
        if signals::caught().is_some() {
            bail!("not running {}: a signal asked to stop", self.name);
        }
        if !self.foreground {
            self.command.process_group(0);
        }
        let starting = || format!("starting {}", self.name);
        let mut readers = (None, None);
        match output {
            Output::Shown => {}
            Output::Log(file) => {
                let out = file.file().try_clone().with_context(starting)?;
                self.command.stderr(out.try_clone().with_context(starting)?).stdout(out);
            }
            Output::Merged => {
                let (reader, writer) = std::io::pipe().with_context(starting)?;
                self.command.stderr(writer.try_clone().with_context(starting)?).stdout(writer);
                readers.0 = Some(reader);
            }
            Output::Apart => {
                let (out, writer) = std::io::pipe().with_context(starting)?;
                self.command.stdout(writer);
                let (errors, writer) = std::io::pipe().with_context(starting)?;
                self.command.stderr(writer);
                readers = (Some(out), Some(errors));
            }
        }
        let child = {
            let _nobody_writes = files::WRITING.write().unwrap_or_else(PoisonError::into_inner);
            self.spawn()
        };
        // Our copies of the pipes' write ends live in the Command: a reader would wait for them.
        let Self { name, command, limit, foreground, .. } = self;
        drop(command);
        let mut child = child.with_context(|| format!("starting {name}"))?;
        let register = if foreground { signals::Group::register_process } else { signals::Group::register };
        let group = register(child.id());
        if signals::caught().is_some() {
            group.end(); // the signal came before there was a group to pass it on to
        }
        let (done, ended) = ((Mutex::new(false), Condvar::new()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (group, done, ended) = (&group, &done, &ended);
            let watchdog = limit.map(|limit| scope.spawn(move || end_after(limit, group, done)));
            let read = |pipe| scope.spawn(move || drain(pipe, ended));
            let (output, errors) = (readers.0.map(read), readers.1.map(read));
            let status = child.wait();
            ended.store(true, Ordering::Release);
            *done.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            done.1.notify_all();
            let joined = |handle: std::thread::ScopedJoinHandle<'_, std::io::Result<Vec<u8>>>| {
                handle.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()))
            };
            let reading = || format!("reading the output of {name}");
            Ok(Ended {
                status: status.with_context(|| format!("waiting for {name}"))?,
                timed_out: watchdog.is_some_and(|handle| handle.join().unwrap_or(false)),
                output: output.map(joined).transpose().with_context(reading)?.unwrap_or_default(),
                errors: errors.map(joined).transpose().with_context(reading)?.unwrap_or_default(),
            })
        })
    }

    /// What a thread is confined to its children inherit, and nothing of it can be taken back.
    fn spawn(&mut self) -> Result<Child> {
        let command = &mut self.command;
        let Some(confinement) = &self.confinement else { return Ok(command.spawn()?) };
        let spawned = std::thread::scope(|scope| {
            let confined = scope.spawn(move || {
                confinement.enter()?;
                Ok(command.spawn()?)
            });
            confined.join()
        });
        spawned.unwrap_or_else(|_| Err(anyhow!("its thread ended early")))
    }

    /// Runs to the end and fails unless the program succeeded; the error shows the command, its
    /// exit code and the last lines of what it said.
    pub fn succeed(self) -> Result<Vec<u8>> {
        let shown = self.pasteable();
        let ended = self.end(Output::Merged)?;
        if ended.success() {
            return Ok(ended.output);
        }
        let said = String::from_utf8_lossy(&ended.output).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let tail: String =
            lines[lines.len().saturating_sub(10)..].iter().map(|line| format!("\n  {line}")).collect();
        bail!("`{shown}` ended with status {}{tail}", ended.code())
    }
}

/// Returns whether the time was up before the program had ended.
fn end_after(limit: Duration, group: &signals::Group, done: &(Mutex<bool>, Condvar)) -> bool {
    let finished = done.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (finished, _) = done
        .1
        .wait_timeout_while(finished, limit, |finished| !*finished)
        .unwrap_or_else(PoisonError::into_inner);
    if *finished {
        return false;
    }
    group.kill();
    true
}

/// Reads what a program says. What it leaves behind may hold the pipe for ever: once it has ended, only
/// what is there already is waited for.
fn drain(mut pipe: std::io::PipeReader, ended: &AtomicBool) -> std::io::Result<Vec<u8>> {
    const LOOK_AGAIN: u16 = 100; // milliseconds
    /// No pipe holds more (pipe(7)); what is said later is said by others.
    const LAST_WORDS: usize = 1 << 20;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    let mut said_at_end = None;
    loop {
        // Looked at first: what was said before the end is in the pipe by then.
        let was_over = ended.load(Ordering::Acquire);
        if was_over && bytes.len() - *said_at_end.get_or_insert(bytes.len()) > LAST_WORDS {
            return Ok(bytes);
        }
        let wait = if was_over { 0 } else { LOOK_AGAIN };
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) if was_over => return Ok(bytes),
            Ok(0) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => match pipe.read(&mut chunk) {
                Ok(0) => return Ok(bytes),
                Ok(length) => bytes.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    fn bash(script: &str) -> Run {
        Run::new(Tool::Bash).unwrap().arg("-c").arg(script)
    }

    #[test]
    fn streams_come_apart_or_merged_in_order() {
        let ended = bash("echo out; echo err >&2").end(Output::Apart).unwrap();
        assert_eq!((ended.output.as_slice(), ended.errors.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        let ended = bash("echo a; echo b >&2; echo c").end(Output::Merged).unwrap();
        assert_eq!(ended.output, b"a\nb\nc\n");
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let begun = std::time::Instant::now();
        let ended = bash("sleep 30 & echo $!; echo err >&2").end(Output::Apart).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(ended.errors, b"err\n");
        let left: i32 = String::from_utf8(ended.output).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn text_is_what_a_program_reads() {
        let ended =
            bash("cat; read more || echo end").text("one\ntwo\n").unwrap().end(Output::Apart).unwrap();
        assert_eq!(ended.output, b"one\ntwo\nend\n");
    }

    #[test]
    fn a_program_over_its_time_is_ended_with_its_children() {
        let ended = bash("sleep 60 & sleep 60; true")
            .limit(Some(Duration::from_millis(100)))
            .end(Output::Merged)
            .unwrap();
        assert!(ended.timed_out() && !ended.success());
    }

    #[test]
    fn a_failure_shows_command_code_and_last_words() {
        let error = bash("echo because; exit 3").succeed().unwrap_err().to_string();
        assert!(
            error.contains("bash -c 'echo because; exit 3'")
                && error.contains("status 3")
                && error.contains("because")
        );
    }

    #[test]
    fn programs_speak_english_when_told_to() {
        let ended = bash("echo \"[$LC_ALL$LC_MESSAGES]\"").english().end(Output::Apart).unwrap();
        assert_eq!(ended.output, b"[C]\n");
    }

    #[test]
    fn an_inherited_jobserver_does_not_reach_programs() {
        let ended = bash("echo \"[$MAKEFLAGS]\"").end(Output::Apart).unwrap();
        assert_eq!(ended.output, b"[]\n");
    }
}
