// SPDX-License-Identifier: MIT OR Apache-2.0
//! `kernel_preinst` and `kernel_prerm`: a kernel is about to be installed or removed.

use anyhow::Result;

use super::remove::{delete_build, unbuild_one};
use super::retain::{let_go, retain};
use super::session::Session;
use crate::gate::bls;
use crate::gate::verdict::Verdict;
use crate::install::depmod_after_removal;
use crate::kernel::KernelRelease;
use crate::module::{ModuleId, State, Target};
use crate::sys::files;
use crate::tree::registered::Loaded;

/// Clears the way for a kernel of the same release: what AUTOINSTALL will bring again is forgotten,
/// and its modules stay until then.
pub(super) fn preinst(session: &Session, target: &Target) -> Result<()> {
    let comes_again =
        |id: &ModuleId| session.load(id, Some(target)).is_ok_and(|loaded| loaded.conf.autoinstall);
    for_all(session, target, &comes_again, "", &|id, _| {
        retain(session, id, target)?;
        delete_build(session, id, target)
    })
    .map(drop)
}

/// Removes everything that was built for a kernel.
pub(super) fn prerm(session: &Session, target: &Target) -> Result<()> {
    let was_installed = for_all(session, target, &|_| true, "\n", &|id, loaded| {
        unbuild_one(session, id, target, loaded, false)
    })?;
    let mut kept = session.tree.all_retained();
    kept.retain(|kept| kept.target == *target);
    kept.iter().try_for_each(|kept| let_go(session, kept, false))?;
    let was_installed = was_installed || !kept.is_empty();
    session.tree.forget_attempts_for(&target.kernel)?;
    tidy(session, target, was_installed)
}

/// Removes everything that was built for a kernel whose package is going, for hooks: goes on past
/// failures, because nothing of ours may keep a kernel from being removed. The kernel's verdict
/// goes with its modules.
pub fn kernel_gone(session: &Session, kernel: &KernelRelease) {
    let target = Target { kernel: kernel.clone(), arch: session.tree.arch.clone() };
    if let Err(error) = forget_kernel(session, &target) {
        session.report.warning(format_args!("removing the modules of kernel {kernel}, ignoring: {error:#}"));
    }
}

/// The same for whoever has to know of failures. One thing that fails keeps none of the others.
pub(super) fn forget_kernel(session: &Session, target: &Target) -> Result<()> {
    let removed = session.begin_changes().and_then(|()| prerm(session, target));
    let forgotten = Verdict::forget(&session.tree, &target.kernel);
    let entries = bls::remove_held(&session.tree, &target.kernel, &|_| true);
    removed.and(forgotten).and(entries)
}

/// Undoes what there is of every wanted module; returns whether something was installed.
fn for_all(
    session: &Session,
    target: &Target,
    wanted: &dyn Fn(&ModuleId) -> bool,
    separator: &str,
    undo: &dyn Fn(&ModuleId, &Loaded) -> Result<()>,
) -> Result<bool> {
    let tree = &session.tree;
    let mut was_installed = false;
    for id in tree.ids()? {
        let state = tree.state(&id, target);
        if state == State::Added || !wanted(&id) {
            continue;
        }
        session.report.err(format_args!("dkms: removing module {id} for kernel {target}"));
        let removed = session.load(&id, Some(target)).and_then(|loaded| undo(&id, &loaded));
        match removed {
            Ok(()) => was_installed |= state == State::Installed,
            Err(error) => {
                session
                    .report
                    .warning(format_args!("removing {id} for kernel {target}, ignoring: {error:#}"));
            }
        }
        session.report.out(separator);
    }
    Ok(was_installed)
}

/// Removes the kernel's empty directories, and makes its module indexes anew if it still has
/// modules.
fn tidy(session: &Session, target: &Target, was_installed: bool) -> Result<()> {
    let kernel_dir = session.tree.kernel_dir(&target.kernel);
    files::remove_empty_below(&kernel_dir);
    if was_installed && !session.options.no_depmod {
        let _lock = session.tree.lock_kernel(&target.kernel, &session.report)?;
        depmod_after_removal(&session.tree, &target.kernel, &session.report)?;
    }
    Ok(())
}
