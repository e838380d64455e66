// SPDX-License-Identifier: MIT OR Apache-2.0
//! `Root`, the only maker of absolute paths: the running system, an offline image
//! (`--root DIR`), or a directory that a test made up.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Where absolute paths begin, and whether the running kernel may be looked at.
#[derive(Debug, Clone)]
pub struct Root {
    prefix: PathBuf,
    live: bool,
}

impl Root {
    /// The system that this process runs on.
    pub fn live() -> Self {
        Self { prefix: PathBuf::from("/"), live: true }
    }

    /// A directory seen as a root without entering it, for tests over made-up trees.
    pub fn at(prefix: &Path) -> Self {
        Self { prefix: prefix.to_owned(), live: false }
    }

    /// A directory seen as the root of the running system, whose /proc and /sys are then the
    /// directory's, for tests over made-up machines.
    #[cfg(test)]
    pub(crate) fn machine(prefix: &Path) -> Self {
        Self { prefix: prefix.to_owned(), live: true }
    }

    /// Enters an offline image for the rest of this process, so that absolute symbolic links in
    /// the image and the programs that are run see the image and nothing else.
    ///
    /// Root gets a private mount namespace with a minimal /dev, an ordinary user a user
    /// namespace (good enough to read). The host's /proc and /sys are never visible inside.
    /// Must be called while the process has a single thread (unshare(2)).
    pub fn enter(image: &Path) -> Result<Self> {
        if !image.is_dir() {
            bail!("--root {} is not a directory", image.display());
        }
        let as_root = nix::unistd::geteuid().is_root();
        let spaces = if as_root {
            CloneFlags::CLONE_NEWNS
        } else {
            CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS
        };
        let private = unshare(spaces);
        let none = None::<&str>;
        // In a chroot / is no mount point, and mounts cannot be kept from the system around it:
        // the image's own /dev has to do there.
        if as_root
            && private.is_ok()
            && mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).is_ok()
        {
            bind_devices(image)?;
        }
        nix::unistd::chroot(image).with_context(|| format!("entering the image {}", image.display()))?;
        nix::unistd::chdir("/").context("entering the image's root directory")?;
        Ok(Self { prefix: PathBuf::from("/"), live: false })
    }

    /// The place of an absolute path below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.prefix.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Whether this is another root than the machine's: an image is one always, and so is a root
    /// where /proc is not mounted. The first process may not be looked at from within containers;
    /// then a root is a chroot if nothing is mounted on it (proc(5), mountinfo).
    pub fn is_chroot(&self) -> bool {
        if !self.live {
            return true;
        }
        let place = |path| fs_err::metadata(self.path(path)).map(|meta| (meta.dev(), meta.ino()));
        match (place("/proc/1/root"), place("/")) {
            (Ok(first), Ok(ours)) => first != ours,
            (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => true,
            _ => fs_err::read_to_string(self.path("/proc/self/mountinfo"))
                .is_ok_and(|mounts| !has_root(&mounts)),
        }
    }

    /// Whether the running kernel, /proc and /sys belong to this root.
    pub fn is_live(&self) -> bool {
        self.live
    }
}

/// Whether a mountinfo lists what is mounted on /, its fifth field.
fn has_root(mounts: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

/// Compilers and makefiles need /dev/null; images often come without device nodes.
fn bind_devices(image: &Path) -> Result<()> {
    let dev = image.join("dev");
    if dev.join("null").exists() || !dev.is_dir() {
        return Ok(());
    }
    let none = None::<&str>;
    let staged = tempfile::tempdir().context("making a place for the image's device nodes")?;
    mount(Some("tmpfs"), staged.path(), Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"))
        .context("mounting a private /dev for the image")?;
    for node in ["null", "zero", "full", "random", "urandom"] {
        let place = staged.path().join(node);
        fs_err::write(&place, "")?;
        mount(Some(Path::new("/dev").join(node).as_path()), &place, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("lending /dev/{node} to the image"))?;
    }
    mount(Some(staged.path()), &dev, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .context("mounting a private /dev over the image's")?;
    // The bind mount keeps the file system alive; its first mount point is not needed any more.
    nix::mount::umount2(staged.path(), nix::mount::MntFlags::MNT_DETACH)
        .context("detaching the staging mount of the image's /dev")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::whole("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / /proc rw - proc proc rw\n", true)]
    #[case::chroot("23 22 0:5 / /proc rw - proc proc rw\n24 22 0:6 / /dev rw - tmpfs tmpfs rw\n", false)]
    fn a_chroot_sees_only_what_is_mounted_below_it(#[case] mounts: &str, #[case] has: bool) {
        assert_eq!(has_root(mounts), has);
    }

    #[test]
    fn absolute_paths_stay_below_the_prefix() {
        let root = Root::at(Path::new("/image"));
        assert_eq!(root.path("/etc/dkms"), Path::new("/image/etc/dkms"));
        assert_eq!(Root::live().path("/etc/dkms"), Path::new("/etc/dkms"));
        assert!(!root.is_live() && root.is_chroot());
    }
}
