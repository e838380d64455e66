// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a command inside a root, and what may be expected of it.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;

/// How a command inside a root ended. Every check returns it, for the next one.
#[derive(Debug)]
pub struct Ran {
    command: String,
    root: PathBuf,
    output: Output,
}

impl Ran {
    pub fn new(command: String, root: &Path, output: Output) -> Self {
        Self { command, root: root.to_owned(), output }
    }

    /// The exit code; 128 + N after signal N.
    pub fn code(&self) -> i32 {
        let status = self.output.status;
        status.code().or(status.signal().map(|signal| 128 + signal)).unwrap()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn fails(&self) -> &Self {
        assert_ne!(self.code(), 0, "should have failed: {self}");
        self
    }

    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "wrong exit code: {self}");
        self
    }

    /// Fails unless the text is somewhere in the output.
    #[track_caller]
    pub fn says(&self, wanted: &str) -> &Self {
        let said = self.stdout() + &self.stderr();
        assert!(said.contains(wanted), "nothing about {wanted:?}: {self}");
        self
    }

    /// Fails unless both texts are in the output, in this order. Streams have an order between them
    /// only where the command has made them one.
    #[track_caller]
    pub fn says_before(&self, first: &str, then: &str) -> &Self {
        let said = self.stdout() + &self.stderr();
        let is_before = said.find(first).is_some_and(|at| said[at..].contains(then));
        assert!(is_before, "not {first:?} before {then:?}: {self}");
        self
    }

    #[track_caller]
    pub fn says_nothing_of(&self, unwanted: &str) -> &Self {
        let said = self.stdout() + &self.stderr();
        assert!(!said.contains(unwanted), "speaks of {unwanted:?}: {self}");
        self
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} (in {})", self.command, self.root.display())?;
        writeln!(formatter, "exit code {}", self.code())?;
        for line in self.stdout().lines() {
            writeln!(formatter, "1| {line}")?;
        }
        for line in self.stderr().lines() {
            writeln!(formatter, "2| {line}")?;
        }
        Ok(())
    }
}
