// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the modules that are kept were made of: `.hooks/made/M/V/K/A.json`, written by the build, for
//! whoever wants to know whether they would be made otherwise today. It only explains: nothing
//! depends on its being there.

use std::path::PathBuf;

use anyhow::{Context, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::Tree;
use crate::module::{ModuleId, Target};
use crate::sys::files;

/// Digests of what a build depends on, as far as people know these things by a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeOf {
    pub headers: String,
    /// The compilers, and what belongs to them.
    pub toolchain: String,
    pub sources: String,
    /// What the administrator lays over the sources.
    pub overlaid: String,
    /// The shared store that it came from, if it was not built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// A note as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// The digest of the log of the build, which tells it from one that another dkms has made since.
    log: String,
    #[serde(flatten)]
    of: MadeOf,
}

impl MadeOf {
    /// What is not what it was in another build.
    pub fn changed_since(&self, before: &Self) -> Vec<&'static str> {
        // Another machine has compilers of its own.
        let toolchain = if before.from.is_some() { &self.toolchain } else { &before.toolchain };
        let parts = [
            ("its source", &self.sources, &before.sources),
            ("the administrator's patches and scripts for it", &self.overlaid, &before.overlaid),
            ("the kernel's headers", &self.headers, &before.headers),
            ("the compiler, or what belongs to it", &self.toolchain, toolchain),
        ];
        parts.into_iter().filter(|(_, now, then)| now != then).map(|(name, ..)| name).collect()
    }
}

impl Tree {
    fn made_of_path(&self, id: &ModuleId, target: &Target) -> PathBuf {
        let directory = self.hooks_dir().join("made").join(id.name()).join(id.version());
        directory.join(&target.kernel).join(format!("{}.json", target.arch))
    }

    fn log_digest(&self, id: &ModuleId, target: &Target) -> Option<String> {
        let log = fs::read(self.target_dir(id, target).join("log/make.log")).ok()?;
        Some(blake3::hash(&log).to_hex().to_string())
    }

    /// Notes what the kept modules were made of. The module's lock must be held.
    pub fn note_made_of(&self, id: &ModuleId, target: &Target, of: &MadeOf) -> Result<()> {
        let Some(log) = self.log_digest(id, target) else { return Ok(()) };
        let text = serde_json::to_string(&Stored { log, of: of.clone() }).context("writing down a build")?;
        files::write_atomically(&self.made_of_path(id, target), text.as_bytes(), 0o644)
    }

    /// What the kept modules were made of; nothing if nobody knows.
    pub fn made_of(&self, id: &ModuleId, target: &Target) -> Option<MadeOf> {
        let text = files::read_if_there(&self.made_of_path(id, target)).ok()??;
        let Stored { log, of } = serde_json::from_str(&text).ok()?;
        (self.log_digest(id, target)? == log).then_some(of)
    }

    /// Forgets it, as the modules go.
    pub fn forget_made_of(&self, id: &ModuleId, target: &Target) -> Result<()> {
        let path = self.made_of_path(id, target);
        files::remove(&path)?;
        files::remove_empty_up_to(files::parent(&path)?, &self.hooks_dir());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_for_the_build_that_it_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let id = ModuleId::new("foo", "1.0").unwrap();
        let target = Target { kernel: "6.1".parse().unwrap(), arch: tree.arch.clone() };
        let log = tree.target_dir(&id, &target).join("log/make.log");
        files::write_atomically(&log, b"one", 0o644).unwrap();
        let text = String::from;
        let of = MadeOf {
            headers: text("h"),
            toolchain: text("t"),
            sources: text("s"),
            overlaid: text("o"),
            from: None,
        };
        tree.note_made_of(&id, &target, &of).unwrap();
        assert_eq!(tree.made_of(&id, &target), Some(of.clone()));
        let now = MadeOf { headers: text("h2"), sources: text("s2"), ..of.clone() };
        assert_eq!(now.changed_since(&of), ["its source", "the kernel's headers"]);
        let other = MadeOf { toolchain: text("t2"), ..of.clone() };
        assert_eq!(other.changed_since(&of), ["the compiler, or what belongs to it"]);
        assert_eq!(other.changed_since(&MadeOf { from: Some(text("/srv")), ..of.clone() }), [""; 0]);

        fs::write(&log, "another dkms's").unwrap();
        assert_eq!(tree.made_of(&id, &target), None);
        fs::write(&log, "one").unwrap();
        tree.forget_made_of(&id, &target).unwrap();
        assert_eq!(tree.made_of(&id, &target), None);
        assert!(!tree.hooks_dir().join("made").exists());
    }
}
