// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at what was built: whether it is kept and installed as it should be, and whether it would
//! be built otherwise today. Changes nothing.

use std::collections::BTreeMap;

use anyhow::Result;

use super::super::session::Session;
use super::registered::holds_nothing;
use super::repair::Repair;
use super::{Finding, Kind, typed};
use crate::build::made_of;
use crate::install::{Files, Placement};
use crate::kernel::KernelRelease;
use crate::module::{ModuleId, State, Target};
use crate::store::Store;
use crate::tree::kernels::BuildDir;

/// Every version that is built for a kernel which is there.
fn targets(session: &Session, is_gone: &dyn Fn(&Target) -> bool) -> Result<Vec<(ModuleId, Target)>> {
    let tree = &session.tree;
    let mut found = Vec::new();
    for id in tree.ids()? {
        let targets = tree.targets(&id).into_iter();
        let is_there = |target: &Target| !is_gone(target) && !holds_nothing(&tree.target_dir(&id, target));
        found.extend(targets.filter(is_there).map(|target| (id.clone(), target)));
    }
    Ok(found)
}

/// Files that are missing, in the dkms tree or in the kernel's, and such as differ.
pub(super) fn files(
    session: &Session,
    is_gone: &dyn Fn(&Target) -> bool,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let (tree, report) = (&session.tree, &session.report);
    for (id, target) in targets(session, is_gone)? {
        // Without its conf nobody knows what its files are, and that is a finding of its own.
        let Ok(loaded) = session.load(&id, Some(&target)) else { continue };
        let place = Placement { tree, report, distribution: session.distribution, id: &id, target: &target };
        let is_installed = place.state() == State::Installed;
        let files: Vec<Files> = place.files(&loaded.conf, is_installed).collect();
        if tree.module_is_busy(&id) {
            continue;
        }
        let can_install = files.iter().all(|files| files.built.is_some());
        for files in files {
            found.extend(of_file(session, &id, &target, files, is_installed, can_install));
        }
    }
    Ok(())
}

fn of_file(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    files: Files,
    is_installed: bool,
    can_install: bool,
) -> Option<Finding> {
    let on = format!("{id} -k {}", typed(&session.tree, target));
    let is_same = files.are_same();
    let Files { name, directory, built, installed } = files;
    Some(match (built, installed) {
        (None, _) => {
            let then = if is_installed { format!(" && dkms install --force {on}") } else { String::new() };
            Finding {
                kind: Kind::BuiltFileMissing,
                place: session.tree.built_dir(id, target).join(format!("{name}.ko")),
                what: format!("{name}.ko is not among what is kept of {id} for kernel {target}"),
                why: "It cannot be installed again, nor be told from what others install.".to_owned(),
                remedy: format!("dkms build --force {on}{then}"),
                repair: None,
            }
        }
        (Some(_), None) if is_installed => Finding {
            kind: Kind::NotInstalled,
            place: directory.join(format!("{name}.ko")),
            what: format!("{name}.ko of {id} is missing from {}", directory.display()),
            why: format!("dkms says that it is installed, but kernel {} cannot load it.", target.kernel),
            remedy: format!("dkms install --force {on}"),
            repair: can_install.then(|| Repair::Install(id.clone(), target.clone())),
        },
        (Some(built), Some(installed)) if !is_same => Finding {
            kind: Kind::Differs,
            what: format!("{} is not what was built of {id} ({})", installed.display(), built.display()),
            why: "Somebody has replaced it, signed it once more, or damaged it.".to_owned(),
            remedy: format!("dkms install --force {on} (unless it is meant to be so)"),
            place: installed,
            repair: None,
        },
        _ => return None,
    })
}

/// Modules that were built of something else than what is there now. Of builds that nobody has noted
/// anything of, nothing is said.
pub(super) fn outdated(
    session: &Session,
    is_gone: &dyn Fn(&Target) -> bool,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let tree = &session.tree;
    let policy = session.policy().unwrap_or_default();
    // A store knows the headers of one kernel.
    let mut kernels: BTreeMap<KernelRelease, Option<(BuildDir, Store<'_>)>> = BTreeMap::new();
    for (id, target) in targets(session, is_gone)? {
        let Some(then) = tree.made_of(&id, &target) else { continue };
        let kernel = kernels.entry(target.kernel.clone()).or_insert_with(|| {
            let build_dir = tree.kernel_build_dir(&target.kernel, None, None).ok()??;
            Some((build_dir, Store::to_read(tree, &policy)))
        });
        // Without headers nothing can be built anew, and what is built is none the worse for it.
        let Some((build_dir, store)) = kernel else { continue };
        let Ok(Some(now)) = made_of(tree, store, build_dir, &id, &target) else { continue };
        let changed = now.changed_since(&then);
        if changed.is_empty() || tree.module_is_busy(&id) {
            continue;
        }
        let on = format!("{id} -k {}", typed(tree, &target));
        let is_installed = tree.state(&id, &target) == State::Installed;
        let then = if is_installed { format!(" && dkms install --force {on}") } else { String::new() };
        found.push(Finding {
            kind: Kind::Outdated,
            place: tree.built_dir(&id, &target),
            what: format!("{id} was built for kernel {target} before this changed: {}", changed.join(", ")),
            why: "What is built may lack what has been mended since, or not fit any more.".to_owned(),
            remedy: format!("dkms build --force {on}{then}"),
            repair: None,
        });
    }
    Ok(())
}
