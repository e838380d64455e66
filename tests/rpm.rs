// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules in rpm packages, built by the real rpmbuild and installed by the real rpm.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{Lab, Series, good};
use rstest::rstest;

/// A root with rpm, and the sources for packages.
fn lab() -> Lab {
    let lab = Lab::new().kernel(Series::New).rpm().source("odd", "1.0", good()).source("odd", "2.0", good());
    lab.sh("mv /usr/src/odd-1.0 /usr/src/odd-2.0 /tmp").succeeds();
    lab
}

/// The source of a module, and what the package does with it.
fn module(lab: &Lab, (module, release): (&str, &str), scriptlets: &str) {
    let spec = format!(
        "%description\nA module.\n%install\nmkdir -p %{{buildroot}}/usr/src\n\
         cp -r /tmp/odd-{module} %{{buildroot}}/usr/src\n{scriptlets}\n%files\n/usr/src/odd-{module}\n"
    );
    lab.rpm_build("odd-dkms", (module, release), &spec);
}

/// As dkms's documentation would have it.
fn scriptlets(module: &str) -> String {
    let release = Series::New.release();
    format!(
        "%post\ndkms add -m odd -v {module} --rpm_safe_upgrade || :\ndkms build -m odd -v {module} -k {release} || :\n\
         dkms install -m odd -v {module} -k {release} || :\n\
         %preun\ndkms remove -m odd -v {module} --all --rpm_safe_upgrade || :\n"
    )
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_package_without_scriptlets_is_installed_with_its_modules() {
    let lab = lab();
    let release = Series::New.release();
    module(&lab, ("1.0", "1"), "");
    lab.run(["install", "/tmp/odd-dkms-1.0-1.noarch.rpm", "-k", release]).succeeds();
    lab.sh("rpm -q odd-dkms").succeeds();
    lab.assert_installed("odd", "1.0", release);
    lab.run(["install", "/tmp/odd-dkms-1.0-1.noarch.rpm", "-k", release]).exits(9).says("already installed");
    lab.run(["install", "--force", "/tmp/odd-dkms-1.0-1.noarch.rpm", "-k", release]).succeeds();
    lab.assert_installed("odd", "1.0", release);
    lab.write("tmp/no.rpm", "no package at all");
    lab.run(["install", "/tmp/no.rpm", "-k", release])
        .exits(9)
        .says("Unable to install /tmp/no.rpm using rpm.");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_upgrade_keeps_what_the_new_package_has_added() {
    let lab = lab();
    let release = Series::New.release();
    for version in [("1.0", "1"), ("1.0", "2"), ("2.0", "1")] {
        module(&lab, version, &scriptlets(version.0));
    }
    lab.run(["install", "/tmp/odd-dkms-1.0-1.noarch.rpm", "-k", release]).succeeds();
    lab.assert_installed("odd", "1.0", release);
    lab.sh("rpm -Uvh /tmp/odd-dkms-1.0-2.noarch.rpm").succeeds().says("--rpm_safe_upgrade scenario detected");
    lab.assert_installed("odd", "1.0", release);
    lab.sh("rpm -Uvh /tmp/odd-dkms-2.0-1.noarch.rpm").succeeds();
    lab.assert_installed("odd", "2.0", release);
    lab.run(["status"]).succeeds().says_nothing_of("odd/1.0");
    lab.sh("rpm -e odd-dkms").succeeds();
    lab.run(["status"]).succeeds().says_nothing_of("odd");
    lab.assert_not_installed("odd", release);
}

/// dkms's model of a spec: common.postinst in %post, the option in %preun alone.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_common_postinst_adds_is_kept() {
    let lab = lab();
    let release = Series::New.release();
    for version in [("1.0", "1"), ("1.0", "2")] {
        let scriptlets = "%post\n/usr/lib/dkms/common.postinst odd 1.0 /usr/share/odd\n\
                          %preun\ndkms remove -m odd -v 1.0 --all --rpm_safe_upgrade\n";
        module(&lab, version, scriptlets);
    }
    lab.sh("rpm -Uvh /tmp/odd-dkms-1.0-1.noarch.rpm").succeeds();
    lab.assert_installed("odd", "1.0", release);
    lab.sh("rpm -Uvh /tmp/odd-dkms-1.0-2.noarch.rpm").succeeds();
    lab.assert_installed("odd", "1.0", release);
    lab.sh("rpm -e odd-dkms").succeeds();
    lab.assert_not_installed("odd", release);
}
