// SPDX-License-Identifier: MIT OR Apache-2.0
//! `uninstall`, `unbuild` and `remove`: each undoes what its counterpart did, and what comes
//! after that.

use anyhow::Result;

use super::add::shown_script;
use super::post_transaction::post_transaction;
use super::select::registered;
use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::install::{Placement, depmod};
use crate::module::{ModuleId, State, Target};
use crate::sys::files;
use crate::tree::registered::Loaded;
use crate::tree::transaction::Transaction;

/// The verb `uninstall`.
pub(super) fn uninstall(
    session: &Session,
    module: &ModuleArg,
    targets: &TargetArgs,
    all: bool,
) -> Result<()> {
    each(session, module, targets, all, "uninstall", |id, target, loaded| {
        uninstall_one(session, id, target, loaded, true)
    })
    .map(drop)
}

/// The verb `unbuild`.
pub(super) fn unbuild(session: &Session, module: &ModuleArg, targets: &TargetArgs, all: bool) -> Result<()> {
    each(session, module, targets, all, "unbuild", |id, target, loaded| {
        unbuild_one(session, id, target, loaded, true)
    })
    .map(drop)
}

/// The verb `remove`.
pub(super) fn remove(session: &Session, module: &ModuleArg, targets: &TargetArgs, all: bool) -> Result<()> {
    let id = each(session, module, targets, all, "remove", |id, target, loaded| {
        unbuild_one(session, id, target, loaded, true)?;
        session.report.line("");
        Ok(())
    })?;
    if session.tree.targets(&id).is_empty() {
        forget(session, &id)?;
    }
    Ok(())
}

/// Calls `action` for every target; with `--all` these are the kernels that files are kept for.
fn each(
    session: &Session,
    module: &ModuleArg,
    targets: &TargetArgs,
    all: bool,
    verb: &'static str,
    action: impl Fn(&ModuleId, &Target, &Loaded) -> Result<()>,
) -> Result<ModuleId> {
    session.begin_changes()?;
    let id = registered(session, module, verb)?;
    if session.tree.is_broken(&id) {
        return Err(Failure::Broken { id }.into());
    }
    let targets = if all { session.tree.targets(&id) } else { session.targets(targets)? };
    let mut first = true;
    for target in targets {
        if !first && verb != "remove" {
            session.report.line("");
        }
        first = false;
        let loaded = session.load(&id, Some(&target))?;
        action(&id, &target, &loaded)?;
    }
    Ok(id)
}

/// Takes a version out of a kernel's install tree if it is the active one there.
fn uninstall_one(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    loaded: &Loaded,
    index: bool,
) -> Result<()> {
    let report = &session.report;
    let place = Placement { tree: &session.tree, report, distribution: session.distribution, id, target };
    if place.state() != State::Installed {
        if !loaded.conf.has_exclusive() {
            report.line(format_args!("Module {id} is not installed for kernel {target}. Skipping..."));
        }
        return Ok(());
    }
    let applied = {
        let _lock = session.tree.lock_module(id, report)?;
        place.uninstall(&loaded.conf)?
    };
    if let Some(script) = &loaded.conf.scripts.post_remove {
        match shown_script(session, report, id, Some(target), "post_remove", script) {
            Ok(0) => {}
            Ok(status) => report.warning(format_args!("post_remove ended with status {status}, ignoring it")),
            Err(error) => report.warning(format_args!("running post_remove, ignoring: {error:#}")),
        }
    }
    if index && !session.options.no_depmod && session.tree.kernel_dir(&target.kernel).is_dir() {
        let indexed = session
            .tree
            .lock_kernel(&target.kernel, report)
            .and_then(|_lock| depmod(&session.tree, &target.kernel, report));
        if let Err(error) = indexed {
            applied.undo()?;
            return Err(error);
        }
    }
    applied.keep()?;
    place.tidy(&loaded.conf);
    post_transaction(session, target);
    Ok(())
}

/// Deletes what is kept of a build, after taking it out of the kernel. `index` says whether to
/// make the kernel's module indexes anew; the caller does it otherwise.
pub(super) fn unbuild_one(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    loaded: &Loaded,
    index: bool,
) -> Result<()> {
    let tree = &session.tree;
    uninstall_one(session, id, target, loaded, index)?;
    let directory = tree.target_dir(id, target);
    if !directory.is_dir() {
        session.report.line(format_args!("Module {id} is not built for kernel {target}. Skipping..."));
        return Ok(());
    }
    let _lock = tree.lock_module(id, &session.report)?;
    let mut transaction = Transaction::new(tree, format!("unbuilding {id} for kernel {target}"), None);
    transaction.take(&directory);
    transaction.apply()?.keep()?;
    files::remove_empty_up_to(files::parent(&directory)?, &tree.version_dir(id));
    Ok(())
}

/// Takes a version out of the tree; the source tree stays.
fn forget(session: &Session, id: &ModuleId) -> Result<()> {
    let tree = &session.tree;
    session.report.line(format_args!("Deleting module {id} completely from the DKMS tree."));
    // Somebody may be building it, for a kernel that it was not built for until now.
    let _at_work = tree.lock_module(id, &session.report)?;
    let _lock = tree.lock_registry(&session.report)?;
    let mut transaction = Transaction::new(tree, format!("removing {id}"), None);
    transaction.take(&tree.version_dir(id));
    transaction.apply()?.keep()?;
    files::remove_empty_up_to(&tree.module_dir(id.name()), &tree.dkms);
    Ok(())
}
