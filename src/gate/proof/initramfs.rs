// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the initramfs has to do with the proof: which modules it needs, whether it has them, and
//! what the proof stands with.

use std::path::{Path, PathBuf};

use super::{Looked, Proof};
use crate::gate::contents::{Need, Precedent, Problem, Wanted, image_problems};
use crate::gate::verdict::{Critical, Input};
use crate::initramfs::Joined;
use crate::kernel::KernelRelease;
use crate::tree::Tree;

/// What is expected of the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// This system boots without one.
    NotNeeded,
    /// These, each of which the machine may boot from.
    Needed(Vec<Joined>),
    /// Somebody makes them after us: not there yet, or not made anew yet, is no failure.
    Later(Vec<Joined>),
}

impl Image {
    /// The files that make them up.
    pub fn files(&self) -> &[Joined] {
        match self {
            Self::NotNeeded => &[],
            Self::Needed(images) | Self::Later(images) => images,
        }
    }
}

impl Proof {
    /// Adds what is to be said of the initramfs, for modules that were looked at.
    pub fn look_at_initramfs(
        &mut self,
        tree: &Tree,
        kernel: &KernelRelease,
        looked: &[(&Critical, Vec<Looked<'_>>)],
        image: &Image,
    ) {
        let needs = needs(tree, kernel, looked, image);
        self.stand_with(tree, kernel, &needs, image);
        let mut problems = image_problems(kernel, image.files(), &wanted(&needs));
        let is_there = needs.iter().any(|(looked, _)| !looked.finding.files.is_empty());
        if *image != Image::NotNeeded && image.files().is_empty() && is_there {
            problems.push(Problem::Missing(format!(
                "there is no initramfs for kernel {kernel} (if this machine boots without one, say so in the policy: \
                 [initramfs] generator = \"none\")"
            )));
        }
        for problem in problems {
            let (what, place) = match problem {
                Problem::Missing(what) | Problem::Different(what) => (what, &mut self.missing),
                Problem::Unreadable(what) => (what, &mut self.untold),
            };
            let place = if matches!(image, Image::Later(_)) { &mut self.awaited } else { place };
            place.push(what);
        }
    }

    fn stand_with(
        &mut self,
        tree: &Tree,
        kernel: &KernelRelease,
        needs: &[(&Looked<'_>, Option<Need>)],
        image: &Image,
    ) {
        let from_tree = |need: &Option<Need>| matches!(need, None | Some(Need::SameIfThere));
        if needs.iter().any(|(_, need)| from_tree(need)) {
            // With the index another copy of a module may come to be the one that is loaded.
            self.inputs.extend(Input::look(&tree.kernel_dir(kernel).join("modules.dep")));
        }
        let files = needs.iter().filter(|(_, need)| from_tree(need));
        let files = files.flat_map(|(looked, _)| &looked.finding.files);
        self.inputs.extend(files.filter_map(|path| Input::look(path)));
        if needs.iter().any(|(_, need)| need.is_some()) {
            self.inputs.extend(image.files().iter().flatten().filter_map(|image| Input::look(image)));
        }
    }
}

/// What to look for in the images: the modules' files, and those that have to be loaded before one
/// that has to be there.
fn wanted<'a>(needs: &[(&'a Looked<'a>, Option<Need>)]) -> Vec<Wanted<'a>> {
    let mut wanted: Vec<Wanted<'a>> = Vec::new();
    for (looked, need) in needs {
        let Some(need) = need else { continue };
        let files = looked.finding.files.as_slice();
        let files = if *need == Need::SameIfThere { files.get(..1).unwrap_or_default() } else { files };
        for installed in files {
            if !wanted.iter().any(|wanted| wanted.installed == installed) {
                wanted.push(Wanted { package: looked.package, installed, need: need.clone() });
            }
        }
    }
    wanted
}

/// How much each module is needed in the initramfs; nothing for those that come from the root file
/// system whatever is there.
fn needs<'a>(
    tree: &Tree,
    kernel: &KernelRelease,
    looked: &'a [(&Critical, Vec<Looked<'a>>)],
    image: &Image,
) -> Vec<(&'a Looked<'a>, Option<Need>)> {
    if *image == Image::NotNeeded {
        return looked.iter().flat_map(|(_, looked)| looked).map(|looked| (looked, None)).collect();
    }
    let file = |looked: &'a Looked<'a>| looked.finding.files.first().map(PathBuf::as_path);
    let undecided = looked.iter().filter(|(critical, _)| critical.has_to_be_in_initramfs().is_none());
    let undecided: Vec<&Path> = undecided.flat_map(|(_, looked)| looked).filter_map(file).collect();
    let precedent = Some(undecided).filter(|undecided| !undecided.is_empty());
    let precedent = precedent.and_then(|undecided| Precedent::find(tree, kernel, &undecided));
    let need = |critical: &Critical, looked: &'a Looked<'a>| match critical.has_to_be_in_initramfs() {
        Some(need) => need.then_some(Need::There),
        None => Some(match (&precedent, file(looked)) {
            (Some(precedent), Some(file)) if precedent.has(file) => {
                Need::LikeKernel(precedent.kernel.clone())
            }
            _ => Need::SameIfThere,
        }),
    };
    looked
        .iter()
        .flat_map(|(critical, looked)| looked.iter().map(move |looked| (*critical, looked)))
        .map(|(critical, looked)| (looked, need(critical, looked)))
        .collect()
}
