// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots in which the real pacman installs packages that the real makepkg has made there.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fs_err as fs;

use super::{Lab, Ran, lab_sh};

/// What a root has without a package of pacman's, as far as ours asks for it.
const PROVIDED: &str = "provides=(gcc kmod make patch)";

impl Lab {
    /// pacman and makepkg, with an empty repository and a database that knows what the root has.
    pub fn pacman(self) -> Self {
        let lab = self.packages_and_dependencies(&[
            "pacman-package-manager",
            "makepkg",
            "libarchive-tools",
            "fakeroot",
        ]);
        // On Arch Linux sbin is bin.
        lab.sh("mkdir -p /repo /boot /var/lib/pacman /tmp/system; ln -s ../bin/dkms /usr/sbin/dkms")
            .succeeds();
        lab.write(
            "etc/pacman.conf",
            "[options]\nArchitecture = auto\nSigLevel = Never\nLocalFileSigLevel = Never\n\
             [test]\nServer = file:///repo\n",
        );
        lab.pacman_package("system", "1", "/tmp/system", PROVIDED);
        lab.pacman_does("-Sy system").succeeds();
        lab
    }

    /// Puts a package of these files into the repository; `more` are further lines of its PKGBUILD.
    pub fn pacman_package(&self, name: &str, version: &str, files: &str, more: &str) {
        self.write(
            &format!("tmp/build-{name}/PKGBUILD"),
            &format!(
                "pkgname={name}\npkgver={version}\npkgrel=1\npkgdesc=test\narch=(any)\noptions=(!strip !debug)\n\
                 {more}\npackage() {{\n\tcp -a {files}/. \"$pkgdir\"/\n}}\n"
            ),
        );
        self.sh(&format!(
            "cd /tmp/build-{name}; chmod -R a+rX {files}; chmod a+rwx . /repo; rm -f /repo/*.old; rm -rf src pkg
             setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp PKGEXT=.pkg.tar PKGDEST=/repo makepkg -df
             cd /repo; repo-add -q test.db.tar /repo/{name}-{version}-1-any.pkg.tar"
        ))
        .succeeds();
    }

    /// Runs pacman with these words as nobody who could answer would.
    pub fn pacman_does(&self, words: &str) -> Ran {
        self.sh(&format!("pacman --noconfirm {words} </dev/null"))
    }

    /// Installs our package; what pacman said.
    pub fn pacman_install_ours(&self) -> Ran {
        self.pacman_does(&format!("-U {}", self.copy_ours("/tmp")))
    }

    /// Puts our package into the repository.
    pub fn pacman_publish_ours(&self) {
        let package = self.copy_ours("/repo");
        self.sh(&format!("repo-add -q /repo/test.db.tar {package}")).succeeds();
    }

    fn copy_ours(&self, directory: &str) -> String {
        let name = our_pkg().file_name().unwrap_or_default().to_string_lossy();
        let inside = format!("{directory}/{name}");
        fs::copy(our_pkg(), self.path(&inside)).unwrap();
        inside
    }
}

/// The package that `make pkg` makes of the dkms under test.
fn our_pkg() -> &'static Path {
    // Once for all tests of this process: never an older one than the sources.
    static PKG: OnceLock<PathBuf> = OnceLock::new();
    PKG.get_or_init(|| PathBuf::from(lab_sh("pkg", &[] as &[&str]).trim()))
}
