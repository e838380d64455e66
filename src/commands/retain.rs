// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stays installed although its version goes: while a package is upgraded its old script
//! removes the modules that the machine runs on before anybody knows whether their successors
//! build. They stay until those are in place, or the package is gone.

use anyhow::Result;

use super::record;
use super::session::Session;
use crate::install::weak::{self, Change};
use crate::install::{Placement, depmod};
use crate::module::{ModuleId, State, Target};
use crate::sys::ancestors::{Process, ancestors};
use crate::sys::files;
use crate::tree::retained::Retained;

/// Whether the script that called us belongs to a package that is being upgraded. An unknown caller
/// means what it says.
pub(super) fn package_is_upgraded(session: &Session) -> bool {
    session.tree.root.is_live() && ancestors(&session.tree.path("/proc")).iter().any(is_upgrade)
}

/// `…/NAME.prerm upgrade NEW-VERSION`, of a new package's prerm `failed-upgrade OLD-VERSION`
/// (Debian policy, 6.5; deb-prerm(5)).
fn is_upgrade(process: &Process) -> bool {
    let is_prerm = |word: &String| word.ends_with(".prerm") || word.ends_with("/prerm");
    let at = process.words.iter().position(is_prerm);
    let what = at.and_then(|at| process.words.get(at + 1));
    what.is_some_and(|what| matches!(what.as_str(), "upgrade" | "failed-upgrade"))
}

/// Takes a version that is installed for a kernel out of dkms's tree and leaves its modules there.
pub(super) fn retain(session: &Session, id: &ModuleId, target: &Target) -> Result<()> {
    let place = placement(session, id, target);
    if place.state() != State::Installed {
        return Ok(());
    }
    let _lock = session.tree.lock_module(id, &session.report)?;
    place.retain()?.keep()
}

/// Takes out what stayed installed. `index` says whether to make the kernel's module indexes anew.
pub(super) fn let_go(session: &Session, retained: &Retained, index: bool) -> Result<()> {
    let Retained { id, target, .. } = retained;
    let place = placement(session, id, target);
    weak::announce(session.distribution, &target.kernel, &retained.files, Change::Leaving, &session.report);
    let _lock = session.tree.lock_module(id, &session.report)?;
    place.let_go(retained)?.keep()?;
    record::removed(session, target, id);
    let kernel_dir = session.tree.kernel_dir(&target.kernel);
    for directory in retained.files.iter().filter_map(|file| file.parent()) {
        files::remove_empty_up_to(directory, &kernel_dir);
    }
    if index && !session.options.no_depmod && kernel_dir.is_dir() {
        let _lock = session.tree.lock_kernel(&target.kernel, &session.report)?;
        depmod(&session.tree, &target.kernel, &session.report)?;
    }
    Ok(())
}

fn placement<'a>(session: &'a Session, id: &'a ModuleId, target: &'a Target) -> Placement<'a> {
    Placement { tree: &session.tree, report: &session.report, distribution: session.distribution, id, target }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::upgrade("/bin/sh /var/lib/dpkg/info/zfs-dkms.prerm upgrade 2.2-1", true)]
    #[case::failed_upgrade("/bin/sh /var/lib/dpkg/tmp.ci/prerm failed-upgrade 2.1-1", true)]
    #[case::another_shell("/bin/bash -e /var/lib/dpkg/info/zfs-dkms.prerm upgrade 2.2-1", true)]
    #[case::removal("/bin/sh /var/lib/dpkg/info/zfs-dkms.prerm remove", false)]
    #[case::postinst("/bin/sh /var/lib/dpkg/info/zfs-dkms.postinst configure 2.1-1", false)]
    #[case::apt("apt-get upgrade", false)]
    #[case::somebody("bash", false)]
    fn an_upgrade_is_told_by_dpkgs_words(#[case] line: &str, #[case] want: bool) {
        let words = line.split(' ').map(str::to_owned).collect();
        assert_eq!(is_upgrade(&Process { pid: 2, started: 1, words }), want);
    }
}
