// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to be mounted: fstab(5), crypttab(5), and the names of mount units (systemd.unit(5), "String
//! Escaping"). Pure.

use crate::sys::mounts::{decoded, unescaped};

/// A line of fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
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
pub fn fstab(text: &str) -> Vec<Entry> {
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
pub fn encrypted<'a>(crypttab: &'a str, volume: &str) -> Option<&'a str> {
    let lines = crypttab.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.map(str::split_whitespace).find_map(|mut fields| match fields.next() {
        Some(name) if name == volume => fields.next(),
        _ => None,
    })
}

/// The path below /dev by which udev knows what fstab and crypttab call a device; nothing for what
/// is no device.
pub fn device_path(spec: &str) -> Option<String> {
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
pub fn mount_point(unit: &str) -> Option<String> {
    let name = unit.strip_suffix(".mount")?;
    if name == "-" {
        return Some("/".to_owned());
    }
    let hex = |code: &str| u8::from_str_radix(code.strip_prefix('x')?, 16).ok();
    Some(decoded(&format!("/{}", name.replace('-', "/")), hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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
