// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels' updates under the real apt and dpkg of Debian's suites, before which modules are built
//! against packages that nobody has unpacked yet; and what becomes of those updates.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::debian::Suite;
use common::{Lab, Ran, Series, Source, broken, good};
use fs_err as fs;
use rstest::rstest;

const INSTALLED: &str = "install ok installed";
const NOT_INSTALLED: &str = "unknown";

/// Writes down each compilation.
const MAKEFILE: &str = "obj-m := foo.o\n$(obj)/foo.o: $(obj)/noted\n\
                        $(obj)/noted:\n\t@echo $(KERNELRELEASE) >>/root/compiled; touch $@\n";

/// What initramfs-tools calls for each image that it has made.
const COUNT: &str = "#!/bin/sh\necho \"$1\" >>/root/images\n";

/// A Debian with our package and a module that writes down each compilation. The initramfs takes it,
/// and the making of each image is written down, too.
fn machine(suite: Suite, new: &str, source: Source, policy: &str) -> Lab {
    let lab = Lab::debian_of(suite);
    lab.fetch(&["patch", "hello", &format!("linux-headers-{new}"), &format!("linux-image-{new}")]);
    lab.apt_install_ours().succeeds();
    lab.write("etc/initramfs-tools/modules", "foo\n");
    let lab = lab.source("foo", "1.0", source).executable("etc/initramfs/post-update.d/zz-count", COUNT);
    lab.write("usr/src/foo-1.0/Makefile", MAKEFILE);
    lab.write("etc/dkms/policy.toml", policy);
    // What is written down is outside of the build directory.
    lab.write("etc/dkms/policy.d/outside.toml", "[build]\nsandbox = \"off\"\n");
    lab.run(["add", "foo/1.0"]).succeeds();
    lab
}

fn update(lab: &Lab, new: &str) -> Ran {
    lab.apt(&format!("install linux-headers-{new} linux-image-{new}"))
}

/// Nothing of the trial outlives it.
#[track_caller]
fn assert_tidy(lab: &Lab) {
    lab.sh("ls -A /var/tmp; grep dkms-trial /proc/self/mountinfo || true")
        .succeeds()
        .says_nothing_of("dkms-trial");
}

/// How often a file says that of a kernel.
fn times(lab: &Lab, file: &str, release: &str) -> usize {
    let text = fs::read_to_string(lab.path(file)).unwrap_or_default();
    text.lines().filter(|line| *line == release).count()
}

/// The kernel is there, nothing is left to be configured, and GRUB boots another one whoever makes
/// its menu anew.
#[track_caller]
fn assert_held(lab: &Lab, new: &str, old: &str) {
    for package in ["linux-image", "linux-headers"] {
        lab.assert_state(&format!("{package}-{new}"), INSTALLED);
    }
    assert_eq!(lab.sh("dpkg --audit").succeeds().stdout(), "");
    lab.sh("dkms gate").succeeds().says(&format!("{new}: held"));
    assert_eq!(lab.grub_boots(), old);
    lab.sh("update-grub").succeeds();
    assert_eq!(lab.grub_boots(), old);
}

/// On sid each part of a kernel is a package of its own.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernels_modules_are_built_before_anything_is_unpacked(
    #[values(Suite::Bookworm, Suite::Trixie, Suite::Sid)] suite: Suite,
) {
    let release = &suite.another_release();
    let lab = machine(suite, release, good().critical().remakes_initrd(), "");
    let ran = update(&lab, release);
    ran.succeeds();
    let said = ran.to_string();
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("nothing about {what:?}: {said}"));
    assert!(at(&format!("Trying modules for kernel {release}")) < at("Unpacking linux-headers-"), "{said}");
    let installing = at(&format!("Installing /lib/modules/{release}/updates/dkms/foo.ko"));
    assert!(installing < at(&format!("Generating /boot/initrd.img-{release}")), "{said}");
    lab.assert_installed("foo", "1.0", release);
    // What was tried is what is installed: it was compiled once, and then is in the one initramfs.
    assert_eq!(times(&lab, "root/compiled", release), 1, "{said}");
    assert_eq!(times(&lab, "root/images", release), 1, "{said}");
    lab.sh(&format!("lsinitramfs /boot/initrd.img-{release}")).succeeds().says("/updates/dkms/foo.ko");
    lab.sh("dkms gate").succeeds().says(&format!("{release}: proven"));
    assert_tidy(&lab);
    // A transaction without a kernel tries nothing.
    lab.apt("install hello").succeeds().says_nothing_of("Trying");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_would_not_boot_is_held_and_the_transaction_goes_on(
    #[values(Suite::Bookworm, Suite::Trixie, Suite::Sid)] suite: Suite,
) {
    let (old, new) = (suite.release(Series::Old), suite.another_release());
    let lab = machine(suite, &new, broken().critical(), "");
    lab.install_grub();
    let ran = update(&lab, &new);
    ran.succeeds().says(&format!("kernel {new} is held")).says(&format!("the default stays on kernel {old}"));
    assert_held(&lab, &new, old);
    // The one that is booted instead is not cleared away, and nobody restarts the machine for nothing.
    let escaped = old.replace('.', "\\.").replace('+', "\\+");
    lab.sh("apt-config dump APT::NeverAutoRemove").succeeds().says(&format!("-{escaped}$"));
    lab.sh("ls /run").succeeds().says_nothing_of("reboot-required");
    lab.apt("install hello").succeeds();
    assert_tidy(&lab);

    lab.mend("foo", "1.0");
    lab.sh(&format!("dkms autoinstall -k {new}")).succeeds().says("releasing it");
    assert_eq!(lab.grub_boots(), new);
    lab.sh("apt-config dump APT::NeverAutoRemove").succeeds().says_nothing_of(&escaped);
}

/// dpkg on its own asks nobody before it unpacks.
#[rstest]
#[case::the_image_first(Suite::Bookworm, &["linux-image", "linux-headers"])]
#[case::the_headers_first(Suite::Bookworm, &["linux-headers", "linux-image"])]
#[case::together(Suite::Trixie, &["linux-headers linux-image"])]
#[ignore = "runs in the lab (root, network): make test"]
fn dpkg_alone_gets_what_would_not_boot_held(#[case] suite: Suite, #[case] calls: &[&str]) {
    let (old, new) = (suite.release(Series::Old), suite.another_release());
    let lab = machine(suite, &new, broken().critical(), "");
    lab.install_grub();
    // What both of them need.
    let common = "s/.*Depends: \\(linux-headers-.*-common\\|linux-kbuild-.*\\)/\\1/p";
    lab.apt(&format!("install $(apt-cache depends linux-headers-{new} | sed -n '{common}')"))
        .succeeds()
        .says_nothing_of("Trying");
    lab.sh(&format!("cd /root; apt-get -qq download linux-image-{new} linux-headers-{new}")).succeeds();
    for call in calls {
        let archives: Vec<String> =
            call.split(' ').map(|package| format!("/root/{package}-{new}_*.deb")).collect();
        lab.sh(&format!("dpkg -i {} </dev/null", archives.join(" "))).succeeds();
    }
    assert_held(&lab, &new, old);
}

/// Where no hold is known, the package of a kernel that would not boot fails. It is not in /boot then
/// where a hook has to put it there.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_is_refused_does_not_get_into_boot() {
    let new = Suite::Sid.another_release();
    let lab = machine(Suite::Sid, &new, broken().critical(), "");
    update(&lab, &new).fails().says("00-dkms exited with return code 1");
    lab.sh(&format!("ls /boot/*-{new}")).fails();
    lab.sh("test -x /usr/share/kernel/postinst.d/00-legacy-boot").succeeds();

    lab.mend("foo", "1.0");
    lab.sh("dpkg --configure -a").succeeds();
    lab.sh(&format!("ls /boot/vmlinuz-{new} /boot/initrd.img-{new}")).succeeds();
    lab.sh("dkms gate").succeeds().says(&format!("{new}: proven"));
    assert_eq!(times(&lab, "root/images", &new), 1);
}

#[rstest]
#[case::critical_on_bookworm(Suite::Bookworm, broken().critical(), false)]
#[case::critical_on_trixie(Suite::Trixie, broken().critical(), false)]
#[case::optional(Suite::Bookworm, broken(), true)]
#[ignore = "runs in the lab (root, network): make test"]
fn policy_stops_a_transaction_for_what_would_not_boot(
    #[case] suite: Suite,
    #[case] source: Source,
    #[case] goes_on: bool,
) {
    let release = &suite.another_release();
    let lab = machine(suite, release, source, "[boot]\npreflight = \"abort\"\non_failure = \"hold\"\n");
    let before = fs::read(lab.path("var/lib/dpkg/status")).unwrap();
    let ran = update(&lab, release);
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
        update(&lab, release).succeeds();
        lab.assert_installed("foo", "1.0", release);
    }
    assert_tidy(&lab);
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_cannot_be_tried_is_a_notice() {
    let release = &Suite::Bookworm.another_release();
    let policy = "[boot]\npreflight = \"abort\"\non_failure = \"hold\"\n";
    let lab = machine(Suite::Bookworm, release, good().critical(), policy);
    // No namespaces, as in most containers.
    let new = format!("linux-headers-{release} linux-image-{release}");
    let ran = lab.sh(&format!(
        "setpriv --bounding-set -sys_admin --inh-caps -sys_admin apt-get -qy --no-install-recommends install {new} </dev/null"
    ));
    ran.succeeds().says("could not be tried");
    lab.assert_installed("foo", "1.0", release);
}
