// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real kernel-install over our plugins: which kernels get a boot entry.

mod common;

use common::{Lab, Series, Source, broken, good};
use rstest::rstest;

/// A machine that boots by BLS entries and runs the old kernel, proven.
fn machine() -> Lab {
    Lab::new().kernel(Series::Old).kernel(Series::New).boot_loader_spec()
}

#[rstest]
#[case::ordinary(good())]
#[case::critical(good().critical())]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_with_its_modules_gets_its_entry(#[case] source: Source) {
    let release = Series::New.release();
    let lab = machine().registered("foo", "1.0", source);

    lab.kernel_install_add(release).succeeds();
    lab.assert_installed("foo", "1.0", release);
    lab.assert_boots(release);

    // And keeps it when nothing has changed.
    lab.kernel_install_add(release).succeeds();
    lab.assert_boots(release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn without_modules_nothing_is_in_the_way() {
    let release = Series::New.release();
    let lab = machine();
    lab.kernel_install_add(release).succeeds();
    lab.assert_boots(release);
}

#[rstest]
#[case::by_its_own_word(broken().critical(), &[])]
#[case::by_policy(broken(), &["foo"])]
#[ignore = "runs in the lab (root, network): make test"]
fn a_failing_critical_module_withholds_the_entry(#[case] source: Source, #[case] policy: &[&str]) {
    let release = Series::New.release();
    let lab = machine().critical(policy).registered("foo", "1.0", source);

    lab.kernel_install_add(release).succeeds().says("foo");
    lab.assert_withheld(release);
    lab.assert_not_installed("foo", release);
    lab.sh("! ls -d /tmp/kernel-install.staging.* 2>/dev/null").succeeds();
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn without_headers_a_critical_module_withholds_the_entry() {
    let release = Series::New.release();
    let lab =
        Lab::new().image_stand_in(release).boot_loader_spec().registered("foo", "1.0", good().critical());

    lab.kernel_install_add(release).succeeds().says("headers");
    lab.assert_withheld(release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_failing_optional_module_is_a_warning() {
    let release = Series::New.release();
    let lab = machine().registered("foo", "1.0", good().critical()).registered("bad", "1.0", broken());

    let run = lab.kernel_install_add(release);
    run.succeeds();
    assert!(run.stderr().contains("bad"), "no warning: {run}");
    lab.assert_boots(release);
    lab.assert_installed("foo", "1.0", release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_mended_module_releases_the_entry() {
    let (old, new) = (Series::Old.release(), Series::New.release());
    let lab = machine().source("foo", "1.0", good().critical());
    lab.run(["add", "foo/1.0"]).succeeds();
    lab.kernel_install_add(old).succeeds();
    lab.assert_boots(old);

    let lab = lab.source("foo", "1.0", broken().critical());
    lab.kernel_install_add(new).succeeds();
    lab.assert_withheld(new);
    lab.assert_boots(old);

    lab.mend("foo", "1.0");
    lab.kernel_install_add(new).succeeds();
    lab.assert_boots(new);
    lab.assert_boots(old);
    lab.assert_installed("foo", "1.0", new);
}

#[rstest]
#[case::by_default("auto", false)]
#[case::but_not_on_a_machine_that_boots_without("none", true)]
#[ignore = "runs in the lab (root, network): make test"]
fn a_missing_initramfs_withholds_the_entry(#[case] generator: &str, #[case] boots: bool) {
    let release = Series::New.release();
    // In the place of the plugin that stages an image, one that makes none.
    let lab = machine()
        .registered("foo", "1.0", good().critical())
        .executable("etc/kernel/install.d/50-initramfs-stand-in.install", "#!/bin/sh\n");
    lab.write("etc/dkms/policy.toml", &format!("[initramfs]\ngenerator = \"{generator}\"\n"));

    lab.kernel_install_add(release).succeeds();
    if boots {
        lab.assert_boots(release);
    } else {
        lab.assert_withheld(release);
    }
}

/// What the generator stages is what counts: a module that it leaves out is missing at boot.
#[rstest]
#[case::left_out("rm -r modules/*/updates", "gzip", false)]
#[case::stripped("strip --strip-unneeded modules/*/updates/dkms/foo.ko", "gzip", true)]
#[case::another_build("sed -i s/DKMS-TEST/ANOTHER-1/ modules/*/updates/dkms/foo.ko", "gzip", false)]
#[case::cut_short("true", "gzip | head -c 999", false)]
#[ignore = "runs in the lab (root, network): make test"]
fn an_initramfs_that_lacks_the_module_withholds_the_entry(
    #[case] doing: &str,
    #[case] pack: &str,
    #[case] boots: bool,
) {
    let release = Series::New.release();
    let lab = machine().registered("foo", "1.0", good().critical().remakes_initrd());
    let lab = lab.executable(
        "etc/kernel/install.d/50-initramfs-stand-in.install",
        &format!(
            "#!/bin/bash\n[ \"$1\" = add ] || exit 0\nset -e
             cd \"$(mktemp -d)\"; mkdir -p usr/lib/modules
             cp -r /usr/lib/modules/$2 usr/lib/modules/; rm usr/lib/modules/*/build
             (cd usr/lib; {doing})
             find usr | busybox cpio -o -H newc 2>/dev/null | {pack} >$KERNEL_INSTALL_STAGING_AREA/initrd\n"
        ),
    );

    let ran = lab.kernel_install_add(release);
    ran.succeeds();
    if boots {
        lab.assert_boots(release);
    } else {
        lab.assert_withheld(release);
        ran.says("the initramfs");
    }
}

#[rstest]
#[case::installed(good(), "true")]
#[case::never_built(broken(), "true")]
#[case::its_conf_is_damaged(good(), "echo 'if then (' >/usr/src/foo-1.0/dkms.conf")]
#[case::its_source_is_gone(good(), "rm -r /usr/src/foo-1.0")]
#[case::the_kernel_is_half_gone(good(), "rm -rf /lib/modules/KERNEL")]
#[case::no_dkms_tree(good(), "rm -rf /var/lib/dkms")]
#[ignore = "runs in the lab (root, network): make test"]
fn removing_a_kernel_never_fails(#[case] source: Source, #[case] before: &str) {
    let release = Series::New.release();
    let lab = machine().registered("foo", "1.0", source);
    lab.kernel_install_add(release).succeeds();
    lab.assert_boots(release);

    lab.sh(&before.replace("KERNEL", release)).succeeds();
    lab.sh(&format!("kernel-install remove {release}")).succeeds();
    lab.assert_withheld(release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn removing_an_unknown_kernel_never_fails() {
    machine()
        .registered("foo", "1.0", good().critical())
        .sh("kernel-install remove 1.2.3-nowhere")
        .succeeds();
}
