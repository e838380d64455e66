// SPDX-License-Identifier: MIT OR Apache-2.0
//! apt's hooks (apt.conf(5), "How APT calls dpkg"). Before dpkg runs: a trial of what comes. After
//! it has: what is held, as the last thing on the screen, because what the kernel's own hooks said
//! has scrolled away.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::preflight::{is_one_of, preflight};
use crate::commands::session::Session;
use crate::conf::policy::Preflight;
use crate::gate::verdict::{Standing, Verdict};
use crate::gate::{is_off, notices};
use crate::trial::Kind;

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    match args {
        [stage] if stage == "pre-install-pkgs" => before(session),
        [stage] if stage == "post-invoke" => after(session),
        _ => bail!("expected: hook apt pre-install-pkgs|post-invoke"),
    }
}

/// The archives that are tried.
pub(super) fn named(text: &str) -> Vec<String> {
    let archives = wanted(&without_configuration(text));
    archives.iter().map(|path| path.display().to_string()).collect()
}

fn before(session: &Session) -> Result<u8> {
    let packages = wanted(session.recorder.call.stdin(without_configuration)?);
    preflight(session, packages.into_iter().map(|path| (Kind::Deb, path)).collect(), Preflight::Hold)
}

fn after(session: &Session) -> Result<u8> {
    if is_off(&session.tree.root) {
        return Ok(0);
    }
    for verdict in Verdict::all(&session.tree)?.iter().filter(|verdict| verdict.standing == Standing::Held) {
        // A trial has held it, and it has not come.
        let is_there = session.tree.kernel_dir(&verdict.kernel).is_dir()
            || session.tree.path(format!("/boot/vmlinuz-{}", verdict.kernel)).exists();
        if is_there {
            super::announce(session, verdict)?;
            if let Err(error) = notices::ask_for_no_reboot(&session.tree, &verdict.kernel) {
                session
                    .report
                    .warning(format_args!("taking back what asks for a restart, ignoring: {error:#}"));
            }
        } else {
            Verdict::forget(&session.tree, &verdict.kernel)?;
        }
    }
    Ok(0)
}

/// The archives that builds need, of what apt says on its hook's standard input; none if no kernel,
/// headers or sources of modules come.
///
/// `VERSION 3` is followed by apt's configuration, an empty line and `NAME OLD-VERSION ARCH MULTIARCH
/// </=/> NEW-VERSION ARCH MULTIARCH ARCHIVE|**CONFIGURE**|**REMOVE**`; without it each line is an archive.
fn wanted(text: &str) -> Vec<PathBuf> {
    let archives: Vec<(&str, &str)> = if text.starts_with("VERSION ") {
        let packages = text.split_once("\n\n").map_or("", |(_, packages)| packages);
        packages
            .lines()
            .filter_map(|line| Some((line.split(' ').next()?, line.rsplit(' ').next()?)))
            .collect()
    } else {
        text.lines().map(|line| (package_of(line), line)).collect()
    };
    let come = || archives.iter().filter(|(_, archive)| archive.starts_with('/'));
    if !come().any(|(name, _)| is_cause(name)) {
        return Vec::new();
    }
    come()
        .filter(|(name, _)| is_cause(name) || is_one_of(name, &TOOLS))
        .map(|(_, archive)| PathBuf::from(archive))
        .collect()
}

/// What apt says, without its configuration: that may hold a proxy's password.
fn without_configuration(text: &str) -> String {
    match (text.split_once('\n'), text.split_once("\n\n")) {
        (Some((version, _)), Some((_, packages))) if version.starts_with("VERSION ") => {
            format!("{version}\n\n{packages}")
        }
        _ if text.starts_with("VERSION ") => String::new(),
        _ => text.to_owned(),
    }
}

/// What would be tried, for people.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<String> {
    if args != ["pre-install-pkgs"] {
        return Ok("It only tells what is held; no kernel is worked on.".to_owned());
    }
    let packages = wanted(session.recorder.call.stdin(without_configuration)?);
    let names: Vec<String> = packages.iter().map(|path| path.display().to_string()).collect();
    Ok(match names.is_empty() {
        true => "No kernel, headers or modules come: nothing is tried.".to_owned(),
        false => format!("Modules are tried for what these bring:\n  {}", names.join("\n  ")),
    })
}

/// The package of an archive by its name, `NAME_VERSION_ARCHITECTURE.deb`.
fn package_of(archive: &str) -> &str {
    let file = Path::new(archive).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    file.split('_').next().unwrap_or_default()
}

/// Whether a package is a reason to try.
fn is_cause(name: &str) -> bool {
    let of_kernel = [
        "linux-headers-",
        "linux-image-",
        "linux-modules-",
        // What is built in, since a kernel is several packages.
        "linux-base-",
        "linux-kbuild-",
        "linux-compiler-",
    ];
    of_kernel.iter().any(|prefix| name.starts_with(prefix)) || name.ends_with("-dkms")
}

/// What builds run, and what that is made of.
const TOOLS: [&str; 31] = [
    "gcc",
    "cpp",
    "g++",
    "binutils",
    "make",
    "clang",
    "llvm",
    "lld",
    "pahole",
    "dwarves",
    "libgcc",
    "libcc1",
    "libbinutils",
    "libctf",
    "libgprofng",
    "libsframe",
    "libisl",
    "libmpc",
    "libmpfr",
    "libgmp",
    "libelf",
    "libdw",
    "libllvm",
    "libclang",
    "libbpf",
    "libc6",
    "libc-dev-bin",
    "linux-libc-dev",
    "libgomp",
    "libasan",
    "kmod",
];

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const THREE: &str = "VERSION 3\nAPT::Architecture=amd64\n\n";

    #[rstest]
    #[case::nothing("", "")]
    #[case::other_packages(
        "VERSION 3\nA=b\n\nvim - - none < 2 amd64 none /a/vim_2_amd64.deb\ngcc-12 1 amd64 none < 2 amd64 none /a/gcc-12_2_amd64.deb\n",
        ""
    )]
    #[case::first_protocol(
        "/a/vim_2_amd64.deb\n/a/linux-headers-6.1.0-9-amd64_6.1_amd64.deb\n",
        "/a/linux-headers-6.1.0-9-amd64_6.1_amd64.deb"
    )]
    fn what_builds_need_is_told_by_names(#[case] text: &str, #[case] want: &str) {
        let paths: Vec<String> = wanted(text).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths.join(" "), want);
    }

    #[rstest]
    #[case::third_protocol("VERSION 3\nA=b\nP=http://me:secret@there\n\nvim /a\n", "VERSION 3\n\nvim /a\n")]
    #[case::without_packages("VERSION 3\nP=http://me:secret@there\n", "")]
    #[case::first_protocol("/a/vim_2_amd64.deb\n", "/a/vim_2_amd64.deb\n")]
    fn what_is_kept_holds_no_configuration(#[case] text: &str, #[case] want: &str) {
        assert_eq!(without_configuration(text), want);
    }

    #[test]
    fn tools_of_the_same_transaction_come_along() {
        let lines = "linux-headers-6.1.0-9-amd64 - - none < 6.1 amd64 none /a/h.deb\n\
                     gcc-12 1 amd64 none < 2 amd64 none /a/g.deb\n\
                     makedev 1 all none < 2 all none /a/makedev.deb\n\
                     zfs-dkms 1 all none < 2 all none /a/z.deb\n\
                     v4l2loopback-dkms 1 all none > - - none **REMOVE**\n\
                     linux-image-6.1.0-9-amd64 - - none < 6.1 amd64 none **CONFIGURE**\n";
        let paths: Vec<String> =
            wanted(&format!("{THREE}{lines}")).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["/a/h.deb", "/a/g.deb", "/a/z.deb"]);
    }
}
