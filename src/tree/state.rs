// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is registered and how far each module has come, read from the tree's directories and
//! links as dkms keeps them. Changes nothing.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::Tree;
use crate::kernel::{KernelRelease, compare_versions};
use crate::module::{Arch, ModuleId, State, Target};
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
            if matches!(kernel.as_str(), "source" | "build" | "tarball") {
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

    /// Kernels that other kernels' weak-updates were linked from: `kernel-K-A` links that point to
    /// another kernel's files.
    pub fn weak_links(&self, id: &ModuleId) -> Vec<(Target, KernelRelease)> {
        let mut found = Vec::new();
        for name in files::names(&self.module_dir(id.name())).unwrap_or_default() {
            let Some(rest) = name.strip_prefix("kernel-") else { continue };
            let Ok(points_to) = fs::read_link(self.module_dir(id.name()).join(&name)) else { continue };
            let parts: Vec<&str> = points_to.iter().filter_map(|part| part.to_str()).collect();
            let &[version, origin, arch] = parts.as_slice() else { continue };
            let kernel = rest.strip_suffix(arch).and_then(|kernel| kernel.strip_suffix('-'));
            if let (true, Some(kernel)) = (version == id.version(), kernel)
                && kernel != origin
                && let (Ok(kernel), Ok(origin), Ok(arch)) =
                    (kernel.parse(), origin.parse::<KernelRelease>(), Arch::new(arch))
            {
                found.push((Target { kernel, arch }, origin));
            }
        }
        found
    }
}

/// What `kernel-K-A` of an installed version points to, relative to the module's directory.
pub fn active_link_target(id: &ModuleId, target: &Target) -> std::path::PathBuf {
    Path::new(id.version()).join(&target.kernel).join(&target.arch)
}
