// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an installed kernel tells of itself where its headers are not there: its own modules, which
//! every module has to be like, and the lists of symbols that distributions keep beside it.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;

use crate::kernel::KernelRelease;
use crate::module_file::{Exports, ModInfo, Symbols, unpacked};
use crate::sys::files;
use crate::tree::Tree;

/// How many modules of the kernel's own are read, and how many are looked at for these.
const SAMPLES: usize = 8;
const TRIES: usize = 32;

/// A kernel without headers.
#[derive(Debug, Default)]
pub(super) struct Bare {
    /// What its own modules carry.
    pub vermagic: Option<String>,
    /// Symbols that it offers.
    pub exports: Exports,
    /// Whether these are all.
    pub is_whole: bool,
}

impl Bare {
    pub fn read(tree: &Tree, kernel: &KernelRelease) -> Self {
        let kernel_dir = tree.kernel_dir(kernel);
        let (vermagic, versions) = sample(&kernel_dir);
        for place in tree.symbol_lists(kernel) {
            if let Some(text) = text(&place) {
                let exports = Exports::from_symvers(&text);
                if !exports.is_empty() {
                    return Self { vermagic, exports, is_whole: true };
                }
            }
        }
        let known = versions.iter().map(|(name, version)| (name.as_str(), *version));
        let mut exports = Exports::of_kernel(known);
        // Names alone: those of the kernel in System.map, those of its modules by depmod.
        let maps = [tree.path(format!("/boot/System.map-{kernel}")), kernel_dir.join("System.map")];
        let map = maps.iter().find_map(|place| text(place)).unwrap_or_default();
        let map = Exports::from_system_map(&map);
        let is_whole = !map.is_empty() && kernel_dir.join("modules.symbols").is_file();
        if is_whole {
            let of_modules = text(&kernel_dir.join("modules.symbols")).unwrap_or_default();
            let names =
                of_modules.lines().filter_map(|line| line.strip_prefix("alias symbol:")?.split(' ').next());
            exports.add_names(map.names().chain(names));
        }
        Self { vermagic, exports, is_whole }
    }
}

fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    String::from_utf8(unpacked(&bytes).ok()?.into_owned()).ok()
}

/// The vermagic of the kernel's own modules, and the versions of symbols that some of them use.
fn sample(kernel_dir: &Path) -> (Option<String>, BTreeMap<String, u32>) {
    let list = files::read_if_there(&kernel_dir.join("modules.dep")).ok().flatten().unwrap_or_default();
    let own =
        list.lines().filter_map(|line| line.split(':').next()).filter(|path| path.starts_with("kernel/"));
    let read = own.take(TRIES).filter_map(|path| of_module(&kernel_dir.join(path))).take(SAMPLES);
    let (mut vermagic, mut versions) = (None, BTreeMap::new());
    for (magic, used) in read {
        vermagic.get_or_insert(magic);
        versions.extend(used);
    }
    (vermagic, versions)
}

/// Nothing for what was not built with the kernel: only its own modules say `intree`.
fn of_module(path: &Path) -> Option<(String, Vec<(String, u32)>)> {
    let bytes = fs::read(path).ok()?;
    let image = unpacked(&bytes).ok()?;
    let info = ModInfo::read(&image).ok()?;
    info.get("intree")?;
    let vermagic = info.get("vermagic")?.to_owned();
    let versions = Symbols::read(&image, "", &info).ok()?.versions.unwrap_or_default();
    Some((vermagic, versions.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::fixture::Made;

    #[test]
    fn a_kernels_own_modules_tell_what_others_have_to_be_like() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let kernel: KernelRelease = "6.1-1".parse().unwrap();
        let bare = Bare::read(&tree, &kernel);
        assert!(bare.vermagic.is_none() && bare.exports.is_empty() && !bare.is_whole);

        let write = |path: &str, content: &[u8]| {
            files::write_atomically(&tree.kernel_dir(&kernel).join(path), content, 0o644).unwrap();
        };
        write("modules.dep", b"updates/x.ko:\nkernel/a.ko:\n");
        write("updates/x.ko", &Made::new("x").version("printk", 9).build());
        write("kernel/a.ko", &Made::new("a").info("intree", "Y").version("printk", 7).build());
        let bare = Bare::read(&tree, &kernel);
        assert!(bare.vermagic.is_some());
        assert_eq!(bare.exports.get("printk").and_then(|export| export.crc), Some(7));
        assert!(!bare.is_whole);

        write("System.map", b"ffffffff81000000 r __ksymtab_printk\nffffffff81000000 r __ksymtab_kfree\n");
        write("modules.symbols", b"# Aliases\nalias symbol:cfg_do cfg\n");
        let bare = Bare::read(&tree, &kernel);
        assert!(bare.is_whole);
        assert!(["kfree", "cfg_do"].iter().all(|name| bare.exports.get(name).is_some()));
        assert_eq!(bare.exports.get("printk").and_then(|export| export.crc), Some(7));

        write("symvers", b"0x00000005\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n");
        let bare = Bare::read(&tree, &kernel);
        assert_eq!(bare.exports.get("printk").and_then(|export| export.crc), Some(5));
        assert!(bare.is_whole && bare.exports.get("kfree").is_none());
    }
}
