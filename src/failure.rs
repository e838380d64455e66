// SPDX-License-Identifier: MIT OR Apache-2.0
//! The failures that scripts recognise: dkms's own wording and exit codes, in one enum whose
//! variants name the case. Everything else is an `anyhow::Error` and ends with code 1.

use std::collections::BTreeSet;
use std::fmt;

use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator};

use crate::module::{ModuleId, Target};

/// A failure of the dkms-compatible surface. `Display` gives the first line and the further
/// lines, without the leading "Error! ".
#[derive(Debug, Clone, PartialEq, Eq, EnumDiscriminants)]
#[strum_discriminants(name(Case), vis(), derive(EnumIter), doc = "A failure without its particulars.")]
pub enum Failure {
    /// The command line names no known action.
    UnknownAction {
        word: String,
    },
    UnknownOption {
        word: String,
    },
    /// `hint` explains the option in one line.
    MissingOptionValue {
        option: String,
        hint: String,
    },
    InvalidOptionValue {
        option: String,
        why: String,
    },
    /// A kernel or an architecture that is the empty word.
    EmptyValue {
        option: String,
    },
    SeveralActions,
    /// An action that works on one module was given none, or no version.
    NoModule {
        action: &'static str,
    },
    /// A name without a version could mean any of these.
    SeveralVersions {
        verb: &'static str,
        ids: Vec<ModuleId>,
    },
    AllUnsupported {
        action: &'static str,
    },
    AllWithKernel,
    AllWithArch,
    ArchCount,
    OneKernelOnly {
        action: &'static str,
    },
    ExactlyOneKernel {
        action: &'static str,
    },
    AutoinstallSeveralKernels,
    BothOnly,
    /// `match` without a template kernel.
    NoTemplate,
    SameTemplate,
    /// `ldtarball` without an archive.
    NoArchive,
    ArchiveMissing {
        path: String,
    },
    /// What was named as an archive is a directory.
    NoFile {
        path: String,
    },
    TarballFailed {
        why: String,
    },
    /// rpm is not there, or would not install the package.
    Rpm {
        package: String,
        why: String,
    },
    /// An archive that is damaged, unsafe to unpack, or not laid out as one of dkms's.
    BadArchive {
        archive: String,
        why: String,
    },
    NoConfInArchive,
    /// An archive's module is in the tree.
    AlreadyLoaded {
        id: ModuleId,
    },
    /// What is to be packed is not built for a kernel, or for any.
    NotBuilt {
        action: &'static str,
        target: Option<Target>,
    },
    /// What a package is made by is in none of these places.
    TemplateMissing {
        action: &'static str,
        places: Vec<String>,
    },
    /// rpmbuild, or one of dpkg's programs, would not make the package.
    PackageFailed {
        action: &'static str,
        why: String,
    },
    /// `mkdriverdisk` without a distribution.
    NoDistro,
    ArchiveNotWritable {
        directory: String,
    },
    NotRoot,
    TreeNotWritable {
        tree: String,
    },
    SourceMissing {
        directory: String,
    },
    AlreadyAdded {
        id: ModuleId,
    },
    NotInTree {
        id: ModuleId,
    },
    ModuleNotInTree {
        name: String,
    },
    NoOsRelease,
    ConfMissing {
        path: String,
    },
    BadConf {
        path: String,
        problems: Vec<String>,
    },
    Broken {
        id: ModuleId,
    },
    NoSource {
        source: String,
    },
    HeadersMissing {
        target: Target,
        advice: Option<String>,
    },
    /// The headers are for another machine than was asked for.
    HeadersOfOther {
        target: Target,
        directory: String,
        machine: String,
    },
    /// There is no compiler for the machine that was asked for.
    CompilerMissing {
        target: Target,
        compiler: String,
        advice: Option<String>,
    },
    /// `remedy` says what to do about the sandbox, if that may be why.
    BuildFailed {
        target: Target,
        log: String,
        first_error: Option<String>,
        remedy: Option<String>,
    },
    /// The policy requires a sandbox for the module's build, and none is to be had.
    NoSandbox {
        why: String,
        module: String,
    },
    ResultMissing {
        file: String,
        target: Target,
        log: String,
    },
    NotLoadable {
        file: String,
        why: String,
        log: String,
    },
    PatchMissing {
        patch: String,
        directory: String,
    },
    PatchLeaves {
        patch: String,
    },
    PatchFailed {
        patch: String,
        log: String,
        first_error: Option<String>,
    },
    Excluded {
        conf: String,
        id: ModuleId,
    },
    DependsMissing {
        id: ModuleId,
        target: Target,
        missing: Vec<String>,
    },
    /// As `DependsMissing`, in the words of autoinstall.
    AutoinstallDepends {
        id: ModuleId,
        missing: Vec<String>,
    },
    /// The reason has been printed.
    InstallAborted,
    BuiltFileMissing {
        name: String,
        directory: String,
    },
    KernelDirectoryMissing {
        directory: String,
    },
    NotNewer {
        version: String,
        file: String,
        kernel: String,
        found: String,
    },
    SameVersion {
        path: String,
        version: String,
    },
    SameUnversioned {
        path: String,
    },
    /// OBSOLETE_BY of a module that is built all the same.
    Obsolete {
        by: String,
    },
    Depmod {
        kernel: String,
    },
    /// A script of the module failed; dkms passes its status on.
    Script {
        name: &'static str,
        code: u8,
        log: String,
        first_error: Option<String>,
        remedy: Option<String>,
    },
    PreInstallFailed,
    Autoinstall,
    /// A boot-critical module is not there and no hold is known here, or policy says abort.
    Gate {
        kernel: String,
        reasons: Vec<String>,
    },
}

impl Failure {
    /// The process exit code (dkms(8), "EXIT STATUS").
    pub fn code(&self) -> u8 {
        match self {
            Self::Script { code, .. } => *code,
            // dkms takes such an option for given but empty, and these codes come of it.
            Self::MissingOptionValue { option, .. } => match option.as_str() {
                "-k" | "-a" => 16,
                "-m" | "-v" | "--templatekernel" => 1,
                _ => 2,
            },
            _ => Case::from(self).code().unwrap_or(1),
        }
    }

    /// The log that says more, in a build directory: the next build of the module takes it away.
    pub fn log(&self) -> Option<&str> {
        use Failure::*;
        match self {
            BuildFailed { log, .. } | ResultMissing { log, .. } | NotLoadable { log, .. } => Some(log),
            PatchFailed { log, .. } | Script { log, .. } => Some(log),
            _ => None,
        }
    }

    /// The line of the log that tells why.
    pub fn first_error(&self) -> Option<&str> {
        use Failure::*;
        match self {
            BuildFailed { first_error, .. }
            | PatchFailed { first_error, .. }
            | Script { first_error, .. } => first_error.as_deref(),
            _ => None,
        }
    }
}

/// Where to read on, and what to look for there.
fn consult(
    f: &mut fmt::Formatter<'_>,
    log: &str,
    first_error: Option<&str>,
    remedy: Option<&str>,
) -> fmt::Result {
    let first_error = first_error.unwrap_or("none, nothing there says why");
    write!(f, "\nConsult {log} for more information.\nThe first error in it: {first_error}")?;
    remedy.map_or(Ok(()), |remedy| write!(f, "\n{remedy}"))
}

impl Case {
    /// Nothing for a script, whose own status it is, and where others' codes are chosen from.
    fn code(self) -> Option<u8> {
        use Case::*;
        Some(match self {
            NoModule | SeveralVersions | ArchCount | NotRoot | TreeNotWritable | Gate => 1,
            UnknownOption | UnknownAction | InvalidOptionValue => 2,
            SourceMissing | AllWithKernel => 2,
            NoTemplate | NoDistro => 1,
            SameTemplate | NoArchive | ArchiveMissing | NoFile => 2,
            NoConfInArchive => 3,
            NotBuilt | TarballFailed => 6,
            BadArchive | PackageFailed => 7,
            AlreadyLoaded => 8,
            ArchiveNotWritable | Rpm => 9,
            AlreadyAdded | NotInTree | ModuleNotInTree | AllWithArch => 3,
            SeveralActions | NoOsRelease | ConfMissing | Broken => 4,
            OneKernelOnly | ExactlyOneKernel | AutoinstallSeveralKernels => 4,
            AllUnsupported | PatchMissing | PatchLeaves | TemplateMissing => 5,
            PatchFailed | BuiltFileMissing | KernelDirectoryMissing => 6,
            NotNewer | SameVersion | SameUnversioned | Obsolete | InstallAborted | Depmod => 6,
            ResultMissing | NotLoadable => 7,
            BothOnly | BadConf | NoSource => 8,
            BuildFailed | CompilerMissing | NoSandbox => 10,
            Autoinstall => 11,
            DependsMissing | AutoinstallDepends => 13,
            EmptyValue => 16,
            HeadersMissing | HeadersOfOther => 21,
            Excluded => 77,
            PreInstallFailed => 101,
            Script | MissingOptionValue => return None,
        })
    }
}

/// Every code that a failure ends with, but for what scripts of modules return.
pub fn codes() -> BTreeSet<u8> {
    Case::iter().filter_map(Case::code).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Failure::*;
        match self {
            UnknownAction { word } => write!(f, "Unknown action specified: \"{word}\""),
            UnknownOption { word } => write!(f, "Unknown option: {word}"),
            MissingOptionValue { option, hint } => write!(f, "The option {option} requires a value.\n{hint}"),
            InvalidOptionValue { option, why } => write!(f, "Invalid value for {option}: {why}"),
            EmptyValue { option } => write!(f, "The value of {option} is empty."),
            SeveralActions => f.write_str("Cannot specify more than one action."),
            NoModule { action } => write!(
                f,
                "Arguments <module> and <module-version> are not specified.\n\
                 Usage: {action} <module>/<module-version> or\n       \
                 {action} -m <module>/<module-version> or\n       \
                 {action} -m <module> -v <module-version>"
            ),
            SeveralVersions { verb, ids } => {
                f.write_str("There are several versions of this module. Name one of them:")?;
                ids.iter().try_for_each(|id| write!(f, "\n  dkms {verb} {id}"))
            }
            AllUnsupported { action } => write!(f, "The action {action} does not support the --all parameter."),
            AllWithKernel => {
                f.write_str("You cannot specify a kernel version and also specify\n--all on the command line.")
            }
            AllWithArch => f.write_str("You cannot specify an arch and also specify\n--all on the command line."),
            ArchCount => f.write_str(
                "If more than one arch is specified on the command line, then there\n\
                 must be an equal number of kernel versions also specified (1:1 relationship).",
            ),
            OneKernelOnly { action } => {
                write!(f, "The action {action} does not support multiple kernel version parameters on the command line.")
            }
            ExactlyOneKernel { action } => {
                write!(f, "The action {action} requires exactly one kernel version parameter on the command line.")
            }
            AutoinstallSeveralKernels => f.write_str(
                "The action autoinstall does not support multiple kernel version parameters on the command line.",
            ),
            BothOnly => f.write_str("You have specified both --binaries-only and --source-only.\nYou cannot do this."),
            NoTemplate => f.write_str(
                "Invalid number of parameters passed.\n\
                 Usage: match --templatekernel=<kernel-version> -k <kernel-version>\n   \
                 or: match --templatekernel=<kernel-version> -k <kernel-version> <module>",
            ),
            SameTemplate => f.write_str("The templatekernel and the specified kernel version are the same."),
            NoArchive => f.write_str(
                "No archive is specified.\n\
                 Usage: ldtarball /path/to/archive or\n       \
                 ldtarball --archive=/path/to/archive",
            ),
            ArchiveMissing { path } => write!(f, "{path} does not exist."),
            NoFile { path } => write!(f, "{path} is no archive but a directory."),
            TarballFailed { why } => write!(f, "Failed to make tarball.\n{why}"),
            Rpm { package, why } => write!(
                f,
                "Unable to install {package} using rpm.\n\
                 Check to ensure that your system can install .rpm files.\n{why}"
            ),
            BadArchive { archive, why } => {
                write!(f, "{why}\n{archive} is not a valid DKMS tarball.")
            }
            NoConfInArchive => f.write_str(
                "Tarball does not appear to be a correctly formed DKMS archive. No dkms.conf found within it.",
            ),
            AlreadyLoaded { id } => write!(f, "{id} is already added!\nAborting."),
            NoDistro => f.write_str(
                "Invalid number of parameters passed.\n\
                 Usage: mkdriverdisk -d <distro> [-r <release>] [-k <kernel/arch>] <module>/<module-version>",
            ),
            NotBuilt { action, target } => {
                match target {
                    Some(target) => write!(f, "No modules built for {target}.")?,
                    None => f.write_str("No modules built for any kernel.")?,
                }
                write!(f, "\nModules must already be in the built state before using {action}.")
            }
            TemplateMissing { action, places } => {
                write!(f, "There is nothing that {action} makes packages by. Looked for:")?;
                places.iter().try_for_each(|place| write!(f, "\n  {place}"))?;
                f.write_str("\nThe package of dkms brings one; install it again.")
            }
            PackageFailed { action, why } => write!(f, "{action} could not make the package.\n{why}"),
            ArchiveNotWritable { directory } => write!(f, "Missing write permissions for {directory}."),
            NotRoot => f.write_str("You must be root to use this command."),
            TreeNotWritable { tree } => write!(f, "No write access to DKMS tree at {tree}"),
            SourceMissing { directory } => {
                write!(f, "Could not find module source directory.\nDirectory: {directory} does not exist.")
            }
            AlreadyAdded { id } => write!(
                f,
                "DKMS tree already contains: {id}\nYou cannot add the same module/version combo more than once."
            ),
            NotInTree { id } => write!(f, "The module/version combo: {id} is not located in the DKMS tree."),
            ModuleNotInTree { name } => write!(f, "The module: {name} is not located in the DKMS tree."),
            NoOsRelease => f.write_str("System is missing os-release file."),
            ConfMissing { path } => write!(f, "Could not locate dkms.conf file.\nFile: {path} does not exist."),
            BadConf { path, .. } => write!(f, "Bad conf file.\nFile: {path} does not represent a valid dkms.conf file."),
            Broken { id } => write!(
                f,
                "{id} is broken!\nMissing the source directory or the symbolic link pointing to it.\n\
                 Manual intervention is required!"
            ),
            NoSource { source } => write!(
                f,
                "The directory {source} does not appear to have module source located within it.\nBuild halted."
            ),
            HeadersMissing { target, advice } => {
                let kernel = &target.kernel;
                write!(
                    f,
                    "Your kernel headers for kernel {kernel} cannot be found at /lib/modules/{kernel}/build or \
                     /lib/modules/{kernel}/source.\n\
                     Please install your distribution's kernel headers package matching {kernel}, or use the \
                     --kernelsourcedir option to tell DKMS where it's located."
                )?;
                advice.as_ref().map_or(Ok(()), |advice| write!(f, "\n{advice}"))
            }
            HeadersOfOther { target, directory, machine } => write!(
                f,
                "The kernel headers in {directory} are for {machine}, not for {}.\n\
                 Give those for {} with --kernelsourcedir, or leave out -a.",
                target.arch, target.arch
            ),
            CompilerMissing { target, compiler, advice } => {
                write!(f, "There is no compiler for kernel {target} here: {compiler} is not installed.")?;
                advice.as_ref().map_or(Ok(()), |advice| write!(f, "\n{advice}"))
            }
            BuildFailed { target, log, first_error, remedy } => {
                write!(f, "Bad return status for module build on kernel: {target}")?;
                consult(f, log, first_error.as_deref(), remedy.as_deref())
            }
            NoSandbox { why, module } => write!(
                f,
                "No sandbox can be made for the build of {module}, and policy requires one: {why}.\n\
                 To build it without, put sandbox = \"off\" into [module.\"{module}\"] of a file in \
                 /etc/dkms/policy.d/."
            ),
            ResultMissing { file, target, log } => write!(
                f,
                "Build of {file} failed for: {target}\n\
                 Make sure the name and location of the generated module are correct,\n\
                 or consult {log} for more information."
            ),
            NotLoadable { file, why, log } => {
                write!(f, "The kernel would not load {file}.\n{why}.\nConsult {log} for how it was built.")
            }
            PatchMissing { patch, directory } => {
                write!(f, "Patch {patch} as specified in dkms.conf cannot be\nfound in {directory}.")
            }
            PatchLeaves { patch } => write!(f, "Patch {patch} as specified in dkms.conf contains '..' path component."),
            PatchFailed { patch, log, first_error } => {
                write!(f, "Application of patch {patch} failed.")?;
                consult(f, log, first_error.as_deref(), None)
            }
            Excluded { conf, id } => write!(
                f,
                "The {conf}\nfor module {id} includes BUILD_EXCLUSIVE directives\n\
                 which do not match this kernel/arch/config for any modules.\n\
                 This indicates that it should not be built."
            ),
            DependsMissing { id, target, missing } => write!(
                f,
                "Aborting build of module {id} for kernel {target} due to missing BUILD_DEPENDS: {}.\n\
                 You may override by specifying --force.",
                missing.join(" ")
            ),
            AutoinstallDepends { id, missing } => {
                write!(f, "{id} autoinstall failed due to missing dependencies: {}.", missing.join(" "))
            }
            InstallAborted => f.write_str("Installation aborted."),
            BuiltFileMissing { name, directory } => write!(f, "Missing module {name} in {directory}"),
            KernelDirectoryMissing { directory } => {
                write!(f, "The directory {directory} doesn't exist.\nYou cannot install a module onto a non-existent kernel.")
            }
            NotNewer { version, file, kernel, found } => write!(
                f,
                "Module version {version} for {file}\nis not newer than what is already found in kernel {kernel} ({found}).\n\
                 You may override by specifying --force."
            ),
            SameVersion { path, version } => {
                write!(f, "Module {path} already installed at version {version}, override by specifying --force")
            }
            Obsolete { by } => write!(
                f,
                "Module has been obsoleted due to being included in kernel {by}.\n\
                 We will avoid installing for future kernels above {by}.\n\
                 You may override by specifying --force."
            ),
            SameUnversioned { path } => {
                write!(f, "Module {path} already installed (unversioned module), override by specifying --force")
            }
            Depmod { kernel } => write!(
                f,
                "Problems with depmod detected for kernel {kernel}. The modules are back to what they were before.\n\
                 Run depmod -a {kernel} by hand to see why."
            ),
            Script { name, code, log, first_error, remedy } => {
                write!(f, "The {name} script failed with status {code}.")?;
                consult(f, log, first_error.as_deref(), remedy.as_deref())
            }
            PreInstallFailed => f.write_str("pre_install failed, aborting install.\nYou may override by specifying --force."),
            Autoinstall => f.write_str(
                "One or more modules failed to install during autoinstall.\n\
                 Refer to previous errors for more information.",
            ),
            Gate { kernel, reasons } => {
                write!(f, "Kernel {kernel} lacks a module that this machine needs to boot:")?;
                for reason in reasons {
                    write!(f, "\n  {reason}")?;
                }
                write!(f, "\nMend the cause, then run: dkms autoinstall -k {kernel}")
            }
        }
    }
}

impl std::error::Error for Failure {}
