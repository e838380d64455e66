// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that look after themselves: unattended-upgrades brings a kernel that would not boot.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::debian::Suite;
use common::{Lab, Ran, Series, good};
use fs_err as fs;
use rstest::rstest;

const SETTINGS: &str = "#clear Unattended-Upgrade::Origins-Pattern;\n\
                        Unattended-Upgrade::Origins-Pattern { \"origin=test\"; };\n";

/// A kernel without headers: nothing can be built for it.
const BARE: &str = "99.9.9-1-cloud-amd64";

fn repository(lab: &Lab, script: &str) -> Ran {
    lab.sh(&format!("{}\n{script}", include_str!("lib/repository.sh")))
}

/// A machine that runs the older kernel with the module that it needs to boot, which knows nothing of
/// the newer one; kernels come by a package that depends on the newest.
fn machine(suite: Suite, old: &str, new: &str) -> Lab {
    let lab = Lab::debian_of(suite);
    lab.fetch(&["patch", "unattended-upgrades"]);
    lab.apt_install_ours().succeeds();
    lab.apt("install unattended-upgrades").succeeds();
    lab.install_grub();
    lab.write("etc/apt/apt.conf.d/60test", SETTINGS);
    let lab = lab.source("foo", "1.0", good().critical());
    lab.write(
        "usr/src/foo-1.0/Makefile",
        &format!(
            "obj-m := foo.o\nccflags-$(if $(filter {old},$(KERNELRELEASE)),,y) += -include no-such-file\n"
        ),
    );
    lab.run(["add", "foo/1.0"]).succeeds();
    lab.sh(&format!("dkms autoinstall -k {old}; dkms gate")).succeeds().says(&format!("{old}: proven"));
    repository(
        &lab,
        &format!(
            "repository_package linux-image-test 1 'linux-image-{old}, linux-headers-{old}'
             repository_package hello-test 1 ''
             repository_publish
             apt-get -qqy install linux-image-test hello-test </dev/null
             apt-mark auto linux-image-{old} linux-headers-{old}
             repository_package linux-image-test 2 'linux-image-{new}, linux-headers-{new}'
             repository_package hello-test 2 ''
             cd /srv/repository
             new=$(apt-get -qq -s install linux-image-{new} linux-headers-{new} | sed -n 's/^Inst \\([^ ]*\\).*/\\1/p')
             apt-get -qq download $new
             repository_publish"
        ),
    )
    .succeeds();
    lab
}

#[track_caller]
fn upgrade(lab: &Lab) {
    lab.sh("unattended-upgrade -v </dev/null").succeeds();
    assert_eq!(lab.sh("dpkg --audit").succeeds().stdout(), "");
    lab.sh("ls /run").succeeds().says_nothing_of("reboot-required");
}

fn version(lab: &Lab, package: &str) -> String {
    lab.sh(&format!("dpkg-query -Wf '${{Version}}' {package}")).succeeds().stdout()
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn unattended_upgrades_run_through_with_kernels_that_are_held() {
    let suite = Suite::Trixie;
    let (old, new) = (suite.release(Series::Old), &suite.another_release());
    let lab = machine(suite, old, new);

    upgrade(&lab);
    assert_eq!((version(&lab, "linux-image-test"), version(&lab, "hello-test")), ("2".into(), "2".into()));
    lab.sh("dkms gate").succeeds().says(&format!("{new}: held")).says(&format!("{old}: proven"));
    assert_eq!(lab.grub_boots(), old);

    // Another one: apt itself would keep no more than the two newest ones.
    repository(
        &lab,
        &format!(
            "repository_package linux-image-{BARE} 99.9.9-1 '' {BARE}
             repository_package linux-image-test 3 linux-image-{BARE}
             repository_package hello-test 3 ''
             repository_publish"
        ),
    )
    .succeeds();
    upgrade(&lab);
    assert_eq!((version(&lab, "linux-image-test"), version(&lab, "hello-test")), ("3".into(), "3".into()));
    lab.sh("dkms gate").succeeds().says(&format!("{BARE}: held")).says(&format!("{old}: proven"));
    assert_eq!(lab.grub_boots(), old);
    for package in ["linux-image", "linux-headers"] {
        lab.assert_state(&format!("{package}-{old}"), "install ok installed");
    }
    let held = lab.path("etc/apt/apt.conf.d/90dkms-held");
    let kept = fs::read(&held).unwrap();
    fs::remove_file(&held).unwrap();
    lab.apt("-s autoremove").succeeds().says(&format!("Remv linux-image-{old} "));
    fs::write(&held, kept).unwrap();

    // It goes on as it is.
    upgrade(&lab);
    lab.apt("autoremove").succeeds().says_nothing_of(&format!("linux-image-{old}"));
}
