// SPDX-License-Identifier: MIT OR Apache-2.0
//! `uninstall`, `unbuild` and `remove`: each undoes what its counterpart did, and what comes
//! after that.

use anyhow::Result;

use super::add::shown_script;
use super::each::each;
use super::post_transaction::post_transaction;
use super::record;
use super::retain::{let_go, package_is_upgraded, retain};
use super::revise::look_after_removal;
use super::rpm_upgrade;
use super::select::registered;
use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::install::weak::{self, Change};
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
) -> Result<u8> {
    let id = begin(session, module, "uninstall")?;
    let code = each_apart(session, &id, targets, all, |target, loaded| {
        uninstall_one(session, &id, target, loaded, true)
    })?;
    look_after_removal(session);
    Ok(code)
}

/// The verb `unbuild`.
pub(super) fn unbuild(session: &Session, module: &ModuleArg, targets: &TargetArgs, all: bool) -> Result<u8> {
    let id = begin(session, module, "unbuild")?;
    let code = each_apart(session, &id, targets, all, |target, loaded| {
        unbuild_one(session, &id, target, loaded, true)
    })?;
    look_after_removal(session);
    Ok(code)
}

/// The verb `remove`.
pub(super) fn remove(session: &Session, module: &ModuleArg, targets: &TargetArgs, all: bool) -> Result<u8> {
    if let Some(code) = remove_retained(session, module)? {
        return Ok(code);
    }
    let id = begin(session, module, "remove")?;
    if rpm_upgrade::keeps(session, &id)? {
        session.report.error("Remove cancelled because --rpm_safe_upgrade scenario detected.");
        return Ok(0);
    }
    let upgraded = package_is_upgraded(session) || rpm_upgrade::is_upgrade(session);
    let code = each(session, &of_call(session, &id, targets, all)?, |target| {
        if upgraded {
            retain(session, &id, target)?;
            return delete_build(session, &id, target);
        }
        unbuild_one(session, &id, target, &session.load(&id, Some(target))?, true)?;
        session.report.line("");
        Ok(())
    })?;
    if code == 0 && session.tree.targets(&id).is_empty() {
        forget(session, &id)?;
        let is_last = !session.tree.ids()?.iter().any(|other| other.name() == id.name());
        if is_last && !upgraded {
            let kept = session.tree.all_retained();
            kept.iter()
                .filter(|kept| kept.id.name() == id.name())
                .try_for_each(|kept| let_go(session, kept, true))?;
        }
    }
    // What an upgrade takes away comes back with it.
    if !upgraded {
        look_after_removal(session);
    }
    Ok(code)
}

/// Takes a version out of the tree whose source is about to go, and leaves what it has installed
/// until a successor is in place. For package managers whose removals may be one half of an upgrade.
pub fn retain_source(session: &Session, id: &ModuleId) -> Result<()> {
    if !session.tree.is_registered(id) {
        return Ok(());
    }
    for target in session.tree.targets(id) {
        retain(session, id, &target)?;
        delete_build(session, id, &target)?;
    }
    forget(session, id)
}

/// Takes out what is kept of modules that nobody has registered again.
pub fn let_go_without_successor(session: &Session) -> Result<()> {
    for kept in session.tree.all_retained() {
        if session.tree.versions(kept.id.name())?.is_empty() {
            let_go(session, &kept, true)?;
        }
    }
    look_after_removal(session);
    Ok(())
}

/// A version of which nothing is left but what an upgrade kept installed.
fn remove_retained(session: &Session, module: &ModuleArg) -> Result<Option<u8>> {
    let ModuleArg::Named { name, version: Some(version) } = module else { return Ok(None) };
    let is_meant = |id: &ModuleId| id.name() == name && id.version() == version;
    let kept: Vec<_> = session.tree.all_retained().into_iter().filter(|kept| is_meant(&kept.id)).collect();
    if kept.is_empty() || session.tree.ids()?.iter().any(is_meant) {
        return Ok(None);
    }
    session.begin_changes()?;
    kept.iter().try_for_each(|kept| let_go(session, kept, true))?;
    look_after_removal(session);
    Ok(Some(0))
}

/// The module that a call is about.
fn begin(session: &Session, module: &ModuleArg, verb: &'static str) -> Result<ModuleId> {
    session.begin_changes()?;
    let id = registered(session, module, verb)?;
    if session.tree.is_broken(&id) {
        return Err(Failure::Broken { id }.into());
    }
    Ok(id)
}

/// The targets that a call is about; with `--all` these are the kernels that files are kept for.
fn of_call(session: &Session, id: &ModuleId, targets: &TargetArgs, all: bool) -> Result<Vec<Target>> {
    if all { Ok(session.tree.targets(id)) } else { session.targets(targets) }
}

/// Calls `action` for every target, with a blank line between them.
fn each_apart(
    session: &Session,
    id: &ModuleId,
    targets: &TargetArgs,
    all: bool,
    action: impl Fn(&Target, &Loaded) -> Result<()>,
) -> Result<u8> {
    let mut first = true;
    each(session, &of_call(session, id, targets, all)?, |target| {
        if !std::mem::replace(&mut first, false) {
            session.report.line("");
        }
        action(target, &session.load(id, Some(target))?)
    })
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
    report.line(format_args!(
        "Module {id} for kernel {target}:\nBefore uninstall, this module version was ACTIVE on this kernel."
    ));
    let announce = |change| {
        if !loaded.conf.no_weak_modules {
            let files = place.places(&loaded.conf);
            weak::announce(session.distribution, &target.kernel, &files, change, report);
        }
    };
    announce(Change::Leaving);
    let applied = {
        let _lock = session.tree.lock_module(id, report)?;
        place.uninstall(&loaded.conf).inspect_err(|_| announce(Change::Added))?
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
            announce(Change::Added);
            return Err(error);
        }
    }
    applied.keep()?;
    record::removed(session, target, id);
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
    uninstall_one(session, id, target, loaded, index)?;
    delete_build(session, id, target)
}

/// Deletes what is kept of a build.
pub(super) fn delete_build(session: &Session, id: &ModuleId, target: &Target) -> Result<()> {
    let tree = &session.tree;
    tree.forget_attempt(id, target)?;
    tree.forget_made_of(id, target)?;
    let directory = tree.target_dir(id, target);
    if !directory.is_dir() {
        session.report.line(format_args!("Module {id} is not built for kernel {target}. Skipping..."));
        return Ok(());
    }
    let _lock = tree.lock_module(id, &session.report)?;
    let mut transaction = Transaction::new(tree, format!("unbuilding {id} for kernel {target}"), None);
    transaction.take(&directory);
    transaction.apply()?.keep()?;
    record::removed(session, target, id);
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
    tree.forget_attempts(id)?;
    files::remove_empty_up_to(&tree.module_dir(id.name()), &tree.dkms);
    Ok(())
}
