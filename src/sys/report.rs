// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only printer. Scripts read both streams interleaved, so every piece is written through at
//! once; work that runs in parallel writes into a block, which is shown whole and in plan order.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

type Pieces = Vec<(Stream, String)>;

/// A handle on standard output and standard error, or on a block that collects for both.
#[derive(Debug, Clone)]
pub struct Report {
    quiet: bool,
    verbose: bool,
    block: Option<Arc<Mutex<Pieces>>>,
}

impl Report {
    /// Writes to this process's streams; `quiet` drops standard output.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose, block: None }
    }

    /// A report that collects until [`Report::show`] is given it.
    pub fn block(&self) -> Self {
        Self { block: Some(Arc::default()), ..self.clone() }
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
            for (stream, text) in taken {
                self.write(stream, text);
            }
        }
    }

    /// Whether `--verbose` was given.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Text for standard output, as it is.
    pub fn out(&self, text: impl Into<String>) {
        if !self.quiet {
            self.write(Stream::Out, text.into());
        }
    }

    /// One line for standard output.
    pub fn line(&self, text: impl std::fmt::Display) {
        self.out(format!("{text}\n"));
    }

    /// One line for standard error.
    pub fn err(&self, text: impl std::fmt::Display) {
        self.write(Stream::Err, format!("{text}\n"));
    }

    /// dkms's form of an error: a blank line, then "Error! " and the message.
    pub fn error(&self, text: impl std::fmt::Display) {
        self.write(Stream::Err, format!("\nError! {text}\n"));
    }

    /// dkms's form of a warning.
    pub fn warning(&self, text: impl std::fmt::Display) {
        self.write(Stream::Err, format!("Warning: {text}\n"));
    }

    fn write(&self, stream: Stream, text: String) {
        if let Some(pieces) = &self.block {
            pieces.lock().unwrap_or_else(PoisonError::into_inner).push((stream, text));
            return;
        }
        // A reader that has gone away is no reason to stop in the middle of a transaction.
        let _ = match stream {
            Stream::Out => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Stream::Err => std::io::stderr().lock().write_all(text.as_bytes()),
        };
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
