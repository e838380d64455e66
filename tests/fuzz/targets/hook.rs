// SPDX-License-Identifier: MIT OR Apache-2.0
//! What package managers tell hooks on standard input.

use dkms_hooks::hook;

use super::{Target, shown};

pub const TARGETS: &[Target] = &[
    Target {
        name: "apt",
        read: |input, _| shown(&hook::named("apt", input)),
        words: &[
            "VERSION 3\n",
            "\n\n",
            "zfs-dkms",
            "linux-headers-",
            "<",
            "**REMOVE**",
            "/a/",
            "_",
            ".deb\n",
            "gcc-12",
        ],
        inputs: 1500,
    },
    Target {
        name: "dnf",
        read: |input, _| shown(&hook::named("dnf", input)),
        words: &["/a/", "kernel-core", "-devel-", "zfs-dkms", ".rpm\n", "gcc-", "-1-1.x86_64"],
        inputs: 1200,
    },
    Target {
        name: "dnf5",
        read: |input, _| shown(&hook::named("dnf5", input)),
        words: &[
            "{",
            "}",
            "[",
            "]",
            "\"return\":",
            "\"status\":\"OK\",",
            "\"trans_packages\":",
            "\"keys_val\":",
            "\"name\":",
            "\"location\":",
            "\\ud800",
            "\"key\":",
            ".cachedir",
            "null",
            "1e999",
        ],
        inputs: 1200,
    },
    Target {
        name: "pacman",
        read: |input, _| shown(&hook::named("pacman", input)),
        words: &["usr/lib/modules/", "usr/src/", "/dkms.conf\n", "-", "6.1", "/pkgbase\n"],
        inputs: 1500,
    },
    Target {
        name: "rpm",
        read: |input, _| shown(&hook::named("rpm", input)),
        words: &["/usr/src/kernels/", "/usr/src/linux-", "-obj/", "x86_64/", "default", "\n"],
        inputs: 2000,
    },
];
