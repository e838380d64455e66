// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plugin for dnf 4: before a transaction it gives the paths of the packages that are to be
//! installed on standard input, a line each. A failure stops dnf while nothing is changed yet.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::preflight::{is_one_of, preflight};
use crate::commands::session::Session;
use crate::conf::policy::Preflight;
use crate::trial::Kind;

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    if args != ["preflight"] {
        bail!("expected: hook dnf preflight");
    }
    let packages = wanted(session)?;
    preflight(session, packages.into_iter().map(|path| (Kind::Rpm, path)).collect(), Preflight::Hold)
}

/// What would be tried, for people.
pub(super) fn foretell(session: &Session) -> Result<String> {
    let names: Vec<String> = wanted(session)?.iter().map(|path| path.display().to_string()).collect();
    Ok(match names.is_empty() {
        true => "No kernel, headers or modules come: nothing is tried.".to_owned(),
        false => format!("Modules are tried for what these bring:\n  {}", names.join("\n  ")),
    })
}

/// The packages that are tried.
pub(super) fn named(text: &str) -> Vec<String> {
    needed_of(text).lines().map(str::to_owned).collect()
}

pub(super) fn wanted(session: &Session) -> Result<Vec<PathBuf>> {
    Ok(session.recorder.call.stdin(needed_of)?.lines().map(PathBuf::from).collect())
}

fn needed_of(paths: &str) -> String {
    let come = paths.lines().filter(|path| path.starts_with('/'));
    needed(come.collect(), |path| package_of(path))
        .into_iter()
        .fold(String::new(), |text, path| text + path + "\n")
}

/// The packages that builds need, of those that come; none if no kernel, headers or sources of
/// modules do.
pub(super) fn needed<T>(mut come: Vec<T>, name: impl Fn(&T) -> &str) -> Vec<T> {
    if !come.iter().any(|package| is_cause(name(package))) {
        return Vec::new();
    }
    come.retain(|package| is_cause(name(package)) || is_one_of(name(package), &TOOLS));
    come
}

/// The package of a file by its name, `NAME-VERSION-RELEASE.ARCH.rpm`.
fn package_of(path: &str) -> &str {
    let file = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    file.rsplitn(3, '-').nth(2).unwrap_or_default()
}

/// Whether a package is a reason to try: `kernel-core`, `kernel-rt-devel`, `zfs-dkms`, `dkms-nvidia` …
fn is_cause(name: &str) -> bool {
    let of_kernel = ["core", "devel", "devel-matched"];
    let is_of_kernel = name.strip_prefix("kernel-").is_some_and(|rest| {
        of_kernel.iter().any(|part| rest == *part || rest.ends_with(&format!("-{part}")))
    });
    is_of_kernel || name.ends_with("-dkms") || name.starts_with("dkms-") && name != "dkms-hooks"
}

/// What builds run, and what that is made of.
const TOOLS: [&str; 28] = [
    "gcc",
    "cpp",
    "libgcc",
    "libgomp",
    "libasan",
    "binutils",
    "make",
    "clang",
    "llvm",
    "lld",
    "libomp",
    "pahole",
    "dwarves",
    "libdwarves",
    "libbpf",
    "elfutils",
    "glibc",
    "kernel-headers",
    "libxcrypt",
    "isl",
    "libmpc",
    "mpfr",
    "gmp",
    "openssl-libs",
    "zlib",
    "libzstd",
    "kmod",
    "patch",
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing("", "")]
    #[case::other_packages("/a/vim-9.1-1.fc40.x86_64.rpm\n/a/gcc-14.1-1.fc40.x86_64.rpm\n", "")]
    #[case::ours_alone("/a/dkms-hooks-4.0.0-1.x86_64.rpm\n", "")]
    #[case::headers_and_compiler(
        "/a/kernel-devel-6.9-1.fc40.x86_64.rpm\n/a/gcc-14.1-1.fc40.x86_64.rpm\n/a/gccmakedep-1-1.noarch.rpm\n/a/glibc-devel-2-1.x86_64.rpm\n",
        "/a/kernel-devel-6.9-1.fc40.x86_64.rpm /a/gcc-14.1-1.fc40.x86_64.rpm /a/glibc-devel-2-1.x86_64.rpm"
    )]
    #[case::variants(
        "/a/kernel-rt-core-6.9-1.x86_64.rpm\n/a/kernel-tools-6.9-1.x86_64.rpm\n/a/kernel-doc-6.9-1.noarch.rpm\n/a/kernel-modules-core-6.9-1.x86_64.rpm\n",
        "/a/kernel-rt-core-6.9-1.x86_64.rpm /a/kernel-modules-core-6.9-1.x86_64.rpm"
    )]
    #[case::modules(
        "/a/zfs-dkms-2.2-1.noarch.rpm\n/a/dkms-nvidia-560-1.noarch.rpm\n",
        "/a/zfs-dkms-2.2-1.noarch.rpm /a/dkms-nvidia-560-1.noarch.rpm"
    )]
    fn what_builds_need_is_told_by_names(#[case] paths: &str, #[case] want: &str) {
        assert_eq!(needed_of(paths).lines().collect::<Vec<_>>().join(" "), want);
    }
}
