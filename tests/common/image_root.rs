// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots that make initramfs images. How they are made and entered is `tests/lib/image-root.sh`'s
//! business alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use tempfile::TempDir;

use super::{Ran, text};

/// A root of one suite, and what was written in it since.
#[derive(Debug)]
pub struct ImageRoot {
    base: PathBuf,
    dir: TempDir,
}

fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lib/image-root.sh"))
}

impl ImageRoot {
    pub fn new(suite: &str) -> Self {
        static BASES: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
        let mut bases = BASES.lock().unwrap_or_else(PoisonError::into_inner);
        let base = bases.get_or_insert_default().entry(suite.to_owned()).or_insert_with(|| {
            let output = script().args(["make", suite]).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            PathBuf::from(text(&output.stdout).trim())
        });
        let roots = super::roots();
        let dir = tempfile::Builder::new().prefix("images-").tempdir_in(roots).unwrap();
        Self { base: base.clone(), dir }
    }

    /// Runs a shell script (`bash -eu`) inside, as root.
    pub fn sh(&self, commands: &str) -> Ran {
        let mut command = script();
        command.arg("run").arg(&self.base).arg(self.dir.path());
        let output = command.args(["--", "bash", "-euo", "pipefail", "-c", commands]).output().unwrap();
        Ran::new(commands.to_owned(), self.dir.path(), output)
    }

    /// Where a file that was written inside is seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("written").join(inside)
    }

    /// The release of its kernel.
    pub fn release(&self) -> String {
        let modules = fs::read_dir(self.base.join("usr/lib/modules")).unwrap().next().unwrap().unwrap();
        modules.file_name().into_string().unwrap()
    }
}
