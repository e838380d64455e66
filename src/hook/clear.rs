// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clear Linux: a unit of update-triggers.target runs after every update of the system. Kernels
//! that became defaults get their modules, and only if none of them is held is the boot loader
//! updated, which swupd leaves to us.

use anyhow::{Result, bail};

use super::{Event, bring_up_to_date, holds_by_itself, target};
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::commands::{Caller, kernel_gone, report_error};
use crate::conf::policy::OnFailure;
use crate::gate::{clear, loader};

/// Fails if a kernel is held, because systemd keeps failed units in sight and nothing waits for
/// this one.
pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    if args != ["new-kernel"] {
        bail!("expected: hook clear new-kernel");
    }
    let mut held = Vec::new();
    for kernel in clear::defaults(&session.tree)? {
        let target = target(session, kernel.clone());
        match bring_up_to_date(session, &target, Caller::KernelInstallation) {
            Ok(Event::Fine) => {}
            Ok(Event::Held) => held.push(kernel),
            Err(error) => {
                report_error(&session.report, &error);
                if holds_by_itself(session, &error) {
                    held.push(kernel);
                }
            }
        }
    }
    let boots_anyway = session.policy().is_ok_and(|policy| policy.on_failure == OnFailure::Warn);
    if !held.is_empty() && !boots_anyway {
        let names: Vec<String> = held.iter().map(ToString::to_string).collect();
        session.report.err(format_args!(
            "dkms: the boot loader is not updated while a kernel is held: {}",
            names.join(", ")
        ));
        return Ok(1);
    }
    loader::update_clear(&session.tree, &session.report)?;
    // Not before: what is held may leave only one of them to boot.
    sweep(session);
    Ok(0)
}

/// What it would do.
pub(super) fn foretell(session: &Session) -> Result<Vec<Kernel>> {
    let after = Afterwards::Called("clr-boot-manager update".to_owned());
    let kernels = clear::defaults(&session.tree)?;
    kernels
        .iter()
        .map(|kernel| foretell::autoinstall(session, &target(session, kernel.clone()), &after))
        .collect()
}

/// Removes what was built for kernels that are gone: swupd knows nothing of it.
fn sweep(session: &Session) {
    let running = session.tree.running_kernel().ok();
    let mut kernels: Vec<_> = session
        .tree
        .ids()
        .unwrap_or_default()
        .iter()
        .flat_map(|id| session.tree.targets(id))
        .map(|target| target.kernel)
        .collect();
    kernels.sort_by(|a, b| crate::kernel::compare_versions(a.as_str(), b.as_str()));
    kernels.dedup();
    for kernel in kernels {
        // Kernels that clr-boot-manager does not know are somebody else's business.
        let is_one_of_its = kernel.as_str().rsplit_once('.').is_some_and(|(_, kind)| {
            session.tree.path("/usr/lib/kernel").join(format!("default-{kind}")).is_symlink()
        });
        let is_there = clear::has(&session.tree, &kernel).unwrap_or(true);
        if is_one_of_its && !is_there && Some(&kernel) != running.as_ref() {
            kernel_gone(session, &kernel);
        }
    }
}
