// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives, unpacked where an unpacked file could do harm.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dkms_hooks::package::layout::Layout;
use dkms_hooks::package::unpack::{Limits, unpack};

use super::Target;

pub const TARGETS: &[Target] = &[Target {
    name: "tar",
    read: archive,
    words: &[
        "../",
        "/tmp/evil",
        "ustar\0",
        "././@LongLink",
        "path=",
        "size=",
        "12 path=x\n",
        "77777777777\0",
        "L",
        "2",
        "S",
    ],
    inputs: 1000,
}];

/// Whatever an archive holds, nothing comes to lie beside the directory that it is unpacked to.
fn archive(input: &[u8], room: &Path) -> String {
    let mut input = input.to_vec();
    checksummed(&mut input);
    let (outer, into) = (room.join("a/b"), room.join("a/b/into"));
    fs_err::create_dir_all(&into).unwrap();
    let file = room.join("a.tar");
    fs_err::write(&file, &input).unwrap();
    fs_err::write(outer.join("secret"), "secret").unwrap();
    let came_to = match unpack(&file, &into, Limits { entries: 200, bytes: 4 << 20 }) {
        Err(error) => format!("{error:#}"),
        Ok(()) => {
            looked_over(&into);
            match Layout::read(&into, &file) {
                Err(error) => format!("{error:#}"),
                Ok(layout) => {
                    assert!(layout.source.starts_with(&into));
                    for part in layout.built.iter().map(|(_, part)| part).chain([&layout.source]) {
                        stays_inside(part, &fs_err::canonicalize(part).unwrap());
                    }
                    format!("{} {} {}", layout.built.len(), layout.binaries_only, layout.has_main_tree)
                }
            }
        }
    };
    let names = |path: &Path| -> BTreeSet<_> {
        fs_err::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names(&outer), ["into", "secret"].map(str::to_owned).into());
    assert_eq!(names(room), ["a", "a.tar"].map(str::to_owned).into());
    assert_eq!(fs_err::read_to_string(outer.join("secret")).unwrap(), "secret");
    fs_err::remove_dir_all(room.join("a")).unwrap();
    came_to
}

/// Headers are damaged on purpose, their checksums are not.
fn checksummed(tar: &mut [u8]) {
    for header in tar.chunks_exact_mut(512).filter(|header| header[257..].starts_with(b"ustar")) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Nothing that was unpacked is more than a file, a directory or a link, or anybody's to write.
fn looked_over(directory: &Path) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs_err::symlink_metadata(&path).unwrap();
        assert!(meta.is_dir() || meta.is_file() || meta.is_symlink(), "{path:?}");
        assert!(meta.is_symlink() || meta.mode() & 0o7022 == 0, "{path:?} {:o}", meta.mode());
        assert!(meta.is_dir() || meta.nlink() == 1, "{path:?}");
        if meta.is_dir() {
            looked_over(&path);
        }
    }
}

/// No link in a part that will be moved leads out of it.
fn stays_inside(directory: &Path, part: &Path) {
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs_err::symlink_metadata(&path).unwrap();
        if meta.is_symlink() {
            let real = fs_err::canonicalize(&path);
            assert!(real.as_ref().map_or(true, |real| real.starts_with(part)), "{path:?} {real:?}");
        } else if meta.is_dir() {
            stays_inside(&path, part);
        }
    }
}
