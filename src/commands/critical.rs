// SPDX-License-Identifier: MIT OR Apache-2.0
//! `critical`, and what runs ask before they begin: what a kernel needs to boot this machine, and
//! who says so.

use anyhow::Result;
use serde::Serialize;

use super::run::newest_versions;
use super::session::Session;
use crate::cli::TargetArgs;
use crate::conf::policy::Policy;
use crate::gate::detect::{self, Detected, Question, Spared};
use crate::gate::verdict::{Critical, Verdict};
use crate::gate::{self, Registered};
use crate::kernel::KernelRelease;
use crate::module::Target;

/// What a kernel needs, and what there is to say about it.
struct Judged {
    critical: Vec<Critical>,
    /// Those that were found to be needed and need not come from us.
    spared: Vec<Spared>,
    warnings: Vec<String>,
    /// Why nobody looked at the machine.
    undetected: Option<String>,
}

/// What `critical --json` prints; the schema's number changes when a field changes its meaning.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    kernel: &'a KernelRelease,
    /// Whether the machine was looked at.
    detected: bool,
    undetected_because: Option<&'a str>,
    critical: &'a [Critical],
    not_critical: &'a [Spared],
    warnings: &'a [String],
}

/// The verb `critical`.
pub(super) fn show(session: &Session, targets: &TargetArgs) -> Result<()> {
    let target = session.one_target(targets)?;
    let policy = session.policy()?;
    let Judged { critical, spared, warnings, undetected } = judged(session, &target, &policy)?;
    let (report, kernel) = (&session.report, &target.kernel);
    if session.options.json {
        let document = Document {
            schema: 1,
            kernel,
            detected: undetected.is_none(),
            undetected_because: undetected.as_deref(),
            critical: &critical,
            not_critical: &spared,
            warnings: &warnings,
        };
        report.line(serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    if critical.is_empty() {
        report.line(format_args!("Kernel {kernel} needs no registered module to boot this machine."));
    } else {
        report.line(format_args!("Kernel {kernel} does not boot this machine without:"));
    }
    for critical in &critical {
        let Critical { name, modules, because, .. } = critical;
        let place = match critical.has_to_be_in_initramfs() {
            Some(true) => ", in the initramfs",
            Some(false) => ", after the initramfs",
            None => "",
        };
        report.line(format_args!("  {name} ({}{place}): {because}", modules.join(", ")));
    }
    for Spared { name, because, instead } in &spared {
        report.line(format_args!("Not {name}: {because}, but {instead}"));
    }
    if let Some(why) = undetected {
        report.line(format_args!("The machine was not looked at: {why}."));
    }
    warnings.iter().for_each(|warning| report.warning(warning));
    Ok(())
}

/// What this kernel needs to boot, from the newest version of every registered module. A module
/// whose configuration cannot be read counts as it did when it last could, for whatever kernel.
pub(super) fn critical(session: &Session, target: &Target, policy: &Policy) -> Result<Vec<Critical>> {
    judged(session, target, policy).map(|judged| judged.critical)
}

/// What this kernel needs to boot by all that is known: a verdict of another day may name more than
/// the modules that are registered now.
pub(super) fn needed(session: &Session, target: &Target, policy: &Policy) -> Result<Vec<Critical>> {
    let mut needed = critical(session, target, policy)?;
    if let Some(known) = Verdict::load(&session.tree, &target.kernel)? {
        let is_new = |name: &str| !needed.iter().any(|critical| critical.name == name);
        let held_for: Vec<_> = known.critical.into_iter().filter(|known| is_new(&known.name)).collect();
        needed.extend(held_for);
    }
    Ok(needed)
}

fn judged(session: &Session, target: &Target, policy: &Policy) -> Result<Judged> {
    let kernel = session.kernel_config(&target.kernel)?;
    let mut loaded = Vec::new();
    let mut unreadable = Vec::new();
    for id in newest_versions(session)?.into_values() {
        match session.load(&id, Some(target)) {
            Ok(module) if !session.tree.is_broken(&id) => {
                let excluded = module.conf.excluded_records(target, &kernel);
                loaded.push((module, excluded));
            }
            _ => unreadable.push(id),
        }
    }
    let registered: Vec<Registered<'_>> =
        loaded.iter().map(|(module, excluded)| Registered { conf: &module.conf, excluded }).collect();
    let (detected, is_elsewhere) = look(session, target, policy, &registered);
    let Detected { critical: seen, mut spared, warnings, off } = detected;
    let mut critical = gate::critical(policy, &registered, &seen);
    let overruled = |name: &str| policy.module_critical.get(name) == Some(&false);
    let is_named = |critical: &[Critical], name: &str| critical.iter().any(|critical| critical.name == name);
    for id in unreadable.iter().filter(|id| !overruled(id.name())) {
        if !is_named(&critical, id.name()) {
            critical.extend(Verdict::known_critical(&session.tree, id.name()));
        }
    }
    // Who mends a machine from a chroot must not be told that it can do without what it lacks.
    let unseen = registered.iter().map(|registered| registered.conf.id.name()).filter(|_| is_elsewhere);
    for name in unseen.filter(|name| !overruled(name)) {
        if !is_named(&critical, name) {
            let known = Verdict::known_critical(&session.tree, name);
            critical.extend(known.filter(|known| known.needs_initramfs.is_some()));
        }
    }
    spared.retain(|spared| !is_named(&critical, &spared.name));
    Ok(Judged { critical, spared, warnings, undetected: off })
}

/// Looks at the machine if the policy has nothing against it; also tells whether it is another one
/// than that which boots what is here.
fn look(
    session: &Session,
    target: &Target,
    policy: &Policy,
    registered: &[Registered<'_>],
) -> (Detected, bool) {
    if !policy.detects() {
        let off = Some("the policy says [boot] detect = false".to_owned());
        return (Detected { off, ..Detected::default() }, false);
    }
    let running = session.tree.running_kernel().ok();
    let question = Question { tree: &session.tree, target, running: running.as_ref(), registered };
    let detected = detect::detect(&question);
    let is_elsewhere = detected.off.is_some();
    (detected, is_elsewhere)
}
