// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel releases, their configuration, and dkms's ordering of versions.
//! Pure: nothing here looks at the disk.

use std::fmt;
use std::str::FromStr;

use memchr::memmem;
use serde::{Deserialize, Serialize};

/// A kernel release as `uname -r` prints it ("6.1.0-56-amd64").
///
/// It names directories (`/lib/modules/<release>`), so a value of this type never contains a
/// slash, white space or a control character, never is `.` or `..` and never begins with `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelRelease(String);

impl KernelRelease {
    /// The release as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a word cannot name a directory of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    what: &'static str,
    word: String,
}

impl BadName {
    /// The longest name, in bytes: two of them, and what is staged beside the result, have to fit
    /// into one file name (NAME_MAX, 255).
    const LONGEST: usize = 100;

    pub(crate) fn check(what: &'static str, word: &str) -> Result<(), Self> {
        let bad = word.is_empty()
            || word.len() > Self::LONGEST
            || word == "."
            || word == ".."
            || word.starts_with('-')
            || word.chars().any(|c| c == '/' || c.is_whitespace() || c.is_control());
        if bad { Err(Self::of(what, word)) } else { Ok(()) }
    }

    pub(crate) fn of(what: &'static str, word: &str) -> Self {
        Self { what, word: word.to_owned() }
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.word.len() > Self::LONGEST {
            return write!(f, "A {} of {} characters is too long", self.what, self.word.chars().count());
        }
        write!(f, "'{}' is not a valid {}", self.word.escape_debug(), self.what)
    }
}

impl std::error::Error for BadName {}

impl FromStr for KernelRelease {
    type Err = BadName;

    fn from_str(word: &str) -> Result<Self, BadName> {
        BadName::check("kernel release", word)?;
        Ok(Self(word.to_owned()))
    }
}

impl TryFrom<String> for KernelRelease {
    type Error = BadName;

    fn try_from(word: String) -> Result<Self, BadName> {
        word.parse()
    }
}

impl From<KernelRelease> for String {
    fn from(release: KernelRelease) -> Self {
        release.0
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<std::ffi::OsStr> for KernelRelease {
    fn as_ref(&self) -> &std::ffi::OsStr {
        self.0.as_ref()
    }
}

impl AsRef<std::path::Path> for KernelRelease {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

/// Orders two versions as dkms does: every run of digits is padded with zeros to three digits,
/// then the strings are compared byte by byte.
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    padded(a).cmp(&padded(b))
}

fn padded(version: &str) -> String {
    let mut out = String::with_capacity(version.len() * 2);
    let mut digits = String::new();
    for c in version.chars().chain(std::iter::once('\0')) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            out.push_str(&format!("{digits:0>3}"));
            digits.clear();
        }
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

/// A kernel's configuration, from `.config` or `include/config/auto.conf` (both are lines of
/// `CONFIG_NAME=value`, Documentation/kbuild/kconfig.rst).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelConfig(String);

impl KernelConfig {
    /// Takes the text of a configuration file. A handful of its thousands of symbols is asked for
    /// at most, so that looking through the text is much cheaper than taking it apart.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole configuration.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value of a symbol, without its quotes; `CONFIG_` belongs to the name.
    pub fn value(&self, name: &str) -> Option<&str> {
        let assignment = format!("{name}=");
        let begins_line = |at: &usize| *at == 0 || self.0.as_bytes()[at - 1] == b'\n';
        // As in a shell, the last one counts.
        let at = memmem::find_iter(self.0.as_bytes(), &assignment).filter(begins_line).last()?;
        let value = self.0[at + assignment.len()..].lines().next().unwrap_or_default();
        Some(value.trim().trim_matches('"'))
    }

    /// Whether a symbol is `y` or `m`.
    pub fn enabled(&self, name: &str) -> bool {
        matches!(self.value(name), Some("y" | "m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::cmp::Ordering;

    #[rstest]
    #[case::debian("6.1.0-56-amd64", true)]
    #[case::backport("6.12.111+deb12-amd64", true)]
    #[case::rc("7.1~rc3-amd64", true)]
    #[case::empty("", false)]
    #[case::parent("..", false)]
    #[case::slash("a/b", false)]
    #[case::option("-k", false)]
    #[case::blank("a b", false)]
    fn release_names_a_directory(#[case] word: &str, #[case] valid: bool) {
        assert_eq!(word.parse::<KernelRelease>().is_ok(), valid);
    }

    #[rstest]
    #[case::numeric("6.9", "6.12", Ordering::Less)]
    #[case::equal("1.0", "1.0", Ordering::Equal)]
    #[case::longer("6.1.0-56", "6.1.0-55", Ordering::Greater)]
    #[case::suffix("1.0", "1.0rc1", Ordering::Less)]
    fn versions_compare_by_padded_numbers(#[case] a: &str, #[case] b: &str, #[case] want: Ordering) {
        assert_eq!(compare_versions(a, b), want);
    }

    #[test]
    fn configuration_has_values_and_switches() {
        let config = KernelConfig::new(
            "CONFIG_A=n\nCONFIG_A=y\n# CONFIG_B is not set\nNO_CONFIG_B=y\nCONFIG_C=m\nCONFIG_H=\"sha256\"\nCONFIG_E=",
        );
        assert!(config.enabled("CONFIG_A") && config.enabled("CONFIG_C") && !config.enabled("CONFIG_B"));
        assert_eq!(config.value("CONFIG_H"), Some("sha256"));
        assert_eq!((config.value("CONFIG_E"), config.value("CONFIG")), (Some(""), None));
    }
}
