// SPDX-License-Identifier: MIT OR Apache-2.0
//! On which machines anybody looks, and which registered modules are critical there: those that
//! bring what the kernel itself does not.

use rstest::rstest;

use super::fixture::{HBA, HBAS, Machine, NEW, NOTHING, RUNNING};
use crate::sys::root::Root;

/// A machine that needs hpsa, seen from where nothing can be told of it.
fn on_hpsa() -> Machine {
    let machine = Machine::on_sda("hpsa");
    machine.package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), ["hpsa: drives sda, which carries /"]);
    machine
}

#[rstest]
#[case::systemd("/run/systemd/container", "podman\n", "a container")]
#[case::nspawn("/run/host/container-manager", "systemd-nspawn\n", "a container")]
#[case::podman("/run/.containerenv", "", "a container")]
#[case::docker("/.dockerenv", "", "a container")]
#[case::lxc("/proc/1/environ", "TERM=linux\0container=lxc\0", "a container")]
#[case::sandbox("/proc/self/mountinfo", "1 0 8:1 /home/u/root / rw - ext4 /dev/sda1 rw\n", "as in a sandbox")]
#[case::no_proc("/proc/self/mountinfo", "", "does not show")]
fn in_a_container_nothing_is_detected(#[case] mark: &str, #[case] content: &str, #[case] why: &str) {
    let machine = on_hpsa();
    machine.file(mark, content);
    let detected = machine.ask();
    assert!(detected.critical.is_empty() && detected.warnings.is_empty());
    assert!(detected.off.as_ref().is_some_and(|off| off.contains(why)), "{:?}", detected.off);
}

/// Its /proc and /sys are those of the system around it.
#[test]
fn in_a_chroot_nothing_is_detected() {
    let machine = on_hpsa();
    fs_err::remove_file(machine.path("/proc/1/root")).unwrap();
    machine.link("/proc/1/root", "/sys");
    let detected = machine.ask();
    assert_eq!((detected.critical.len(), detected.off.as_deref()), (0, Some("this is a chroot")));
}

#[test]
fn in_an_image_nothing_is_detected() {
    let mut machine = on_hpsa();
    machine.tree.root = Root::at(&machine.path("/"));
    let detected = machine.ask();
    assert_eq!((detected.critical.len(), detected.off.is_some()), (0, true));
}

#[test]
fn ostree_boots_from_a_directory() {
    let machine = on_hpsa();
    machine.file("/proc/self/mountinfo", "1 0 8:1 /ostree/deploy/x/deploy/1.0 / rw - ext4 /dev/sda1 rw\n");
    assert_eq!(machine.ask().critical.len(), 1);
}

/// The vendor's driver for a controller that the kernel has a driver for as well.
#[rstest]
#[case::own_is_younger("own", &[HBAS], "has its own kernel/drivers/scsi/mpt3sas.ko")]
#[case::own_finds_devices_in_another_way("own", &[], "has its own kernel/drivers/scsi/mpt3sas.ko")]
#[case::own_does_not_know_the_device("own", &["pci:v00001000d00000064sv*sd*bc*sc*i*"], "")]
#[case::built_in("builtin", &[], "has it built in")]
#[case::listed_but_not_there("gone", &[HBAS], "")]
#[case::none("", &[], "")]
fn an_override_is_not_critical_where_the_kernel_has_its_own(
    #[case] own: &str,
    #[case] aliases: &[&str],
    #[case] instead: &str,
) {
    let machine = Machine::on_sda(&format!("mpt3sas {HBA}"));
    machine.package("mpt3sas-vendor", &["mpt3sas"]);
    let path = "kernel/drivers/scsi/mpt3sas.ko";
    // What depmod makes of it: ours is found before the kernel's.
    machine.installed(NEW, "updates/dkms/mpt3sas.ko", &[HBAS]);
    match own {
        "own" => drop(machine.own(NEW, path, aliases)),
        "builtin" => drop(machine.file(&format!("/lib/modules/{NEW}/modules.builtin"), path)),
        "gone" => drop(machine.file(&format!("/lib/modules/{NEW}/modules.order"), path)),
        _ => {}
    }
    let because = "drives sda, which carries /";
    if instead.is_empty() {
        assert_eq!(machine.critical(), [format!("mpt3sas-vendor: {because}")]);
        assert_eq!(machine.spared(), NOTHING);
    } else {
        assert_eq!(machine.critical(), NOTHING);
        assert_eq!(machine.spared(), [format!("mpt3sas-vendor: {because}, but the kernel {instead}")]);
    }
}

/// Where modules go to the places of the kernel's own, or somebody has put one there by hand.
#[rstest]
#[case::own("Y", None, 0)]
#[case::overwritten("", None, 1)]
#[case::kept_aside("", Some("/var/lib/dkms/mpt3sas/original_module/6.2/x86_64/mpt3sas.ko"), 0)]
fn a_file_that_was_not_built_with_the_kernel_is_not_its_own(
    #[case] intree: &str,
    #[case] original: Option<&str>,
    #[case] critical: usize,
) {
    let machine = Machine::on_sda("mpt3sas");
    let path = "kernel/drivers/scsi/mpt3sas.ko";
    machine.package("mpt3sas", &["mpt3sas"]).own(NEW, path, &[]);
    machine.written(&format!("/lib/modules/{NEW}/{path}"), &[], intree);
    if let Some(original) = original {
        machine.written(original, &[], "Y");
    }
    assert_eq!(machine.critical().len(), critical);
}

/// Without modules.order the files are looked for.
#[test]
fn what_a_kernel_has_is_found_without_its_list() {
    let machine = Machine::on_sda("mpt3sas");
    machine.package("mpt3sas", &["mpt3sas"]).own(NEW, "kernel/drivers/scsi/mpt3sas.ko", &[]);
    fs_err::remove_file(machine.path(&format!("/lib/modules/{NEW}/modules.order"))).unwrap();
    assert_eq!(machine.critical(), NOTHING);
}

#[test]
fn what_a_kernel_has_that_is_not_there_yet_is_not_known() {
    let machine = Machine::on_sda("mpt3sas");
    machine.package("mpt3sas", &["mpt3sas"]);
    fs_err::remove_dir_all(machine.path(&format!("/lib/modules/{NEW}"))).unwrap();
    assert_eq!(machine.critical().len(), 1);
    assert_eq!(machine.ask().warnings, ["kernel 6.2 is not there: what it brings itself is not known"]);
}

/// The running kernel drives the disk itself, the new one has lost the driver; a registered module
/// that the running kernel has too says that it is for the same device.
#[rstest]
#[case::lost(false, 1)]
#[case::still_there(true, 0)]
fn who_claims_a_device_is_needed_once_the_kernel_drops_it(
    #[case] still_there: bool,
    #[case] critical: usize,
) {
    let machine = Machine::on_sda(&format!("megaraid_old {HBA}"));
    machine.package("megaraid-legacy", &["megaraid_legacy"]).active("megaraid-legacy", RUNNING);
    machine.installed(RUNNING, "updates/dkms/megaraid_legacy.ko", &[HBAS]);
    if still_there {
        machine.own(NEW, "kernel/drivers/scsi/megaraid_old.ko", &[HBAS]);
    }
    assert_eq!(machine.critical().len(), critical);
}

/// The package that another one's modules need, by the running kernel's index.
#[rstest]
#[case::in_another_package("spl", &["spl: zfs needs it, and / is a zfs file system (p/r)", "zfs: / is a zfs file system (p/r)"])]
#[case::of_no_package("other", &["zfs: / is a zfs file system (p/r)"])]
fn what_a_critical_module_needs_is_critical(#[case] package: &str, #[case] want: &[&str]) {
    let machine = Machine::new();
    machine.mount("/", "0:25", "zfs", "p/r", "").package("zfs", &["zfs"]).package(package, &[package]);
    let dep = "updates/dkms/zfs.ko.xz: updates/dkms/spl.ko.xz\n";
    machine.file(&format!("/lib/modules/{RUNNING}/modules.dep"), dep);
    machine.file(&format!("/lib/modules/{RUNNING}/updates/dkms/zfs.ko.xz"), "");
    assert_eq!(machine.critical(), want);
}

#[test]
fn of_two_packages_with_a_module_that_of_the_running_kernel_counts() {
    let machine = Machine::on_sda("hpsa");
    machine.package("hpsa-1", &["hpsa"]).package("hpsa-2", &["hpsa", "other"]);
    assert_eq!(machine.critical().len(), 2);
    machine.active("hpsa-1", RUNNING);
    assert_eq!(machine.critical(), ["hpsa-1: drives sda, which carries /"]);
}

#[rstest]
#[case::ruled_out(1, 0)]
#[case::kept(0, 1)]
fn a_record_that_the_kernel_rules_out_brings_nothing(#[case] record: usize, #[case] critical: usize) {
    let machine = Machine::on_sda("hpsa");
    machine.package("drivers", &["hpsa", "other"]).only(record);
    assert_eq!(machine.critical().len(), critical);
}

#[test]
fn a_driver_that_is_built_in_goes_by_its_own_name() {
    let machine = Machine::on_sda("hpsa");
    fs_err::remove_file(machine.path("/sys/bus/b/drivers/hpsa/module")).unwrap();
    machine.package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), ["hpsa: drives sda, which carries /"]);
}
