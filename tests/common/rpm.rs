// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots in which the real rpm installs packages that the real rpmbuild has made there.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fs_err as fs;

use super::{Lab, Ran, Series, lab_sh};

impl Lab {
    /// rpm and rpmbuild, with a database that knows what this root has without a package of rpm's.
    pub fn rpm(self) -> Self {
        self.packages_and_dependencies(&["rpm"]).packages_and_dependencies(&["cpio"]).rpm_database()
    }

    /// The same where rpm is there.
    pub fn rpm_database(self) -> Self {
        let provided = ["/bin/sh", "cpio", "gcc", "kmod", "make", "patch", "systemd"];
        let provides: String = provided.iter().map(|name| format!("Provides: {name}\n")).collect();
        self.rpm_build(
            "system",
            ("1", "1"),
            &format!("{provides}%description\nWhat the root has.\n%files\n"),
        );
        self.sh("rpm -Uvh /tmp/system-1-1.noarch.rpm").succeeds();
        self
    }

    /// Builds `/tmp/NAME-VERSION-RELEASE.noarch.rpm`; `rest` is what follows the head of the spec.
    pub fn rpm_build(&self, name: &str, (version, release): (&str, &str), rest: &str) {
        self.write(
            "tmp/spec",
            &format!(
                "%define _binary_payload w1.gzdio\n%define __os_install_post %nil\n\
                 %define _binaries_in_noarch_packages_terminate_build 0\n\
                 Name: {name}\nVersion: {version}\nRelease: {release}\nSummary: A test\nLicense: MIT\n\
                 BuildArch: noarch\nAutoReqProv: no\n{rest}"
            ),
        );
        self.sh(
            "rpmbuild --quiet -bb --define '_topdir /tmp/rpmbuild' /tmp/spec && mv /tmp/rpmbuild/RPMS/noarch/*.rpm /tmp",
        )
        .succeeds();
    }

    /// Builds a kernel's packages as Fedora has them, of Debian's headers, which go from the root: the
    /// image's script calls the real kernel-install. They are `/tmp/kernel-{core,devel}-*.rpm`.
    pub fn rpm_kernel(self, series: Series) -> Self {
        self.headers(series.release()).rpm_kernel_of(series.release())
    }

    /// The same of headers that the root has, whose makefile has its own name in it.
    pub fn rpm_kernel_of(self, release: &str) -> Self {
        let scripts = format!(
            "%posttrans\nkernel-install add {release} /lib/modules/{release}/vmlinuz || exit $?\n\
             %preun\nkernel-install remove {release} || exit $?\n"
        );
        self.rpm_kernel_with(release, &format!("/usr/src/kernels/{release}"), &scripts)
    }

    /// The same as SUSE has them, whose scripts call nobody that we could be wired into.
    pub fn rpm_kernel_of_suse(self, series: Series) -> Self {
        let release = series.release();
        let (version, flavor) = release.rsplit_once('-').unwrap();
        self.headers(release).rpm_kernel_with(
            release,
            &format!("/usr/src/linux-{version}-obj/x86_64/{flavor}"),
            "",
        )
    }

    fn rpm_kernel_with(self, release: &str, headers: &str, scripts: &str) -> Self {
        let lab = self;
        lab.sh(&format!(
            "mkdir -p /tmp/core /tmp/devel$(dirname {headers})
             cp -aL /usr/src/linux-headers-{release} /tmp/devel{headers}
             sed -i s,/usr/src/linux-headers-{release}$,{headers}, /tmp/devel{headers}/Makefile
             rm -rf /lib/modules/{release} /usr/src/linux-headers-{release}
             cd /tmp/core; touch modules.order modules.builtin modules.builtin.modinfo; echo {release} >vmlinuz
             ln -s {headers} build; mkdir kernel"
        ))
        .succeeds();
        let version = (release.split('-').next().unwrap_or(release), "1");
        lab.rpm_build(
            "kernel-core",
            version,
            &format!(
                "Requires: systemd\n%description\nAn image.\n%install\nmkdir -p %{{buildroot}}/lib/modules\n\
                 cp -a /tmp/core %{{buildroot}}/lib/modules/{release}\n{scripts}%files\n/lib/modules/{release}\n"
            ),
        );
        lab.rpm_build(
            "kernel-devel",
            version,
            &format!(
                "%description\nHeaders.\n%install\ncp -a /tmp/devel/. %{{buildroot}}/\n%files\n{headers}\n"
            ),
        );
        lab
    }

    /// Builds `/tmp/dkms-3.2.2-1.noarch.rpm`, which has dkms's name and its settings, and says so.
    pub fn rpm_other_dkms(&self) {
        self.rpm_build(
            "dkms",
            ("3.2.2", "1"),
            "%description\nThe other one.\n%install\nmkdir -p %{buildroot}/etc/dkms %{buildroot}/usr/sbin\n\
             echo '# as packaged' >%{buildroot}/etc/dkms/framework.conf\n\
             printf '#!/bin/sh\\necho the other dkms\\n' >%{buildroot}/usr/sbin/dkms\n\
             %files\n%config(noreplace) /etc/dkms/framework.conf\n%attr(755, root, root) /usr/sbin/dkms\n",
        );
    }

    /// Installs our package by rpm; returns what it said.
    pub fn rpm_install_ours(&self) -> Ran {
        self.rpm_install_ours_by("rpm -U")
    }

    /// The same by a command that is given the file.
    pub fn rpm_install_ours_by(&self, command: &str) -> Ran {
        fs::copy(our_rpm(), self.path("dkms-hooks.rpm")).unwrap();
        self.sh(&format!("{command} /dkms-hooks.rpm"))
    }
}

/// The package that `make rpm` makes of the dkms under test.
pub fn our_rpm() -> &'static Path {
    // Once for all tests of this process: never an older one than the sources.
    static RPM: OnceLock<PathBuf> = OnceLock::new();
    RPM.get_or_init(|| PathBuf::from(lab_sh("rpm", &[] as &[&str]).trim()))
}
