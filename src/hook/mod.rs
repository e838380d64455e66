// SPDX-License-Identifier: MIT OR Apache-2.0
//! What package managers and boot loaders call, one file per protocol: argv and environment to an
//! event, a verdict to that protocol's exit code. Builds nothing itself.

mod boot;
mod debian;
mod grub;
mod kernel_install;
mod package;

use anyhow::{Result, bail};

use crate::commands::session::Session;
use crate::commands::{self, Autoinstalled, Caller};
use crate::conf::policy::OnFailure;
use crate::failure::Failure;
use crate::gate::loader;
use crate::gate::verdict::{Standing, Verdict};
use crate::kernel::KernelRelease;
use crate::module::Target;

/// Carries out what a protocol asks for; the result is the exit code that the caller understands.
pub fn run(session: &Session, protocol: &str, args: &[String]) -> Result<u8> {
    match protocol {
        "kernel-install" => kernel_install::run(session, args),
        "debian" => debian::run(session, args),
        "grub" => grub::run(session),
        "boot" => boot::run(session),
        "autoinstaller" => boot::autoinstaller(session, args),
        "common-postinst" => package::common_postinst(session, args),
        _ => bail!(
            "unknown hook protocol '{protocol}'; known are: kernel-install, debian, grub, boot, autoinstaller, \
             common-postinst"
        ),
    }
}

/// How a kernel's installation stands after our part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// Nothing that this machine needs to boot is missing, as far as we can tell.
    Fine,
    /// The kernel must not become the default.
    Held,
}

/// Brings a kernel's modules up to date, says loudly what failed, and tells how the kernel stands.
/// Failures of modules that the machine can do without are no failures of the hook.
fn bring_up_to_date(session: &Session, target: &Target, caller: Caller) -> Result<Event> {
    session.begin_changes()?;
    let Autoinstalled { result, failed, prevented } = commands::autoinstall(session, target, caller)?;
    if let Some(failure) = &prevented {
        session.report.error(failure);
    }
    let verdict = result.and_then(|result| result.gate).map(|outcome| outcome.verdict);
    if let Some(verdict) = verdict.filter(|verdict| verdict.standing == Standing::Held) {
        // A run on somebody's behalf says so itself.
        if caller == Caller::KernelInstallation {
            announce(session, &verdict)?;
        }
        return Ok(Event::Held);
    }
    if failed || prevented.is_some() {
        session.report.err(format_args!(
            "dkms: WARNING: not every module could be installed for kernel {}. The machine boots without them.\n\
             dkms: Mend the cause (see above), then run: dkms autoinstall -k {}",
            target.kernel, target.kernel
        ));
    }
    Ok(Event::Fine)
}

fn announce(session: &Session, verdict: &Verdict) -> Result<()> {
    let policy = session.policy()?;
    session.gate(&policy).announce(verdict);
    Ok(())
}

/// Whether a held kernel fails the hook, for package managers that offer nothing between success
/// and failure.
fn held_fails(session: &Session) -> Result<bool> {
    Ok(match session.policy()?.on_failure {
        OnFailure::Auto => !loader::holds(&session.tree),
        OnFailure::Hold | OnFailure::Warn => false,
        OnFailure::Abort => true,
    })
}

/// Whether an error means that the kernel must be held: the mark could not be set, or the policy,
/// which may name what the machine needs, cannot be read.
fn holds_by_itself(session: &Session, error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Failure::Gate { .. })) || session.policy().is_err()
}

fn target(session: &Session, kernel: KernelRelease) -> Target {
    Target { kernel, arch: session.tree.arch.clone() }
}
