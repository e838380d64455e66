// SPDX-License-Identifier: MIT OR Apache-2.0
//! What boot loaders read, and the tables of what is mounted.

use std::path::Path;

use dkms_hooks::gate::bls::{Entry, Wishes};
use dkms_hooks::gate::detect::fstab;
use dkms_hooks::gate::grub::default::{Prediction, predict};
use dkms_hooks::gate::grub::env::GrubEnv;
use dkms_hooks::gate::grub::hold::{Override, override_default};
use dkms_hooks::gate::grub::menu;
use dkms_hooks::kernel::KernelRelease;
use dkms_hooks::sys::mounts;
use object::ReadCache;

use super::initramfs::initramfs;
use super::{NEXT, Target};

pub const TARGETS: &[Target] = &[
    Target { name: "grub", read: grub, words: GRUB, inputs: 350 },
    Target {
        name: "bls",
        read: bls,
        words: &[
            "\n%%\n",
            "title ",
            "version ",
            "linux ",
            "initrd ",
            "options ",
            "sort-key ",
            "machine-id ",
            "architecture ",
            ".conf",
            "+3-1",
            "*",
            "?",
            "[",
            "]",
            "[!",
            "**",
            "@saved",
            "auto-",
            "6.1",
            "/vmlinuz-",
        ],
        inputs: 4000,
    },
    Target {
        name: "uki",
        read: uki,
        words: &[".osrel", ".initrd", ".uname", ".cmdline", ".profile", "PE\0\0", "MZ", "ID=", "\""],
        inputs: 3000,
    },
    Target {
        name: "mounts",
        read: mount_tables,
        words: &[
            "\\040",
            "\\",
            "UUID=",
            "LABEL=\"",
            "/dev/",
            "defaults,",
            " - ",
            "0:1",
            "x-initrd.mount",
            "\n%%\n",
            ".mount",
            "\\x2d",
        ],
        inputs: 400,
    },
];

const GRUB: &[&str] = &[
    "set ",
    "default=",
    "saved_entry",
    "next_entry",
    "if ",
    "then\n",
    "elif ",
    "else\n",
    "fi\n",
    "for ",
    "in ",
    "do\n",
    "done\n",
    "while ",
    "until ",
    "function f {\n",
    "}\n",
    "menuentry 'x' {\n",
    "submenu 'y' {\n",
    "--id ",
    "linux ",
    "initrd ",
    "search --set=root ",
    "[ ",
    " ]",
    "test ",
    "! ",
    "-a ",
    "-o ",
    "( ",
    ") ",
    "load_env\n",
    "source ",
    "$prefix/custom.cfg",
    "configfile ",
    "return ",
    "f\n",
    "set a=$a$a\n",
    "${a}",
    "$1",
    ">",
    ";",
    "\\",
    "\n%%\n",
    "unset ",
    "savedefault\n",
    "### BEGIN /etc/grub.d/10_linux ###\n",
];

fn grub(input: &[u8], _: &Path) -> String {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.split(NEXT);
    let cfg = parts.next().unwrap_or_default();
    let mut env = GrubEnv::parse(parts.next().unwrap_or_default().as_bytes());
    if let Some(custom) = parts.next() {
        env = env.with_file("custom.cfg", custom);
    }
    let boots = menu::parse(cfg).boots().len();
    let kernel = |release: &KernelRelease| release.as_str() != "6.1.0-56-amd64";
    let held = override_default(cfg, &env, &kernel);
    let predicted = predict(cfg, &env);
    let predicted = match predicted {
        Prediction::Unknown { why } => why,
        Prediction::Entry { titles, kernel, .. } => format!("{} {}", titles.len(), kernel.is_some()),
    };
    let held = match held {
        Override::Unknown { why, script } => format!("{why} {}", script.is_some()),
        Override::Pin { script, .. } => format!("pin {}", script.lines().count()),
        Override::NotNeeded => "not needed".to_owned(),
        Override::NothingToPin { .. } => "nothing to pin".to_owned(),
    };
    format!("{} {predicted} {held}", boots.min(20)).chars().take(1000).collect()
}

fn bls(input: &[u8], _: &Path) -> String {
    let text = String::from_utf8_lossy(input);
    let mut wish = None;
    let mut entries = Vec::new();
    for (number, text) in text.split(NEXT).enumerate() {
        let (name, text) = text.split_once('\n').unwrap_or((text, ""));
        match number {
            0 => wish = Some(name.to_owned()),
            _ => entries.extend(Entry::from_conf(name, text, "x86_64")),
        }
    }
    entries.sort_by(Entry::before);
    let wishes = Wishes { conf: wish, ..Wishes::default() };
    format!("{} {:?}", entries.len(), wishes.choose(&entries)).chars().take(500).collect()
}

fn uki(input: &[u8], room: &Path) -> String {
    let direct = Entry::from_uki("a+2-1.efi", input);
    let file = room.join("a.efi");
    fs_err::write(&file, input).unwrap();
    let file = fs_err::File::open(&file).unwrap();
    let cached = Entry::from_uki("a+2-1.efi", &ReadCache::new(file.file()));
    assert_eq!(direct, cached);
    format!("{direct:?} {}", initramfs(input, room))
}

fn mount_tables(input: &[u8], _: &Path) -> String {
    let text = String::from_utf8_lossy(input);
    let entries = fstab::fstab(&text);
    let required = entries.iter().filter(|entry| entry.is_required() || entry.is_early()).count();
    let devices = entries.iter().filter(|entry| fstab::device_path(&entry.spec).is_some()).count();
    let volume = fstab::encrypted(&text, "root").map(|device| device.len().min(9));
    let points = text.lines().filter_map(fstab::mount_point).count();
    let mounted = mounts::mounted(&text);
    let around = mounts::around(&mounted, "/usr/lib").map(|mount| mount.option("a"));
    format!("{required} {devices} {volume:?} {points} {} {around:?}", mounted.len())
}
