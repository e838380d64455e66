// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dkms mkdeb`, `mkbmdeb` and `mkdsc`: packages that the real dpkg-buildpackage makes in one root,
//! and the real dpkg installs, upgrades and removes in others, with and without a compiler.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::debian::Suite;
use common::{Lab, Series, broken, good};
use rstest::rstest;

/// A root that makes packages, for the kernel of [`Lab::debian`].
fn builder() -> Lab {
    Lab::new().kernel(Series::Old)
}

/// A machine with our package and one kernel; without a compiler it has no headers either.
fn machine(compiles: bool) -> Lab {
    let lab = Lab::debian();
    lab.fetch(&["patch"]);
    lab.apt_install_ours().succeeds();
    if compiles { lab } else { without_headers(lab).without_compiler() }
}

fn without_headers(lab: Lab) -> Lab {
    lab.sh("rm -r /lib/modules/*/build /usr/src/linux-headers-*").succeeds();
    lab
}

/// Makes a package of a version and hands it over; returns its file's name.
#[track_caller]
fn package(builder: &Lab, action: &str, version: &str, options: &str, to: &Lab) -> String {
    builder.sh(&format!("dkms {action} foo/{version} {options}")).succeeds();
    let directory = action.trim_start_matches("mk");
    builder.hand_over(&format!("var/lib/dkms/foo/{version}/{directory}"), ".deb", to)
}

#[rstest]
#[case::where_it_compiles(true)]
#[case::without_a_compiler(false)]
#[ignore = "runs in the lab (root, network): make test"]
fn prebuilt_modules_are_installed_upgraded_and_removed(#[case] compiles: bool) {
    let release = Series::Old.release();
    let builder = builder().built("foo", "1.0", good(), release).built("foo", "2.0", good(), release);
    builder.write("usr/src/foo-1.0/mok.key", "secret");
    let lab = machine(compiles);
    let [old, new] =
        ["1.0", "2.0"].map(|version| package(&builder, "mkdeb", version, &format!("-k {release}"), &lab));
    assert_eq!((old.as_str(), new.as_str()), ("foo-dkms_1.0_all.deb", "foo-dkms_2.0_all.deb"));
    lab.sh(&format!(
        "dpkg-deb -x /tmp/{old} /tmp/x; find /tmp/x; tar tzf /tmp/x/usr/share/foo-dkms/*.tar.gz"
    ))
    .succeeds()
    .says("foo.ko")
    .says_nothing_of("mok.key");

    lab.sh(&format!("dpkg -i /tmp/{old}")).succeeds().says_nothing_of("Building module");
    lab.assert_loadable("foo", "1.0", release);
    lab.sh("dpkg --verify foo-dkms").succeeds().says_nothing_of("foo");

    let said = lab.never_without("foo", release, &format!("dpkg -i /tmp/{new}"));
    said.says_nothing_of("Building module");
    lab.assert_loadable("foo", "2.0", release);
    lab.run(["status"]).says_nothing_of("foo/1.0");
    lab.never_without("foo", release, &format!("dpkg -i /tmp/{new}"));
    lab.assert_loadable("foo", "2.0", release);

    lab.sh("dpkg -P foo-dkms").succeeds();
    lab.assert_nothing_left("foo");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_source_package_builds_a_package_that_is_built_from_and_a_failure_takes_nothing_away() {
    let release = Series::Old.release();
    let builder = Lab::new().registered("foo", "1.0", good()).registered("foo", "2.0", broken());
    builder.run(["mkdsc", "foo/1.0", "--source-only"]).succeeds().says("foo-dkms_1.0.dsc");
    builder
        .sh("cd /tmp; dpkg-source -x /var/lib/dkms/foo/1.0/dsc/*.dsc source; cd source; dpkg-buildpackage -us -uc")
        .succeeds();
    let lab = machine(true);
    let name = builder.hand_over("tmp", ".deb", &lab);
    lab.sh(&format!("dpkg -i /tmp/{name}")).succeeds().says("Building module(s)... done.");
    lab.assert_loadable("foo", "1.0", release);

    let name = package(&builder, "mkdeb", "2.0", "--source-only", &lab);
    lab.never_without("foo", release, &format!("dpkg -i /tmp/{name}"));
    lab.sh(&format!("modinfo -k {release} -F version foo")).says("1.0");
    lab.sh("dpkg -P foo-dkms").succeeds();
    lab.assert_nothing_left("foo");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn built_modules_alone_need_neither_dkms_nor_a_compiler() {
    let release = Series::Old.release();
    let builder = builder().built("foo", "1.0", good().remakes_initrd(), release);
    let builder = builder.built("foo", "2.0", good(), release);
    let lab = without_headers(Lab::debian()).without_compiler();
    lab.sh("command -v dkms").fails();
    let lab = lab.executable("usr/sbin/update-initramfs", "#!/bin/sh\necho \"update-initramfs $*\"\n");
    lab.write(&format!("boot/initrd.img-{release}"), "");
    let [old, new] =
        ["1.0", "2.0"].map(|version| package(&builder, "mkbmdeb", version, &format!("-k {release}"), &lab));
    assert_eq!(old, format!("foo-modules-{release}_1.0_amd64.deb"));

    let loads = |version: &str| {
        let said = lab.sh(&format!(
            "modprobe --show-depends -S {release} foo; modinfo -k {release} -F version foo
             modinfo -k {release} -F vermagic foo"
        ));
        said.succeeds().says(&format!("insmod /lib/modules/{release}/updates/dkms/foo.ko"));
        said.says(&format!("\n{version}\n")).says(&format!("\n{release} "));
    };
    let said = lab.sh(&format!("dpkg -i /tmp/{old}"));
    said.succeeds().says(&format!("update-initramfs -u -k {release}"));
    loads("1.0");
    let said = lab.never_without("foo", release, &format!("dpkg -i /tmp/{new}"));
    said.says_nothing_of("update-initramfs");
    loads("2.0");
    lab.sh(&format!("dpkg --verify foo-modules-{release}")).succeeds().says_nothing_of("foo");

    lab.sh(&format!("dpkg -P foo-modules-{release}")).succeeds();
    lab.assert_nothing_left("foo");
    lab.sh(&format!("modprobe --show-depends -S {release} foo")).fails();
}

/// As modules bring it, by the names that dkms has always used.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_modules_own_template_makes_its_packages() {
    let lab = builder().registered("foo", "1.0", good());
    let template = "usr/src/foo-1.0/foo-dkms-mkdeb";
    lab.write(
        &format!("{template}/debian/control"),
        "Source: DEBIAN_PACKAGE-dkms\nMaintainer: A <a@example.org>\n\n\
         Package: DEBIAN_PACKAGE-dkms\nArchitecture: DEBIAN_BUILD_ARCH\nDescription: MODULE_NAME of my own\n",
    );
    lab.write(
        &format!("{template}/debian/changelog"),
        "DEBIAN_PACKAGE-dkms (MODULE_VERSION) stable; urgency=low\n\n  * Own.\n\n -- A <a@example.org>  DATE_STAMP\n",
    );
    lab.write(
        &format!("{template}/debian/rules"),
        "#!/usr/bin/make -f\nbuild clean:\nbinary:\n\tmkdir -p debian/out/DEBIAN\n\
         \t$(MAKE) install DESTDIR=$(CURDIR)/debian/out NAME=MODULE_NAME VERSION=MODULE_VERSION\n\
         \tdpkg-gencontrol -Pdebian/out\n\tdpkg-deb --build debian/out ..\n",
    );
    lab.write(
        &format!("{template}/Makefile"),
        "install:\n\tinstall -d $(DESTDIR)/usr/src\n\tcp -a $(NAME)-$(VERSION) $(DESTDIR)/usr/src\n",
    );
    lab.run(["mkdeb", "foo/1.0", "--source-only"]).succeeds().says("foo-dkms_1.0_amd64.deb");
    lab.sh("dpkg-deb -I /var/lib/dkms/foo/1.0/deb/*.deb; dpkg-deb -c /var/lib/dkms/foo/1.0/deb/*.deb")
        .says("foo of my own")
        .says("./usr/src/foo-1.0/foo.c");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn lintian_finds_no_errors() {
    let release = Series::Old.release();
    let builder = builder().built("foo", "1.0", good().remakes_initrd(), release);
    let lab = Lab::debian_with(Suite::Bookworm, &["lintian"]);
    for action in ["mkdeb", "mkbmdeb", "mkdsc"] {
        builder.run([action, "foo/1.0", "-k", release]).succeeds();
    }
    builder
        .sh("mkdir /tmp/all; cp /var/lib/dkms/foo/1.0/*/foo-* /tmp/all; tar cf /tmp/all.tar -C /tmp all")
        .succeeds();
    builder.hand_over("tmp", "all.tar", &lab);
    lab.sh("cd /tmp; tar xf all.tar; cd all; ls; lintian --allow-root --fail-on error *.deb *.changes")
        .succeeds();
}
