// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is mounted and what has to be: mountinfo (proc(5)), fstab(5), crypttab(5), and the names of
//! mount units (systemd.unit(5), "String Escaping"). Pure.

/// A line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// `MAJOR:MINOR` of what stat(2) calls the device; major 0 for file systems that are on no
    /// block device, or on several.
    pub number: String,
    /// The directory of the file system that is mounted.
    pub root: String,
    pub point: String,
    pub fs: String,
    /// What the file system calls its source: a device, a data set, a server's directory.
    pub source: String,
    /// The file system's own options.
    pub options: String,
}

impl Mount {
    /// The value of one of the file system's options.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Reads a mountinfo; lines that are not of its form are passed over.
pub(super) fn mounted(mountinfo: &str) -> Vec<Mount> {
    let line = |line: &str| {
        // There may be fields before the dash, and the source may be empty.
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(2);
        let mut what = what.splitn(3, ' ');
        Some(Mount {
            number: place.next()?.to_owned(),
            root: unescaped(place.next()?),
            point: unescaped(place.next()?),
            fs: what.next()?.to_owned(),
            source: unescaped(what.next()?),
            options: unescaped(what.next().unwrap_or_default()),
        })
    };
    mountinfo.lines().filter_map(line).collect()
}

/// What is mounted on a directory: what was mounted last covers the others.
pub(super) fn at<'a>(mounts: &'a [Mount], point: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// The mount that a path is on, the root's aside.
pub(super) fn around<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    let path = std::path::Path::new(path);
    path.ancestors().filter_map(std::path::Path::to_str).find_map(|path| at(mounts, path))
}

/// A line of fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub spec: String,
    pub point: String,
    pub fs: String,
    options: Vec<String>,
}

/// Those that systemd mounts when the network is there, which nothing before the login requires
/// (remote-fs.target, systemd.special(7)).
const OF_NETWORK: [&str; 15] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "lustre",
    "ocfs2",
    "gfs2",
    "ncp",
    "ncpfs",
    "sshfs",
    "fuse.sshfs",
    "davfs",
];

impl Entry {
    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether the machine does not come up without it: what it is not told to do without
    /// (`nofail`), to leave alone (`noauto`) or to mount at need, it mounts before the login, and
    /// ends in the emergency shell if it cannot. Swap is missed by nobody.
    pub fn is_required(&self) -> bool {
        let elsewhere = ["x-systemd.wanted-by", "x-systemd.required-by"];
        let by_others = elsewhere.iter().any(|name| self.value(name).is_some())
            && self.value("x-systemd.required-by") != Some("local-fs.target");
        let spared = ["noauto", "nofail", "x-systemd.automount", "comment=systemd.automount", "_netdev"];
        self.point.starts_with('/')
            && !matches!(self.fs.as_str(), "swap" | "ignore")
            && !OF_NETWORK.contains(&self.fs.as_str())
            && !spared.iter().any(|option| self.has(option))
            // Of what is mounted elsewhere that other mount is required.
            && !self.has("bind")
            && !self.has("rbind")
            && !by_others
    }

    /// Whether the initramfs mounts it (systemd.mount(5); /usr it mounts always).
    pub fn is_early(&self) -> bool {
        self.point == "/usr" || self.has("x-initrd.mount")
    }
}

/// Reads an fstab.
pub(super) fn fstab(text: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        Some(Entry {
            spec: unescaped(fields.next()?),
            point: unescaped(fields.next()?),
            fs: fields.next()?.to_owned(),
            options: fields.next().unwrap_or_default().split(',').map(unescaped).collect(),
        })
    };
    text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(entry).collect()
}

/// The device that crypttab names for a volume.
pub(super) fn encrypted<'a>(crypttab: &'a str, volume: &str) -> Option<&'a str> {
    let lines = crypttab.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.map(str::split_whitespace).find_map(|mut fields| match fields.next() {
        Some(name) if name == volume => fields.next(),
        _ => None,
    })
}

/// The path below /dev by which udev knows what fstab and crypttab call a device; nothing for what
/// is no device.
pub(super) fn device_path(spec: &str) -> Option<String> {
    const TAGS: [(&str, &str); 5] = [
        ("UUID=", "uuid"),
        ("LABEL=", "label"),
        ("PARTUUID=", "partuuid"),
        ("PARTLABEL=", "partlabel"),
        ("ID=", "id"),
    ];
    for (tag, kind) in TAGS {
        if let Some(value) = spec.strip_prefix(tag) {
            return Some(format!("/dev/disk/by-{kind}/{}", udev_name(value.trim_matches('"'))));
        }
    }
    spec.starts_with("/dev/").then(|| spec.to_owned())
}

/// A label as udev makes a name of it (udev(7), "hexadecimal escapes").
fn udev_name(label: &str) -> String {
    let mut name = String::new();
    for c in label.chars() {
        if c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c) || !c.is_ascii() {
            name.push(c);
        } else {
            name.push_str(&format!("\\x{:02x}", u32::from(c)));
        }
    }
    name
}

/// The directory that a mount unit is for.
pub(super) fn mount_point(unit: &str) -> Option<String> {
    let name = unit.strip_suffix(".mount")?;
    if name == "-" {
        return Some("/".to_owned());
    }
    let hex = |code: &str| u8::from_str_radix(code.strip_prefix('x')?, 16).ok();
    Some(decoded(&format!("/{}", name.replace('-', "/")), hex))
}

/// Undoes what the kernel and fstab write for blanks and backslashes: `\040`.
fn unescaped(text: &str) -> String {
    let is_octal = |code: &&str| code.bytes().all(|digit| (b'0'..b'8').contains(&digit));
    decoded(text, |code| u8::from_str_radix(Some(code).filter(is_octal)?, 8).ok())
}

/// Puts bytes in the place of backslashes and the three characters behind them.
fn decoded(text: &str, byte: impl Fn(&str) -> Option<u8>) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = others.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = code.and_then(|code| byte(std::str::from_utf8(code).ok()?));
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &others[3..] } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn mountinfo_is_read_with_optional_fields_escapes_and_without_a_source() {
        let text = "36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 shared:2 - ext3 /dev/ro\\134ot rw,errors=continue\n\
                    20 1 0:19 / / rw - zfs rpool/ROOT/debian rw,xattr\n\
                    rubbish\n40 20 0:5 / /none rw - tmpfs  rw\n";
        let mounts = mounted(text);
        assert_eq!(mounts.len(), 3);
        let first = &mounts[0];
        assert_eq!(
            (first.number.as_str(), first.root.as_str(), first.point.as_str(), first.source.as_str()),
            ("98:0", "/mnt1", "/mnt two", "/dev/ro\\ot")
        );
        assert_eq!(first.option("errors"), Some("continue"));
        assert_eq!((mounts[1].fs.as_str(), mounts[1].source.as_str()), ("zfs", "rpool/ROOT/debian"));
        assert_eq!((mounts[2].fs.as_str(), mounts[2].source.as_str()), ("tmpfs", ""));
    }

    #[test]
    fn the_last_mount_on_a_directory_and_the_nearest_around_a_path_count() {
        let mounts = mounted(
            "1 0 0:1 / / rw - rootfs rootfs rw\n2 1 8:1 / / rw - ext4 /dev/sda1 rw\n3 2 8:2 / /srv rw - xfs /dev/sda2 rw\n",
        );
        assert_eq!(at(&mounts, "/").map(|mount| mount.fs.as_str()), Some("ext4"));
        assert_eq!(around(&mounts, "/srv/a/b").map(|mount| mount.fs.as_str()), Some("xfs"));
        assert_eq!(around(&mounts, "/srvother").map(|mount| mount.fs.as_str()), Some("ext4"));
    }

    #[rstest]
    #[case::plain("ext4 defaults", true)]
    #[case::no_options("ext4", true)]
    #[case::nofail("ext4 defaults,nofail", false)]
    #[case::noauto("ext4 noauto", false)]
    #[case::at_need("ext4 x-systemd.automount", false)]
    #[case::at_need_in_the_old_way("ext4 comment=systemd.automount", false)]
    #[case::nofail_in_a_longer_word("ext4 x-nofail", true)]
    #[case::of_the_network("nfs4 defaults", false)]
    #[case::over_the_network("ext4 _netdev", false)]
    #[case::swap("swap sw", false)]
    #[case::bound("none bind", false)]
    #[case::for_others("ext4 x-systemd.wanted-by=multi-user.target", false)]
    #[case::for_the_boot_in_so_many_words("ext4 x-systemd.required-by=local-fs.target", true)]
    fn what_fstab_mounts_before_the_login_is_required(#[case] rest: &str, #[case] want: bool) {
        let entries = fstab(&format!("# UUID=x /srv ext4\n\n /dev/sdb1\t/srv\\0401 {rest} 0 2\n"));
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].point, "/srv 1");
        assert_eq!(entries[0].is_required(), want);
    }

    #[rstest]
    #[case::path("/dev/vg/root", Some("/dev/vg/root"))]
    #[case::uuid("UUID=1-2", Some("/dev/disk/by-uuid/1-2"))]
    #[case::quoted("LABEL=\"my disk\"", Some("/dev/disk/by-label/my\\x20disk"))]
    #[case::slash("PARTLABEL=a/b", Some("/dev/disk/by-partlabel/a\\x2fb"))]
    #[case::data_set("rpool/home", None)]
    fn specs_name_devices(#[case] spec: &str, #[case] want: Option<&str>) {
        assert_eq!(device_path(spec).as_deref(), want);
    }

    #[rstest]
    #[case::root("-.mount", Some("/"))]
    #[case::deep("var-lib-x.mount", Some("/var/lib/x"))]
    #[case::escaped("home-a\\x2db\\x20c.mount", Some("/home/a-b c"))]
    #[case::other("home.automount", None)]
    fn mount_units_name_directories(#[case] unit: &str, #[case] want: Option<&str>) {
        assert_eq!(mount_point(unit).as_deref(), want);
    }

    #[test]
    fn crypttab_tells_where_a_volume_is() {
        let text = "# data /dev/x\nroot UUID=1 none luks\ndata\t/dev/sdb1 none\n";
        assert_eq!(encrypted(text, "data"), Some("/dev/sdb1"));
        assert_eq!(encrypted(text, "other"), None);
    }
}
