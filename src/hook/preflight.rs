// SPDX-License-Identifier: MIT OR Apache-2.0
//! Before a package manager unpacks anything: the modules of the kernels that are to come are
//! built in a process of its own, which sees the packages' files already. What cannot be tried is
//! no failure: the kernels' own hooks build and prove.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};

use crate::commands::record;
use crate::commands::session::Session;
use crate::commands::{Answer, Request, Tried, try_transaction};
use crate::conf::policy::{OnFailure, Preflight};
use crate::gate::verdict::{Critical, Standing, Verdict};
use crate::gate::{Outcome, is_off};
use crate::sys::tools::{Output, Run};
use crate::trial::Kind;

/// The process that tries: `hook trial`, with the request on its standard input.
pub(super) fn trial(session: &Session) -> Result<u8> {
    let text = std::io::read_to_string(std::io::stdin()).context("reading what is to be tried")?;
    let request: Request = serde_json::from_str(&text).context("reading what is to be tried")?;
    try_transaction(session, &request)?;
    Ok(0)
}

/// Whether a protocol only tries what is to come, so that no error of ours may be in its way.
pub(super) fn only_tries(protocol: &str, args: &[String]) -> bool {
    let stage = args.first().map(String::as_str);
    matches!(
        (protocol, stage),
        ("apt", Some("pre-install-pkgs")) | ("dnf" | "dnf5" | "pacman", Some("preflight"))
    )
}

/// The exit code of one that came to nothing.
pub(super) fn not_tried(session: &Session, error: &Error) -> u8 {
    session.report.err(format_args!(
        "dkms: modules could not be tried before the packages are unpacked; they will be built then. ({error:#})"
    ));
    0
}

/// Tries a transaction's packages, and says what it would come to. The result is the exit code for
/// the package manager: 1 if the policy, or without a word of it `usual`, wants it stopped.
pub(super) fn preflight(session: &Session, packages: Vec<(Kind, PathBuf)>, usual: Preflight) -> Result<u8> {
    if packages.is_empty() {
        return Ok(0);
    }
    let policy = session.policy()?;
    let wanted = policy.preflight.unwrap_or(usual);
    if wanted == Preflight::Off {
        return Ok(0);
    }
    let answer = ask(packages, wanted == Preflight::Abort)?;
    for reason in &answer.untried {
        session.report.err(format_args!("dkms: not tried: {reason}"));
    }
    let may_stop = policy.on_failure != OnFailure::Warn && !is_off(&session.tree.root);
    let mut stop = false;
    for tried in answer.kernels {
        let lacking = lacking(&tried);
        for (name, reason) in &tried.failed {
            record::failed_in_trial(session, &tried.kernel, name, reason);
            let is_lacking = lacking.iter().any(|critical| critical.name == *name);
            if !(is_lacking && may_stop) {
                warn(session, &tried, name, reason);
            }
        }
        if lacking.is_empty() || !may_stop {
            continue;
        }
        if wanted == Preflight::Abort {
            refuse(session, &tried, &lacking);
            stop = true;
        } else {
            hold(session, &tried, &lacking)?;
        }
    }
    Ok(u8::from(stop))
}

/// Says what comes of a failure that stops nothing.
fn warn(session: &Session, tried: &Tried, name: &str, reason: &str) {
    let kernel = &tried.kernel;
    let what = if !tried.is_new {
        "what is installed there stays"
    } else if tried.critical.iter().any(|critical| critical.name == name) {
        "this machine needs it to boot, and nothing is held here"
    } else {
        "the machine boots without it"
    };
    session
        .report
        .err(format_args!("dkms: WARNING: {name} does not build for kernel {kernel}; {what}: {reason}"));
}

/// Whether a package is one of these tools, or a part or a version of one: `gcc-12`, `libelf1`.
pub(super) fn is_one_of(name: &str, tools: &[&str]) -> bool {
    tools.iter().any(|tool| {
        let rest = name.strip_prefix(tool);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphabetic()))
    })
}

/// What the machine needs to boot and a kernel that comes would not have; one that is there keeps
/// what is installed for it.
fn lacking(tried: &Tried) -> Vec<Critical> {
    if !tried.is_new {
        return Vec::new();
    }
    let fails = |critical: &&Critical| tried.failed.iter().any(|(name, _)| *name == critical.name);
    tried.critical.iter().filter(fails).cloned().collect()
}

fn reasons(tried: &Tried, lacking: &[Critical]) -> Vec<String> {
    let is_lacking = |name: &String| lacking.iter().any(|critical| critical.name == *name);
    tried
        .failed
        .iter()
        .filter(|(name, _)| is_lacking(name))
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect()
}

fn refuse(session: &Session, tried: &Tried, lacking: &[Critical]) {
    let kernel = &tried.kernel;
    session
        .report
        .error(format_args!("Kernel {kernel} would lack a module that this machine needs to boot:"));
    for reason in reasons(tried, lacking) {
        session.report.err(format_args!("  {}", reason.replace('\n', "\n  ")));
    }
    session.report.err(
        "Nothing has been changed. Mend or update the module, leave the kernel out of this transaction, or let it\n\
         be held instead: preflight = \"hold\" below [boot] in /etc/dkms/policy.toml",
    );
}

/// Holds a kernel that is about to come. One that may boot as it is there now is left to its own
/// hooks, which see what becomes of it.
fn hold(session: &Session, tried: &Tried, lacking: &[Critical]) -> Result<()> {
    let before = Verdict::load(&session.tree, &tried.kernel).ok().flatten().map(|known| known.standing);
    if before.is_some_and(Standing::may_boot) {
        tried.failed.iter().for_each(|(name, reason)| warn(session, tried, name, reason));
        return Ok(());
    }
    let reasons = reasons(tried, lacking);
    let verdict = Verdict::now(&tried.kernel, Standing::Held, reasons, tried.critical.clone());
    verdict.store(&session.tree)?;
    super::announce(session, &verdict)?;
    record::judged(session, &Outcome { verdict, before });
    Ok(())
}

/// Has another process try it, because its view of the system is changed for good. Unless the
/// transaction may be stopped, nothing is built twice for it.
fn ask(packages: Vec<(Kind, PathBuf)>, all: bool) -> Result<Answer> {
    // Large, and gone with the process.
    let scratch = tempfile::Builder::new()
        .prefix("dkms-trial-")
        .tempdir_in("/var/tmp")
        .context("making a directory")?;
    let answers = tempfile::tempdir().context("making a directory")?;
    let request =
        Request { scratch: scratch.path().to_owned(), packages, all, answer: answers.path().join("answer") };
    let text = serde_json::to_string(&request).context("writing down what is to be tried")?;
    let ended =
        Run::program(Path::new("/proc/self/exe")).args(["hook", "trial"]).text(&text)?.end(Output::Shown)?;
    let answer = fs_err::read_to_string(&request.answer);
    match answer {
        Ok(answer) => serde_json::from_str(&answer).context("reading the answer"),
        Err(_) => anyhow::bail!("the trial ended with status {}", ended.code()),
    }
}
