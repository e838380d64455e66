// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is built and for what: module identities, architectures, targets and states.
//! Pure: nothing here looks at the disk.

use std::fmt;

use serde::Serialize;

use crate::kernel::{BadName, KernelRelease};

/// A registered package of modules: PACKAGE_NAME and PACKAGE_VERSION of its dkms.conf.
///
/// Both name directories of the dkms tree and obey the rules of [`KernelRelease`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ModuleId {
    name: String,
    version: String,
}

impl ModuleId {
    /// Fails if either word cannot be one directory's name, or is what dkms or we call something
    /// else in that place (`M/original_module`, `M/kernel-K-A`, `.hooks`).
    pub fn new(name: &str, version: &str) -> Result<Self, BadName> {
        BadName::check("module name", name)?;
        BadName::check("module version", version)?;
        if name.starts_with('.') {
            return Err(BadName::of("module name", name));
        }
        if version.starts_with('.') || version.starts_with("kernel-") || version == "original_module" {
            return Err(BadName::of("module version", version));
        }
        Ok(Self { name: name.to_owned(), version: version.to_owned() })
    }

    /// The module's name, the M of `M/V`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The module's version, the V of `M/V`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// A machine architecture as dkms writes it in its tree (`uname -m`: "x86_64").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Arch(String);

impl Arch {
    /// Fails if the word cannot be one directory's name.
    pub fn new(word: &str) -> Result<Self, BadName> {
        BadName::check("architecture", word)?;
        Ok(Self(word.to_owned()))
    }

    /// The architecture as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<std::path::Path> for Arch {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

/// The kernel and architecture that a module is built for; displayed as dkms does, "K (A)".
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Target {
    pub kernel: KernelRelease,
    pub arch: Arch,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kernel, self.arch)
    }
}

/// How far a module has come for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Registered, nothing kept for this target.
    Added,
    /// Compiled files are kept in the dkms tree.
    Built,
    /// Built, and in the kernel's install tree.
    Installed,
    /// Linked into this kernel's weak-updates from the build for another kernel.
    InstalledWeak { from: KernelRelease },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::Built => f.write_str("built"),
            Self::Installed => f.write_str("installed"),
            Self::InstalledWeak { from } => write!(f, "installed-weak from {from}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::usual("v4l2loopback", "0.12.7+dfsg~1", true)]
    #[case::parts_of_a_path("a/b", "1.0", false)]
    #[case::parent("foo", "..", false)]
    #[case::option("-foo", "1.0", false)]
    #[case::two_words("foo", "1 0", false)]
    #[case::nothing("", "1.0", false)]
    #[case::our_own(".hooks", "1.0", false)]
    #[case::hidden("foo", ".1", false)]
    #[case::originals("foo", "original_module", false)]
    #[case::active_link("foo", "kernel-6.1-x86_64", false)]
    #[case::long(&"x".repeat(101), "1.0", false)]
    fn names_are_those_of_directories_that_nobody_else_has(
        #[case] name: &str,
        #[case] version: &str,
        #[case] good: bool,
    ) {
        assert_eq!(ModuleId::new(name, version).is_ok(), good);
    }
}
