// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the running machine needs to boot, found out from /proc, /sys, /etc and /dev, and which of
//! the registered modules bring it where the kernel itself does not. What cannot be told is a
//! warning. Changes nothing.

mod block;
#[cfg(test)]
mod fixture;
pub mod fstab;
mod judge;
#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod machine_tests;
mod network;
mod own;
mod place;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::sys::files;
use crate::sys::mounts::{self, Mount};
use crate::sys::root::Root;
use fstab::Entry;
pub use judge::{Detected, Found, Question, Spared, detect};

/// Where mount units are that the boot cannot do without: generators' (of zfs's data sets, for
/// one), the administrator's, packages' (systemd.unit(5), "Unit File Load Path").
const REQUIRED_UNITS: [&str; 5] = [
    "/run/systemd/generator/local-fs.target.requires",
    "/run/systemd/generator.late/local-fs.target.requires",
    "/etc/systemd/system/local-fs.target.requires",
    "/usr/lib/systemd/system/local-fs.target.requires",
    "/lib/systemd/system/local-fs.target.requires",
];

/// A module that the machine needs to boot, whoever brings it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    /// The module by names that are as good as one another; with underscores.
    names: Vec<String>,
    /// What the kernel would ask modprobe for: a device's modalias, `fs-zfs`.
    aliases: Vec<String>,
    /// For people.
    because: String,
    /// Whether the initramfs needs it.
    early: bool,
}

/// What something is needed for.
#[derive(Debug, Clone, Copy)]
struct For<'a> {
    mount: &'a str,
    /// Whether the initramfs mounts it.
    early: bool,
}

/// A look at the machine, from what is mounted down to the hardware.
struct Survey<'a> {
    root: &'a Root,
    mounts: &'a [Mount],
    /// `/sys/devices`, links resolved: all devices are below.
    devices: PathBuf,
    seen: BTreeSet<PathBuf>,
    needs: Vec<Need>,
    warnings: Vec<String>,
}

/// What a look at the machine gave.
#[derive(Debug, Default)]
struct Surveyed {
    needs: Vec<Need>,
    warnings: Vec<String>,
    /// Why there was nothing to be looked at.
    off: Option<String>,
}

/// Looks at the machine. What the initramfs mounts comes first.
fn survey(root: &Root) -> Surveyed {
    let mountinfo = files::read_if_there(&root.path("/proc/self/mountinfo")).ok().flatten();
    let mounts = mounts::mounted(&mountinfo.unwrap_or_default());
    if let Some(off) = place::foreign(root, &mounts) {
        return Surveyed { off: Some(off), ..Surveyed::default() };
    }
    let devices = root.path("/sys/devices");
    let mut survey = Survey {
        root,
        mounts: &mounts,
        devices: fs_err::canonicalize(&devices).unwrap_or(devices),
        seen: BTreeSet::new(),
        needs: Vec::new(),
        warnings: Vec::new(),
    };
    survey.all_mounts();
    Surveyed { needs: survey.needs, warnings: survey.warnings, off: None }
}

impl Survey<'_> {
    /// The root, /usr, and what else is mounted before anybody can log in. /boot is no exception:
    /// the machine comes up without it if fstab lets it.
    fn all_mounts(&mut self) {
        let mounts = self.mounts;
        let is_mounted = |point: &str| mounts::at(mounts, point).is_some();
        // Of an image-based system / is an overlay of what is mounted there.
        let is_image = mounts::at(mounts, "/").is_some_and(|root| root.fs == "overlay");
        let root = if is_image && is_mounted("/sysroot") { "/sysroot" } else { "/" };
        for place in [root, "/usr"] {
            if let Some(mount) = mounts::at(mounts, place) {
                self.carried(mount, For { mount: place, early: true });
            }
        }
        let fstab = fstab::fstab(&self.text("/etc/fstab").unwrap_or_default());
        let is_done = |point: &str| ["/", root].contains(&point) || (point == "/usr" && is_mounted(point));
        let (first, later): (Vec<_>, Vec<_>) = fstab
            .iter()
            .filter(|entry| entry.is_required() && !is_done(&entry.point))
            .partition(|entry| entry.is_early());
        first.into_iter().chain(later).for_each(|entry| self.entry(entry));
        let listed = |point: &str| fstab.iter().any(|entry| entry.point == point);
        let units: BTreeSet<_> = REQUIRED_UNITS.iter().flat_map(|directory| self.names(directory)).collect();
        for point in units.iter().filter_map(|unit| fstab::mount_point(unit)) {
            if let Some(mount) = mounts::at(mounts, &point).filter(|_| !listed(&point) && !is_done(&point)) {
                self.carried(mount, For { mount: &point, early: false });
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let of = For { mount: &entry.point, early: entry.is_early() };
        match mounts::at(self.mounts, &entry.point).filter(|mount| mount.fs != "autofs") {
            Some(mount) => self.carried(mount, of),
            None => self.listed(&entry.spec, &entry.fs, of),
        }
    }

    fn need(&mut self, mut need: Need) {
        for name in &mut need.names {
            *name = crate::module_file::canonical(name);
        }
        self.needs.push(need);
    }

    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// The drivers of a device and of all that it hangs on, up to the machine itself. Whether there
    /// is any.
    fn drivers(&mut self, device: &Path, because: &str, early: bool) -> bool {
        let mut any = false;
        for directory in device.ancestors() {
            if !directory.starts_with(&self.devices) {
                break;
            }
            let Ok(driver) = fs_err::read_link(directory.join("driver")) else { continue };
            // One that is built in may have no module; it is known by its own name then.
            let module = fs_err::read_link(directory.join("driver/module")).unwrap_or(driver);
            let alias = self.text_of(&directory.join("modalias"));
            any = true;
            self.need(Need {
                names: vec![block::file_name(&module)],
                aliases: alias.into_iter().filter(|alias| !alias.is_empty()).collect(),
                because: because.to_owned(),
                early,
            });
        }
        any
    }

    /// Where a link in /sys leads to.
    fn real(&self, path: &str) -> Option<PathBuf> {
        fs_err::canonicalize(self.root.path(path)).ok()
    }

    fn text(&self, path: &str) -> Option<String> {
        self.text_of(&self.root.path(path))
    }

    /// A file of one value, or of lines.
    fn text_of(&self, path: &Path) -> Option<String> {
        files::read_if_there(path).ok().flatten().map(|text| text.trim_end().to_owned())
    }

    fn names(&self, path: &str) -> Vec<String> {
        files::names(&self.root.path(path)).unwrap_or_default()
    }
}
