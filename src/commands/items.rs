// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run works on, why, and what becomes of it.

use anyhow::{Error, Result};

use super::session::Session;
use crate::build::cross::{self, Cross, NoCross};
use crate::failure::Failure;
use crate::module::{ModuleId, State, Target};
use crate::sys::{files, tools};
use crate::tree::kernels::BuildDir;
use crate::tree::registered::Loaded;

/// How far a module is to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Built,
    Installed,
}

/// What is done although it has been done. What is installed is replaced, not removed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redo {
    No,
    /// What is kept of the build is installed.
    Install,
    /// It is built, too.
    Build,
}

/// Why a module is worked on, which decides how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asked for, or needed by what was asked for: its output stands alone, its failure is told at
    /// the end.
    Asked,
    /// One of autoinstall's: under a title, its failure with its output.
    Listed,
    /// One of `match`'s: likewise, but under two lines and without a blank one at its end.
    Matched,
    /// Installed already; a dependency that it was built against has changed.
    Rebuild,
}

/// A module to work on.
#[derive(Debug)]
pub(super) struct Item {
    pub id: ModuleId,
    pub loaded: Loaded,
    pub excluded: Vec<bool>,
    /// The items (by position, all before this one) that must succeed first.
    pub after: Vec<usize>,
    pub goal: Goal,
    pub redo: Redo,
    pub kind: Kind,
    /// A failure known beforehand.
    pub doomed: Option<Failure>,
}

/// What became of a module.
#[derive(Debug)]
pub enum Done {
    /// It was there already.
    Already,
    Built,
    Installed,
    /// BUILD_EXCLUSIVE_* rules the kernel out.
    Skipped(Error),
    Failed(Error),
}

impl Done {
    pub(super) fn satisfies(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

/// The installed modules that were built against other versions of what these items install
/// (BUILD_DEPENDS_REBUILD), as items to come after them.
pub(super) fn rebuilds(session: &Session, target: &Target, items: &[Item]) -> Result<Vec<Item>> {
    let tree = &session.tree;
    let kernel = session.kernel_config(&target.kernel)?;
    let mut found = Vec::new();
    for id in tree.ids()? {
        let is_item = items.iter().any(|item| item.id.name() == id.name());
        if is_item || tree.is_broken(&id) || tree.state(&id, target) != State::Installed {
            continue;
        }
        let Ok(loaded) = session.load(&id, Some(target)) else { continue };
        let changed = |item: &Item| -> Result<bool> {
            let note = tree.target_dir(&id, target).join(format!(".dep_{}", item.id.name()));
            let built_against = files::read_if_there(&note)?;
            Ok(item.goal == Goal::Installed
                && loaded.conf.build_depends.iter().any(|name| name == item.id.name())
                && built_against.is_none_or(|version| version.trim() != item.id.version()))
        };
        let mut after = Vec::new();
        for (at, item) in items.iter().enumerate().filter(|_| loaded.conf.build_depends_rebuild) {
            if changed(item)? {
                after.push(at);
            }
        }
        if !after.is_empty() {
            let excluded = loaded.conf.excluded_records(target, &kernel);
            let (goal, kind, doomed) = (Goal::Installed, Kind::Rebuild, None);
            found.push(Item { id, loaded, excluded, after, goal, redo: Redo::Build, kind, doomed });
        }
    }
    Ok(found)
}

/// The failure for a kernel whose headers are not there, naming the package to install, and what of
/// shared stores could not stand in for them.
pub(super) fn headers_missing(session: &Session, target: &Target, refused: &[String]) -> Failure {
    let advice = session.distribution.headers_advice(&target.kernel);
    let refused =
        refused.iter().map(|refused| format!("It could not be taken from a shared store: {refused}."));
    let advice: Vec<String> = advice.into_iter().chain(refused).collect();
    let advice = (!advice.is_empty()).then(|| advice.join("\n"));
    Failure::HeadersMissing { target: target.clone(), advice }
}

/// How an item is built for another machine; nothing for this one.
pub(super) fn cross_build(
    session: &Session,
    item: &Item,
    target: &Target,
    kernel: &BuildDir,
) -> Result<Option<Cross>> {
    let command = item.loaded.conf.make_command(&target.kernel);
    let given = &session.options.kbuild;
    let found = cross::find(kernel, target, &session.tree.arch, command, given, &tools::has_any);
    found.map_err(|why| {
        let target = target.clone();
        match why {
            NoCross::Headers(machine) => {
                let directory = kernel.path.display().to_string();
                Failure::HeadersOfOther { target, directory, machine: machine.to_owned() }.into()
            }
            NoCross::Compiler(prefix) => {
                let advice = session.distribution.cross_compiler_advice(prefix.trim_end_matches('-'));
                Failure::CompilerMissing { target, compiler: format!("{prefix}gcc"), advice }.into()
            }
        }
    })
}
