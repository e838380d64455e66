// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is read, one function per target: an input, and an empty directory that is the target's own. The
//! result tells what the input came to. Some look whether it could be what it says.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use dkms_hooks::conf::framework::{Framework, late};
use dkms_hooks::conf::plain::{Plain, evaluate};
use dkms_hooks::conf::{ConfFile, Variables, directives, ere, make, policy, shell};
use dkms_hooks::gate::bls::{Entry, Wishes};
use dkms_hooks::gate::detect::fstab;
use dkms_hooks::gate::grub::default::{Prediction, predict};
use dkms_hooks::gate::grub::env::GrubEnv;
use dkms_hooks::gate::grub::hold::{Override, override_default};
use dkms_hooks::gate::grub::menu;
use dkms_hooks::gate::proof::index::Index;
use dkms_hooks::gate::proof::modprobe::Settings;
use dkms_hooks::gate::verdict::Verdict;
use dkms_hooks::hook;
use dkms_hooks::initramfs::image;
use dkms_hooks::kernel::{KernelConfig, KernelRelease};
use dkms_hooks::module::{Arch, ModuleId, Target as Kernel};
use dkms_hooks::module_file::{
    self, Certificate, Exports, ModInfo, Offer, Strictness, Symbols, Wanted, check_loadable,
};
use dkms_hooks::package::layout::Layout;
use dkms_hooks::package::unpack::{Limits, unpack};
use dkms_hooks::sys::mounts;
use dkms_hooks::sys::root::Root;
use dkms_hooks::tree::{Tree, transaction};
use object::ReadCache;

pub struct Target {
    pub name: &'static str,
    pub read: fn(&[u8], &Path) -> String,
    /// What its format is made of.
    pub words: &'static [&'static str],
    /// How many are read where nobody asks for more.
    pub inputs: usize,
}

const SHELL: &[&str] = &[
    "A",
    "B",
    "$A",
    "${A}",
    "${A:-",
    "${A#",
    "${A%%",
    "${A//",
    "${#A}",
    "\"${A[@]}\"",
    "${A[*]}",
    "A[",
    "]",
    "(",
    ")",
    "+=",
    "$'",
    "export ",
    "}",
    "*",
    "?",
    "\\\n",
    "$",
    "${",
    "A=$A$A\n",
    "[999999999]=",
    ";",
    "`",
    "$(",
    "BUILT_MODULE_NAME[0]=",
    "DEST_MODULE_LOCATION[0]=",
    "PACKAGE_NAME=",
    "PACKAGE_VERSION=",
    "MAKE=",
    "kernelver",
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

pub const TARGETS: &[Target] = &[
    Target { name: "conf", read: conf, words: SHELL, inputs: 3000 },
    Target {
        name: "shell",
        read: shell_answer,
        words: &["begin\0", "var\0", "end\0", "broken\0", "\0"],
        inputs: 2000,
    },
    Target {
        name: "framework",
        read: framework,
        words: &[
            "compress_xz_opts=",
            "compress_gzip_opts=",
            "compress_zstd_opts=",
            "--lzma2=",
            "dict=",
            "preset=",
            "lc=",
            "nice=",
            "-9e",
            "--ultra ",
            "--long=",
            "-22",
            "--fast=",
            "parallel_jobs=",
            "$kernelver",
            "${kernelver}",
            "try_sign_modules=",
            "MiB",
            ",",
        ],
        inputs: 2500,
    },
    Target {
        name: "policy",
        read: policy,
        words: &[
            "[boot]\n",
            "[build]\n",
            "[initramfs]\n",
            "[store]\n",
            "[module.",
            "]\n",
            "critical = ",
            "detect = ",
            "on_failure = ",
            "jobs = ",
            "timeout = ",
            "size = ",
            "[[",
            "{",
            "}",
            "[",
            "true",
            "\"auto\"",
            "\"\"\"",
            "'''",
            ".",
            "0x",
            "1979-05-27",
            "nan",
        ],
        inputs: 1500,
    },
    Target {
        name: "ere",
        read: regular_expression,
        words: &[
            "(",
            ")",
            "|",
            "*",
            "+",
            "?",
            "{",
            "}",
            "{1,}",
            "{65535}",
            "{0,255}",
            "[",
            "[^",
            "]",
            "[:alpha:]",
            "[=a=]",
            "[.-.]",
            "^",
            "$",
            "\\<",
            "\\1",
            ".",
            "a-z",
            "\\b",
            "6.1",
        ],
        inputs: 250,
    },
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
    Target {
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
    },
    Target {
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
    },
    Target {
        name: "module",
        read: module,
        words: &["vermagic=", "__versions", ".modinfo", "~Module signature appended~\n"],
        inputs: 5000,
    },
    Target {
        name: "signature",
        read: signature,
        words: &["\x30\u{80}", "\x30", "\x02", "\x06", "\u{84}"],
        inputs: 4000,
    },
    Target {
        name: "symvers",
        read: |input, _| {
            let text = String::from_utf8_lossy(input);
            let (exports, map) = (Exports::from_symvers(&text), Exports::from_system_map(&text));
            format!("{:?} {:?}", exports.names().next().and_then(|name| exports.get(name)), map.is_empty())
        },
        words: &["0x", "\t", "EXPORT_SYMBOL", "_GPL", "vmlinux", " __ksymtab_", "\n"],
        inputs: 1500,
    },
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
    Target {
        name: "kconfig",
        read: |input, _| {
            let text = String::from_utf8_lossy(input);
            let config = KernelConfig::new(text.clone());
            let release = text.lines().next().unwrap_or_default().parse::<KernelRelease>();
            let magic = release.map(|release| module_file::kernel_vermagic(&release, &config));
            format!("{magic:?} {:?}", config.value("CONFIG_CMDLINE"))
        },
        words: &["CONFIG_SMP=y\n", "CONFIG_CMDLINE=", "CONFIG_X86_64=y\n", "CONFIG_PREEMPT", "6.1\n"],
        inputs: 1200,
    },
    Target {
        name: "records",
        read: records,
        words: &[
            "{",
            "}",
            "[",
            "]",
            "\"what\":",
            "\"changes\":",
            "\"target\":",
            "\"staged\":",
            "\"saved\":",
            "null",
            "true",
            "prepared\n",
            "kept\n",
            "undone\n",
            "\"version\":",
            "\"files\":",
            "@/",
            "\"standing\":",
            "\"held\"",
        ],
        inputs: 800,
    },
];

/// What separates the files that an input stands for.
const NEXT: &str = "\n%%\n";

fn shown(items: &[impl AsRef<str>]) -> String {
    let all: usize = items.iter().map(|item| item.as_ref().len()).sum();
    let first: Vec<&str> = items.iter().map(AsRef::as_ref).take(3).collect();
    format!("{} {} {first:?}", items.len(), all.min(9))
}

fn release() -> KernelRelease {
    "6.1".parse().unwrap()
}

fn kernel() -> Kernel {
    Kernel { kernel: release(), arch: Arch::new("x86_64").unwrap() }
}

fn evaluated(input: &[u8]) -> Result<Variables, String> {
    let mut scope = Variables::new();
    scope.set("kernelver", "6.1.0-56-amd64");
    scope.set("dkms_tree", "/var/lib/dkms");
    let file = ConfFile { path: "x".into(), text: String::from_utf8_lossy(input).into_owned() };
    match evaluate(&scope, &[file]) {
        Plain::Evaluated(vars) => Ok(vars),
        Plain::NeedsShell { what, .. } => Err(what),
    }
}

fn conf(input: &[u8], _: &Path) -> String {
    let vars = match evaluated(input) {
        Ok(vars) => vars,
        Err(what) => return what,
    };
    // What there is to be checked of anything that can be evaluated.
    let conf = match directives::read(&vars, "dkms.conf") {
        Ok(conf) => conf,
        Err(problems) => return shown(&problems),
    };
    let config = KernelConfig::new("CONFIG_X=y\n");
    let line = make::command_line(&conf, (&release(), "/build"), "-j2", "/m", "", false);
    let line = make::expanded(&line, |name| vars.scalar(name));
    let patches = conf.patches_for(&release()).len();
    let why = conf.why_excluded(&kernel(), &config);
    format!(
        "{} {patches} {why:?} {} {} {}",
        conf.records.len(),
        conf.strict_problems().len(),
        conf.warnings.len(),
        line.len().min(99)
    )
}

fn shell_answer(input: &[u8], _: &Path) -> String {
    let refused = shell::refused(&String::from_utf8_lossy(input)).is_some();
    match shell::parse(input) {
        Ok(vars) => format!("{:?} {refused}", vars.names().take(3).collect::<Vec<_>>()),
        Err(error) => format!("{error:#} {refused}"),
    }
}

fn framework(input: &[u8], _: &Path) -> String {
    let vars = match evaluated(input) {
        Ok(vars) => vars,
        Err(what) => return what,
    };
    let framework = Framework::read(&vars);
    let command = framework.post_transaction.as_deref().map(|command| late(command, "6.1"));
    // Whatever is said of compressors, something is compressed.
    for how in [module_file::Compression::Xz, module_file::Compression::Zstd] {
        let packed = how.compress(vec![7; 100], &framework.compressors).unwrap();
        assert_eq!(*module_file::unpacked(&packed).unwrap(), [7; 100]);
    }
    format!("{command:?} {} {:?}", shown(&framework.warnings), framework.about_compressors)
}

fn policy(input: &[u8], _: &Path) -> String {
    let text = String::from_utf8_lossy(input);
    let files: Vec<ConfFile> =
        text.split(NEXT).map(|text| ConfFile { path: "p".into(), text: text.to_owned() }).collect();
    match policy::merge(&files) {
        Ok(policy) => format!("{} {:?}", policy.all_critical().len(), policy.on_failure),
        Err(error) => error.what.chars().take(200).collect(),
    }
}

fn regular_expression(input: &[u8], _: &Path) -> String {
    let text = String::from_utf8_lossy(input);
    let (pattern, text) = text.split_once('\n').unwrap_or((&text, "6.1.0-56-amd64"));
    let matches = ere::matches(pattern, text);
    match ere::compile(pattern) {
        Ok(_) => matches.to_string(),
        Err(error) => error.root_cause().to_string().chars().take(200).collect(),
    }
}

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

fn initramfs(input: &[u8], room: &Path) -> String {
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

fn module(input: &[u8], _: &Path) -> String {
    let said = |error: anyhow::Error| format!("{error:#}");
    let image = match module_file::unpacked(input) {
        Ok(image) => image,
        Err(error) => return said(error),
    };
    let signed = module_file::signed(&image);
    let mut came_to = match &signed {
        Ok(Some(signed)) => {
            assert!(signed.content.len() + signed.signature.len() < image.len());
            let signers = module_file::signers(signed.signature);
            format!("{:?}", signers.map(|signers| signers.len()).map_err(said))
        }
        Ok(None) => String::new(),
        Err(error) => error.to_string(),
    };
    let (kernel, vermagic) = (release(), Some("6.1 SMP mod_unload modversions "));
    let wanted = Wanted { name: Some("foo"), kernel: &kernel, machine: None, vermagic };
    came_to += &check_loadable(&image, wanted).map_or_else(said, |_| "loadable".to_owned());
    if let Ok(info) = ModInfo::read(&image) {
        match Symbols::read(&image, "foo", &info) {
            Err(error) => came_to += &said(error),
            Ok(symbols) => {
                let strictness =
                    Strictness { versions_needed: true, imports_optional: false, taint_is_inherited: true };
                let exports = Exports::of_kernel([("printk", 1), ("module_layout", 0)]);
                let find = |name: &str, _| exports.get(name).map_or(Offer::Nowhere, Offer::Found);
                let linked = module_file::link("foo", &symbols, &info, strictness, &find);
                came_to += &format!(
                    "{} {:?} {} {}",
                    symbols.needs.len(),
                    symbols.versions.map(|versions| versions.len()),
                    symbols.common.len(),
                    shown(&linked.problems)
                );
            }
        }
    }
    let same = |other: &[u8]| module_file::same_code(input, other).map_or_else(said, |same| same.to_string());
    let mut other = image.to_vec();
    other.extend(b"more");
    came_to + &same(&other)
}

fn signature(input: &[u8], _: &Path) -> String {
    let signers = module_file::signers(input);
    let certificate = Certificate::read(input);
    match (signers, certificate) {
        (Ok(signers), _) => signers.iter().map(ToString::to_string).collect(),
        (Err(signature), Ok(certificate)) => {
            let key = module_file::Signer::Key(vec![1]);
            format!("{signature:#} {}", certificate.is_of(&key))
        }
        (Err(signature), Err(certificate)) => format!("{signature:#} {certificate:#}"),
    }
}

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

/// Our own records: what is deleted by their word lies where it may.
fn records(input: &[u8], room: &Path) -> String {
    let here = room.to_str().unwrap();
    let text = String::from_utf8_lossy(input).replace("@", here);
    let root = Root::at(room);
    let tree = Tree {
        dkms: root.path("/var/lib/dkms"),
        source: root.path("/usr/src"),
        install: root.path("/lib/modules"),
        arch: kernel().arch,
        root,
    };
    let hooks = tree.hooks_dir();
    for name in [
        "runs/1.json",
        "verdicts/6.1.json",
        "attempts/foo/1.0/6.1/x86_64/attempt.json",
        "retained/foo/6.1/x86_64.json",
    ] {
        let path = hooks.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, &text).unwrap();
    }
    let id = ModuleId::new("foo", "1.0").unwrap();
    let run = tree.run(1).map(|run| run.only_removes()).map_err(|error| format!("{error:#}"));
    let verdict = Verdict::load(&tree, &release()).map(|verdict| verdict.map(|verdict| verdict.is_stale()));
    let attempt = tree.attempt(&id, &kernel()).map(|attempt| attempt.code);
    let retained = tree.all_retained();
    for path in retained.iter().flat_map(|retained| &retained.files) {
        assert!(path.starts_with(tree.kernel_dir(&release())), "{path:?}");
    }
    let recovered = journal(&tree, &text, room);
    format!(
        "{} {:?} {attempt:?} {} {recovered}",
        run.map_or_else(
            |error| error.rsplit(": ").next().unwrap_or_default().to_owned(),
            |run| run.to_string()
        ),
        verdict.map_err(|error| error.root_cause().to_string()),
        retained.len()
    )
}

/// A journal is carried out, so one that names other places than ours stays unread here.
fn journal(tree: &Tree, text: &str, room: &Path) -> String {
    fn strings<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
        match value {
            serde_json::Value::String(text) => found.push(text),
            serde_json::Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
            serde_json::Value::Object(values) => values.values().for_each(|value| strings(value, found)),
            _ => {}
        }
    }
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(first) {
        let mut found = Vec::new();
        strings(value.get("changes").unwrap_or(&serde_json::Value::Null), &mut found);
        let below = room.join("var");
        let is_ours = |text: &&str| Path::new(text).starts_with(&below) && !text.contains("..");
        if !found.iter().all(is_ours) {
            return "elsewhere".to_owned();
        }
    }
    let directory = tree.hooks_dir().join("journal");
    fs_err::create_dir_all(&directory).unwrap();
    fs_err::write(directory.join("1.journal"), text).unwrap();
    let came_to = match transaction::recover(tree) {
        Err(error) => error.root_cause().to_string(),
        Ok(recovered) => {
            let stuck: Vec<String> =
                recovered.stuck.iter().map(|error| error.root_cause().to_string()).collect();
            format!("{} {}", recovered.carried_out.len(), shown(&stuck))
        }
    };
    let _ = fs_err::remove_dir_all(room.join("var"));
    came_to
}
