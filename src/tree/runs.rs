// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was run and did something: `.hooks/runs/N.json`, for those who want to know and to run it
//! again. Owns the records and their bounds. They hold how a run was called, so they are root's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Tree;
use crate::kernel::KernelRelease;
use crate::sys::files;

/// How many runs are kept, the last ones.
const MOST: usize = 100;

/// What all records may take together, in bytes; the last one is kept whatever it takes.
const MOST_BYTES: u64 = 2 << 20;

/// What a run may be given on standard input, in bytes, to be replayed: a transaction of thousands
/// of packages.
pub const MOST_INPUT: usize = 512 << 10;

/// A run as it is stored and, in `log --json`, shown; `log`'s schema counts for both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, which no later run gets.
    pub run: u64,
    /// The first word behind `hook`; nothing for any other action.
    pub protocol: Option<String>,
    /// The words behind the program's name.
    pub argv: Vec<String>,
    pub directory: PathBuf,
    /// What of the environment decides what is done.
    pub environment: BTreeMap<String, String>,
    /// What it read from standard input, where it did; nothing if that was too much to keep.
    pub stdin: Option<String>,
    /// The kernel that was running then.
    pub running_kernel: Option<KernelRelease>,
    /// Whether a person called a protocol in the package manager's stead (`dkms replay`).
    pub by_hand: bool,
    /// The run that this one replayed.
    pub replay_of: Option<u64>,
    /// RFC 3339 in UTC.
    pub began: String,
    pub milliseconds: Option<u64>,
    pub outcome: Outcome,
    /// The exit code.
    pub code: Option<u8>,
    pub kernels: Vec<KernelWork>,
}

impl Record {
    /// Whether it did nothing but take modules away.
    pub fn only_removes(&self) -> bool {
        let mut modules = self.kernels.iter().flat_map(|work| &work.modules).peekable();
        modules.peek().is_some() && modules.all(|module| module.did == Did::Removed)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Outcome {
    /// It is under way, or was ended from without.
    #[default]
    Unfinished,
    Succeeded,
    Failed,
    /// A kernel lacks what the machine needs to boot.
    Held,
}

/// What a run did for one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelWork {
    pub kernel: KernelRelease,
    pub arch: String,
    pub modules: Vec<ModuleWork>,
    /// How the kernel stands by the gate's word, if that was asked.
    pub standing: Option<String>,
    /// Why it is held.
    pub reasons: Vec<String>,
}

/// What became of one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleWork {
    /// `name/version`.
    pub module: String,
    pub did: Did,
    /// Why it failed or was skipped.
    pub reason: Option<String>,
}

/// See [`ModuleWork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Did {
    Built,
    Installed,
    Skipped,
    Failed,
    Removed,
}

impl Tree {
    fn runs_dir(&self) -> PathBuf {
        self.hooks_dir().join("runs")
    }

    fn run_path(&self, run: u64) -> PathBuf {
        self.runs_dir().join(format!("{run}.json"))
    }

    /// The numbers of the runs on record, oldest first.
    pub fn run_numbers(&self) -> Result<Vec<u64>> {
        let names = files::names(&self.runs_dir())?;
        let mut numbers: Vec<u64> =
            names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// One run.
    pub fn run(&self, run: u64) -> Result<Record> {
        let path = self.run_path(run);
        match files::read_if_there(&path)? {
            Some(text) => {
                serde_json::from_str(&text).with_context(|| format!("reading the record {}", path.display()))
            }
            None => bail!("there is no run {run} on record; dkms log lists those that are"),
        }
    }

    /// Gives a run its number and keeps it; older ones go if there are too many.
    pub fn begin_run(&self, record: &mut Record) -> Result<()> {
        let mut numbers = self.run_numbers()?;
        record.run = numbers.last().copied().unwrap_or(0);
        loop {
            record.run += 1;
            // Another run may have taken the number meanwhile.
            if files::write_new(&self.run_path(record.run), &text(record)?, 0o600)? {
                break;
            }
        }
        numbers.push(record.run);
        self.prune_runs(&numbers)
    }

    /// Keeps what has become of a run that has begun.
    pub fn keep_run(&self, record: &Record) -> Result<()> {
        files::write_atomically(&self.run_path(record.run), &text(record)?, 0o600)
    }

    /// Forgets a run: it came to nothing.
    pub fn forget_run(&self, run: u64) -> Result<()> {
        files::remove(&self.run_path(run))
    }

    /// Removes the oldest records that are too many or too much.
    fn prune_runs(&self, numbers: &[u64]) -> Result<()> {
        let mut bytes = 0;
        for (later, run) in numbers.iter().rev().enumerate() {
            let path = self.run_path(*run);
            bytes += fs_err::metadata(&path).map_or(0, |meta| meta.len());
            if later > 0 && (later >= MOST || bytes > MOST_BYTES) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }
}

fn text(record: &Record) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(record).context("writing down a run")?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn begun(tree: &Tree, stdin: Option<String>) -> Record {
        let mut record = Record { argv: vec!["autoinstall".to_owned()], stdin, ..Record::default() };
        tree.begin_run(&mut record).unwrap();
        record
    }

    #[test]
    fn a_run_is_kept_for_root_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        assert!(tree.run_numbers().unwrap().is_empty());
        let (one, two) = (begun(&tree, None), begun(&tree, Some("foo\n".to_owned())));
        assert_eq!((one.run, two.run), (1, 2));
        let done = Record { outcome: Outcome::Succeeded, code: Some(0), ..two };
        tree.keep_run(&done).unwrap();
        assert_eq!((tree.run(1).unwrap(), tree.run(2).unwrap()), (one, done));
        let mode = fs_err::metadata(tree.run_path(2)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        tree.forget_run(1).unwrap();
        assert!(tree.run(1).unwrap_err().to_string().contains("no run 1"));
    }

    #[test]
    fn a_damaged_record_hurts_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        begun(&tree, None);
        fs_err::write(tree.run_path(1), "{").unwrap();
        fs_err::write(tree.runs_dir().join("notes"), "").unwrap();
        assert_eq!(begun(&tree, None).run, 2);
        assert!(tree.run(1).is_err());
    }

    #[test]
    fn the_last_runs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        (0..MOST + 2).for_each(|_| drop(begun(&tree, None)));
        let numbers = tree.run_numbers().unwrap();
        assert_eq!((numbers.len(), numbers[0]), (MOST, 3));

        let much = || Some("x".repeat(usize::try_from(MOST_BYTES).unwrap() / 2));
        let (one, two) = (begun(&tree, much()).run, begun(&tree, much()).run);
        assert_eq!(tree.run_numbers().unwrap(), [two], "{one} is too much beside it");
    }
}
