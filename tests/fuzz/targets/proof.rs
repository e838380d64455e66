// SPDX-License-Identifier: MIT OR Apache-2.0
//! What modprobe goes by: indexes and settings.

use std::path::Path;

use dkms_hooks::gate::proof::index::Index;
use dkms_hooks::gate::proof::modprobe::Settings;

use super::{Target, shown};

pub const TARGETS: &[Target] = &[
    Target {
        name: "depmod",
        read: depmod,
        words: &[
            "\n%%\n",
            "alias ",
            "softdep ",
            "pre:",
            "post:",
            ".ko",
            ".ko.xz",
            "kernel/",
            ":",
            " ",
            "disk.alias=",
            "disk",
        ],
        inputs: 200,
    },
    Target {
        name: "modprobe",
        read: |input, _| {
            let mut settings = Settings::default();
            settings.add(&String::from_utf8_lossy(input), "a.conf");
            shown(&settings.hindrances("disk").collect::<Vec<_>>()) + &shown(&settings.wished_before("disk"))
        },
        words: &["blacklist ", "install ", "alias ", "off", "softdep ", "pre:", "/bin/true", "\\\n", "disk"],
        inputs: 1500,
    },
];

fn depmod(input: &[u8], room: &Path) -> String {
    const FILES: [&str; 5] =
        ["modules.dep", "modules.alias", "modules.builtin", "modules.softdep", "modules.builtin.modinfo"];
    let mut parts = input.split(|byte| *byte == b'%').map(<[u8]>::to_vec);
    for name in FILES {
        fs_err::write(room.join(name), parts.next().unwrap_or_default()).unwrap();
    }
    fs_err::create_dir_all(room.join("kernel")).unwrap();
    fs_err::write(room.join("kernel/disk.ko"), "").unwrap();
    match Index::read(room) {
        Err(error) => format!("{error:#}"),
        Ok(index) => {
            let found = ["disk", "net", "alias", "a-b"].map(|name| format!("{:?}", index.find(name)));
            let own: Vec<String> = index.own(room).map(|path| path.display().to_string()).collect();
            let entry = index.entry(&room.join("kernel/disk.ko")).map(|entry| entry.needs.len());
            format!("{} {} {entry:?} {}", shown(&found), shown(&own), shown(&index.wished_before("disk")))
        }
    }
}
