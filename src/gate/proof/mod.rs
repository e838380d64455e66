// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether what the machine needs to boot is really there for a kernel: looks at the install tree
//! and the initramfs as they are now, whatever any run says it did. Changes nothing.

mod command_line;
mod examine;
mod firmware;
pub mod index;
mod initramfs;
pub mod modprobe;
mod own;
mod signing;

use anyhow::Result;

pub use examine::{Examiner, Finding};
pub use initramfs::Image;

use super::verdict::{Critical, Input, Standing};
use crate::kernel::KernelRelease;
use crate::tree::Tree;

/// What a look at the system found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Why the kernel would not come up; empty if nothing is missing.
    pub missing: Vec<String>,
    /// What is still to come.
    pub awaited: Vec<String>,
    /// What nobody can tell and has to be known for a proof: nobody's failure.
    pub untold: Vec<String>,
    /// What may be wrong, or could not be told: never a reason for a verdict.
    pub warnings: Vec<String>,
    /// The files that the proof stands and falls with: the images for the modules that they have to
    /// hold, because the machine boots from those whatever becomes of the install tree; for others
    /// their files and their index.
    pub inputs: Vec<Input>,
    /// All files that were looked at.
    pub looked_at: Vec<Input>,
}

/// What a kernel brings that tells whether a module fits it.
const OF_KERNEL: [&str; 4] = ["modules.dep", "modules.order", "modules.builtin", "build/Module.symvers"];

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
    let looked: Vec<(&Critical, Vec<Looked<'_>>)> = critical
        .iter()
        .map(|critical| (critical, look(&mut examiner, &critical.name, &critical.modules)))
        .collect();
    let mut proof = Proof::default();
    for Looked { package, finding, .. } in looked.iter().flat_map(|(_, looked)| looked) {
        proof.missing.extend(finding.problems.iter().map(|problem| format!("{package}: {problem}")));
        proof.warnings.extend(finding.warnings.iter().map(|warning| format!("{package}: {warning}")));
    }
    proof.look_at_initramfs(tree, kernel, &looked, image);
    let of_kernel = OF_KERNEL.iter().map(|name| tree.kernel_dir(kernel).join(name));
    let of_modules = looked.iter().flat_map(|(_, looked)| looked).flat_map(|one| one.finding.files.clone());
    let files = of_kernel.chain(of_modules).chain(image.files().iter().flatten().cloned());
    proof.looked_at = files.filter_map(|file| Input::look(&file)).collect();
    Ok(proof)
}

impl Proof {
    /// What the kernel is by this.
    pub fn standing(&self) -> Standing {
        if !self.missing.is_empty() {
            Standing::Held
        } else if !self.awaited.is_empty() || !self.untold.is_empty() {
            Standing::Pending
        } else {
            Standing::Proven
        }
    }

    /// Why it is no better; empty if it is proven.
    pub fn reasons(&self) -> Vec<String> {
        let open = self.awaited.iter().chain(&self.untold);
        match self.standing() {
            Standing::Held => self.missing.iter().chain(&self.untold).cloned().collect(),
            _ => open.cloned().collect(),
        }
    }
}
