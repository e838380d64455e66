// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run would do, for `replay --dry-run`. Decides as the run itself does, and changes nothing.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde::Serialize;

use super::add::identify;
use super::autoinstall::{candidates, has_been_disabled, items, needs_headers};
use super::critical::critical;
use super::install;
use super::items::{Goal, Item, Redo, headers_missing, rebuilds};
use super::match_kernels;
use super::select::{Among, Selected, registered, select};
use super::session::Session;
use crate::cli::{Action, ModuleArg};
use crate::initramfs;
use crate::kernel::KernelRelease;
use crate::module::{Arch, ModuleId, State, Target};

/// The verbs that work on one module, or on all of a kernel that goes.
pub fn affected(session: &Session, action: &Action) -> Result<Vec<Kernel>> {
    let (module, targets, all) = match action {
        Action::Build { module, targets } | Action::Install { module, targets } => (module, targets, false),
        Action::Unbuild { module, targets, all }
        | Action::Uninstall { module, targets, all }
        | Action::Remove { module, targets, all } => (module, targets, *all),
        Action::KernelPreinst { targets } | Action::KernelPrerm { targets } => {
            return Ok(vec![removal(session, &session.one_target(targets)?, None)?]);
        }
        _ => return Ok(Vec::new()),
    };
    let installs = matches!(action, Action::Install { .. });
    if !installs && !matches!(action, Action::Build { .. }) {
        let id = registered(session, module, "remove")?;
        let targets = if all { session.tree.targets(&id) } else { session.targets(targets)? };
        return targets.iter().map(|target| removal(session, target, Some(&id))).collect();
    }
    let id = match select(session, module, "install", Among::Both)? {
        Selected::Id(id) => id,
        Selected::Source(directory) => identify(session, &directory)?,
        Selected::Rpm(file) | Selected::Archive(file) => {
            bail!("what {} brings cannot be told before it is unpacked", file.display())
        }
    };
    session.targets(targets)?.iter().map(|target| bring(session, &id, target, installs, false)).collect()
}

/// What a run would do for one kernel.
#[derive(Debug, Serialize)]
pub struct Kernel {
    #[serde(flatten)]
    target: Target,
    modules: Vec<Module>,
    /// What comes after the modules, in order.
    then: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Module {
    /// `name/version`.
    module: String,
    step: Step,
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
enum Step {
    #[strum(to_string = "would be built")]
    Build,
    #[strum(to_string = "would be installed")]
    Install,
    #[strum(to_string = "would be built and installed")]
    BuildAndInstall,
    #[strum(to_string = "would be removed")]
    Remove,
    #[strum(to_string = "stays as it is")]
    Stay,
    #[strum(to_string = "would be skipped")]
    Skip,
    #[strum(to_string = "would fail")]
    Fail,
}

/// Who makes the initramfs and tells the boot loader.
#[derive(Debug, Clone)]
pub enum Afterwards {
    /// We do.
    Ours,
    /// This command does, which we call.
    Called(String),
    /// The hooks of a kernel that is yet to come.
    Later,
}

/// What `replay --dry-run --json` prints; the schema's number changes when a field changes its
/// meaning.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    replay_of: Option<u64>,
    argv: &'a [String],
    kernels: &'a [Kernel],
    notes: &'a [String],
}

/// Prints a plan. The notes are what there is to say beside what is done for kernels.
pub fn show(session: &Session, kernels: &[Kernel], notes: &[String]) -> Result<()> {
    let (call, report) = (&session.recorder.call, &session.report);
    if session.options.json {
        let document = Document { schema: 1, replay_of: call.replay_of, argv: &call.argv, kernels, notes };
        report.line(serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    report.line(format_args!("dkms {} would do this:", shell_words::join(&call.argv)));
    for Kernel { target, modules, then } in kernels {
        let mut text = format!("Kernel {target}\n");
        // Writing to a String cannot fail.
        for Module { module, step, reason } in modules {
            let reason = reason.as_ref().map(|reason| format!(": {}", reason.replace('\n', "\n    ")));
            let _ = writeln!(text, "  {module} {step}{}", reason.unwrap_or_default());
        }
        if modules.is_empty() {
            let _ = writeln!(text, "  no module is concerned");
        }
        for then in then {
            let _ = writeln!(text, "  then {then}");
        }
        report.out(text);
    }
    notes.iter().for_each(|note| report.line(note));
    if kernels.is_empty() && notes.is_empty() {
        report.line("Nothing.");
    }
    Ok(())
}

/// `autoinstall` for one kernel, by whatever protocol.
pub fn autoinstall(session: &Session, target: &Target, afterwards: &Afterwards) -> Result<Kernel> {
    if has_been_disabled(session) {
        let then = then(session, target, &[], afterwards, false)?;
        return Ok(Kernel { target: target.clone(), modules: Vec::new(), then });
    }
    let (candidates, _) = candidates(session, target)?;
    let (mut work, deferred) = items(session, target, &candidates)?;
    work.extend(rebuilds(session, target, &work)?);
    let mut modules = foretold(session, target, &work)?;
    for candidate in &candidates {
        let id = &candidate.id;
        if work.iter().any(|item| item.id == *id) {
            continue;
        }
        let waits = deferred.iter().find(|deferred| deferred.id == *id);
        let (step, reason) = if let Some(waits) = waits {
            (Step::Skip, format!("it waits for {}", waits.unknown.join(", ")))
        } else if candidate.installed {
            (Step::Stay, "it is installed".to_owned())
        } else {
            (Step::Stay, "it does not ask for AUTOINSTALL".to_owned())
        };
        modules.push(Module { module: id.to_string(), step, reason: Some(reason) });
    }
    let then = then(session, target, &work, afterwards, modules.iter().any(Module::changes))?;
    Ok(Kernel { target: target.clone(), modules, then })
}

/// `autoinstall --all-kernels`.
pub fn all_kernels(session: &Session) -> Result<Vec<Kernel>> {
    let (kernels, _) = super::kernels(session)?;
    let targets = kernels.into_iter().map(|kernel| Target { kernel, arch: session.tree.arch.clone() });
    targets.map(|target| autoinstall(session, &target, &Afterwards::Ours)).collect()
}

/// `build` or `install` of one module. `anew` says that it is done although it has been done.
pub fn bring(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    installs: bool,
    anew: bool,
) -> Result<Kernel> {
    let goal = if installs { Goal::Installed } else { Goal::Built };
    if !session.tree.is_registered(id) {
        let step = if installs { Step::BuildAndInstall } else { Step::Build };
        let reason = Some("it would be added first".to_owned());
        let modules = vec![Module { module: id.to_string(), step, reason }];
        return Ok(Kernel { target: target.clone(), modules, then: Vec::new() });
    }
    let redo = if anew { Redo::Build } else { Redo::No };
    of_items(session, target, install::items(session, id, target, goal, redo)?)
}

/// `match`.
pub fn matched(
    session: &Session,
    template: &(KernelRelease, Option<Arch>),
    module: Option<&ModuleArg>,
    target: &Target,
) -> Result<Kernel> {
    let template = match_kernels::template_for(template, target)?;
    let wanted = match_kernels::wanted(session, &template, module)?;
    let (items, _) = match_kernels::all_items(session, &wanted, target);
    of_items(session, target, items)
}

fn of_items(session: &Session, target: &Target, mut items: Vec<Item>) -> Result<Kernel> {
    items.extend(rebuilds(session, target, &items)?);
    let modules = foretold(session, target, &items)?;
    let changes = modules.iter().any(Module::changes);
    let then = then(session, target, &items, &Afterwards::Ours, changes)?;
    Ok(Kernel { target: target.clone(), modules, then })
}

/// The removal of what was built for a kernel, of one module or of all.
pub fn removal(session: &Session, target: &Target, only: Option<&ModuleId>) -> Result<Kernel> {
    let mut modules = Vec::new();
    for id in session.tree.ids()?.iter().filter(|id| only.is_none_or(|only| only == *id)) {
        if session.tree.state(id, target) != State::Added {
            modules.push(Module { module: id.to_string(), step: Step::Remove, reason: None });
        }
    }
    Ok(Kernel { target: target.clone(), modules, then: Vec::new() })
}

/// A kernel whose files are only looked at.
pub fn look(target: Target) -> Kernel {
    let then = vec!["it is looked at again, and the boot loader is told of what has become of it".to_owned()];
    Kernel { target, modules: Vec::new(), then }
}

impl Module {
    /// Whether the kernel's modules change.
    fn changes(&self) -> bool {
        matches!(self.step, Step::Install | Step::BuildAndInstall)
    }
}

fn foretold(session: &Session, target: &Target, items: &[Item]) -> Result<Vec<Module>> {
    let without_headers =
        needs_headers(session, target, items)?.then(|| headers_missing(session, target, &[]).to_string());
    let mut found: Vec<Module> = Vec::new();
    for item in items {
        let (step, mut reason) = step(session, target, item);
        let builds = matches!(step, Step::Build | Step::BuildAndInstall);
        let lacks = item.after.iter().any(|before| found[*before].step == Step::Fail);
        let step = if builds && (without_headers.is_some() || lacks) {
            reason = without_headers.clone().or(Some("what it depends on fails".to_owned()));
            Step::Fail
        } else {
            step
        };
        found.push(Module { module: item.id.to_string(), step, reason });
    }
    Ok(found)
}

fn step(session: &Session, target: &Target, item: &Item) -> (Step, Option<String>) {
    if let Some(failure) = &item.doomed {
        return (Step::Fail, Some(failure.to_string()));
    }
    let state = session.tree.state(&item.id, target);
    let builds = state == State::Added || item.redo == Redo::Build || session.options.force;
    if builds && item.excluded.iter().all(|excluded| *excluded) {
        return (Step::Skip, Some("BUILD_EXCLUSIVE rules this kernel out".to_owned()));
    }
    let again = session.options.force || item.redo != Redo::No;
    match (item.goal, builds) {
        (Goal::Built, true) => (Step::Build, None),
        (Goal::Built, false) => (Step::Stay, Some("it is built".to_owned())),
        (Goal::Installed, _) if state == State::Installed && !again => {
            (Step::Stay, Some("it is installed".to_owned()))
        }
        (Goal::Installed, true) => (Step::BuildAndInstall, None),
        (Goal::Installed, false) => (Step::Install, Some("it is built".to_owned())),
    }
}

/// What comes after the modules of a run.
fn then(
    session: &Session,
    target: &Target,
    items: &[Item],
    afterwards: &Afterwards,
    changes: bool,
) -> Result<Vec<String>> {
    let (policy, kernel) = (session.policy()?, &target.kernel);
    let critical = critical(session, target, &policy)?;
    let asks = items.iter().any(|item| {
        let is_critical = critical.iter().any(|critical| critical.name == item.id.name());
        item.loaded.conf.remake_initrd || is_critical
    });
    let mut then = Vec::new();
    if changes && !session.options.no_depmod {
        then.push("depmod runs once".to_owned());
    }
    if let (true, true, Afterwards::Ours, Some(tool)) =
        (changes, asks, afterwards, initramfs::generator(policy.generator))
    {
        then.push(format!("{} makes the initramfs of {kernel}", tool.name()));
    }
    if changes && session.framework.post_transaction.is_some() {
        then.push("post_transaction is executed".to_owned());
    }
    if !critical.is_empty() && !session.gate(&policy).is_off() {
        let names: Vec<&str> = critical.iter().map(|critical| critical.name.as_str()).collect();
        then.push(format!("it is looked whether {kernel} has what it needs to boot: {}", names.join(", ")));
    }
    match afterwards {
        Afterwards::Ours if critical.is_empty() => {}
        Afterwards::Ours => {
            then.push("the boot loader is told, if the kernel may boot now and might not before".to_owned());
        }
        Afterwards::Called(command) => {
            then.push(format!("{command} is called, unless the kernel lacks what it needs to boot"));
        }
        Afterwards::Later => then.push("the kernel's own hooks make its initramfs".to_owned()),
    }
    Ok(then)
}
