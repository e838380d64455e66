// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trial builds under the real apt: a kernel's update in a small Debian, before which the modules
//! are built against packages that nobody has unpacked yet.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{Lab, Ran, Series, Source, broken, good};
use fs_err as fs;
use rstest::rstest;

const INSTALLED: &str = "install ok installed";
const NOT_INSTALLED: &str = "unknown";

/// A Debian with our package and a module that writes down each compilation.
fn machine(source: Source, policy: &str) -> Lab {
    let lab = Lab::debian();
    let new = Series::New.release();
    lab.fetch(&["patch", "hello", &format!("linux-headers-{new}"), &format!("linux-image-{new}")]);
    lab.apt_install_ours().succeeds();
    let lab = lab.source("foo", "1.0", source);
    lab.write(
        "usr/src/foo-1.0/Makefile",
        "obj-m := foo.o\n$(shell echo $(KERNELRELEASE) >>/root/compiled)\n",
    );
    lab.write("etc/dkms/policy.toml", policy);
    lab.run(["add", "foo/1.0"]).succeeds();
    lab
}

fn update(lab: &Lab) -> Ran {
    let new = Series::New.release();
    lab.apt(&format!("install linux-headers-{new} linux-image-{new}"))
}

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
    let lab = machine(good(), "");
    let ran = update(&lab);
    ran.succeeds();
    let said = ran.to_string();
    let tried = said.find(&format!("Trying modules for kernel {release}")).expect(&said);
    assert!(tried < said.find("Unpacking linux-headers-").expect(&said), "{said}");
    lab.assert_installed("foo", "1.0", release);
    // What was tried is what is installed: it was compiled once.
    lab.sh("tail -n 2 /var/lib/dkms/foo/1.0/*/*/log/make.log").succeeds().says("Taken from the store");
    assert_tidy(&lab);
    // A transaction without a kernel tries nothing.
    lab.apt("install hello").succeeds().says_nothing_of("Trying");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_would_not_boot_is_held_and_the_transaction_goes_on() {
    let release = Series::New.release();
    let lab = machine(broken().critical(), "[boot]\non_failure = \"hold\"\n");
    let ran = update(&lab);
    ran.succeeds().says(&format!("kernel {release} is held"));
    lab.assert_state(&format!("linux-image-{release}"), INSTALLED);
    lab.sh("dkms gate").succeeds().says(&format!("{release}: held"));
    lab.apt("install hello").succeeds();
    assert_tidy(&lab);
}

#[rstest]
#[case::critical(broken().critical(), false)]
#[case::optional(broken(), true)]
#[ignore = "runs in the lab (root, network): make test"]
fn policy_stops_a_transaction_for_what_would_not_boot(#[case] source: Source, #[case] goes_on: bool) {
    let release = Series::New.release();
    let lab = machine(source, "[boot]\npreflight = \"abort\"\non_failure = \"hold\"\n");
    let before = fs::read(lab.path("var/lib/dpkg/status")).unwrap();
    let ran = update(&lab);
    if goes_on {
        ran.succeeds().says("boots without it");
        lab.assert_state(&format!("linux-image-{release}"), INSTALLED);
    } else {
        ran.fails().says("would lack a module").says("preflight = \"hold\"");
        lab.assert_state(&format!("linux-image-{release}"), NOT_INSTALLED);
        assert!(fs::read(lab.path("var/lib/dpkg/status")).unwrap() == before);
        lab.sh(&format!("ls -d /lib/modules/{release} /usr/src/linux-headers-{release}")).fails();
        lab.apt("install hello").succeeds();
        // Once it is mended the trial can be made again, of what apt said then, but for its settings.
        lab.mend("foo", "1.0");
        lab.sh("dkms log last").succeeds().says("hook apt pre-install-pkgs").says("foo failed");
        lab.sh("! grep APT:: /var/lib/dkms/.hooks/runs/*").succeeds();
        lab.sh("dkms replay").succeeds().says("Trying modules").says_nothing_of("would lack");
        update(&lab).succeeds();
        lab.assert_installed("foo", "1.0", release);
    }
    assert_tidy(&lab);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_cannot_be_tried_is_a_notice() {
    let release = Series::New.release();
    let lab = machine(good().critical(), "[boot]\npreflight = \"abort\"\non_failure = \"hold\"\n");
    // No namespaces, as in most containers.
    let new = format!("linux-headers-{release} linux-image-{release}");
    let ran = lab.sh(&format!(
        "setpriv --bounding-set -sys_admin --inh-caps -sys_admin apt-get -qy --no-install-recommends install {new} </dev/null"
    ));
    ran.succeeds().says("could not be tried");
    lab.assert_installed("foo", "1.0", release);
}
