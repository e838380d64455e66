// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only printer. Scripts read both streams interleaved, so every piece is written through at
//! once; work that runs in parallel writes into a block, which is shown whole and in plan order.
//! On a terminal what is under way is shown meanwhile (`live`).

mod live;

use std::io::PipeWriter;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use live::Job;
pub use live::{Live, aside};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

type Piece = (Stream, String);

/// Leaves standard output to a protocol that wants it for itself. What is printed from now on, by
/// programs that we run as well, goes to standard error.
pub fn give_up_output() -> Result<PipeWriter> {
    let output = std::io::stdout().as_fd().try_clone_to_owned().context("keeping standard output")?;
    nix::unistd::dup2_stdout(std::io::stderr()).context("printing to standard error alone")?;
    Ok(output.into())
}

/// A handle on standard output and standard error, or on a block that collects for both.
#[derive(Debug, Clone)]
pub struct Report {
    quiet: bool,
    verbose: bool,
    block: Option<Arc<Mutex<Vec<Piece>>>>,
    /// Where the live area shows what becomes of the block.
    job: Option<Arc<Job>>,
}

impl Report {
    /// Writes to this process's streams; `quiet` drops standard output.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose, block: None, job: None }
    }

    /// Shows what is under way until the result is dropped, if both streams are a terminal and
    /// neither `--quiet` nor `--verbose` was given.
    pub fn live(&self) -> Live {
        Live::begin(!self.quiet && !self.verbose && self.block.is_none())
    }

    /// The same handle, showing in the live area for how long work on `name` has been going on, and
    /// the line that it has printed last, until it is dropped.
    pub fn working_on(&self, name: &str) -> Self {
        Self { job: Job::begin(name).map(Arc::new), ..self.clone() }
    }

    /// The last line of the live area.
    pub fn outlook(&self, text: impl Into<String>) {
        live::outlook(text.into());
    }

    /// A report that collects until [`Report::show`] is given it.
    pub fn block(&self) -> Self {
        Self { block: Some(Arc::default()), job: None, ..self.clone() }
    }

    /// Whether what is written is seen at once, so that a program may write for itself.
    pub fn is_direct(&self) -> bool {
        self.block.is_none() && !self.quiet
    }

    /// Whether a block has collected nothing.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.block
            .as_ref()
            .is_none_or(|pieces| pieces.lock().unwrap_or_else(PoisonError::into_inner).is_empty())
    }

    /// Prints what a block has collected so far and empties it.
    pub fn show(&self, block: &Self) {
        if let Some(pieces) = &block.block {
            let taken = std::mem::take(&mut *pieces.lock().unwrap_or_else(PoisonError::into_inner));
            self.write(taken);
        }
    }

    /// Whether `--verbose` was given.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Text for standard output, as it is.
    pub fn out(&self, text: impl Into<String>) {
        if !self.quiet {
            self.write(vec![(Stream::Out, text.into())]);
        }
    }

    /// One line for standard output.
    pub fn line(&self, text: impl std::fmt::Display) {
        self.out(format!("{text}\n"));
    }

    /// One line for standard error.
    pub fn err(&self, text: impl std::fmt::Display) {
        self.write(vec![(Stream::Err, format!("{text}\n"))]);
    }

    /// dkms's form of an error: a blank line, then "Error! " and the message.
    pub fn error(&self, text: impl std::fmt::Display) {
        self.write(vec![(Stream::Err, format!("\nError! {text}\n"))]);
    }

    /// dkms's form of a warning.
    pub fn warning(&self, text: impl std::fmt::Display) {
        self.write(vec![(Stream::Err, format!("Warning: {text}\n"))]);
    }

    fn write(&self, pieces: Vec<Piece>) {
        let Some(block) = &self.block else { return live::print(pieces) };
        let mut block = block.lock().unwrap_or_else(PoisonError::into_inner);
        for (stream, text) in pieces {
            let begins_line = block.last().is_none_or(|(_, before)| before.ends_with('\n'));
            if let Some(job) = self.job.as_ref().filter(|_| begins_line) {
                job.shows(&text);
            }
            block.push((stream, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_the_order_of_both_streams_and_is_shown_once() {
        let outer = Report::new(false, false).block();
        let inner = outer.block();
        inner.out("one\n");
        inner.err("two");
        outer.line("before");
        outer.show(&inner);
        outer.show(&inner);
        let pieces = outer.block.unwrap();
        let texts: Vec<String> = pieces.lock().unwrap().iter().map(|(_, text)| text.clone()).collect();
        assert_eq!(texts, ["before\n", "one\n", "two\n"]);
    }

    #[test]
    fn quiet_drops_standard_output_only() {
        let report = Report::new(true, false).block();
        report.line("dropped");
        report.warning("kept");
        let pieces = report.block.unwrap();
        assert_eq!(*pieces.lock().unwrap(), [(Stream::Err, "Warning: kept\n".to_owned())]);
    }
}
