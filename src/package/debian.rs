// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian packages of modules, made by dpkg-buildpackage from a template: the words that are
//! filled in, and what of dkms's names Debian takes. Which template, and what goes into the
//! package, is decided in `commands`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::module::Arch;
use crate::sys::files;
use crate::sys::tools::{Run, Tool};

/// What a template's words stand for.
pub type Words = Vec<(&'static str, String)>;

/// What dpkg-buildpackage makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Make {
    /// Packages, for this architecture of Debian's if it is known.
    Packages(Option<&'static str>),
    Source,
}

/// A word as part of a package's name (Debian policy, 5.6.1): small letters, digits and `+-.`.
pub fn package_name(word: &str) -> String {
    let fit = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || "+-.".contains(c) => c,
        _ => '-',
    };
    word.chars().map(fit).collect()
}

/// A module's version as one of a native package (deb-version(7)): it begins with a digit and has
/// no revision, so that a hyphen becomes what is sorted likewise.
pub fn version(word: &str) -> String {
    let fit = |c: char| match c {
        '-' => '+',
        _ if c.is_ascii_alphanumeric() || ".+~".contains(c) => c,
        _ => '.',
    };
    let begin = if word.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0~" };
    begin.chars().chain(word.chars().map(fit)).collect()
}

/// Debian's name for what uname(2) calls a machine (dpkg's cputable).
pub fn architecture(arch: &Arch) -> Option<&'static str> {
    Some(match arch.as_str() {
        "x86_64" => "amd64",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "aarch64" => "arm64",
        "armv7l" | "armv8l" => "armhf",
        "armv5tel" | "armv6l" => "armel",
        "ppc64le" => "ppc64el",
        "ppc64" => "ppc64",
        "ppc" => "powerpc",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        "loongarch64" => "loong64",
        "sparc64" => "sparc64",
        "alpha" => "alpha",
        _ => return None,
    })
}

/// The time now, as the last line of a changelog's entry has it (deb-changelog(5)).
pub fn date_stamp() -> String {
    jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// A text of a template with its words filled in.
fn filled(text: &str, words: &Words) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// Fills in what lies in the directory `debian` of a package's source, and makes its rules a
/// program. What is no text stays as it is.
fn fill(debian: &Path, words: &Words) -> Result<()> {
    for path in files::files_below(debian) {
        if let Ok(text) = String::from_utf8(fs::read(&path)?) {
            fs::write(&path, filled(&text, words))?;
        }
    }
    let rules = debian.join("rules");
    if rules.is_file() {
        fs::set_permissions(&rules, PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

/// Makes packages of what lies in the directory `source`, a template and what it packs. Returns the
/// files that dpkg-buildpackage has put beside that.
///
/// Fails if that is not installed, and with its last words if it fails.
pub fn build(source: &Path, words: &Words, make: &Make) -> Result<Vec<PathBuf>> {
    fill(&source.join("debian"), words)?;
    // What a template builds with is its author's to install: nothing is compiled for ours.
    let mut run = Run::new(Tool::DpkgBuildpackage)?.args(["-d", "-us", "-uc"]);
    run = match make {
        Make::Packages(None) => run.arg("-b"),
        Make::Packages(Some(architecture)) => run.args(["-b", "--host-arch", architecture]),
        Make::Source => run.arg("-S"),
    };
    run.directory(source).english().succeed()?;
    let beside = files::parent(source)?;
    let wanted = |name: &String| *make == Make::Source || name.ends_with(".deb");
    let names = files::names(beside)?.into_iter().filter(wanted);
    Ok(names.map(|name| beside.join(name)).filter(|path| path.is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::underscore("My_Module", "my-module")]
    #[case::of_a_kernel("5.14.0-1.el9.x86_64+debug", "5.14.0-1.el9.x86-64+debug")]
    fn names_are_ones_that_debian_takes(#[case] word: &str, #[case] want: &str) {
        assert_eq!(package_name(word), want);
    }

    #[rstest]
    #[case::usual("1.0.3~rc1", "1.0.3~rc1")]
    #[case::hyphens("2.0-rc1-3", "2.0+rc1+3")]
    #[case::letter("v5.6", "0~v5.6")]
    #[case::others("1_2:3", "1.2.3")]
    fn versions_are_ones_that_native_packages_have(#[case] word: &str, #[case] want: &str) {
        assert_eq!(version(word), want);
    }

    #[test]
    fn words_are_filled_in_below_debian_and_rules_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let debian = dir.path().join("debian");
        fs::create_dir_all(debian.join("source")).unwrap();
        fs::write(debian.join("rules"), "X := MODULE_NAME-MODULE_VERSION\n").unwrap();
        fs::write(debian.join("source/note"), "MODULE_NAME").unwrap();
        fs::write(debian.join("picture"), b"\xff MODULE_NAME").unwrap();
        fs::write(dir.path().join("Makefile"), "MODULE_NAME").unwrap();
        let words = vec![("MODULE_NAME", "foo".to_owned()), ("MODULE_VERSION", "1.0".to_owned())];
        fill(&debian, &words).unwrap();
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("debian/rules"), b"X := foo-1.0\n");
        assert_eq!(read("debian/source/note"), b"foo");
        assert_eq!(read("debian/picture"), b"\xff MODULE_NAME");
        assert_eq!(read("Makefile"), b"MODULE_NAME");
        assert!(files::is_executable(&debian.join("rules")));
    }

    #[test]
    fn date_stamps_are_those_of_changelogs() {
        let stamp = date_stamp();
        let pattern =
            regex::Regex::new(r"^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} \+0000$").unwrap();
        assert!(pattern.is_match(&stamp), "{stamp}");
    }
}
