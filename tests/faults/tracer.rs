// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a program and disturbs the N-th call of its own that changes a file: all threads count, the
//! programs that it runs do not (ptrace(2)).

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `FAULT N FILE -- COMMAND…`. What was disturbed is written to FILE; the result is the exit code.
pub fn main(words: &[String]) -> Result<u8> {
    let [fault, number, file, dashes, command @ ..] = words else {
        bail!("expected: trace FAULT N FILE -- COMMAND");
    };
    if dashes != "--" || command.is_empty() {
        bail!("expected: trace FAULT N FILE -- COMMAND");
    }
    let error = match fault.as_str() {
        "kill" => None,
        "ENOSPC" => Some(Errno::ENOSPC),
        "EIO" => Some(Errno::EIO),
        "EROFS" => Some(Errno::EROFS),
        "EMFILE" => Some(Errno::EMFILE),
        other => bail!("unknown fault {other}"),
    };
    let mut left: u64 = number.parse()?;
    let child =
        Command::new("/bin/sh").args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(command).spawn()?;
    let main = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).context("waiting for the shell")?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).context("tracing the shell")?;
    kill(main, Signal::SIGCONT)?;

    let mut is_ours = false;
    // Calls that are made to fail when they return.
    let mut failing: HashMap<Pid, Errno> = HashMap::new();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
        let mut deliver = None;
        let stopped = match status {
            WaitStatus::Exited(pid, code) if pid == main => return Ok(u8::try_from(code)?),
            WaitStatus::Signaled(pid, signal, _) if pid == main => {
                return Ok(128 + u8::try_from(signal as i32)?);
            }
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => continue,
            WaitStatus::PtraceEvent(pid, _, event) => {
                is_ours |= event == libc::PTRACE_EVENT_EXEC;
                pid
            }
            WaitStatus::PtraceSyscall(pid) => {
                let Ok(info) = ptrace::syscall_info(pid) else { continue };
                if is_ours && info.op == libc::PTRACE_SYSCALL_INFO_ENTRY && left > 0 {
                    // SAFETY of the union is the operation's: nix gives plain registers, too.
                    let registers = ptrace::getregs(pid)?;
                    if let Some(what) = changes(pid, &registers) {
                        left -= 1;
                        if left == 0 {
                            fs_err::write(file, what)?;
                            match error {
                                None => kill(main, Signal::SIGKILL)?,
                                Some(error) => {
                                    // No call has this number: nothing is done.
                                    let mut none = registers;
                                    none.orig_rax = u64::MAX;
                                    ptrace::setregs(pid, none)?;
                                    failing.insert(pid, error);
                                }
                            }
                        }
                    }
                } else if info.op == libc::PTRACE_SYSCALL_INFO_EXIT
                    && let Some(error) = failing.remove(&pid)
                {
                    let mut registers = ptrace::getregs(pid)?;
                    registers.rax = (-i64::from(error as i32)).cast_unsigned();
                    ptrace::setregs(pid, registers)?;
                }
                pid
            }
            WaitStatus::Stopped(pid, signal) => {
                deliver = Some(signal).filter(|signal| *signal != Signal::SIGTRAP);
                pid
            }
            _ => continue,
        };
        // One that has been killed meanwhile is not there any more.
        match ptrace::syscall(stopped, deliver) {
            Ok(()) | Err(Errno::ESRCH) => {}
            error => error.context("going on")?,
        }
    }
}

/// What a call would change, if it is one that does.
fn changes(pid: Pid, registers: &libc::user_regs_struct) -> Option<String> {
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
    let call = i64::try_from(registers.orig_rax).ok()?;
    let path = |at: usize| text(pid, arguments[at]);
    let named = |name: &str, at: usize| Some(format!("{name} {}", path(at)));
    let opened = |name: &str, at: usize, flags: u64| {
        let writes = flags & (libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY | libc::O_RDWR) as u64 != 0;
        let path = path(at);
        (writes && !path.starts_with("/dev/")).then(|| format!("{name} {path}"))
    };
    let written = |name: &str| {
        let number = arguments[0];
        let file = fs_err::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
        let is_file =
            number > 2 && file.starts_with("/") && !file.starts_with("/dev") && !file.starts_with("/proc");
        is_file.then(|| format!("{name} {}", file.display()))
    };
    match call {
        libc::SYS_open => opened("open", 0, arguments[1]),
        libc::SYS_openat => opened("openat", 1, arguments[2]),
        libc::SYS_creat => named("creat", 0),
        libc::SYS_write => written("write"),
        libc::SYS_writev => written("writev"),
        libc::SYS_pwrite64 => written("pwrite"),
        libc::SYS_ftruncate => written("ftruncate"),
        libc::SYS_fallocate => written("fallocate"),
        libc::SYS_fsync => written("fsync"),
        libc::SYS_fdatasync => written("fdatasync"),
        libc::SYS_fchmod => written("fchmod"),
        libc::SYS_fchown => written("fchown"),
        libc::SYS_sendfile => written("sendfile"),
        // The file that is written comes third.
        libc::SYS_copy_file_range => Some("copy_file_range".to_owned()),
        libc::SYS_rename => named("rename", 1),
        libc::SYS_renameat | libc::SYS_renameat2 => named("renameat", 3),
        libc::SYS_link => named("link", 1),
        libc::SYS_linkat => named("linkat", 3),
        libc::SYS_symlink => named("symlink", 1),
        libc::SYS_symlinkat => named("symlinkat", 2),
        libc::SYS_unlink => named("unlink", 0),
        libc::SYS_unlinkat => named("unlinkat", 1),
        libc::SYS_rmdir => named("rmdir", 0),
        libc::SYS_mkdir => named("mkdir", 0),
        libc::SYS_mkdirat => named("mkdirat", 1),
        libc::SYS_mknod => named("mknod", 0),
        libc::SYS_mknodat => named("mknodat", 1),
        libc::SYS_chmod => named("chmod", 0),
        libc::SYS_fchmodat => named("fchmodat", 1),
        libc::SYS_chown | libc::SYS_lchown => named("chown", 0),
        libc::SYS_fchownat => named("fchownat", 1),
        libc::SYS_truncate => named("truncate", 0),
        libc::SYS_utimensat => named("utimensat", 1),
        _ => None,
    }
}

/// A string of the traced program.
fn text(pid: Pid, address: u64) -> String {
    use std::os::unix::fs::FileExt;
    let read = || -> Result<String> {
        let memory = fs_err::File::open(PathBuf::from(format!("/proc/{pid}/mem")))?;
        let mut bytes = [0; 512];
        let length = memory.file().read_at(&mut bytes, address)?;
        let end = bytes[..length].iter().position(|byte| *byte == 0).unwrap_or(length);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    read().unwrap_or_default()
}
