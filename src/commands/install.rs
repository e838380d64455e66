// SPDX-License-Identifier: MIT OR Apache-2.0
//! `build` and `install`: one module, its registered dependencies first.

use anyhow::{Result, bail};

use super::add::{Named, add_if_missing, check_strictly};
use super::autoinstall::{Caller, autoinstall};
use super::each::each;
use super::gate::finish;
use super::items::{Done, Goal, Item, Kind, Redo, rebuilds};
use super::run::{Initramfs, RunResult, newest_versions, run};
use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::module::{ModuleId, State, Target};
use crate::plan::{self, Node};

/// The verb `build`.
pub(super) fn build(session: &Session, module: &ModuleArg, targets: &TargetArgs) -> Result<u8> {
    session.begin_changes()?;
    let ids = match add_if_missing(session, module, "build")? {
        Named::Module(id, _) => vec![id],
        Named::Package(ids) => ids,
    };
    each(session, &session.targets(targets)?, |target| {
        let built = |id| conclude(session, id, one(session, id, target, Goal::Built)?);
        first_failure(session, ids.iter().map(built))
    })
}

/// The verb `install`.
pub(super) fn install(session: &Session, module: &ModuleArg, targets: &TargetArgs) -> Result<u8> {
    session.begin_changes()?;
    let named = add_if_missing(session, module, "install")?;
    let targets = session.targets(targets)?;
    let asked = |id: &ModuleId, target: &Target| {
        let result = one(session, id, target, Goal::Installed)?;
        finish(session, target, &result)?;
        conclude(session, id, result)
    };
    match named {
        Named::Module(id, added) => {
            if let (false, Some(target)) = (added, targets.first()) {
                mention(session, &id, target);
            }
            each(session, &targets, |target| asked(&id, target))
        }
        // dkms leaves it to autoinstall, which passes over what does not ask for it.
        Named::Package(ids) => each(session, &targets, |target| {
            let waits =
                |id: &&ModuleId| session.load(id, Some(target)).is_ok_and(|loaded| loaded.conf.autoinstall);
            let results = ids.iter().filter(|id| !waits(id)).map(|id| asked(id, target));
            let rest = || autoinstall(session, target, Caller::CommandLine)?.into_result();
            first_failure(session, results.chain(std::iter::once_with(rest)))
        }),
    }
}

/// The first of several failures, after all has been tried; the others are printed.
fn first_failure(session: &Session, results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let mut failed = Ok(());
    for error in results.filter_map(Result::err) {
        if failed.is_ok() {
            failed = Err(error);
        } else {
            super::report_error(&session.report, &error);
        }
    }
    failed
}

/// Says once more what `add` said of the conf; one that cannot be read is told of later.
fn mention(session: &Session, id: &ModuleId, target: &Target) {
    if let Ok(loaded) = session.load(id, Some(target)) {
        loaded.conf.warnings.iter().for_each(|warning| session.report.err(warning));
        loaded.conf.deprecated.iter().for_each(|feature| session.report.err(feature));
    }
}

/// Installs one registered module for one kernel, and does it again if it is there: its source may
/// have changed, or `is_built` says that what is kept has just come. For hooks.
pub fn install_anew(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    is_built: bool,
    initramfs: Initramfs,
) -> Result<RunResult> {
    let redo = if is_built { Redo::Install } else { Redo::Build };
    let items = items(session, id, target, Goal::Installed, redo)?;
    let result = with_rebuilds(session, target, items, initramfs)?;
    finish(session, target, &result)?;
    Ok(result)
}

fn one(session: &Session, id: &ModuleId, target: &Target, goal: Goal) -> Result<RunResult> {
    with_rebuilds(session, target, items(session, id, target, goal, Redo::No)?, Initramfs::Ours)
}

fn with_rebuilds(
    session: &Session,
    target: &Target,
    mut items: Vec<Item>,
    initramfs: Initramfs,
) -> Result<RunResult> {
    items.extend(rebuilds(session, target, &items)?);
    run(session, target, &items, initramfs)
}

/// The failure of the module that was asked for is the run's; those of others are printed on the
/// way.
fn conclude(session: &Session, id: &ModuleId, result: RunResult) -> Result<()> {
    let mut asked = None;
    for (module, done) in result.modules {
        match done {
            Done::Failed(error) | Done::Skipped(error) if module == *id => asked = Some(error),
            Done::Failed(error) => {
                super::report_error(&session.report, &error);
            }
            _ => {}
        }
    }
    if let Some(error) = asked {
        return Err(error);
    }
    match (result.gate, result.trouble) {
        // Held for want of another module it has been said, and is no failure of this one.
        (Some(outcome), _) if outcome.holds_for(id) => {
            let verdict = outcome.verdict;
            Err(Failure::Gate { kernel: verdict.kernel.to_string(), reasons: verdict.reasons }.into())
        }
        (_, Some(error)) => Err(error),
        _ => Ok(()),
    }
}

/// The module behind everything that it depends on and that is not installed yet.
pub(super) fn items(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    goal: Goal,
    redo: Redo,
) -> Result<Vec<Item>> {
    if session.tree.is_broken(id) {
        return Err(Failure::Broken { id: id.clone() }.into());
    }
    let loaded = session.load(id, Some(target))?;
    check_strictly(&loaded, &session.tree.source_link(id).join("dkms.conf"))?;
    let kernel = session.kernel_config(&target.kernel)?;
    let mut candidates = vec![(id.clone(), loaded)];
    for newest in newest_versions(session)?.into_values().filter(|other| other.name() != id.name()) {
        // A module that cannot be read matters only if it is depended on; it is unknown then.
        if let (false, Ok(loaded)) = (session.tree.is_broken(&newest), session.load(&newest, Some(target))) {
            candidates.push((newest, loaded));
        }
    }
    let mut nodes = Vec::new();
    for (at, (id, loaded)) in candidates.iter().enumerate() {
        let is_there = match session.tree.state(id, target) {
            State::Added => false,
            State::Built => goal == Goal::Built,
            State::Installed | State::InstalledWeak { .. } => true,
        };
        // What is there already, or is ruled out, needs no dependencies any more.
        let mut depends = Vec::new();
        if (!is_there || (redo == Redo::Build && at == 0)) && !loaded.conf.is_excluded(target, &kernel) {
            for name in &loaded.conf.build_depends {
                let versions = session.tree.versions(name)?;
                if !versions.iter().any(|version| session.tree.state(version, target) == State::Installed) {
                    depends.push(name.clone());
                }
            }
        }
        nodes.push(Node { name: id.name().to_owned(), depends });
    }
    let needed = plan::needed(&nodes, 0);
    if let Some(cycle) = needed.cycles.values().next() {
        bail!("the BUILD_DEPENDS of these modules go in a circle: {}", cycle.join(", "));
    }
    let order = needed.order;
    let mut items = Vec::new();
    for at in &order {
        let (id, loaded) = &candidates[*at];
        let position = |name: &String| order.iter().position(|other| nodes[*other].name == *name);
        let (known, unknown): (Vec<&String>, Vec<&String>) =
            nodes[*at].depends.iter().partition(|name| position(name).is_some());
        let mut doomed = None;
        if !unknown.is_empty() {
            let missing: Vec<String> = unknown.into_iter().cloned().collect();
            if session.options.force {
                session.report.warning(format_args!(
                    "Trying to build module {id} for kernel {target} despite of missing BUILD_DEPENDS: {}.",
                    missing.join(" ")
                ));
            } else {
                doomed = Some(Failure::DependsMissing { id: id.clone(), target: target.clone(), missing });
            }
        }
        items.push(Item {
            id: id.clone(),
            excluded: loaded.conf.excluded_records(target, &kernel),
            loaded: loaded.clone(),
            after: known.into_iter().filter_map(position).collect(),
            // What others are built against has to be installed.
            goal: if *at == 0 { goal } else { Goal::Installed },
            redo: if *at == 0 { redo } else { Redo::No },
            kind: Kind::Asked,
            doomed,
        });
    }
    Ok(items)
}
