// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that stands before the compilers and remembers what they made, or has other machines
//! compile: the policy's `[build] launcher`. It is called by the compilers' own names, which come first
//! in PATH, so that no conf and no makefile has to know of it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use fs_err as fs;
use regex::Regex;

use super::Build;
use crate::conf::policy;
use crate::sys::files;
use crate::sys::tools::{PATH, Run, Tool};

/// Where what launchers remember is kept, for each module apart: no module's build can leave
/// something there for another's.
const CACHE: &str = "/var/cache/dkms";

/// How C compilers are called (GCC's manual, "Invoking GCC"; clang's): with the machine they compile
/// for before, their version behind.
static COMPILER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^([a-z0-9_]+-([a-z0-9_]+-)+)?(cc|gcc|clang)(-[0-9.]+)?$").ok());

/// A launcher that is installed, ready for one build.
#[derive(Debug)]
pub(super) struct Launcher {
    kind: policy::Launcher,
    /// Holds programs that have the compilers' names.
    names: PathBuf,
    cache: PathBuf,
}

impl Launcher {
    /// The one that the policy wants. Without it the compilers are called directly, with a warning.
    pub(super) fn of(build: &Build<'_>) -> Option<Self> {
        let kind = build.launcher?;
        let made = Self::make(build, kind).with_context(|| format!("getting {} ready", tool(kind).name()));
        made.inspect_err(|error| build.report.warning(format_args!("{error:#}; compiling without it"))).ok()
    }

    fn make(build: &Build<'_>, kind: policy::Launcher) -> Result<Self> {
        let program = Run::new(tool(kind))?.path();
        let names = build.tree.hooks_dir().join("launchers").join(tool(kind).name());
        fs::create_dir_all(&names)?;
        for (name, compiler) in compilers() {
            let words = [&program, &compiler].map(|path| path.display().to_string());
            let script = format!("#!/bin/sh\nexec {} \"$@\"\n", shell_words::join(&words));
            let place = names.join(name);
            // Somebody else's build may be running the one that is there.
            if files::read_if_there(&place)?.as_deref() != Some(&script) {
                files::write_atomically(&place, script.as_bytes(), 0o755)?;
            }
        }
        let cache = build.tree.path(CACHE).join(build.id.name());
        fs::create_dir_all(&cache)?;
        Ok(Self { kind, names, cache })
    }

    /// What has to be the build's own to write to.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Whether it talks to other machines, or to a server on this one.
    pub(super) fn needs_network(&self) -> bool {
        self.kind != policy::Launcher::Ccache
    }

    /// Puts it before the compilers of a program that is about to be run.
    pub(super) fn before(&self, run: Run) -> Run {
        let run = run.env("PATH", format!("{}:{PATH}", self.names.display()));
        match self.kind {
            policy::Launcher::Ccache => run.env("CCACHE_DIR", &self.cache),
            policy::Launcher::Sccache => run.env("SCCACHE_DIR", &self.cache),
            policy::Launcher::Distcc => run.env("DISTCC_DIR", &self.cache),
            policy::Launcher::Icecc => run,
        }
    }
}

fn tool(kind: policy::Launcher) -> Tool {
    match kind {
        policy::Launcher::Ccache => Tool::Ccache,
        policy::Launcher::Sccache => Tool::Sccache,
        policy::Launcher::Distcc => Tool::Distcc,
        policy::Launcher::Icecc => Tool::Icecc,
    }
}

/// Every C compiler, by its name; the first of that name in PATH.
fn compilers() -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for directory in PATH.split(':').map(Path::new) {
        for name in files::names(directory).unwrap_or_default() {
            let is_new = !found.iter().any(|(known, _)| *known == name);
            if is_new && is_compiler(&name) && files::is_executable(&directory.join(&name)) {
                found.push((name.clone(), directory.join(name)));
            }
        }
    }
    found
}

fn is_compiler(name: &str) -> bool {
    COMPILER.as_ref().is_some_and(|regex| regex.is_match(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("gcc", true)]
    #[case::posix("cc", true)]
    #[case::version("gcc-12", true)]
    #[case::clang("clang-16", true)]
    #[case::machine("x86_64-linux-gnu-gcc-12", true)]
    #[case::another_machine("aarch64-linux-gnu-gcc", true)]
    #[case::archiver("gcc-ar", false)]
    #[case::archiver_of_machine("x86_64-linux-gnu-gcc-ar-12", false)]
    #[case::other_language("clang++", false)]
    #[case::cache("ccache", false)]
    #[case::c89("c89-gcc", false)]
    fn compilers_have_names(#[case] name: &str, #[case] want: bool) {
        assert_eq!(is_compiler(name), want);
    }
}
