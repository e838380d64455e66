// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make rpm`: our package under the real rpm, among packages of kernels as Fedora has them, whose
//! scripts call the real kernel-install.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::collections::BTreeSet;

use common::{Lab, MACHINE_ID, Series, Source, broken, good};
use fs_err as fs;
use rstest::rstest;

/// A machine that boots by BLS entries and has our package.
fn machine() -> Lab {
    let lab = Lab::without_dkms().boot_loader_spec().rpm();
    lab.rpm_install_ours().succeeds();
    lab
}

/// The same, and a kernel's packages, none of which is installed.
fn machine_for(source: Source) -> Lab {
    machine().rpm_kernel(Series::New).registered("foo", "1.0", source)
}

const TOGETHER: &[&str] = &["kernel-core kernel-devel"];
const IMAGE_FIRST: &[&str] = &["kernel-core", "kernel-devel"];
const HEADERS_FIRST: &[&str] = &["kernel-devel", "kernel-core"];

/// Installs packages, transaction after transaction; all of them complete.
fn install(lab: &Lab, transactions: &[&str]) -> String {
    let mut said = String::new();
    for packages in transactions {
        let files: Vec<String> = packages.split(' ').map(|name| format!("/tmp/{name}-[0-9]*.rpm")).collect();
        let ran = lab.sh(&format!("rpm -U {}", files.join(" ")));
        said += &ran.succeeds().to_string();
    }
    if !transactions.is_empty() {
        lab.sh(&format!("rpm -q {}", transactions.join(" "))).succeeds();
    }
    said
}

#[rstest]
#[case::together(TOGETHER)]
#[case::image_first(IMAGE_FIRST)]
#[case::headers_first(HEADERS_FIRST)]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_gets_its_modules_and_its_entry_whatever_comes_first(#[case] transactions: &[&str]) {
    let release = Series::New.release();
    let lab = machine_for(good().critical().remakes_initrd());
    let (last, before) = transactions.split_last().unwrap();
    install(&lab, before);
    lab.assert_withheld(release);
    install(&lab, &[last]);
    lab.assert_installed("foo", "1.0", release);
    lab.assert_boots(release);
    lab.sh("dkms gate").says(&format!("{release}: proven"));
}

#[rstest]
#[case::together(TOGETHER)]
#[case::image_first(IMAGE_FIRST)]
#[case::headers_first(HEADERS_FIRST)]
#[ignore = "runs in the lab (root, network): make test"]
fn without_what_it_needs_a_kernel_gets_no_entry_and_rpm_goes_on(#[case] transactions: &[&str]) {
    let release = Series::New.release();
    let lab = machine_for(broken().critical());
    let said = install(&lab, transactions);
    assert!(said.contains(&format!("kernel {release} is held")), "{said}");
    assert!(!said.contains("scriptlet failed"), "{said}");
    lab.assert_withheld(release);
    lab.sh("dkms gate").says(&format!("{release}: held"));

    // The same trigger, or what it was told, once the cause is mended.
    lab.mend("foo", "1.0");
    if transactions == IMAGE_FIRST {
        lab.sh("dkms log last").says("hook rpm headers");
        lab.sh("dkms replay").succeeds();
    } else {
        lab.sh("rpm -U --replacepkgs /tmp/kernel-devel-[0-9]*.rpm").succeeds();
    }
    lab.assert_installed("foo", "1.0", release);
    lab.assert_boots(release);
}

/// SUSE's kernels call nobody: the trigger on their headers is all there is.
#[rstest]
#[case::together(TOGETHER)]
#[case::image_first(IMAGE_FIRST)]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_of_suse_gets_its_modules_with_its_headers(#[case] transactions: &[&str]) {
    let release = Series::New.release();
    let lab = Lab::without_dkms().initramfs_stand_in().rpm();
    lab.rpm_install_ours().succeeds();
    let lab = lab.rpm_kernel_of_suse(Series::New).registered("foo", "1.0", good().remakes_initrd());
    install(&lab, transactions);
    lab.assert_installed("foo", "1.0", release);
    assert_eq!(lab.initramfs_calls(release), 1);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn headers_that_come_later_bring_what_the_machine_can_do_without() {
    let release = Series::New.release();
    let lab = machine_for(good());
    install(&lab, &["kernel-core"]);
    lab.assert_boots(release);
    lab.assert_not_installed("foo", release);
    let said = install(&lab, &["kernel-devel"]);
    lab.assert_installed("foo", "1.0", release);
    assert!(!said.contains("kernel-install"), "it is published already: {said}");
    lab.sh("dkms log last").succeeds().says("hook rpm headers");
    lab.sh("dkms replay --dry-run").succeeds().says("stays as it is");

    lab.sh("rpm -e kernel-core kernel-devel").succeeds();
    lab.assert_withheld(release);
    lab.run(["status"]).succeeds().says("foo/1.0: added").says_nothing_of(release);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn it_takes_the_place_of_dkms_with_its_settings() {
    let lab = Lab::without_dkms().boot_loader_spec().rpm();
    lab.rpm_other_dkms();
    lab.rpm_build("foo-dkms", ("1", "1"), "Requires: dkms >= 3\n%description\nA module.\n%files\n");
    lab.sh("rpm -U /tmp/dkms-3.2.2-1.noarch.rpm /tmp/foo-dkms-1-1.noarch.rpm").succeeds();
    lab.sh("echo 'parallel_jobs=3' >>/etc/dkms/framework.conf").succeeds();

    lab.rpm_install_ours().succeeds();
    lab.sh("rpm -q dkms").fails();
    lab.sh("rpm -q --whatprovides dkms").succeeds().says("dkms-hooks-");
    lab.run(["--version"]).succeeds().says("dkms-4");
    lab.sh("cat /etc/dkms/framework.conf").says("parallel_jobs=3");
    // Everything else is as it was put there, and what needs dkms is content.
    let verified = lab.sh("rpm -V --nomtime dkms-hooks; rpm -V foo-dkms");
    let changed: Vec<String> = verified
        .stdout()
        .lines()
        .filter(|line| !line.contains(" c /etc/dkms/framework.conf"))
        .map(str::to_owned)
        .collect();
    assert_eq!(changed, Vec::<String>::new());
    lab.sh("rpm -e dkms-hooks").fails().says("foo-dkms");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn without_the_package_nothing_is_held_or_left() {
    let release = Series::New.release();
    let lab = Lab::without_dkms().boot_loader_spec().rpm().rpm_kernel(Series::New);
    let files = || {
        let found = lab.sh(
            "find / /usr /etc /var -xdev \\( -path /var/lib/rpm -o -path /tmp -o -path /var/log \\) -prune -o ! -type d -print",
        );
        // What is registered stays so for another dkms.
        let ours =
            |path: &&str| !path.ends_with("/dkms-hooks.rpm") && !path.starts_with("/var/lib/dkms/foo/");
        found.succeeds().stdout().lines().filter(ours).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let before = files();
    lab.rpm_install_ours().succeeds();
    let lab = &lab;
    for (name, text) in [
        ("Makefile", "obj-m := foo.o\n"),
        ("foo.c", "#include <no/such/header.h>\n"),
        (
            "dkms.conf",
            "PACKAGE_NAME=foo\nPACKAGE_VERSION=1.0\nBUILT_MODULE_NAME=foo\nDEST_MODULE_LOCATION=/updates\n\
             AUTOINSTALL=yes\nBOOT_CRITICAL=yes\n",
        ),
    ] {
        lab.write(&format!("usr/src/foo-1.0/{name}"), text);
    }
    lab.run(["add", "foo/1.0"]).succeeds();
    install(lab, TOGETHER);
    lab.assert_withheld(release);
    // One that was in the menu before it was held.
    let entry = format!("boot/loader/entries/{MACHINE_ID}-6.0-old.conf");
    lab.write(&format!("{entry}.held"), "title old\nversion 6.0-old\nlinux /old\n");
    lab.sh("test -e /run/motd.d/dkms").succeeds();

    lab.sh("rpm -e dkms-hooks").succeeds();
    assert!(lab.path(&entry).exists());
    lab.sh("test ! -e /run/motd.d/dkms").succeeds();
    // As the kernel's package would have it.
    lab.sh(&format!("kernel-install add {release} /lib/modules/{release}/vmlinuz")).succeeds();
    lab.assert_boots(release);
    lab.sh("rpm -e kernel-core kernel-devel; rm -r /usr/src/foo-1.0").succeeds();
    fs::remove_file(lab.path(&entry)).unwrap();
    let left: Vec<String> = before.symmetric_difference(&files()).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn rpmlint_finds_no_errors() {
    let lab = Lab::without_dkms().packages_and_dependencies(&["rpm"]).packages_and_dependencies(&["rpmlint"]);
    fs::copy(common::rpm::our_rpm(), lab.path("tmp/ours.rpm")).unwrap();
    let said = lab.sh("rpmlint /tmp/ours.rpm 2>&1 || true").succeeds().stdout();
    assert!(said.contains("packages: 1"), "{said}");
    // Whoever publishes it signs it, and one binary without libraries is what it is. The scripts that
    // packages of modules are made with are the administrator's to edit.
    let is_meant = |line: &str| {
        line.ends_with("no-signature")
            || line.ends_with("statically-linked-binary /usr/sbin/dkms")
            || line.contains("executable-marked-as-config-file /etc/dkms/template-dkms-mk")
    };
    let errors: Vec<&str> = said.lines().filter(|line| line.contains(": E: ") && !is_meant(line)).collect();
    assert_eq!(errors, Vec::<&str>::new());
}
