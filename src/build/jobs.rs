// SPDX-License-Identifier: MIT OR Apache-2.0
//! One GNU make jobserver for all modules of a run (GNU make manual, "POSIX Jobserver").
//!
//! A token is taken before a make starts, because every make brings one free slot. A make that
//! is killed loses the tokens it holds, whoever sees it die: the pool is filled up again whenever
//! nobody uses it.

use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::sys::memory;

/// The largest pool: a pipe holds 64 KiB (pipe(7)), and a bare `-j` has to end somewhere.
const UNLIMITED: usize = 4096;

/// The tokens of a run.
#[derive(Debug)]
pub struct Jobs {
    client: jobserver::Client,
    total: usize,
    wish: Option<u32>,
    /// How many permits are out.
    out: Mutex<usize>,
    changed: Condvar,
}

/// Leave to run one program that takes `tokens` jobs' worth; given back when dropped.
#[derive(Debug)]
pub struct Permit<'j> {
    jobs: &'j Jobs,
    tokens: Vec<jobserver::Acquired>,
}

impl Jobs {
    /// `wish` is `-j N` (0: no limit), `usual` what is suitable without one.
    pub fn new(wish: Option<u32>, usual: usize) -> Result<Self> {
        let total = match wish {
            Some(0) => UNLIMITED,
            Some(n) => (n as usize).min(UNLIMITED),
            None => usual.clamp(1, UNLIMITED),
        };
        let client = jobserver::Client::new(total).context("making the jobserver's pipe")?;
        Ok(Self { client, total, wish, out: Mutex::default(), changed: Condvar::new() })
    }

    /// How many programs may run side by side.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The switch as make.log shows it and as dkms passes it: `-j2`, or a bare `-j`.
    pub fn switch(&self) -> String {
        match self.wish {
            Some(0) => "-j".to_owned(),
            _ => format!("-j{}", self.total),
        }
    }

    /// The value of dkms's `parallel_jobs` variable; empty when there is no limit.
    pub fn number(&self) -> String {
        self.switch()[2..].to_owned()
    }

    /// The pipe, for makes that share it.
    pub fn client(&self) -> &jobserver::Client {
        &self.client
    }

    /// Waits for `wanted` tokens (no more than there are); one for a make of ours, as many as its
    /// `-jN` says for a program that brings its own parallelism.
    pub fn take(&self, wanted: usize) -> Result<Permit<'_>> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted.clamp(1, self.total);
        // Several holders of part of what they need would wait for each other: more than one
        // token is collected by a single program at a time, when nobody else runs.
        while wanted > 1 && *out > 0 {
            out = self.changed.wait(out).unwrap_or_else(PoisonError::into_inner);
        }
        *out += 1;
        if wanted == 1 {
            drop(out);
        }
        let mut permit = Permit { jobs: self, tokens: Vec::new() };
        for _ in 0..wanted {
            permit.tokens.push(self.client.acquire().context("waiting for a job to be free")?);
        }
        Ok(permit)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.tokens.clear();
        let mut out = self.jobs.out.lock().unwrap_or_else(PoisonError::into_inner);
        *out -= 1;
        if *out == 0 {
            let there = self.jobs.client.available().unwrap_or(self.jobs.total);
            for _ in there..self.jobs.total {
                // A pipe that refuses a byte cannot be helped; the next take would only wait.
                let _ = self.jobs.client.release_raw();
            }
        }
        self.jobs.changed.notify_all();
    }
}

/// One job per processor that we may use, as long as each has this much memory.
pub fn suitable(bytes_for_each: u64) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    fitting(processors, memory::available(), bytes_for_each)
}

fn fitting(processors: usize, bytes: Option<u64>, bytes_for_each: u64) -> usize {
    let room = bytes.and_then(|bytes| usize::try_from(bytes.checked_div(bytes_for_each)?).ok());
    room.map_or(processors, |room| processors.min(room).max(1))
}

/// How many jobs a command that is not ours runs: the N of its `-jN` or `-j N`, else 1.
pub fn named_jobs(command: &str) -> usize {
    let words = shell_words::split(command).unwrap_or_default();
    let number = |text: &str| text.parse::<usize>().ok();
    words
        .iter()
        .enumerate()
        .find_map(|(at, word)| match word.strip_prefix("-j")? {
            "" => words.get(at + 1).and_then(|next| number(next)),
            rest => number(rest),
        })
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::none("./build.sh --fast", 1)]
    #[case::joined("./build.sh -j8 all", 8)]
    #[case::apart("make -j 4", 4)]
    #[case::bare("make -j all", 1)]
    fn a_command_names_its_jobs(#[case] command: &str, #[case] want: usize) {
        assert_eq!(named_jobs(command), want);
    }

    #[test]
    fn tokens_lost_with_a_killed_make_are_replaced() {
        let jobs = Jobs::new(Some(3), 1).unwrap();
        let permit = jobs.take(1).unwrap();
        jobs.client.acquire_raw().unwrap(); // a make that took one more and died
        drop(permit);
        assert_eq!(jobs.client.available().unwrap(), 3);
    }

    #[test]
    fn a_program_with_its_own_jobs_takes_what_there_is_and_gives_it_back() {
        let jobs = Jobs::new(Some(2), 1).unwrap();
        let permit = jobs.take(8).unwrap();
        assert_eq!(jobs.client.available().unwrap(), 0);
        drop(permit);
        assert_eq!(jobs.client.available().unwrap(), 2);
    }

    #[rstest]
    #[case::limited(Some(4), "-j4", "4")]
    #[case::unlimited(Some(0), "-j", "")]
    fn the_switch_is_dkmss(#[case] wish: Option<u32>, #[case] switch: &str, #[case] number: &str) {
        let jobs = Jobs::new(wish, 2).unwrap();
        assert_eq!((jobs.switch().as_str(), jobs.number().as_str()), (switch, number));
    }

    #[rstest]
    #[case::enough(8, Some(64 << 30), 512 << 20, 8)]
    #[case::for_three(8, Some(1700 << 20), 512 << 20, 3)]
    #[case::for_none(8, Some(100 << 20), 512 << 20, 1)]
    #[case::nobody_tells(8, None, 512 << 20, 8)]
    #[case::not_asked(8, Some(1), 0, 8)]
    fn jobs_are_as_many_as_have_memory(
        #[case] processors: usize,
        #[case] bytes: Option<u64>,
        #[case] bytes_for_each: u64,
        #[case] want: usize,
    ) {
        assert_eq!(fitting(processors, bytes, bytes_for_each), want);
    }
}
