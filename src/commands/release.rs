// SPDX-License-Identifier: MIT OR Apache-2.0
//! `gate release KERNEL`: an administrator lets a kernel go that has become fit, or boots it as it
//! is (`--force`).

use anyhow::{Result, bail};

use super::record;
use super::session::Session;
use crate::failure::Failure;
use crate::gate::verdict::{Standing, Verdict};
use crate::gate::{Outcome, loader};
use crate::kernel::KernelRelease;

/// Returns the exit code: 1 if the kernel stays as it is.
pub(super) fn release(session: &Session, kernel: &KernelRelease) -> Result<u8> {
    session.begin_changes()?;
    let (tree, report) = (&session.tree, &session.report);
    let policy = session.policy()?;
    let gate = session.gate(&policy);
    let Some(verdict) = gate.reprove(kernel)? else {
        bail!(
            "kernel {kernel} is not held: nobody has judged it (dkms gate lists the kernels that have a verdict)"
        )
    };
    match verdict.standing {
        Standing::Proven => report.line(format_args!("Kernel {kernel} has what this machine needs to boot.")),
        Standing::Released => report.line(format_args!("Kernel {kernel} has been released already.")),
        Standing::Held | Standing::Pending if !session.options.force => {
            let failure = Failure::Gate { kernel: kernel.to_string(), reasons: verdict.reasons };
            report.error(format_args!(
                "{failure}\nTo boot it all the same: dkms gate release {kernel} --force"
            ));
            return Ok(failure.code());
        }
        Standing::Held | Standing::Pending => {
            let critical = verdict.critical.clone();
            let inputs = gate.look(kernel, &critical)?.inputs;
            let reasons = verdict.reasons;
            let before = Some(verdict.standing);
            let verdict =
                Verdict::now(kernel, Standing::Held, reasons, critical).reached_from(inputs).released();
            verdict.store(tree)?;
            record::judged(session, &Outcome { verdict, before });
            report.line(format_args!(
                "Kernel {kernel} may boot as it is, until its modules or its initramfs change."
            ));
        }
    }
    loader::release(tree, kernel, report)?;
    Ok(0)
}
