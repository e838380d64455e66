// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps a program from the rest of the system: it is an ordinary user that nobody else is, sees all but
//! a few directories read-only and a /tmp of its own, has no network and no way to more privileges, and
//! ends with all that it started. By namespaces(7), Landlock (landlock(7)) and setrlimit(2).

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, path_beneath_rules,
};
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::stat::Mode;

use crate::sys::namespace::{bind, make_read_only, make_writable, mounts, own_root};
use crate::sys::tools::{Output, Run, Tool};

/// What a program is kept to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// The number of the user and of the group that it becomes.
    pub user: u32,
    /// The directories that it may write to. They have to be its own.
    pub writable: Vec<PathBuf>,
    /// The directories that it has to see even if they are below one that it gets for itself.
    pub visible: Vec<PathBuf>,
    /// Shown to it as `/tmp` and the like.
    pub scratch: PathBuf,
    /// Whether it gets namespaces of its own. Without, Landlock and being nobody of importance have to
    /// do; /tmp is everybody's, and what it leaves running goes on.
    pub has_namespaces: bool,
    /// Whether it may use the network.
    pub has_network: bool,
}

/// Where programs put what they need for a while only.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// File systems of which one that does not answer must not stop us: they may wait for another machine or
/// another program for ever.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs", "autofs"];

/// What the shell does before and around a program. It is the first process in its namespace (pid_namespaces(7)):
/// signals without a handler do not reach it, and nothing that was started outlives it. Sizes are in KiB; whoever
/// has less already keeps that.
const AROUND: &str = "{ ulimit -c 0; ulimit -f 16777216; ulimit -u 8192; } 2>/dev/null\n\
                      trap 'exit 143' TERM\n\
                      \"$@\" <&0 &\n\
                      wait \"$!\"";

impl Confinement {
    /// The arguments of a bash that runs a program, whose path and arguments follow.
    pub(super) fn shell_arguments() -> [&'static str; 3] {
        ["-c", AROUND, "bash"]
    }

    /// Confines the calling thread, which is to start one program and to end then: it cannot mount, or
    /// start threads, any more.
    pub(super) fn enter(&self) -> Result<()> {
        if self.has_namespaces {
            self.isolate()?;
        }
        set_no_new_privs().context("giving up all further privileges")?;
        self.landlock().context("having Landlock keep files from changes")
    }

    /// Why programs cannot have these namespaces; nothing if they can.
    pub fn why_no_namespaces(&self) -> Option<String> {
        let tried = std::thread::scope(|scope| scope.spawn(|| self.isolate()).join());
        match tried {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("the trial's thread ended early".to_owned()),
        }
    }

    fn isolate(&self) -> Result<()> {
        leave(self.has_network)?;
        // All are held on to before the first is covered.
        let held = |path: &PathBuf| {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
            let file =
                open(path, flags, Mode::empty()).with_context(|| format!("looking at {}", path.display()))?;
            Ok((file, path.clone()))
        };
        let writable = self.writable.iter().map(held).collect::<Result<Vec<_>>>()?;
        let hidden = |path: &&PathBuf| SCRATCH.iter().any(|scratch| path.starts_with(scratch));
        let visible = self.visible.iter().filter(hidden).map(held).collect::<Result<Vec<_>>>()?;
        let scratch = held(&self.scratch)?;
        for mount in mounts()? {
            // One that is on the root file system was not mounted for nothing, and does answer.
            if mount.point != "/" && (REMOTE.contains(&&*mount.fs) || mount.fs.starts_with("fuse")) {
                continue;
            }
            // It may have been mounted below another one that covers it.
            let _ = make_read_only(Path::new(&mount.point), flags(&mount.flags));
        }
        let root = nix::sys::statvfs::statvfs("/").context("looking at the mounted file systems")?;
        if !root.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
            bail!("/ cannot be kept from changes");
        }
        let reopened =
            |file: &std::os::fd::OwnedFd| PathBuf::from(format!("/proc/thread-self/fd/{}", file.as_raw_fd()));
        for place in SCRATCH.iter().filter(|place| Path::new(place).is_dir()) {
            bind(&reopened(&scratch.0), Path::new(place))?;
            make_writable(Path::new(place))?;
        }
        for (file, path) in &visible {
            if !path.exists() {
                fs::create_dir_all(path)?;
            }
            bind(&reopened(file), path)?;
        }
        for (file, path) in &writable {
            if !path.exists() {
                fs::create_dir_all(path)?;
            }
            bind(&reopened(file), path)?;
            make_writable(path)?;
        }
        Ok(())
    }

    /// What the kernel's Landlock does not know yet is left out.
    fn landlock(&self) -> Result<()> {
        const KNOWN: ABI = ABI::V5;
        let all = AccessFs::from_all(KNOWN);
        let device =
            AccessFs::from_read(KNOWN) | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
        let scratch = SCRATCH.iter().map(Path::new).filter(|place| place.is_dir());
        let writable = self.writable.iter().map(PathBuf::as_path).chain(scratch);
        let mut rules = Ruleset::default().handle_access(all)?;
        if !self.has_network {
            rules = rules.handle_access(AccessNet::from_all(KNOWN))?;
        }
        rules
            .create()?
            .add_rules(path_beneath_rules(["/"], AccessFs::from_read(KNOWN)))?
            .add_rules(path_beneath_rules(["/dev"], device))?
            .add_rules(path_beneath_rules(writable, all))?
            .restrict_self()?;
        Ok(())
    }
}

/// Leaves the mounts, the network, and the processes to come, that everybody else has.
fn leave(keeps_network: bool) -> Result<()> {
    let network = if keeps_network { CloneFlags::empty() } else { CloneFlags::CLONE_NEWNET };
    let spaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID;
    unshare(spaces | network).context("making namespaces")?;
    own_root()
}

/// Why this process cannot run programs as another user; nothing if it can.
pub fn why_no_other_user(user: u32) -> Option<String> {
    let run = Run::new(Tool::Bash).map(|run| run.arg("-c").arg("exit 0").user(user));
    let tried = run.and_then(|run| run.end(Output::Merged));
    match tried {
        Ok(ended) if ended.success() => None,
        Ok(ended) => Some(format!("a shell of user {user} ended with status {}", ended.code())),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// The options of a mount that a remount would take away (mount(2), "Remounting an existing mount").
fn flags(options: &str) -> MsFlags {
    options.split(',').fold(MsFlags::empty(), |flags, option| {
        flags
            | match option {
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                _ => MsFlags::empty(),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_a_mount_stays() {
        assert_eq!(flags("rw,nosuid,nodev,relatime"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(flags("ro,noexec"), MsFlags::MS_NOEXEC);
        assert_eq!(flags(""), MsFlags::empty());
    }
}
