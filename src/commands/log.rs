// SPDX-License-Identifier: MIT OR Apache-2.0
//! `log`: the runs that did something, and one of them in full. Reads records only.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::session::Session;
use crate::cli::Run;
use crate::cli::complete::Candidate;
use crate::tree::runs::{KernelWork, Outcome, Record};

/// What `log --json` prints; the schema's number changes when a field changes its meaning.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    runs: &'a [Record],
}

/// The verb `log`.
pub(super) fn log(session: &Session, run: Option<Run>) -> Result<()> {
    let runs = match run {
        Some(run) => vec![recorded(session, run)?],
        None => all(session)?,
    };
    let report = &session.report;
    if session.options.json {
        report.line(serde_json::to_string_pretty(&Document { schema: 1, runs: &runs })?);
    } else if run.is_some() {
        runs.iter().for_each(|run| report.out(in_full(run)));
    } else if runs.is_empty() {
        report.line("No run is on record: none has changed anything yet.");
    } else {
        report.out(table(&runs));
    }
    Ok(())
}

/// A run on record.
pub fn recorded(session: &Session, run: Run) -> Result<Record> {
    if let Run::Number(number) = run {
        return session.tree.run(number);
    }
    // A damaged one is not what anybody means.
    let mut unreadable = None;
    for number in session.tree.run_numbers()?.into_iter().rev() {
        match session.tree.run(number) {
            Ok(record) => return Ok(record),
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    Err(unreadable.unwrap_or_else(|| anyhow!("no run is on record: none has changed anything yet")))
}

/// Every run that can be read, oldest first; of the others it is said once that they cannot. That none
/// can is a failure: somebody else's records, as a rule.
fn all(session: &Session) -> Result<Vec<Record>> {
    let mut runs = Vec::new();
    let mut unreadable = Vec::new();
    for number in session.tree.run_numbers()? {
        match session.tree.run(number) {
            Ok(run) => runs.push(run),
            Err(error) => unreadable.push(error),
        }
    }
    let count = unreadable.len();
    if let Some(error) = unreadable.into_iter().next() {
        if runs.is_empty() {
            return Err(error);
        }
        session.report.warning(format_args!("passing over {count} unreadable record(s): {error:#}"));
    }
    Ok(runs)
}

/// The runs as a shell offers them.
pub(super) fn candidates(session: &Session) -> Result<Vec<Candidate>> {
    let last = Candidate { word: "last".to_owned(), meaning: "the last run".to_owned() };
    let runs = session.tree.run_numbers()?.into_iter().rev().filter_map(|number| {
        let run = session.tree.run(number).ok()?;
        Some(Candidate { word: number.to_string(), meaning: format!("{}: {}", run.outcome, call(&run)) })
    });
    Ok(std::iter::once(last).chain(runs).collect())
}

/// The call as one can paste it into a shell.
fn call(run: &Record) -> String {
    format!("dkms {}", shell_words::join(&run.argv))
}

/// The runs in lines, the last one last.
fn table(runs: &[Record]) -> String {
    let rows = runs.iter().map(|run| {
        let by_hand = if run.by_hand { "by hand: " } else { "" };
        let call = format!("{by_hand}{}", call(run));
        [run.run.to_string(), run.began.clone(), run.outcome.to_string(), call]
    });
    let head = ["RUN", "BEGAN", "OUTCOME", "CALLED AS"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or_default();
    let (run, began, outcome) = (width(0), width(1), width(2));
    let line = |row: &[String; 4]| {
        format!("{:>run$}  {:<began$}  {:<outcome$}  {}\n", row[0], row[1], row[2], row[3])
    };
    rows.iter().map(line).collect()
}

fn in_full(run: &Record) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    };
    match run.code {
        Some(code) => line(format_args!("Run {}: {}, exit code {code}", run.run, run.outcome)),
        None => line(format_args!("Run {}: it is under way, or was ended from without", run.run)),
    }
    line(format_args!("  called as:   {}", call(run)));
    line(format_args!("  in:          {}", run.directory.display()));
    for (name, value) in &run.environment {
        line(format_args!("  environment: {name}={}", shell_words::quote(value)));
    }
    if let Some(stdin) = &run.stdin {
        line(format_args!("  given:       {} line(s) on standard input", stdin.lines().count()));
    }
    match (run.by_hand, run.replay_of) {
        (_, Some(other)) => line(format_args!("  replayed:    run {other}")),
        (true, None) => line(format_args!("  replayed:    no run, but what a person made up")),
        _ => {}
    }
    line(format_args!("  began:       {}", run.began));
    if let Some(milliseconds) = run.milliseconds {
        line(format_args!("  took:        {}.{:03} s", milliseconds / 1000, milliseconds % 1000));
    }
    for KernelWork { kernel, arch, modules, standing, reasons } in &run.kernels {
        let standing = standing.as_ref().map(|standing| format!(": {standing}")).unwrap_or_default();
        line(format_args!("Kernel {kernel} ({arch}){standing}"));
        for module in modules {
            line(format_args!("  {} {}", module.module, module.did));
            if let Some(reason) = &module.reason {
                line(format_args!("    {}", reason.replace('\n', "\n    ")));
            }
        }
        reasons.iter().for_each(|reason| line(format_args!("  {}", reason.replace('\n', "\n    "))));
    }
    if run.outcome != Outcome::Succeeded && !run.only_removes() {
        line(format_args!("Mend the cause, then run: dkms replay {}", run.run));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let run = |run, outcome, word: &str| Record {
            run,
            outcome,
            argv: vec![word.to_owned()],
            began: "2026-01-02T03:04:05Z".to_owned(),
            ..Record::default()
        };
        let text = table(&[run(9, Outcome::Held, "a b"), run(1234, Outcome::Succeeded, "autoinstall")]);
        let want = "
 RUN  BEGAN                 OUTCOME    CALLED AS
   9  2026-01-02T03:04:05Z  held       dkms 'a b'
1234  2026-01-02T03:04:05Z  succeeded  dkms autoinstall
";
        assert_eq!(format!("\n{text}"), want);
    }
}
