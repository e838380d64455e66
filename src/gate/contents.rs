// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the images that a kernel boots from hold the modules that have to be there, in the build
//! that is installed; which images those are, and which modules. Reads, changes nothing.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;

use super::bls;
use super::loader;
use super::verdict::{Standing, Verdict};
use crate::initramfs::image::{self, CannotRead, Contents, Unreadable};
use crate::initramfs::{self, Joined};
use crate::kernel::KernelRelease;
use crate::module_file::{canonical, same_code, stem};
use crate::tree::Tree;

/// How much it takes for an image to be good for a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// It has to be there.
    There,
    /// It has to be there, because this other kernel has it there.
    LikeKernel(KernelRelease),
    /// Nobody knows whether it has to be there. If it is, that is the one that is loaded.
    SameIfThere,
}

/// A module that is looked for in the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The package that it is of.
    pub package: &'a str,
    /// The file that modprobe takes once the root file system is there.
    pub installed: &'a Path,
    pub need: Need,
}

/// A module's name by that of its file, as modprobe goes by it.
fn name(file: &Path) -> String {
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    canonical(stem(&file).unwrap_or(&file))
}

/// What is wrong with an image, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A module is not in it, or there is no image.
    Missing(String),
    /// A module is in it, and not as it is installed.
    Different(String),
    /// Nobody can tell what is in it: no failure of a module's, and no proof.
    Unreadable(String),
}

/// Looks for modules in every one of a kernel's images. Reads none if there is nothing to look for.
pub fn image_problems(kernel: &KernelRelease, images: &[Joined], wanted: &[Wanted<'_>]) -> Vec<Problem> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let names: BTreeSet<String> = wanted.iter().map(|wanted| name(wanted.installed)).collect();
    let mut problems = Vec::new();
    for joined in images {
        match image::read(joined, kernel, &names) {
            Err(_) if wanted.iter().all(|wanted| wanted.need == Need::SameIfThere) => {}
            Err(error) => problems.push(unread(&error)),
            Ok(contents) => {
                problems
                    .extend(wanted.iter().filter_map(|wanted| problem(kernel, joined, &contents, wanted)));
            }
        }
    }
    problems
}

fn unread(error: &CannotRead) -> Problem {
    let image = error.image.display();
    match &error.why {
        Unreadable::File(error) if error.kind() == ErrorKind::NotFound => {
            Problem::Missing(format!("the initramfs {image}, which a boot entry names, is not there"))
        }
        why => Problem::Unreadable(format!("the initramfs {image} cannot be read: {why}")),
    }
}

fn problem(
    kernel: &KernelRelease,
    joined: &[PathBuf],
    contents: &Contents,
    wanted: &Wanted<'_>,
) -> Option<Problem> {
    let Wanted { package, installed, need } = wanted;
    let name = name(installed);
    let said = |what: String| format!("{package}: the initramfs {} {what}", shown(joined));
    let copies = contents.module(&name);
    if copies.is_empty() {
        let other = match need {
            Need::SameIfThere => return None,
            Need::There => String::new(),
            Need::LikeKernel(other) => format!(", which that of kernel {other} has"),
        };
        return Some(Problem::Missing(said(if contents.has_modules {
            format!(
                "lacks {name}{other} (if this machine does not need it there, say so in the policy: \
                 [module.{package}] initramfs = false)"
            )
        } else {
            format!("has no modules for kernel {kernel}")
        })));
    }
    // What is wrong with the installed file is not this room's to say.
    let bytes = fs::read(installed).ok()?;
    let mut damage = None;
    for copy in copies {
        match same_code(&copy.content, &bytes) {
            Ok(true) => return None,
            Ok(false) => {}
            Err(error) => damage = Some(error),
        }
    }
    Some(Problem::Different(said(match damage {
        None => format!("holds another build of {name} than {}", installed.display()),
        Some(error) => format!("holds {name} in a form that cannot be compared: {error:#}"),
    })))
}

/// For people: the last file is the main one, what comes before it is microcode and the like.
fn shown(joined: &[PathBuf]) -> String {
    joined.last().map(|path| path.display().to_string()).unwrap_or_default()
}

/// The images that decide whether a kernel comes up: those of every entry that a boot loader's menu
/// has for it, or is to have again once the kernel is fit. Where there is none, or GRUB makes its own
/// menu, the newest image under the names that generators use: GRUB takes any of them, and older
/// ones are other generators' leftovers.
pub fn deciding(tree: &Tree, kernel: &KernelRelease) -> Vec<Joined> {
    let mut deciding = bls::initramfs_of(tree, kernel);
    let images = initramfs::images(tree, kernel);
    if deciding.is_empty() {
        deciding.extend(newest(&images, kernel));
    } else if loader::detect(tree).iter().any(|loader| loader.name == loader::GRUB) {
        let boot = tree.path("/boot");
        let named: Vec<PathBuf> = images.into_iter().filter(|path| path.parent() == Some(&boot)).collect();
        let newest = newest(&named, kernel);
        deciding.extend(newest.filter(|newest| !deciding.contains(newest)));
    }
    deciding
}

/// The newest image, with what lies beside it in a directory that kernel-install has for the entry.
fn newest(images: &[PathBuf], kernel: &KernelRelease) -> Option<Joined> {
    let time = |path: &Path| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    let newest = images.iter().max_by_key(|path| time(path))?;
    let directory = newest.parent();
    if directory.is_none_or(|directory| !directory.ends_with(kernel)) {
        return Some(vec![newest.clone()]);
    }
    Some(images.iter().filter(|path| path.parent() == directory).cloned().collect())
}

/// What another kernel has in its initramfs: the one that this machine runs, or else the newest one
/// that is known to be fit. What is there is taken to be needed there.
#[derive(Debug)]
pub struct Precedent {
    pub kernel: KernelRelease,
    contents: Contents,
}

impl Precedent {
    /// Looks for these modules; nothing if there is no kernel to learn from.
    pub fn find(tree: &Tree, kernel: &KernelRelease, installed: &[&Path]) -> Option<Self> {
        let running = tree.running_kernel().ok();
        let proven = Verdict::all(tree).unwrap_or_default().into_iter().rev();
        let proven = proven.filter(|verdict| verdict.standing == Standing::Proven);
        let others = running.into_iter().chain(proven.map(|verdict| verdict.kernel));
        let names = installed.iter().map(|file| name(file)).collect();
        others.filter(|other| other != kernel).find_map(|other| {
            let images = deciding(tree, &other);
            let contents = image::read(images.first()?, &other, &names).ok()?;
            Some(Self { kernel: other, contents })
        })
    }

    /// Whether that kernel has a module there.
    pub fn has(&self, installed: &Path) -> bool {
        !self.contents.module(&name(installed)).is_empty()
    }
}
