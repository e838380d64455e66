// SPDX-License-Identifier: MIT OR Apache-2.0
//! `gate`, and what runs and hooks ask of the gate: verdicts outside a run, the release of a
//! kernel that has become fit, GRUB's question for the default.

use std::io::Read;

use anyhow::Result;
use serde::Serialize;

use super::autoinstall::Caller;
use super::critical::critical;
use super::record;
use super::run::{Initramfs, RunResult};
use super::session::Session;
use crate::conf::policy::{OnFailure, Policy};
use crate::failure::Failure;
use crate::gate::grub::{Override, override_default};
use crate::gate::loader::{self, Loader};
use crate::gate::proof::{Image, prove};
use crate::gate::verdict::{Critical, Standing, Verdict};
use crate::gate::{Gate, Outcome, next_boot};
use crate::initramfs;
use crate::install::depmod;
use crate::kernel::KernelRelease;
use crate::module::Target;

/// What `gate --json` prints; the schema's number changes when a field changes its meaning.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    enabled: bool,
    kernels: &'a [Verdict],
    loaders: Vec<LoaderLine<'a>>,
}

#[derive(Serialize)]
struct LoaderLine<'a> {
    name: &'a str,
    hold: bool,
    how: &'a str,
}

/// The verb `gate`: what is known of each kernel, and which boot loaders can be held.
pub(super) fn show(session: &Session) -> Result<()> {
    let (tree, report) = (&session.tree, &session.report);
    let verdicts = Verdict::all(tree)?;
    let loaders = loader::detect(tree);
    let policy = session.policy()?;
    let off = session.gate(&policy).is_off();
    if session.options.json {
        let loaders =
            loaders.iter().map(|Loader { name, hold, how }| LoaderLine { name, hold: *hold, how }).collect();
        let document = Document { schema: 1, enabled: !off, kernels: &verdicts, loaders };
        report.line(serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    if off {
        report.line("The gate is switched off (/etc/dkms/no-gate): every kernel may boot.");
    }
    if verdicts.is_empty() {
        report.line("No kernel has a verdict: nothing boot-critical has been built yet.");
    }
    for Verdict { kernel, standing, reasons, critical, time, .. } in &verdicts {
        report.line(format_args!("{kernel}: {standing} since {time}"));
        for critical in critical {
            report.line(format_args!(
                "  needs {} ({}): {}",
                critical.name,
                critical.modules.join(", "),
                critical.because
            ));
        }
        for reason in reasons {
            report.line(format_args!("  {}", reason.replace('\n', "\n    ")));
        }
        match standing {
            Standing::Held => {
                report.line(format_args!("  Mend the cause, then run: dkms autoinstall -k {kernel}"));
                report.line(format_args!("  To boot it all the same: dkms gate release {kernel} --force"));
            }
            Standing::Released => {
                report.line("  It boots as it is, by dkms gate release, until its modules or images change");
            }
            Standing::Pending | Standing::Proven => {}
        }
    }
    for Loader { name, hold, how } in &loaders {
        let word = if *hold { "held kernels are kept from the default" } else { "NO HOLD" };
        report.line(format_args!("boot loader {name}: {word} ({how})"));
    }
    if loaders.is_empty() {
        report.line("boot loader: none that is known here, so a held kernel fails its installation");
    }
    Ok(())
}

/// Ends a run that a person began: says what is held, and gives a kernel that has become fit the
/// boot loader update that it was denied.
pub(super) fn finish(session: &Session, target: &Target, result: &RunResult) -> Result<()> {
    let Some(outcome) = &result.gate else { return Ok(()) };
    let policy = session.policy()?;
    let gate = session.gate(&policy);
    if outcome.verdict.standing == Standing::Held {
        gate.announce(&outcome.verdict);
        if policy.on_failure != OnFailure::Warn {
            deny(session, &target.kernel, outcome);
        }
    }
    release(session, &target.kernel, outcome)
}

/// Takes the default from a kernel that was fit before, or that nobody had looked at, and is not
/// now: outside of a kernel's installation nobody updates the boot loader after us.
pub(super) fn deny(session: &Session, kernel: &KernelRelease, outcome: &Outcome) {
    if matches!(outcome.before, Some(Standing::Held | Standing::Pending)) {
        return;
    }
    let withheld = session.policy().and_then(|policy| {
        let gate = session.gate(&policy);
        loader::withhold(&session.tree, kernel, &|other| gate.may_boot(other), &session.report)
    });
    if let Err(error) = withheld {
        session.report.warning(format_args!("taking the default from kernel {kernel}, ignoring: {error:#}"));
    }
}

/// Updates the boot loader if a kernel was not fit before and is now.
pub(super) fn release(session: &Session, kernel: &KernelRelease, outcome: &Outcome) -> Result<()> {
    let was_denied = matches!(outcome.before, Some(Standing::Held | Standing::Pending));
    if was_denied && outcome.verdict.standing == Standing::Proven {
        session
            .report
            .line(format_args!("Kernel {kernel} has what this machine needs to boot: releasing it."));
        return loader::release(&session.tree, kernel, &session.report).or_else(|error| {
            // Not released yet: the next run for this kernel has to try again.
            let reasons = vec![format!("the boot loader could not be updated: {error:#}")];
            let critical = outcome.verdict.critical.clone();
            Verdict::now(kernel, Standing::Pending, reasons, critical).store(&session.tree)?;
            Err(error)
        });
    }
    Ok(())
}

/// The verdict for a kernel that no module could be built for.
pub(super) fn settle_without_run(
    session: &Session,
    target: &Target,
    initramfs: Initramfs,
    failures: &[(String, String)],
) -> Result<Option<RunResult>> {
    let policy = session.policy()?;
    let critical = critical(session, target, &policy)?;
    let gate = session.gate(&policy);
    let before = mark(&gate, &target.kernel, &critical)?;
    ensure_indexed(session, &target.kernel, &critical)?;
    if initramfs == Initramfs::Ours {
        remake_if_awaited(session, &policy, &target.kernel, &critical)?;
    }
    let image = image(&gate, &target.kernel, initramfs);
    let gate = gate.settle(&target.kernel, &critical, &image, failures, before)?;
    gate.iter().for_each(|outcome| record::judged(session, outcome));
    Ok(gate.map(|outcome| RunResult { modules: Vec::new(), gate: Some(outcome), trouble: None }))
}

/// A kernel that lacks nothing but an initramfs that is as new as its modules gets one: making it
/// has failed before, and nobody else will.
fn remake_if_awaited(
    session: &Session,
    policy: &Policy,
    kernel: &KernelRelease,
    critical: &[Critical],
) -> Result<()> {
    let gate = session.gate(policy);
    let Image::Needed(images) = gate.image_now(kernel) else { return Ok(()) };
    if gate.is_off() || critical.is_empty() || initramfs::generator(policy.generator).is_none() {
        return Ok(());
    }
    let proof = prove(&session.tree, kernel, critical, &Image::Later(images))?;
    if proof.missing.is_empty() && !proof.awaited.is_empty() {
        let remade = initramfs::remake(&session.tree, kernel, policy.generator, &session.report);
        if let Err(error) = remade {
            session.report.warning(format_args!("{error:#}"));
        }
    }
    Ok(())
}

/// The verdict for a kernel that nothing was to be done for: looked at if one is open from an
/// earlier run, or if the kernel is being installed right now.
pub(super) fn settle_if_open(
    session: &Session,
    target: &Target,
    initramfs: Initramfs,
    caller: Caller,
) -> Result<Option<RunResult>> {
    // One that cannot be read is open.
    let open = Verdict::load(&session.tree, &target.kernel)
        .map_or(true, |verdict| verdict.is_some_and(|verdict| verdict.standing != Standing::Proven));
    if !open {
        let policy = session.policy()?;
        let gate = session.gate(&policy);
        let image = image(&gate, &target.kernel, initramfs);
        if caller != Caller::KernelInstallation
            || gate.still_proven(&target.kernel, &critical(session, target, &policy)?, &image).is_some()
        {
            return Ok(None);
        }
    }
    settle_without_run(session, target, initramfs, &[])
}

/// Marks a kernel as pending. If that cannot be written down the kernel is as good as held.
pub(super) fn mark(
    gate: &Gate<'_>,
    kernel: &KernelRelease,
    critical: &[Critical],
) -> Result<Option<Standing>> {
    gate.mark(kernel, critical).map_err(|error| {
        let reasons = vec![format!("its verdict cannot be written down: {error:#}")];
        Failure::Gate { kernel: kernel.to_string(), reasons }.into()
    })
}

/// Makes a kernel's module indexes if it has none yet, because the proof reads them: where
/// kernel-install runs, depmod's own plugin comes after ours.
pub(super) fn ensure_indexed(session: &Session, kernel: &KernelRelease, critical: &[Critical]) -> Result<()> {
    let kernel_dir = session.tree.kernel_dir(kernel);
    if critical.is_empty() || !kernel_dir.is_dir() || kernel_dir.join("modules.dep").exists() {
        return Ok(());
    }
    let _lock = session.tree.lock_kernel(kernel, &session.report)?;
    depmod(&session.tree, kernel, &session.report)
}

/// What the initramfs has to be for a verdict of this run.
pub(super) fn image(gate: &Gate<'_>, kernel: &KernelRelease, initramfs: Initramfs) -> Image {
    match (gate.image_now(kernel), initramfs) {
        (Image::Needed(images), Initramfs::Later) => Image::Later(images),
        (image, _) => image,
    }
}

/// A kernel's files are about to be replaced: it is pending until somebody has looked at it again.
pub fn mark_pending(session: &Session, target: &Target) -> Result<()> {
    let policy = session.policy()?;
    let critical = critical(session, target, &policy)?;
    session.gate(&policy).mark(&target.kernel, &critical).map(drop)
}

/// Something kept the work for a kernel from being done: one that needs modules of ours to boot is
/// pending then. Returns whether it is one. Kernels whose files stay as they are keep their proof.
pub fn hold_unproven(session: &Session, target: &Target, caller: Caller) -> Result<bool> {
    let policy = session.policy()?;
    let gate = session.gate(&policy);
    if gate.is_off() || policy.on_failure == OnFailure::Warn {
        return Ok(false);
    }
    let critical = critical(session, target, &policy)?;
    let is_proven = matches!(
        Verdict::load(&session.tree, &target.kernel),
        Ok(Some(verdict)) if verdict.standing == Standing::Proven
    );
    if critical.is_empty() || (is_proven && caller == Caller::CommandLine) {
        return Ok(false);
    }
    let before = mark(&gate, &target.kernel, &critical)?;
    if let Some(verdict) = Verdict::load(&session.tree, &target.kernel)? {
        record::judged(session, &Outcome { verdict, before });
    }
    Ok(true)
}

/// The proof at the end of a kernel's installation, over the images that are about to be
/// published. Returns the verdict if the kernel has one.
pub fn prove_installed(session: &Session, target: &Target, image: &Image) -> Result<Option<Verdict>> {
    let policy = session.policy()?;
    let gate = session.gate(&policy);
    let Some(known) = Verdict::load(&session.tree, &target.kernel)? else { return Ok(None) };
    if let Some(verdict) = gate.still_proven(&target.kernel, &known.critical, image) {
        return Ok(Some(verdict));
    }
    // What the run itself had to say is kept beside what the proof finds.
    let outcome = gate.settle(&target.kernel, &known.critical, image, &[], Some(known.standing))?;
    let Some(mut outcome) = outcome else { return Ok(None) };
    if outcome.verdict.standing == Standing::Held && known.standing == Standing::Held {
        outcome.verdict.reasons = known.reasons;
        outcome.verdict.store(&session.tree)?;
    }
    record::judged(session, &outcome);
    Ok(Some(outcome.verdict))
}

/// GRUB's question, asked by a script that sorts last in /etc/grub.d while standard output is the
/// new grub.cfg: prints what keeps the default on a kernel that may boot, if anything has to.
pub fn grub_script(session: &Session) -> Result<()> {
    // Without a verdict there is nothing to ask about, and most machines have none.
    // One that cannot be read is asked for again when its kernel's turn comes, and holds it then.
    let all_proven = |verdicts: Vec<Verdict>| {
        verdicts.iter().all(|verdict| verdict.standing.may_boot() && !verdict.is_stale())
    };
    if Verdict::all(&session.tree).is_ok_and(all_proven) {
        return Ok(());
    }
    let mut so_far = String::new();
    let out = session.tree.path("/proc/self/fd/1");
    if fs_err::metadata(&out).is_ok_and(|meta| meta.is_file()) {
        fs_err::File::open(&out)?.read_to_string(&mut so_far)?;
    }
    let Some(directory) = ["/boot/grub", "/boot/grub2"]
        .map(|path| session.tree.path(path))
        .into_iter()
        .find(|path| path.is_dir())
    else {
        return Ok(());
    };
    if so_far.is_empty() {
        session.report.err("dkms: this grub-mkconfig writes to no file, so its default cannot be looked at");
        return Ok(());
    }
    let env = next_boot::env(&session.tree, &directory, &so_far);
    // A held kernel stays held whatever is wrong with the policy.
    let policy = session.policy().unwrap_or_else(|error| {
        session.report.warning(format_args!("going on without the policy: {error:#}"));
        Policy::default()
    });
    let gate = session.gate(&policy);
    match override_default(&so_far, &env, &|kernel| gate.may_boot(kernel)) {
        Override::NotNeeded => {}
        Override::Pin { kernel, script } => {
            session.report.out(script);
            session.report.err(format_args!("dkms: the default stays on kernel {kernel}; see: dkms gate"));
        }
        Override::NothingToPin { held } => session.report.err(format_args!(
            "dkms: WARNING: kernel {held} is held, but there is no other kernel to boot; see: dkms gate"
        )),
        Override::Unknown { why, script } => {
            session.report.err(format_args!("dkms: WARNING: cannot tell which kernel GRUB will boot: {why}"));
            if let Some(script) = script {
                session.report.out(script);
            }
        }
    }
    Ok(())
}
