// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments to a validated [`Action`]: flags, then options, then the action. Touches no disk.

mod action;
pub mod complete;
mod flags;
mod pack;
#[cfg(test)]
mod tests;
pub mod usage;
mod verb;

use std::ffi::OsString;
use std::path::PathBuf;

pub use flags::command;

use crate::conf::remotes::Location;
use crate::failure::Failure;
use crate::kernel::KernelRelease;
use crate::machine::Given;
use crate::module::{Arch, Target};
use crate::package::driver_disk::{Layout, Media};
use crate::package::sysext::Form;

/// What `hook` understands as its first word.
pub const PROTOCOLS: [&str; 16] = [
    "apt",
    "image",
    "clear",
    "kernel-install",
    "debian",
    "grub",
    "boot",
    "autoinstaller",
    "common-postinst",
    "pacman",
    "rpm",
    "dnf",
    "dnf5",
    "gentoo",
    "void",
    "alpine",
];

/// A module as the command line names it, before anybody has looked at the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleArg {
    /// `-m M -v V`, `-m M/V` or `M/V`; also `M` alone (version known only after a look at the tree).
    Named { name: String, version: Option<String> },
    /// A bare word that may be a module or a file: a directory, a dkms.conf, an archive.
    /// (Any positional word that is not unmistakably `Named`.)
    Word(String),
    /// `--archive`: a file for certain.
    Archive(PathBuf),
}

/// What goes into an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveContent {
    SourceAndBinaries,
    /// `--source-only`
    SourceOnly,
    /// `--binaries-only`
    BinariesOnly,
}

/// The disk that `mkdriverdisk` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskArgs {
    pub layout: Layout,
    pub release: Option<String>,
    pub media: Media,
    /// Of a floppy image, in KiB.
    pub size: u32,
}

/// The extensions that `mksysext` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionArgs {
    pub form: Form,
    /// `-d`: the `ID` of the os-release that they are for; any without it.
    pub system: Option<String>,
    /// `-r`: its `VERSION_ID`.
    pub release: Option<String>,
}

/// A package that a module is packed into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageKind {
    /// `mkrpm`
    Rpm,
    /// `mkdeb`
    Deb,
    /// `mkbmdeb`: of built modules, to be installed without dkms.
    BinaryDeb,
    /// `mkdsc`
    DebianSource,
}

impl PackageKind {
    /// The action that makes it.
    pub fn action(self) -> &'static str {
        match self {
            Self::Rpm => "mkrpm",
            Self::Deb => "mkdeb",
            Self::BinaryDeb => "mkbmdeb",
            Self::DebianSource => "mkdsc",
        }
    }
}

/// `-k` and `-a` as given. A kernel given as `K/A` brings its arch with it.
/// Where neither list is empty they pair up 1:1, or a single arch goes for all kernels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetArgs {
    pub kernels: Vec<KernelRelease>,
    pub arches: Vec<Arch>,
}

impl TargetArgs {
    /// Whether a kernel and architecture are among those given; all are if none is given.
    pub fn includes(&self, target: &Target) -> bool {
        let arch_fits = |at: usize| match self.arches.as_slice() {
            [] => true,
            [one] => *one == target.arch,
            several => several.get(at) == Some(&target.arch),
        };
        match self.kernels.as_slice() {
            [] => arch_fits(0),
            kernels => {
                kernels.iter().enumerate().any(|(at, kernel)| *kernel == target.kernel && arch_fits(at))
            }
        }
    }
}

/// Options that hold for every action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub root: Option<PathBuf>,
    pub dkms_tree: Option<PathBuf>,
    pub source_tree: Option<PathBuf>,
    pub install_tree: Option<PathBuf>,
    pub quiet: bool,
    pub verbose: bool,
    pub force: bool,
    pub force_version_override: bool,
    pub no_depmod: bool,
    pub modprobe_on_install: bool,
    /// `--rpm_safe_upgrade`: a scriptlet of an rpm package calls.
    pub rpm_safe_upgrade: bool,
    /// `-j N`; `Some(0)` stands for a bare `-j` (no limit).
    pub jobs: Option<u32>,
    /// `--directive NAME=VALUE`, in order.
    pub directives: Vec<(String, String)>,
    /// `-c`: a dkms.conf elsewhere.
    pub conf: Option<PathBuf>,
    /// `--config`: the kernel's configuration file.
    pub kernel_config: Option<PathBuf>,
    pub kernel_source_dir: Option<PathBuf>,
    pub json: bool,
    /// kbuild's variables in the environment.
    pub kbuild: Given,
    /// Lines for standard error before anything else is printed: deprecated options, words that
    /// nobody asked for.
    pub notices: Vec<String>,
}

/// What is to be done, fully validated as far as words can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Add {
        module: ModuleArg,
    },
    Build {
        module: ModuleArg,
        targets: TargetArgs,
    },
    Install {
        module: ModuleArg,
        targets: TargetArgs,
    },
    Unbuild {
        module: ModuleArg,
        targets: TargetArgs,
        all: bool,
    },
    Uninstall {
        module: ModuleArg,
        targets: TargetArgs,
        all: bool,
    },
    Remove {
        module: ModuleArg,
        targets: TargetArgs,
        all: bool,
    },
    Mktarball {
        module: ModuleArg,
        targets: TargetArgs,
        all: bool,
        content: ArchiveContent,
        /// `--archive`: where to.
        archive: Option<PathBuf>,
    },
    Ldtarball {
        archive: PathBuf,
    },
    Mkdriverdisk {
        module: ModuleArg,
        targets: TargetArgs,
        all: bool,
        disk: DiskArgs,
    },
    Mksysext {
        module: ModuleArg,
        targets: TargetArgs,
        all: bool,
        extension: ExtensionArgs,
    },
    /// `mkrpm`, `mkdeb`, `mkbmdeb`, `mkdsc`.
    MakePackage {
        kind: PackageKind,
        module: ModuleArg,
        targets: TargetArgs,
        all: bool,
        content: ArchiveContent,
    },
    /// `match`: what is installed for the template kernel is installed for another.
    Match {
        /// Its architecture, where given as `K/A`, is the target's if left out.
        template: (KernelRelease, Option<Arch>),
        module: Option<ModuleArg>,
        targets: TargetArgs,
    },
    Status {
        module: Option<ModuleArg>,
        targets: TargetArgs,
    },
    Autoinstall {
        targets: TargetArgs,
    },
    /// `autoinstall --all-kernels`: every installed kernel that has headers.
    AutoinstallAll,
    /// The kernel is for paths that name it; the running one without it.
    GenerateMok {
        targets: TargetArgs,
    },
    KernelPreinst {
        targets: TargetArgs,
    },
    KernelPostinst {
        targets: TargetArgs,
    },
    KernelPrerm {
        targets: TargetArgs,
    },
    /// `hook PROTOCOL ARGS…`: the rest of the command line untouched.
    Hook {
        protocol: String,
        args: Vec<String>,
    },
    /// `gate`: show verdicts and holds.
    Gate {
        /// `gate release KERNEL`: let this one boot.
        release: Option<KernelRelease>,
    },
    /// `reboot-safe`: which kernel boots next, and is it fit?
    RebootSafe,
    /// `verify`: can a kernel load what is installed for it?
    Verify {
        module: Option<ModuleArg>,
        targets: TargetArgs,
    },
    /// `complete WORDS…`: what may stand in the last of the words; for shells.
    Complete(complete::Question),
    /// `critical`: what a kernel needs to boot this machine, and why.
    Critical {
        targets: TargetArgs,
    },
    /// `log`: the runs on record, or one of them.
    Log {
        run: Option<Run>,
    },
    /// `replay`: a recorded run again, or a protocol that a person calls.
    Replay {
        what: Replayed,
        /// `--dry-run`: tell, do not do.
        dry_run: bool,
    },
    /// `doctor`: what is wrong, and how to mend it.
    Doctor {
        /// `--repair`: mend what can be mended.
        repair: bool,
    },
    /// `push`: what was built goes into a shared store.
    Push {
        module: Option<ModuleArg>,
        targets: TargetArgs,
        /// `--to`: instead of the policy's first.
        to: Option<Location>,
    },
    /// `push --generate-key`: a pair of keys to sign with.
    GenerateStoreKey,
    Version,
    Help,
}

/// A run on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Last,
    Number(u64),
}

/// What is to be done by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    Run(Run),
    /// `--protocol PROTOCOL ARGS…`
    Protocol {
        protocol: String,
        args: Vec<String>,
    },
}

/// A command line that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misuse {
    pub failure: Failure,
    /// Whether [`usage::text`] goes to standard output before the failure is reported.
    pub show_usage: bool,
    /// What was understood until then, for `quiet` and `notices`. Of a command line with an unknown
    /// option or a missing value only `quiet` is filled in.
    pub options: Options,
}

/// Understands a command line. `argv` are the words after the program's name; `env` looks up a
/// variable of the environment (`parallel_jobs`, `ARCH`, `CROSS_COMPILE` and `LLVM` are asked for).
pub fn parse(
    argv: impl Iterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Options, Action), Box<Misuse>> {
    let argv: Vec<OsString> = argv.collect();
    if let Some((first, typed)) = argv.split_first()
        && first == "complete"
    {
        let (options, question) = complete::ask(typed);
        return Ok((options, Action::Complete(question)));
    }
    let (mut flags, hook) = split_hook(&argv).map_err(|failure| {
        let quiet = argv.iter().any(|word| word == "-q" || word == "--quiet");
        misuse(failure, Options { quiet, ..Options::default() })
    })?;
    let quiet = flags.quiet;
    let mut options = action::options(&mut flags, env)
        .map_err(|failure| misuse(failure, Options { quiet, ..Options::default() }))?;
    let action = match hook {
        Some(words) if !flags.help && !flags.version => hook_action(words),
        _ => action::action(flags, &mut options.notices),
    };
    match action {
        Ok(action) => Ok((options, action)),
        Err(failure) => Err(misuse(failure, options)),
    }
}

/// Reads the options, up to the word `hook` if that is the action: what follows it is the
/// protocol's, dashes and all. It is the action if only options come before it.
fn split_hook(argv: &[OsString]) -> Result<(flags::Flags, Option<&[OsString]>), Failure> {
    for (at, _) in argv.iter().enumerate().filter(|(_, word)| *word == "hook") {
        // An option without its value before it means that "hook" is that value.
        match flags::read(&argv[..at]) {
            Ok(flags) if flags.words.is_empty() => return Ok((flags, Some(&argv[at + 1..]))),
            _ => {}
        }
    }
    Ok((flags::read(argv)?, None))
}

fn hook_action(words: &[OsString]) -> Result<Action, Failure> {
    let words = words.iter().map(|word| {
        word.to_str().map(str::to_owned).ok_or_else(|| Failure::InvalidOptionValue {
            option: "hook".to_owned(),
            why: format!("'{}' is not UTF-8", word.to_string_lossy()),
        })
    });
    let mut words = words.collect::<Result<Vec<_>, _>>()?.into_iter();
    let protocol = words.next().ok_or_else(action::no_protocol)?;
    Ok(Action::Hook { protocol, args: words.collect() })
}

fn misuse(failure: Failure, options: Options) -> Box<Misuse> {
    let show_usage = matches!(failure, Failure::UnknownAction { .. } | Failure::UnknownOption { .. });
    Box::new(Misuse { failure, show_usage, options })
}
