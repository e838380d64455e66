// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make pkg`: our package under the real pacman takes dkms's place and gives it back, and leaves
//! nothing that steers the boot.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::collections::BTreeSet;

use common::{Lab, MACHINE_ID, Series, broken};
use rstest::rstest;

/// A machine on which another dkms is installed, with a package that needs one.
fn with_dkms() -> Lab {
    let lab = Lab::without_dkms().headers(Series::Old.release()).pacman();
    lab.write("tmp/dkms/etc/dkms/framework.conf", "# as packaged\n");
    let lab = lab.executable("tmp/dkms/usr/bin/dkms", "#!/bin/sh\necho another one\n");
    lab.pacman_package("dkms", "3.2.2", "/tmp/dkms", "backup=(etc/dkms/framework.conf)");
    lab.sh("mkdir /tmp/foo").succeeds();
    lab.pacman_package("foo-dkms", "1", "/tmp/foo", "depends=('dkms>=3')");
    lab.pacman_does("-Sy dkms foo-dkms").succeeds();
    lab
}

#[rstest]
#[case::edited("echo parallel_jobs=3 >>/etc/dkms/framework.conf", "parallel_jobs=3")]
#[case::as_packaged(":", "Settings of dkms, read as shell assignments")]
#[ignore = "runs in the lab (root, network): make test"]
fn it_takes_the_place_of_dkms_with_its_settings_and_gives_it_back(#[case] edit: &str, #[case] want: &str) {
    let lab = with_dkms();
    lab.sh(edit).succeeds();
    lab.sh("repo-remove -q /repo/test.db.tar dkms").succeeds();
    lab.pacman_publish_ours();
    // An update of the system has ours in its place.
    lab.pacman_does("-Syyu").succeeds().says("Replace dkms with test/dkms-hooks");
    lab.pacman_does("-Q dkms").says("dkms-hooks 4");
    lab.sh("dkms --version").succeeds().says("dkms-4");
    lab.sh("cat /etc/dkms/framework.conf; ls /etc/dkms").says(want).says_nothing_of("pacsave");
    lab.pacman_does("-Qk dkms-hooks").succeeds().says("0 missing files");
    // What needs dkms is content with ours, and keeps it.
    lab.pacman_does("-Dk").succeeds();
    lab.pacman_does("-R dkms-hooks").fails().says("foo-dkms");

    lab.sh("repo-add -q /repo/test.db.tar /repo/dkms-3.2.2-1-any.pkg.tar").succeeds();
    // Yes, ours may go for it.
    lab.sh("pacman --noconfirm --ask 4 -Syy dkms </dev/null").succeeds();
    lab.sh("dkms").says("another one");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn without_the_package_nothing_is_held_or_left() {
    let lab = Lab::without_dkms().kernel(Series::Old).boot_loader_spec().pacman();
    let files = |lab: &Lab| {
        let looked = "find / /usr /etc /var -xdev \\( -path /var/lib/pacman -o -path /var/cache -o -path /tmp \
                      -o -path /var/log \\) -prune -o ! -type d -print";
        // What is registered stays so for another dkms.
        let ours = |path: &&str| !path.starts_with("/var/lib/dkms/foo/");
        lab.sh(looked).succeeds().stdout().lines().filter(ours).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    lab.write("usr/src/foo-1.0/keep", "");
    lab.write(
        "boot/grub/grub.cfg",
        "### BEGIN /etc/grub.d/zz_dkms ###\nset default=x\n### END /etc/grub.d/zz_dkms ###\n",
    );
    let entry = format!("boot/loader/entries/{MACHINE_ID}-6.0-old.conf");
    lab.write(&entry, "title old\nversion 6.0-old\nlinux /old\n");
    lab.sh(&format!("depmod {}", Series::Old.release())).succeeds();
    let before = files(&lab);

    lab.pacman_install_ours().succeeds();
    let lab = lab.registered("foo", "1.0", broken().critical());
    let lab = lab.executable("usr/local/bin/grub-mkconfig", "#!/bin/sh\necho made anew >$2\n");
    lab.run(["autoinstall", "-k", Series::Old.release()]).fails();
    lab.sh("dkms gate; test -e /run/motd.d/dkms").succeeds().says("held");
    // One that was in the menu before it was held.
    let (shown, held) = (lab.path(&entry), lab.path(&format!("{entry}.held")));
    fs_err::rename(&shown, &held).unwrap();

    lab.pacman_does("-R dkms-hooks").succeeds();
    assert!(shown.exists() && !held.exists());
    lab.sh("test ! -e /run/motd.d/dkms").succeeds();
    lab.sh("cat /boot/grub/grub.cfg").says("made anew");
    lab.sh("rm -r /usr/local/bin/grub-mkconfig /usr/src/foo-1.0/[!k]*").succeeds();
    let left: Vec<String> = before.symmetric_difference(&files(&lab)).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_hook_without_its_program_stops_nothing() {
    let lab = Lab::without_dkms().pacman();
    lab.pacman_install_ours().succeeds();
    lab.sh("rm /usr/bin/dkms; mkdir -p /tmp/src/usr/src/foo-1.0; touch /tmp/src/usr/src/foo-1.0/dkms.conf")
        .succeeds();
    lab.pacman_package("foo-dkms", "1.0", "/tmp/src", "");
    lab.pacman_does("-Sy foo-dkms").succeeds();
}
