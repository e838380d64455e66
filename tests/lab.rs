// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lab itself: what a throw-away root shows, and what it lets out.

mod common;

use std::path::Path;

use common::{Lab, Series};
use rstest::rstest;

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_root_shows_no_kernel_and_no_dkms_of_this_machine() {
    let lab = Lab::without_dkms();
    lab.sh("ls -A /lib/modules /usr/src | grep -v :").says_nothing_of("-");
    lab.sh("ls -d /usr/sbin/dkms /etc/dkms /var/lib/dkms /usr/lib/dkms /etc/kernel").fails();
    lab.sh("! command -v update-initramfs kernel-install grub-mkconfig dracut").succeeds();

    let lab = lab.kernel(Series::New);
    let modules = lab.sh("ls /lib/modules").stdout();
    assert_eq!(modules.trim(), Series::New.release());
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_a_root_writes_stays_in_it_between_calls() {
    let lab = Lab::without_dkms();
    let mark = "usr/lib/modules/dkms-hooks-lab-mark";
    lab.sh(&format!("echo kept >/{mark}")).succeeds();
    lab.sh(&format!("cat /{mark}")).says("kept");
    assert!(lab.path(mark).exists());
    assert!(!Path::new("/").join(mark).exists(), "it got out");
}
