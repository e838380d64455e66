// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's way: the real run-parts over `/etc/kernel/*.d`, the real dpkg with a
//! real `*-dkms` package, the real update-initramfs with systemd-boot's hooks.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{Lab, Series, Source, broken, good};
use fs_err as fs;
use rstest::rstest;

/// A Debian machine whose boot loader nobody knows how to hold.
fn machine() -> Lab {
    Lab::new().debian_hook_stand_ins()
}

#[rstest]
#[case::ordinary(good())]
#[case::critical(good().critical())]
// The image's own hooks make the initramfs afterwards: not twice.
#[case::remaking_the_initramfs(good().critical().remakes_initrd())]
#[ignore = "runs in the lab (root, network): make test"]
fn a_good_module_lets_all_hooks_run(#[case] source: Source) {
    let release = Series::New.release();
    let lab = machine().kernel(Series::New).registered("foo", "1.0", source);

    lab.image_postinst_hooks(release).succeeds();
    lab.assert_installed("foo", "1.0", release);
    assert_eq!(lab.initramfs_calls(release), 1);
    assert!(lab.boot_loader_updated(release));
}

#[rstest]
#[case::by_its_own_word(broken().critical(), &[])]
#[case::by_policy(broken(), &["foo"])]
#[ignore = "runs in the lab (root, network): make test"]
fn a_failing_critical_module_stops_before_the_boot_loader(#[case] source: Source, #[case] policy: &[&str]) {
    let release = Series::New.release();
    let lab = machine().kernel(Series::New).critical(policy).registered("foo", "1.0", source);

    lab.image_postinst_hooks(release).fails().says("foo");
    assert!(!lab.boot_loader_updated(release));
    assert_eq!(lab.initramfs_calls(release), 0);

    // dpkg --configure -a runs the hooks again.
    lab.mend("foo", "1.0");
    lab.image_postinst_hooks(release).succeeds();
    assert!(lab.boot_loader_updated(release));
}

#[rstest]
#[case::abort("abort", false)]
#[case::warn("warn", true)]
#[ignore = "runs in the lab (root, network): make test"]
fn policy_says_what_a_critical_failure_does(#[case] on_failure: &str, #[case] goes_on: bool) {
    let release = Series::New.release();
    let lab = machine().kernel(Series::New).registered("foo", "1.0", broken().critical());
    lab.write("etc/dkms/policy.toml", &format!("[boot]\non_failure = \"{on_failure}\"\n"));

    let run = lab.image_postinst_hooks(release);
    assert_eq!(run.code() == 0, goes_on, "{run}");
    assert_eq!(lab.boot_loader_updated(release), goes_on);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_failing_optional_module_goes_on_with_a_warning() {
    let release = Series::New.release();
    let lab = machine().kernel(Series::New).registered("foo", "1.0", good().critical()).registered(
        "bad",
        "1.0",
        broken(),
    );

    let run = lab.image_postinst_hooks(release);
    run.succeeds();
    assert!(run.stderr().contains("bad"), "no warning: {run}");
    assert!(lab.boot_loader_updated(release));
    lab.assert_installed("foo", "1.0", release);
    lab.assert_not_installed("bad", release);
}

/// Nothing orders the image before its headers, or after: both must end alike.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn headers_after_the_image_reach_the_same_state() {
    let release = Series::New.release();
    let module = || good().critical().remakes_initrd();
    let headers_first = machine().kernel(Series::New).registered("foo", "1.0", module());
    headers_first.header_postinst_hooks(release).succeeds();
    headers_first.image_postinst_hooks(release).succeeds();

    let image_first = machine().image_stand_in(release).registered("foo", "1.0", module());
    image_first.image_postinst_hooks(release).fails().says("headers");
    assert!(!image_first.boot_loader_updated(release));
    let image_first = image_first.headers(release);
    image_first.header_postinst_hooks(release).succeeds();
    assert_eq!(
        image_first.initramfs_calls(release),
        1,
        "nobody else makes the initramfs after the headers' hook"
    );
    image_first.image_postinst_hooks(release).succeeds();

    for lab in [&headers_first, &image_first] {
        lab.assert_installed("foo", "1.0", release);
        assert!(lab.boot_loader_updated(release));
    }
    // The gate also says since when, which differs.
    for command in ["dkms status", "dkms gate | sed 's/ since .*//'"] {
        let (expected, found) = (headers_first.sh(command), image_first.sh(command));
        assert_eq!(expected.stdout(), found.stdout(), "{expected}{found}");
    }
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn headers_after_the_image_build_optional_modules_too() {
    let release = Series::New.release();
    let lab = machine().image_stand_in(release).registered("foo", "1.0", good().remakes_initrd());
    lab.image_postinst_hooks(release).succeeds();
    assert_eq!(lab.initramfs_calls(release), 1);

    let lab = lab.headers(release);
    lab.header_postinst_hooks(release).succeeds();
    lab.assert_installed("foo", "1.0", release);
    assert_eq!(lab.initramfs_calls(release), 2);
}

#[rstest]
#[case::installed(good())]
#[case::never_built(broken())]
#[ignore = "runs in the lab (root, network): make test"]
fn removing_a_kernel_removes_its_modules_only(#[case] source: Source) {
    let (old, new) = (Series::Old.release(), Series::New.release());
    let lab = machine().kernel(Series::Old).kernel(Series::New).registered("foo", "1.0", source).registered(
        "bar",
        "1.0",
        good(),
    );
    lab.image_postinst_hooks(old).succeeds();
    lab.image_postinst_hooks(new).succeeds();

    lab.image_prerm_hooks(old).succeeds();
    lab.assert_not_installed("foo", old);
    lab.assert_not_installed("bar", old);
    lab.assert_installed("bar", "1.0", new);
}

/// The contract of every `*-dkms` package: its real maintainer scripts, run by
/// the real dpkg. The root's kernels are not the running one, as in any chroot.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_dkms_package_installs_upgrades_and_leaves() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::Old).kernel(Series::New);
    fs::copy(common::deb("acpi-call-dkms"), lab.path("tmp/package.deb")).unwrap();
    // Our package would provide dkms; this root has it unpackaged.
    let unpack = "dpkg --force-depends -i /tmp/package.deb";

    lab.sh(unpack).succeeds();
    let version = lab.sh("dpkg-query -Wf '${Version}' acpi-call-dkms").stdout();
    let version = version.split('-').next().unwrap();
    lab.assert_installed("acpi-call", version, release);

    // prerm upgrade, then postinst configure.
    lab.sh(unpack).succeeds();
    lab.assert_installed("acpi-call", version, release);

    lab.sh("dpkg -r acpi-call-dkms").succeeds();
    lab.assert_not_installed("acpi_call", release);
    lab.run(["status"]).succeeds().says_nothing_of("acpi-call");
}

/// A Debian machine with systemd-boot: everything real but the firmware. Here
/// update-initramfs itself calls kernel-install, which calls our plugins.
fn systemd_boot_machine(module: Source) -> Lab {
    let lab = Lab::new()
        .image(Series::New.cloud_release())
        .packages_and_dependencies(&["initramfs-tools", "busybox"])
        .systemd_boot();
    lab.write("etc/initramfs-tools/conf.d/small", "MODULES=list\nCOMPRESS=gzip\n");
    lab.write("etc/initramfs-tools/modules", "foo\n");
    lab.registered("foo", "1.0", module)
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn update_initramfs_calling_kernel_install_does_not_deadlock() {
    let release = Series::New.cloud_release();
    let lab = systemd_boot_machine(good().critical().remakes_initrd()).headers(release);

    let hooks = format!(
        "DEB_MAINT_PARAMS=\"'configure' ''\" timeout 120 run-parts --report --exit-on-error \
         --arg={release} --arg=/boot/vmlinuz-{release} /etc/kernel/postinst.d"
    );
    lab.sh(&hooks).succeeds();
    lab.assert_installed("foo", "1.0", release);
    lab.assert_boots(release);

    // Every later update-initramfs comes by here as well.
    lab.sh(&format!("timeout 120 update-initramfs -u -k {release}")).succeeds();
    lab.assert_boots(release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_headers_hook_remakes_the_initramfs_without_deadlock() {
    let release = Series::New.cloud_release();
    let lab = systemd_boot_machine(good().critical().remakes_initrd());
    lab.image_postinst_hooks(release);
    lab.assert_withheld(release);

    let lab = lab.headers(release);
    lab.sh(&format!(
        "timeout 120 run-parts --report --exit-on-error --arg={release} \
         /etc/kernel/header_postinst.d"
    ))
    .succeeds();
    lab.assert_installed("foo", "1.0", release);
    lab.assert_boots(release);
}
