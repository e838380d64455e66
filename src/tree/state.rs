// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is registered and how far each module has come, read from the tree's directories and
//! links as dkms keeps them. Changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::Tree;
use crate::kernel::{KernelRelease, compare_versions};
use crate::module::{Arch, ModuleId, State, Target};
use crate::module_file::stem;
use crate::sys::files;

impl Tree {
    /// Every registered module and version, by name, then by version.
    pub fn ids(&self) -> Result<Vec<ModuleId>> {
        let mut ids = Vec::new();
        for name in files::names(&self.dkms)? {
            ids.extend(self.versions(&name)?);
        }
        Ok(ids)
    }

    /// The registered versions of one module, oldest first.
    pub fn versions(&self, name: &str) -> Result<Vec<ModuleId>> {
        let directory = self.module_dir(name);
        let mut ids: Vec<ModuleId> = files::names(&directory)?
            .iter()
            .filter(|version| *version != "original_module" && !version.starts_with("kernel-"))
            .filter(|version| directory.join(version).is_dir())
            .filter_map(|version| ModuleId::new(name, version).ok())
            .collect();
        ids.sort_by(|a, b| compare_versions(a.version(), b.version()));
        Ok(ids)
    }

    /// Whether `M/V` is in the tree, broken or not.
    pub fn is_registered(&self, id: &ModuleId) -> bool {
        self.version_dir(id).is_dir()
    }

    /// Whether the source link or what it points to is missing.
    pub fn is_broken(&self, id: &ModuleId) -> bool {
        !self.source_link(id).is_dir()
    }

    /// The kernels that files are kept for, sorted.
    pub fn targets(&self, id: &ModuleId) -> Vec<Target> {
        let version = self.version_dir(id);
        let mut targets = Vec::new();
        for kernel in files::names(&version).unwrap_or_default() {
            if super::NO_KERNELS.contains(&kernel.as_str()) {
                continue;
            }
            let Ok(release) = kernel.parse::<KernelRelease>() else { continue };
            for arch in files::names(&version.join(&kernel)).unwrap_or_default() {
                if let Ok(arch) = Arch::new(&arch)
                    && version.join(&kernel).join(&arch).join("module").is_dir()
                {
                    targets.push(Target { kernel: release.clone(), arch });
                }
            }
        }
        targets
    }

    /// How far a module has come for one target.
    pub fn state(&self, id: &ModuleId, target: &Target) -> State {
        if self.active(id.name(), target).as_ref() == Some(id) {
            State::Installed
        } else if self.built_dir(id, target).is_dir() {
            State::Built
        } else {
            State::Added
        }
    }

    /// The version that is installed for a target, from the `kernel-K-A` link.
    pub fn active(&self, name: &str, target: &Target) -> Option<ModuleId> {
        let points_to = fs::read_link(self.active_link(name, target)).ok()?;
        let version = points_to.components().next()?.as_os_str().to_str()?;
        ModuleId::new(name, version).ok().filter(|id| points_to == active_link_target(id, target))
    }

    /// The kernels whose weak-updates have links to all files of this module that are installed for
    /// another kernel, with that one.
    pub fn weak_links(&self, id: &ModuleId) -> Vec<(Target, KernelRelease)> {
        let mut found = Vec::new();
        let weak_updates = |kernel: &KernelRelease| self.kernel_dir(kernel).join("weak-updates");
        let mut others = self.installed_kernels().unwrap_or_default();
        others.retain(|kernel| weak_updates(kernel).is_dir());
        if others.is_empty() {
            return found;
        }
        for origin in self.targets(id).into_iter().filter(|origin| self.state(id, origin) == State::Installed)
        {
            let names = files::names(&self.built_dir(id, &origin)).unwrap_or_default();
            let modules: BTreeSet<&str> = names.iter().filter_map(|name| stem(name)).collect();
            let Ok(home) = fs::canonicalize(self.kernel_dir(&origin.kernel)) else { continue };
            for kernel in others.iter().filter(|kernel| **kernel != origin.kernel) {
                let links = files::links_below(&weak_updates(kernel));
                let leads_home =
                    |link: &&PathBuf| fs::canonicalize(link).is_ok_and(|path| path.starts_with(&home));
                let linked: BTreeSet<&str> = links
                    .iter()
                    .filter(leads_home)
                    .filter_map(|link| stem(link.file_name()?.to_str()?))
                    .collect();
                let target = Target { kernel: kernel.clone(), arch: origin.arch.clone() };
                if !modules.is_empty()
                    && modules.is_subset(&linked)
                    && self.state(id, &target) != State::Installed
                {
                    found.push((target, origin.kernel.clone()));
                }
            }
        }
        found
    }
}

/// What `kernel-K-A` of an installed version points to, relative to the module's directory.
pub fn active_link_target(id: &ModuleId, target: &Target) -> std::path::PathBuf {
    Path::new(id.version()).join(&target.kernel).join(&target.arch)
}
