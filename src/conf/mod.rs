// SPDX-License-Identifier: MIT OR Apache-2.0
//! dkms.conf, framework.conf and policy.toml: pure parsers and typed results.
//! Nothing here reads a file or starts a program; the caller does both.
//! Shell files go through `plain` first and through `shell` (a real bash) when that says so.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub mod compressors;
pub mod directives;
pub mod ere;
pub mod exclusive;
pub mod framework;
pub mod make;
pub mod plain;
pub mod policy;
pub mod record;
pub mod remotes;
pub mod shell;

/// A configuration file that somebody has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfFile {
    /// Where it was read from; bash sources it from there.
    pub path: PathBuf,
    pub text: String,
}

/// Shell variables as arrays with possibly sparse indexes; a scalar is element 0.
///
/// A variable without elements is not there at all: neither dkms nor an expansion can tell
/// an empty array from an unset name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, BTreeMap<usize, String>>);

impl Variables {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the scalar, which is element 0; other elements stay, as in bash.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.set_element(name, 0, value);
    }

    /// Sets one element.
    pub fn set_element(&mut self, name: &str, index: usize, value: impl Into<String>) {
        self.0.entry(name.to_owned()).or_default().insert(index, value.into());
    }

    /// Appends text to one element (`NAME+=text`, `NAME[i]+=text`).
    pub fn append_to_element(&mut self, name: &str, index: usize, text: &str) {
        self.0.entry(name.to_owned()).or_default().entry(index).or_default().push_str(text);
    }

    /// Removes the variable with all its elements.
    pub fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Element 0, which is what `$NAME` means.
    pub fn scalar(&self, name: &str) -> Option<&str> {
        self.element(name, 0)
    }

    /// One element.
    pub fn element(&self, name: &str, index: usize) -> Option<&str> {
        self.0.get(name)?.get(&index).map(String::as_str)
    }

    /// The elements that are set, in the order of their indexes.
    pub fn elements(&self, name: &str) -> impl Iterator<Item = (usize, &str)> {
        self.0.get(name).into_iter().flatten().map(|(index, value)| (*index, value.as_str()))
    }

    /// The highest index in use.
    pub fn max_index(&self, name: &str) -> Option<usize> {
        self.0.get(name)?.keys().next_back().copied()
    }

    /// The names that have an element, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Whether bash gives this variable a value or a meaning of its own (bash(1), "Shell
/// Variables"), so that only bash can tell what reading or assigning it does.
pub(crate) fn belongs_to_bash(name: &str) -> bool {
    const PREFIXES: [&str; 7] = ["BASH", "COMP_", "HIST", "LC_", "READLINE_", "PROMPT_", "_dkms_"];
    const NAMES: [&str; 63] = [
        "CDPATH",
        "CHILD_MAX",
        "COLUMNS",
        "COMPREPLY",
        "COPROC",
        "DIRSTACK",
        "EMACS",
        "ENV",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "EUID",
        "EXECIGNORE",
        "FCEDIT",
        "FIGNORE",
        "FUNCNAME",
        "FUNCNEST",
        "GLOBIGNORE",
        "GLOBSORT",
        "GROUPS",
        "HOME",
        "HOSTFILE",
        "HOSTNAME",
        "HOSTTYPE",
        "IFS",
        "IGNOREEOF",
        "INPUTRC",
        "INSIDE_EMACS",
        "LANG",
        "LANGUAGE",
        "LINENO",
        "LINES",
        "MACHTYPE",
        "MAIL",
        "MAILCHECK",
        "MAILPATH",
        "MAPFILE",
        "OLDPWD",
        "OPTARG",
        "OPTERR",
        "OPTIND",
        "OSTYPE",
        "PATH",
        "PIPESTATUS",
        "POSIXLY_CORRECT",
        "PPID",
        "PS0",
        "PS1",
        "PS2",
        "PS3",
        "PS4",
        "PWD",
        "RANDOM",
        "REPLY",
        "SECONDS",
        "SHELL",
        "SHELLOPTS",
        "SHLVL",
        "SRANDOM",
        "TERM",
        "TIMEFORMAT",
        "TMOUT",
        "TMPDIR",
        "UID",
    ];
    name == "_"
        || name == "histchars"
        || name == "auto_resume"
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NAMES.contains(&name)
}
