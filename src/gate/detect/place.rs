// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this is the machine whose boot is in question: not a chroot, a container, an image or a
//! build's sandbox, where /proc and /sys are somebody else's.

use crate::sys::files;
use crate::sys::mounts::{self, Mount};
use crate::sys::root::Root;

/// What container managers leave for whoever wants to know (systemd.io, "Container Interface";
/// podman-run(1); docker has no word on its file, but everybody looks for it).
const CONTAINER_MARKS: [&str; 4] =
    ["/run/systemd/container", "/run/host/container-manager", "/run/.containerenv", "/.dockerenv"];

/// File systems whose root directory is what an installation boots from. Others (btrfs, zfs) have
/// several roots.
const ONE_ROOT: [&str; 6] = ["ext2", "ext3", "ext4", "xfs", "f2fs", "jfs"];

/// Why /proc and /sys say nothing about the boot of what is installed here; nothing if they do.
pub(super) fn foreign(root: &Root, mounts: &[Mount]) -> Option<String> {
    if !root.is_live() {
        return Some("this is an image, not the running system".to_owned());
    }
    if let Some(mark) = CONTAINER_MARKS.into_iter().find(|mark| files::exists(&root.path(mark))) {
        return Some(format!("this is a container ({mark})"));
    }
    // Only root may read it; the marks are for the others.
    let environment = fs_err::read(root.path("/proc/1/environ")).unwrap_or_default();
    if environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(b"container=")) {
        return Some("this is a container (the first process says so)".to_owned());
    }
    if root.is_chroot() {
        return Some("this is a chroot".to_owned());
    }
    let Some(top) = mounts::at(mounts, "/") else {
        return Some("/proc/self/mountinfo does not show what is mounted on /".to_owned());
    };
    // ostree boots from a directory, whatever the file system.
    let is_part = top.root != "/" && !top.root.starts_with("/ostree/");
    if is_part && ONE_ROOT.contains(&top.fs.as_str()) {
        return Some(format!("/ is a directory of a file system ({}), as in a sandbox", top.root));
    }
    None
}
