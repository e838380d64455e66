// SPDX-License-Identifier: MIT OR Apache-2.0
//! `build` and `install`: one module, its registered dependencies first.

use anyhow::{Result, bail};

use super::add::{add_if_missing, check_strictly};
use super::gate::finish;
use super::run::{Done, Goal, Initramfs, Item, RunResult, run};
use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::module::{ModuleId, State, Target};
use crate::sys::report::Report;

/// The verb `build`.
pub(super) fn build(session: &Session, module: &ModuleArg, targets: &TargetArgs) -> Result<()> {
    session.begin_changes()?;
    let id = add_if_missing(session, module)?;
    for target in session.targets(targets)? {
        conclude(one(session, &id, &target, Goal::Built, Initramfs::Ours)?)?;
    }
    Ok(())
}

/// The verb `install`.
pub(super) fn install(session: &Session, module: &ModuleArg, targets: &TargetArgs) -> Result<()> {
    session.begin_changes()?;
    let id = add_if_missing(session, module)?;
    for target in session.targets(targets)? {
        let result = one(session, &id, &target, Goal::Installed, Initramfs::Ours)?;
        finish(session, &target, &result)?;
        conclude(result)?;
    }
    Ok(())
}

/// Installs one registered module for one kernel; for hooks.
pub fn install_one(session: &Session, id: &ModuleId, target: &Target) -> Result<RunResult> {
    let result = one(session, id, target, Goal::Installed, Initramfs::Ours)?;
    finish(session, target, &result)?;
    Ok(result)
}

fn one(session: &Session, id: &ModuleId, target: &Target, goal: Goal, initramfs: Initramfs) -> Result<RunResult> {
    let mut items = Vec::new();
    collect(session, id, target, goal, &mut items, &mut Vec::new())?;
    run(session, target, &items, initramfs)
}

/// The last item is the one that was asked for; its failure is the run's, one of a dependency is
/// printed on the way.
fn conclude(result: RunResult) -> Result<()> {
    let mut modules = result.modules;
    let asked = modules.pop().map(|(_, done)| done);
    let dependencies: Vec<String> = modules
        .iter()
        .filter_map(|(id, done)| match done {
            Done::Failed(error) => Some(format!("{id}: {error:#}")),
            _ => None,
        })
        .collect();
    match asked {
        Some(Done::Failed(error) | Done::Skipped(error)) => {
            let report = Report::new(false, false);
            dependencies.iter().for_each(|line| report.error(line));
            Err(error)
        }
        _ => match (result.gate, result.trouble) {
            (Some(outcome), _) if outcome.verdict.standing == crate::gate::verdict::Standing::Held => {
                let verdict = outcome.verdict;
                Err(Failure::Gate { kernel: verdict.kernel.to_string(), reasons: verdict.reasons }.into())
            }
            (_, Some(error)) => Err(error),
            _ => Ok(()),
        },
    }
}

/// Puts a module behind everything that it depends on and that is not installed yet. Returns its
/// position.
fn collect(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    goal: Goal,
    items: &mut Vec<Item>,
    path: &mut Vec<String>,
) -> Result<usize> {
    if let Some(at) = items.iter().position(|item| item.id == *id) {
        return Ok(at);
    }
    if path.iter().any(|name| name == id.name()) {
        path.push(id.name().to_owned());
        bail!("the BUILD_DEPENDS of these modules go in a circle: {}", path.join(" -> "));
    }
    if session.tree.is_broken(id) {
        return Err(Failure::Broken { id: id.clone() }.into());
    }
    let loaded = session.load(id, Some(target))?;
    check_strictly(session, &loaded, &session.tree.source_link(id).join("dkms.conf"))?;
    let is_there = match session.tree.state(id, target) {
        State::Added => false,
        State::Built => goal == Goal::Built,
        State::Installed | State::InstalledWeak { .. } => true,
    };
    let kernel = session.tree.kernel_config(&target.kernel)?;
    let excluded = loaded.conf.excluded_records(target, &kernel);
    let mut after = Vec::new();
    let mut unknown = Vec::new();
    // What is there already, or is ruled out, needs no dependencies any more.
    if !is_there && !loaded.conf.all_excluded(target, &kernel) {
        path.push(id.name().to_owned());
        for name in &loaded.conf.build_depends {
            let versions = session.tree.versions(name)?;
            let installed = versions.iter().any(|version| session.tree.state(version, target) == State::Installed);
            match versions.last() {
                _ if installed => {}
                Some(newest) => after.push(collect(session, newest, target, Goal::Installed, items, path)?),
                None => unknown.push(name.clone()),
            }
        }
        path.pop();
    }
    let doomed = (!unknown.is_empty() && !session.options.force).then(|| Failure::DependsMissing {
        id: id.clone(),
        target: target.clone(),
        missing: unknown.clone(),
    });
    if !unknown.is_empty() && doomed.is_none() {
        session.report.warning(format_args!(
            "Trying to build module {id} for kernel {target} despite of missing BUILD_DEPENDS: {}.",
            unknown.join(" ")
        ));
    }
    items.push(Item { id: id.clone(), loaded, excluded, after, goal, title: None, doomed });
    Ok(items.len() - 1)
}
