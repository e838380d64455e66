// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of a kernel's fitness to boot: pending, proven or held, with its reasons and what
//! it was reached from. The one thing that all hooks and boot loaders' gates read.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::notices;
use crate::kernel::KernelRelease;
use crate::sys::{clock, files};
use crate::tree::Tree;

/// Whether a kernel may become the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Work for it has begun; nothing is known yet.
    Pending,
    /// Everything that the machine needs to boot was seen to be there.
    Proven,
    /// Something that the machine needs to boot is missing.
    Held,
    /// The same, and an administrator lets it boot as it is.
    Released,
}

impl Standing {
    /// Whether a kernel that stands so may become the default.
    pub fn may_boot(self) -> bool {
        matches!(self, Self::Proven | Self::Released)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Proven => "proven",
            Self::Held => "held",
            Self::Released => "released",
        })
    }
}

/// A registered package that the machine needs to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Critical {
    /// PACKAGE_NAME, or the name that the policy gives for a module nobody has registered.
    pub name: String,
    /// The kernel modules that have to be there.
    pub modules: Vec<String>,
    /// Who says so, or what it is needed for.
    pub because: String,
    /// Whether the initramfs needs it, not only what comes after; nothing if nobody knows, because
    /// it was not found by looking at the machine.
    #[serde(default)]
    pub needs_initramfs: Option<bool>,
    /// Whether it is to be in the initramfs by the word of the policy or of the module itself.
    #[serde(default)]
    pub wants_initramfs: Option<bool>,
}

impl Critical {
    /// Whether it has to be in the initramfs; nothing if that is to be seen from what another kernel
    /// has there. Words count more than a look at the machine.
    pub fn has_to_be_in_initramfs(&self) -> Option<bool> {
        self.wants_initramfs.or(self.needs_initramfs)
    }
}

/// A file that a verdict was reached from, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    path: PathBuf,
    /// In bytes.
    size: u64,
    /// Modification time in nanoseconds since 1970.
    modified: i128,
}

impl Input {
    /// Looks at a file; nothing if there is none.
    pub fn look(path: &Path) -> Option<Self> {
        let meta = fs_err::metadata(path).ok()?;
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Some(Self { path: path.to_owned(), size: meta.len(), modified })
    }

    fn has_changed(&self) -> bool {
        Self::look(&self.path).as_ref() != Some(self)
    }
}

/// A kernel's verdict as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub kernel: KernelRelease,
    pub standing: Standing,
    /// Why it is held, or what a pending kernel waits for.
    pub reasons: Vec<String>,
    pub critical: Vec<Critical>,
    /// The files that it stands and falls with.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// All files that were looked at for it. As long as none of them changes, looking again tells the
    /// same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looked_at: Vec<Input>,
    /// What the files were when an administrator released the kernel: it holds until they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_from: Option<Vec<Input>>,
    /// When it was reached, RFC 3339 in UTC.
    pub time: String,
}

fn directory(tree: &Tree) -> PathBuf {
    tree.hooks_dir().join("verdicts")
}

fn path(tree: &Tree, kernel: &KernelRelease) -> PathBuf {
    directory(tree).join(format!("{kernel}.json"))
}

impl Verdict {
    /// A verdict reached now.
    pub fn now(
        kernel: &KernelRelease,
        standing: Standing,
        reasons: Vec<String>,
        critical: Vec<Critical>,
    ) -> Self {
        let time = clock::now();
        Self {
            kernel: kernel.clone(),
            standing,
            reasons,
            critical,
            inputs: Vec::new(),
            looked_at: Vec::new(),
            released_from: None,
            time,
        }
    }

    /// As an administrator's earlier release has it: a kernel that would be held from the same files
    /// is let go.
    pub fn after(self, earlier: Option<Vec<Input>>) -> Self {
        let held_again = self.standing == Standing::Held && earlier.as_ref() == Some(&self.inputs);
        let standing = if held_again { Standing::Released } else { self.standing };
        let released_from = earlier.filter(|_| matches!(standing, Standing::Released | Standing::Pending));
        Self { standing, released_from, ..self }
    }

    /// Released as it is by an administrator.
    pub fn released(self) -> Self {
        let released_from = Some(self.inputs.clone());
        Self { standing: Standing::Released, released_from, ..self }
    }

    /// With the files that it was reached from.
    pub fn reached_from(self, inputs: Vec<Input>) -> Self {
        Self { inputs, ..self }
    }

    /// With all files that were looked at.
    pub fn after_looking_at(self, looked_at: Vec<Input>) -> Self {
        Self { looked_at, ..self }
    }

    /// Whether these files were looked at, and nothing has changed since.
    pub fn has_seen<'p>(&self, mut files: impl Iterator<Item = &'p Path>) -> bool {
        let is_known = |file: &Path| self.looked_at.iter().any(|input| input.path == file);
        !self.looked_at.is_empty()
            && files.all(is_known)
            && !self.is_stale()
            && !self.looked_at.iter().any(Input::has_changed)
    }

    /// Whether a file that it was reached from has changed or gone since.
    pub fn is_stale(&self) -> bool {
        self.inputs.iter().any(Input::has_changed)
    }

    /// The stored verdict; none for a kernel that was never marked.
    pub fn load(tree: &Tree, kernel: &KernelRelease) -> Result<Option<Self>> {
        let path = path(tree, kernel);
        let Some(text) = files::read_if_there(&path)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("reading the verdict {}", path.display()))
    }

    /// Every stored verdict, by kernel, oldest kernel first.
    pub fn all(tree: &Tree) -> Result<Vec<Self>> {
        let mut verdicts = Vec::new();
        for name in files::names(&directory(tree))? {
            if let Some(kernel) = name.strip_suffix(".json").and_then(|kernel| kernel.parse().ok()) {
                verdicts.extend(Self::load(tree, &kernel)?);
            }
        }
        verdicts.sort_by(|a, b| crate::kernel::compare_versions(a.kernel.as_str(), b.kernel.as_str()));
        Ok(verdicts)
    }

    /// What a module is needed for, as the newest kernel's verdict that names it has it. Verdicts
    /// that cannot be read have no say.
    pub fn known_critical(tree: &Tree, name: &str) -> Option<Critical> {
        let mut kernels: Vec<KernelRelease> = files::names(&directory(tree))
            .unwrap_or_default()
            .iter()
            .filter_map(|name| name.strip_suffix(".json")?.parse().ok())
            .collect();
        kernels.sort_by(|a, b| crate::kernel::compare_versions(b.as_str(), a.as_str()));
        kernels
            .iter()
            .filter_map(|kernel| Self::load(tree, kernel).ok()?)
            .find_map(|verdict| verdict.critical.into_iter().find(|critical| critical.name == name))
    }

    /// Stores the verdict atomically in the place of an earlier one.
    pub fn store(&self, tree: &Tree) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("writing down a verdict")?;
        text.push('\n');
        files::write_atomically(&path(tree, &self.kernel), text.as_bytes(), 0o644)?;
        notices::refresh(tree)
    }

    /// Forgets a kernel.
    pub fn forget(tree: &Tree, kernel: &KernelRelease) -> Result<()> {
        files::remove(&path(tree, kernel))?;
        notices::refresh(tree)
    }
}
