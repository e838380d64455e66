// SPDX-License-Identifier: MIT OR Apache-2.0
//! What package managers and boot loaders call, one file per protocol: argv and environment to an
//! event, a verdict to that protocol's exit code. Builds nothing itself.

mod alpine;
mod apt;
mod boot;
mod clear;
mod debian;
mod dnf;
mod dnf5;
mod gentoo;
mod grub;
mod image;
mod kernel_install;
mod package;
mod pacman;
mod preflight;
mod replay;
mod rpm;
mod void;

use anyhow::{Error, Result, anyhow};

use crate::cli::{Action, PROTOCOLS};
use crate::commands::after::After;
use crate::commands::record;
use crate::commands::session::Session;
use crate::commands::{self, Autoinstalled, Caller};
use crate::conf::policy::OnFailure;
use crate::failure::Failure;
use crate::gate::verdict::{Standing, Verdict};
use crate::gate::{bls, is_off, loader, notices};
use crate::kernel::KernelRelease;
use crate::module::Target;
use crate::sys::root::Root;

/// Carries out an action and writes down what it did; the result is the exit code. Errors are said.
pub fn carry_out(session: &Session, action: Action) -> u8 {
    let done = match action {
        Action::Hook { protocol, args } => run(session, &protocol, &args),
        Action::Replay { what, dry_run } => replay::replay(session, what, dry_run),
        action => commands::execute(session, action),
    };
    let code = done.unwrap_or_else(|error| commands::report_error(&session.report, &error));
    record::end(session, code);
    code
}

/// What a package manager names on standard input, as far as its protocol is told of it: packages,
/// directories, kernels. Needs no session and looks at nothing else.
pub fn named(protocol: &str, input: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(input);
    match protocol {
        "apt" => apt::named(&text),
        "dnf" => dnf::named(&text),
        "dnf5" => dnf5::named(input),
        "pacman" => pacman::named(&text),
        "rpm" => rpm::named(&text),
        _ => Vec::new(),
    }
}

/// Carries out what a protocol asks for; the result is the exit code that the caller understands.
fn run(session: &Session, protocol: &str, args: &[String]) -> Result<u8> {
    if is_off(&session.tree.root)
        && let Err(error) = bls::put_back_all(&session.tree)
    {
        session.report.warning(format_args!("putting held boot entries back, ignoring: {error:#}"));
    }
    let done = match protocol {
        "apt" => apt::run(session, args),
        "image" => image::run(session, args),
        "clear" => clear::run(session, args),
        "kernel-install" => kernel_install::run(session, args),
        "debian" => debian::run(session, args),
        "grub" => grub::run(session),
        "boot" => boot::run(session),
        "pacman" => pacman::run(session, args),
        "uninstall" => uninstall(session),
        "rpm" => rpm::run(session, args),
        "dnf" => dnf::run(session, args),
        "dnf5" => dnf5::run(session, args),
        "gentoo" => gentoo::run(session, args),
        "void" => void::run(session, args),
        "alpine" => alpine::run(session, args),
        "trial" => preflight::trial(session),
        "autoinstaller" => boot::autoinstaller(session, args),
        "common-postinst" => package::common_postinst(session, args),
        _ => Err(unknown(protocol)),
    };
    match done {
        Err(error) if preflight::only_tries(protocol, args) => Ok(preflight::not_tried(session, &error)),
        done => done,
    }
}

fn unknown(protocol: &str) -> Error {
    anyhow!("unknown hook protocol '{protocol}'; known are: {}", PROTOCOLS.join(", "))
}

/// Our package is about to go: nothing of a hold stays behind, but for the menu of GRUB, which is
/// made anew once we are gone.
fn uninstall(session: &Session) -> Result<u8> {
    bls::put_back_all(&session.tree)?;
    notices::clear(&session.tree)?;
    Ok(0)
}

/// How a kernel's installation stands after our part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// Nothing that this machine needs to boot is missing, as far as we can tell.
    Fine,
    /// The kernel must not become the default.
    Held,
}

/// Whether an action is a question that is to be answered whatever is wrong: unanswered, GRUB's
/// would release what is held. A shell's is often about words that need no configuration.
pub fn only_asks(action: &Action) -> bool {
    match action {
        Action::Hook { protocol, .. } => protocol == "grub",
        action => matches!(action, Action::Complete(_)),
    }
}

/// Whether a package manager waits for this: what it has begun must not end half way.
pub fn works_for_package_manager(action: &Action) -> bool {
    let is_called_by_script = std::env::var_os("DPKG_MAINTSCRIPT_PACKAGE").is_some();
    matches!(action, Action::Hook { .. }) || is_called_by_script
}

/// The exit code of a hook that could not even begin (a configuration that cannot be read), after
/// the error has been said; nothing if it fails as any command does. What removes a kernel
/// must not be in the way, nor what only tries; a kernel that nobody looked at gets no boot entry.
pub fn code_without_session(root: &Root, protocol: &str, args: &[String]) -> Option<u8> {
    match (protocol, args.first().map(String::as_str), args.get(1).map(String::as_str)) {
        ("kernel-install", _, Some("add")) | ("gentoo", ..) if !is_off(root) => {
            Some(kernel_install::SKIP_LATER)
        }
        ("kernel-install" | "gentoo", ..)
        | ("debian", Some("preinst" | "prerm"), _)
        | ("void", Some("pre-remove"), _) => Some(0),
        _ => preflight::only_tries(protocol, args).then_some(0),
    }
}

/// Brings a kernel's modules up to date, says loudly what failed, and tells how the kernel stands.
/// Failures of modules that the machine can do without are no failures of the hook; what kept us
/// from working at all is one of a kernel that cannot do without.
fn bring_up_to_date(session: &Session, target: &Target, caller: Caller) -> Result<Event> {
    let error = match try_to_bring_up(session, target, caller) {
        Ok(event) => return Ok(event),
        Err(error) if holds_by_itself(session, &error) => return Err(error),
        Err(error) => error,
    };
    match commands::hold_unproven(session, target, caller) {
        Ok(true) => {
            commands::report_error(&session.report, &error);
            session.report.err(format_args!(
                "dkms: WARNING: kernel {} is held: what it needs to boot could not be looked at.\n\
                 dkms: Mend the cause, then run: dkms autoinstall -k {}",
                target.kernel, target.kernel
            ));
            Ok(Event::Held)
        }
        Err(unmarked) if holds_by_itself(session, &unmarked) => {
            commands::report_error(&session.report, &error);
            Err(unmarked)
        }
        _ => Err(error),
    }
}

/// The same for a protocol that knows success and failure.
fn installed(session: &Session, kernel: KernelRelease, caller: Caller) -> Result<u8> {
    match bring_up_to_date(session, &target(session, kernel), caller) {
        Ok(Event::Fine) => Ok(0),
        Ok(Event::Held) => Ok(u8::from(held_fails(session)?)),
        Err(error) => {
            commands::report_error(&session.report, &error);
            Ok(u8::from(holds_by_itself(session, &error)))
        }
    }
}

fn try_to_bring_up(session: &Session, target: &Target, caller: Caller) -> Result<Event> {
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

/// Lets those go on who come after us, and tells the exit code: 1 for a kernel that they leave unfit.
fn go_on(session: &Session, after: After) -> Result<u8> {
    Ok(u8::from(!after.call(session)?))
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
    match session.policy() {
        _ if is_off(&session.tree.root) => false,
        Ok(policy) if policy.on_failure == OnFailure::Warn => false,
        Ok(_) => matches!(error.downcast_ref(), Some(Failure::Gate { .. })),
        Err(_) => true,
    }
}

fn target(session: &Session, kernel: KernelRelease) -> Target {
    Target { kernel, arch: session.tree.arch.clone() }
}
