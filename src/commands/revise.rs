// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verdicts that are looked at again outside of a run, because something has changed: an image was
//! made without us, modules were taken away, the kernel has booted.

use anyhow::Result;

use super::critical::critical;
use super::gate::{deny, release};
use super::record;
use super::session::Session;
use crate::conf::policy::OnFailure;
use crate::gate::proof::prove;
use crate::gate::verdict::{Critical, Standing, Verdict};
use crate::gate::{Gate, Outcome};
use crate::kernel::KernelRelease;
use crate::module::Target;
use crate::sys::files;

/// After a boot: a kernel that has come up with its critical modules loaded is proven.
pub fn mark_booted(session: &Session, kernel: &KernelRelease) -> Result<()> {
    let Some(known) =
        Verdict::load(&session.tree, kernel)?.filter(|known| known.standing != Standing::Proven)
    else {
        return Ok(());
    };
    let loaded = files::read_if_there(&session.tree.path("/proc/modules"))?.unwrap_or_default();
    let names: Vec<&str> = loaded.lines().filter_map(|line| line.split(' ').next()).collect();
    let is_loaded = |module: &String| names.contains(&crate::module_file::canonical(module).as_str());
    if known.critical.iter().all(|critical| critical.modules.iter().all(is_loaded)) {
        let policy = session.policy()?;
        let image = session.gate(&policy).image_now(kernel);
        let inputs = prove(&session.tree, kernel, &known.critical, &image)?.inputs;
        let proven = Verdict::now(kernel, Standing::Proven, Vec::new(), known.critical);
        let verdict = proven.reached_from(inputs);
        verdict.store(&session.tree)?;
        record::judged(session, &Outcome { verdict, before: Some(known.standing) });
        session
            .report
            .line(format_args!("Kernel {kernel} has booted with what this machine needs: it is proven."));
    }
    Ok(())
}

/// An image has changed without us: the kernel is looked at again, and the boot loader is told of
/// what has become of it. `updated_after_us` says that somebody updates the boot loader anyway.
pub fn look_again(session: &Session, kernel: &KernelRelease, updated_after_us: bool) -> Result<()> {
    let policy = session.policy()?;
    let gate = session.gate(&policy);
    let Some(before) = Verdict::load(&session.tree, kernel)?.map(|verdict| verdict.standing) else {
        return Ok(());
    };
    let Some(verdict) = gate.reprove(kernel)? else { return Ok(()) };
    tell_loader(session, &gate, kernel, &Outcome { verdict, before: Some(before) }, updated_after_us)
}

/// Modules were taken away. Kernels that were judged by them are judged anew: one that lacks now
/// what it needs loses the default, one that waited for what nobody wants any more gets it.
pub(super) fn look_after_removal(session: &Session) {
    let verdicts = Verdict::all(&session.tree).unwrap_or_else(|error| {
        session.report.warning(format_args!("looking at kernels again, ignoring: {error:#}"));
        Vec::new()
    });
    for known in verdicts {
        if let Err(error) = judge_anew(session, &known) {
            session
                .report
                .warning(format_args!("looking at kernel {} again, ignoring: {error:#}", known.kernel));
        }
    }
}

fn judge_anew(session: &Session, known: &Verdict) -> Result<()> {
    let (kernel, policy) = (&known.kernel, session.policy()?);
    let gate = session.gate(&policy);
    let target = Target { kernel: kernel.clone(), arch: session.tree.arch.clone() };
    let needed = critical(session, &target, &policy)?;
    if needed == known.critical {
        return look_again(session, kernel, false);
    }
    known.critical.iter().filter(|gone| is_missed(gone, &needed)).for_each(|gone| {
        session.report.warning(format_args!(
            "{} is not registered any more, but kernel {kernel} needs it to boot this machine ({}).",
            gone.name, gone.because
        ));
    });
    let image = gate.image_now(kernel);
    match gate.settle(kernel, &needed, &image, &[], Some(known.standing))? {
        Some(outcome) => tell_loader(session, &gate, kernel, &outcome, false),
        None => Ok(()),
    }
}

/// Whether the machine itself was seen to need it, which no removal changes.
fn is_missed(gone: &Critical, needed: &[Critical]) -> bool {
    gone.needs_initramfs.is_some() && needed.iter().all(|still| still.name != gone.name)
}

/// Takes the default from a kernel that has become unfit, or lets one go that has become fit.
fn tell_loader(
    session: &Session,
    gate: &Gate<'_>,
    kernel: &KernelRelease,
    outcome: &Outcome,
    updated_after_us: bool,
) -> Result<()> {
    record::judged(session, outcome);
    let before_may_boot = outcome.before.is_some_and(Standing::may_boot);
    if gate.is_off() || gate.policy.on_failure == OnFailure::Warn {
        return Ok(());
    }
    if before_may_boot && !outcome.verdict.standing.may_boot() {
        gate.announce(&outcome.verdict);
        deny(session, kernel, outcome);
    }
    if updated_after_us { Ok(()) } else { release(session, kernel, outcome) }
}
