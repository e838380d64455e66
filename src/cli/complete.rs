// SPDX-License-Identifier: MIT OR Apache-2.0
//! A command line that is still being typed: what may stand in its last word. Knows the words of
//! the language; modules and kernels are looked up by `commands::complete`.

use std::ffi::OsString;

use clap::{Arg, ValueHint};

use super::Options;
use super::flags::{self, DEPRECATED, Flags, LEGACY_POSTINST};
use super::verb::Verb;
use crate::conf::directives;
use crate::package::driver_disk::Layout;

/// What a shell asks for, as far as words can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub wanted: Wanted,
    /// The files that may stand there instead, where no candidate begins like the word.
    pub files: Files,
    /// What of the word is not the candidates': `--kernelver=`.
    pub prefix: String,
    /// The rest of the word, up to the cursor.
    pub typed: String,
    /// The module that the line names, and its version.
    pub module: Option<(String, Option<String>)>,
    /// The kernels that the line names.
    pub kernels: Vec<String>,
}

/// A word and what it means; the meaning may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub word: String,
    pub meaning: String,
}

/// The kind of word that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Words(Vec<Candidate>),
    /// `module/version`.
    Modules(Modules),
    /// Names of modules, or `module/version` once the slash is there.
    Names(Modules),
    /// Versions of the module.
    Versions(Modules),
    /// Kernel releases, or `kernel/arch` once the slash is there.
    Kernels(Kernels),
    /// Numbers of recorded runs, or the last one.
    Runs,
    /// Architectures, those of the kernels if the line names any.
    Arches(Kernels),
}

/// Which modules an action works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    /// Those whose source waits in the source tree.
    Unregistered,
    /// Those and what is registered.
    Known,
    Registered,
    /// Those built for the kernels of the line, for any kernel if it names none.
    Built,
    /// Likewise.
    Installed,
}

/// Which kernels an action works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// All in the install tree.
    Present,
    /// Those with a build directory.
    WithHeaders,
    /// Those that the module is built for, or any module if the line names none.
    Built,
    /// Likewise, with weak-updates.
    Listed,
    /// Likewise, those that it is installed in.
    Installed,
    /// Those that may not boot.
    Held,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    None,
    Any,
    Directories,
    Archives,
}

impl Files {
    /// As the shells' scripts know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Any => "files",
            Self::Directories => "directories",
            Self::Archives => "archives",
        }
    }
}

/// Reads the words after the program's name; the last one, perhaps empty, is being typed.
pub(super) fn ask(words: &[OsString]) -> (Options, Question) {
    let (typed, mut before) = match words.split_last() {
        Some((typed, before)) => (typed.to_string_lossy().into_owned(), before),
        None => (String::new(), words),
    };
    let mut option = None;
    let mut prefix = String::new();
    if let Some((last, rest)) = before.split_last()
        && let Some(arg) = flags::with_value(&last.to_string_lossy())
    {
        (option, before) = (Some(arg), rest);
    } else if let Some((long, _)) = typed.split_once('=')
        && let Some(arg) = flags::with_value(long)
    {
        (option, prefix) = (Some(arg), format!("{long}="));
    }
    let flags = flags::read_unfinished(before);
    let line = Line::read(&flags);
    let (wanted, files) = match option {
        Some(option) => line.value(&option),
        None if typed.starts_with('-') => (line.options(), Files::None),
        None => line.word(),
    };
    let question = Question {
        wanted,
        files,
        typed: typed.strip_prefix(&prefix).unwrap_or_default().to_owned(),
        prefix,
        module: line.module(),
        kernels: flags.kernels.iter().map(|kernel| release(kernel).to_owned()).collect(),
    };
    let options = Options {
        root: flags.root,
        dkms_tree: flags.dkms_tree,
        source_tree: flags.source_tree,
        install_tree: flags.install_tree,
        ..Options::default()
    };
    (options, question)
}

/// The K of `K/A`.
fn release(kernel: &str) -> &str {
    kernel.split_once('/').map_or(kernel, |(release, _)| release)
}

/// What stands before the word that is being typed.
struct Line<'a> {
    flags: &'a Flags,
    verb: Option<Verb>,
    others: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn read(flags: &'a Flags) -> Self {
        let mut verb = None;
        let mut others = Vec::new();
        for word in &flags.words {
            match Verb::from_word(word) {
                Some(found) if verb.is_none() => verb = Some(found),
                _ => others.push(word.as_str()),
            }
        }
        Self { flags, verb, others }
    }

    fn module(&self) -> Option<(String, Option<String>)> {
        let word = self.flags.module.as_deref().or_else(|| self.others.first().copied())?;
        let (name, version) = match word.split_once('/') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (word, None),
        };
        Some((name.to_owned(), version.or_else(|| self.flags.module_version.clone())))
    }

    /// A word that is no option.
    fn word(&self) -> (Wanted, Files) {
        let nothing = (Wanted::Words(Vec::new()), Files::None);
        let Some(verb) = self.verb else {
            let actions = super::usage::actions().map(|(name, meaning)| candidate(name, meaning));
            return (Wanted::Words(actions.collect()), Files::None);
        };
        if verb == Verb::Gate && self.others == ["release"] && self.flags.kernels.is_empty() {
            return (Wanted::Kernels(Kernels::Held), Files::None);
        }
        if verb == Verb::Log || (verb == Verb::Replay && self.flags.protocol.is_none()) {
            return if self.others.is_empty() { (Wanted::Runs, Files::None) } else { nothing };
        }
        if self.flags.module.is_some() || self.flags.archive.is_some() || !self.others.is_empty() {
            return nothing;
        }
        match (self.modules(), verb) {
            (_, Verb::Gate) => {
                (Wanted::Words(vec![candidate("release", "let a held kernel boot")]), Files::None)
            }
            (_, Verb::Ldtarball) => (Wanted::Words(Vec::new()), Files::Archives),
            (Some(modules), Verb::Add | Verb::Build | Verb::Install) => {
                (Wanted::Modules(modules), Files::Any)
            }
            (Some(modules), _) => (Wanted::Modules(modules), Files::None),
            (None, _) => nothing,
        }
    }

    /// The value of an option.
    fn value(&self, option: &Arg) -> (Wanted, Files) {
        let modules = self.modules().unwrap_or(Modules::Registered);
        let wanted = match option.get_id().as_str() {
            "module" => Wanted::Names(modules),
            "module-version" => Wanted::Versions(modules),
            "kernel" => Wanted::Kernels(self.kernels()),
            "arch" => Wanted::Arches(self.kernels()),
            "templatekernel" => Wanted::Kernels(Kernels::Installed),
            "protocol" => {
                let names = super::PROTOCOLS.iter().map(|name| candidate(name, ""));
                Wanted::Words(names.collect())
            }
            "distro" if self.verb != Some(Verb::Mksysext) => {
                let words = Layout::WORDS.map(|(word, _)| candidate(word, ""));
                Wanted::Words(words.into())
            }
            "media" => {
                let words: &[&str] = match self.verb {
                    Some(Verb::Mksysext) => &["squashfs", "erofs"],
                    _ => &["floppy", "iso", "tar"],
                };
                Wanted::Words(words.iter().map(|word| candidate(word, "")).collect())
            }
            "directive" => {
                let names = directives::NAMES.iter().map(|name| candidate(&format!("{name}="), ""));
                Wanted::Words(names.collect())
            }
            _ => Wanted::Words(Vec::new()),
        };
        let files = match option.get_value_hint() {
            // What is added may also come as an rpm package.
            _ if option.get_id() == "archive" && self.adds() => Files::Any,
            _ if option.get_id() == "archive" => Files::Archives,
            _ if option.get_id() == "to" => Files::Directories,
            ValueHint::DirPath => Files::Directories,
            ValueHint::FilePath => Files::Any,
            _ => Files::None,
        };
        (wanted, files)
    }

    /// The options, but for those that mean nothing to the action.
    fn options(&self) -> Wanted {
        let mut found = Vec::new();
        for arg in flags::command().get_arguments().filter(|arg| !arg.is_positional()) {
            let id = arg.get_id().as_str();
            if DEPRECATED.contains(&id)
                || id == LEGACY_POSTINST
                || self.verb.is_some_and(|verb| !takes(verb, id))
            {
                continue;
            }
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let long = arg.get_long().map(|long| format!("--{long}"));
            let short = arg.get_short().map(|short| format!("-{short}"));
            found.extend(long.iter().chain(&short).map(|spelling| candidate(spelling, &help)));
        }
        Wanted::Words(found)
    }

    /// Whether the action begins by adding what is not registered.
    fn adds(&self) -> bool {
        matches!(self.verb, Some(Verb::Add | Verb::Build | Verb::Install))
    }

    /// The modules that the action takes, if it takes one.
    fn modules(&self) -> Option<Modules> {
        Some(match self.verb? {
            Verb::Add => Modules::Unregistered,
            Verb::Build | Verb::Install => Modules::Known,
            Verb::Unbuild => Modules::Built,
            Verb::Uninstall | Verb::Match => Modules::Installed,
            // What is merely registered can be removed as well, but not for a kernel.
            Verb::Remove if !self.flags.kernels.is_empty() => Modules::Built,
            Verb::Mkdriverdisk | Verb::Mksysext | Verb::Push => Modules::Built,
            verb if verb == Verb::Mktarball || verb.packs() => match self.flags.source_only {
                true => Modules::Registered,
                false => Modules::Built,
            },
            Verb::Remove | Verb::Status | Verb::Verify => Modules::Registered,
            _ => return None,
        })
    }

    fn kernels(&self) -> Kernels {
        match self.verb {
            Some(Verb::Build | Verb::Install | Verb::Match | Verb::Autoinstall | Verb::KernelPostinst)
                if self.flags.kernel_source_dir.is_none() =>
            {
                Kernels::WithHeaders
            }
            Some(Verb::Unbuild | Verb::Remove | Verb::Mktarball | Verb::KernelPrerm) => Kernels::Built,
            Some(Verb::Mkdriverdisk | Verb::Mksysext | Verb::Push) => Kernels::Built,
            Some(verb) if verb.packs() => Kernels::Built,
            Some(Verb::Uninstall) => Kernels::Installed,
            Some(Verb::Status) => Kernels::Listed,
            Some(Verb::Gate) => Kernels::Held,
            _ => Kernels::Present,
        }
    }
}

fn takes(verb: Verb, option: &str) -> bool {
    match option {
        "all" => verb.takes_all(),
        "module" | "module-version" => verb.takes_module(),
        "templatekernel" => verb == Verb::Match,
        "source-only" | "binaries-only" if verb == Verb::Mkbmdeb => false,
        "source-only" | "binaries-only" => verb == Verb::Mktarball || verb.packs(),
        "archive" => {
            matches!(verb, Verb::Add | Verb::Build | Verb::Install | Verb::Mktarball | Verb::Ldtarball)
        }
        "distro" | "release" | "media" => matches!(verb, Verb::Mkdriverdisk | Verb::Mksysext),
        "size" => verb == Verb::Mkdriverdisk,
        "directory" => verb == Verb::Mksysext,
        "all-kernels" => verb == Verb::Autoinstall,
        "protocol" | "dry-run" => verb == Verb::Replay,
        "repair" => verb == Verb::Doctor,
        "to" | "generate-key" => verb == Verb::Push,
        "kernel" | "arch" if matches!(verb, Verb::Log | Verb::Replay | Verb::Doctor) => false,
        "rpm_safe_upgrade" => matches!(verb, Verb::Add | Verb::Build | Verb::Install | Verb::Remove),
        "json" => {
            let tell = [Verb::Status, Verb::Gate, Verb::Critical, Verb::RebootSafe, Verb::Verify, Verb::Log];
            matches!(verb, Verb::Replay | Verb::Doctor) || tell.contains(&verb)
        }
        _ => verb != Verb::Hook,
    }
}

fn candidate(word: &str, meaning: &str) -> Candidate {
    Candidate { word: word.to_owned(), meaning: meaning.to_owned() }
}

#[cfg(test)]
#[path = "complete_tests.rs"]
mod tests;
