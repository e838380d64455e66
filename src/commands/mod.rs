// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file per verb: orchestration of the rooms below. Parses no text and runs no tool itself.

mod add;
pub mod after;
mod attempts;
mod autoinstall;
pub mod call;
mod complete;
mod critical;
mod doctor;
mod each;
mod engine;
pub mod foretell;
mod gate;
mod generate_mok;
mod install;
mod items;
mod kernel;
pub mod log;
mod make_package;
mod match_kernels;
mod pack;
mod post_transaction;
mod push;
mod reboot_safe;
pub mod record;
mod release;
mod remove;
mod retain;
mod revise;
mod rpm;
mod rpm_upgrade;
mod run;
mod select;
pub mod session;
mod status;
mod tarball;
mod trial;
mod verify;

use anyhow::Result;

use crate::cli::{Action, ModuleArg, usage};
use crate::failure::Failure;
use crate::sys::report::Report;
use crate::sys::signals;
use session::Session;

pub use add::{identify, register_if_missing};
pub use autoinstall::{Autoinstalled, Caller, autoinstall, has_been_disabled, kernels};
pub use gate::{grub_script, hold_unproven, mark_pending, prove_installed};
pub use install::install_anew;
pub use items::Done;
pub use kernel::kernel_gone;
pub use remove::{let_go_without_successor, retain_source};
pub use revise::{look_again, mark_booted};
pub use rpm_upgrade::note_of_scriptlet;
pub use run::{Initramfs, RunResult};
pub use tarball::load_or_register;
pub use trial::{Answer, Request, Tried, try_transaction};

/// Carries out an action; the result is the exit code, an error is for [`report_error`].
pub fn execute(session: &Session, action: Action) -> Result<u8> {
    match action {
        Action::Help => session.report.out(usage::text()),
        Action::Version => session.report.line(format_args!("dkms-{}", crate::VERSION)),
        Action::Status { module, targets } => status::status(session, module.as_ref(), &targets)?,
        Action::Gate { release: None } => gate::show(session)?,
        Action::Gate { release: Some(kernel) } => return release::release(session, &kernel),
        Action::RebootSafe => return reboot_safe::reboot_safe(session),
        Action::Verify { module, targets } => return verify::verify(session, module.as_ref(), &targets),
        Action::Complete(question) => complete::complete(session, &question)?,
        Action::Critical { targets } => critical::show(session, &targets)?,
        Action::Log { run } => log::log(session, run)?,
        Action::Doctor { repair } => return doctor::doctor(session, repair),
        // Protocols have a front of their own, and so have those who call them again.
        Action::Hook { .. } | Action::Replay { .. } => {}
        Action::Add { module } => {
            session.begin_changes()?;
            add::add(session, &module)?;
        }
        Action::Build { module, targets } => return install::build(session, &module, &targets),
        Action::Install { module, targets } => return install::install(session, &module, &targets),
        Action::Unbuild { module, targets, all } => return remove::unbuild(session, &module, &targets, all),
        Action::Uninstall { module, targets, all } => {
            return remove::uninstall(session, &module, &targets, all);
        }
        Action::Remove { module, targets, all } => return remove::remove(session, &module, &targets, all),
        Action::Mktarball { module, targets, all, content, archive } => {
            let wish = tarball::Wish {
                module: &module,
                targets: &targets,
                all,
                content,
                archive: archive.as_deref(),
            };
            tarball::make(session, &wish)?;
        }
        Action::MakePackage { kind, module, targets, all, content } => {
            make_package::make(
                session,
                &module,
                kind,
                &make_package::Wish { targets: &targets, all, content },
            )?;
        }
        Action::Ldtarball { archive } => {
            session.begin_changes()?;
            let module = ModuleArg::Archive(archive);
            add::add(session, &module)?;
        }
        Action::Mkdriverdisk { module, targets, all, disk } => {
            let wish = pack::Wish { module: &module, targets: &targets, all };
            pack::driver_disk(session, &wish, &disk)?;
        }
        Action::Mksysext { module, targets, all, extension } => {
            let wish = pack::Wish { module: &module, targets: &targets, all };
            pack::sysext(session, &wish, &extension)?;
        }
        Action::Match { template, module, targets } => {
            return match_kernels::match_kernels(session, &template, module.as_ref(), &targets);
        }
        Action::Autoinstall { targets } | Action::KernelPostinst { targets } => {
            session.begin_changes()?;
            let target = session.one_target(&targets)?;
            autoinstall::autoinstall(session, &target, Caller::CommandLine)?.into_result()?;
        }
        Action::AutoinstallAll => return autoinstall::all_kernels(session),
        Action::GenerateMok { targets } => return generate_mok::generate_mok(session, &targets),
        Action::Push { module, targets, to } => {
            return push::push(session, module.as_ref(), &targets, to.as_ref());
        }
        Action::GenerateStoreKey => push::generate_key(session)?,
        Action::KernelPreinst { targets } => {
            session.begin_changes()?;
            kernel::preinst(session, &session.one_target(&targets)?)?;
        }
        Action::KernelPrerm { targets } => {
            session.begin_changes()?;
            kernel::prerm(session, &session.one_target(&targets)?)?;
        }
    }
    Ok(0)
}

/// Prints an error in dkms's form and returns the exit code that goes with it.
pub fn report_error(report: &Report, error: &anyhow::Error) -> u8 {
    if let Some(signal) = signals::caught() {
        report.error(format_args!("Stopped by signal {signal}; what was under way has been rolled back."));
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    let Some(failure) = error.downcast_ref::<Failure>() else {
        report.error(format_args!("{error:#}"));
        return 1;
    };
    match failure {
        Failure::BadConf { problems, .. } => {
            problems.iter().for_each(|problem| report.err(problem));
            report.error(failure);
        }
        Failure::Excluded { .. } => report.warning(failure),
        _ => report.error(failure),
    }
    failure.code()
}
