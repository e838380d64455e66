// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks that cannot go stale: flock(2) on open files, released by the kernel when their holder
//! ends in whatever way. The files themselves stay.
#![allow(clippy::disallowed_types)] // nix::fcntl::Flock knows std's File only; fs_err opens it

use std::collections::BTreeSet;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fs_err::{File, OpenOptions};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::sys::report::Report;
use crate::sys::signals;

/// How long this process waits for another one; nothing for as long as it takes.
static PATIENCE: OnceLock<Duration> = OnceLock::new();

/// Has all waiting for locks end with an error after this time.
pub fn wait_at_most(limit: Duration) {
    PATIENCE.get_or_init(|| limit);
}

/// How often one who waits looks whether the lock has become free.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Holds a lock until it is dropped.
#[derive(Debug)]
pub struct Lock {
    // Fields are dropped in this order: the lock is free before another thread may try it.
    _file: Flock<std::fs::File>,
    _turn: Option<Turn>,
}

/// The locks that threads of this process hold or wait for.
static TAKEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static FREED: Condvar = Condvar::new();

/// The turn of one thread of this process at a lock. Threads wait for each other here, silently:
/// what they do belongs together, and is over soon.
#[derive(Debug)]
struct Turn(PathBuf);

impl Turn {
    fn wait(path: &Path) -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken =
            FREED.wait_while(taken, |taken| taken.contains(path)).unwrap_or_else(PoisonError::into_inner);
        taken.insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        FREED.notify_all();
    }
}

impl Lock {
    /// Takes the lock at `path`, waiting for its holder if there is one and saying so once if that
    /// is another process.
    pub fn take(path: &Path, report: &Report) -> Result<Self> {
        let turn = Turn::wait(path);
        let patience = PATIENCE.get().copied();
        Ok(Self { _turn: Some(turn), ..Self::take_from_others(path, patience, report)? })
    }

    fn take_from_others(path: &Path, patience: Option<Duration>, report: &Report) -> Result<Self> {
        let mut file = open(path)?;
        match try_flock(file)? {
            Ok(lock) => Self::held(lock),
            Err(busy) => {
                file = busy;
                let mut holder = String::new();
                let _ = (&file).read_to_string(&mut holder);
                let who = if holder.trim().is_empty() {
                    "another dkms".to_owned()
                } else {
                    holder.trim().to_owned()
                };
                report.err(format_args!("waiting for {who} to release {}", path.display()));
                let begun = Instant::now();
                // A blocking flock(2) would go on through the signal that asks us to stop.
                loop {
                    if signals::caught().is_some() {
                        bail!("not waiting for the lock {}: a signal asked to stop", path.display());
                    }
                    if let Some(limit) = patience.filter(|limit| begun.elapsed() >= *limit) {
                        bail!(
                            "{who} has held {} for {} s, which is as long as the policy has us wait (timeout in \
                             [locks]); see what it does, then try again",
                            path.display(),
                            limit.as_secs()
                        );
                    }
                    std::thread::sleep(LOOK_AGAIN);
                    match try_flock(file)? {
                        Ok(lock) => return Self::held(lock),
                        Err(busy) => file = busy,
                    }
                }
            }
        }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        try_flock(open(path)?)?.ok().map(Self::held).transpose()
    }

    /// Takes the first of several locks that nobody holds, waiting until there is one. Returns its
    /// position as well.
    pub fn take_any(paths: &[PathBuf]) -> Result<(usize, Self)> {
        loop {
            for (at, path) in paths.iter().enumerate() {
                if let Some(lock) = Self::try_take(path)? {
                    return Ok((at, lock));
                }
            }
            if paths.is_empty() || signals::caught().is_some() {
                bail!("none of {} is free", paths.len());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Takes the lock on a file that must be there already; its content stays.
    pub fn try_take_existing(path: &Path) -> Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(try_flock(file)?.ok().map(|file| Self { _file: file, _turn: None }))
    }

    /// Whether somebody holds the lock; whoever may read the file may ask. For the moment of the question
    /// the lock is shared with whoever else asks. Nobody holds one that is not there.
    pub fn is_held(path: &Path) -> Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(errno).context("looking at a lock"),
        }
    }

    /// Locks a file that its owner has just made and that nobody else can know yet.
    pub fn of_new_file(file: &File) -> Result<Self> {
        let file = file.file().try_clone().context("duplicating a journal's descriptor")?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)
            .context("locking a new journal")?;
        Ok(Self { _file: lock, _turn: None })
    }

    /// Notes who holds the lock, for the message of those who wait.
    fn held(mut file: Flock<std::fs::File>) -> Result<Self> {
        let argv: Vec<String> = std::env::args().take(4).collect();
        let note = format!("process {} ({})\n", std::process::id(), argv.join(" "));
        // Losing the note costs a name in a message, nothing else.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
        Ok(Self { _file: file, _turn: None })
    }
}

fn open(path: &Path) -> Result<std::fs::File> {
    if let Some(directory) = path.parent() {
        fs_err::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    Ok(file.into_parts().0)
}

fn try_flock(file: std::fs::File) -> Result<Result<Flock<std::fs::File>, std::fs::File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(errno).context("taking a lock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_refused_and_a_dropped_one_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/a");
        let held = Lock::try_take(&path).unwrap();
        assert!(held.is_some());
        assert!(Lock::is_held(&path).unwrap());
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(held);
        assert!(!Lock::is_held(&path).unwrap() && !Lock::is_held(&dir.path().join("none")).unwrap());
        assert!(Lock::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn threads_take_turns_and_say_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let report = Report::new(false, false).block();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _lock = Lock::take(&path, &report).unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    std::thread::sleep(Duration::from_millis(1));
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                });
            }
        });
        assert!(report.is_empty());
    }

    #[test]
    fn patience_ends_with_a_word_on_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let _held = Lock::try_take(&path).unwrap().unwrap();
        let report = Report::new(false, false).block();
        let error = Lock::take_from_others(&path, Some(Duration::ZERO), &report).unwrap_err().to_string();
        let me = format!("process {} (", std::process::id());
        assert!(error.contains(&me) && error.contains("[locks]"), "{error}");
    }
}
