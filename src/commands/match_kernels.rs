// SPDX-License-Identifier: MIT OR Apache-2.0
//! `match`: installs into one kernel what is installed in another, the template.

use anyhow::Result;

use super::gate::finish;
use super::install::items;
use super::items::{Done, Goal, Item, Kind, Redo, rebuilds};
use super::run::{Initramfs, RunResult, run};
use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::gate::verdict::Standing;
use crate::kernel::KernelRelease;
use crate::module::{Arch, ModuleId, State, Target};
use crate::plan::{self, Node};

/// The verb `match`; the result is the exit code. Goes on past modules that fail, and ends with
/// the code of the first.
pub(super) fn match_kernels(
    session: &Session,
    template: &(KernelRelease, Option<Arch>),
    module: Option<&ModuleArg>,
    targets: &TargetArgs,
) -> Result<u8> {
    let target = session.one_target(targets)?;
    let template = template_for(template, &target)?;
    session.begin_changes()?;
    let wanted = wanted(session, &template, module)?;
    let report = &session.report;
    report.line(format_args!(
        "\nMatching modules in kernel: {target}\nto the configuration of kernel: {template}"
    ));
    let directory = session.tree.kernel_dir(&target.kernel);
    if !directory.is_dir() {
        return Err(Failure::KernelDirectoryMissing { directory: directory.display().to_string() }.into());
    }
    if wanted.is_empty() {
        report.line("\nThere is nothing to be done for this match.");
        return Ok(0);
    }
    let (mut items, failed) = all_items(session, &wanted, &target);
    items.extend(rebuilds(session, &target, &items)?);
    let result = run(session, &target, &items, Initramfs::Ours)?;
    finish(session, &target, &result)?;
    conclude(result, failed)
}

/// The kernel that the target is to be like.
pub(super) fn template_for(template: &(KernelRelease, Option<Arch>), target: &Target) -> Result<Target> {
    let (kernel, arch) = template.clone();
    let template = Target { kernel, arch: arch.unwrap_or_else(|| target.arch.clone()) };
    if template == *target { Err(Failure::SameTemplate.into()) } else { Ok(template) }
}

/// What is installed for the template of the modules that the command line leaves.
pub(super) fn wanted(
    session: &Session,
    template: &Target,
    module: Option<&ModuleArg>,
) -> Result<Vec<ModuleId>> {
    let mut wanted = candidates(session, module)?;
    wanted.retain(|id| session.tree.state(id, template) == State::Installed);
    Ok(wanted)
}

/// The registered modules that the command line leaves.
fn candidates(session: &Session, module: Option<&ModuleArg>) -> Result<Vec<ModuleId>> {
    let (name, version) = match module {
        None | Some(ModuleArg::Archive(_)) => return session.tree.ids(),
        Some(ModuleArg::Named { name, version }) => (name, version.as_deref()),
        Some(ModuleArg::Word(word)) => (word, None),
    };
    let ids = session.tree.versions(name)?;
    if ids.is_empty() {
        return Err(Failure::ModuleNotInTree { name: name.clone() }.into());
    }
    let Some(version) = version else { return Ok(ids) };
    let id = ModuleId::new(name, version)?;
    if ids.contains(&id) { Ok(vec![id]) } else { Err(Failure::NotInTree { id }.into()) }
}

/// The modules and what they depend on, dependencies first, and the exit code of the first that
/// cannot be worked on.
pub(super) fn all_items(session: &Session, wanted: &[ModuleId], target: &Target) -> (Vec<Item>, Option<u8>) {
    let depends = |id: &ModuleId| session.load(id, Some(target)).map(|loaded| loaded.conf.build_depends);
    let nodes: Vec<Node> = wanted
        .iter()
        .map(|id| Node { name: id.name().to_owned(), depends: depends(id).unwrap_or_default() })
        .collect();
    let mut all: Vec<Item> = Vec::new();
    let mut failed = None;
    for at in plan::order(&nodes).order {
        let of_one = match items(session, &wanted[at], target, Goal::Installed, Redo::No) {
            Ok(of_one) => of_one,
            Err(error) => {
                let code = super::report_error(&session.report, &error);
                failed.get_or_insert(code);
                continue;
            }
        };
        // Where each of these items is in the whole.
        let mut places: Vec<usize> = Vec::new();
        for item in of_one {
            let known = all.iter().position(|other| other.id.name() == item.id.name());
            places.push(known.unwrap_or(all.len()));
            if known.is_none() {
                let after = item.after.iter().map(|before| places[*before]).collect();
                all.push(Item { after, kind: Kind::Matched, ..item });
            }
        }
    }
    (all, failed)
}

/// The failures have been printed.
fn conclude(result: RunResult, failed: Option<u8>) -> Result<u8> {
    let code = |done: &Done| match done {
        Done::Failed(error) => Some(error.downcast_ref().map_or(1, Failure::code)),
        _ => None,
    };
    let failed = failed.or_else(|| result.modules.iter().find_map(|(_, done)| code(done)));
    match (failed, result.gate, result.trouble) {
        (Some(code), ..) => Ok(code),
        (None, Some(outcome), _) if outcome.verdict.standing == Standing::Held => {
            let verdict = outcome.verdict;
            Err(Failure::Gate { kernel: verdict.kernel.to_string(), reasons: verdict.reasons }.into())
        }
        (None, _, Some(error)) => Err(error),
        _ => Ok(0),
    }
}
