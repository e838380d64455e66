// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was tried for a module and a kernel and came to nothing, until it succeeds or the module
//! goes: `.hooks/attempts/M/V/K/A/attempt.json`, beside it the log of the build. The log in
//! `M/V/build` is that of whatever kernel the module was built for last.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::Tree;
use crate::kernel::KernelRelease;
use crate::module::{Arch, ModuleId, Target};
use crate::sys::files;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Failed,
    /// BUILD_EXCLUSIVE_* ruled the kernel out.
    Excluded,
    /// Put off: it depends on what is not registered yet.
    Deferred,
}

/// The last attempt at bringing a module to a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub outcome: Outcome,
    /// As it was printed, in several lines.
    pub message: String,
    /// The exit code of that failure.
    pub code: u8,
    /// The line of the log that tells why.
    pub first_error: Option<String>,
    /// When it ended, RFC 3339 in UTC.
    pub time: String,
}

impl Tree {
    fn attempts_dir(&self) -> PathBuf {
        self.hooks_dir().join("attempts")
    }

    fn attempts_of(&self, id: &ModuleId) -> PathBuf {
        self.attempts_dir().join(id.name()).join(id.version())
    }

    fn attempt_dir(&self, id: &ModuleId, target: &Target) -> PathBuf {
        self.attempts_of(id).join(&target.kernel).join(&target.arch)
    }

    /// The last attempt, if it came to nothing. One that cannot be read counts for none: it only
    /// explains.
    pub fn attempt(&self, id: &ModuleId, target: &Target) -> Option<Attempt> {
        let text = files::read_if_there(&self.attempt_dir(id, target).join("attempt.json")).ok()??;
        serde_json::from_str(&text).ok()
    }

    /// The log of the build that failed, if that is how the last attempt ended.
    pub fn attempt_log(&self, id: &ModuleId, target: &Target) -> Option<PathBuf> {
        Some(self.attempt_dir(id, target).join("make.log")).filter(|log| log.is_file())
    }

    /// The targets whose last attempts came to nothing, sorted.
    pub fn attempted(&self, id: &ModuleId) -> Vec<Target> {
        let directory = self.attempts_of(id);
        let mut targets = Vec::new();
        for kernel in files::names(&directory).unwrap_or_default() {
            let Ok(release) = kernel.parse::<KernelRelease>() else { continue };
            for arch in files::names(&directory.join(&kernel)).unwrap_or_default() {
                targets.extend(Arch::new(&arch).ok().map(|arch| Target { kernel: release.clone(), arch }));
            }
        }
        targets
    }

    /// Keeps the log of a failed build. The module's lock must be held.
    pub fn keep_attempt_log(&self, id: &ModuleId, target: &Target, log: &Path) -> Result<()> {
        files::write_atomically(&self.attempt_dir(id, target).join("make.log"), &fs::read(log)?, 0o644)
    }

    /// Keeps an attempt in the place of the one before; `has_log` if its log has been kept.
    pub fn keep_attempt(
        &self,
        id: &ModuleId,
        target: &Target,
        attempt: &Attempt,
        has_log: bool,
    ) -> Result<()> {
        let directory = self.attempt_dir(id, target);
        let mut text = serde_json::to_string_pretty(attempt).context("writing down an attempt")?;
        text.push('\n');
        if !has_log {
            files::remove(&directory.join("make.log"))?;
        }
        files::write_atomically(&directory.join("attempt.json"), text.as_bytes(), 0o644)
    }

    /// Forgets what was tried for one target: it has succeeded, or nobody wants it any more.
    pub fn forget_attempt(&self, id: &ModuleId, target: &Target) -> Result<()> {
        self.forget(&self.attempt_dir(id, target))
    }

    /// Forgets a module: it goes, or it has just come.
    pub fn forget_attempts(&self, id: &ModuleId) -> Result<()> {
        self.forget(&self.attempts_of(id))
    }

    /// Forgets a kernel.
    pub fn forget_attempts_for(&self, kernel: &KernelRelease) -> Result<()> {
        let directory = self.attempts_dir();
        for name in files::names(&directory)? {
            for version in files::names(&directory.join(&name))? {
                self.forget(&directory.join(&name).join(version).join(kernel))?;
            }
        }
        Ok(())
    }

    fn forget(&self, directory: &Path) -> Result<()> {
        files::remove(directory)?;
        files::remove_empty_up_to(files::parent(directory)?, &self.hooks_dir());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Attempt {
        let message = "Bad return status\nConsult the log".to_owned();
        let first_error = Some("foo.c:1:1: error: x".to_owned());
        let time = "2026-01-02T03:04:05Z".to_owned();
        Attempt { outcome: Outcome::Failed, message, code: 10, first_error, time }
    }

    fn target(kernel: &str) -> Target {
        Target { kernel: kernel.parse().unwrap(), arch: Arch::new("x86_64").unwrap() }
    }

    #[test]
    fn an_attempt_is_kept_with_its_log_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let (id, one, two) = (ModuleId::new("foo", "1.0").unwrap(), target("6.1-a"), target("6.1-b"));
        let log = dir.path().join("make.log");
        fs::write(&log, "it failed").unwrap();
        for target in [&one, &two] {
            tree.keep_attempt_log(&id, target, &log).unwrap();
            tree.keep_attempt(&id, target, &attempt(), true).unwrap();
        }
        assert_eq!(tree.attempted(&id), [one.clone(), two.clone()]);
        assert_eq!(tree.attempt(&id, &one), Some(attempt()));
        assert_eq!(fs::read_to_string(tree.attempt_log(&id, &one).unwrap()).unwrap(), "it failed");

        // A later one without a build has no log.
        tree.keep_attempt(&id, &one, &Attempt { code: 21, ..attempt() }, false).unwrap();
        assert_eq!(tree.attempt_log(&id, &one), None);

        tree.forget_attempt(&id, &one).unwrap();
        assert_eq!((tree.attempt(&id, &one), tree.attempted(&id)), (None, vec![two.clone()]));
        tree.forget_attempts_for(&two.kernel).unwrap();
        assert!(!tree.hooks_dir().join("attempts").exists(), "empty directories stay");
    }

    #[test]
    fn a_damaged_note_explains_nothing_and_hurts_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let (id, target) = (ModuleId::new("foo", "1.0").unwrap(), target("6.1"));
        tree.keep_attempt(&id, &target, &attempt(), false).unwrap();
        fs::write(tree.attempt_dir(&id, &target).join("attempt.json"), "{").unwrap();
        assert_eq!(tree.attempt(&id, &target), None);
        tree.forget_attempts(&id).unwrap();
        assert_eq!(tree.attempted(&id), []);
    }
}
