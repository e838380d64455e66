// SPDX-License-Identifier: MIT OR Apache-2.0
//! policy.toml: what the administrator and the distribution want of boots and builds. Only
//! keys that something obeys are accepted, so that a policy is never silently without effect.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::ConfFile;
use super::remotes::Location;

/// What happens when a kernel lacks something it needs to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Hold the kernel where this machine's boot loader has a hold that works, else abort.
    #[default]
    Auto,
    /// Hold it, and never fail.
    Hold,
    /// Fail the package manager's hook.
    Abort,
    /// Say so and go on.
    Warn,
}

/// What a trial build that fails means for a transaction, before anything is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preflight {
    /// Say so, hold the kernel and let the transaction go on.
    Hold,
    /// Stop the transaction if the machine does not boot without the module.
    Abort,
    /// Nothing is tried.
    Off,
}

/// What stands before the compilers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    Ccache,
    Sccache,
    Distcc,
    Icecc,
}

/// Whether a module's own build system is kept from the rest of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// As far as the system lets us.
    #[default]
    Auto,
    /// It is not built otherwise.
    Require,
    Off,
}

/// Who makes initramfs images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generator {
    /// Whoever is found on the system.
    #[default]
    Auto,
    UpdateInitramfs,
    Dracut,
    Mkinitcpio,
    Mkinitfs,
    Booster,
    None,
}

/// All policy files together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// `[boot] critical`: the modules that the machine does not boot without.
    pub critical: BTreeSet<String>,
    /// `[boot] detect`: whether what the machine needs is also found out by looking at it; it is
    /// unless this says no.
    pub detect: Option<bool>,
    /// `[boot] on_failure`
    pub on_failure: OnFailure,
    /// `[boot] preflight`: nothing for what suits the package manager.
    pub preflight: Option<Preflight>,
    /// `[build] jobs`: nothing for as many as there are processors, and memory for.
    pub jobs: Option<NonZeroU32>,
    /// `[build] memory`, in MiB: how much a compiler may need; 0 for as many of them as processors.
    pub memory: Option<u32>,
    /// `[build] launcher`
    pub launcher: Option<Launcher>,
    /// `[build] sandbox`
    pub sandbox: Sandbox,
    /// `[build] timeout`, given in seconds: how long one module may build.
    pub timeout: Option<Duration>,
    /// `[initramfs] generator`
    pub generator: Generator,
    /// `[store] size`, in MiB: how much is kept of what was built; 0 for nothing.
    pub store_size: Option<u32>,
    /// `[store] remotes`: shared stores, in the order in which they are asked.
    pub remotes: Vec<Location>,
    /// `[locks] timeout`, given in seconds: how long to wait for another dkms.
    pub lock_timeout: Option<Duration>,
    /// `[module.NAME] critical`, by name.
    pub module_critical: BTreeMap<String, bool>,
    /// `[module.NAME] initramfs`, by name: whether the module has to be there. Not where that is to
    /// be found out ("auto").
    pub module_initramfs: BTreeMap<String, bool>,
    /// `[module.NAME] sandbox`, by name.
    pub module_sandbox: BTreeMap<String, Sandbox>,
    /// `[module.NAME] store`, by name: whether what is built of the module is kept in the store.
    pub module_store: BTreeMap<String, bool>,
}

/// Where a policy names boot-critical modules, for people.
pub const BOOT_LIST: &str = "the policy's [boot] critical";
pub const MODULE_TABLE: &str = "the policy's [module] table";

impl Policy {
    /// Every module that the policy calls boot-critical, and where it does.
    pub fn all_critical(&self) -> Vec<(&str, &'static str)> {
        let listed = self.critical.iter().filter(|name| !self.module_critical.contains_key(*name));
        let tables = self.module_critical.iter().filter(|(_, critical)| **critical);
        listed
            .map(|name| (name.as_str(), BOOT_LIST))
            .chain(tables.map(|(name, _)| (name.as_str(), MODULE_TABLE)))
            .collect()
    }

    /// Whether what the machine needs to boot is also found out by looking at the machine.
    pub fn detects(&self) -> bool {
        self.detect.unwrap_or(true)
    }

    /// How a module, by the first of its names that the policy knows, is built.
    pub fn sandbox<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Sandbox {
        names.find_map(|name| self.module_sandbox.get(name).copied()).unwrap_or(self.sandbox)
    }

    /// Whether policy calls a module boot-critical: its own table, else the list of `[boot]`;
    /// nothing if policy does not say.
    pub fn critical(&self, module: &str) -> Option<bool> {
        let listed = self.critical.contains(module).then_some(true);
        self.module_critical.get(module).copied().or(listed)
    }
}

/// A policy file that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, naming the key.
    pub what: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}: {}", self.path.display(), self.line, self.what)
    }
}

impl std::error::Error for PolicyError {}

/// One file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    boot: Boot,
    build: Build,
    initramfs: Initramfs,
    store: Store,
    locks: Locks,
    module: BTreeMap<String, Module>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Boot {
    critical: Vec<String>,
    detect: Option<bool>,
    on_failure: Option<OnFailure>,
    preflight: Option<Preflight>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Build {
    jobs: Option<NonZeroU32>,
    memory: Option<u32>,
    launcher: Option<Launcher>,
    sandbox: Option<Sandbox>,
    timeout: Option<NonZeroU32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Initramfs {
    generator: Option<Generator>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Store {
    size: Option<u32>,
    remotes: Option<Vec<Location>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Locks {
    timeout: Option<NonZeroU32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Module {
    critical: Option<bool>,
    initramfs: Option<Need>,
    sandbox: Option<Sandbox>,
    store: Option<bool>,
}

/// `true`, `false` or `"auto"`.
#[derive(Debug, Clone, Copy)]
struct Need(Option<bool>);

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Need;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E>(self, word: bool) -> Result<Need, E> {
                Ok(Need(Some(word)))
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Need, E> {
                let is_auto = (word == "auto").then_some(Need(None));
                is_auto.ok_or_else(|| E::invalid_value(Unexpected::Str(word), &self))
            }
        }
        from.deserialize_any(Words)
    }
}

/// Reads the files in the order of their weight: a later one wins key by key, except that the
/// list of critical modules grows (`[module.NAME] critical = false` takes one off).
pub fn merge(files: &[ConfFile]) -> Result<Policy, PolicyError> {
    let mut policy = Policy::default();
    for conf in files {
        let file: File = toml::from_str(&conf.text).map_err(|error| rejected(conf, &error))?;
        policy.critical.extend(file.boot.critical);
        policy.detect = file.boot.detect.or(policy.detect);
        policy.on_failure = file.boot.on_failure.unwrap_or(policy.on_failure);
        policy.preflight = file.boot.preflight.or(policy.preflight);
        policy.jobs = file.build.jobs.or(policy.jobs);
        policy.memory = file.build.memory.or(policy.memory);
        policy.launcher = file.build.launcher.or(policy.launcher);
        policy.sandbox = file.build.sandbox.unwrap_or(policy.sandbox);
        let seconds = |number: NonZeroU32| Duration::from_secs(number.get().into());
        policy.timeout = file.build.timeout.map(seconds).or(policy.timeout);
        policy.lock_timeout = file.locks.timeout.map(seconds).or(policy.lock_timeout);
        policy.generator = file.initramfs.generator.unwrap_or(policy.generator);
        policy.store_size = file.store.size.or(policy.store_size);
        policy.remotes = file.store.remotes.unwrap_or(policy.remotes);
        for (name, module) in file.module {
            if let Some(critical) = module.critical {
                policy.module_critical.insert(name.clone(), critical);
            }
            if let Some(sandbox) = module.sandbox {
                policy.module_sandbox.insert(name.clone(), sandbox);
            }
            if let Some(store) = module.store {
                policy.module_store.insert(name.clone(), store);
            }
            match module.initramfs {
                Some(Need(Some(need))) => drop(policy.module_initramfs.insert(name, need)),
                Some(Need(None)) => drop(policy.module_initramfs.remove(&name)),
                None => {}
            }
        }
    }
    Ok(policy)
}

fn rejected(conf: &ConfFile, error: &toml::de::Error) -> PolicyError {
    let span = error.span().unwrap_or_default();
    let before = conf.text.get(..span.start).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    // The key in question is on the line; a value's error does not name it.
    let source = conf.text.lines().nth(line - 1).unwrap_or_default();
    let key = source.split_once('=').map(|(key, _)| key.trim());
    let message = error.message().trim().replace("unknown field", "unknown key");
    let what = match key {
        Some(key) if !message.contains(&format!("`{key}`")) => format!("{key}: {message}"),
        _ => message,
    };
    PolicyError { path: conf.path.clone(), line, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn file(path: &str, text: &str) -> ConfFile {
        ConfFile { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn no_files_is_the_default() {
        let policy = merge(&[]).unwrap();
        assert_eq!(policy, Policy::default());
        assert_eq!((policy.on_failure, policy.generator), (OnFailure::Auto, Generator::Auto));
        assert_eq!((policy.critical("zfs"), policy.detects()), (None, true));
    }

    #[test]
    fn every_key_is_read() {
        let text = "[boot]\ncritical = [\"zfs\"]\ndetect = false\non_failure = \"abort\"\npreflight = \"off\"\n\
                    [build]\njobs = 3\nmemory = 700\nlauncher = \"icecc\"\nsandbox = \"require\"\ntimeout = 600\n\
                    [initramfs]\ngenerator = \"update-initramfs\"\n[locks]\ntimeout = 9\n[store]\nsize = 0\nremotes = [\"/srv\"]\n\
                    [module.nvidia]\ncritical = true\nsandbox = \"off\"\nstore = false\n";
        let policy = merge(&[file("/p", text)]).unwrap();
        assert_eq!((policy.on_failure, policy.detects()), (OnFailure::Abort, false));
        assert_eq!(policy.preflight, Some(Preflight::Off));
        assert_eq!(policy.jobs.map(NonZeroU32::get), Some(3));
        assert_eq!(policy.memory, Some(700));
        assert_eq!(policy.timeout, Some(Duration::from_secs(600)));
        assert_eq!(policy.launcher, Some(Launcher::Icecc));
        assert_eq!(policy.sandbox(["zfs"].into_iter()), Sandbox::Require);
        assert_eq!(policy.sandbox(["nvidia-current", "nvidia"].into_iter()), Sandbox::Off);
        assert_eq!(policy.lock_timeout, Some(Duration::from_secs(9)));
        assert_eq!(policy.generator, Generator::UpdateInitramfs);
        assert_eq!(policy.critical("zfs"), Some(true));
        assert_eq!(policy.critical("nvidia"), Some(true));
        assert_eq!((policy.store_size, policy.module_store.get("nvidia")), (Some(0), Some(&false)));
        assert_eq!(policy.remotes, [Location::parse("/srv").unwrap()]);
    }

    #[test]
    fn later_files_win_key_by_key_and_lists_grow() {
        let policy = merge(&[
            file("/a", "[boot]\ncritical = [\"zfs\", \"r8168\"]\non_failure = \"hold\"\n[build]\njobs = 2\n"),
            file("/b", "[boot]\ncritical = [\"wl\"]\n[build]\ntimeout = 5\n"),
            file("/c", "[module.r8168]\ncritical = false\n[build]\njobs = 4\n"),
        ])
        .unwrap();
        assert_eq!(policy.on_failure, OnFailure::Hold);
        assert_eq!(policy.jobs.map(NonZeroU32::get), Some(4));
        assert_eq!(policy.timeout, Some(Duration::from_secs(5)));
        assert_eq!(
            ["zfs", "wl", "r8168", "x"].map(|module| policy.critical(module)),
            [Some(true), Some(true), Some(false), None]
        );
    }

    #[rstest]
    #[case::there("true", Some(true))]
    #[case::not_there("false", Some(false))]
    #[case::to_be_found_out("\"auto\"", None)]
    fn the_last_word_on_the_initramfs_counts(#[case] last: &str, #[case] want: Option<bool>) {
        for first in ["true", "false"] {
            let text = |word| format!("[module.zfs]\ninitramfs = {word}\n");
            let policy = merge(&[file("/a", &text(first)), file("/b", &text(last))]).unwrap();
            assert_eq!(policy.module_initramfs.get("zfs").copied(), want);
            assert_eq!(policy.critical("zfs"), None);
        }
    }

    #[rstest]
    #[case::auto("auto", Generator::Auto)]
    #[case::update_initramfs("update-initramfs", Generator::UpdateInitramfs)]
    #[case::dracut("dracut", Generator::Dracut)]
    #[case::mkinitcpio("mkinitcpio", Generator::Mkinitcpio)]
    #[case::mkinitfs("mkinitfs", Generator::Mkinitfs)]
    #[case::booster("booster", Generator::Booster)]
    #[case::none("none", Generator::None)]
    fn generators_have_names(#[case] name: &str, #[case] want: Generator) {
        let policy = merge(&[file("/p", &format!("[initramfs]\ngenerator = '{name}'\n"))]).unwrap();
        assert_eq!(policy.generator, want);
    }

    #[rstest]
    #[case::unknown_key("[boot]\n\ndetects = true\n", 3, "unknown key `detects`")]
    #[case::unknown_table("[boot]\n[sign]\nkey = 1\n", 2, "sign")]
    #[case::unknown_key_of_a_module("[module.zfs]\ncriticle = true\n", 2, "criticle")]
    #[case::need_of_another_type("[module.zfs]\ninitramfs = 1\n", 2, "true, false or \"auto\"")]
    #[case::need_by_another_word("[module.zfs]\ninitramfs = \"no\"\n", 2, "true, false or \"auto\"")]
    #[case::unknown_word("[boot]\non_failure = \"ignore\"\n", 2, "on_failure")]
    #[case::wrong_type("# x\n[boot]\ncritical = \"zfs\"\n", 3, "critical")]
    #[case::zero("[build]\njobs = 0\n", 2, "jobs")]
    #[case::negative("[build]\ntimeout = -1\n", 2, "timeout")]
    #[case::size_in_words("[store]\nsize = \"1G\"\n", 2, "size")]
    #[case::sandbox_by_another_word("[module.zfs]\nsandbox = \"no\"\n", 2, "sandbox")]
    #[case::no_address("[store]\nremotes = [\"/srv\", \"ftp://host\"]\n", 2, "remotes: 'ftp://host'")]
    #[case::syntax("[boot\ncritical = 1\n", 1, "")]
    #[case::twice("[build]\njobs = 1\njobs = 2\n", 3, "jobs")]
    fn errors_name_file_line_and_key(#[case] text: &str, #[case] line: usize, #[case] key: &str) {
        let good = file("/a", "[build]\njobs = 1\n");
        let error = merge(&[good, file("/etc/dkms/policy.toml", text)]).unwrap_err();
        assert_eq!((error.path.to_str(), error.line), (Some("/etc/dkms/policy.toml"), line), "{error}");
        assert!(error.what.contains(key) && !error.what.is_empty(), "{error}");
        assert!(error.to_string().starts_with("/etc/dkms/policy.toml, line "), "{error}");
    }
}
