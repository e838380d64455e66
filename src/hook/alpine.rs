// SPDX-License-Identifier: MIT OR Apache-2.0
//! Alpine Linux's kernel hooks: `/etc/kernel-hooks.d`, run by the trigger of its package kernel-hooks
//! once everything is unpacked, with the kernel's flavor, its new version and its old one; one that is
//! not there is empty. Nobody is sure to come after us.

use anyhow::{Context, Result, bail};

use super::{installed, target};
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::commands::{Caller, kernel_gone};
use crate::kernel::KernelRelease;

/// A flavor's kernels: the one that has come and the one that has gone.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    new: Option<KernelRelease>,
    old: Option<KernelRelease>,
}

fn parse(args: &[String]) -> Result<Change> {
    let [flavor, new, old] = args else { bail!("expected: hook alpine FLAVOR NEW-VERSION OLD-VERSION") };
    let release = |version: &String| {
        let release = (!version.is_empty()).then(|| format!("{version}-{flavor}").parse());
        release.transpose().context("reading the kernel hook's arguments")
    };
    Ok(Change { new: release(new)?, old: release(old)? })
}

/// Fails for a kernel that is held: there is no later hook for the boot loader, and the old kernel has
/// gone already.
pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let Change { new, old } = parse(args)?;
    let code = new.clone().map_or(Ok(0), |kernel| installed(session, kernel, Caller::CommandLine));
    if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
        kernel_gone(session, &old);
    }
    code
}

/// What it would do.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Vec<Kernel>> {
    let Change { new, old } = parse(args)?;
    let new = new.map(|kernel| foretell::autoinstall(session, &target(session, kernel), &Afterwards::Ours));
    let old = old.map(|kernel| foretell::removal(session, &target(session, kernel), None));
    new.into_iter().chain(old).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::upgraded(&["lts", "6.6.30-0", "6.6.28-0"], Some("6.6.30-0-lts"), Some("6.6.28-0-lts"))]
    #[case::installed(&["virt", "6.6.30-0", ""], Some("6.6.30-0-virt"), None)]
    #[case::removed(&["lts", "", "6.6.28-0"], None, Some("6.6.28-0-lts"))]
    fn releases_are_versions_with_the_flavor(
        #[case] args: &[&str],
        #[case] new: Option<&str>,
        #[case] old: Option<&str>,
    ) {
        let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
        let release = |word: Option<&str>| word.map(|word| word.parse().unwrap());
        assert_eq!(parse(&args).unwrap(), Change { new: release(new), old: release(old) });
    }

    #[rstest]
    #[case::too_few(&["lts", "6.6.30-0"])]
    #[case::no_release(&["lts", "../6.6", ""])]
    fn other_arguments_are_refused(#[case] args: &[&str]) {
        let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
        assert!(parse(&args).is_err());
    }
}
