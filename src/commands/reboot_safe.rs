// SPDX-License-Identifier: MIT OR Apache-2.0
//! `reboot-safe`: which kernel boots next, and whether it has what this machine needs. For people
//! and for whatever reboots machines by itself. Changes nothing.

use anyhow::Result;
use serde::Serialize;

use super::critical::needed;
use super::session::Session;
use crate::gate::next_boot::{NextBoot, foretell};
use crate::gate::proof::Proof;
use crate::gate::verdict::Standing;
use crate::kernel::KernelRelease;
use crate::module::Target;

/// The exit codes: as `systemctl is-system-running` and its like, 0 alone is good.
const NOT_SAFE: u8 = 1;
const CANNOT_TELL: u8 = 2;

/// What `--json` prints; the schema's number changes when a field changes its meaning.
#[derive(Debug, Serialize)]
struct Answer {
    schema: u32,
    /// Nothing where nobody can tell.
    safe: Option<bool>,
    /// The kernel that boots next, where it is known.
    kernel: Option<KernelRelease>,
    /// The entry as its menu shows it.
    entry: Option<String>,
    loader: Option<&'static str>,
    /// Why it is not safe, or why nobody can tell.
    reasons: Vec<String>,
}

impl Answer {
    fn headline(&self) -> String {
        let entry = match (&self.loader, &self.entry) {
            (Some(loader), Some(entry)) => format!(" ({loader}: {entry})"),
            _ => String::new(),
        };
        match (self.safe, &self.kernel) {
            (Some(true), Some(kernel)) => {
                format!("Safe: kernel {kernel} boots next{entry} and has what this machine needs.")
            }
            (Some(true), None) => "Safe: every installed kernel has what this machine needs.".to_owned(),
            (Some(false), Some(kernel)) => {
                format!("NOT SAFE: kernel {kernel} boots next{entry} and lacks what this machine needs.")
            }
            (None, Some(kernel)) => {
                format!(
                    "Cannot tell whether kernel {kernel}, which boots next{entry}, has what this machine needs."
                )
            }
            (_, None) => format!("Cannot tell which kernel boots next{entry}."),
        }
    }
}

/// The verb `reboot-safe`; returns the exit code.
pub(super) fn reboot_safe(session: &Session) -> Result<u8> {
    let answer = answer(session)?;
    let report = &session.report;
    if session.options.json {
        report.line(serde_json::to_string_pretty(&answer)?);
    } else {
        report.line(answer.headline());
        for reason in &answer.reasons {
            report.line(format_args!("  {}", reason.replace('\n', "\n  ")));
        }
        if let (Some(false), Some(kernel)) = (answer.safe, &answer.kernel) {
            report.line(format_args!("Mend the cause, then run: dkms autoinstall -k {kernel}"));
        }
    }
    Ok(match answer.safe {
        Some(true) => 0,
        Some(false) => NOT_SAFE,
        None => CANNOT_TELL,
    })
}

fn answer(session: &Session) -> Result<Answer> {
    let (kernel, entry, loader, unknown) = match foretell(&session.tree) {
        NextBoot::Kernel { kernel, title, loader } => (Some(kernel), Some(title), Some(loader), None),
        NextBoot::Other { title, loader } => {
            let why = "the default is not a kernel of this system".to_owned();
            (None, Some(title), Some(loader), Some(why))
        }
        NextBoot::Unknown { why } => (None, None, None, Some(why)),
    };
    let (safe, reasons) = match (&kernel, unknown) {
        (Some(kernel), _) => {
            let proof = look(session, kernel)?;
            let safe = match proof.standing() {
                Standing::Proven => Some(true),
                Standing::Held => Some(false),
                _ => None,
            };
            (safe, proof.reasons())
        }
        (None, Some(why)) if entry.is_some() => (None, vec![why]),
        (None, why) => whichever_boots(session, why.unwrap_or_default())?,
    };
    Ok(Answer { schema: 1, safe, kernel, entry, loader, reasons })
}

/// Where the choice is not known it does not matter if every kernel is fit.
fn whichever_boots(session: &Session, why: String) -> Result<(Option<bool>, Vec<String>)> {
    let mut unfit = Vec::new();
    let kernels = session.tree.installed_kernels()?;
    for kernel in &kernels {
        unfit.extend(look(session, kernel)?.reasons());
    }
    if unfit.is_empty() && !kernels.is_empty() {
        return Ok((Some(true), vec![format!("which of them boots next is not known: {why}")]));
    }
    Ok((None, std::iter::once(why).chain(unfit).collect()))
}

/// Whether a kernel has what this machine needs to boot, as things are now.
fn look(session: &Session, kernel: &KernelRelease) -> Result<Proof> {
    let policy = session.policy()?;
    let target = Target { kernel: kernel.clone(), arch: session.tree.arch.clone() };
    let critical = needed(session, &target, &policy)?;
    if critical.is_empty() {
        return Ok(Proof::default());
    }
    session.gate(&policy).look(kernel, &critical)
}
