// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at what is registered: sources that are missing or cannot be read, links that lead nowhere,
//! directories without content. Changes nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::super::session::Session;
use super::repair::Repair;
use super::{Finding, Kind};
use crate::failure::Failure;
use crate::kernel::KernelRelease;
use crate::module::ModuleId;
use crate::sys::files;
use crate::tree::NO_KERNELS;
use crate::tree::Tree;

/// Versions without a source, or with one that cannot be read.
pub(super) fn sources(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    let tree = &session.tree;
    for id in tree.ids()? {
        let version = tree.version_dir(&id);
        if holds_nothing(&version) {
            continue;
        }
        if tree.is_broken(&id) {
            found.push(source_missing(tree, &id));
        } else if let Err(error) = session.load(&id, None) {
            let conf = tree.source_link(&id).join("dkms.conf");
            let problem = match error.downcast_ref() {
                Some(Failure::BadConf { problems, .. }) => problems.join("\n"),
                _ => format!("{error:#}"),
            };
            found.push(Finding {
                kind: Kind::BadConf,
                what: format!("{id} has a dkms.conf that cannot be read: {}", conf.display()),
                why: format!("No kernel gets this module any more.\n{problem}"),
                remedy: format!("correct that file, or install the package again that brings {}", id.name()),
                place: conf,
                repair: None,
            });
        }
    }
    Ok(())
}

/// Its modules may be the last that there are, so nothing of it is for us to delete.
fn source_missing(tree: &Tree, id: &ModuleId) -> Finding {
    let link = tree.source_link(id);
    let missing = fs::read_link(&link).unwrap_or_else(|_| link.clone());
    let usual = tree.source_dir(id);
    let remedy = if missing != usual && usual.join("dkms.conf").is_file() {
        // `add` makes a missing link anew, but not one that leads elsewhere.
        let first = if link.is_symlink() { format!("rm {} && ", link.display()) } else { String::new() };
        format!("{first}dkms add {id}")
    } else {
        format!(
            "install the package again that brings {}, or put {} back; if nobody wants it, then: dkms remove {id} --all",
            id.name(),
            missing.display()
        )
    };
    Finding {
        kind: Kind::SourceMissing,
        place: link,
        what: format!("{id} has no source: there is no {}", missing.display()),
        why: "No new kernel gets this module, and dkms can neither install nor remove it.".to_owned(),
        remedy,
        repair: None,
    }
}

/// `kernel-K-A` links whose version is not there.
pub(super) fn orphaned_links(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    let tree = &session.tree;
    for module in files::names(&tree.dkms)? {
        let directory = tree.module_dir(&module);
        for name in files::names(&directory).unwrap_or_default() {
            let link = directory.join(&name);
            let Some(target) = name.strip_prefix("kernel-") else { continue };
            if !link.is_symlink() || link.exists() {
                continue;
            }
            let kernel = target.rsplit_once('-').map_or(target, |(kernel, _)| kernel);
            let Ok(kernel) = kernel.parse::<KernelRelease>() else { continue };
            let gone = fs::read_link(&link).unwrap_or_default();
            found.push(Finding {
                kind: Kind::OrphanedLink,
                what: format!(
                    "{} leads nowhere: there is no {}",
                    link.display(),
                    directory.join(gone).display()
                ),
                why: format!(
                    "{module} passes for installed on kernel {kernel}, though dkms has no such build."
                ),
                remedy: format!("rm {}", link.display()),
                place: link.clone(),
                repair: Some(Repair::Unlink { link, kernel }),
            });
        }
    }
    Ok(())
}

/// Directories that hold no file: of modules, of versions, of kernels.
pub(super) fn empty_directories(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    let tree = &session.tree;
    for module in files::names(&tree.dkms)? {
        let directory = tree.module_dir(&module);
        let mut empty = Vec::new();
        look_for_empty(&directory, 0, &mut empty);
        for path in empty {
            let inside: Vec<&str> = path
                .strip_prefix(&directory)
                .iter()
                .flat_map(|path| path.iter())
                .filter_map(|part| part.to_str())
                .collect();
            let kernel = inside.get(1).and_then(|kernel| kernel.parse().ok());
            let version = inside.first().filter(|version| **version != "original_module");
            let id = version.and_then(|version| ModuleId::new(&module, version).ok());
            if id.as_ref().is_some_and(|id| tree.module_is_busy(id)) {
                continue;
            }
            found.push(Finding {
                kind: Kind::EmptyDirectory,
                what: format!("{} holds nothing", path.display()),
                why: "It is left of something that was removed, or that never came about.".to_owned(),
                remedy: format!("rmdir {}", path.display()),
                place: path.clone(),
                repair: Some(Repair::Prune { directory: path, id, kernel }),
            });
        }
    }
    Ok(())
}

/// The topmost empty directories down to those of an architecture (M/V/K/A). Where builds take place
/// is nobody's business.
fn look_for_empty(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let is_directory = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if !is_directory(directory) {
        return;
    }
    if holds_nothing(directory) {
        found.push(directory.to_owned());
    } else if depth < 3 {
        for name in files::names(directory).unwrap_or_default() {
            if depth != 1 || !NO_KERNELS.contains(&name.as_str()) {
                look_for_empty(&directory.join(name), depth + 1, found);
            }
        }
    }
}

/// Whether there is nothing in a directory but directories of that sort. One that cannot be read may
/// hold anything.
pub(super) fn holds_nothing(directory: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(directory) else { return false };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir()) && holds_nothing(&entry.path())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_empty_directories_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["foo/1.0/build", "foo/2.0/6.1/x86_64/module", "foo/3.0/6.1/x86_64/log"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::os::unix::fs::symlink("/usr/src/foo-1.0", at("foo/1.0/source")).unwrap();
        fs::write(at("foo/3.0/6.1/x86_64/.dep_bar"), "1.0\n").unwrap();
        fs::create_dir_all(at("foo/3.0/6.2/x86_64")).unwrap();
        let mut found = Vec::new();
        look_for_empty(&at("foo"), 0, &mut found);
        found.sort();
        assert_eq!(found, [at("foo/2.0"), at("foo/3.0/6.2")]);
    }
}
