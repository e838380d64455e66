// SPDX-License-Identifier: MIT OR Apache-2.0
//! `autoinstall`: the newest version of every AUTOINSTALL module for one kernel, or for all.

use anyhow::Result;

use super::attempts;
use super::gate::finish;
use super::items::{Done, Goal, Item, Kind, Redo, headers_missing, rebuilds};
use super::record;
use super::run::{Initramfs, RunResult, newest_versions, run};
use super::session::Session;
use crate::failure::Failure;
use crate::kernel::KernelRelease;
use crate::module::{ModuleId, State, Target};
use crate::plan::{self, Node};
use crate::store::Store;
use crate::sys::{files, signals};
use crate::tree::registered::Loaded;

/// On whose behalf a run happens, which decides what comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A person, or headers that came after their kernel: nobody makes an initramfs after us.
    CommandLine,
    /// A kernel is being installed, and the package manager makes its initramfs after us.
    KernelInstallation,
}

/// What an autoinstall came to.
#[derive(Debug)]
#[must_use]
pub struct Autoinstalled {
    /// Nothing if there was nothing to do.
    pub result: Option<RunResult>,
    /// Whether any module failed.
    pub failed: bool,
    /// Work could not begin for this reason.
    pub prevented: Option<Failure>,
}

impl Autoinstalled {
    /// The end of the verb `autoinstall`.
    pub(super) fn into_result(self) -> Result<()> {
        if let Some(failure) = self.prevented {
            return Err(failure.into());
        }
        if self.failed {
            return Err(Failure::Autoinstall.into());
        }
        if let Some(result) = self.result {
            if let (true, Some(outcome)) = (result.held(), result.gate) {
                let verdict = outcome.verdict;
                return Err(
                    Failure::Gate { kernel: verdict.kernel.to_string(), reasons: verdict.reasons }.into()
                );
            }
            return result.trouble.map_or(Ok(()), Err);
        }
        Ok(())
    }
}

/// Whether `/etc/dkms/no-autoinstall` switches automatic installation off.
pub fn has_been_disabled(session: &Session) -> bool {
    files::exists(&session.tree.path("/etc/dkms/no-autoinstall"))
}

/// A module that autoinstall looks at.
pub(super) struct Candidate {
    pub id: ModuleId,
    pub loaded: Loaded,
    pub excluded: Vec<bool>,
    pub installed: bool,
}

/// Says that nothing is installed automatically, if so.
fn mention_if_disabled(session: &Session) {
    if has_been_disabled(session) {
        session.report.line("Automatic installation of modules has been disabled.");
    }
}

/// `autoinstall --all-kernels`; the result is the exit code. The running kernel comes first,
/// because it can do with its modules at once, then from the newest, which is booted next, to the
/// oldest. Each is a run of its own, with its own summary, depmod, initramfs and verdict, and is
/// attempted whatever becomes of the others.
pub(super) fn all_kernels(session: &Session) -> Result<u8> {
    session.begin_changes()?;
    mention_if_disabled(session);
    let (kernels, mut bare) = kernels(session)?;
    let mut failed = false;
    for kernel in kernels {
        let target = Target { kernel, arch: session.tree.arch.clone() };
        let done = one_kernel(session, &target, Caller::CommandLine).and_then(Autoinstalled::into_result);
        let Err(error) = done else { continue };
        if signals::caught().is_some() {
            return Err(error);
        }
        if matches!(error.downcast_ref(), Some(Failure::HeadersMissing { .. })) {
            bare.push(target.kernel);
            continue;
        }
        failed = true;
        // What failed is told at the end, once.
        if !matches!(error.downcast_ref(), Some(Failure::Autoinstall)) {
            super::report_error(&session.report, &error);
        }
    }
    if !bare.is_empty() && !has_been_disabled(session) {
        let names: Vec<&str> = bare.iter().map(KernelRelease::as_str).collect();
        session.report.line(format_args!("Kernels without headers are left alone: {}.", names.join(", ")));
    }
    if failed { Err(Failure::Autoinstall.into()) } else { Ok(0) }
}

/// The installed kernels that have headers, or a shared store that may stand in for them, in the order
/// they are worked on, and those that have none.
pub fn kernels(session: &Session) -> Result<(Vec<KernelRelease>, Vec<KernelRelease>)> {
    let tree = &session.tree;
    let (mut kernels, mut bare) = (Vec::new(), Vec::new());
    let shared = session.can_ask_remotes()?;
    for kernel in in_order(tree.installed_kernels()?, tree.running_kernel().ok().as_ref()) {
        let can_build = shared || tree.kernel_build_dir(&kernel, None, None)?.is_some();
        if can_build { kernels.push(kernel) } else { bare.push(kernel) }
    }
    Ok((kernels, bare))
}

/// The running kernel, then from the newest to the oldest; they are given oldest first.
fn in_order(mut kernels: Vec<KernelRelease>, running: Option<&KernelRelease>) -> Vec<KernelRelease> {
    kernels.reverse();
    if let Some(at) = kernels.iter().position(|kernel| Some(kernel) == running) {
        kernels[..=at].rotate_right(1);
    }
    kernels
}

/// Brings a kernel's modules up to date. Changes must have begun.
pub fn autoinstall(session: &Session, target: &Target, caller: Caller) -> Result<Autoinstalled> {
    mention_if_disabled(session);
    one_kernel(session, target, caller)
}

fn one_kernel(session: &Session, target: &Target, caller: Caller) -> Result<Autoinstalled> {
    let initramfs = match caller {
        Caller::CommandLine => Initramfs::Ours,
        Caller::KernelInstallation => Initramfs::Later,
    };
    if has_been_disabled(session) {
        // What the machine needs to boot is looked for all the same.
        let result = super::gate::settle_if_open(session, target, initramfs, caller)?;
        return Ok(Autoinstalled { result, failed: false, prevented: None });
    }
    let (candidates, unreadable) = candidates(session, target)?;
    let mut failed = unreadable;
    let (mut items, deferred) = items(session, target, &candidates)?;
    items.extend(rebuilds(session, target, &items)?);
    let work = items.iter().any(|item| item.doomed.is_none());
    let mut result = None;
    let mut prevented = None;
    if work && needs_headers(session, target, &items)? {
        prevented = Some(headers_missing(session, target, &[]));
    }
    if let Some(headers) = &prevented {
        let failures: Vec<(String, String)> =
            items.iter().map(|item| (item.id.name().to_owned(), format!("{headers:#}"))).collect();
        for item in &items {
            let failure = item.doomed.as_ref().unwrap_or(headers).clone();
            let done = Done::Failed(failure.into());
            attempts::remember(session, target, item, &done, &session.report);
            record::module(session, target, &item.id, &done);
        }
        result = super::gate::settle_without_run(session, target, initramfs, &failures)?;
    } else if !items.is_empty() {
        let run = run(session, target, &items, initramfs)?;
        prevented = without_headers(session, &run);
        result = Some(run);
    } else {
        result = super::gate::settle_if_open(session, target, initramfs, caller)?.or(result);
    }
    if let (Some(result), None) = (&result, &prevented) {
        failed |= summarise(session, target, &candidates, result, &deferred);
    } else if prevented.is_none() {
        announce_deferred(session, target, &deferred);
    }
    if let (Some(result), Caller::CommandLine) = (&result, caller) {
        finish(session, target, result)?;
    }
    Ok(Autoinstalled { result, failed, prevented })
}

/// What came of building without installing.
pub(super) struct TriedOut {
    /// PACKAGE_NAME and what went wrong.
    pub failed: Vec<(String, String)>,
    /// Those that need others to be installed first.
    pub waiting: Vec<ModuleId>,
}

/// Builds for a kernel what autoinstall would install, and installs nothing. `all` tries also what
/// would have to be built once more to be installed.
pub(super) fn try_out(session: &Session, target: &Target, all: bool) -> Result<TriedOut> {
    if has_been_disabled(session) {
        return Ok(TriedOut { failed: Vec::new(), waiting: Vec::new() });
    }
    let (candidates, _) = candidates(session, target)?;
    let (mut items, deferred) = items(session, target, &candidates)?;
    let policy = session.policy()?;
    let store = Store::new(&session.tree, &policy);
    items.retain(|item| all || store.wants(&item.loaded.conf));
    let (free, waiting): (Vec<Item>, Vec<Item>) =
        items.into_iter().partition(|item| item.doomed.is_none() && item.after.is_empty());
    let free: Vec<Item> = free.into_iter().map(|item| Item { goal: Goal::Built, ..item }).collect();
    let waiting = waiting.into_iter().map(|item| item.id).chain(deferred.into_iter().map(|one| one.id));
    if needs_headers(session, target, &free)? {
        return Err(headers_missing(session, target, &[]).into());
    }
    let result = run(session, target, &free, Initramfs::Later)?;
    let failed = result.modules.into_iter().filter_map(|(id, done)| match done {
        Done::Failed(error) => Some((id.name().to_owned(), format!("{error:#}"))),
        _ => None,
    });
    Ok(TriedOut { failed: failed.collect(), waiting: waiting.collect() })
}

/// The newest versions of all modules; whether one of them could not be read.
pub(super) fn candidates(session: &Session, target: &Target) -> Result<(Vec<Candidate>, bool)> {
    let tree = &session.tree;
    let kernel = session.kernel_config(&target.kernel)?;
    let mut candidates = Vec::new();
    let mut unreadable = false;
    for id in newest_versions(session)?.into_values() {
        if tree.is_broken(&id) {
            session.report.error(format_args!(
                "{id} is broken! Missing the source directory or the symbolic link pointing to it.\n\
                 Manual intervention is required!"
            ));
            continue;
        }
        match session.load(&id, Some(target)) {
            Ok(loaded) => {
                let excluded = loaded.conf.excluded_records(target, &kernel);
                let installed = tree.state(&id, target) == State::Installed;
                candidates.push(Candidate { id, loaded, excluded, installed });
            }
            Err(error) => {
                super::report_error(&session.report, &error);
                unreadable = true;
            }
        }
    }
    Ok((candidates, unreadable))
}

/// A module that waits for others which dkms knows nothing of.
pub(super) struct Deferred {
    pub id: ModuleId,
    pub unknown: Vec<String>,
}

/// What is to be done, in order, and what has to wait.
pub(super) fn items(
    session: &Session,
    target: &Target,
    candidates: &[Candidate],
) -> Result<(Vec<Item>, Vec<Deferred>)> {
    let wanted: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.loaded.conf.autoinstall && !candidate.installed)
        .collect();
    let nodes: Vec<Node> = wanted
        .iter()
        .map(|candidate| Node {
            name: candidate.id.name().to_owned(),
            depends: candidate.loaded.conf.build_depends.clone(),
        })
        .collect();
    let plan::Order { order, cycles } = plan::order(&nodes);
    let mut items: Vec<Item> = Vec::new();
    let mut deferred: Vec<Deferred> = Vec::new();
    for at in order {
        let candidate = wanted[at];
        let mut after = Vec::new();
        let mut missing = Vec::new();
        let mut unknown = Vec::new();
        for name in &nodes[at].depends {
            let versions = session.tree.versions(name)?;
            let is_installed = versions.iter().any(|id| session.tree.state(id, target) == State::Installed);
            if is_installed {
                continue;
            }
            match items.iter().position(|item| item.id.name() == name) {
                Some(before) => after.push(before),
                None if deferred.iter().any(|other| other.id.name() == name) || versions.is_empty() => {
                    unknown.push(name.clone());
                }
                // Known, but nothing will install it: on a cycle, or not for autoinstall.
                None => missing.push(name.clone()),
            }
        }
        let id = candidate.id.clone();
        if missing.is_empty() && !unknown.is_empty() {
            deferred.push(Deferred { id, unknown });
            continue;
        }
        if let Some(cycle) = cycles.get(&at) {
            let on_cycle = |name: &&String| cycle.contains(*name);
            missing = nodes[at].depends.iter().filter(on_cycle).cloned().collect();
        }
        let doomed = (!missing.is_empty()).then(|| Failure::AutoinstallDepends { id: id.clone(), missing });
        items.push(Item {
            kind: Kind::Listed,
            id,
            loaded: candidate.loaded.clone(),
            excluded: candidate.excluded.clone(),
            after: if doomed.is_some() { Vec::new() } else { after },
            goal: Goal::Installed,
            redo: Redo::No,
            doomed,
        });
    }
    Ok((items, deferred))
}

/// Whether something has to be compiled, and there is nothing to compile against nor a shared store
/// to ask.
pub(super) fn needs_headers(session: &Session, target: &Target, items: &[Item]) -> Result<bool> {
    let compiles = items.iter().any(|item| {
        item.doomed.is_none()
            && session.tree.state(&item.id, target) == State::Added
            && !item.excluded.iter().all(|excluded| *excluded)
    });
    let given = session.options.kernel_source_dir.as_deref();
    let config = session.options.kernel_config.as_deref();
    Ok(compiles
        && session.tree.kernel_build_dir(&target.kernel, given, config)?.is_none()
        && !session.can_ask_remotes()?)
}

/// The failure that work could not begin, if it is that of every module: no shared store had any. That
/// of some is told here.
fn without_headers(session: &Session, result: &RunResult) -> Option<Failure> {
    let of = |done: &Done| match done {
        Done::Failed(error) => match error.downcast_ref() {
            Some(failure @ Failure::HeadersMissing { .. }) => Some(failure.clone()),
            _ => None,
        },
        _ => None,
    };
    let mut found: Vec<Failure> = result.modules.iter().filter_map(|(_, done)| of(done)).collect();
    if found.len() == result.modules.len() {
        // Where a store had something of one of them, it says why that was refused.
        return found.into_iter().max_by_key(|failure| failure.to_string().len());
    }
    found.dedup();
    for failure in found {
        super::report_error(&session.report, &failure.into());
    }
    None
}

/// dkms's summary lines; returns whether a module failed.
fn summarise(
    session: &Session,
    target: &Target,
    candidates: &[Candidate],
    result: &RunResult,
    deferred: &[Deferred],
) -> bool {
    if result.modules.is_empty() {
        announce_deferred(session, target, deferred);
        return false;
    }
    let report = &session.report;
    let kernel = &target.kernel;
    let mut succeeded: Vec<String> = candidates
        .iter()
        .filter(|candidate| candidate.installed && candidate.loaded.conf.autoinstall)
        .map(|candidate| candidate.id.name().to_owned())
        .collect();
    let (mut skipped, mut failed, mut unmet) = (Vec::new(), Vec::new(), Vec::new());
    for (id, done) in &result.modules {
        match done {
            Done::Already | Done::Built | Done::Installed => succeeded.push(id.name().to_owned()),
            Done::Skipped(_) => skipped.push(id.name().to_owned()),
            Done::Failed(error) => match error.downcast_ref::<Failure>() {
                Some(failure @ Failure::AutoinstallDepends { .. }) => unmet.push(failure),
                failure => failed.push(format!("{}({})", id.name(), failure.map_or(1, Failure::code))),
            },
        }
    }
    if !succeeded.is_empty() {
        report.line(format_args!("Autoinstall on {kernel} succeeded for module(s) {}.", succeeded.join(" ")));
    }
    if !skipped.is_empty() {
        report.line(format_args!("Autoinstall on {kernel} was skipped for module(s) {}.", skipped.join(" ")));
    }
    if !failed.is_empty() {
        report.line(format_args!("Autoinstall on {kernel} failed for module(s) {}.", failed.join(" ")));
    }
    unmet.iter().for_each(|failure| report.line(failure));
    announce_deferred(session, target, deferred);
    !failed.is_empty() || !unmet.is_empty()
}

fn announce_deferred(session: &Session, target: &Target, deferred: &[Deferred]) {
    if deferred.is_empty() {
        return;
    }
    let report = &session.report;
    for Deferred { id, unknown } in deferred {
        let message = format!(
            "{id} autoinstall deferred: BUILD_DEPENDS not registered with DKMS: {}.",
            unknown.join(" ")
        );
        report.line(&message);
        attempts::defer(session, target, id, message);
    }
    let names: Vec<String> = deferred.iter().map(|deferred| deferred.id.to_string()).collect();
    report.line(format_args!(
        "Autoinstall on {} deferred module(s) {} due to BUILD_DEPENDS not yet registered with DKMS.\n\
         These may be provided externally or by a package not yet configured; autoinstall will retry on the next trigger.",
        target.kernel,
        names.join(" ")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::oldest("a", "a c b")]
    #[case::newest("c", "c b a")]
    #[case::not_here("d", "c b a")]
    fn the_running_kernel_comes_before_newer_ones(#[case] running: &str, #[case] want: &str) {
        let kernels = ["a", "b", "c"].map(|name| name.parse().unwrap()).to_vec();
        let names: Vec<String> =
            in_order(kernels, running.parse().ok().as_ref()).iter().map(ToString::to_string).collect();
        assert_eq!(names.join(" "), want);
    }
}
