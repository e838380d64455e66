// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run for one kernel: marked as pending, the modules built and installed (`engine.rs`), then
//! one depmod, at most one initramfs, one verdict.

use std::collections::BTreeMap;

use anyhow::{Error, Result};

use super::engine::Engine;
use super::gate::{ensure_indexed, image, mark};
use super::items::{Done, Goal, Item};
use super::post_transaction::post_transaction;
use super::session::Session;
use crate::conf::policy::Policy;
use crate::gate::verdict::Verdict;
use crate::gate::{self, Outcome, Registered};
use crate::initramfs;
use crate::module::{ModuleId, Target};

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
    let (mut modules, applied) = engine.work();
    engine.index(&mut modules, applied)?;
    let changed = |done: &Done| matches!(done, Done::Installed);
    let mut trouble = None;
    if modules.iter().any(|(_, done)| changed(done)) {
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
    Ok(RunResult { modules, gate, trouble })
}

/// What this kernel needs to boot, from the newest version of every registered module. A module
/// whose configuration cannot be read counts as it did when it last could, for whatever kernel.
pub(super) fn critical(
    session: &Session,
    target: &Target,
    policy: &Policy,
) -> Result<Vec<gate::verdict::Critical>> {
    let kernel = session.kernel_config(&target.kernel)?;
    let mut loaded = Vec::new();
    let mut unreadable = Vec::new();
    for id in newest_versions(session)?.into_values() {
        match session.load(&id, Some(target)) {
            Ok(module) if !session.tree.is_broken(&id) => {
                let excluded = module.conf.excluded_records(target, &kernel);
                loaded.push((module, excluded));
            }
            _ => unreadable.push(id),
        }
    }
    let registered: Vec<Registered<'_>> =
        loaded.iter().map(|(module, excluded)| Registered { conf: &module.conf, excluded }).collect();
    let mut critical = gate::critical(policy, &registered);
    let overruled = |name: &str| policy.module_critical.get(name) == Some(&false);
    for id in unreadable.iter().filter(|id| !overruled(id.name())) {
        let known = || Verdict::known_critical(&session.tree, id.name());
        if !critical.iter().any(|critical| critical.name == id.name()) {
            critical.extend(known());
        }
    }
    Ok(critical)
}

/// What this kernel needs to boot by all that is known: a verdict of another day may name more than
/// the modules that are registered now.
pub(super) fn needed(
    session: &Session,
    target: &Target,
    policy: &Policy,
) -> Result<Vec<gate::verdict::Critical>> {
    let mut needed = critical(session, target, policy)?;
    if let Some(known) = Verdict::load(&session.tree, &target.kernel)? {
        let is_new = |name: &str| !needed.iter().any(|critical| critical.name == name);
        let held_for: Vec<_> = known.critical.into_iter().filter(|known| is_new(&known.name)).collect();
        needed.extend(held_for);
    }
    Ok(needed)
}

/// The newest registered version of every module, by name.
pub(super) fn newest_versions(session: &Session) -> Result<BTreeMap<String, ModuleId>> {
    // Versions of a name come oldest first.
    Ok(session.tree.ids()?.into_iter().map(|id| (id.name().to_owned(), id)).collect())
}
