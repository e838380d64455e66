// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that failed, were mended and replayed by hand, under the real run-parts and kernel-install:
//! they end as runs that succeeded at first. So do those of the real apt with real packages.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::debian::Suite;
use common::{Lab, Ran, Series, Source, broken, good};
use rstest::rstest;

/// What a machine looks like for a kernel, but for times. Stand-ins for generators do not say that
/// they have made an image.
fn state(lab: &Lab, release: &str) -> String {
    let look = format!(
        "dkms hook image {release} >/dev/null; dkms status -k {release}; dkms gate | sed 's/ since .*//'
         cd / && find usr/lib/modules/{release}/updates boot var/log/*.calls | sort
         cat /usr/lib/modules/{release}/modules.dep | grep dkms; sort -u /var/log/*.calls"
    );
    lab.sh(&look).stdout()
}

/// One machine gets good modules, the other one broken ones, which are mended. Both end alike.
fn both_end_alike(machine: impl Fn() -> Lab, source: fn(Source) -> Source, protocol: fn(&Lab, &str) -> Ran) {
    let release = Series::New.release();
    let at_first = machine().registered("foo", "1.0", source(good()));
    protocol(&at_first, release).succeeds();

    let later = machine().registered("foo", "1.0", source(broken()));
    protocol(&later, release);
    later.assert_not_installed("foo", release);
    later.mend("foo", "1.0");
    later.sh("dkms replay --dry-run").says("foo/1.0 would be built and installed");
    later.assert_not_installed("foo", release);
    later.sh("dkms replay").succeeds();
    later.assert_installed("foo", "1.0", release);
    assert_eq!(state(&at_first, release), state(&later, release));
}

#[rstest]
#[case::critical(|source: Source| source.critical().remakes_initrd())]
#[case::ordinary(|source: Source| source)]
#[ignore = "runs in the lab (root, network): make test"]
fn debians_hooks_end_alike(#[case] source: fn(Source) -> Source) {
    let machine = || Lab::new().debian_hook_stand_ins().kernel(Series::New);
    both_end_alike(machine, source, |lab, release| lab.image_postinst_hooks(release));
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_hook_of_headers_ends_alike() {
    let machine = || Lab::new().debian_hook_stand_ins().kernel(Series::New);
    both_end_alike(
        machine,
        |source| source.remakes_initrd(),
        |lab, release| lab.header_postinst_hooks(release),
    );
}

#[rstest]
#[case::critical(|source: Source| source.critical())]
#[case::ordinary(|source: Source| source)]
#[ignore = "runs in the lab (root, network): make test"]
fn kernel_install_ends_alike(#[case] source: fn(Source) -> Source) {
    let machine = || Lab::new().kernel(Series::New).boot_loader_spec();
    both_end_alike(machine, source, |lab, release| lab.kernel_install_add(release));
}

/// A Debian with GRUB or without a loader, and the packages of another kernel installed by apt.
fn updated(suite: Suite, new: &str, has_grub: bool, source: Source) -> (Lab, Ran) {
    let lab = Lab::debian_of(suite);
    lab.fetch(&["patch", &format!("linux-headers-{new}"), &format!("linux-image-{new}")]);
    lab.apt_install_ours().succeeds();
    if has_grub {
        lab.install_grub();
    }
    lab.write("etc/initramfs-tools/modules", "foo\n");
    let lab = lab.registered("foo", "1.0", source.critical().remakes_initrd());
    let ran = lab.apt(&format!("install linux-headers-{new} linux-image-{new}"));
    (lab, ran)
}

/// What a machine with real packages looks like, but for times.
fn packaged_state(lab: &Lab, new: &str) -> String {
    let look = format!(
        "dkms status; dkms gate | sed 's/ since .*//'; dpkg --audit
         cd / && find usr/lib/modules/{new}/updates boot -not -path '*/grub/*' | sort
         grep dkms usr/lib/modules/{new}/modules.dep; lsinitramfs boot/initrd.img-{new} | grep foo"
    );
    lab.sh(&look).succeeds().stdout()
}

/// The number of the run that the image's package has called for.
fn run_of_the_image(lab: &Lab) -> u64 {
    let said = lab.sh("dkms log --json").succeeds().stdout();
    let log: serde_json::Value = serde_json::from_str(&said).unwrap();
    let is_images = |run: &&serde_json::Value| {
        let words = run["argv"].as_array().unwrap();
        words.iter().any(|word| word == "postinst" || word == "early-postinst")
    };
    let found = log["runs"].as_array().unwrap().iter().find(is_images);
    found.unwrap_or_else(|| panic!("{said}"))["run"].as_u64().unwrap()
}

#[rstest]
// Held, and all packages are configured.
#[case::with_a_hold(Suite::Trixie, true)]
// The kernel's package has failed, and its image is not in /boot.
#[case::refused(Suite::Sid, false)]
#[ignore = "runs in the lab (root, network): make test"]
fn real_packages_end_alike(#[case] suite: Suite, #[case] has_grub: bool) {
    let new = &suite.another_release();
    let (at_first, ran) = updated(suite, new, has_grub, good());
    ran.succeeds();

    let (later, ran) = updated(suite, new, has_grub, broken());
    assert_eq!(ran.code() == 0, has_grub, "{ran}");
    later.assert_not_installed("foo", new);
    later.mend("foo", "1.0");
    let run = run_of_the_image(&later);
    later.sh(&format!("dkms replay {run}")).succeeds().says("linux-run-hooks image postinst");
    later.assert_installed("foo", "1.0", new);
    // Where the package has failed, dpkg has yet to learn that it is all right now.
    later.sh("dpkg --configure -a").succeeds();
    assert_eq!(packaged_state(&at_first, new), packaged_state(&later, new));
    if has_grub {
        assert_eq!((at_first.grub_boots(), later.grub_boots()), (new.clone(), new.clone()));
    }
}
