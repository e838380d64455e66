// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Debian `*-dkms` package's postinst calls: `/usr/lib/dkms/common.postinst NAME VERSION
//! TARBALL-DIRECTORY ARCH OLD-VERSION`.

use anyhow::{Result, bail};

use super::{held_fails, target};
use crate::commands::session::Session;
use crate::commands::{Done, has_been_disabled, install_one, load_or_register, report_error};
use crate::kernel::KernelRelease;
use crate::module::ModuleId;

pub(super) fn common_postinst(session: &Session, args: &[String]) -> Result<u8> {
    let [name, version, rest @ ..] = args else {
        bail!("expected: common.postinst NAME VERSION [TARBALL-DIRECTORY [ARCH [OLD-VERSION]]]");
    };
    let id = ModuleId::new(name, version)?;
    session.begin_changes()?;
    // Packages without an archive name a directory that need not be there, or the empty word.
    let directory = rest.first().filter(|directory| !directory.is_empty());
    let archive =
        directory.map(|directory| session.tree.path(directory).join(format!("{name}-{version}.dkms.tar.gz")));
    load_or_register(session, &id, archive.as_deref())?;
    if has_been_disabled(session) {
        session.report.line("Automatic installation of modules has been disabled.");
        return Ok(0);
    }
    let (mut failed, mut held) = (false, false);
    for kernel in kernels(session)? {
        let build = session.tree.kernel_dir(&kernel).join("build");
        if !build.exists() {
            session.report.line(format_args!(
                "Module build for kernel {kernel} was skipped since the kernel headers for this kernel do not seem to \
                 be installed."
            ));
            continue;
        }
        let result = install_one(session, &id, &target(session, kernel))?;
        held |= result.gate.as_ref().is_some_and(|outcome| outcome.holds_for(&id));
        for (_, done) in result.modules {
            match done {
                Done::Failed(error) => {
                    report_error(&session.report, &error);
                    failed = true;
                }
                Done::Skipped(error) => {
                    report_error(&session.report, &error);
                }
                _ => {}
            }
        }
    }
    if failed {
        session.report.err(format_args!(
            "dkms: WARNING: {id} could not be installed for every kernel (see above).\n\
             dkms: Mend the cause, then run: dkms autoinstall"
        ));
    }
    Ok(u8::from(held && held_fails(session)?))
}

/// The running and the newest kernel, or all of them if the framework says so. In a chroot the
/// running kernel is another system's.
fn kernels(session: &Session) -> Result<Vec<KernelRelease>> {
    let installed = session.tree.installed_kernels()?;
    if session.framework.autoinstall_all_kernels {
        return Ok(installed);
    }
    let running = session.tree.running_kernel().ok().filter(|kernel| installed.contains(kernel));
    let newest = installed.last().cloned();
    let mut kernels: Vec<KernelRelease> = running.into_iter().chain(newest).collect();
    kernels.dedup();
    if kernels.is_empty() {
        session.report.line("No kernel is installed that modules could be built for.");
    }
    Ok(kernels)
}
