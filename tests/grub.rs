// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole machines with GRUB: a kernel arrives by the real linux-image package with the real
//! initramfs-tools and update-grub, and what the gate makes of it is seen by booting. Each row has
//! its control: without the hold the same machine boots the new kernel.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::debian::our_deb;
use common::disk::Base;
use common::machine::{KILLER, Machine, OUTSIDE, module, write};
use rstest::rstest;

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_without_its_critical_module_is_not_booted_until_that_is_mended() {
    let machine = Machine::new(Base::GRUB);
    let Machine { disk, old, new } = &machine;

    machine
        .install_new()
        .succeeds()
        .says(&format!("kernel {new} is held"))
        .says("crit knows nothing of this kernel")
        .says(&format!("dkms autoinstall -k {new}"));
    machine.gate_says(&format!("{new}: held"));
    machine.gate_says(&format!("{old}: proven"));
    // The package is whole, and the other hooks have done their work.
    disk.sh("dpkg --audit").succeeds().says_nothing_of("linux");
    disk.sh(&format!("test -f /boot/initrd.img-{new}")).succeeds();
    machine.boots_old_with_module();

    machine.mend();
    disk.sh(&format!("dkms autoinstall -k {new}")).succeeds().says("update-grub");
    machine.gate_says(&format!("{new}: proven"));
    machine.boots_new("OK");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn with_the_gate_off_the_same_machine_boots_without_its_critical_module() {
    let machine = Machine::new(Base::GRUB);
    machine.disk.sh("touch /etc/dkms/no-gate").succeeds();
    machine.install_new().succeeds();
    machine.boots_new("FAIL");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_optional_module_that_fails_holds_nothing() {
    let machine = Machine::new(Base::GRUB);
    machine.mend();
    machine.disk.sh(&format!("{}dkms add extra/1.0", module("extra", "", &machine.new))).succeeds();

    machine.install_new().succeeds().says("extra knows nothing of this kernel");
    machine.gate_says(&format!("{}: proven", machine.new));
    machine.disk.sh(&format!("dkms status extra/1.0 -k {}", machine.new)).says_nothing_of("installed");
    machine.boots_new("OK");
}

#[rstest]
#[case::update_grub("")]
#[case::update_initramfs("update-initramfs -u -k all")]
#[case::package_again("dpkg-reconfigure linux-image-NEW")]
#[case::saved_names_nothing("echo GRUB_DEFAULT=saved >>/etc/default/grub")]
#[case::saved_is_gone("echo GRUB_DEFAULT=saved >>/etc/default/grub; grub-editenv - set saved_entry=gone")]
#[case::saved_is_held("echo GRUB_DEFAULT=saved >>/etc/default/grub; grub-set-default 0")]
#[case::last_one_is_saved("printf 'GRUB_DEFAULT=saved\\nGRUB_SAVEDEFAULT=true\\n' >>/etc/default/grub")]
#[case::later_settings("echo GRUB_DEFAULT=0 >/etc/default/grub.d/zzz-mine.cfg")]
#[case::one_shot_names_nothing("grub-reboot gone")]
#[case::by_title("echo 'GRUB_DEFAULT=\"1>0\"' >>/etc/default/grub")]
#[ignore = "runs in the lab (root, network): make test"]
fn nothing_that_remakes_grub_cfg_loses_the_hold(#[case] change: &str) {
    let machine = Machine::held(Base::GRUB);
    machine.disk.sh(&change.replace("NEW", &machine.new)).succeeds();
    machine.disk.sh("update-grub").succeeds().says("the default stays on kernel");
    machine.assert_stays_on_old();
    machine.assert_new_without_gate();
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_menu_without_submenus_keeps_the_hold() {
    let machine = Machine::held(Base::GRUB);
    machine.disk.sh("echo GRUB_DISABLE_SUBMENU=y >>/etc/default/grub; update-grub").succeeds();
    machine.boots_old_with_module();
    machine.assert_new_without_gate();
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_hold_outlives_update_grub_on_the_running_machine() {
    let machine = Machine::held(Base::GRUB);
    let then = "#!/bin/sh\nupdate-grub && echo UPDATED\n";
    machine.disk.sh(&format!("{}chmod 755 /root/then", write("/root/then", then))).succeeds();
    machine.disk.boots().says("UPDATED");
    machine.disk.sh("rm /root/then").succeeds();
    machine.boots_old_with_module();
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_hold_gives_way_when_the_proven_kernel_is_gone() {
    let machine = Machine::held(Base::GRUB);
    // Without a new grub.cfg: GRUB itself has to find out.
    machine.disk.sh(&format!("rm /boot/vmlinuz-{}", machine.old)).succeeds();
    machine.boots_new("FAIL");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_hold_gives_way_when_the_proven_kernels_package_is_purged() {
    let machine = Machine::held(Base::GRUB);
    let Machine { disk, old, new } = &machine;
    disk.sh(&format!("dpkg --force-depends --purge linux-image-{old}"))
        .succeeds()
        .says("there is no other kernel");
    assert_eq!(disk.predicted(), *new);
    disk.sh("dkms gate").succeeds().says_nothing_of(old);
}

/// Nobody can have a later word than the last one, but it can be told what comes of it.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_script_that_has_a_later_word_in_grub_cfg_is_told_of() {
    let machine = Machine::held(Base::GRUB);
    let Machine { disk, new, .. } = &machine;
    let script = write("/etc/grub.d/zzz_mine", "#!/bin/sh\necho 'set default=0'\n");
    disk.sh(&format!("{script}chmod 755 /etc/grub.d/zzz_mine; update-grub")).succeeds();
    assert_eq!(disk.predicted(), *new);
    let answer = disk.sh("dkms reboot-safe");
    assert_eq!(answer.code(), 1, "{answer}");
    answer.says("NOT SAFE");
    machine.boots_new("FAIL");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn headers_that_come_after_their_kernel_release_it() {
    let machine = Machine::new(Base::GRUB);
    let Machine { disk, new, .. } = &machine;
    machine.mend();
    disk.sh(&format!("dpkg --purge linux-headers-{new}")).succeeds();

    machine.install_new().succeeds().says(&format!("kernel {new} is held"));
    machine.assert_stays_on_old();

    disk.sh("dpkg -i /root/debs/linux-headers-*.deb").succeeds();
    machine.gate_says(&format!("{new}: proven"));
    assert_eq!(disk.predicted(), *new);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_that_loses_its_module_loses_the_default() {
    let machine = Machine::new(Base::GRUB);
    let Machine { disk, new, .. } = &machine;
    machine.mend();
    machine.install_new().succeeds();
    assert_eq!(disk.predicted(), *new);

    disk.sh(&format!("dkms unbuild crit/1.0 -k {new}")).succeeds().says("is held").says("update-grub");
    machine.assert_stays_on_old();

    disk.sh("echo '#error' >>/usr/src/crit-1.0/crit.c").succeeds();
    disk.sh(&format!("dkms autoinstall -k {new}")).fails().says("is held");
    machine.assert_stays_on_old();

    machine.mend();
    disk.sh(&format!("dkms autoinstall -k {new}")).succeeds().says("releasing it");
    assert_eq!(disk.predicted(), *new);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_is_not_held_for_a_module_that_is_gone() {
    let machine = Machine::held(Base::GRUB);
    let Machine { disk, new, .. } = &machine;
    disk.sh("dkms remove crit/1.0 --all").succeeds().says(&format!("Kernel {new} has what"));
    assert_eq!(disk.predicted(), *new);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_whose_build_was_killed_is_not_booted() {
    let machine = Machine::new(Base::GRUB);
    let Machine { disk, new, .. } = &machine;
    disk.sh(&format!(
        "{OUTSIDE}{}cd /usr/src/crit-1.0; chmod 755 killer; echo PRE_BUILD=killer >>dkms.conf",
        write("/usr/src/crit-1.0/killer", KILLER)
    ))
    .succeeds();

    machine.install_new().fails().says("uncaught signal 9");
    machine.gate_says(&format!("{new}: pending"));
    disk.sh("update-grub").succeeds();
    machine.assert_stays_on_old();
    machine.assert_new_without_gate();

    // What apt says to do about it is all that has to be done.
    machine.mend();
    disk.sh("sed -i /PRE_BUILD/d /usr/src/crit-1.0/dkms.conf; dpkg --configure -a").succeeds();
    machine.gate_says(&format!("{new}: proven"));
    assert_eq!(disk.predicted(), *new);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn nothing_steers_the_boot_when_dkms_is_gone() {
    let machine = Machine::held(Base::GRUB);
    machine.assert_stays_on_old();
    machine.disk.sh("rm /usr/sbin/dkms; update-grub").succeeds().says_nothing_of("dkms");
    assert_eq!(machine.disk.predicted(), machine.new);
}

/// Nobody has to make the menu anew by hand.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_package_that_is_removed_takes_its_hold_with_it() {
    let machine = Machine::held(Base::GRUB);
    let Machine { disk, old, new } = &machine;
    disk.copy_in(our_deb(), "/root");
    // The disk has no patch(1).
    disk.sh("dpkg -i --force-depends --force-confnew /root/dkms-hooks_*.deb; update-grub").succeeds();
    assert_eq!(disk.predicted(), *old);
    disk.sh("dpkg -r dkms-hooks").succeeds().says("Generating grub configuration file");
    assert_eq!(disk.predicted(), *new);
}
