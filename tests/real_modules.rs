// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real third-party modules from Debian's archive, built with real headers and a
//! real compiler, and what the real kmod makes of the result.

mod common;

use common::{Lab, Series, good, under_test_is_debians};
use rstest::rstest;

#[rstest]
#[case::acpi_call("acpi-call-dkms", "acpi-call", "1.2.2", "acpi_call")]
#[case::v4l2loopback("v4l2loopback-dkms", "v4l2loopback", "0.12.7", "v4l2loopback")]
#[ignore = "runs in the lab (root, network): make test"]
fn lives_through_two_kernels(
    #[case] package: &str,
    #[case] name: &str,
    #[case] version: &str,
    #[case] module: &str,
) {
    let lab = Lab::new().kernel(Series::Old).kernel(Series::New).packages(&[package]);
    let (old, new) = (Series::Old.release(), Series::New.release());
    let target = format!("{name}/{version}");

    lab.run(["add", &target]).succeeds();
    lab.run(["status"]).says(&format!("{target}: added"));
    lab.run(["build", &target, "-k", old]).succeeds();
    lab.run(["status"]).says(&format!("{target}, {old}, {}: built", common::ARCH));
    for release in [old, new] {
        lab.run(["install", &target, "-k", release]).succeeds();
        lab.assert_installed(name, version, release);
        lab.sh(&format!("modinfo -k {release} {module}"))
            .succeeds()
            .says(&format!("/lib/modules/{release}/updates/dkms/{module}.ko"))
            .says(&format!("vermagic:       {release} "));
    }

    lab.run(["uninstall", &target, "-k", old]).succeeds();
    lab.assert_not_installed(module, old);
    lab.assert_installed(name, version, new);
    lab.run(["remove", &target, "--all"]).succeeds();
    lab.assert_not_installed(module, new);
    lab.run(["status"]).succeeds().says_nothing_of(name);
    lab.sh(&format!("test -f /usr/src/{name}-{version}/dkms.conf")).succeeds();
}

/// What the kernel would refuse must not be installed, whoever made it.
#[rstest]
// sed keeps the length, so that the result stays a good ELF file.
#[case::vermagic(
    "MAKE[0]=\"make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build \
     && sed -i 's/SMP preempt mod_unload/SMP PREEMPT mod_unload/' $module.ko\""
)]
#[case::another_name(
    "MAKE[0]=\"cp odd.c other.c && echo obj-m := other.o > Makefile \
     && make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build && cp other.ko odd.ko\""
)]
#[case::not_an_elf_file("MAKE[0]=\"echo nothing useful > $module.ko\"")]
#[case::another_architecture(
    "MAKE[0]=\"make -C $kernel_source_dir M=$dkms_tree/$module/$module_version/build \
     && printf '\\\\267' | dd of=$module.ko bs=1 seek=18 conv=notrunc\""
)]
#[ignore = "runs in the lab (root, network): make test"]
fn a_module_that_the_kernel_would_refuse_is_not_installed(#[case] make: &str) {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered("odd", "1.0", good().conf(make));

    lab.run(["install", "odd/1.0", "-k", release]).fails();
    lab.assert_not_installed("odd", release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_failed_upgrade_leaves_the_old_version_installed() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered("foo", "1.0", good()).source(
        "foo",
        "2.0",
        common::broken(),
    );

    lab.run(["install", "foo/1.0", "-k", release]).succeeds();
    lab.run(["install", "foo/2.0", "-k", release]).exits(10);
    lab.assert_installed("foo", "1.0", release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_initramfs_is_remade_once_for_two_modules() {
    let release = Series::New.release();
    let lab = Lab::new()
        .kernel(Series::New)
        .initramfs_stand_in()
        .registered("foo", "1.0", good().remakes_initrd())
        .registered("bar", "1.0", good().remakes_initrd());

    lab.run(["autoinstall", "-k", release]).succeeds();
    assert_eq!(lab.initramfs_calls(release), 1, "calls for two modules");
    lab.sh(&format!("zcat /boot/initrd.img-{release} | busybox cpio -t"))
        .succeeds()
        .says("foo.ko")
        .says("bar.ko");

    // Nothing to do: nothing is remade.
    lab.run(["autoinstall", "-k", release]).succeeds();
    assert_eq!(lab.initramfs_calls(release), 1, "calls after an idle run");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_initramfs_is_left_alone_when_no_module_asks() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).initramfs_stand_in().registered("foo", "1.0", good());

    lab.run(["autoinstall", "-k", release]).succeeds();
    lab.assert_installed("foo", "1.0", release);
    assert_eq!(lab.initramfs_calls(release), 0);
}

/// A kernel of another series: other headers, another kbuild.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn one_failing_module_blocks_nothing_but_itself() {
    let release = Series::Next.release();
    let lab = Lab::new()
        .kernel(Series::Next)
        .registered("foo", "1.0", good())
        .registered("bad", "1.0", common::broken())
        .registered("zoo", "1.0", good());

    let run = lab.run(["autoinstall", "-k", release]);
    run.exits(11).says("bad");
    assert!(under_test_is_debians() || run.stdout().contains("succeeded for module(s) foo zoo"));
    lab.assert_installed("foo", "1.0", release);
    lab.assert_installed("zoo", "1.0", release);
    lab.assert_not_installed("bad", release);
}
