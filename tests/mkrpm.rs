// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dkms mkrpm`: packages that the real rpmbuild makes in one root, and the real rpm installs,
//! upgrades and removes in others, with our package and with or without a compiler.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{Lab, Series, broken, good};
use rstest::rstest;

/// A root that makes packages.
fn builder() -> Lab {
    Lab::new().kernel(Series::New).rpm()
}

/// A machine with our package and one kernel; without a compiler it has no headers either.
fn machine(compiles: bool) -> Lab {
    let lab = Lab::without_dkms().rpm();
    let lab = match compiles {
        true => lab.kernel(Series::New),
        false => lab.image_stand_in(Series::New.release()).without_compiler(),
    };
    lab.rpm_install_ours().succeeds();
    lab
}

/// Makes the package of a version and hands it over; returns its file's name.
#[track_caller]
fn package(builder: &Lab, version: &str, options: &str, to: &Lab) -> String {
    builder.sh(&format!("dkms mkrpm foo/{version} {options}")).succeeds();
    builder.hand_over(&format!("var/lib/dkms/foo/{version}/rpm"), ".noarch.rpm", to)
}

#[rstest]
#[case::where_it_compiles(true)]
#[case::without_a_compiler(false)]
#[ignore = "runs in the lab (root, network): make test"]
fn prebuilt_modules_are_installed_upgraded_and_removed(#[case] compiles: bool) {
    let release = Series::New.release();
    let builder = builder().built("foo", "1.0", good(), release).built("foo", "2.0", good(), release);
    let lab = machine(compiles);
    let [old, new] = ["1.0", "2.0"].map(|version| package(&builder, version, &format!("-k {release}"), &lab));
    assert_eq!((old.as_str(), new.as_str()), ("foo-1.0-1dkms.noarch.rpm", "foo-2.0-1dkms.noarch.rpm"));

    let said = lab.sh(&format!("rpm -U /tmp/{old}"));
    said.succeeds().says_nothing_of("scriptlet failed").says_nothing_of("Building module");
    lab.assert_loadable("foo", "1.0", release);
    lab.sh("rpm -V foo").succeeds();

    let said = lab.never_without("foo", release, &format!("rpm -U /tmp/{new}"));
    said.says_nothing_of("scriptlet failed").says_nothing_of("Building module");
    lab.assert_loadable("foo", "2.0", release);
    lab.run(["status"]).says_nothing_of("foo/1.0");
    // The same version once more, as a new release of the package would bring it.
    lab.never_without("foo", release, &format!("rpm -U --replacepkgs /tmp/{new}"));
    lab.assert_loadable("foo", "2.0", release);

    lab.sh("rpm -e foo").succeeds().says_nothing_of("scriptlet failed");
    lab.assert_nothing_left("foo");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_was_built_for_no_kernel_here_is_built_and_a_failure_takes_nothing_away() {
    let (release, other) = (Series::New.release(), Series::Old.release());
    let builder = builder().headers(other).image_stand_in(other).built("foo", "1.0", good(), other);
    let builder = builder.registered("foo", "2.0", broken()).registered("foo", "3.0", good());
    let lab = machine(true);
    let name = package(&builder, "1.0", "--all", &lab);
    lab.sh(&format!("rpm -U /tmp/{name}")).succeeds().says("Building module(s)... done.");
    lab.assert_loadable("foo", "1.0", release);
    lab.run(["status"]).says(&format!("foo/1.0, {other}, x86_64: built"));

    let name = package(&builder, "2.0", "--source-only", &lab);
    let said = lab.never_without("foo", release, &format!("rpm -U /tmp/{name}"));
    said.says("foo/2.0 could not be installed").says("until its successor is installed");
    lab.sh(&format!("modinfo -k {release} -F version foo")).says("1.0");
    lab.run(["status"]).says("foo/2.0: added").says("Retained until its successor is installed");

    let name = package(&builder, "3.0", "--source-only", &lab);
    lab.never_without("foo", release, &format!("rpm -U /tmp/{name}"));
    lab.assert_loadable("foo", "3.0", release);
    // And what stayed of a version goes with the last package.
    let name = package(&builder, "2.0", "--source-only", &lab);
    lab.never_without("foo", release, &format!("rpm -U --oldpackage /tmp/{name}"));
    lab.sh("rpm -e foo").succeeds();
    lab.assert_nothing_left("foo");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn binaries_alone_serve_kernels_that_come_later() {
    let (release, later) = (Series::New.release(), Series::Old.release());
    let builder = builder().headers(later).image_stand_in(later);
    let builder = builder.built("foo", "1.0", good(), release);
    builder.run(["build", "foo/1.0", "-k", later]).succeeds();
    let lab = machine(false);
    let name = package(&builder, "1.0", &format!("-k {release} -k {later} --binaries-only"), &lab);
    lab.sh(&format!("rpm -U /tmp/{name}")).succeeds();
    lab.assert_loadable("foo", "1.0", release);
    let lab = lab.image_stand_in(later);
    lab.run(["autoinstall", "-k", later]).succeeds();
    lab.assert_loadable("foo", "1.0", later);
    lab.sh("rpm -e foo").succeeds();
    lab.assert_nothing_left("foo");
}

/// A spec as modules bring it, by the names that dkms has always used.
const SPEC: &str = "\
%{?!module_name: %{error: no module_name}}
%{?!kernel_versions: %{error: no kernel_versions}}
%{?!_dkmsdir: %define _dkmsdir /nowhere}
%{?!_srcdir: %define _srcdir %_prefix/nowhere}
%{?!_datarootdir: %define _datarootdir %{_datadir}}
%define archive %{module_name}-%{version}.dkms.tar.gz
Name: own-%{module_name}
Version: %{version}
Release: 7
Summary: Built for %{kernel_versions}
License: MIT
BuildArch: noarch
%description
.
%prep
if [ \"%mktarball_line\" != \"none\" ]; then
    /usr/sbin/dkms mktarball -m %module_name -v %version %mktarball_line --archive %{archive}
    cp %{_dkmsdir}/%{module_name}/%{version}/tarball/%{archive} %{archive}
fi
%install
mkdir -p %{buildroot}%{_srcdir} %{buildroot}%{_datarootdir}/%{module_name}
[ ! -d %{_sourcedir}/%{module_name}-%{version} ] || cp -r %{_sourcedir}/%{module_name}-%{version} %{buildroot}%{_srcdir}
[ ! -f %{archive} ] || install -m 644 %{archive} %{buildroot}%{_datarootdir}/%{module_name}
%post
/usr/lib/dkms/common.postinst %{module_name} %{version} %{_datarootdir}/%{module_name}
%preun
dkms remove -m %{module_name} -v %{version} --all --rpm_safe_upgrade
%files
%{_srcdir}/%{module_name}-%{version}
%{_datarootdir}/%{module_name}/
";

#[rstest]
#[case::prebuilt("--all", false)]
#[case::source_only("--source-only", true)]
#[ignore = "runs in the lab (root, network): make test"]
fn a_modules_own_spec_makes_its_packages_without_the_key(#[case] options: &str, #[case] compiles: bool) {
    let release = Series::New.release();
    let builder = builder().built("foo", "1.0", good(), release);
    builder.write("usr/src/foo-1.0/foo-dkms-mkrpm.spec", SPEC);
    builder.write("usr/src/foo-1.0/mok.key", "secret");
    let lab = machine(compiles);
    let name = package(&builder, "1.0", options, &lab);
    assert_eq!(name, "own-foo-1.0-7.noarch.rpm");
    lab.sh(&format!(
        "mkdir /tmp/x; cd /tmp/x; rpm2cpio /tmp/{name} | cpio -idm 2>/dev/null
         for archive in usr/share/foo/*.tar.gz; do [ ! -f $archive ] || tar xzf $archive; done
         grep -r secret .; find . -name '*.key'"
    ))
    .says_nothing_of("mok.key");
    lab.sh(&format!("rpm -U /tmp/{name}")).succeeds();
    lab.assert_loadable("foo", "1.0", release);
    lab.sh("rpm -e own-foo").succeeds();
    lab.assert_nothing_left("foo");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn rpmlint_finds_no_errors() {
    let release = Series::New.release();
    let lab = builder().packages_and_dependencies(&["rpmlint"]).built("foo", "1.0", good(), release);
    lab.run(["mkrpm", "foo/1.0", "-k", release]).succeeds();
    let said = lab.sh("rpmlint /var/lib/dkms/foo/1.0/rpm/*.rpm 2>&1 || true").succeeds().stdout();
    assert!(said.contains("packages: 2"), "{said}");
    // Whoever publishes it signs it, and every dkms has that script there.
    let is_meant = |line: &str| {
        line.ends_with("no-signature")
            || line.ends_with("hardcoded-library-path in %{_prefix}/lib/dkms/common.postinst")
    };
    let errors: Vec<&str> = said.lines().filter(|line| line.contains(": E: ") && !is_meant(line)).collect();
    assert_eq!(errors, Vec::<&str>::new());
}
