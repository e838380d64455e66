// SPDX-License-Identifier: MIT OR Apache-2.0
//! One boot entry, and where it stands in the menu. Pure. Sources: UAPI.1 Boot Loader
//! Specification ("Type #1", "Type #2", "Sorting", "Boot counting") and systemd-boot(7).

use std::cmp::Ordering;

use object::read::pe::PeFile64;
use object::{Object, ObjectSection, ReadRef};

use crate::kernel::KernelRelease;

/// An entry of the menu.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The file's name without its boot counter, in lower case as the loader compares it.
    pub id: String,
    pub title: String,
    /// The kernel that it boots, where it is one of this system's kind.
    pub kernel: Option<KernelRelease>,
    /// The kernel or program as a path from the partition's root; nothing for a unified image,
    /// which is there when its file is.
    pub image: Option<String>,
    /// Paths from the partition's root.
    pub initrds: Vec<String>,
    /// The words that the kernel is started with.
    pub options: String,
    sort_key: Option<String>,
    machine_id: String,
    version: String,
    tries_left: Option<u32>,
    tries_done: u32,
}

impl Entry {
    /// A drop-in of loader/entries; nothing if it boots nothing or is another architecture's.
    pub fn from_conf(file: &str, text: &str, arch: &str) -> Option<Self> {
        let (mut entry, stem) = Self::named(file, ".conf")?;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            match key {
                "title" => entry.title = value.to_owned(),
                "version" => entry.version = value.to_owned(),
                "machine-id" => entry.machine_id = value.to_owned(),
                "sort-key" => entry.sort_key = Some(value.to_owned()),
                "linux" | "efi" | "uki" => entry.image = Some(value.to_owned()),
                "initrd" => entry.initrds.push(value.to_owned()),
                "options" => entry.options = format!("{} {value}", entry.options).trim().to_owned(),
                "architecture" if !same_arch(value, arch) => return None,
                _ => {}
            }
        }
        let image = entry.image.as_deref()?;
        // kernel-install puts the release into the path; the field is for sorting.
        let of_path =
            image.split('/').rev().nth(1).filter(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        let of_name = image.rsplit('/').next().and_then(|name| name.strip_prefix("vmlinuz-"));
        let words = [of_name, of_path, Some(entry.version.as_str())];
        entry.kernel = words.into_iter().flatten().find_map(|word| word.parse().ok());
        if entry.title.is_empty() {
            entry.title = stem;
        }
        Some(entry)
    }

    /// A unified kernel image in EFI/Linux (UAPI.5); nothing if the file is none.
    pub fn from_uki<'data>(file: &str, image: impl ReadRef<'data>) -> Option<Self> {
        let (mut entry, stem) = Self::named(file, ".efi")?;
        let pe = PeFile64::parse(image).ok()?;
        let section = |name: &str| {
            let data = pe.section_by_name(name)?.data().ok()?;
            Some(String::from_utf8_lossy(data).trim_end_matches('\0').trim().to_owned())
        };
        let release = section(".osrel")?;
        let field = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            shell_words::split(line).ok()?.into_iter().next()
        };
        let kernel = section(".uname");
        // In the loader's own order of preference.
        let version = kernel.clone().or_else(|| field("IMAGE_VERSION")).or_else(|| field("VERSION_ID"));
        entry.version = version.or_else(|| field("BUILD_ID")).unwrap_or_default();
        entry.sort_key = field("IMAGE_ID").or_else(|| field("ID"));
        entry.title = field("PRETTY_NAME").unwrap_or(stem);
        entry.options = section(".cmdline").unwrap_or_default();
        entry.kernel = kernel.and_then(|kernel| kernel.parse().ok());
        Some(entry)
    }

    /// Whether it is of type #2: one file with all that it takes.
    pub fn is_unified(&self) -> bool {
        self.image.is_none()
    }

    fn named(file: &str, suffix: &str) -> Option<(Self, String)> {
        let stem = file.strip_suffix(suffix)?;
        let (stem, counter) = match stem.rsplit_once('+').and_then(|(stem, text)| Some((stem, tries(text)?)))
        {
            Some((stem, (left, done))) => (stem, Some((left, done))),
            None => (stem, None),
        };
        let id = format!("{stem}{suffix}").to_lowercase();
        let (tries_left, tries_done) = counter.map_or((None, 0), |(left, done)| (Some(left), done));
        Some((Self { id, tries_left, tries_done, ..Self::default() }, stem.to_owned()))
    }

    /// The order of the menu.
    pub fn before(&self, other: &Self) -> Ordering {
        let bad = |entry: &Self| entry.tries_left == Some(0);
        let newest_first = |ours: &str, others: &str| uapi_version::strverscmp(others, ours);
        let by_key = match (&self.sort_key, &other.sort_key) {
            (Some(ours), Some(others)) => ours
                .cmp(others)
                .then_with(|| self.machine_id.cmp(&other.machine_id))
                .then_with(|| newest_first(&self.version, &other.version)),
            (ours, others) => ours.is_none().cmp(&others.is_none()),
        };
        let by_tries = || match (self.tries_left, other.tries_left) {
            (Some(ours), Some(others)) => others.cmp(&ours).then(self.tries_done.cmp(&other.tries_done)),
            _ => Ordering::Equal,
        };
        bad(self)
            .cmp(&bad(other))
            .then(by_key)
            .then_with(|| newest_first(&self.id, &other.id))
            .then_with(by_tries)
    }
}

/// `LEFT` or `LEFT-DONE`.
fn tries(text: &str) -> Option<(u32, u32)> {
    let (left, done) = text.split_once('-').unwrap_or((text, "0"));
    Some((left.parse().ok()?, done.parse().ok()?))
}

/// The specification has EFI's names of architectures.
fn same_arch(efi: &str, arch: &str) -> bool {
    let ours = match arch {
        "x86_64" => "x64",
        "aarch64" => "aa64",
        "i686" | "i586" | "i386" => "ia32",
        other => other,
    };
    efi.eq_ignore_ascii_case(ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn conf(file: &str, fields: &str) -> Entry {
        Entry::from_conf(file, &format!("linux /t/6.1/linux\n{fields}"), "x86_64").unwrap()
    }

    #[test]
    fn an_entry_of_kernel_install_is_understood() {
        let text = "# Boot Loader Specification type#1 entry\n\ntitle      Debian GNU/Linux 12 (bookworm)\n\
                    version    6.1.0-56-amd64\nmachine-id 0011\nsort-key   debian\noptions    root=/dev/vda2 quiet\n\
                    linux      /0011/6.1.0-56-amd64/linux\ninitrd     /0011/6.1.0-56-amd64/initrd.img-6.1.0-56-amd64\n";
        let entry = Entry::from_conf("0011-6.1.0-56-amd64+2-1.conf", text, "x86_64").unwrap();
        let want = Entry {
            id: "0011-6.1.0-56-amd64.conf".to_owned(),
            title: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            kernel: Some("6.1.0-56-amd64".parse().unwrap()),
            image: Some("/0011/6.1.0-56-amd64/linux".to_owned()),
            initrds: vec!["/0011/6.1.0-56-amd64/initrd.img-6.1.0-56-amd64".to_owned()],
            options: "root=/dev/vda2 quiet".to_owned(),
            sort_key: Some("debian".to_owned()),
            machine_id: "0011".to_owned(),
            version: "6.1.0-56-amd64".to_owned(),
            tries_left: Some(2),
            tries_done: 1,
        };
        assert_eq!(entry, want);
    }

    #[rstest]
    #[case::by_name("linux /vmlinuz-6.1.0-56-amd64", Some("6.1.0-56-amd64"))]
    #[case::by_directory(
        "linux /fedora/6.17.1-300.fc43.x86_64/linux\nversion other",
        Some("6.17.1-300.fc43.x86_64")
    )]
    #[case::by_version("linux /vmlinuz\nversion 6.1", Some("6.1"))]
    #[case::unnamed("linux /vmlinuz-linux", Some("linux"))]
    #[case::a_program("efi /EFI/memtest/memtest.efi\nversion 6 20", None)]
    fn the_kernel_of_an_entry_is_found(#[case] text: &str, #[case] want: Option<&str>) {
        let entry = Entry::from_conf("x.conf", text, "x86_64").unwrap();
        assert_eq!(entry.kernel.as_ref().map(KernelRelease::as_str), want);
    }

    #[rstest]
    #[case::empty("x.conf", "")]
    #[case::nothing_to_boot("x.conf", "title Linux\nversion 6.1\n")]
    #[case::other_architecture("x.conf", "linux /l\narchitecture aa64\n")]
    #[case::held("x.conf.held", "linux /l\n")]
    fn what_no_loader_shows_is_no_entry(#[case] file: &str, #[case] text: &str) {
        assert_eq!(Entry::from_conf(file, text, "x86_64"), None);
    }

    #[rstest]
    #[case::newer_version(
        conf("a.conf", "sort-key d\nversion 6.10"),
        conf("b.conf", "sort-key d\nversion 6.9")
    )]
    #[case::release_candidate(
        conf("a.conf", "sort-key d\nversion 6.1"),
        conf("b.conf", "sort-key d\nversion 6.1~rc1")
    )]
    #[case::sort_key_first(conf("a.conf", "sort-key a\nversion 1"), conf("b.conf", "sort-key b\nversion 2"))]
    #[case::machine_before_version(
        conf("a.conf", "sort-key d\nmachine-id 1\nversion 1"),
        conf("b.conf", "sort-key d\nmachine-id 2\nversion 2")
    )]
    #[case::with_key_before_without(conf("a.conf", "sort-key d\nversion 1"), conf("b.conf", "version 2"))]
    #[case::without_keys_by_name(conf("m-6.10.conf", "version 1"), conf("m-6.9.conf", "version 2"))]
    #[case::same_version_by_name(
        conf("b.conf", "sort-key d\nversion 1"),
        conf("a.conf", "sort-key d\nversion 1")
    )]
    #[case::bad_last(conf("m-6.1.conf", ""), conf("m-6.2+0-3.conf", ""))]
    #[case::more_tries_first(conf("m+3.conf", ""), conf("m+2-1.conf", ""))]
    fn menu_is_in_the_loaders_order(#[case] first: Entry, #[case] second: Entry) {
        assert_eq!(first.before(&second), Ordering::Less);
        assert_eq!(second.before(&first), Ordering::Greater);
    }

    #[test]
    fn a_file_that_is_no_unified_image_is_no_entry() {
        assert_eq!(Entry::from_uki("x.efi", b"MZ but nothing else".as_slice()), None);
    }
}
