// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes down what a run does while it does it, for `log` and `replay`: from its first change on
//! it is on record as unfinished, and at its end as what it came to. A run that changes nothing
//! leaves nothing. Only explains: where it cannot be written the run goes on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;

use super::call::Call;
use super::items::Done;
use super::session::Session;
use crate::cli::Action;
use crate::gate::Outcome as Judged;
use crate::gate::verdict::{Standing, Verdict};
use crate::kernel::KernelRelease;
use crate::module::{ModuleId, Target};
use crate::sys::{clock, journal};
use crate::tree::runs::{Did, KernelWork, MOST_INPUT, ModuleWork, Outcome, Record};

/// What is known so far of a run.
#[derive(Debug)]
pub struct Recorder {
    pub call: Call,
    protocol: Option<String>,
    /// Whether anything of it will be there afterwards: a trial's changes go with its process.
    lasts: bool,
    began: (String, Instant),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its number, once it is on record.
    run: Option<u64>,
    /// Whether it could not be put on record, which has been said.
    failed: bool,
    /// Whether anything was changed.
    changed: bool,
    kernels: Vec<KernelWork>,
}

impl Recorder {
    pub fn new(call: Call, action: &Action) -> Self {
        let protocol = match action {
            Action::Hook { protocol, .. } => Some(protocol.clone()),
            _ => None,
        };
        let lasts = protocol.as_deref() != Some("trial");
        Self { call, protocol, lasts, began: (clock::now(), Instant::now()), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, session: &Session, state: &State) -> Record {
        let call = &self.call;
        let running = call.running_kernel.clone().or_else(|| session.tree.running_kernel().ok());
        Record {
            run: state.run.unwrap_or_default(),
            protocol: self.protocol.clone(),
            argv: call.argv.clone(),
            directory: call.directory.clone(),
            environment: call.environment.clone(),
            stdin: call.stdin_so_far().filter(|text| text.len() <= MOST_INPUT).cloned(),
            running_kernel: running,
            by_hand: call.by_hand,
            replay_of: call.replay_of,
            began: self.began.0.clone(),
            kernels: state.kernels.clone(),
            ..Record::default()
        }
    }
}

impl State {
    fn kernel(&mut self, kernel: &KernelRelease, arch: &str) -> &mut KernelWork {
        let at = self.kernels.iter().position(|work| work.kernel == *kernel && work.arch == arch);
        let at = at.unwrap_or_else(|| {
            let (kernel, arch) = (kernel.clone(), arch.to_owned());
            self.kernels.push(KernelWork {
                kernel,
                arch,
                modules: Vec::new(),
                standing: None,
                reasons: Vec::new(),
            });
            self.kernels.len() - 1
        });
        &mut self.kernels[at]
    }
}

/// Puts the run on record: it is about to change something.
pub(super) fn begin(session: &Session) {
    let mut state = session.recorder.state();
    begin_with(session, &mut state);
}

fn begin_with(session: &Session, state: &mut State) {
    if state.run.is_some() || state.failed || !session.recorder.lasts {
        return;
    }
    let mut record = session.recorder.record(session, state);
    match session.tree.begin_run(&mut record) {
        Ok(()) => state.run = Some(record.run),
        Err(error) => {
            state.failed = true;
            session.report.warning(format_args!("putting this run on record, ignoring: {error:#}"));
        }
    }
}

/// Notes what became of a module. What was there already is nothing to speak of.
pub(super) fn module(session: &Session, target: &Target, id: &ModuleId, done: &Done) {
    let (did, reason) = match done {
        Done::Already => return,
        Done::Built => (Did::Built, None),
        Done::Installed => (Did::Installed, None),
        Done::Skipped(error) => (Did::Skipped, Some(format!("{error:#}"))),
        Done::Failed(error) => (Did::Failed, Some(format!("{error:#}"))),
    };
    note(session, target, id, did, reason);
}

/// Notes that a module was taken out of a kernel, or what was kept of its build deleted.
pub(super) fn removed(session: &Session, target: &Target, id: &ModuleId) {
    note(session, target, id, Did::Removed, None);
}

fn note(session: &Session, target: &Target, id: &ModuleId, did: Did, reason: Option<String>) {
    let mut state = session.recorder.state();
    let work = ModuleWork { module: id.to_string(), did, reason };
    let modules = &mut state.kernel(&target.kernel, target.arch.as_str()).modules;
    if !modules.contains(&work) {
        modules.push(work);
    }
    // Looking at a module that is not for this kernel changes nothing.
    if did != Did::Skipped {
        state.changed = true;
        begin_with(session, &mut state);
    }
}

/// Notes that a module failed to build before its kernel came; to be called by hooks.
pub fn failed_in_trial(session: &Session, kernel: &KernelRelease, name: &str, reason: &str) {
    let mut state = session.recorder.state();
    let (module, reason) = (name.to_owned(), Some(reason.to_owned()));
    let work = ModuleWork { module, did: Did::Failed, reason };
    state.kernel(kernel, session.tree.arch.as_str()).modules.push(work);
    state.changed = true;
    begin_with(session, &mut state);
}

/// Notes how a kernel stands after the run. That it stands as before changes nothing.
pub fn judged(session: &Session, outcome: &Judged) {
    let Verdict { kernel, standing, reasons, .. } = &outcome.verdict;
    let mut state = session.recorder.state();
    let work = state.kernel(kernel, session.tree.arch.as_str());
    work.standing = Some(standing.to_string());
    work.reasons = if standing.may_boot() { Vec::new() } else { reasons.clone() };
    if outcome.before != Some(*standing) {
        state.changed = true;
        begin_with(session, &mut state);
    }
}

/// Ends the record of a run, whose exit code is known now.
pub fn end(session: &Session, code: u8) {
    let state = session.recorder.state();
    let Some(run) = state.run else { return };
    let result = if state.changed { keep(session, &state, code) } else { session.tree.forget_run(run) };
    if let Err(error) = result {
        session.report.warning(format_args!("recording this run, ignoring: {error:#}"));
    }
}

fn keep(session: &Session, state: &State, code: u8) -> Result<()> {
    let recorder = &session.recorder;
    let mut record = recorder.record(session, state);
    record.code = Some(code);
    record.outcome = outcome(&state.kernels, code);
    record.milliseconds = u64::try_from(recorder.began.1.elapsed().as_millis()).ok();
    session.tree.keep_run(&record)?;
    drop_repeated(session, &record)?;
    if session.tree.root.is_live() {
        journal::tell(&message(&record), record.outcome == Outcome::Succeeded, &fields(&record));
    }
    Ok(())
}

fn outcome(kernels: &[KernelWork], code: u8) -> Outcome {
    let held = Standing::Held.to_string();
    let failed = |work: &KernelWork| work.modules.iter().any(|module| module.did == Did::Failed);
    if kernels.iter().any(|work| work.standing.as_ref() == Some(&held)) {
        Outcome::Held
    } else if code != 0 || kernels.iter().any(failed) {
        Outcome::Failed
    } else {
        Outcome::Succeeded
    }
}

/// What fails at each start of the machine in the same way is kept once, the last time.
fn drop_repeated(session: &Session, record: &Record) -> Result<()> {
    let before = session.tree.run_numbers()?.into_iter().rfind(|run| *run < record.run);
    let Some(before) = before.and_then(|run| session.tree.run(run).ok()) else { return Ok(()) };
    let same = before.argv == record.argv
        && before.kernels == record.kernels
        && before.outcome == record.outcome
        && before.environment == record.environment;
    if same && record.replay_of.is_none() && record.outcome != Outcome::Succeeded {
        session.tree.forget_run(before.run)?;
    }
    Ok(())
}

fn message(record: &Record) -> String {
    let Record { run, outcome, .. } = record;
    format!("run {run} {outcome}: dkms {}", shell_words::join(&record.argv))
}

/// The fields of the journal's entry; one for each kernel and module.
fn fields(record: &Record) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("DKMS_RUN", record.run.to_string()),
        ("DKMS_PROTOCOL", record.protocol.clone().unwrap_or_else(|| "command".to_owned())),
        ("DKMS_OUTCOME", record.outcome.to_string()),
        ("DKMS_CODE", record.code.unwrap_or_default().to_string()),
    ];
    fields.extend(record.replay_of.map(|run| ("DKMS_REPLAY_OF", run.to_string())));
    for work in &record.kernels {
        fields.push(("DKMS_KERNEL", work.kernel.to_string()));
        fields.extend(work.standing.iter().map(|standing| ("DKMS_STANDING", standing.clone())));
        fields.extend(work.modules.iter().map(|it| ("DKMS_MODULE", format!("{} {}", it.module, it.did))));
    }
    fields
}
