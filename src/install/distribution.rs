// SPDX-License-Identifier: MIT OR Apache-2.0
//! What differs between distributions: where modules are installed, and what the package with a
//! kernel's headers is called. Read from os-release(5).

use std::path::PathBuf;

use crate::kernel::KernelRelease;

/// A family of distributions with the same customs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    Debian,
    Ubuntu,
    Fedora,
    /// Red Hat Enterprise Linux and what is made of it: Fedora's customs and a stable kABI.
    RedHat,
    Suse,
    Arch,
    Other,
}

impl Distribution {
    /// Reads the text of an os-release file: `ID`, then `ID_LIKE`.
    pub fn from_os_release(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
            Some(line.trim_matches(|quote| quote == '"' || quote == '\'').to_owned())
        };
        let words = [value("ID"), value("ID_LIKE")].into_iter().flatten().collect::<Vec<_>>().join(" ");
        words
            .split_whitespace()
            .find_map(|word| match word {
                "debian" => Some(Self::Debian),
                "ubuntu" => Some(Self::Ubuntu),
                "rhel" | "centos" | "ovm" | "almalinux" | "rocky" => Some(Self::RedHat),
                "fedora" => Some(Self::Fedora),
                "arch" | "archlinux" => Some(Self::Arch),
                word if word == "sles" || word.contains("suse") => Some(Self::Suse),
                _ => None,
            })
            .unwrap_or(Self::Other)
    }

    /// Where a module goes below the kernel's directory: most distributions have one place for
    /// all external modules, the others follow DEST_MODULE_LOCATION.
    pub fn destination(self, dest_module_location: &str) -> &str {
        match self {
            Self::Debian | Self::Ubuntu | Self::Arch => "/updates/dkms",
            Self::Fedora | Self::RedHat => "/extra",
            Self::Suse => "/updates",
            Self::Other => dest_module_location,
        }
    }

    /// The directory below a kernel's that nobody but dkms puts modules into.
    pub fn own_directory(self) -> Option<&'static str> {
        match self {
            Self::Debian | Self::Ubuntu | Self::Arch => Some("updates/dkms"),
            Self::Fedora | Self::RedHat | Self::Suse | Self::Other => None,
        }
    }

    /// All the places below a kernel's directory where this distribution's modules may be.
    pub fn destinations(self) -> Vec<PathBuf> {
        let names: &[&str] = match self {
            Self::Debian | Self::Ubuntu | Self::Arch => &["updates/dkms"],
            Self::Fedora | Self::RedHat => &["extra"],
            Self::Suse => &["updates"],
            Self::Other => &["updates", "extra", "kernel"],
        };
        names.iter().map(PathBuf::from).collect()
    }

    /// What to type to get a kernel's headers, where the release tells the package.
    pub fn headers_advice(self, kernel: &KernelRelease) -> Option<String> {
        match self {
            Self::Debian | Self::Ubuntu => {
                Some(format!("On this distribution: apt install linux-headers-{kernel}"))
            }
            Self::Fedora | Self::RedHat => {
                Some(format!("On this distribution: dnf install kernel-devel-uname-r == {kernel}"))
            }
            Self::Suse => kernel
                .as_str()
                .rsplit_once('-')
                .map(|(_, flavour)| format!("On this distribution: zypper install kernel-{flavour}-devel")),
            Self::Arch => Some(
                "On this distribution: pacman -S the headers package of this kernel, \
                                named like it with -headers (linux-headers, linux-lts-headers, …)"
                    .to_owned(),
            ),
            Self::Other => None,
        }
    }
}

impl Distribution {
    /// What to type to get the compiler for another machine: `toolchain` is "aarch64-linux-gnu".
    pub fn cross_compiler_advice(self, toolchain: &str) -> Option<String> {
        let command = match self {
            // Package names hold no underscores.
            Self::Debian | Self::Ubuntu => format!("apt install gcc-{}", toolchain.replace('_', "-")),
            Self::Fedora | Self::RedHat => format!("dnf install gcc-{toolchain}"),
            Self::Suse => {
                format!("zypper search cross-{}-gcc", toolchain.split('-').next().unwrap_or(toolchain))
            }
            Self::Arch => format!("pacman -S {toolchain}-gcc"),
            Self::Other => return None,
        };
        Some(format!("On this distribution: {command}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::debian("ID=debian\n", Distribution::Debian)]
    #[case::mint("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Distribution::Ubuntu)]
    #[case::rocky("NAME=\"Rocky\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Distribution::RedHat)]
    #[case::rhel("ID=\"rhel\"\nID_LIKE=\"fedora\"\n", Distribution::RedHat)]
    #[case::nobara("ID=nobara\nID_LIKE=\"fedora\"\n", Distribution::Fedora)]
    #[case::tumbleweed("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n", Distribution::Suse)]
    #[case::manjaro("ID=manjaro\nID_LIKE=arch\n", Distribution::Arch)]
    #[case::gentoo("ID=gentoo\n", Distribution::Other)]
    #[case::empty("", Distribution::Other)]
    fn os_release_tells_the_family(#[case] text: &str, #[case] want: Distribution) {
        assert_eq!(Distribution::from_os_release(text), want);
    }

    #[rstest]
    #[case::debian(Distribution::Debian, Some("apt install gcc-x86-64-linux-gnu"))]
    #[case::fedora(Distribution::RedHat, Some("dnf install gcc-x86_64-linux-gnu"))]
    #[case::suse(Distribution::Suse, Some("zypper search cross-x86_64-gcc"))]
    #[case::arch(Distribution::Arch, Some("pacman -S x86_64-linux-gnu-gcc"))]
    #[case::other(Distribution::Other, None)]
    fn cross_compilers_have_packages(#[case] distribution: Distribution, #[case] want: Option<&str>) {
        let advice = distribution.cross_compiler_advice("x86_64-linux-gnu");
        assert_eq!(advice, want.map(|want| format!("On this distribution: {want}")));
    }

    #[test]
    fn only_some_families_follow_the_conf() {
        assert_eq!(Distribution::Debian.destination("/kernel/net"), "/updates/dkms");
        assert_eq!(Distribution::Other.destination("/kernel/net"), "/kernel/net");
    }
}
