// SPDX-License-Identifier: MIT OR Apache-2.0
//! SIGINT, SIGTERM and SIGHUP: end the programs that we started, let the work under way roll
//! back, and remember the number for the exit code.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static CAUGHT: AtomicI32 = AtomicI32::new(0);
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Starts listening, on a thread of its own, for the rest of the process; the first one of it. Whoever
/// works for a package manager is to outlive the terminal, whose end SIGHUP tells of.
pub fn listen(outlives_terminal: bool) -> Result<()> {
    let mut wanted = vec![SIGINT, SIGTERM];
    if outlives_terminal {
        // Threads that are started later have it blocked, too.
        SigSet::from(Signal::SIGHUP).thread_block().context("blocking SIGHUP")?;
    } else {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).context("listening for signals")?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            CAUGHT.store(signal, Ordering::SeqCst);
            for group in GROUPS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = kill(Pid::from_raw(*group), Signal::SIGTERM);
            }
        }
    });
    Ok(())
}

/// The number of the signal that asked us to stop, if one has.
pub fn caught() -> Option<i32> {
    Some(CAUGHT.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
}

/// A process group of ours, or a process without one of its own, that a signal is passed on to,
/// until dropped. As kill(2) wants it: a group's number is negative.
pub(super) struct Group(i32);

impl Group {
    pub(super) fn register(leader: u32) -> Self {
        Self::listed(-leader.cast_signed())
    }

    pub(super) fn register_process(process: u32) -> Self {
        Self::listed(process.cast_signed())
    }

    fn listed(number: i32) -> Self {
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        Self(number)
    }

    /// Asks every process of the group to end.
    pub(super) fn end(&self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGTERM);
    }

    /// Ends every process of the group at once.
    pub(super) fn kill(&self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
