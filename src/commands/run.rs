// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run for one kernel: modules built side by side in dependency order, each installed as soon
//! as it is built, then one depmod, at most one initramfs, one verdict.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Error, Result};

use super::add::shown_script;
use super::gate::{ensure_indexed, mark};
use super::post_transaction::post_transaction;
use super::session::Session;
use crate::build::Build;
use crate::build::jobs::Jobs;
use crate::conf::policy::Policy;
use crate::failure::Failure;
use crate::gate::proof::Image;
use crate::gate::verdict::Verdict;
use crate::gate::{self, Outcome, Registered};
use crate::initramfs;
use crate::install::{Force, Placement, depmod};
use crate::module::{ModuleId, State, Target};
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Run, Tool};
use crate::tree::kernels::BuildDir;
use crate::tree::registered::Loaded;
use crate::tree::transaction::Applied;

/// Who makes the initramfs after modules have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initramfs {
    /// Nobody but us.
    Ours,
    /// The package manager runs the regular generator after us.
    Later,
}

/// How far a module is to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Built,
    Installed,
}

/// Why a module is worked on, which decides how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asked for, or needed by what was asked for: its output stands alone, its failure is told at
    /// the end.
    Asked,
    /// One of autoinstall's: under a title, its failure with its output.
    Listed,
    /// One of `match`'s: likewise, but under two lines and without a blank one at its end.
    Matched,
    /// Installed already; a dependency that it was built against has changed.
    Rebuild,
}

/// A module to work on.
#[derive(Debug)]
pub(super) struct Item {
    pub id: ModuleId,
    pub loaded: Loaded,
    pub excluded: Vec<bool>,
    /// The items (by position, all before this one) that must succeed first.
    pub after: Vec<usize>,
    pub goal: Goal,
    pub kind: Kind,
    /// A failure known beforehand.
    pub doomed: Option<Failure>,
}

/// What became of a module.
#[derive(Debug)]
pub enum Done {
    /// It was there already.
    Already,
    Built,
    Installed,
    /// BUILD_EXCLUSIVE_* rules the kernel out.
    Skipped(Error),
    Failed(Error),
}

impl Done {
    fn satisfies(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct RunResult {
    pub modules: Vec<(ModuleId, Done)>,
    pub gate: Option<Outcome>,
    /// What went wrong after the modules were in place.
    pub trouble: Option<Error>,
}

/// Everything that the steps of a run share.
struct Engine<'a> {
    session: &'a Session,
    target: &'a Target,
    items: &'a [Item],
    jobs: Jobs,
    kernel: Option<BuildDir>,
    limit: Option<Duration>,
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
    let engine = Engine {
        session,
        target,
        items,
        jobs: Jobs::new(session.jobs_wish(&policy))?,
        kernel: session.tree.kernel_build_dir(
            &target.kernel,
            session.options.kernel_source_dir.as_deref(),
            session.options.kernel_config.as_deref(),
        )?,
        limit: policy.timeout,
    };
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
        // Without an image there is nothing that could be out of date, unless a generator says so.
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
    let image = match initramfs {
        Initramfs::Ours => gate.image_now(&target.kernel),
        Initramfs::Later => match gate.image_now(&target.kernel) {
            Image::Needed(images) => Image::Later(images),
            other => other,
        },
    };
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
    let kernel = session.tree.kernel_config(&target.kernel)?;
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

/// The newest registered version of every module, by name.
pub(super) fn newest_versions(session: &Session) -> Result<BTreeMap<String, ModuleId>> {
    // Versions of a name come oldest first.
    Ok(session.tree.ids()?.into_iter().map(|id| (id.name().to_owned(), id)).collect())
}

/// What became of each module, and the swaps (by item) that a successful depmod makes final.
type Worked = (Vec<(ModuleId, Done)>, Vec<(usize, Applied)>);

/// What the workers share.
struct Board {
    /// What became of each item; nothing yet for those waiting or under way.
    done: Vec<Option<Done>>,
    taken: Vec<bool>,
    applied: Vec<(usize, Applied)>,
    /// How many items' output has been printed.
    shown: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine<'_> {
    /// Builds and installs the items, as many side by side as there are jobs.
    fn work(&self) -> Worked {
        let count = self.items.len();
        let blocks: Vec<Report> = self.items.iter().map(|_| self.session.report.block()).collect();
        let board = Mutex::new(Board {
            done: (0..count).map(|_| None).collect(),
            taken: vec![false; count],
            applied: Vec::new(),
            shown: 0,
        });
        let progress = Condvar::new();
        // A single module needs no block: its output is shown as it comes.
        let alone = count == 1;
        std::thread::scope(|scope| {
            for _ in 1..self.jobs.total().min(count) {
                scope.spawn(|| self.worker(&board, &progress, &blocks, alone));
            }
            self.worker(&board, &progress, &blocks, alone);
        });
        let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lost = || Done::Failed(anyhow::anyhow!("the worker ended before the module was done"));
        let done = board.done.into_iter().map(|done| done.unwrap_or_else(lost));
        (self.items.iter().map(|item| item.id.clone()).zip(done).collect(), board.applied)
    }

    fn worker(&self, board: &Mutex<Board>, progress: &Condvar, blocks: &[Report], alone: bool) {
        loop {
            let mut state = locked(board);
            let at = loop {
                let ready = |at: &usize| {
                    !state.taken[*at]
                        && self.items[*at].after.iter().all(|before| state.done[*before].is_some())
                };
                if let Some(at) = (0..self.items.len()).find(ready) {
                    break at;
                }
                if state.taken.iter().all(|taken| *taken) {
                    return;
                }
                state = progress.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.taken[at] = true;
            let item = &self.items[at];
            let unmet: Vec<String> = item
                .after
                .iter()
                .filter(|before| !state.done[**before].as_ref().is_some_and(Done::satisfies))
                .map(|before| self.items[*before].id.name().to_owned())
                .collect();
            drop(state);
            let report = if alone { &self.session.report } else { &blocks[at] };
            let (done, applied) = self.item(item, unmet, report);
            let mut state = locked(board);
            state.done[at] = Some(done);
            state.applied.extend(applied.map(|applied| (at, applied)));
            while state.shown < blocks.len() && state.done[state.shown].is_some() {
                self.session.report.show(&blocks[state.shown]);
                state.shown += 1;
            }
            progress.notify_all();
        }
    }

    /// Works on one item. What has to wait for others in vain is left to the summary.
    fn item(&self, item: &Item, unmet: Vec<String>, report: &Report) -> (Done, Option<Applied>) {
        let hopeless = match &item.doomed {
            Some(failure) => Some(failure.clone().into()),
            None => (!unmet.is_empty()).then(|| self.missing_dependencies(item, unmet)),
        };
        if let Some(error) = hopeless {
            // What was to be rebuilt is still there, and still fits.
            let done = if item.kind == Kind::Rebuild { Done::Already } else { Done::Failed(error) };
            return (done, None);
        }
        let id = &item.id;
        match item.kind {
            Kind::Asked => {}
            Kind::Listed => {
                report.line(format_args!("Autoinstall of module {id} for kernel {}", self.target))
            }
            Kind::Matched => report.line(format_args!("Module:  {}\nVersion: {}", id.name(), id.version())),
            Kind::Rebuild => {
                report.line(format_args!("\nRebuilding module {id} due to updated dependencies\n"))
            }
        }
        let result = match self.bring(item, report) {
            Ok(result) => result,
            Err(error) => {
                let skipped = matches!(error.downcast_ref(), Some(Failure::Excluded { .. }));
                if item.kind != Kind::Asked {
                    super::report_error(report, &error);
                }
                (if skipped { Done::Skipped(error) } else { Done::Failed(error) }, None)
            }
        };
        if item.kind == Kind::Listed {
            report.line("");
        }
        result
    }

    fn missing_dependencies(&self, item: &Item, missing: Vec<String>) -> Error {
        let (id, target) = (item.id.clone(), self.target.clone());
        match item.kind {
            Kind::Listed => Failure::AutoinstallDepends { id, missing }.into(),
            _ => Failure::DependsMissing { id, target, missing }.into(),
        }
    }

    fn bring(&self, item: &Item, report: &Report) -> Result<(Done, Option<Applied>)> {
        let (session, target, id) = (self.session, self.target, &item.id);
        let force = session.options.force || item.kind == Kind::Rebuild;
        let tree = &session.tree;
        if tree.is_broken(id) {
            return Err(Failure::Broken { id: id.clone() }.into());
        }
        let place = Placement { tree, report, distribution: session.distribution, id, target };
        let state = place.state();
        if let (State::Installed, false, Goal::Installed) = (&state, force, item.goal) {
            report.line(format_args!(
                "Module {id} already installed on kernel {target}, skip. You may override by specifying --force."
            ));
            return Ok((Done::Already, None));
        }
        let must_build = match item.goal {
            Goal::Built => force || state == State::Added,
            Goal::Installed => state == State::Added || item.kind == Kind::Rebuild,
        };
        if must_build {
            self.build(item, report)?;
        } else if item.goal == Goal::Built {
            report.line(format_args!(
                "Module {id} already built for kernel {target}, skip. You may override by specifying --force."
            ));
            return Ok((Done::Already, None));
        }
        if item.goal == Goal::Built {
            return Ok((Done::Built, None));
        }
        let applied = self.install(item, &place, report)?;
        Ok((if applied.is_some() { Done::Installed } else { Done::Already }, applied))
    }

    fn build(&self, item: &Item, report: &Report) -> Result<()> {
        let (session, target, id) = (self.session, self.target, &item.id);
        let tree = &session.tree;
        if item.loaded.conf.is_excluded(target, &self.kernel_config()?) {
            let conf = tree.target_dir(id, target).join("dkms.conf").display().to_string();
            return Err(Failure::Excluded { conf, id: id.clone() }.into());
        }
        let Some(kernel) = &self.kernel else {
            return Err(self.headers_missing().into());
        };
        let _lock = tree.lock_module(id, report)?;
        // Whoever held the lock may have done it for us.
        let anew = session.options.force || item.kind == Kind::Rebuild;
        if !anew && tree.state(id, target) != State::Added {
            return Ok(());
        }
        Build {
            tree,
            jobs: &self.jobs,
            report,
            limit: self.limit,
            id,
            target,
            loaded: &item.loaded,
            excluded: &item.excluded,
            kernel,
            built_against: &self.built_against(item),
            variables: &session.environment(id, Some(target)),
        }
        .run()
    }

    /// The installed versions of the dependencies that a new version of asks for a rebuild.
    fn built_against(&self, item: &Item) -> Vec<(String, String)> {
        let conf = &item.loaded.conf;
        let names = conf.build_depends.iter().filter(|_| conf.build_depends_rebuild);
        names
            .filter_map(|name| {
                let active = self.session.tree.active(name, self.target)?;
                Some((name.clone(), active.version().to_owned()))
            })
            .collect()
    }

    fn kernel_config(&self) -> Result<crate::kernel::KernelConfig> {
        match &self.kernel {
            Some(kernel) => Ok(kernel.config.clone()),
            None => self.session.tree.kernel_config(&self.target.kernel),
        }
    }

    fn headers_missing(&self) -> Failure {
        headers_missing(self.session, self.target)
    }

    /// Returns nothing if another run has installed the module while this one waited for it.
    fn install(&self, item: &Item, place: &Placement<'_>, report: &Report) -> Result<Option<Applied>> {
        let session = self.session;
        let scripts = &item.loaded.conf.scripts;
        let kernel_dir = session.tree.kernel_dir(&self.target.kernel);
        if !kernel_dir.is_dir() {
            return Err(
                Failure::KernelDirectoryMissing { directory: kernel_dir.display().to_string() }.into()
            );
        }
        if let Some(script) = &scripts.pre_install {
            let status = shown_script(session, report, &item.id, Some(self.target), "pre_install", script)?;
            if status != 0 && !session.options.force {
                return Err(Failure::PreInstallFailed.into());
            }
        }
        let again = item.kind == Kind::Rebuild;
        let force =
            Force { all: session.options.force || again, version: session.options.force_version_override };
        let applied = {
            let _lock = session.tree.lock_module(&item.id, report)?;
            if !force.all && place.state() == State::Installed {
                return Ok(None);
            }
            place.install(&item.loaded.conf, force).inspect_err(|error| match error.downcast_ref() {
                Some(failure @ Failure::NotNewer { .. }) => report.error(failure),
                Some(failure @ Failure::SameUnversioned { .. }) => report.err(failure),
                _ => {}
            })
        };
        let applied = applied.map_err(|error| match error.downcast_ref() {
            Some(Failure::NotNewer { .. } | Failure::SameUnversioned { .. }) => {
                Failure::InstallAborted.into()
            }
            _ => error,
        })?;
        if let Some(script) = &scripts.post_install {
            let status = shown_script(session, report, &item.id, Some(self.target), "post_install", script);
            match status {
                Ok(0) => {}
                Ok(status) => {
                    report.warning(format_args!("post_install ended with status {status}, ignoring it"))
                }
                Err(error) => report.warning(format_args!("running post_install, ignoring: {error:#}")),
            }
        }
        Ok(Some(applied))
    }

    /// Makes the kernel's module indexes anew, once; if that fails everything goes back to what
    /// it was.
    fn index(&self, modules: &mut [(ModuleId, Done)], applied: Vec<(usize, Applied)>) -> Result<()> {
        if applied.is_empty() {
            return Ok(());
        }
        let (session, kernel) = (self.session, &self.target.kernel);
        let lock = session.tree.lock_kernel(kernel, &session.report);
        let indexed = lock.as_ref().map_err(|error| anyhow::anyhow!("{error:#}")).and_then(|_| {
            if session.options.no_depmod { Ok(()) } else { depmod(&session.tree, kernel, &session.report) }
        });
        match indexed {
            Ok(()) => applied.into_iter().try_for_each(|(_, applied)| applied.keep()),
            Err(error) => {
                // Missing or stopped, depmod leaves the modules as hard to find as one that fails.
                let failure = error.downcast_ref::<Failure>();
                let again = || failure.map_or_else(|| anyhow::anyhow!("{error:#}"), |it| it.clone().into());
                for (at, applied) in applied.into_iter().rev() {
                    applied.undo().context("putting back what was there before depmod failed")?;
                    modules[at].1 = Done::Failed(again());
                    let Item { id, loaded, .. } = &self.items[at];
                    let (tree, report) = (&session.tree, &session.report);
                    let distribution = session.distribution;
                    let place = Placement { tree, report, distribution, id, target: self.target };
                    place.tidy(&loaded.conf);
                }
                Ok(())
            }
        }
    }

    /// Loads what was installed for the running kernel when the user asks for that.
    fn load_installed(&self, modules: &[(ModuleId, Done)]) {
        let session = self.session;
        let wanted = session.options.modprobe_on_install || session.framework.modprobe_on_install;
        let running = session.tree.running_kernel().is_ok_and(|kernel| kernel == self.target.kernel);
        if !wanted || !running {
            return;
        }
        for (item, (_, done)) in self.items.iter().zip(modules) {
            for record in item.loaded.conf.records.iter().filter(|_| matches!(done, Done::Installed)) {
                let loaded = Run::new(Tool::Modprobe).and_then(|run| run.arg(&record.dest_name).succeed());
                if let Err(error) = loaded {
                    session.report.warning(format_args!("loading {}, ignoring: {error:#}", record.dest_name));
                }
            }
        }
    }
}

/// The installed modules that were built against other versions of what these items install
/// (BUILD_DEPENDS_REBUILD), as items to come after them.
pub(super) fn rebuilds(session: &Session, target: &Target, items: &[Item]) -> Result<Vec<Item>> {
    let tree = &session.tree;
    let kernel = tree.kernel_config(&target.kernel)?;
    let mut found = Vec::new();
    for id in tree.ids()? {
        let is_item = items.iter().any(|item| item.id.name() == id.name());
        if is_item || tree.is_broken(&id) || tree.state(&id, target) != State::Installed {
            continue;
        }
        let Ok(loaded) = session.load(&id, Some(target)) else { continue };
        let changed = |item: &Item| -> Result<bool> {
            let note = tree.target_dir(&id, target).join(format!(".dep_{}", item.id.name()));
            let built_against = files::read_if_there(&note)?;
            Ok(item.goal == Goal::Installed
                && loaded.conf.build_depends.iter().any(|name| name == item.id.name())
                && built_against.is_none_or(|version| version.trim() != item.id.version()))
        };
        let mut after = Vec::new();
        for (at, item) in items.iter().enumerate().filter(|_| loaded.conf.build_depends_rebuild) {
            if changed(item)? {
                after.push(at);
            }
        }
        if !after.is_empty() {
            let excluded = loaded.conf.excluded_records(target, &kernel);
            let (goal, kind, doomed) = (Goal::Installed, Kind::Rebuild, None);
            found.push(Item { id, loaded, excluded, after, goal, kind, doomed });
        }
    }
    Ok(found)
}

/// The failure for a kernel whose headers are not there, naming the package to install.
pub(super) fn headers_missing(session: &Session, target: &Target) -> Failure {
    let advice = session.distribution.headers_advice(&target.kernel);
    Failure::HeadersMissing { target: target.clone(), advice }
}

impl RunResult {
    /// Whether the kernel lacks what the machine needs to boot.
    pub fn held(&self) -> bool {
        let standing = self.gate.as_ref().map(|outcome| outcome.verdict.standing);
        standing == Some(gate::verdict::Standing::Held)
    }
}
