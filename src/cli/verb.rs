// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words that name an action, and what each of them may be given. Reads no command line.

/// The words that name an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Build,
    Install,
    Unbuild,
    Uninstall,
    Remove,
    Status,
    Match,
    Mktarball,
    Ldtarball,
    Mkdriverdisk,
    Mksysext,
    Mkrpm,
    Mkdeb,
    Mkbmdeb,
    Mkdsc,
    Autoinstall,
    GenerateMok,
    KernelPreinst,
    KernelPostinst,
    KernelPrerm,
    Hook,
    Gate,
    RebootSafe,
    Verify,
    Critical,
    Log,
    Replay,
    Doctor,
    Push,
}

impl Verb {
    pub(super) const ALL: [Self; 30] = [
        Self::Add,
        Self::Build,
        Self::Install,
        Self::Unbuild,
        Self::Uninstall,
        Self::Remove,
        Self::Status,
        Self::Match,
        Self::Mktarball,
        Self::Ldtarball,
        Self::Mkdriverdisk,
        Self::Mksysext,
        Self::Mkrpm,
        Self::Mkdeb,
        Self::Mkbmdeb,
        Self::Mkdsc,
        Self::Autoinstall,
        Self::GenerateMok,
        Self::KernelPreinst,
        Self::KernelPostinst,
        Self::KernelPrerm,
        Self::Hook,
        Self::Gate,
        Self::RebootSafe,
        Self::Verify,
        Self::Critical,
        Self::Log,
        Self::Replay,
        Self::Doctor,
        Self::Push,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Build => "build",
            Self::Install => "install",
            Self::Unbuild => "unbuild",
            Self::Uninstall => "uninstall",
            Self::Remove => "remove",
            Self::Status => "status",
            Self::Match => "match",
            Self::Mktarball => "mktarball",
            Self::Ldtarball => "ldtarball",
            Self::Mkdriverdisk => "mkdriverdisk",
            Self::Mksysext => "mksysext",
            Self::Mkrpm => "mkrpm",
            Self::Mkdeb => "mkdeb",
            Self::Mkbmdeb => "mkbmdeb",
            Self::Mkdsc => "mkdsc",
            Self::Autoinstall => "autoinstall",
            Self::GenerateMok => "generate_mok",
            Self::KernelPreinst => "kernel_preinst",
            Self::KernelPostinst => "kernel_postinst",
            Self::KernelPrerm => "kernel_prerm",
            Self::Hook => "hook",
            Self::Gate => "gate",
            Self::RebootSafe => "reboot-safe",
            Self::Verify => "verify",
            Self::Critical => "critical",
            Self::Log => "log",
            Self::Replay => "replay",
            Self::Doctor => "doctor",
            Self::Push => "push",
        }
    }

    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Add => "register a module's source",
            Self::Build => "compile a module for a kernel, adding it if need be",
            Self::Install => "put a module into a kernel, building it if need be",
            Self::Unbuild => "uninstall a module and delete what was compiled",
            Self::Uninstall => "take a module out of a kernel, keeping it built",
            Self::Remove => "unbuild a module and forget it",
            Self::Status => "show which module is built or installed for which kernel",
            Self::Match => "install into a kernel (-k) what another one has",
            Self::Mktarball => "make an archive of a module and what was built of it",
            Self::Ldtarball => "register a module from an archive, built modules and all",
            Self::Mkdriverdisk => "make a disk of built modules for an installer (-d, -r)",
            Self::Mksysext => "make system extensions (systemd-sysext) of built modules",
            Self::Mkrpm => "make an rpm package of a module, for dkms to install",
            Self::Mkdeb => "make a Debian package of a module, for dkms to install",
            Self::Mkbmdeb => "make a Debian package of built modules, to do without dkms",
            Self::Mkdsc => "make a Debian source package of what mkdeb packs",
            Self::Autoinstall => "install every module that asks for it into a kernel",
            Self::GenerateMok => "make the key that modules are signed with, if there is none",
            Self::KernelPreinst => "a kernel is about to be installed: clear the way (-k)",
            Self::KernelPostinst => "a kernel has been installed: autoinstall (-k)",
            Self::KernelPrerm => "a kernel is about to be removed: unbuild for it (-k)",
            Self::Hook => "hook <protocol> [args]: what package managers call",
            Self::Gate => "show which kernels are proven, pending or held, and why",
            Self::RebootSafe => "which kernel boots next, and is it proven? (0, 1, 2: unknown)",
            Self::Verify => "look whether a kernel can load its modules, and why not",
            Self::Critical => "show what a kernel needs to boot this machine, and why",
            Self::Log => "show the runs that changed something, or one of them",
            Self::Replay => "do by hand what a run or a package manager's hook does",
            Self::Doctor => "look for what is wrong, and how to mend it (or --repair)",
            Self::Push => "sign what was built and put it into a shared store",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == word)
    }

    /// Those that are not dkms's are modules or directories after an action.
    pub(super) fn is_dkms_own(self) -> bool {
        !matches!(
            self,
            Self::Mksysext
                | Self::Hook
                | Self::Gate
                | Self::RebootSafe
                | Self::Verify
                | Self::Critical
                | Self::Log
                | Self::Replay
                | Self::Doctor
                | Self::Push
        )
    }

    pub(super) fn takes_all(self) -> bool {
        matches!(
            self,
            Self::Unbuild
                | Self::Uninstall
                | Self::Remove
                | Self::Status
                | Self::Mktarball
                | Self::Ldtarball
                | Self::Mkdriverdisk
                | Self::Mksysext
                | Self::Mkrpm
                | Self::Mkdeb
                | Self::Mkdsc
                | Self::GenerateMok
        )
    }

    /// The action in whose name dkms asks for the module, if it cannot do without: build and
    /// install begin by adding.
    pub(super) fn asks_for_module(self) -> Option<&'static str> {
        match self {
            Self::Add | Self::Build | Self::Install => Some("add"),
            Self::Unbuild | Self::Uninstall | Self::Remove | Self::Mktarball => Some(self.name()),
            Self::Mkdriverdisk | Self::Mksysext => Some(self.name()),
            _ if self.packs() => Some(self.name()),
            _ => None,
        }
    }

    /// Those that make a package of a module.
    pub(super) fn packs(self) -> bool {
        matches!(self, Self::Mkrpm | Self::Mkdeb | Self::Mkbmdeb | Self::Mkdsc)
    }

    pub(super) fn takes_module(self) -> bool {
        self.asks_for_module().is_some()
            || matches!(self, Self::Status | Self::Match | Self::GenerateMok | Self::Verify | Self::Push)
    }
}
