// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks around dkms: another dkms beside ours, and who else may change what runs as root. Changes
//! nothing.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::super::session::Session;
use super::repair::Repair;
use super::{Finding, Kind};
use crate::build::keys::private_keys;
use crate::store::signature;
use crate::sys::{files, tools};
use crate::tree::Tree;

/// Where package managers look for what they call, and the directory whose files of the same names
/// they look at instead.
const HOOKS: [(&str, Option<&str>); 9] = [
    ("/etc/kernel/preinst.d", None),
    ("/etc/kernel/postinst.d", None),
    ("/etc/kernel/prerm.d", None),
    ("/etc/kernel/postrm.d", None),
    ("/etc/kernel/header_postinst.d", None),
    ("/etc/kernel/install.d", None),
    ("/usr/lib/kernel/install.d", Some("/etc/kernel/install.d")),
    ("/etc/pacman.d/hooks", None),
    ("/usr/share/libalpm/hooks", Some("/etc/pacman.d/hooks")),
];

/// Hooks for a dkms that do not call ours.
pub(super) fn other_hooks(session: &Session, found: &mut Vec<Finding>) {
    let tree = &session.tree;
    for (directory, instead) in HOOKS {
        let place = tree.path(directory);
        for name in files::names(&place).unwrap_or_default() {
            let path = place.join(&name);
            let is_masked = instead.is_some_and(|instead| files::exists(&tree.path(instead).join(&name)));
            if is_masked || !name.contains("dkms") || !is_of_another(&path) {
                continue;
            }
            let mask = instead.map(|instead| format!(", or: ln -s /dev/null {instead}/{name}"));
            let remedy =
                format!("remove the package dkms, or: rm {}{}", path.display(), mask.unwrap_or_default());
            found.push(Finding {
                kind: Kind::OtherDkms,
                what: format!("{} is a hook for dkms that does not call this one", path.display()),
                why: "Modules are built twice, and a kernel can be published that nobody has proven."
                    .to_owned(),
                remedy,
                place: path,
                repair: None,
            });
        }
    }
}

/// Each of our hooks calls `dkms hook`; an empty file, or a link to /dev/null, masks one.
fn is_of_another(path: &Path) -> bool {
    let text = files::read_regular_if_there(path).ok().flatten().unwrap_or_default();
    !text.trim().is_empty() && !text.contains("dkms hook ")
}

/// Programs called dkms where programs are looked for, but for ours.
pub(super) fn other_programs(session: &Session, found: &mut Vec<Finding>) {
    let tree = &session.tree;
    let places = tools::PATH.split(':').map(|directory| tree.path(directory).join("dkms"));
    let mut programs: Vec<PathBuf> = Vec::new();
    for path in
        places.filter(|path| files::is_executable(path)).filter_map(|path| fs::canonicalize(path).ok())
    {
        if !programs.contains(&path) {
            programs.push(path);
        }
    }
    // In an image ours is the one that a package put there.
    let ours = std::env::current_exe().ok().filter(|ours| tree.root.is_live() && programs.contains(ours));
    let of_packages =
        || programs.iter().find(|path| !path.components().any(|part| part.as_os_str() == "local"));
    let Some(ours) = ours.or_else(|| of_packages().cloned()) else { return };
    for path in programs.into_iter().filter(|path| *path != ours) {
        // A copy does as well.
        if matches!((fs::read(&path), fs::read(&ours)), (Ok(one), Ok(other)) if one == other) {
            continue;
        }
        found.push(Finding {
            kind: Kind::OtherDkms,
            what: format!("{} is another dkms than {}", path.display(), ours.display()),
            why: "Whoever comes upon it builds modules that nobody proves.".to_owned(),
            remedy: format!("rm {}", path.display()),
            place: path,
            repair: None,
        });
    }
}

/// Whose the system is: root's, by whatever number a namespace shows it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of(tree: &Tree) -> Result<Self> {
        let meta = fs::metadata(tree.path("/"))?;
        Ok(Self { user: meta.uid(), group: meta.gid() })
    }

    /// The bits of a mode that are for others, where a file is of this group: what root's own group
    /// may do, nobody else may.
    fn others(self, group: u32) -> u32 {
        if group == self.group { 0o007 } else { 0o077 }
    }
}

/// What of a directory others may change.
#[derive(Debug, Default, PartialEq, Eq)]
struct Open {
    writable: Vec<PathBuf>,
    owned: Vec<PathBuf>,
}

impl Open {
    /// Looks at a file, or at a directory with all it holds; links are not followed.
    fn look(&mut self, path: &Path, owner: Owner) {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        if meta.is_symlink() {
            return;
        }
        if meta.uid() != owner.user {
            self.owned.push(path.to_owned());
        }
        if meta.permissions().mode() & owner.others(meta.gid()) & 0o022 != 0 {
            self.writable.push(path.to_owned());
        }
        if meta.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            paths.iter().for_each(|path| self.look(path, owner));
        }
    }
}

/// Whose place is it: sources and settings run as root, modules are loaded into the kernel.
pub(super) fn permissions(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    let tree = &session.tree;
    let owner = Owner::of(tree)?;
    for place in places(tree)? {
        let mut open = Open::default();
        open.look(&place, owner);
        let some = |paths: &[PathBuf]| {
            let first = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
            match paths.len() {
                1 => first,
                count => format!("{first} and {} more", count - 1),
            }
        };
        let why = "What is there is run as root, or loaded into the kernel.".to_owned();
        if !open.writable.is_empty() {
            found.push(Finding {
                kind: Kind::Writable,
                what: format!("Others than root may write to {}", some(&open.writable)),
                why: why.clone(),
                remedy: format!("chmod -R go-w {}", place.display()),
                place: place.clone(),
                repair: Some(Repair::Restrict { paths: open.writable, bits: 0o022 }),
            });
        }
        if !open.owned.is_empty() {
            found.push(Finding {
                kind: Kind::Owner,
                what: format!("Somebody else than root owns {}", some(&open.owned)),
                why,
                remedy: format!("chown -R root: {} (unless it is where you work on it)", place.display()),
                place,
                repair: None,
            });
        }
    }
    Ok(())
}

/// The settings, the dkms tree, and the sources of what is registered, wherever they are.
fn places(tree: &Tree) -> Result<BTreeSet<PathBuf>> {
    let mut places = BTreeSet::from([tree.path("/etc/dkms"), tree.path("/usr/lib/dkms"), tree.dkms.clone()]);
    for id in tree.ids()? {
        places.extend(fs::canonicalize(tree.source_link(&id)).ok());
    }
    Ok(places)
}

/// Signing keys that others may read.
pub(super) fn keys(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    let tree = &session.tree;
    let owner = Owner::of(tree)?;
    let kernels = tree.installed_kernels().unwrap_or_default();
    let keys = private_keys(tree, &session.framework, &kernels.iter().collect::<Vec<_>>());
    let keys = keys.into_iter().chain([tree.path(signature::KEY)]);
    for key in keys.collect::<BTreeSet<PathBuf>>() {
        let Ok(meta) = fs::metadata(&key) else { continue };
        if meta.permissions().mode() & owner.others(meta.gid()) == 0 {
            continue;
        }
        found.push(Finding {
            kind: Kind::KeyReadable,
            what: format!("Others than root may read the signing key {}", key.display()),
            why: "Whoever has it can sign modules that this machine takes for its own.".to_owned(),
            remedy: format!("chmod 600 {}", key.display()),
            place: key.clone(),
            repair: Some(Repair::Restrict { paths: vec![key], bits: 0o077 }),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::private(0o600, 0, false)]
    #[case::roots_group(0o640, 0, false)]
    #[case::a_group(0o640, 27, true)]
    #[case::everybody(0o644, 0, true)]
    fn a_key_is_for_root_alone(#[case] mode: u32, #[case] group: u32, #[case] open: bool) {
        assert_eq!(mode & Owner { user: 0, group: 0 }.others(group) != 0, open);
    }

    #[rstest]
    #[case::ours("#!/bin/sh\nexec /usr/sbin/dkms hook debian postinst \"$@\"\n", false)]
    #[case::stock("#!/bin/sh\nexec /usr/lib/dkms/dkms_autoinstaller start $1\n", true)]
    #[case::masked("", false)]
    fn a_hook_of_another_dkms_does_not_call_ours(#[case] text: &str, #[case] other: bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dkms");
        fs::write(&path, text).unwrap();
        assert_eq!(is_of_another(&path), other);
        assert!(!is_of_another(&dir.path().join("none")));
    }

    #[rstest]
    #[case::debian("hooks/kernel/postinst.d")]
    #[case::debian_headers("hooks/kernel/header_postinst.d")]
    #[case::debian_removal("hooks/kernel/prerm.d")]
    #[case::kernel_install("install.d")]
    #[case::gentoo("hooks/gentoo")]
    #[case::pacman("pacman")]
    fn our_own_hooks_are_none_of_another_dkms(#[case] directory: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        let names = files::names(&directory).unwrap();
        assert!(!names.is_empty());
        for name in names {
            assert!(!is_of_another(&directory.join(&name)), "{name}");
        }
    }

    #[test]
    fn what_others_may_write_is_found_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("foo-1.0");
        fs::create_dir_all(root.join("sub")).unwrap();
        let (open, outside) = (root.join("sub/Makefile"), dir.path().join("outside"));
        for path in [&open, &outside] {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
        }
        fs::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        for path in [&root, &root.join("sub")] {
            fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let meta = fs::metadata(&root).unwrap();
        let owner = Owner { user: meta.uid(), group: meta.gid() };
        let mut found = Open::default();
        found.look(&root, owner);
        assert_eq!(found, Open { writable: vec![open], owned: vec![] });
        let mut found = Open::default();
        found.look(&root, Owner { user: owner.user + 1, ..owner });
        assert_eq!(found.owned.len(), 3);
    }
}
