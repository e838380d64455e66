// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thread's or a process's own view of what is mounted (mount_namespaces(7)): what it mounts, nobody
//! else sees.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot};

use crate::sys::mounts::{Mount, mounted};

const NONE: Option<&str> = None;

/// Keeps what is mounted from now on from everybody else. In a chroot / is often no mount point; what
/// is mounted in it is seen all the same, and only below that may anything be mounted then: all of
/// `needed` has to be there.
pub fn keep_private(needed: &[&Path]) -> Result<()> {
    let whole = mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE);
    if whole.is_ok() {
        return Ok(());
    }
    let points = mount_points()?;
    for point in &points {
        mount(NONE, point, NONE, MsFlags::MS_PRIVATE, NONE)
            .with_context(|| format!("keeping what is mounted at {} from everybody else", point.display()))?;
    }
    for needed in needed {
        if !points.iter().any(|point| needed.starts_with(point)) {
            bail!("{} is in a chroot that is no mount point", needed.display());
        }
    }
    Ok(())
}

/// Gives the calling thread a root in which it may mount what nobody else sees. It must have left the
/// mounts that everybody sees, and have no current directory that matters.
pub fn own_root() -> Result<()> {
    if mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).is_ok() {
        return Ok(());
    }
    // In a chroot / is often no mount point, and what carries it cannot be named. But on what is mounted
    // in it something can be mounted, and there a root of our own.
    let place = Path::new("/proc");
    mount(NONE, place, NONE, MsFlags::MS_PRIVATE, NONE)
        .context("looking for a place to mount at (/ is no mount point, and neither is /proc)")?;
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
        .context("mounting a place for a root of its own")?;
    let root = place.join("root");
    fs::create_dir(&root)?;
    mount(Some("/"), &root, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .and_then(|()| mount(NONE, &root, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE))
        .context("mounting a root of its own")?;
    chroot(&root).and_then(|()| chdir("/")).context("entering a root of its own")?;
    umount2(place, MntFlags::MNT_DETACH).context("uncovering /proc")
}

/// Shows a directory at another place.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("showing {} at {}", from.display(), to.display()))
}

/// Keeps what is mounted at a place from being changed there; how else it is mounted stays as it is if
/// `options` are its own (mount(2), MS_REMOUNT with MS_BIND).
pub fn make_read_only(point: &Path, options: MsFlags) -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | options;
    mount(NONE, point, NONE, flags, NONE).with_context(|| format!("keeping {} from changes", point.display()))
}

/// Lets what is mounted at a place be changed there, but for what only the root user is to have.
pub fn make_writable(point: &Path) -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, point, NONE, flags, NONE)
        .with_context(|| format!("letting {} be written to", point.display()))
}

/// What is mounted, in the order in which it was.
pub fn mounts() -> Result<Vec<Mount>> {
    Ok(mounted(&fs::read_to_string("/proc/thread-self/mountinfo")?))
}

/// Where something is mounted, in the order of the paths.
pub fn mount_points() -> Result<Vec<PathBuf>> {
    let mut points: Vec<PathBuf> = mounts()?.into_iter().map(|mount| mount.point.into()).collect();
    points.sort();
    points.dedup();
    Ok(points)
}
