// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trial builds under the real dnf 4 and dnf 5: a kernel comes from a repository, and its modules are
//! built before rpm unpacks anything.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::debian::Suite;
use common::{Lab, MACHINE_ID, Ran, Series, Source, broken, good};
use rstest::rstest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dnf {
    Four,
    Five,
}

impl Dnf {
    /// The kernel that comes. Another Debian has its own: compilers have to fit.
    fn release(self) -> &'static str {
        match self {
            Self::Four => Series::New.release(),
            Self::Five => Suite::Sid.release(Series::Old),
        }
    }

    fn run(self, lab: &Lab, words: &str) -> Ran {
        lab.sh(&format!("cd /repo; {} -y --releasever=1 {words} </dev/null 2>&1", self.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Four => "dnf",
            Self::Five => "dnf5",
        }
    }

    /// What it says when it begins to change something.
    fn unpacks(self) -> &'static str {
        match self {
            Self::Four => "Installing       :",
            Self::Five => "] Installing ",
        }
    }

    /// A root with it and with a kernel's packages, which are not installed.
    fn root(self) -> Lab {
        match self {
            Self::Four => {
                let lab = Lab::without_dkms()
                    .boot_loader_spec()
                    .packages_and_dependencies(&["dnf"])
                    .packages_and_dependencies(&["createrepo-c"])
                    .rpm()
                    .rpm_kernel(Series::New);
                // dnf is there as Debian's package; this one lets our trigger know.
                lab.rpm_build("python3-dnf", ("4", "1"), "%description\nNothing.\n%files\n");
                lab.sh("rpm -U /tmp/python3-dnf-4-1.noarch.rpm").succeeds();
                lab
            }
            Self::Five => {
                let packages = ["dnf5", "createrepo-c", "rpm", "cpio", "systemd", "busybox-static"];
                let lab = Lab::debian_with(Suite::Sid, &packages);
                lab.write("etc/machine-id", &format!("{MACHINE_ID}\n"));
                lab.boot_loader_spec_settings().rpm_database().rpm_kernel_of(self.release())
            }
        }
    }

    /// A machine with our package, a module, and a kernel in the repository.
    fn machine(self, source: Source, policy: &str) -> Lab {
        let lab = self.root();
        lab.write("etc/dnf/dnf.conf", "[main]\ngpgcheck=0\n");
        lab.write("etc/yum.repos.d/test.repo", "[test]\nname=test\nbaseurl=file:///repo\nenabled=1\n");
        lab.rpm_build("hello", ("4", "1"), "%description\nNothing.\n%files\n");
        lab.rpm_other_dkms();
        lab.sh("mkdir /repo; mv /tmp/{kernel,hello,dkms}-*.rpm /repo; createrepo_c -q /repo").succeeds();
        lab.rpm_install_ours_by(&format!("{} -y --releasever=1 install", self.name())).succeeds();
        lab.write("etc/dkms/policy.toml", policy);
        lab.registered("foo", "1.0", source)
    }
}

const KERNEL: &str = "install kernel-core kernel-devel";

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernels_modules_are_built_before_anything_is_unpacked(#[values(Dnf::Four, Dnf::Five)] dnf: Dnf) {
    let release = dnf.release();
    let lab = dnf.machine(good().critical(), "");
    // One of them is no package of a repository's.
    let ran = dnf.run(&lab, "install kernel-core ./kernel-devel-*.rpm");
    ran.succeeds().says_before(&format!("Trying modules for kernel {release}"), dnf.unpacks());
    lab.assert_installed("foo", "1.0", release);
    lab.assert_boots(release);
    // What was tried is what is installed: it was compiled once.
    lab.sh("tail -n 2 /var/lib/dkms/foo/1.0/*/*/log/make.log").succeeds().says("Taken from the store");
    lab.assert_no_trial_left();
    dnf.run(&lab, "install hello").succeeds().says_nothing_of("Trying");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_would_not_boot_is_held_and_the_transaction_goes_on(#[values(Dnf::Four, Dnf::Five)] dnf: Dnf) {
    let release = dnf.release();
    let lab = dnf.machine(broken().critical(), "");
    dnf.run(&lab, KERNEL).succeeds().says_before(&format!("kernel {release} is held"), dnf.unpacks());
    lab.sh("rpm -q kernel-core kernel-devel").succeeds();
    lab.assert_withheld(release);
    dnf.run(&lab, "install hello").succeeds();
    lab.assert_no_trial_left();
}

#[rstest]
#[case::critical(broken().critical(), false)]
#[case::optional(broken(), true)]
#[ignore = "runs in the lab (root, network): make test"]
fn policy_stops_a_transaction_for_what_would_not_boot(
    #[values(Dnf::Four, Dnf::Five)] dnf: Dnf,
    #[case] source: Source,
    #[case] goes_on: bool,
) {
    let release = dnf.release();
    let lab = dnf.machine(source, "[boot]\npreflight = \"abort\"\n");
    let packages = || lab.sh("rpm -qa | sort").succeeds().stdout();
    let before = packages();
    let ran = dnf.run(&lab, KERNEL);
    if goes_on {
        ran.succeeds().says("boots without it");
        lab.assert_boots(release);
    } else {
        ran.fails().says("would lack a module").says("dkms has stopped this transaction");
        ran.says("no_such_kernel_function").says("preflight = \"hold\"");
        assert_eq!(packages(), before);
        lab.sh(&format!("ls -d /lib/modules/{release} /usr/src/kernels/{release}")).fails();
        lab.mend("foo", "1.0");
        lab.sh("dkms log last").succeeds().says(&format!("hook {} preflight", dnf.name())).says("foo failed");
        lab.sh("dkms replay").succeeds().says("Trying modules").says_nothing_of("would lack");
        dnf.run(&lab, "install hello").succeeds();
        dnf.run(&lab, KERNEL).succeeds();
        lab.assert_installed("foo", "1.0", release);
        lab.assert_boots(release);
    }
    lab.assert_no_trial_left();
}

#[rstest]
#[case::nothing_to_ask("rpm -e --nodeps dkms-hooks")]
#[case::binary_alone("rm /usr/sbin/dkms")]
#[ignore = "runs in the lab (root, network): make test"]
fn without_our_package_nothing_is_in_the_way(#[values(Dnf::Four, Dnf::Five)] dnf: Dnf, #[case] remove: &str) {
    let lab = dnf.machine(broken().critical(), "[boot]\npreflight = \"abort\"\n");
    lab.sh(remove).succeeds();
    dnf.run(&lab, KERNEL).succeeds().says_nothing_of("dkms");
    lab.assert_boots(dnf.release());
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn it_can_be_swapped_for_dkms_which_nothing_of_ours_is_in_the_way_of(
    #[values(Dnf::Four, Dnf::Five)] dnf: Dnf,
) {
    let lab = dnf.machine(broken().critical(), "");
    // One that was in the menu before it was held.
    let entry = format!("boot/loader/entries/{MACHINE_ID}-6.0-old.conf");
    lab.write(&format!("{entry}.held"), "title old\nversion 6.0-old\nlinux /old\n");
    // Ours is no other dkms.
    lab.sh("rpm -U --replacepkgs /dkms-hooks.rpm").succeeds();
    assert!(!lab.path(&entry).exists(), "let go of");
    dnf.run(&lab, "swap --setopt=obsoletes=0 dkms-hooks dkms").succeeds();
    lab.sh("rpm -q dkms").succeeds();
    lab.sh("rpm -q dkms-hooks").fails();
    lab.run([]).succeeds().says("the other dkms");
    assert!(lab.path(&entry).exists(), "still held");
    dnf.run(&lab, KERNEL).succeeds().says_nothing_of("Trying").says_nothing_of("dkms");
    lab.assert_boots(dnf.release());
}
