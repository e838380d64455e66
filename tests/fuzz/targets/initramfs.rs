// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of an initramfs, in all their layers.

use std::path::Path;

use dkms_hooks::initramfs::image;

use super::{Target, release, shown};

pub const TARGETS: &[Target] = &[Target {
    name: "initramfs",
    read: initramfs,
    words: &[
        "070701",
        "070702",
        "TRAILER!!!",
        "FFFFFFFF",
        "00000000",
        "0000A1FF",
        "lib/modules/6.1/",
        "disk.ko",
        ".xz",
        "\x1f\u{8b}",
        "BZh9",
        "\u{2}\u{21}L\u{18}",
        "#BOOTCONFIG\n",
        "MZ",
    ],
    inputs: 4000,
}];

pub fn initramfs(input: &[u8], room: &Path) -> String {
    let wanted = ["disk", "net"].map(str::to_owned).into();
    let file = room.join("image");
    fs_err::write(&file, input).unwrap();
    match image::read(&[file], &release(), &wanted) {
        Err(error) => error.why.to_string(),
        Ok(contents) => {
            let found = wanted.iter().flat_map(|name| contents.module(name));
            let paths: Vec<&str> = found.map(|found| found.path.as_str()).collect();
            format!("{} {}", contents.has_modules, shown(&paths))
        }
    }
}
