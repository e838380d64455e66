// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the postinst of a `*-dkms` package calls (dh_dkms on Debian, specs elsewhere):
//! `/usr/lib/dkms/common.postinst NAME VERSION TARBALL-DIRECTORY ARCH OLD-VERSION`.

use anyhow::{Result, bail};

use super::held_fails;
use crate::commands::foretell::{self, Kernel};
use crate::commands::session::Session;
use crate::commands::{
    self, Done, Initramfs, has_been_disabled, load_or_register, note_of_scriptlet, report_error,
};
use crate::failure::Failure;
use crate::kernel::KernelRelease;
use crate::module::{Arch, ModuleId, Target};

/// What the arguments mean.
struct Call<'a> {
    id: ModuleId,
    /// Where an archive may lie.
    directory: Option<&'a String>,
    arch: Option<Arch>,
}

fn parse(args: &[String]) -> Result<Call<'_>> {
    let [name, version, rest @ ..] = args else {
        bail!("expected: common.postinst NAME VERSION [TARBALL-DIRECTORY [ARCH [OLD-VERSION]]]");
    };
    let argument = |at: usize| rest.get(at).filter(|word| !word.is_empty());
    let arch = argument(1).map(|word| Arch::new(word)).transpose()?;
    Ok(Call { id: ModuleId::new(name, version)?, directory: argument(0), arch })
}

/// What it would do, but for an archive that may have to be loaded first.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Vec<Kernel>> {
    let Call { id, arch, .. } = parse(args)?;
    let arch = arch.unwrap_or_else(|| session.tree.arch.clone());
    let targets = kernels(session, &[])?.into_iter().map(|kernel| Target { kernel, arch: arch.clone() });
    targets.map(|target| foretell::bring(session, &id, &target, true, true)).collect()
}

pub(super) fn common_postinst(session: &Session, args: &[String]) -> Result<u8> {
    let Call { id, directory, arch } = parse(args)?;
    let report = &session.report;
    // As with dkms the module is not even registered then.
    if has_been_disabled(session) {
        report.line("Automatic installation of modules has been disabled.");
        return Ok(0);
    }
    session.begin_changes()?;
    note_of_scriptlet(session, &id)?;
    // Packages without an archive name a directory that need not be there, or the empty word.
    let (name, version) = (id.name(), id.version());
    let archive =
        directory.map(|directory| session.tree.path(directory).join(format!("{name}-{version}.dkms.tar.gz")));
    let archive = archive.filter(|archive| archive.is_file());
    if archive.is_none() {
        report.line(format_args!("Loading new {id} DKMS files..."));
    }
    let brought = match load_or_register(session, &id, archive.as_deref()) {
        // dkms passes over a package that has brought nothing.
        Err(error) if matches!(error.downcast_ref(), Some(Failure::SourceMissing { .. })) => {
            report
                .warning(format_args!("nothing is built, because {id} has come without its source: {error}"));
            return Ok(0);
        }
        result => result?,
    };
    if !session.load(&id, None)?.conf.autoinstall {
        report.line(format_args!("Not building the {name} module which does not have AUTOINSTALL enabled."));
        return Ok(0);
    }
    let (mut failed, mut held) = (false, false);
    let arch = arch.unwrap_or_else(|| session.tree.arch.clone());
    let ready: Vec<_> =
        brought.iter().filter(|target| target.arch == arch).map(|target| target.kernel.clone()).collect();
    for kernel in kernels(session, &ready)? {
        let target = Target { kernel, arch: arch.clone() };
        report.line(format_args!("\nBuilding initial module {id} for {}", target.kernel));
        let result =
            commands::install_anew(session, &id, &target, brought.contains(&target), Initramfs::Ours)?;
        held |= result.gate.as_ref().is_some_and(|outcome| outcome.holds_for(&id));
        for (_, done) in result.modules {
            match done {
                Done::Failed(error) => {
                    report_error(report, &error);
                    failed = true;
                }
                Done::Skipped(error) => {
                    report_error(report, &error);
                }
                _ => {}
            }
        }
    }
    if failed {
        report.err(format_args!(
            "dkms: WARNING: {id} could not be installed for every kernel (see above).\n\
             dkms: Mend the cause, then run: dkms autoinstall --all-kernels"
        ));
    }
    Ok(u8::from(held && held_fails(session)?))
}

/// The running and the newest kernel, or all of them if the framework says so, or in a chroot,
/// where the running kernel is another system's; as far as they have headers. And all that are there
/// of those that the module is `ready` for: what came built needs no headers.
fn kernels(session: &Session, ready: &[KernelRelease]) -> Result<Vec<KernelRelease>> {
    let report = &session.report;
    // The running one comes first, then from the newest.
    let (mut kernels, bare) = commands::kernels(session)?;
    let is_ready = |kernel: &&KernelRelease| ready.contains(kernel);
    let waiting: Vec<_> = kernels.iter().chain(&bare).filter(is_ready).cloned().collect();
    let running = session.running_kernel().ok();
    match running.clone().filter(|running| kernels.contains(running) || bare.contains(running)) {
        None => report
            .line("The running kernel is not installed here, as in a chroot: building for every kernel."),
        Some(_) if session.framework.autoinstall_all_kernels => {}
        Some(running) if kernels.contains(&running) => kernels.truncate(2),
        Some(running) if ready.contains(&running) => kernels.truncate(1),
        Some(running) => {
            report.line(format_args!(
                "Module build for kernel {running} was skipped since the kernel headers for this kernel do not seem \
                 to be installed."
            ));
            kernels.truncate(1);
        }
    }
    for kernel in waiting {
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
    }
    if kernels.is_empty() {
        report.line("WARNING: No kernel headers were found, skipping module build.");
        let wanted = bare.iter().find(|kernel| running.as_ref() == Some(kernel)).or(bare.first());
        if let Some(advice) = wanted.and_then(|kernel| session.distribution.headers_advice(kernel)) {
            report.line(advice);
        }
    } else {
        let names: Vec<&str> = kernels.iter().map(KernelRelease::as_str).collect();
        report.line(format_args!("Building for {}", names.join(", ")));
    }
    Ok(kernels)
}
