// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driver disks: what is built of a module, laid out for the installer of a distribution, as an image of
//! a floppy, an ISO image or an archive. One file per layout; prints nothing.

mod image;
mod kmod_rpm;
mod redhat;
mod suse;
mod ubuntu;

use std::path::Path;

use anyhow::Result;

use super::built::Built;
use super::staging::Staging;
use crate::module::ModuleId;

/// What installers of Red Hat, Fedora and SUSE look for by itself.
const LABEL: &str = "OEMDRV";

/// What a 3.5" floppy holds, in KiB.
pub const FLOPPY: u32 = 1440;

/// Whose installer is to read a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Of Red Hat Linux and RHEL 2 and 3: `rhdd-6.1`, modules by kernel.
    RedHat,
    /// Of RHEL 4 and 5: `rhdd`, modules by kernel and architecture.
    RedHat2,
    /// Since RHEL 6 and Fedora 12: `rhdd3`, repositories of packages by architecture.
    RedHat3,
    Suse,
    UnitedLinux,
    Ubuntu,
}

/// What a disk is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Floppy,
    Iso,
    Tar,
}

impl Layout {
    /// The words of `-d`, dkms's own.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("redhat", Self::RedHat),
        ("redhat1", Self::RedHat),
        ("redhat2", Self::RedHat2),
        ("redhat3", Self::RedHat3),
        ("suse", Self::Suse),
        ("UnitedLinux", Self::UnitedLinux),
        ("ubuntu", Self::Ubuntu),
    ];

    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(known, _)| *known == word).map(|(_, layout)| layout)
    }

    fn word(self) -> &'static str {
        Self::WORDS.into_iter().find(|(_, layout)| *layout == self).map_or("", |(word, _)| word)
    }

    /// Whether nothing can be laid out without a release.
    pub fn names_release(self) -> bool {
        matches!(self, Self::Suse | Self::UnitedLinux)
    }

    /// dkms makes floppies of all of them; no repository fits on one.
    pub fn usual_media(self) -> Media {
        if self == Self::RedHat3 { Media::Iso } else { Media::Floppy }
    }
}

/// A disk to be made.
#[derive(Debug)]
pub struct DriverDisk<'a> {
    pub id: &'a ModuleId,
    pub layout: Layout,
    pub release: Option<&'a str>,
    pub media: Media,
    /// Of a floppy image, in KiB.
    pub size: u32,
    /// The module's source, which may bring files of its own.
    pub source: &'a Path,
    pub built: &'a [Built],
}

impl DriverDisk<'_> {
    /// `M-V-DISTRO-dd.img`, as dkms names it; with the release where the layout depends on it.
    pub fn file_name(&self) -> String {
        let release = self.release.map(|release| format!("-{release}")).unwrap_or_default();
        let suffix = match self.media {
            Media::Floppy => "img",
            Media::Iso => "iso",
            Media::Tar => "tar",
        };
        format!("{}-{}-{}{release}-dd.{suffix}", self.id.name(), self.id.version(), self.layout.word())
    }

    /// What the disk is, for those who look at it.
    fn title(&self) -> String {
        format!("{} {} driver disk", self.id.name(), self.id.version())
    }

    /// Makes the disk beside its place and renames it. The directory must be there, and nobody else may
    /// be at work in it.
    pub fn write(&self, to: &Path) -> Result<()> {
        let staged = Staging::new(to)?;
        let tree = staged.directory("disk")?;
        match self.layout {
            Layout::RedHat => redhat::fill(self, &tree, redhat::Format::ByKernel)?,
            Layout::RedHat2 => redhat::fill(self, &tree, redhat::Format::ByArch)?,
            Layout::RedHat3 => kmod_rpm::fill(self, &tree, &staged.directory("rpmbuild")?)?,
            Layout::Suse | Layout::UnitedLinux => suse::fill(self, &tree)?,
            Layout::Ubuntu => ubuntu::fill(self, &tree, &staged.directory("packages")?)?,
        }
        let image = staged.path("image");
        match self.media {
            Media::Floppy => image::floppy(&tree, &image, self.size)?,
            Media::Iso => image::iso(&tree, &image)?,
            Media::Tar => image::tar(&tree, &image)?,
        }
        staged.put_file(&image)
    }
}

/// The kernels, by architecture, in the order in which they were asked for.
fn by_arch(built: &[Built]) -> Vec<(&str, Vec<&Built>)> {
    let mut found: Vec<(&str, Vec<&Built>)> = Vec::new();
    for one in built {
        let arch = one.target.arch.as_str();
        match found.iter_mut().find(|(known, _)| *known == arch) {
            Some((_, kernels)) => kernels.push(one),
            None => found.push((arch, vec![one])),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::built::tests::{built, module};
    use super::*;
    use crate::sys::files;
    use fs_err as fs;
    use rstest::rstest;

    #[rstest]
    #[case::floppy(Layout::RedHat2, None, Media::Floppy, "foo-1.0-redhat2-dd.img")]
    #[case::first_of_two_words(Layout::RedHat, None, Media::Floppy, "foo-1.0-redhat-dd.img")]
    #[case::tar(Layout::Ubuntu, None, Media::Tar, "foo-1.0-ubuntu-dd.tar")]
    #[case::release(Layout::Suse, Some("sles15"), Media::Iso, "foo-1.0-suse-sles15-dd.iso")]
    fn disks_are_named_as_dkms_does(
        #[case] layout: Layout,
        #[case] release: Option<&str>,
        #[case] media: Media,
        #[case] want: &str,
    ) {
        let id = ModuleId::new("foo", "1.0").unwrap();
        let source = Path::new("/nowhere");
        let disk = DriverDisk { id: &id, layout, release, media, size: FLOPPY, source, built: &[] };
        assert_eq!(disk.file_name(), want);
    }

    #[test]
    fn kernels_are_put_together_by_architecture() {
        let one = |kernel, arch| built(kernel, arch, vec![module("foo.ko", &[])]);
        let all = [one("6.1", "x86_64"), one("6.1", "aarch64"), one("6.2", "x86_64")];
        let found: Vec<_> = by_arch(&all).into_iter().map(|(arch, kernels)| (arch, kernels.len())).collect();
        assert_eq!(found, [("x86_64", 2), ("aarch64", 1)]);
    }

    #[test]
    fn a_failed_disk_leaves_the_old_one_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a.img");
        fs::write(&to, "old").unwrap();
        fs::create_dir(dir.path().join(".dkms-killed")).unwrap();
        let id = ModuleId::new("foo", "1.0").unwrap();
        let twice = [built("6.1", "x86_64", vec![]), built("6.1", "aarch64", vec![])];
        let disk = DriverDisk {
            id: &id,
            layout: Layout::RedHat,
            release: None,
            media: Media::Tar,
            size: FLOPPY,
            source: dir.path(),
            built: &twice,
        };
        let error = disk.write(&to).unwrap_err().to_string();
        assert!(error.contains("-d redhat2"), "{error}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
        assert_eq!(files::names(dir.path()).unwrap(), ["a.img"]);
    }
}
