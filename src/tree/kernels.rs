// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels on this system: which are installed, where their build directories are, how they are
//! configured. Changes nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Tree;
use crate::kernel::{KernelConfig, KernelRelease, compare_versions};
use crate::sys::files;

/// A directory that modules can be built against.
#[derive(Debug, Clone)]
pub struct BuildDir {
    /// As it goes into commands: `/lib/modules/K/build`, not what it links to.
    pub path: PathBuf,
    pub config: KernelConfig,
    /// Whether the kernel was compiled with clang.
    pub clang: bool,
}

/// The file of a module in one directory, under whatever compression.
pub fn find_module(directory: &Path, name: &str) -> Option<PathBuf> {
    ["", ".gz", ".xz", ".zst"]
        .iter()
        .map(|suffix| directory.join(format!("{name}.ko{suffix}")))
        .find(|path| path.is_file())
}

impl Tree {
    /// The release of the running kernel (uname(2)); unknown for an offline image.
    pub fn running_kernel(&self) -> Result<KernelRelease> {
        if !self.root.is_live() {
            anyhow::bail!("the running kernel is not this image's; name one with -k");
        }
        let names = nix::sys::utsname::uname().context("asking for the running kernel's release")?;
        Ok(names.release().to_string_lossy().parse::<KernelRelease>()?)
    }

    /// Every kernel with a directory in the install tree, oldest first.
    pub fn installed_kernels(&self) -> Result<Vec<KernelRelease>> {
        let mut kernels: Vec<KernelRelease> =
            files::names(&self.install)?.iter().filter_map(|name| name.parse().ok()).collect();
        kernels.sort_by(|a, b| compare_versions(a.as_str(), b.as_str()));
        Ok(kernels)
    }

    /// Whether modules can be built for a kernel: its headers are installed.
    pub fn has_headers(&self, kernel: &KernelRelease) -> bool {
        self.build_paths(kernel).iter().any(|path| is_build_dir(path))
    }

    fn build_paths(&self, kernel: &KernelRelease) -> [PathBuf; 2] {
        ["build", "source"].map(|name| self.kernel_dir(kernel).join(name))
    }

    /// The kernel's build directory: `given` (`--kernelsourcedir`) if it is one, else `build` or
    /// `source` in the install tree. Nothing if the headers are not installed.
    pub fn kernel_build_dir(
        &self,
        kernel: &KernelRelease,
        given: Option<&Path>,
        config: Option<&Path>,
    ) -> Result<Option<BuildDir>> {
        let candidates = match given {
            Some(given) => vec![given.to_owned()],
            None => self.build_paths(kernel).to_vec(),
        };
        let Some(path) = candidates.into_iter().find(|path| is_build_dir(path)) else {
            return Ok(None);
        };
        let places = match config {
            Some(config) => vec![config.to_owned()],
            None => vec![path.join("include/config/auto.conf"), path.join(".config")],
        };
        let mut parsed = KernelConfig::default();
        for place in places {
            if let Some(text) = files::read_if_there(&place)? {
                parsed = KernelConfig::new(text);
                break;
            }
        }
        let clang = parsed.enabled("CONFIG_CC_IS_CLANG");
        Ok(Some(BuildDir { path, config: parsed, clang }))
    }

    /// What takes the place of a build directory where the headers are not installed: nothing can be
    /// compiled there, but what was compiled elsewhere can be looked at.
    pub fn without_headers(&self, kernel: &KernelRelease) -> Result<BuildDir> {
        let config = self.kernel_config(kernel)?;
        let clang = config.enabled("CONFIG_CC_IS_CLANG");
        Ok(BuildDir { path: self.kernel_dir(kernel).join("build"), config, clang })
    }

    /// Where a list of an installed kernel's symbols may be (a Module.symvers, perhaps compressed), beside
    /// the one with its headers.
    pub fn symbol_lists(&self, kernel: &KernelRelease) -> Vec<PathBuf> {
        let mut places = Vec::new();
        for suffix in ["", ".gz", ".xz", ".zst"] {
            places.push(self.kernel_dir(kernel).join(format!("symvers{suffix}")));
            places.push(self.path(format!("/boot/symvers-{kernel}{suffix}")));
        }
        places
    }

    /// The configuration of an installed kernel, from wherever it can be read: its headers, or
    /// the copy beside its image. Empty if nowhere.
    pub fn kernel_config(&self, kernel: &KernelRelease) -> Result<KernelConfig> {
        let places = [
            self.kernel_dir(kernel).join("build/include/config/auto.conf"),
            self.kernel_dir(kernel).join("build/.config"),
            self.kernel_dir(kernel).join("config"),
            self.path(format!("/boot/config-{kernel}")),
        ];
        for place in places {
            if let Some(text) = files::read_if_there(&place)? {
                return Ok(KernelConfig::new(text));
            }
        }
        Ok(KernelConfig::default())
    }
}

fn is_build_dir(path: &Path) -> bool {
    path.join("include").is_dir() || path.join("Makefile").is_file()
}
