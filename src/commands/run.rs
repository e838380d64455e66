// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run for one kernel: marked as pending, the modules built and installed (`engine.rs`), then
//! one depmod, at most one initramfs, one verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Error, Result};

use super::critical::critical;
use super::engine::Engine;
use super::gate::{ensure_indexed, image, mark};
use super::items::{Done, Goal, Item, Redo};
use super::post_transaction::post_transaction;
use super::record;
use super::session::Session;
use crate::gate::{self, Outcome};
use crate::initramfs;
use crate::install::Placement;
use crate::install::weak::{self, Change};
use crate::module::{ModuleId, State, Target};

/// Who makes the initramfs after modules have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initramfs {
    /// Nobody but us.
    Ours,
    /// The package manager runs the regular generator after us.
    Later,
}

/// What a run came to.
#[derive(Debug)]
pub struct RunResult {
    pub modules: Vec<(ModuleId, Done)>,
    pub gate: Option<Outcome>,
    /// What went wrong after the modules were in place.
    pub trouble: Option<Error>,
}

impl RunResult {
    /// Whether the kernel lacks what the machine needs to boot.
    pub fn held(&self) -> bool {
        let standing = self.gate.as_ref().map(|outcome| outcome.verdict.standing);
        standing == Some(gate::verdict::Standing::Held)
    }
}

/// Works on the items, which come dependencies first.
pub(super) fn run(
    session: &Session,
    target: &Target,
    items: &[Item],
    initramfs: Initramfs,
) -> Result<RunResult> {
    let policy = session.policy()?;
    let installs = items.iter().any(|item| item.goal == Goal::Installed);
    let critical = if installs { critical(session, target, &policy)? } else { Vec::new() };
    let gate = session.gate(&policy);
    let before = if installs { mark(&gate, &target.kernel, &critical)? } else { None };
    let engine = Engine::new(session, target, items, &policy)?;
    let _live = session.report.live();
    if items.iter().any(|item| is_work(session, target, item)) {
        record::begin(session);
    }
    let (mut modules, applied) = engine.work();
    engine.index(&mut modules, applied)?;
    modules.iter().for_each(|(id, done)| record::module(session, target, id, done));
    let changed = |done: &Done| matches!(done, Done::Installed);
    let mut trouble = None;
    if modules.iter().any(|(_, done)| changed(done)) {
        link_weakly(session, target, items, &modules);
        engine.load_installed(&modules);
        let remake = items.iter().zip(&modules).any(|(item, (id, done))| {
            let is_critical = critical.iter().any(|critical| critical.name == id.name());
            changed(done) && (item.loaded.conf.remake_initrd || is_critical)
        });
        // A machine without a generator has no image that could be out of date.
        let generator = policy.generator;
        if remake && initramfs == Initramfs::Ours && initramfs::generator(generator).is_some() {
            trouble = initramfs::remake(&session.tree, &target.kernel, generator, &session.report).err();
        }
        post_transaction(session, target);
    }
    if !installs {
        return Ok(RunResult { modules, gate: None, trouble });
    }
    ensure_indexed(session, &target.kernel, &critical)?;
    let image = image(&gate, &target.kernel, initramfs);
    let mut failures: Vec<(String, String)> = modules
        .iter()
        .filter_map(|(id, done)| match done {
            Done::Failed(error) | Done::Skipped(error) => Some((id.name().to_owned(), format!("{error:#}"))),
            _ => None,
        })
        .collect();
    if let Some(error) = &trouble {
        failures.extend(critical.iter().map(|critical| (critical.name.clone(), format!("{error:#}"))));
    }
    let gate = gate.settle(&target.kernel, &critical, &image, &failures, before)?;
    gate.iter().for_each(|outcome| record::judged(session, outcome));
    Ok(RunResult { modules, gate, trouble })
}

/// Whether an item will be built or installed, as far as one can tell.
fn is_work(session: &Session, target: &Target, item: &Item) -> bool {
    let state = session.tree.state(&item.id, target);
    let is_there = state == State::Installed || (state == State::Built && item.goal == Goal::Built);
    let again = session.options.force || item.redo != Redo::No;
    item.doomed.is_none() && (again || !is_there) && !item.excluded.iter().all(|excluded| *excluded)
}

/// Lets other kernels with the same kABI have the modules that were installed, all at once.
fn link_weakly(session: &Session, target: &Target, items: &[Item], modules: &[(ModuleId, Done)]) {
    let (tree, report, distribution) = (&session.tree, &session.report, session.distribution);
    let files: Vec<PathBuf> = items
        .iter()
        .zip(modules)
        .filter(|(item, (_, done))| matches!(done, Done::Installed) && !item.loaded.conf.no_weak_modules)
        .flat_map(|(item, _)| {
            let place = Placement { tree, report, distribution, id: &item.id, target };
            place.places(&item.loaded.conf)
        })
        .collect();
    weak::announce(distribution, &target.kernel, &files, Change::Added, report);
}

/// The newest registered version of every module, by name.
pub(super) fn newest_versions(session: &Session) -> Result<BTreeMap<String, ModuleId>> {
    // Versions of a name come oldest first.
    Ok(session.tree.ids()?.into_iter().map(|id| (id.name().to_owned(), id)).collect())
}
