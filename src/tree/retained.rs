// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules that stay installed while their package is upgraded: the old package's script has had
//! their version removed, and its successor is not in place yet. A record needs no source. Owns
//! `.hooks/retained`; files are put and taken by whoever has a transaction.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Tree;
use crate::kernel::KernelRelease;
use crate::module::{Arch, ModuleId, Target};
use crate::sys::files;

/// What is left of a version for one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    pub id: ModuleId,
    pub target: Target,
    /// The installed files.
    pub files: Vec<PathBuf>,
}

/// A record as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: String,
    files: Vec<PathBuf>,
}

impl Tree {
    /// `.hooks/retained/M/K/A.json`: one version of a module at most is active for a kernel.
    pub fn retained_record(&self, name: &str, target: &Target) -> PathBuf {
        let directory = self.hooks_dir().join("retained").join(name).join(target.kernel.as_str());
        directory.join(format!("{}.json", target.arch))
    }

    /// What stays installed of a module for a kernel; nothing where nobody has upgraded it.
    pub fn retained(&self, name: &str, target: &Target) -> Option<Retained> {
        let text = files::read_if_there(&self.retained_record(name, target)).ok()??;
        let Stored { version, files } = serde_json::from_str(&text).ok()?;
        let kernel_dir = self.kernel_dir(&target.kernel);
        // A record is a file that could be tampered with, and what it names is deleted as root.
        let is_inside = |path: &PathBuf| {
            path.starts_with(&kernel_dir)
                && !path.components().any(|part| part == std::path::Component::ParentDir)
        };
        let files = files.into_iter().filter(is_inside).collect();
        Some(Retained { id: ModuleId::new(name, &version).ok()?, target: target.clone(), files })
    }

    /// Everything that stays installed, by module and kernel.
    pub fn all_retained(&self) -> Vec<Retained> {
        let directory = self.hooks_dir().join("retained");
        let below = |path: &PathBuf| files::names(path).unwrap_or_default();
        let mut found = Vec::new();
        for name in below(&directory) {
            for kernel in below(&directory.join(&name)) {
                for file in below(&directory.join(&name).join(&kernel)) {
                    let arch = file.strip_suffix(".json").and_then(|arch| Arch::new(arch).ok());
                    if let (Ok(kernel), Some(arch)) = (kernel.parse::<KernelRelease>(), arch) {
                        found.extend(self.retained(&name, &Target { kernel, arch }));
                    }
                }
            }
        }
        found
    }
}

impl Retained {
    /// The record's text.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let stored = Stored { version: self.id.version().to_owned(), files: self.files.clone() };
        serde_json::to_vec(&stored).context("writing down what stays installed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_without_what_lies_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let target = Target { kernel: "6.1".parse().unwrap(), arch: tree.arch.clone() };
        let inside = tree.kernel_dir(&target.kernel).join("updates/dkms/zfs.ko");
        let outside = tree.kernel_dir(&target.kernel).join("../6.12/zfs.ko");
        let id = ModuleId::new("zfs", "2.1").unwrap();
        let kept = Retained { id, target: target.clone(), files: vec![inside.clone(), outside] };
        let path = tree.retained_record("zfs", &target);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, kept.to_json().unwrap()).unwrap();

        let want = Retained { files: vec![inside], ..kept };
        assert_eq!(tree.retained("zfs", &target), Some(want.clone()));
        assert_eq!(tree.all_retained(), [want]);
        assert_eq!(tree.retained("spl", &target), None);
    }
}
