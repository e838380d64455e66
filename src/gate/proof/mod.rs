// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether what the machine needs to boot is really there for a kernel: looks at the install tree
//! and the initramfs as they are now, whatever any run says it did. Changes nothing.

mod command_line;
mod examine;
mod firmware;
pub(super) mod index;
mod modprobe;
mod own;
mod signing;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use fs_err as fs;

pub use examine::{Examiner, Finding};

use super::verdict::{Critical, Input};
use crate::kernel::KernelRelease;
use crate::tree::Tree;

/// What is expected of the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// This system boots without one.
    NotNeeded,
    /// It must be there, under one of these paths, and no older than the modules.
    Needed(Vec<PathBuf>),
    /// Somebody makes it after us: not there yet, or not new enough yet, is no failure.
    Later(Vec<PathBuf>),
}

/// What a look at the system found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Why the kernel would not come up; empty if nothing is missing.
    pub missing: Vec<String>,
    /// What is still to come.
    pub awaited: Vec<String>,
    /// What may be wrong, or could not be told: never a reason for a verdict.
    pub warnings: Vec<String>,
    /// The files that the proof stands and falls with: the images, from which the machine boots
    /// whatever becomes of the install tree; where there is none, the modules and their index.
    pub inputs: Vec<Input>,
}

/// One module that the machine needs, and what was found of it.
#[derive(Debug, Clone)]
pub struct Looked<'a> {
    /// The package that it is of.
    pub package: &'a str,
    pub module: &'a str,
    pub finding: Finding,
}

/// Looks at a package's modules where modprobe would find them.
pub fn look<'a>(examiner: &mut Examiner<'_>, package: &'a str, modules: &'a [String]) -> Vec<Looked<'a>> {
    modules.iter().map(|module| Looked { package, module, finding: examiner.module(module) }).collect()
}

/// Looks at every critical module and at the initramfs.
pub fn prove(tree: &Tree, kernel: &KernelRelease, critical: &[Critical], image: &Image) -> Result<Proof> {
    let mut examiner = Examiner::new(tree, kernel)?;
    let looked: Vec<Looked<'_>> = critical
        .iter()
        .flat_map(|Critical { name, modules, .. }| look(&mut examiner, name, modules))
        .collect();
    let mut proof = Proof::default();
    // With it another copy of a module may come to be the one that is loaded.
    proof.inputs.extend(Input::look(&tree.kernel_dir(kernel).join("modules.dep")));
    for Looked { package, finding, .. } in &looked {
        proof.inputs.extend(finding.files.iter().filter_map(|path| Input::look(path)));
        proof.missing.extend(finding.problems.iter().map(|problem| format!("{package}: {problem}")));
        proof.warnings.extend(finding.warnings.iter().map(|warning| format!("{package}: {warning}")));
    }
    proof.look_at_initramfs(kernel, &looked, image);
    Ok(proof)
}

impl Proof {
    /// Adds what is to be said of the initramfs, for modules that were looked at.
    pub fn look_at_initramfs(&mut self, kernel: &KernelRelease, looked: &[Looked<'_>], image: &Image) {
        if let Image::Needed(images) | Image::Later(images) = image {
            let images: Vec<Input> = images.iter().filter_map(|image| Input::look(image)).collect();
            if !images.is_empty() {
                self.inputs = images;
            }
        }
        let newest = looked
            .iter()
            .filter_map(|looked| Some((looked.finding.modified?, looked.finding.files.first()?)))
            .max();
        if let Some((time, path)) = newest
            && let Some(problem) = image_problem(kernel, image, time, path)
        {
            match image {
                Image::Later(_) => self.awaited.push(problem),
                _ => self.missing.push(problem),
            }
        }
    }
}

/// The newest image decides: older ones are other generators' leftovers.
fn image_problem(
    kernel: &KernelRelease,
    image: &Image,
    modules: SystemTime,
    module: &Path,
) -> Option<String> {
    let (Image::Needed(paths) | Image::Later(paths)) = image else { return None };
    let time = |path: &PathBuf| Some((fs::metadata(path).ok()?.modified().ok()?, path.clone()));
    match paths.iter().filter_map(time).max() {
        None => Some(format!(
            "there is no initramfs for kernel {kernel} (if this machine boots without one, say so in the policy: \
             [initramfs] generator = \"none\")"
        )),
        Some((time, path)) if latest(time) < modules => {
            Some(format!("the initramfs {} is older than {}", path.display(), module.display()))
        }
        Some(_) => None,
    }
}

/// When a file was last written at the latest: FAT, as on the partitions of boot loaders, keeps
/// times in steps of two seconds, rounded down.
fn latest(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let coarse = since.subsec_nanos() == 0 && since.as_secs().is_multiple_of(2);
    if coarse { time + Duration::from_secs(2) } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Times in milliseconds.
    #[rstest]
    #[case::newer(12_000, 11_500, true)]
    #[case::older(11_300, 11_500, false)]
    #[case::rounded_down_by_fat(10_000, 11_500, true)]
    #[case::older_on_fat(8_000, 11_500, false)]
    fn an_image_is_no_older_than_the_modules(#[case] image: u64, #[case] module: u64, #[case] good: bool) {
        let at = |time: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(time);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("initrd.img");
        fs::File::create(&path).unwrap().file().set_modified(at(image)).unwrap();
        let problem = image_problem(
            &"6.1".parse().unwrap(),
            &Image::Needed(vec![path]),
            at(module),
            Path::new("/m.ko"),
        );
        assert_eq!(problem.is_none(), good, "{problem:?}");
    }
}
