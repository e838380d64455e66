// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole machines with systemd-boot and UEFI firmware: a kernel arrives by the real linux-image
//! package, Debian's hooks and kernel-install, and what the gate makes of it is seen by booting.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::disk::Base;
use common::machine::{Machine, write};
use rstest::rstest;

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_without_its_critical_module_gets_no_entry_until_that_is_mended() {
    let machine = Machine::new(Base::SYSTEMD_BOOT);
    let Machine { disk, old, new } = &machine;

    machine.install_new().succeeds().says(&format!("kernel {new} is held"));
    disk.sh("dpkg --audit").succeeds().says_nothing_of("linux");
    machine.boots_old_with_module();

    machine.update_the_loader().succeeds();
    machine.assert_stays_on_old();
    machine.gate_says(&format!("{old}: proven"));

    machine.mend();
    disk.sh(&format!("dkms autoinstall -k {new}")).succeeds().says("kernel-install");
    machine.gate_says(&format!("{new}: proven"));
    machine.boots_new("OK");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn with_the_gate_off_the_same_machine_boots_without_its_critical_module() {
    let machine = Machine::new(Base::SYSTEMD_BOOT);
    machine.disk.sh("touch /etc/dkms/no-gate").succeeds();
    machine.install_new().succeeds();
    machine.boots_new("FAIL");
}

/// The firmware remembers which entry was asked for, as `bootctl set-default` does it.
const ASK_FOR_THE_NEW: &str = r#"#!/bin/sh
modprobe efivarfs
mount -t efivarfs none /sys/firmware/efi/efivars
{
	printf '\007\000\000\000'
	printf '%s\000' "$(cat /root/wanted)" | iconv -t UTF-16LE
} >/root/variable
cat /root/variable >/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f && echo ASKED
"#;

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_entry_that_is_there_already_is_not_booted_even_if_the_firmware_asks_for_it() {
    let machine = Machine::new(Base::SYSTEMD_BOOT);
    let Machine { disk, new, .. } = &machine;
    machine.mend();
    machine.install_new().succeeds();
    disk.sh(&format!(
        "basename /boot/efi/loader/entries/*-{new}.conf >/root/wanted\n{}chmod 755 /root/then",
        write("/root/then", ASK_FOR_THE_NEW)
    ))
    .succeeds();
    disk.boots().says("ASKED");
    disk.sh("rm /root/then").succeeds();

    // The next build of the module fails, and the old one is gone.
    disk.sh(&format!("dkms unbuild crit/1.0 -k {new}")).succeeds().says("is held back");
    disk.sh("echo '#error' >>/usr/src/crit-1.0/crit.c").succeeds();
    disk.sh(&format!("dkms autoinstall -k {new}")).fails();
    machine.boots_old_with_module();
    machine.update_the_loader().succeeds();
    machine.boots_old_with_module();

    machine.mend();
    disk.sh(&format!("dkms autoinstall -k {new}")).succeeds();
    machine.boots_new("OK");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_that_wants_signatures_is_not_booted_with_a_module_whose_key_it_does_not_know() {
    let machine = Machine::new(Base::SYSTEMD_BOOT);
    let Machine { disk, new, .. } = &machine;
    machine.mend();
    // New entries get it; the one that is there does not.
    disk.sh("sed -i 's/$/ module.sig_enforce=1/' /etc/kernel/cmdline").succeeds();
    machine.install_new().succeeds().says(&format!("kernel {new} is held")).says("sig_enforce");
    machine.boots_old_with_module();

    disk.sh("touch /etc/dkms/no-gate").succeeds();
    disk.sh(&format!("update-initramfs -u -k {new}")).succeeds();
    machine.boots_new("FAIL");

    disk.sh("rm /etc/dkms/no-gate; sed -i 's/ module.sig_enforce=1//' /etc/kernel/cmdline").succeeds();
    disk.sh(&format!("rm /boot/efi/loader/entries/*-{new}.conf; update-initramfs -u -k {new}")).succeeds();
    machine.gate_says(&format!("{new}: proven"));
    machine.boots_new("OK");
}
