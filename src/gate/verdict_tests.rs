// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verdicts over made-up roots: what is missing holds, what has come releases, what has gone
//! holds again.

use std::path::PathBuf;

use fs_err as fs;
use rstest::{fixture, rstest};

use super::verdict::{Critical, Standing, Verdict};
use super::*;
use crate::initramfs::image::tests::image;
use crate::module_file::tests::module;

/// What the module says of itself.
const DISK: &[u8] = b"name=disk\0vermagic=6.1 SMP \0";

/// A root with one kernel that has the module `disk` and an initramfs.
struct Machine {
    _dir: tempfile::TempDir,
    tree: Tree,
    policy: Policy,
    report: Report,
    kernel: KernelRelease,
}

#[fixture]
fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine {
        tree: Tree::at(dir.path()),
        _dir: dir,
        policy: Policy::default(),
        report: Report::new(true, false).block(),
        kernel: "6.1".parse().unwrap(),
    };
    fs::create_dir_all(machine.module().parent().unwrap()).unwrap();
    fs::create_dir_all(machine.tree.path("/boot")).unwrap();
    fs::write(machine.tree.path("/lib/modules/6.1/modules.dep"), "updates/dkms/disk.ko:\n").unwrap();
    fs::write(machine.module(), module(DISK)).unwrap();
    machine.make_image(&module(DISK));
    machine
}

impl Machine {
    fn module(&self) -> PathBuf {
        self.tree.path("/lib/modules/6.1/updates/dkms/disk.ko")
    }

    fn image(&self) -> PathBuf {
        self.tree.path("/boot/initrd.img-6.1")
    }

    /// An initramfs that holds this as the module.
    fn make_image(&self, disk: &[u8]) {
        let files = [("init", b"#!".as_slice()), ("usr/lib/modules/6.1/updates/dkms/disk.ko", disk)];
        fs::write(self.image(), image(&files)).unwrap();
    }

    fn gate(&self) -> Gate<'_> {
        Gate { tree: &self.tree, policy: &self.policy, report: &self.report }
    }

    fn critical() -> Vec<Critical> {
        vec![Critical {
            name: "disk".into(),
            modules: vec!["disk".into()],
            because: "test".into(),
            needs_initramfs: Some(true),
            wants_initramfs: None,
        }]
    }

    /// A whole run that changes nothing.
    fn run(&self) -> Standing {
        let before = self.gate().mark(&self.kernel, &Self::critical()).unwrap();
        let image = self.gate().image_now(&self.kernel);
        let outcome = self.gate().settle(&self.kernel, &Self::critical(), &image, &[], before).unwrap();
        outcome.unwrap().verdict.standing
    }

    fn standing(&self) -> Option<Standing> {
        Verdict::load(&self.tree, &self.kernel).unwrap().map(|verdict| verdict.standing)
    }
}

#[rstest]
fn a_kernel_that_was_never_marked_may_boot(machine: Machine) {
    fs::remove_file(machine.module()).unwrap();
    assert!(machine.gate().may_boot(&machine.kernel));
}

#[rstest]
fn what_is_there_is_proven(machine: Machine) {
    assert_eq!(machine.run(), Standing::Proven);
    assert!(machine.gate().may_boot(&machine.kernel));
}

#[rstest]
#[case::module("lib/modules/6.1/updates/dkms/disk.ko")]
#[case::index("lib/modules/6.1/modules.dep")]
#[case::initramfs("boot/initrd.img-6.1")]
fn what_is_missing_holds_until_it_has_come(machine: Machine, #[case] path: &str) {
    let path = machine.tree.path(format!("/{path}"));
    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    assert_eq!(machine.run(), Standing::Held);
    assert!(!machine.gate().may_boot(&machine.kernel));
    fs::rename(&away, &path).unwrap();
    assert!(machine.gate().may_boot(&machine.kernel));
    assert_eq!(machine.standing(), Some(Standing::Proven));
}

/// Only the mark is left of a run that was killed; the machine is looked at.
#[rstest]
#[case::all_there(true)]
#[case::module_missing(false)]
fn a_pending_kernel_is_judged_by_what_is_there(machine: Machine, #[case] there: bool) {
    if !there {
        fs::remove_file(machine.module()).unwrap();
    }
    machine.gate().mark(&machine.kernel, &Machine::critical()).unwrap();
    assert_eq!(machine.standing(), Some(Standing::Pending));
    assert_eq!(machine.gate().may_boot(&machine.kernel), there);
}

#[rstest]
fn a_proof_goes_stale_with_what_it_was_reached_from(machine: Machine) {
    assert_eq!(machine.run(), Standing::Proven);
    fs::remove_file(machine.module()).unwrap();
    // The image that the machine boots from still has it.
    assert!(machine.gate().may_boot(&machine.kernel));
    machine.make_image(&module(b"name=disk\0made anew\0"));
    assert!(!machine.gate().may_boot(&machine.kernel));
    assert_eq!(machine.standing(), Some(Standing::Held));
}

#[rstest]
fn without_an_initramfs_a_proof_stands_with_the_modules(mut machine: Machine) {
    machine.policy.generator = Generator::None;
    assert_eq!(machine.run(), Standing::Proven);
    fs::remove_file(machine.module()).unwrap();
    assert!(!machine.gate().may_boot(&machine.kernel));
}

#[rstest]
fn without_an_initramfs_another_copy_is_looked_at_when_it_is_chosen(mut machine: Machine) {
    machine.policy.generator = Generator::None;
    assert_eq!(machine.run(), Standing::Proven);
    let other = machine.tree.path("/lib/modules/6.1/extra/disk.ko");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(other, module(b"name=disk\0vermagic=5.10 SMP \0")).unwrap();
    fs::write(machine.tree.path("/lib/modules/6.1/modules.dep"), "extra/disk.ko: \n").unwrap();
    assert!(!machine.gate().may_boot(&machine.kernel));
}

#[rstest]
fn an_image_with_another_build_holds_until_it_is_made_anew(machine: Machine) {
    machine.make_image(&module(b"name=disk\0vermagic=6.1 SMP \0version=0.9\0"));
    assert_eq!(machine.run(), Standing::Held);
    machine.make_image(&module(DISK));
    assert!(machine.gate().may_boot(&machine.kernel));
}

/// No proof, and no failure of the module's.
#[rstest]
fn an_image_that_cannot_be_read_leaves_the_kernel_pending(machine: Machine) {
    fs::write(machine.image(), "no archive").unwrap();
    assert_eq!(machine.run(), Standing::Pending);
    assert!(!machine.gate().may_boot(&machine.kernel));
    machine.make_image(&module(DISK));
    assert!(machine.gate().may_boot(&machine.kernel));
    // What was proven is not any more.
    fs::write(machine.image(), "no archive, and longer").unwrap();
    assert!(!machine.gate().may_boot(&machine.kernel));
    assert_eq!(machine.standing(), Some(Standing::Pending));
}

#[rstest]
#[case::seen_to_be_mounted_later(Some(false), None, Standing::Proven)]
#[case::not_said(None, None, Standing::Proven)]
#[case::said_not_to_be_there(Some(true), Some(false), Standing::Proven)]
#[case::said_to_be_there(Some(false), Some(true), Standing::Held)]
fn a_module_that_need_not_be_in_the_initramfs_is_proven_without(
    machine: Machine,
    #[case] needs_initramfs: Option<bool>,
    #[case] wants_initramfs: Option<bool>,
    #[case] want: Standing,
) {
    fs::write(machine.image(), image(&[("usr/lib/modules/6.1/kernel/ext4.ko", b"")])).unwrap();
    let critical = [Critical { needs_initramfs, wants_initramfs, ..Machine::critical().remove(0) }];
    let images = machine.gate().image_now(&machine.kernel);
    let outcome = machine.gate().settle(&machine.kernel, &critical, &images, &[], None).unwrap().unwrap();
    assert_eq!(outcome.verdict.standing, want, "{:?}", outcome.verdict.reasons);
    // It is loaded from the install tree then.
    fs::remove_file(machine.module()).unwrap();
    assert!(!machine.gate().may_boot(&machine.kernel));
}

#[rstest]
fn what_another_proven_kernel_has_in_its_initramfs_is_needed_there(machine: Machine) {
    let older: KernelRelease = "5.10".parse().unwrap();
    let disk = [("lib/modules/5.10/updates/dkms/disk.ko", b"any build".as_slice())];
    fs::write(machine.tree.path("/boot/initrd.img-5.10"), image(&disk)).unwrap();
    fs::write(machine.image(), image(&[("usr/lib/modules/6.1/kernel/ext4.ko", b"")])).unwrap();
    let critical = [Critical { needs_initramfs: None, ..Machine::critical().remove(0) }];
    let settle = || {
        let images = machine.gate().image_now(&machine.kernel);
        machine.gate().settle(&machine.kernel, &critical, &images, &[], None).unwrap().unwrap().verdict
    };
    assert_eq!(settle().standing, Standing::Proven);
    Verdict::now(&older, Standing::Proven, Vec::new(), Vec::new()).store(&machine.tree).unwrap();
    let verdict = settle();
    assert_eq!(verdict.standing, Standing::Held);
    assert!(verdict.reasons[0].contains("which that of kernel 5.10 has"), "{:?}", verdict.reasons);
    machine.make_image(&module(DISK));
    assert_eq!(settle().standing, Standing::Proven);
}

#[rstest]
fn a_module_for_another_kernel_holds(machine: Machine) {
    fs::write(machine.module(), module(b"name=disk\0vermagic=5.10 SMP \0")).unwrap();
    assert_eq!(machine.run(), Standing::Held);
}

#[rstest]
fn switched_off_the_gate_holds_nothing(machine: Machine) {
    fs::remove_file(machine.module()).unwrap();
    assert_eq!(machine.run(), Standing::Held);
    fs::create_dir_all(machine.tree.path("/etc/dkms")).unwrap();
    fs::write(machine.tree.path("/etc/dkms/no-gate"), "").unwrap();
    assert!(machine.gate().may_boot(&machine.kernel));
}
