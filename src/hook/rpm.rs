// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trigger of our rpm package on headers of kernels below /usr/src, with their paths on standard
//! input (rpm's manual, "File triggers"). rpm only reports a failure; by then everything is installed.
//! Where kernels come with kernel-install it brings what comes later; on SUSE, where nothing else calls
//! us, all of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use super::replay::afterwards;
use super::{Event, bring_up_to_date, go_on, held_fails, holds_by_itself, target};
use crate::commands::after::After;
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::commands::{Caller, report_error};
use crate::gate::loader;
use crate::gate::verdict::Verdict;
use crate::kernel::KernelRelease;

/// Where Fedora and its kin put what modules are built against, by kernel release.
const HEADERS: &str = "/usr/src/kernels/";

/// Where SUSE puts it: `linux-VERSION-RELEASE-obj/ARCHITECTURE/FLAVOR`.
const OBJECTS: (&str, &str) = ("/usr/src/linux-", "-obj");

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    if args != ["headers"] {
        bail!("expected: hook rpm headers");
    }
    headers_came(session)
}

/// Kernels get what they lacked for want of headers. Those that are still to come get it from
/// kernel-install, which their own scripts call, and need nothing of us once they have.
fn headers_came(session: &Session) -> Result<u8> {
    let mut code = 0;
    for kernel in come(session)? {
        let after = after(session, &kernel);
        let caller = caller(session, &kernel, after.as_ref());
        let brought = bring_up_to_date(session, &target(session, kernel), caller);
        let done = brought.and_then(|event| match (event, after) {
            (Event::Held, _) => Ok(u8::from(held_fails(session)?)),
            (Event::Fine, Some(after)) => go_on(session, after),
            (Event::Fine, None) => Ok(0),
        });
        code |= done.unwrap_or_else(|error| {
            report_error(&session.report, &error);
            u8::from(holds_by_itself(session, &error))
        });
    }
    Ok(code)
}

/// What a trigger would do.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Vec<Kernel>> {
    if args != ["headers"] {
        bail!("expected: hook rpm headers");
    }
    let would = |kernel: KernelRelease| {
        let after = after(session, &kernel);
        let later = match caller(session, &kernel, after.as_ref()) {
            Caller::KernelInstallation if after.is_none() => Afterwards::Later,
            _ => afterwards(after.as_ref()),
        };
        foretell::autoinstall(session, &target(session, kernel), &later)
    };
    come(session)?.into_iter().map(would).collect()
}

/// The releases of the headers that have come.
pub(super) fn named(text: &str) -> Vec<String> {
    directories(text).lines().filter_map(|path| Some(headers_of(path)?.1)).collect()
}

/// The installed kernels whose headers have come.
fn come(session: &Session) -> Result<Vec<KernelRelease>> {
    let text = session.recorder.call.stdin(directories).context("reading the paths of the trigger")?;
    let named: BTreeSet<_> = text.lines().filter_map(|path| headers_of(path)?.1.parse().ok()).collect();
    Ok(named.into_iter().filter(|kernel: &KernelRelease| session.tree.kernel_dir(kernel).is_dir()).collect())
}

/// The directories of headers that thousands of paths lie in.
fn directories(paths: &str) -> String {
    let found: BTreeSet<String> =
        paths.lines().filter_map(headers_of).map(|(directory, _)| directory + "\n").collect();
    found.into_iter().collect()
}

/// The directory of headers that a file lies in, and the release that they are of.
fn headers_of(path: &str) -> Option<(String, String)> {
    if let Some(below) = path.strip_prefix(HEADERS) {
        let release = below.split('/').next().filter(|name| !name.is_empty())?;
        return Some((format!("{HEADERS}{release}"), release.to_owned()));
    }
    let mut parts = path.strip_prefix(OBJECTS.0)?.splitn(4, '/');
    let (version, architecture) = (parts.next()?.strip_suffix(OBJECTS.1)?, parts.next()?);
    let flavor = parts.next().filter(|name| !name.is_empty())?;
    let (begin, end) = OBJECTS;
    Some((format!("{begin}{version}{end}/{architecture}/{flavor}"), format!("{version}-{flavor}")))
}

/// kernel-install, for a kernel that it was kept from publishing: its plugins make the initramfs
/// and the entry.
fn after(session: &Session, kernel: &KernelRelease) -> Option<After> {
    let known = Verdict::load(&session.tree, kernel);
    let waits = known.map_or(true, |verdict| verdict.is_some_and(|verdict| !verdict.standing.may_boot()));
    if waits { After::kernel_install(session, kernel, None, &[]) } else { None }
}

fn caller(session: &Session, kernel: &KernelRelease, after: Option<&After>) -> Caller {
    let has_image = loader::kernel_image(&session.tree, kernel).is_some();
    if after.is_none() && has_image { Caller::CommandLine } else { Caller::KernelInstallation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing("", "")]
    #[case::one_of_many_files(
        "/usr/src/kernels/6.9.1-100.fc40.x86_64/Makefile\n/usr/src/kernels/6.9.1-100.fc40.x86_64\n/usr/src/kernels/6.9.1-100.fc40.x86_64/include/a.h\n",
        "/usr/src/kernels/6.9.1-100.fc40.x86_64\n"
    )]
    #[case::two("/usr/src/kernels/b/x\n/usr/src/kernels/a/x\n", "/usr/src/kernels/a\n/usr/src/kernels/b\n")]
    #[case::the_directory_itself("/usr/src/kernels/\n/usr/src/kernels\n", "")]
    #[case::elsewhere("/usr/src/foo-1.0/dkms.conf\n", "")]
    #[case::of_suse(
        "/usr/src/linux-6.4.0-150600.21-obj/x86_64\n/usr/src/linux-6.4.0-150600.21-obj/x86_64/default/.config\n",
        "/usr/src/linux-6.4.0-150600.21-obj/x86_64/default\n"
    )]
    #[case::sources_of_suse("/usr/src/linux-6.4.0-150600.21/Makefile\n", "")]
    fn kernels_are_told_by_the_directories_of_their_headers(#[case] paths: &str, #[case] want: &str) {
        assert_eq!(directories(paths), want);
    }

    #[rstest]
    #[case::fedoras("/usr/src/kernels/6.9.1-100.fc40.x86_64/Makefile", "6.9.1-100.fc40.x86_64")]
    #[case::suses("/usr/src/linux-6.4.0-150600.21-obj/x86_64/default/.config", "6.4.0-150600.21-default")]
    fn releases_are_told_by_where_headers_are(#[case] path: &str, #[case] want: &str) {
        assert_eq!(headers_of(path).unwrap().1, want);
    }
}
