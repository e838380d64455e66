// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roots that are whole small Debians, where the real apt installs packages. How they are made is
//! `tests/lib/debian.sh`'s business alone.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fs_err as fs;

use super::disk::grub_boots;
use super::{Lab, Ran, Series, kernels_of, lab_sh, release_of, text};

/// Debian's releases, each with an apt, a systemd, and kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    Bookworm,
    Trixie,
    Sid,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// The kernel release of the one that [`Lab::debian_of`] has, and of a newer one for apt.
    ///
    /// # Panics
    /// Where there is no newer one, as there often is not in sid.
    pub fn release(self, series: Series) -> &'static str {
        release_of(series, self.kernels())
    }

    /// The kernel release of one that apt can install beside the first, newer than that where there
    /// is a newer one, and small: of the flavour for clouds.
    pub fn another_release(self) -> String {
        let (_, newest) = self.kernels().last().unwrap();
        let (abi, flavour) = newest.rsplit_once('-').unwrap();
        format!("{abi}-cloud-{flavour}")
    }

    fn kernels(self) -> &'static [(String, String)] {
        static KERNELS: [OnceLock<Vec<(String, String)>>; 3] = [const { OnceLock::new() }; 3];
        KERNELS[self as usize].get_or_init(|| kernels_of(&debian_sh("kernels", &[OsStr::new(self.name())])))
    }
}

impl Lab {
    /// A Debian with one kernel, its headers and a toolchain, and no dkms. What it lacks comes by
    /// apt, not as layers. It is of this machine's own suite, whose kernels [`Series::release`] names.
    pub fn debian() -> Self {
        Self::debian_root(&[])
    }

    /// The same of another suite.
    pub fn debian_of(suite: Suite) -> Self {
        Self::debian_root(&[suite.name()])
    }

    /// The same with packages that apt has installed once for all roots.
    pub fn debian_with(suite: Suite, packages: &[&str]) -> Self {
        Self::debian_root(&[&[suite.name()], packages].concat())
    }

    fn debian_root(system: &[&str]) -> Self {
        let lab = Self::empty();
        let arguments: Vec<_> =
            [lab.dir.as_os_str()].into_iter().chain(system.iter().map(OsStr::new)).collect();
        debian_sh("root", &arguments);
        lab
    }

    /// Downloads what installing these packages will need, so that it is no part of what is timed.
    pub fn fetch(&self, packages: &[&str]) {
        let arguments: Vec<_> =
            [self.dir.as_os_str()].into_iter().chain(packages.iter().map(OsStr::new)).collect();
        debian_sh("fetch", &arguments);
    }

    /// Runs `apt-get -qy` as an unattended machine does, with these words.
    pub fn apt(&self, words: &str) -> Ran {
        self.sh(&format!("apt-get -qy --no-install-recommends {words} </dev/null"))
    }

    /// The same for our package; returns what apt said.
    pub fn apt_install_ours(&self) -> Ran {
        fs::copy(our_deb(), self.path("dkms-hooks.deb")).unwrap();
        self.apt("install /dkms-hooks.deb")
    }

    /// The real GRUB with a menu of this root's kernels. Only what looks for disks is a stand-in.
    pub fn install_grub(&self) {
        self.fetch(&["grub-pc"]);
        self.apt("install grub-pc").succeeds();
        self.sh("dpkg-divert --quiet --rename /usr/sbin/grub-probe").succeeds();
        self.write("usr/sbin/grub-probe", include_str!("../lib/stand-ins/grub-probe"));
        self.sh("chmod 755 /usr/sbin/grub-probe; update-grub").succeeds();
    }

    /// The kernel that GRUB boots next.
    pub fn grub_boots(&self) -> String {
        let block = fs::read_to_string(self.path("boot/grub/grubenv")).unwrap_or_default();
        grub_boots(&fs::read_to_string(self.path("boot/grub/grub.cfg")).unwrap(), &block)
    }

    /// dpkg's word on each of these packages, for instance `install ok installed`.
    pub fn states(&self, packages: &[&str]) -> Vec<(String, String)> {
        let query = format!(
            "dpkg-query -Wf '${{Package}}\\t${{Status}}\\n' {} 2>/dev/null || true",
            packages.join(" ")
        );
        let said = self.sh(&query).stdout();
        let known: Vec<_> = said.lines().filter_map(|line| line.split_once('\t')).collect();
        packages
            .iter()
            .map(|package| {
                let state =
                    known.iter().find(|(name, _)| name == package).map_or("unknown", |(_, state)| state);
                ((*package).to_owned(), state.to_owned())
            })
            .collect()
    }

    #[track_caller]
    pub fn assert_state(&self, package: &str, state: &str) {
        let found = self.states(&[package]).remove(0).1;
        assert_eq!(found, state, "{package} in {self}");
    }
}

/// The package that `make deb` makes of the dkms under test.
pub fn our_deb() -> &'static Path {
    // Once for all tests of this process: never an older one than the sources.
    static DEB: OnceLock<PathBuf> = OnceLock::new();
    DEB.get_or_init(|| PathBuf::from(lab_sh("deb", &[] as &[&str]).trim()))
}

#[track_caller]
fn debian_sh(verb: &str, arguments: &[&OsStr]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lib/debian.sh");
    let output = Command::new(script).arg(verb).args(arguments).output().unwrap();
    assert!(output.status.success(), "debian.sh {verb} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
