// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work on the modules of one run: side by side in dependency order, each installed as soon as
//! it is built (`building`). No lock is held while a script that is shown runs, and none while another module's
//! build goes on.

mod building;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Error, Result};

use super::add::shown_script;
use super::attempts;
use super::items::{Done, Goal, Item, Kind, Redo};
use super::session::Session;
use crate::build::has_source;
use crate::build::jobs::Jobs;
use crate::build::sign::Signer;
use crate::build::symbols::KernelSymbols;
use crate::conf::policy::Policy;
use crate::failure::Failure;
use crate::install::{How, Placement, depmod};
use crate::module::{ModuleId, State, Target};
use crate::store::Store;
use crate::store::remote::Remotes;
use crate::sys::report::Report;
use crate::sys::tools::{Run, Tool};
use crate::tree::kernels::BuildDir;
use crate::tree::transaction::Applied;

/// Everything that the steps of a run share.
pub(super) struct Engine<'a> {
    session: &'a Session,
    target: &'a Target,
    items: &'a [Item],
    jobs: Jobs,
    kernel: Option<(BuildDir, KernelSymbols)>,
    /// Without them, only a shared store can help.
    has_headers: bool,
    remotes: &'a Remotes,
    signer: Option<Signer>,
    store: Store<'a>,
    /// What there is to say about signing, if not before everything else: the item whose title
    /// goes before it.
    signing: Option<(usize, Report)>,
    policy: &'a Policy,
}

/// How long a command of a build may take where the policy does not say: longer than any does that
/// is still at work.
const USUAL_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// What became of each module, and the swaps (by item) that a successful depmod makes final.
pub(super) type Worked = (Vec<(ModuleId, Done)>, Vec<(usize, Applied)>);

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

impl<'a> Engine<'a> {
    /// Gets ready to work on items, which come dependencies first.
    pub(super) fn new(
        session: &'a Session,
        target: &'a Target,
        items: &'a [Item],
        policy: &'a Policy,
    ) -> Result<Self> {
        let (given, config) = (&session.options.kernel_source_dir, &session.options.kernel_config);
        let headers = session.tree.kernel_build_dir(&target.kernel, given.as_deref(), config.as_deref())?;
        let has_headers = headers.is_some();
        let kernel = match headers {
            Some(build_dir) => Some((KernelSymbols::of(&build_dir), build_dir)),
            None if policy.remotes.is_empty() => None,
            None => {
                let build_dir = session.tree.without_headers(&target.kernel)?;
                Some((KernelSymbols::without_headers(&session.tree, &target.kernel), build_dir))
            }
        };
        let mut engine = Self {
            session,
            target,
            items,
            jobs: Jobs::new(session.jobs_wish(policy), session.usual_jobs())?,
            kernel: kernel.map(|(symbols, build_dir)| (build_dir, symbols)),
            has_headers,
            remotes: session.remotes(policy),
            signer: None,
            store: Store::new(&session.tree, policy),
            signing: None,
            policy,
        };
        engine.prepare_signing()?;
        Ok(engine)
    }

    /// Builds and installs the items, as many side by side as there are jobs.
    pub(super) fn work(&self) -> Worked {
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
            self.outlook(&state);
            let item = &self.items[at];
            let unmet: Vec<String> = item
                .after
                .iter()
                .filter(|before| !state.done[**before].as_ref().is_some_and(Done::satisfies))
                .map(|before| self.items[*before].id.name().to_owned())
                .collect();
            drop(state);
            let (done, applied) = if alone {
                self.item(at, unmet, &self.session.report)
            } else {
                self.item(at, unmet, &blocks[at].working_on(&item.id.to_string()))
            };
            let mut state = locked(board);
            state.done[at] = Some(done);
            self.outlook(&state);
            state.applied.extend(applied.map(|applied| (at, applied)));
            while state.shown < blocks.len() && state.done[state.shown].is_some() {
                self.session.report.show(&blocks[state.shown]);
                state.shown += 1;
            }
            progress.notify_all();
        }
    }

    /// On a terminal: how far the run is and what comes next. A single module's output says it.
    fn outlook(&self, board: &Board) {
        if self.items.len() == 1 {
            return;
        }
        let done = board.done.iter().filter(|done| done.is_some()).count();
        let waiting = self.items.iter().zip(&board.taken).filter(|(_, taken)| !**taken);
        let next: Vec<String> = waiting.map(|(item, _)| item.id.to_string()).collect();
        let next = if next.is_empty() { String::new() } else { format!(", next: {}", next.join(", ")) };
        self.session.report.outlook(format!("{done} of {} modules done{next}", self.items.len()));
    }

    fn item(&self, at: usize, unmet: Vec<String>, report: &Report) -> (Done, Option<Applied>) {
        let (done, applied) = self.work_on(at, unmet, report);
        attempts::remember(self.session, self.target, &self.items[at], &done, report);
        (done, applied)
    }

    /// Works on one item. What has to wait for others in vain is left to the summary.
    fn work_on(&self, at: usize, unmet: Vec<String>, report: &Report) -> (Done, Option<Applied>) {
        let item = &self.items[at];
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
        if let Some((_, signing)) = self.signing.as_ref().filter(|(before, _)| *before == at) {
            report.show(signing);
        }
        let result = match self.bring(item, report) {
            Ok(result) => result,
            Err(error) => {
                let skipped = matches!(error.downcast_ref(), Some(Failure::Excluded { .. }));
                // That there are no headers autoinstall says once, for all modules.
                let is_told_later = item.kind == Kind::Listed
                    && matches!(error.downcast_ref(), Some(Failure::HeadersMissing { .. }));
                if item.kind != Kind::Asked && !is_told_later {
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
        let force = session.options.force || item.redo != Redo::No;
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
        if self.must_build(item, &state) {
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

    fn must_build(&self, item: &Item, state: &State) -> bool {
        match item.goal {
            Goal::Built => self.session.options.force || item.redo == Redo::Build || *state == State::Added,
            Goal::Installed => *state == State::Added || item.redo == Redo::Build,
        }
    }

    /// Finds out how modules are signed and says so before anything else is said, if something is
    /// going to be built; `match` names the module first.
    fn prepare_signing(&mut self) -> Result<()> {
        let Some((build_dir, _)) = &self.kernel else { return Ok(()) };
        let (tree, config) = (&self.session.tree, self.session.kernel_config(&self.target.kernel)?);
        let builds = |item: &Item| {
            !tree.is_broken(&item.id)
                && self.must_build(item, &tree.state(&item.id, self.target))
                && !item.loaded.conf.is_excluded(self.target, &config)
                && has_source(tree, &item.id).unwrap_or(false)
        };
        if let Some(first) = self.items.iter().position(builds) {
            let setting = self.session.signing(&self.target.kernel);
            let report = &self.session.report;
            if self.items[first].kind == Kind::Matched {
                let block = report.block();
                self.signer = Signer::prepare(setting, build_dir, &block);
                self.signing = Some((first, block));
            } else {
                self.signer = Signer::prepare(setting, build_dir, report);
            }
        }
        Ok(())
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
        let again = item.redo != Redo::No && place.state() == State::Installed;
        let how = How {
            force: session.options.force || again,
            any_version: session.options.force_version_override,
            links: session.framework.symlink_modules,
        };
        let applied = {
            let _lock = session.tree.lock_module(&item.id, report)?;
            if !how.force && place.state() == State::Installed {
                return Ok(None);
            }
            place.install(&item.loaded.conf, how)?
        };
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
    pub(super) fn index(
        &self,
        modules: &mut [(ModuleId, Done)],
        applied: Vec<(usize, Applied)>,
    ) -> Result<()> {
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
                // depmod's own failure has been told. Modules that were asked for by name tell the rest.
                if failure.is_none() && self.items.iter().all(|item| item.kind != Kind::Asked) {
                    super::report_error(&session.report, &error);
                }
                let again = || failure.map_or_else(|| anyhow::anyhow!("{error:#}"), |it| it.clone().into());
                for (at, applied) in applied.into_iter().rev() {
                    applied.undo().context("putting back what was there before depmod failed")?;
                    modules[at].1 = Done::Failed(again());
                    let Item { id, loaded, .. } = &self.items[at];
                    let (tree, report) = (&session.tree, &session.report);
                    attempts::remember(session, self.target, &self.items[at], &modules[at].1, report);
                    let distribution = session.distribution;
                    let place = Placement { tree, report, distribution, id, target: self.target };
                    place.tidy(&loaded.conf);
                }
                Ok(())
            }
        }
    }

    /// Loads what was installed for the running kernel when the user asks for that.
    pub(super) fn load_installed(&self, modules: &[(ModuleId, Done)]) {
        let session = self.session;
        let wanted = session.options.modprobe_on_install || session.framework.modprobe_on_install;
        let running = session.tree.running_kernel().is_ok_and(|kernel| kernel == self.target.kernel);
        if !wanted || !running {
            return;
        }
        for (item, (_, done)) in self.items.iter().zip(modules) {
            let records = item.loaded.conf.records.iter().zip(&item.excluded);
            let there = |(_, excluded): &(_, &bool)| matches!(done, Done::Installed) && !**excluded;
            for (record, _) in records.filter(there) {
                // -b: a blacklist holds for names, too.
                let loaded =
                    Run::new(Tool::Modprobe).and_then(|run| run.arg("-b").arg(&record.dest_name).succeed());
                if let Err(error) = loaded {
                    session.report.warning(format_args!("loading {}, ignoring: {error:#}", record.dest_name));
                }
            }
        }
    }
}
