// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments to a validated [`Action`]: flags, then options, then the action. Touches no disk.

use std::path::PathBuf;

use crate::kernel::KernelRelease;
use crate::module::Arch;

/// A module as the command line names it, before anybody has looked at the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleArg {
    /// `-m M -v V`, `-m M/V` or `M/V`; also `M` alone (version known only after a look at the tree).
    Named { name: String, version: Option<String> },
    /// A bare word that may be a module or a file: a directory, a dkms.conf, an archive.
    /// (Any positional word that is not unmistakably `Named`.)
    Word(String),
}

/// `-k` and `-a` as given. A kernel given as `K/A` brings its arch with it.
/// Where neither list is empty they pair up 1:1, or a single arch goes for all kernels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetArgs {
    pub kernels: Vec<KernelRelease>,
    pub arches: Vec<Arch>,
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
    Status {
        module: Option<ModuleArg>,
        targets: TargetArgs,
    },
    Autoinstall {
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
    Gate,
    Version,
    Help,
}
