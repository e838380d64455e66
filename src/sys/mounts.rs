// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is mounted: mountinfo (proc(5)). Pure.

/// A line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `MAJOR:MINOR` of what stat(2) calls the device; major 0 for file systems that are on no
    /// block device, or on several.
    pub number: String,
    /// The directory of the file system that is mounted.
    pub root: String,
    pub point: String,
    /// How it is mounted here: `rw,nosuid,relatime`.
    pub flags: String,
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
pub fn mounted(mountinfo: &str) -> Vec<Mount> {
    let line = |line: &str| {
        // There may be fields before the dash, and the source may be empty.
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(2);
        let mut what = what.splitn(3, ' ');
        Some(Mount {
            number: place.next()?.to_owned(),
            root: unescaped(place.next()?),
            point: unescaped(place.next()?),
            flags: place.next().unwrap_or_default().to_owned(),
            fs: what.next()?.to_owned(),
            source: unescaped(what.next()?),
            options: unescaped(what.next().unwrap_or_default()),
        })
    };
    mountinfo.lines().filter_map(line).collect()
}

/// What is mounted on a directory: what was mounted last covers the others.
pub fn at<'a>(mounts: &'a [Mount], point: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// The mount that a path is on, the root's aside.
pub fn around<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    let path = std::path::Path::new(path);
    path.ancestors().filter_map(std::path::Path::to_str).find_map(|path| at(mounts, path))
}

/// Undoes what the kernel and fstab write for blanks and backslashes: `\040`.
pub fn unescaped(text: &str) -> String {
    let is_octal = |code: &&str| code.bytes().all(|digit| (b'0'..b'8').contains(&digit));
    decoded(text, |code| u8::from_str_radix(Some(code).filter(is_octal)?, 8).ok())
}

/// Puts bytes in the place of backslashes and the three characters behind them.
pub fn decoded(text: &str, byte: impl Fn(&str) -> Option<u8>) -> String {
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
        assert_eq!((first.option("errors"), first.flags.as_str()), (Some("continue"), "rw,noatime"));
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
}
