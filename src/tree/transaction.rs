// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes to the install tree and the dkms tree that happen whole or not at all.
//!
//! New content is staged beside its place, then a journal says what is about to happen, then
//! everything is swapped in by rename while the old content is kept beside. A transaction ends
//! with [`Applied::keep`] or [`Applied::undo`]. One that died before its journal said
//! "prepared" is dropped, one that died later is carried out by the next run
//! ([`recover`]), unless its owner had begun to undo it; the owner's flock(2) on the journal tells
//! a dead one from one under way.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::Tree;
use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::sys::lock::Lock;

/// One name in a file system that gets new content, or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    target: PathBuf,
    /// The new content, beside the target; nothing to put means that the target goes.
    staged: Option<PathBuf>,
    /// Where the old content is kept until the transaction ends, beside the target. What is there
    /// is whole.
    saved: PathBuf,
    /// Whether there was something in the target's place before.
    replaces: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// What is being done, for the message of the run that finds this journal.
    what: String,
    /// The kernel whose module indexes must be made anew afterwards.
    kernel: Option<KernelRelease>,
    changes: Vec<Change>,
}

enum Content {
    Bytes(Vec<u8>, u32),
    Link(PathBuf),
    /// A directory made beforehand on the same file system; it is moved.
    Directory(PathBuf),
    Nothing,
}

/// A set of changes that has not begun.
pub struct Transaction {
    journal: Journal,
    contents: Vec<Content>,
    directory: PathBuf,
    id: String,
}

/// A transaction whose changes are in place, the old content still kept beside.
#[must_use]
pub struct Applied {
    journal: Journal,
    path: PathBuf,
    _lock: Lock,
}

/// The second line of a journal: everything is staged, carry on.
const PREPARED: &str = "prepared\n";
/// The third line, if the owner began to end the transaction: what was replaced goes,
const KEPT: &str = "kept\n";
/// or comes back.
const UNDONE: &str = "undone\n";

/// Where the journals are; one is named by its transaction, and is the last thing of it to go.
pub(super) fn journals(tree: &Tree) -> PathBuf {
    tree.hooks_dir().join("journal")
}

impl Transaction {
    /// Starts collecting changes. `kernel` is the one whose install tree changes, if any.
    pub fn new(tree: &Tree, what: impl Into<String>, kernel: Option<&KernelRelease>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self {
            journal: Journal { what: what.into(), kernel: kernel.cloned(), changes: Vec::new() },
            contents: Vec::new(),
            directory: journals(tree),
            id,
        }
    }

    /// A file with this content and mode.
    pub fn put_file(&mut self, target: &Path, content: Vec<u8>, mode: u32) {
        self.push(target, Content::Bytes(content, mode));
    }

    /// A symbolic link.
    pub fn put_link(&mut self, target: &Path, points_to: &Path) {
        self.push(target, Content::Link(points_to.to_owned()));
    }

    /// A directory that was made elsewhere on the same file system and is moved in.
    pub fn put_directory(&mut self, target: &Path, made: &Path) {
        self.push(target, Content::Directory(made.to_owned()));
    }

    /// Takes a file, link or directory away; nothing there is fine.
    pub fn take(&mut self, target: &Path) {
        self.push(target, Content::Nothing);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    fn push(&mut self, target: &Path, content: Content) {
        let beside = |kind: &str| {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            target.with_file_name(format!(".{name}.dkms-{kind}-{}", self.id))
        };
        let staged = (!matches!(content, Content::Nothing)).then(|| beside("new"));
        let change = Change { target: target.to_owned(), staged, saved: beside("old"), replaces: false };
        // One name changes once: a file that is taken for another to come is replaced by it.
        match self.journal.changes.iter().position(|earlier| earlier.target == target) {
            Some(at) => {
                self.journal.changes[at] = change;
                self.contents[at] = content;
            }
            None => {
                self.journal.changes.push(change);
                self.contents.push(content);
            }
        }
    }

    /// Stages everything, then swaps it in. An error leaves everything as it was.
    pub fn apply(self) -> Result<Applied> {
        let what = self.journal.what.clone();
        self.apply_inner().with_context(|| what)
    }

    fn apply_inner(mut self) -> Result<Applied> {
        self.journal.changes.iter_mut().for_each(Change::look);
        fs::create_dir_all(&self.directory)?;
        // Under a name that recovery passes over until the lock is ours.
        let (hidden, path) = (self.directory.join(format!(".{}", self.id)), self.directory.join(&self.id));
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&hidden)?;
        let lock = Lock::of_new_file(&file)?;
        file.set_len(0)?;
        fs::rename(&hidden, &path)?;
        let applied = Applied { journal: self.journal, path, _lock: lock };
        let begun = write_journal(&mut file, &applied.journal)
            .and_then(|()| stage(&applied.journal, self.contents))
            .and_then(|()| {
                file.write_all(PREPARED.as_bytes())?;
                Ok(file.sync_all()?)
            });
        if let Err(error) = begun {
            applied.drop_staged()?;
            return Err(error);
        }
        match applied.journal.changes.iter().try_for_each(swap_in) {
            Ok(()) => Ok(applied),
            Err(error) => {
                applied.undo()?;
                Err(error)
            }
        }
    }
}

fn write_journal(file: &mut fs::File, journal: &Journal) -> Result<()> {
    let mut line = serde_json::to_string(journal).context("writing down a transaction")?;
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    files::sync_directory(files::parent(file.path())?)
}

fn stage(journal: &Journal, contents: Vec<Content>) -> Result<()> {
    for (change, content) in journal.changes.iter().zip(contents) {
        let Some(staged) = &change.staged else { continue };
        let directory = files::parent(staged)?;
        fs::create_dir_all(directory)?;
        match content {
            Content::Bytes(bytes, mode) => {
                use std::os::unix::fs::PermissionsExt;
                let mut file = fs::File::create(staged)?;
                file.write_all(&bytes)?;
                file.set_permissions(std::fs::Permissions::from_mode(mode))?;
                file.sync_all()?;
            }
            Content::Link(points_to) => fs_err::os::unix::fs::symlink(points_to, staged)?,
            Content::Directory(made) => {
                for file in files::files_below(&made) {
                    fs::File::open(file)?.sync_all()?;
                }
                fs::rename(made, staged)?;
            }
            Content::Nothing => {}
        }
        files::sync_directory(directory)?;
    }
    Ok(())
}

impl Change {
    /// Notes what is in the target's place before anything is done.
    fn look(&mut self) {
        self.replaces = files::exists(&self.target);
    }
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// Puts one change in place. Doing it again after a crash at any point comes to the same end.
fn swap_in(change: &Change) -> Result<()> {
    let Change { target, staged, saved, .. } = change;
    let staged = staged.as_deref().filter(|staged| files::exists(staged));
    if change.staged.is_some() && staged.is_none() {
        return Ok(()); // already swapped
    }
    if files::exists(saved) {
        // The old content is safe. A directory may have been on its way out; a file that stands
        // here after ours was taken is somebody else's.
        if is_directory(target) {
            files::remove(target)?;
        }
    } else if files::exists(target) {
        // A hard link keeps the old file reachable under both names until the new one replaces it
        // in one step; directories have to be moved away first.
        let in_one_step = staged.is_some_and(|staged| !is_directory(staged)) && !is_directory(target);
        if !(in_one_step && fs::hard_link(target, saved).is_ok()) {
            move_aside(target, saved)?;
        }
    }
    if let Some(staged) = staged {
        fs::rename(staged, target)?;
    }
    let directory = files::parent(target)?;
    if directory.is_dir() { files::sync_directory(directory) } else { Ok(()) }
}

/// Renames, or copies and removes where a rename is refused (a directory of an overlay's lower
/// layer: EXDEV, Documentation/filesystems/overlayfs.rst).
fn move_aside(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            // Under its own name only when it is whole: it may have to come back.
            let copy = unfinished(to);
            files::remove(&copy)?;
            files::copy_tree(from, &copy)?;
            fs::rename(&copy, to)?;
            files::remove(from)
        }
        other => Ok(other?),
    }
}

/// Where the old content is while it is being copied.
fn unfinished(saved: &Path) -> PathBuf {
    let mut name = saved.file_name().unwrap_or_default().to_os_string();
    name.push("-copy");
    saved.with_file_name(name)
}

impl Applied {
    /// Ends the transaction: what was replaced goes for good.
    pub fn keep(self) -> Result<()> {
        self.note(KEPT);
        for change in &self.journal.changes {
            files::remove(&change.saved)?;
            files::remove(&unfinished(&change.saved))?;
        }
        Ok(fs::remove_file(&self.path)?)
    }

    /// Puts back what was there before. Doing it again after a crash comes to the same end.
    pub fn undo(self) -> Result<()> {
        self.note(UNDONE);
        for Change { target, staged, saved, replaces } in self.journal.changes.iter().rev() {
            if files::exists(saved) {
                if is_directory(saved) || is_directory(target) {
                    files::remove(target)?;
                }
                fs::rename(saved, target)?;
                // Renaming one hard link of a file over another does nothing (rename(2)).
                files::remove(saved)?;
            } else if !replaces && staged.as_deref().is_some_and(|staged| !files::exists(staged)) {
                files::remove(target)?;
            }
            files::remove(&unfinished(saved))?;
        }
        self.drop_staged()
    }

    /// Writes down which way the transaction is ended, for the run that finds this one dead. A full
    /// disk must not keep it from being ended.
    fn note(&self, way: &str) {
        let noted = fs::OpenOptions::new().append(true).open(&self.path).and_then(|mut file| {
            file.write_all(way.as_bytes())?;
            file.sync_all()
        });
        drop(noted);
    }

    fn drop_staged(&self) -> Result<()> {
        for staged in self.journal.changes.iter().filter_map(|change| change.staged.as_deref()) {
            files::remove(staged)?;
        }
        Ok(fs::remove_file(&self.path)?)
    }

    /// What the transaction does, in words.
    pub fn what(&self) -> &str {
        &self.journal.what
    }

    /// The kernel whose module indexes it outdates.
    pub fn kernel(&self) -> Option<&KernelRelease> {
        self.journal.kernel.as_ref()
    }
}

/// What runs that died left behind.
#[derive(Default)]
#[must_use]
pub struct Recovered {
    /// Carried out, for its end: the module indexes of [`Applied::kernel`] must be made anew before
    /// [`Applied::keep`].
    pub carried_out: Vec<Applied>,
    /// What could be neither carried out nor undone. It is tried again by the next run.
    pub stuck: Vec<anyhow::Error>,
}

/// Carries out what runs that died left behind. One that cannot be is undone: it must not stand in
/// the way of everything that comes after.
pub fn recover(tree: &Tree) -> Result<Recovered> {
    let directory = journals(tree);
    let mut recovered = Recovered::default();
    for name in files::names(&directory)? {
        match recover_one(&directory.join(name)) {
            Ok(carried_out) => recovered.carried_out.extend(carried_out),
            Err(error) => recovered.stuck.push(error),
        }
    }
    Ok(recovered)
}

fn recover_one(path: &Path) -> Result<Option<Applied>> {
    // Its owner is at work, or has just finished and removed it. What it says is read under the
    // lock: until then the owner may write and end it.
    let Some(lock) = Lock::try_take_existing(path)? else { return Ok(None) };
    let Some(text) = files::read_if_there(path)? else { return Ok(None) };
    let mut lines = text.split_inclusive('\n');
    let Some(Ok(journal)) = lines.next().map(serde_json::from_str::<Journal>) else {
        // Died while the journal was being written: nothing had been staged.
        fs::remove_file(path)?;
        return Ok(None);
    };
    let applied = Applied { journal, path: path.to_owned(), _lock: lock };
    let what = applied.what().to_owned();
    let ended = match (lines.next(), lines.next()) {
        (Some(PREPARED), Some(KEPT)) => applied.keep(),
        (Some(PREPARED), Some(UNDONE)) => applied.undo(),
        (Some(PREPARED), _) => match applied.journal.changes.iter().try_for_each(swap_in) {
            Ok(()) => return Ok(Some(applied)),
            Err(error) => applied.undo().context(format!("{error:#}; undoing it")),
        },
        _ => applied.drop_staged(),
    };
    ended.map(|()| None).with_context(|| format!("finishing: {what}"))
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
