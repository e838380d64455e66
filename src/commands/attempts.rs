// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes down what became of each module of a run, for `status --json`: what came to nothing is
//! kept until it succeeds. Only explains: where it cannot be written the run goes on.

use anyhow::{Error, Result};

use super::items::{Done, Goal, Item};
use super::session::Session;
use crate::failure::Failure;
use crate::module::{ModuleId, Target};
use crate::sys::report::Report;
use crate::sys::{clock, signals};
use crate::tree::attempts::{Attempt, Outcome};

/// Remembers how the work on an item has ended.
pub(super) fn remember(session: &Session, target: &Target, item: &Item, done: &Done, report: &Report) {
    let (outcome, error) = match done {
        // That it is built says nothing about why it could not be installed.
        Done::Already if item.goal == Goal::Built => return,
        Done::Already | Done::Built | Done::Installed => {
            let forgotten = session.tree.forget_attempt(&item.id, target);
            return tell(&item.id, report, forgotten);
        }
        Done::Skipped(error) => (Outcome::Excluded, error),
        Done::Failed(error) => (Outcome::Failed, error),
    };
    let failure = error.downcast_ref::<Failure>();
    let (mut message, mut code) = (format!("{error:#}"), failure.map_or(1, Failure::code));
    if let Some(signal) = signals::caught() {
        (message, code) =
            (format!("Stopped by signal {signal}."), u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    let first_error = failure.and_then(Failure::first_error).map(str::to_owned);
    let has_log = failure.and_then(Failure::log).is_some();
    let attempt = Attempt { outcome, message, code, first_error, time: clock::now() };
    tell(&item.id, report, session.tree.keep_attempt(&item.id, target, &attempt, has_log));
}

/// Remembers that work on a module was put off.
pub(super) fn defer(session: &Session, target: &Target, id: &ModuleId, message: String) {
    let outcome = Outcome::Deferred;
    let attempt = Attempt { outcome, message, code: 0, first_error: None, time: clock::now() };
    tell(id, &session.report, session.tree.keep_attempt(id, target, &attempt, false));
}

/// Keeps the log of a failed build, which the next one takes away. The module's lock must be held.
pub(super) fn keep_log(session: &Session, target: &Target, id: &ModuleId, error: &Error, report: &Report) {
    if let Some(log) = error.downcast_ref().and_then(Failure::log) {
        tell(id, report, session.tree.keep_attempt_log(id, target, log.as_ref()));
    }
}

fn tell(id: &ModuleId, report: &Report, noted: Result<()>) {
    if let Err(error) = noted {
        report.warning(format_args!("noting for status what became of {id}, ignoring: {error:#}"));
    }
}
