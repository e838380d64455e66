// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at what runs have left that died: transactions, build directories, what they had staged.
//! What belongs to somebody who is at work is none. Changes nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::super::session::Session;
use super::repair::Repair;
use super::{Finding, Kind};
use crate::build::STAGING;
use crate::module::ModuleId;
use crate::sys::files;
use crate::tree::NO_KERNELS;
use crate::tree::SOURCE_STAGING;
use crate::tree::abandoned::{abandoned, place_of_leftover};

/// Transactions whose owners have died.
pub(super) fn half_done(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    for transaction in abandoned(&session.tree)? {
        let what = transaction.what.unwrap_or_else(|| "it had only just begun".to_owned());
        found.push(Finding {
            kind: Kind::HalfDone,
            what: format!("A run died half way: {what}"),
            why: "Until it is finished, what dkms tells and what is there may differ.".to_owned(),
            remedy: "dkms doctor --repair (or any command that changes something)".to_owned(),
            place: transaction.journal,
            repair: Some(Repair::Finish),
        });
    }
    Ok(())
}

/// Build directories in which nobody builds, and results that were not kept any more.
pub(super) fn builds(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    let tree = &session.tree;
    for id in tree.ids()? {
        let build = tree.build_dir(&id);
        let staged = staged_results(&tree.version_dir(&id));
        let has_build = fs::read_dir(&build).is_ok_and(|mut entries| entries.next().is_some());
        if (!has_build && staged.is_empty()) || tree.module_is_busy(&id) {
            continue;
        }
        if has_build {
            found.push(left_over_build(&id, build));
        }
        for path in staged {
            found.push(Finding {
                kind: Kind::LeftOver,
                what: format!("{} is what a build of {id} left that was killed", path.display()),
                why: "It is incomplete, nobody reads it, and it takes room.".to_owned(),
                remedy: format!("rm -r {}", path.display()),
                place: path.clone(),
                repair: Some(Repair::Build { path, id: id.clone() }),
            });
        }
    }
    Ok(())
}

fn left_over_build(id: &ModuleId, build: PathBuf) -> Finding {
    let log = build.join("make.log");
    let why = if log.is_file() {
        format!("A build failed or was killed there; {} tells more, if it is not clear why.", log.display())
    } else {
        "A build was killed there before it began.".to_owned()
    };
    Finding {
        kind: Kind::LeftOverBuild,
        what: format!("{} is left of a build of {id}", build.display()),
        why: format!("{why} Nothing else is of use there, and it takes room."),
        remedy: format!("rm -r {}", build.display()),
        place: build.clone(),
        repair: Some(Repair::Build { path: build, id: id.clone() }),
    }
}

/// What was to be kept of a version's builds (`V/K/.dkms-kept-*`).
fn staged_results(version: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for kernel in files::names(version).unwrap_or_default() {
        let directory = version.join(&kernel);
        if NO_KERNELS.contains(&kernel.as_str()) || directory.is_symlink() {
            continue;
        }
        found.extend(hidden(&directory).into_iter().filter(|path| begins_with(path, STAGING)));
    }
    found
}

/// What transactions have staged or kept beside its place, and sources that were not put into theirs.
pub(super) fn staged(session: &Session, found: &mut Vec<Finding>) -> Result<()> {
    let tree = &session.tree;
    let mut paths = Vec::new();
    for module in files::names(&tree.dkms)? {
        walk(&tree.module_dir(&module), &mut paths);
    }
    walk(&tree.hooks_dir().join("retained"), &mut paths);
    for kernel in tree.installed_kernels().unwrap_or_default() {
        walk(&tree.kernel_dir(&kernel), &mut paths);
    }
    let sources = hidden(&tree.source);
    let (sources, beside): (Vec<PathBuf>, Vec<PathBuf>) =
        sources.into_iter().partition(|path| begins_with(path, SOURCE_STAGING));
    paths.extend(beside.into_iter().chain(hidden(&tree.dkms)));
    for path in paths {
        let Some(place) = place_of_leftover(tree, &path) else { continue };
        found.push(Finding {
            kind: Kind::LeftOver,
            what: format!("{} is left of a change of {}", path.display(), place.display()),
            why: "No run is at work on it and none will finish it; it takes room.".to_owned(),
            remedy: format!("rm -r {}", path.display()),
            place: path.clone(),
            repair: Some(Repair::Staged(path)),
        });
    }
    for path in sources {
        if tree.unpacking_is_busy() {
            break;
        }
        found.push(Finding {
            kind: Kind::LeftOver,
            what: format!("{} is left of a source that was being added", path.display()),
            why: "The run that added it died before it was in its place; it takes room.".to_owned(),
            remedy: format!("rm -r {}", path.display()),
            place: path,
            repair: Some(Repair::Source),
        });
    }
    Ok(())
}

fn begins_with(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// The names in a directory that begin with a dot.
fn hidden(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| begins_with(path, ".")).collect();
    found.sort();
    found
}

/// The same for all that is below it; not where modules are built, and not within what was found.
fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if begins_with(&path, ".") {
            found.push(path);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "build" {
            walk(&path, found);
        }
    }
}
