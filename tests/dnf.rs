// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trial builds under the real dnf 4: a kernel comes from a repository, and its modules are built
//! before rpm unpacks anything.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{Lab, Ran, Series, Source, broken, good};
use rstest::rstest;

/// A machine with our package, a module, and a kernel in the repository.
fn machine(source: Source, policy: &str) -> Lab {
    let lab = Lab::without_dkms()
        .boot_loader_spec()
        .packages_and_dependencies(&["dnf"])
        .packages_and_dependencies(&["createrepo-c"])
        .rpm();
    // dnf is there as Debian's package; this one lets our trigger know.
    for name in ["python3-dnf", "hello"] {
        lab.rpm_build(name, ("4", "1"), "%description\nNothing.\n%files\n");
    }
    lab.sh("rpm -U /tmp/python3-dnf-4-1.noarch.rpm").succeeds();
    lab.rpm_install_ours().succeeds();
    let lab = lab.rpm_kernel(Series::New).registered("foo", "1.0", source);
    lab.write("etc/dkms/policy.toml", policy);
    lab.write("etc/dnf/dnf.conf", "[main]\ngpgcheck=0\n");
    lab.write("etc/yum.repos.d/test.repo", "[test]\nname=test\nbaseurl=file:///repo\nenabled=1\n");
    lab.sh("mkdir /repo; mv /tmp/kernel-*.rpm /tmp/hello-*.rpm /repo; createrepo_c -q /repo").succeeds();
    lab
}

fn dnf(lab: &Lab, words: &str) -> Ran {
    lab.sh(&format!("dnf -y --releasever=1 {words} </dev/null 2>&1"))
}

const KERNEL: &str = "install kernel-core kernel-devel";

/// Nothing of the trial outlives it.
#[track_caller]
fn assert_tidy(lab: &Lab) {
    lab.sh("ls -A /var/tmp; grep dkms-trial /proc/self/mountinfo || true")
        .succeeds()
        .says_nothing_of("dkms-trial");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernels_modules_are_built_before_anything_is_unpacked() {
    let release = Series::New.release();
    let lab = machine(good().critical(), "");
    let ran = dnf(&lab, KERNEL);
    let said = ran.succeeds().to_string();
    let tried = said.find(&format!("Trying modules for kernel {release}")).expect(&said);
    assert!(tried < said.find("Installing       :").expect(&said), "{said}");
    lab.assert_installed("foo", "1.0", release);
    lab.assert_boots(release);
    // What was tried is what is installed: it was compiled once.
    lab.sh("tail -n 2 /var/lib/dkms/foo/1.0/*/*/log/make.log").succeeds().says("Taken from the store");
    assert_tidy(&lab);
    dnf(&lab, "install hello").succeeds().says_nothing_of("Trying");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_would_not_boot_is_held_and_the_transaction_goes_on() {
    let release = Series::New.release();
    let lab = machine(broken().critical(), "");
    let said = dnf(&lab, KERNEL).succeeds().to_string();
    let told = said.find(&format!("kernel {release} is held")).expect(&said);
    assert!(told < said.find("Installing       :").expect(&said), "{said}");
    lab.sh("rpm -q kernel-core kernel-devel").succeeds();
    lab.assert_withheld(release);
    dnf(&lab, "install hello").succeeds();
    assert_tidy(&lab);
}

#[rstest]
#[case::critical(broken().critical(), false)]
#[case::optional(broken(), true)]
#[ignore = "runs in the lab (root, network): make test"]
fn policy_stops_a_transaction_for_what_would_not_boot(#[case] source: Source, #[case] goes_on: bool) {
    let release = Series::New.release();
    let lab = machine(source, "[boot]\npreflight = \"abort\"\n");
    let ran = dnf(&lab, KERNEL);
    if goes_on {
        ran.succeeds().says("boots without it");
        lab.assert_boots(release);
    } else {
        ran.fails().says("would lack a module").says("dkms has stopped this transaction");
        lab.sh("rpm -q kernel-core kernel-devel").fails();
        lab.sh(&format!("ls -d /lib/modules/{release} /usr/src/kernels/{release}")).fails();
        dnf(&lab, "install hello").succeeds();
        lab.mend("foo", "1.0");
        lab.sh("dkms log last").succeeds().says("hook dnf preflight").says("foo failed");
        dnf(&lab, KERNEL).succeeds();
        lab.assert_installed("foo", "1.0", release);
        lab.assert_boots(release);
    }
    assert_tidy(&lab);
}

#[rstest]
#[case::nothing_to_ask("rpm -e --nodeps dkms-hooks")]
#[case::binary_alone("rm /usr/sbin/dkms")]
#[ignore = "runs in the lab (root, network): make test"]
fn without_our_package_nothing_is_in_the_way(#[case] remove: &str) {
    let lab = machine(broken().critical(), "[boot]\npreflight = \"abort\"\n");
    lab.sh(remove).succeeds();
    dnf(&lab, KERNEL).succeeds().says_nothing_of("dkms");
    lab.assert_boots(Series::New.release());
}
