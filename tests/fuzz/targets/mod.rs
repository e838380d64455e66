// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is read, one function per target: an input, and an empty directory that is the target's own. The
//! result tells what the input came to. Some look whether it could be what it says. One file per room of
//! the program.

mod conf;
mod hook;
mod initramfs;
mod loader;
mod module_file;
mod package;
mod proof;
mod store;
mod tree;

use std::path::Path;

use dkms_hooks::kernel::KernelRelease;
use dkms_hooks::module::{Arch, Target as Kernel};

pub struct Target {
    pub name: &'static str,
    pub read: fn(&[u8], &Path) -> String,
    /// What its format is made of.
    pub words: &'static [&'static str],
    /// How many are read where nobody asks for more.
    pub inputs: usize,
}

/// All of them.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    let rooms = [
        conf::TARGETS,
        hook::TARGETS,
        package::TARGETS,
        initramfs::TARGETS,
        module_file::TARGETS,
        proof::TARGETS,
        store::TARGETS,
        loader::TARGETS,
        tree::TARGETS,
    ];
    rooms.into_iter().flatten()
}

/// What separates the files that an input stands for.
const NEXT: &str = "\n%%\n";

fn shown(items: &[impl AsRef<str>]) -> String {
    let all: usize = items.iter().map(|item| item.as_ref().len()).sum();
    let first: Vec<&str> = items.iter().map(AsRef::as_ref).take(3).collect();
    format!("{} {} {first:?}", items.len(), all.min(9))
}

fn release() -> KernelRelease {
    "6.1".parse().unwrap()
}

fn kernel() -> Kernel {
    Kernel { kernel: release(), arch: Arch::new("x86_64").unwrap() }
}
