// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts built files into a kernel's install tree and takes them out again: staged swap, original
//! modules, `kernel-K-A` links, depmod. Never compiles.

mod compare;
pub use compare::{Comparison, Files};
mod depmod;
pub use depmod::{depmod, depmod_after_removal, is_index};
pub mod distribution;
mod originals;
pub mod precedence;
mod sanity;
pub mod weak;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::conf::directives::ModuleConf;
use crate::conf::record::Record;
use crate::failure::Failure;
use crate::module::{ModuleId, State, Target};
use crate::module_file;
use crate::sys::files;
use crate::sys::report::Report;
use crate::tree::Tree;
use crate::tree::kernels::find_module;
use crate::tree::retained::Retained;
use crate::tree::state::active_link_target;
use crate::tree::transaction::{Applied, Recovered, Transaction, recover};
use distribution::Distribution;
use originals::Present;
use precedence::Precedence;

/// How much of two files is compared at a time.
const PIECE: usize = 64 * 1024;

/// How a module is put in place.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// `--force`: over what is newer or the same.
    pub force: bool,
    /// `--force-version-override`: over what is newer.
    pub any_version: bool,
    /// `symlink_modules`: as links to the built files.
    pub links: bool,
}

/// One module and one kernel. The module's lock must be held.
#[derive(Debug)]
pub struct Placement<'a> {
    pub tree: &'a Tree,
    pub report: &'a Report,
    pub distribution: Distribution,
    pub id: &'a ModuleId,
    pub target: &'a Target,
}

impl Placement<'_> {
    /// The directory that a record's file is installed into.
    fn directory(&self, dest_location: &str) -> PathBuf {
        let location = self.distribution.destination(dest_location);
        self.tree.kernel_dir(&self.target.kernel).join(location.trim_matches('/'))
    }

    /// The built file of a module in the dkms tree, under whatever compression.
    fn built_file(&self, dest_name: &str) -> Option<PathBuf> {
        find_module(&self.tree.built_dir(self.id, self.target), dest_name)
    }

    /// Swaps the built files into the install tree and marks the version as the active one;
    /// whatever version was active before is no longer. Files that stand in the way and are not
    /// ours are kept as originals. The kernel's lock is taken for the swap alone. What must not be
    /// installed is told of here.
    pub fn install(&self, conf: &ModuleConf, how: How) -> Result<Applied> {
        let kernel_dir = self.tree.kernel_dir(&self.target.kernel);
        if !kernel_dir.is_dir() {
            let directory = kernel_dir.display().to_string();
            return Err(Failure::KernelDirectoryMissing { directory }.into());
        }
        let _lock = self.tree.lock_kernel(&self.target.kernel, self.report)?;
        let retained = self.tree.retained(self.id.name(), self.target);
        let is_first = retained.is_none() && self.tree.active(self.id.name(), self.target).is_none();
        let precedence = is_first.then(|| Precedence::read(self.tree, &self.target.kernel)).transpose()?;
        let (files, mut ours) = (files::files_below(&kernel_dir), self.active_files());
        ours.extend(
            retained.iter().flat_map(|retained| &retained.files).filter(|file| file.exists()).cloned(),
        );
        let present = Present { files, ours, precedence };
        let mut transaction = self.transaction("installing");
        let mut put = Vec::new();
        for (record, built, place) in self.built_files(conf)? {
            let directory = self.directory(&record.dest_location);
            if !how.force
                && let Some(refusal) = sanity::check(self, conf, &built, &record.dest_name, &present, how)?
            {
                match refusal {
                    Failure::NotNewer { .. } => self.report.error(refusal),
                    Failure::Obsolete { .. } => self.report.err(format_args!("\n{refusal}")),
                    _ => self.report.err(refusal),
                }
                return Err(Failure::InstallAborted.into());
            }
            self.archive_originals(&mut transaction, &directory, &record.dest_name, &present)?;
            self.report.line(format_args!("Installing {}", place.display()));
            if how.links {
                transaction.put_link(&place, &built);
            } else {
                transaction.put_file(&place, fs::read(&built)?, 0o644);
            }
            put.push(place);
        }
        // What another version, or another compression of this one, had elsewhere.
        for old in present.ours.iter().filter(|old| !put.contains(old)) {
            transaction.take(old);
        }
        if retained.is_some() {
            transaction.take(&self.tree.retained_record(self.id.name(), self.target));
        }
        transaction.put_link(
            &self.tree.active_link(self.id.name(), self.target),
            &active_link_target(self.id, self.target),
        );
        transaction.apply()
    }

    /// Leaves the active version's files where they are, with a record instead of all else that
    /// dkms has of it, and tells so. The caller has made sure that this version is the active one.
    pub fn retain(&self) -> Result<Applied> {
        let _lock = self.tree.lock_kernel(&self.target.kernel, self.report)?;
        let (id, target) = (self.id.clone(), self.target.clone());
        let retained = Retained { id, target, files: self.active_files() };
        self.report.line(format_args!("Module {} for kernel {}:", self.id, self.target));
        let mut transaction = self.transaction("retaining");
        for file in &retained.files {
            self.report.line(format_args!("Leaving {} until its successor is installed", file.display()));
            // A link leads to the built file, which goes.
            if file.is_symlink() {
                transaction.put_file(file, fs::read(file)?, 0o644);
            }
        }
        let record = self.tree.retained_record(self.id.name(), self.target);
        transaction.put_file(&record, retained.to_json()?, 0o644);
        transaction.take(&self.tree.active_link(self.id.name(), self.target));
        transaction.apply()
    }

    /// Takes out what was left in place, and puts originals back.
    pub fn let_go(&self, retained: &Retained) -> Result<Applied> {
        let _lock = self.tree.lock_kernel(&self.target.kernel, self.report)?;
        let mut transaction = self.transaction("removing what was left of");
        for file in &retained.files {
            if files::exists(file) {
                self.report.line(format_args!("Deleting {}", file.display()));
                transaction.take(file);
            }
            if let Some(name) = file.file_name().and_then(|name| module_file::stem(name.to_str()?)) {
                self.restore_originals(&mut transaction, name, Some(file))?;
            }
        }
        transaction.take(&self.tree.retained_record(self.id.name(), self.target));
        transaction.apply()
    }

    /// The built files, each with its record and the place that it is installed to.
    ///
    /// Fails with [`Failure::BuiltFileMissing`] if there is none for a record that is not ruled out.
    pub fn built_files<'a>(&self, conf: &'a ModuleConf) -> Result<Vec<(&'a Record, PathBuf, PathBuf)>> {
        let mut found = Vec::new();
        for record in &conf.records {
            if let Some(built) = self.built_file(&record.dest_name) {
                let place = self.directory(&record.dest_location).join(built.file_name().unwrap_or_default());
                found.push((record, built, place));
            } else if !self.was_left_out(&record.dest_name, conf) {
                let directory = self.tree.built_dir(self.id, self.target).display().to_string();
                return Err(Failure::BuiltFileMissing { name: record.dest_name.clone(), directory }.into());
            }
        }
        Ok(found)
    }

    /// Where the files of this version are installed, or were if they are gone.
    pub fn places(&self, conf: &ModuleConf) -> Vec<PathBuf> {
        let place = |record: &Record| {
            let directory = self.directory(&record.dest_location);
            let meant = || Some(directory.join(self.built_file(&record.dest_name)?.file_name()?));
            find_module(&directory, &record.dest_name).or_else(meant)
        };
        conf.records.iter().filter_map(place).collect()
    }

    /// Takes the active version's files out of the install tree and puts originals back. The
    /// caller has made sure that this version is the active one, and has said that it goes.
    pub fn uninstall(&self, conf: &ModuleConf) -> Result<Applied> {
        let _lock = self.tree.lock_kernel(&self.target.kernel, self.report)?;
        let kernel_dir = self.tree.kernel_dir(&self.target.kernel);
        let mut transaction = self.transaction("uninstalling");
        for record in &conf.records {
            let mut place = find_module(&self.directory(&record.dest_location), &record.dest_name);
            let built_dir = self.tree.built_dir(self.id, self.target);
            if let Some(other) = place.take_if(|place| self.is_from(&built_dir, place) == Some(false)) {
                self.report.line(format_args!(
                    "Leaving {}, which is not the module that was built",
                    other.display()
                ));
            } else if let Some(place) = &place {
                self.report.line(format_args!("Deleting {}", place.display()));
                transaction.take(place);
            } else if self.built_file(&record.dest_name).is_some() {
                self.report.line(format_args!(
                    "Module {}.ko was not found within {}/",
                    record.dest_name,
                    kernel_dir.display()
                ));
            }
            self.restore_originals(&mut transaction, &record.dest_name, place.as_deref())?;
        }
        transaction.take(&self.tree.active_link(self.id.name(), self.target));
        transaction.apply()
    }

    /// Removes the directories that the module's files go to, where they are empty now, and their
    /// parents in the kernel's directory and among the originals.
    pub fn tidy(&self, conf: &ModuleConf) {
        let kernel_dir = self.tree.kernel_dir(&self.target.kernel);
        for record in &conf.records {
            files::remove_empty_up_to(&self.directory(&record.dest_location), &kernel_dir);
        }
        self.tidy_originals();
    }

    /// The module has files, but none for this record: BUILD_EXCLUSIVE_* ruled it out when the
    /// module was built.
    fn was_left_out(&self, dest_name: &str, conf: &ModuleConf) -> bool {
        conf.has_exclusive()
            && self.built_file(dest_name).is_none()
            && conf.records.iter().any(|record| self.built_file(&record.dest_name).is_some())
    }

    fn transaction(&self, doing: &str) -> Transaction {
        let what = format!("{doing} {} for kernel {}", self.id, self.target);
        Transaction::new(self.tree, what, Some(&self.target.kernel))
    }

    /// The installed files of whatever version of this module is active.
    fn active_files(&self) -> Vec<PathBuf> {
        let Some(active) = self.tree.active(self.id.name(), self.target) else { return Vec::new() };
        let built_dir = self.tree.built_dir(&active, self.target);
        let kernel_dir = self.tree.kernel_dir(&self.target.kernel);
        let below = self.distribution.destinations().into_iter().map(|location| kernel_dir.join(location));
        let files = below
            .flat_map(|directory| [files::files_below(&directory), files::links_below(&directory)].concat());
        files.filter(|path| self.is_from(&built_dir, path) == Some(true)).collect()
    }

    /// Whether an installed file is from the files kept in a directory; nothing if that has none of
    /// the name. Where the packages of others put modules too, and the kernel its own, a file is ours
    /// if it has the same content or at least comes of the same source.
    fn is_from(&self, built_dir: &Path, path: &Path) -> Option<bool> {
        let built = find_module(built_dir, module_file::stem(path.file_name()?.to_str()?)?)?;
        let alone = self.distribution.own_directory().map(|own| {
            let kernel_dir = self.tree.kernel_dir(&self.target.kernel);
            path.parent() == Some(&*kernel_dir.join(own))
        });
        Some(alone == Some(true) || same_module(&built, path) || is_made_of(&built, path))
    }

    /// The module's state for this target.
    pub fn state(&self) -> State {
        self.tree.state(self.id, self.target)
    }
}

/// Whether two files hold the same module, be they compressed in different ways.
pub fn same_module(a: &Path, b: &Path) -> bool {
    let same_size = match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.len() == b.len(),
        _ => return false,
    };
    let same_form = a.extension() == b.extension();
    if same_size && same_bytes(a, b).unwrap_or(false) {
        return true;
    }
    if same_form {
        return false;
    }
    let (Ok(a), Ok(b)) = (fs::read(a), fs::read(b)) else { return false };
    matches!((module_file::unpacked(&a), module_file::unpacked(&b)), (Ok(a), Ok(b)) if a == b)
}

/// Whether one module was made of the other, signed or stripped, or is built of the same source as far
/// as they say so (`srcversion`).
fn is_made_of(built: &Path, other: &Path) -> bool {
    let source = |path| Some(sanity::info(path).ok()??.get("srcversion")?.to_owned());
    if source(built).is_some_and(|of_built| source(other) == Some(of_built)) {
        return true;
    }
    let (Ok(built), Ok(other)) = (fs::read(built), fs::read(other)) else { return false };
    module_file::same_code(&built, &other).unwrap_or(false)
}

/// Compares two files piece by piece: whole, large modules do not fit the caches, and `status`
/// looks at every one of them.
fn same_bytes(a: &Path, b: &Path) -> std::io::Result<bool> {
    let mut a = BufReader::with_capacity(PIECE, fs::File::open(a)?);
    let mut b = BufReader::with_capacity(PIECE, fs::File::open(b)?);
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 || left[..length] != right[..length] {
            return Ok(left.is_empty() && right.is_empty());
        }
        a.consume(length);
        b.consume(length);
    }
}

/// Finishes what interrupted runs left half done, and says so. What cannot be finished is told of
/// and keeps nobody from working: a kernel that is installed now needs its modules all the same.
pub fn finish_interrupted(tree: &Tree, report: &Report) -> Result<()> {
    if !tree.hooks_dir().join("journal").is_dir() {
        return Ok(());
    }
    let Recovered { carried_out, stuck } = recover(tree)?;
    for error in stuck {
        report.warning(format_args!("an interrupted run cannot be finished yet, going on: {error:#}"));
    }
    for applied in carried_out {
        report.err(format_args!("dkms: finished what an interrupted run had begun: {}", applied.what()));
        if let Some(kernel) = applied.kernel().cloned().filter(|kernel| tree.kernel_dir(kernel).is_dir()) {
            let _lock = tree.lock_kernel(&kernel, report)?;
            if let Err(error) = depmod(tree, &kernel, report) {
                report.warning(format_args!(
                    "the module indexes of kernel {kernel} are out of date, going on; run: depmod -a {kernel}\n{error:#}"
                ));
            }
        }
        applied.keep()?;
    }
    Ok(())
}
