// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether what the machine needs to boot is really there for a kernel: looks at the install tree
//! and the initramfs as they are now, whatever any run says it did. Changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::verdict::{Critical, Input};
use crate::kernel::KernelRelease;
use crate::module_file::{self, Wanted, canonical, check_loadable, kernel_vermagic};
use crate::sys::files;
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
    /// The files that the proof stands and falls with: the images, from which the machine boots
    /// whatever becomes of the install tree; where there is none, the modules.
    pub inputs: Vec<Input>,
}

/// Looks for every critical module where modprobe would find it, and at the initramfs.
pub fn prove(tree: &Tree, kernel: &KernelRelease, critical: &[Critical], image: &Image) -> Result<Proof> {
    let mut proof = Proof::default();
    let index = Index::read(&tree.kernel_dir(kernel))?;
    let config = tree.kernel_config(kernel)?;
    let vermagic = kernel_vermagic(kernel, &config);
    // Other kernels take what is not signed, unless firmware or command line have them refuse it.
    let signatures_enforced = config.enabled("CONFIG_MODULE_SIG_FORCE");
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for Critical { name, modules, .. } in critical {
        for module in modules {
            match index.find(module) {
                Found::Builtin => {}
                Found::Nowhere => {
                    proof.missing.push(format!("{name}: kernel {kernel} has no module {module}"))
                }
                Found::File(path) => {
                    proof.inputs.extend(Input::look(&path));
                    let wanted =
                        Wanted { name: None, kernel, arch: &tree.arch, vermagic: vermagic.as_deref() };
                    match check(&path, wanted, signatures_enforced) {
                        Ok(time) => newest = newest.max(Some((time, path))),
                        Err(error) => {
                            proof
                                .missing
                                .push(format!("{name}: {} cannot be loaded: {error:#}", path.display()));
                        }
                    }
                }
            }
        }
    }
    if let Image::Needed(images) | Image::Later(images) = image {
        let images: Vec<Input> = images.iter().filter_map(|image| Input::look(image)).collect();
        if !images.is_empty() {
            proof.inputs = images;
        }
    }
    if let Some((time, path)) = newest
        && let Some(problem) = image_problem(kernel, image, time, &path)
    {
        match image {
            Image::Later(_) => proof.awaited.push(problem),
            _ => proof.missing.push(problem),
        }
    }
    Ok(proof)
}

/// Checks one file and tells when it was put there.
fn check(path: &Path, wanted: Wanted<'_>, signatures_enforced: bool) -> Result<SystemTime> {
    let bytes = fs::read(path)?;
    let image = module_file::unpacked(&bytes)?;
    check_loadable(&image, wanted)?;
    if signatures_enforced && module_file::signed(&image)?.is_none() {
        bail!(
            "it is not signed, and kernel {} takes signed modules only (once it can be signed, build and install \
             it with --force)",
            wanted.kernel
        );
    }
    Ok(fs::metadata(path)?.modified()?)
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

enum Found {
    Builtin,
    File(PathBuf),
    Nowhere,
}

/// A kernel's modules as modprobe sees them: modules.dep (modules.dep(5)) and modules.builtin.
struct Index {
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

impl Index {
    fn read(kernel_dir: &Path) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let text = files::read_if_there(&kernel_dir.join(name));
            Ok(text.with_context(|| format!("reading {name}"))?.unwrap_or_default())
        };
        let name = |path: &str| {
            let file = Path::new(path).file_name()?.to_str()?;
            module_file::stem(file).map(canonical)
        };
        let paths = text("modules.dep")?;
        let files = paths
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter_map(|(path, _)| Some((name(path)?, kernel_dir.join(path))))
            .collect();
        let builtin = text("modules.builtin")?.lines().filter_map(name).collect();
        Ok(Self { files, builtin })
    }

    fn find(&self, module: &str) -> Found {
        let module = canonical(module);
        match self.files.get(&module) {
            Some(path) if path.is_file() => Found::File(path.clone()),
            _ if self.builtin.contains(&module) => Found::Builtin,
            _ => Found::Nowhere,
        }
    }
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
