// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules of others under the names of ours: which of them have to make way, how they are kept
//! (`M/original_module/K/A`) and how they come back. What depmod ranks below ours stays where it
//! is: it is its package's, which may replace it while ours is installed.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::Placement;
use super::precedence::Precedence;
use crate::module_file::{canonical, stem};
use crate::sys::files;
use crate::tree::kernels::find_module;
use crate::tree::transaction::Transaction;

/// Where all but one of several are kept, by their paths below the kernel's directory.
const COLLISIONS: &str = "collisions";

/// The modules in a kernel's directory as an installation finds them.
pub(super) struct Present {
    pub files: Vec<PathBuf>,
    /// Those that are of the version that is active.
    pub ours: Vec<PathBuf>,
    /// How depmod chooses among them. Nothing where a version of this module is active already:
    /// what came since was put beside it on purpose.
    pub precedence: Option<Precedence>,
}

fn is_named(path: &Path, name: &str) -> bool {
    let file_name = path.file_name().and_then(|name| name.to_str());
    file_name.and_then(stem).is_some_and(|found| canonical(found) == canonical(name))
}

/// The note beside an original that says where it was.
fn origin_of(original: &Path) -> PathBuf {
    let mut origin = original.as_os_str().to_os_string();
    origin.push(".origin");
    PathBuf::from(origin)
}

impl Placement<'_> {
    fn originals(&self) -> PathBuf {
        self.tree.originals_dir(self.id.name(), self.target)
    }

    /// The files of others that depmod might take for the module that goes into `directory`; the
    /// one that stands in its place comes first.
    fn in_the_way(&self, directory: &Path, name: &str, present: &Present) -> Vec<PathBuf> {
        let kernel_dir = self.tree.kernel_dir(&self.target.kernel);
        let relative = |path: &Path| path.strip_prefix(&kernel_dir).unwrap_or(path).to_owned();
        let outranked = |path: &Path| {
            let other = path.parent().unwrap_or(path);
            let precedence = present.precedence.as_ref();
            precedence.is_none_or(|order| order.prefers(name, &relative(directory), &relative(other)))
        };
        // What stands in its place may be a link, which no list of files has.
        let in_place = find_module(directory, name);
        let listed = present.files.iter().filter(|path| is_named(path, name));
        let (mut beside, mut elsewhere): (Vec<PathBuf>, Vec<PathBuf>) =
            listed.cloned().partition(|path| path.parent() == Some(directory));
        beside.extend(in_place.filter(|path| !beside.contains(path)));
        elsewhere.retain(|path| !outranked(path));
        elsewhere.sort();
        beside.sort();
        let mut found = [beside, elsewhere].concat();
        found.retain(|path| !present.ours.contains(path));
        found
    }

    /// Takes what is in the way of a module out of the kernel's directory, and keeps it.
    pub(super) fn archive_originals(
        &self,
        transaction: &mut Transaction,
        directory: &Path,
        name: &str,
        present: &Present,
    ) -> Result<()> {
        let (originals, kernel_dir) = (self.originals(), self.tree.kernel_dir(&self.target.kernel));
        let found = self.in_the_way(directory, name, present);
        if found.is_empty() && find_module(&originals, name).is_some() {
            self.report.line("An original module was already stored during a previous install");
        }
        if found.len() > 1 {
            self.report.line(format_args!(
                "Multiple same named modules! {} named {name}.ko in {}/",
                found.len(),
                kernel_dir.display()
            ));
        }
        for (at, path) in found.iter().enumerate() {
            self.report
                .line(format_args!("Found pre-existing {}, archiving for uninstallation", path.display()));
            let content = fs::read(path)?;
            if at == 0 {
                let original = originals.join(path.file_name().unwrap_or_default());
                // What stands there now is what has to come back, whatever was stored before.
                if let Some(earlier) = find_module(&originals, name) {
                    transaction.take(&origin_of(&earlier));
                    transaction.take(&earlier);
                }
                let origin = format!("{}\n", path.display()).into_bytes();
                transaction.put_file(&origin_of(&original), origin, 0o644);
                transaction.put_file(&original, content, 0o644);
            } else {
                let place = path.strip_prefix(&kernel_dir).unwrap_or(path);
                transaction.put_file(&originals.join(COLLISIONS).join(place), content, 0o644);
            }
            transaction.take(path);
        }
        Ok(())
    }

    /// Puts back what was archived for a module. `leaving` is the file of ours that goes.
    pub(super) fn restore_originals(
        &self,
        transaction: &mut Transaction,
        name: &str,
        leaving: Option<&Path>,
    ) -> Result<()> {
        let (originals, kernel_dir) = (self.originals(), self.tree.kernel_dir(&self.target.kernel));
        if let Some(original) = find_module(&originals, name) {
            let origin = origin_of(&original);
            if let Some(note) = files::read_if_there(&origin)? {
                let place = PathBuf::from(note.trim());
                if self.restore(transaction, &original, &place, leaving)? {
                    transaction.take(&origin);
                }
            }
        }
        let collisions = originals.join(COLLISIONS);
        let mut kept = files::files_below(&collisions);
        kept.retain(|path| is_named(path, name) && path.parent() != Some(&collisions));
        kept.sort();
        for original in kept {
            let place = kernel_dir.join(original.strip_prefix(&collisions).unwrap_or(&original));
            self.restore(transaction, &original, &place, leaving)?;
        }
        Ok(())
    }

    /// Returns whether the kept file may go.
    fn restore(
        &self,
        transaction: &mut Transaction,
        original: &Path,
        place: &Path,
        leaving: Option<&Path>,
    ) -> Result<bool> {
        // The note is a file that others can write, and what it names is written as root.
        let leaves = place.components().any(|part| part == Component::ParentDir);
        if !place.starts_with(self.tree.kernel_dir(&self.target.kernel)) || leaves {
            self.report.warning(format_args!(
                "{} was kept for {}, which is outside the kernel's tree; leaving it where it is",
                original.display(),
                place.display()
            ));
            return Ok(false);
        }
        if Some(place) != leaving && files::exists(place) {
            // The kernel's package has brought it again since: that one fits the kernel.
            self.report.line(format_args!(
                "{} is there again, dropping the archived original module",
                place.display()
            ));
        } else {
            self.report.line(format_args!("Restoring archived original module {}", place.display()));
            transaction.put_file(place, fs::read(original)?, 0o644);
        }
        transaction.take(original);
        Ok(true)
    }

    /// Removes the directories of originals that are empty now.
    pub(super) fn tidy_originals(&self) {
        let originals = self.originals();
        files::remove_empty_below(&originals);
        if let Some(parent) = originals.parent() {
            files::remove_empty_up_to(parent, &self.tree.module_dir(self.id.name()));
        }
    }
}
