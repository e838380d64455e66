// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine needs to boot, the proof that it is there, the verdict per kernel, and what
//! each boot loader makes of it. Never builds or installs.

pub mod bls;
pub mod clear;
pub mod contents;
#[cfg(test)]
mod contents_tests;
pub mod detect;
mod efi;
pub mod grub;
pub mod loader;
pub mod next_boot;
pub mod notices;
pub mod proof;
pub mod verdict;
#[cfg(test)]
mod verdict_tests;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::conf::directives::ModuleConf;
use crate::conf::policy::{self, Generator, OnFailure, Policy};
use crate::kernel::KernelRelease;
use crate::module::ModuleId;
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::root::Root;
use crate::tree::Tree;
use detect::Found;
use proof::{Image, Proof, prove};
use verdict::{Critical, Standing, Verdict};

/// Switches the gate off while it is there.
const OFF: &str = "/etc/dkms/no-gate";

/// The gate of one machine.
#[derive(Debug)]
pub struct Gate<'a> {
    pub tree: &'a Tree,
    pub policy: &'a Policy,
    pub report: &'a Report,
}

/// What a run came to for a kernel.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub verdict: Verdict,
    /// What was known before the run.
    pub before: Option<Standing>,
}

impl Outcome {
    /// Whether the kernel is held and this module is one that it is held for, or may be.
    pub fn holds_for(&self, id: &ModuleId) -> bool {
        self.verdict.standing == Standing::Held
            && self.verdict.critical.iter().any(|critical| critical.name == id.name())
    }
}

/// A registered module as the gate sees it.
#[derive(Debug, Clone, Copy)]
pub struct Registered<'a> {
    pub conf: &'a ModuleConf,
    /// Which of its records this kernel rules out.
    pub excluded: &'a [bool],
}

/// What the machine needs to boot, by the word of the policy, by that of the modules' own
/// configurations, or by what was seen of the machine. The policy may also overrule the others, and
/// name a module that nobody has registered.
pub fn critical(
    policy: &Policy,
    registered: &[Registered<'_>],
    detected: &BTreeMap<String, Found>,
) -> Vec<Critical> {
    let mut found = Vec::new();
    let named = policy.all_critical();
    let mut unmatched = named.clone();
    for Registered { conf, excluded } in registered {
        let names = |name: &str| {
            name == conf.id.name()
                || conf.records.iter().any(|record| record.dest_name == name || record.built_name == name)
        };
        unmatched.retain(|(name, _)| !names(name));
        let seen = detected.get(conf.id.name());
        let because = match policy.module_critical.get(conf.id.name()).copied() {
            Some(false) => continue,
            Some(true) => policy::MODULE_TABLE,
            None => match (named.iter().find(|(name, _)| names(name)), seen) {
                (Some((_, because)), _) => because,
                (None, _) if conf.boot_critical => "BOOT_CRITICAL in its configuration",
                (None, Some(found)) => &found.because,
                (None, None) => continue,
            },
        };
        // A module that this kernel rules out altogether is needed all the same.
        let all_out = excluded.iter().all(|excluded| *excluded);
        let records = conf.records.iter().zip(excluded.iter());
        found.push(Critical {
            name: conf.id.name().to_owned(),
            modules: records
                .filter(|(_, excluded)| all_out || !**excluded)
                .map(|(record, _)| record.dest_name.clone())
                .collect(),
            because: because.to_owned(),
            needs_initramfs: seen.map(|found| found.early),
            wants_initramfs: policy
                .module_initramfs
                .iter()
                .find_map(|(name, need)| names(name).then_some(*need))
                .or(conf.remake_initrd.then_some(true)),
        });
    }
    found.extend(unmatched.into_iter().map(|(name, because)| Critical {
        name: name.to_owned(),
        modules: vec![name.to_owned()],
        because: because.to_owned(),
        needs_initramfs: None,
        wants_initramfs: policy.module_initramfs.get(name).copied(),
    }));
    found
}

/// Whether the administrator has switched the gate off, whatever the policy is.
pub fn is_off(root: &Root) -> bool {
    files::exists(&root.path(OFF))
}

impl Gate<'_> {
    /// Whether the administrator has switched the gate off.
    pub fn is_off(&self) -> bool {
        is_off(&self.tree.root)
    }

    /// Marks a kernel as pending before work for it begins; nothing to do if nothing is critical.
    /// Returns what was known before.
    pub fn mark(&self, kernel: &KernelRelease, critical: &[Critical]) -> Result<Option<Standing>> {
        // One that cannot be read is replaced, and was as good as open.
        let (before, released_from) = match Verdict::load(self.tree, kernel) {
            Ok(Some(verdict)) => (Some(verdict.standing), verdict.released_from),
            Ok(None) => (None, None),
            Err(_) => (Some(Standing::Pending), None),
        };
        if !critical.is_empty() && !self.is_off() {
            let reasons = vec!["work for this kernel has begun and not ended".to_owned()];
            let pending = Verdict::now(kernel, Standing::Pending, reasons, critical.to_vec());
            pending.after(released_from).store(self.tree)?;
        }
        Ok(before)
    }

    /// Looks at what is there after a run and stores the verdict. `failures` are the run's own
    /// words for what went wrong, by module: they explain what the proof finds missing, they are
    /// no verdict by themselves, because an older version may be in place and do.
    pub fn settle(
        &self,
        kernel: &KernelRelease,
        critical: &[Critical],
        image: &Image,
        failures: &[(String, String)],
        before: Option<Standing>,
    ) -> Result<Option<Outcome>> {
        if critical.is_empty() || self.is_off() {
            if before.is_some() {
                Verdict::forget(self.tree, kernel)?;
            }
            // What it lacked is not needed any more: it is fit, and may have been denied an update.
            let fit = || Verdict::now(kernel, Standing::Proven, Vec::new(), Vec::new());
            let is_freed = before.is_some() && !self.is_off();
            return Ok(is_freed.then(|| Outcome { verdict: fit(), before }));
        }
        let proof = prove(self.tree, kernel, critical, image)?;
        proof.warnings.iter().for_each(|warning| self.report.warning(warning));
        for untold in &proof.untold {
            self.report.warning(format_args!("kernel {kernel} stays unproven: {untold}"));
        }
        let (standing, mut reasons) = (proof.standing(), proof.reasons());
        if standing == Standing::Held {
            let told = |name: &str| critical.iter().any(|critical| critical.name == name);
            reasons.extend(
                failures
                    .iter()
                    .filter(|(name, _)| told(name))
                    .map(|(name, reason)| format!("{name}: {reason}")),
            );
        }
        if standing == Standing::Held && self.policy.on_failure == OnFailure::Warn {
            Verdict::forget(self.tree, kernel)?;
        }
        let released_from =
            Verdict::load(self.tree, kernel).ok().flatten().and_then(|known| known.released_from);
        let verdict = Verdict::now(kernel, standing, reasons, critical.to_vec())
            .reached_from(proof.inputs)
            .after_looking_at(proof.looked_at)
            .after(released_from);
        if standing != Standing::Held || self.policy.on_failure != OnFailure::Warn {
            verdict.store(self.tree)?;
        }
        Ok(Some(Outcome { verdict, before }))
    }

    /// Whether a kernel may become the default. One that was never marked is left alone; one that
    /// is not proven, or not from what is there now, is looked at again, because what was missing
    /// may have come without us, and what was there may have gone.
    pub fn may_boot(&self, kernel: &KernelRelease) -> bool {
        if self.is_off() || self.policy.on_failure == OnFailure::Warn {
            return true;
        }
        match self.reprove(kernel) {
            Ok(verdict) => verdict.is_none_or(|verdict| verdict.standing.may_boot()),
            Err(error) => {
                self.report.warning(format_args!("looking at kernel {kernel} again, holding it: {error:#}"));
                false
            }
        }
    }

    /// Looks again at a kernel that is pending or held, or that was proven from files that have
    /// changed or gone since, and stores what has become of it. Returns what holds now.
    pub fn reprove(&self, kernel: &KernelRelease) -> Result<Option<Verdict>> {
        let Some(verdict) = Verdict::load(self.tree, kernel)? else { return Ok(None) };
        let was_fit = verdict.standing.may_boot();
        if was_fit && !verdict.is_stale() {
            return Ok(Some(verdict));
        }
        let proof = self.look(kernel, &verdict.critical)?;
        let (standing, reasons) = (proof.standing(), proof.reasons());
        // The run that left it so had more to say.
        if standing != Standing::Proven && !was_fit {
            return Ok(Some(verdict));
        }
        let verdict = Verdict::now(kernel, standing, reasons, verdict.critical)
            .reached_from(proof.inputs)
            .after_looking_at(proof.looked_at);
        verdict.store(self.tree)?;
        Ok(Some(verdict))
    }

    /// The verdict of a kernel that was proven from all that is there now, for the same modules.
    pub fn still_proven(
        &self,
        kernel: &KernelRelease,
        critical: &[Critical],
        image: &Image,
    ) -> Option<Verdict> {
        let verdict = Verdict::load(self.tree, kernel).ok().flatten()?;
        let is_proven = verdict.standing == Standing::Proven && verdict.critical == critical;
        let files = image.files().iter().flatten().map(std::path::PathBuf::as_path);
        (is_proven && verdict.has_seen(files)).then_some(verdict)
    }

    /// Looks at what is there for a kernel now. Stores nothing.
    pub fn look(&self, kernel: &KernelRelease, critical: &[Critical]) -> Result<Proof> {
        prove(self.tree, kernel, critical, &self.image_now(kernel))
    }

    /// What the initramfs has to be if nobody makes it after us: a module that the machine needs to
    /// boot is loaded from there, unless the policy says that this machine has none.
    pub fn image_now(&self, kernel: &KernelRelease) -> Image {
        match self.policy.generator {
            Generator::None => Image::NotNeeded,
            _ => match contents::deciding(self.tree, kernel) {
                // Its kernels find their root file system by themselves.
                images if images.is_empty() && clear::is_here(self.tree) => Image::NotNeeded,
                images => Image::Needed(images),
            },
        }
    }

    /// Says loudly that a kernel is held, why, and what to type next.
    pub fn announce(&self, verdict: &Verdict) {
        let kernel = &verdict.kernel;
        let what = if self.policy.on_failure == OnFailure::Warn {
            format!(
                "kernel {kernel} lacks what this machine needs to boot. The policy says to boot it all the same:"
            )
        } else if verdict.standing == Standing::Held {
            format!("kernel {kernel} is held: it lacks what this machine needs to boot.")
        } else {
            format!(
                "kernel {kernel} is held: nobody can tell yet whether it has what this machine needs to boot."
            )
        };
        self.report.err(format_args!("dkms: WARNING: {what}"));
        for reason in &verdict.reasons {
            for line in reason.lines() {
                self.report.err(format_args!("dkms:   {line}"));
            }
        }
        self.report.err(format_args!("dkms: Mend the cause, then run: dkms autoinstall -k {kernel}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{ConfFile, Variables, directives};
    use rstest::rstest;

    fn conf(boot_critical: &str) -> ModuleConf {
        let mut vars = Variables::new();
        vars.set("PACKAGE_NAME", "nvidia-current");
        vars.set("PACKAGE_VERSION", "1");
        vars.set("BUILT_MODULE_NAME", "nvidia");
        vars.set("DEST_MODULE_LOCATION", "/updates");
        vars.set("BOOT_CRITICAL", boot_critical);
        directives::read(&vars, "/x").unwrap()
    }

    #[rstest]
    #[case::nobody("", "no", "")]
    #[case::itself("", "yes", "nvidia-current")]
    #[case::list("[boot]\ncritical = ['nvidia-current']", "no", "nvidia-current")]
    #[case::list_by_file("[boot]\ncritical = ['nvidia']", "no", "nvidia-current")]
    #[case::table("[module.nvidia-current]\ncritical = true", "no", "nvidia-current")]
    #[case::table_by_file("[module.nvidia]\ncritical = true", "no", "nvidia-current")]
    #[case::overruled("[module.nvidia-current]\ncritical = false", "yes", "")]
    #[case::seen_and_named("[boot]\ncritical = ['nvidia']", "seen", "nvidia-current")]
    #[case::seen("", "seen", "nvidia-current")]
    #[case::seen_and_overruled("[module.nvidia-current]\ncritical = false", "seen", "")]
    #[case::unregistered_in_list("[boot]\ncritical = ['zfs']", "no", "zfs")]
    #[case::unregistered_in_table("[module.zfs]\ncritical = true", "no", "zfs")]
    #[case::unregistered_overruled("[boot]\ncritical = ['zfs']\n[module.zfs]\ncritical = false", "no", "")]
    fn what_is_critical_is_said_by_the_policy_or_the_module_or_seen(
        #[case] policy: &str,
        #[case] word: &str,
        #[case] want: &str,
    ) {
        let policy = policy::merge(&[ConfFile { path: "/p".into(), text: policy.to_owned() }]).unwrap();
        let mut detected = BTreeMap::new();
        if word == "seen" {
            let found = Found { because: "/ is on it".to_owned(), early: true };
            detected.insert("nvidia-current".to_owned(), found);
        }
        let conf = conf(if word == "yes" { "yes" } else { "no" });
        let found = critical(&policy, &[Registered { conf: &conf, excluded: &[false] }], &detected);
        assert!(found.iter().all(|critical| critical.needs_initramfs.is_some() == (word == "seen")));
        let names: Vec<String> = found.into_iter().map(|critical| critical.name).collect();
        assert_eq!(names.join(" "), want);
    }

    #[rstest]
    #[case::nobody_says("", "no", None, None)]
    #[case::it_asks_for_an_initramfs("", "yes", None, Some(true))]
    #[case::mounted_there("", "no", Some(true), Some(true))]
    #[case::mounted_later("", "no", Some(false), Some(false))]
    #[case::mounted_later_and_asks("", "yes", Some(false), Some(true))]
    #[case::policy_says_no("[module.nvidia-current]\ninitramfs = false", "yes", Some(true), Some(false))]
    #[case::policy_says_yes("[module.nvidia]\ninitramfs = true", "no", Some(false), Some(true))]
    #[case::policy_leaves_it("[module.nvidia]\ninitramfs = 'auto'", "no", Some(false), Some(false))]
    fn what_has_to_be_in_the_initramfs_is_said_by_the_policy_or_the_module_or_seen(
        #[case] policy: &str,
        #[case] remake_initrd: &str,
        #[case] early: Option<bool>,
        #[case] want: Option<bool>,
    ) {
        let text = format!("[boot]\ncritical = ['nvidia']\n{policy}");
        let policy = policy::merge(&[ConfFile { path: "/p".into(), text }]).unwrap();
        let found = early.map(|early| Found { because: "a mount".to_owned(), early });
        let detected = found.map(|found| ("nvidia-current".to_owned(), found)).into_iter().collect();
        let mut conf = conf("no");
        conf.remake_initrd = remake_initrd == "yes";
        let found = critical(&policy, &[Registered { conf: &conf, excluded: &[false] }], &detected);
        assert_eq!(found[0].has_to_be_in_initramfs(), want);
    }

    #[test]
    fn of_a_module_that_nobody_has_registered_the_policy_tells() {
        let text = "[boot]\ncritical = ['zfs', 'wl']\n[module.zfs]\ninitramfs = true".to_owned();
        let policy = policy::merge(&[ConfFile { path: "/p".into(), text }]).unwrap();
        let found = critical(&policy, &[], &BTreeMap::new());
        assert_eq!(
            found.iter().map(Critical::has_to_be_in_initramfs).collect::<Vec<_>>(),
            [None, Some(true)]
        );
    }
}
