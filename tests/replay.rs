// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that failed, were mended and replayed by hand, under the real run-parts and kernel-install:
//! they end as runs that succeeded at first.

mod common;

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
