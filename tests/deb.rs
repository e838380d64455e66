// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make deb`: our package and Debian's dkms take each other's place by the real apt and dpkg, with
//! modules registered and settings edited; and nothing of ours is left once it is purged.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::collections::BTreeSet;

use common::debian::{Suite, our_deb};
use common::{Lab, Series};
use fs_err as fs;
use rstest::rstest;

/// What outlives the package that put it there, until that is purged.
const HOOKS: [&str; 7] = [
    "/etc/kernel/preinst.d/dkms",
    "/etc/kernel/postinst.d/00-dkms",
    "/etc/kernel/postinst.d/dkms",
    "/etc/kernel/header_postinst.d/dkms",
    "/etc/kernel/prerm.d/dkms",
    "/etc/grub.d/zz_dkms",
    "/etc/initramfs/post-update.d/dkms",
];

const INSTALLED: &str = "install ok installed";
const CONFIGURATION: &str = "deinstall ok config-files";

/// A Debian with dkms and a module that it has built.
fn with_dkms(suite: Suite) -> Lab {
    let lab = Lab::debian_of(suite);
    lab.fetch(&["dkms", "acpi-call-dkms"]);
    lab.apt("install dkms acpi-call-dkms").succeeds();
    lab
}

/// What packages and people look at: dkms's own word, and what modprobe takes.
fn modules(lab: &Lab, suite: Suite) -> String {
    let release = suite.release(Series::Old);
    let said = lab.sh(&format!("dkms status; modprobe --show-depends -S {release} acpi_call"));
    assert!(said.succeeds().stdout().contains(&format!("{release}, x86_64: installed")), "{said}");
    said.stdout()
}

/// Everything that the package has put there is as it put it there.
#[track_caller]
fn assert_whole(lab: &Lab, package: &str) {
    let verified = lab.sh(&format!("dpkg --verify {package}; apt-get -qq check"));
    assert_eq!(verified.succeeds().stdout(), "", "{verified}");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn it_takes_the_place_of_dkms_and_gives_it_back(
    #[values(Suite::Bookworm, Suite::Trixie, Suite::Sid)] suite: Suite,
) {
    let lab = with_dkms(suite);
    let before = modules(&lab, suite);
    let version = lab.run(["--version"]).stdout();

    lab.apt_install_ours().succeeds();
    assert_ne!(lab.run(["--version"]).stdout(), version);
    lab.assert_state("dkms", CONFIGURATION);
    lab.assert_state("acpi-call-dkms", INSTALLED);
    assert_whole(&lab, "dkms-hooks");
    assert_eq!(modules(&lab, suite), before);
    lab.sh(&format!("grep -L /usr/lib/dkms/hook {}", HOOKS.join(" "))).says_nothing_of("dkms");
    lab.sh("test -L /etc/systemd/system/multi-user.target.wants/dkms.service").succeeds();

    // What is left of dkms goes; what has become ours stays.
    lab.apt("purge dkms").succeeds();
    assert_whole(&lab, "dkms-hooks");
    lab.sh(&format!("ls {}", HOOKS.join(" "))).succeeds();

    lab.apt("install dkms").succeeds();
    assert_eq!(lab.run(["--version"]).stdout(), version);
    lab.assert_state("dkms-hooks", CONFIGURATION);
    assert_whole(&lab, "dkms");
    assert_eq!(modules(&lab, suite), before);
    // dkms would answer a question that it does not know with its help, into grub.cfg.
    for hook in ["/etc/kernel/preinst.d/dkms", "/etc/grub.d/zz_dkms", "/etc/initramfs/post-update.d/dkms"] {
        let said = lab.sh(&format!("{hook} 6.1.0-99-amd64 2>&1"));
        assert_eq!(said.succeeds().stdout(), "", "{said}");
    }

    lab.apt("purge dkms-hooks").succeeds().says_nothing_of("Usage");
    assert_whole(&lab, "dkms");
    assert_eq!(modules(&lab, suite), before);
    lab.sh("ls -d /etc/kernel/postinst.d/dkms /etc/dkms/framework.conf").succeeds();
    lab.sh("ls -d /etc/grub.d/zz_dkms /var/lib/dkms/.hooks /etc/dkms/policy.d 2>/dev/null").fails();
    lab.apt("purge acpi-call-dkms").succeeds();
    lab.sh("ls /var/lib/dkms").succeeds().says_nothing_of("acpi-call");
}

/// A package that came by hand, not by apt: dpkg removes dkms only after it has unpacked ours.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn dpkg_alone_replaces_dkms_as_well() {
    let lab = with_dkms(Suite::Bookworm);
    let before = modules(&lab, Suite::Bookworm);
    fs::copy(our_deb(), lab.path("ours.deb")).unwrap();
    lab.sh("dpkg -i --auto-deconfigure /ours.deb </dev/null").succeeds();
    lab.assert_state("dkms-hooks", INSTALLED);
    lab.assert_state("acpi-call-dkms", INSTALLED);
    assert_whole(&lab, "dkms-hooks");
    assert_eq!(modules(&lab, Suite::Bookworm), before);
}

#[rstest]
#[case::changed("echo 'parallel_jobs=3' >>", "parallel_jobs=3")]
#[case::as_packaged(":", "Settings of dkms, read as shell assignments")]
#[ignore = "runs in the lab (root, network): make test"]
fn settings_of_dkms_are_kept_where_somebody_has_changed_them(#[case] edit: &str, #[case] want: &str) {
    let lab = with_dkms(Suite::Bookworm);
    let conf = "/etc/dkms/framework.conf";
    lab.sh(&format!("{edit} {conf}")).succeeds();
    // Without a terminal: a question would be an error.
    lab.apt_install_ours().succeeds();
    lab.sh(&format!("cat {conf}; ls /etc/dkms")).says(want).says_nothing_of("dpkg-");

    let kept = lab.sh(&format!("cat {conf}")).stdout();
    lab.apt("install --reinstall /dkms-hooks.deb").succeeds();
    assert_eq!(lab.sh(&format!("cat {conf}")).stdout(), kept);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_purge_leaves_nothing_of_ours() {
    let lab = Lab::debian_of(Suite::Bookworm);
    lab.fetch(&["patch", "acpi-call-dkms"]);
    lab.apt("install patch").succeeds();
    let files = || {
        let found = lab.sh("find / -xdev -path /var/lib/dpkg -prune -o -path /var/log -prune -o \
                            -path /var/cache -prune -o -path /var/lib/apt -prune -o -print | sort");
        found
            .succeeds()
            .stdout()
            .lines()
            .filter(|path| !path.ends_with("/dkms-hooks.deb"))
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let before = files();
    lab.apt_install_ours().succeeds();
    lab.apt("install acpi-call-dkms").succeeds();
    // Its old version's scripts run, as for an upgrade.
    lab.apt("install --reinstall acpi-call-dkms").succeeds();
    modules(&lab, Suite::Bookworm);
    lab.write("etc/dkms/policy.toml", "[boot]\ncritical = [\"acpi-call\"]\n");
    lab.run(["autoinstall", "-k", Suite::Bookworm.release(Series::Old)]).succeeds();
    lab.sh("touch /etc/dkms/no-gate; ls -d /var/lib/dkms/.hooks").succeeds();
    // But for the signing key: firmware may know it, and so would dkms.
    lab.sh("cd /var/lib/dkms; echo key >mok.key; echo certificate >mok.pub").succeeds();

    lab.apt("purge acpi-call-dkms").succeeds();
    lab.apt("remove dkms-hooks").succeeds();
    // Removed, its hooks do nothing.
    for hook in HOOKS {
        assert_eq!(lab.sh(&format!("{hook} 6.1.0-99-amd64 2>&1")).succeeds().stdout(), "", "{hook}");
    }
    lab.apt("purge dkms-hooks").succeeds();
    let lost_or_left: Vec<String> = before.symmetric_difference(&files()).cloned().collect();
    assert_eq!(lost_or_left, ["/var/lib/dkms", "/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"]);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn lintian_finds_no_errors() {
    let lab = Lab::debian_of(Suite::Bookworm);
    lab.fetch(&["lintian"]);
    lab.apt("install lintian").succeeds();
    fs::copy(our_deb(), lab.path("ours.deb")).unwrap();
    lab.sh("lintian --allow-root --fail-on error /ours.deb").succeeds();
}
