// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes to the install tree and the dkms tree that happen whole or not at all.
//!
//! New content is staged beside its place, then a journal says what is about to happen, then
//! everything is swapped in by rename while the old content is kept beside. A transaction ends
//! with [`Applied::keep`] or [`Applied::undo`]. One that died before its journal said
//! "prepared" is dropped, one that died later is carried out by the next run
//! ([`recover`]); the owner's flock(2) on the journal tells a dead one from one under way.

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
    /// Where the old content is kept until the transaction ends, beside the target.
    saved: PathBuf,
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

fn journals(tree: &Tree) -> PathBuf {
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
        self.journal.changes.push(Change { target: target.to_owned(), staged, saved: beside("old") });
        self.contents.push(content);
    }

    /// Stages everything, then swaps it in. An error leaves everything as it was.
    pub fn apply(self) -> Result<Applied> {
        let what = self.journal.what.clone();
        self.apply_inner().with_context(|| what)
    }

    fn apply_inner(self) -> Result<Applied> {
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

/// Puts one change in place. Doing it again after a crash at any point comes to the same end.
fn swap_in(change: &Change) -> Result<()> {
    let staged = change.staged.as_deref().filter(|staged| files::exists(staged));
    if change.staged.is_some() && staged.is_none() {
        return Ok(()); // already swapped
    }
    if files::exists(&change.target) {
        let is_dir = change.target.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        if files::exists(&change.saved) {
            // A copy that a crash cut short: the target is still whole.
            files::remove(&change.saved)?;
        }
        // A hard link keeps the old file reachable under both names until the new one replaces it
        // in one step; directories have to be moved away first.
        let keep_in_place = staged.is_some() && !is_dir;
        if !(keep_in_place && fs::hard_link(&change.target, &change.saved).is_ok()) {
            move_aside(&change.target, &change.saved)?;
        }
    }
    if let Some(staged) = staged {
        fs::rename(staged, &change.target)?;
    }
    files::sync_directory(files::parent(&change.target)?)
}

/// Renames, or copies and removes where a rename is refused (a directory of an overlay's lower
/// layer: EXDEV, Documentation/filesystems/overlayfs.rst).
fn move_aside(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            files::copy_tree(from, to)?;
            files::remove(from)
        }
        other => Ok(other?),
    }
}

impl Applied {
    /// Ends the transaction: what was replaced goes for good.
    pub fn keep(self) -> Result<()> {
        for change in &self.journal.changes {
            files::remove(&change.saved)?;
        }
        Ok(fs::remove_file(&self.path)?)
    }

    /// Puts back what was there before.
    pub fn undo(self) -> Result<()> {
        for change in self.journal.changes.iter().rev() {
            let swapped = change.staged.as_deref().is_none_or(|staged| !files::exists(staged));
            if files::exists(&change.saved) {
                if change.saved.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                    files::remove(&change.target)?;
                }
                fs::rename(&change.saved, &change.target)?;
                // Renaming one hard link of a file over another does nothing (rename(2)).
                files::remove(&change.saved)?;
            } else if swapped && change.staged.is_some() {
                files::remove(&change.target)?;
            }
        }
        self.drop_staged()
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

/// Carries out what runs that died left behind, and returns it for its end: the module indexes
/// of [`Applied::kernel`] must be made anew before [`Applied::keep`].
pub fn recover(tree: &Tree) -> Result<Vec<Applied>> {
    let directory = journals(tree);
    let mut recovered = Vec::new();
    for name in files::names(&directory)? {
        let path = directory.join(name);
        let Some(text) = files::read_if_there(&path)? else { continue };
        // Its owner is at work, or has just finished and removed it.
        let Some(lock) = Lock::try_take_existing(&path)? else { continue };
        let mut lines = text.split_inclusive('\n');
        let Some(Ok(journal)) = lines.next().map(serde_json::from_str::<Journal>) else {
            // Died while the journal was being written: nothing had been staged.
            fs::remove_file(&path)?;
            continue;
        };
        let applied = Applied { journal, path, _lock: lock };
        if lines.next() != Some(PREPARED) {
            applied.drop_staged()?;
            continue;
        }
        applied
            .journal
            .changes
            .iter()
            .try_for_each(swap_in)
            .with_context(|| format!("finishing: {}", applied.what()))?;
        recovered.push(applied);
    }
    Ok(recovered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Arch;
    use crate::sys::root::Root;
    use rstest::rstest;

    fn made_up() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let tree = Tree {
            dkms: root.path("/var/lib/dkms"),
            source: root.path("/usr/src"),
            install: root.path("/lib/modules"),
            arch: Arch::new("x86_64").unwrap(),
            root,
        };
        (dir, tree)
    }

    /// A file replaced, a file added, a file taken, a link and a directory replaced.
    fn prepare(tree: &Tree) -> (Transaction, [PathBuf; 5]) {
        let place = |name: &str| tree.path(format!("/lib/modules/k/{name}"));
        let paths = ["old.ko", "new.ko", "gone.ko", "link", "dir"].map(place);
        fs::create_dir_all(&paths[4]).unwrap();
        fs::write(paths[4].join("inside"), "before").unwrap();
        fs::write(&paths[0], "before").unwrap();
        fs::write(&paths[2], "before").unwrap();
        fs_err::os::unix::fs::symlink("before", &paths[3]).unwrap();
        let made = place("made");
        fs::create_dir_all(&made).unwrap();
        fs::write(made.join("inside"), "after").unwrap();
        let mut transaction = Transaction::new(tree, "changing five things", None);
        transaction.put_file(&paths[0], b"after".to_vec(), 0o644);
        transaction.put_file(&paths[1], b"after".to_vec(), 0o644);
        transaction.take(&paths[2]);
        transaction.put_link(&paths[3], Path::new("after"));
        transaction.put_directory(&paths[4], &made);
        (transaction, paths)
    }

    fn contents(paths: &[PathBuf; 5]) -> Vec<Option<String>> {
        let link = fs::read_link(&paths[3]).ok().map(|to| to.to_string_lossy().into_owned());
        [&paths[0], &paths[1], &paths[2]]
            .map(|path| fs::read_to_string(path).ok())
            .into_iter()
            .chain([link, fs::read_to_string(paths[4].join("inside")).ok()])
            .collect()
    }

    const BEFORE: [Option<&str>; 5] = [Some("before"), None, Some("before"), Some("before"), Some("before")];
    const AFTER: [Option<&str>; 5] = [Some("after"), Some("after"), None, Some("after"), Some("after")];

    fn assert_clean(tree: &Tree, want: [Option<&str>; 5], paths: &[PathBuf; 5]) {
        assert_eq!(contents(paths), want.map(|text| text.map(str::to_owned)));
        let directory = paths[0].parent().unwrap();
        let left: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(".dkms-"))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        assert!(files::names(&journals(tree)).unwrap().is_empty());
    }

    #[test]
    fn kept_changes_are_all_there() {
        let (_dir, tree) = made_up();
        let (transaction, paths) = prepare(&tree);
        transaction.apply().unwrap().keep().unwrap();
        assert_clean(&tree, AFTER, &paths);
    }

    #[test]
    fn undone_changes_leave_no_trace() {
        let (_dir, tree) = made_up();
        let (transaction, paths) = prepare(&tree);
        transaction.apply().unwrap().undo().unwrap();
        assert_clean(&tree, BEFORE, &paths);
    }

    #[rstest]
    #[case::nothing_swapped(0)]
    #[case::one_swapped(1)]
    #[case::taken_as_well(3)]
    #[case::all_swapped(5)]
    fn a_run_that_died_after_preparing_is_carried_out(#[case] swapped: usize) {
        let (_dir, tree) = made_up();
        let (transaction, paths) = prepare(&tree);
        fs::create_dir_all(&transaction.directory).unwrap();
        let mut file = fs::File::create(transaction.directory.join(&transaction.id)).unwrap();
        write_journal(&mut file, &transaction.journal).unwrap();
        stage(&transaction.journal, transaction.contents).unwrap();
        file.write_all(PREPARED.as_bytes()).unwrap();
        transaction.journal.changes.iter().take(swapped).for_each(|change| swap_in(change).unwrap());
        let recovered = recover(&tree).unwrap();
        assert_eq!(recovered.len(), 1);
        recovered.into_iter().for_each(|applied| applied.keep().unwrap());
        assert_clean(&tree, AFTER, &paths);
    }

    #[test]
    fn a_run_that_died_while_staging_is_dropped() {
        let (_dir, tree) = made_up();
        let (transaction, paths) = prepare(&tree);
        fs::create_dir_all(&transaction.directory).unwrap();
        let mut file = fs::File::create(transaction.directory.join(&transaction.id)).unwrap();
        write_journal(&mut file, &transaction.journal).unwrap();
        stage(&transaction.journal, transaction.contents).unwrap();
        assert!(recover(&tree).unwrap().is_empty());
        assert_clean(&tree, BEFORE, &paths);
    }

    #[test]
    fn a_transaction_under_way_is_left_to_its_owner() {
        let (_dir, tree) = made_up();
        let (transaction, paths) = prepare(&tree);
        let applied = transaction.apply().unwrap();
        assert!(recover(&tree).unwrap().is_empty());
        applied.undo().unwrap();
        assert_clean(&tree, BEFORE, &paths);
    }

    #[test]
    fn a_failed_staging_changes_nothing() {
        let (_dir, tree) = made_up();
        let (mut transaction, paths) = prepare(&tree);
        transaction.put_file(&paths[0].join("below-a-file"), Vec::new(), 0o644);
        assert!(transaction.apply().is_err());
        assert_clean(&tree, BEFORE, &paths);
    }
}
