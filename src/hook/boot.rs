// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of the machine: `dkms.service`, and `dkms_autoinstaller`, which other software calls
//! by its path.

use anyhow::Result;

use super::target;
use crate::commands::session::Session;
use crate::commands::{Caller, autoinstall, has_been_disabled, mark_booted};
use crate::failure::Failure;

/// The running kernel has come up: note that, and install what it lacks.
pub(super) fn run(session: &Session) -> Result<u8> {
    session.begin_changes()?;
    let kernel = session.running_kernel()?;
    // A replay may be about a kernel that ran before.
    if session.tree.running_kernel()? == kernel {
        mark_booted(session, &kernel)?;
    }
    let done = autoinstall(session, &target(session, kernel), Caller::CommandLine)?;
    if let Some(failure) = &done.prevented {
        session.report.error(failure);
    }
    Ok(u8::from(done.failed || done.prevented.is_some()))
}

/// `dkms_autoinstaller start [KERNEL]`, in the manner of an init script.
pub(super) fn autoinstaller(session: &Session, args: &[String]) -> Result<u8> {
    match args.first().map(String::as_str) {
        Some("start") => {}
        Some("stop" | "restart" | "force-reload" | "status" | "reload") => return Ok(0),
        _ => {
            session.report.err("Usage: dkms_autoinstaller start [KERNEL-VERSION]");
            return Ok(2);
        }
    }
    session.begin_changes()?;
    let kernel = match args.get(1) {
        Some(kernel) => kernel.parse()?,
        None => session.running_kernel()?,
    };
    if has_been_disabled(session) {
        session.report.line("Automatic installation of modules has been disabled.");
        return Ok(0);
    }
    let target = target(session, kernel);
    let done = autoinstall(session, &target, Caller::CommandLine)?;
    if let Some(Failure::HeadersMissing { .. }) = done.prevented {
        session.report.line(format_args!(
            "Automatic installation of modules for kernel {} was skipped since the kernel headers for this kernel do \
             not seem to be installed.",
            target.kernel
        ));
    }
    if done.failed {
        session.report.error(Failure::Autoinstall);
    }
    let held = done.result.as_ref().is_some_and(crate::commands::RunResult::held);
    Ok(u8::from(done.failed || held))
}
