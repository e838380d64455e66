// SPDX-License-Identifier: MIT OR Apache-2.0
//! The symbols that a module needs and those that it offers, with their versions; and the lists of
//! what a whole kernel offers.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use object::{Architecture, Object, ObjectSection, ObjectSymbol, SectionIndex, SymbolSection, elf};

use super::ModInfo;

/// Who offers what does not come from a module.
pub const VMLINUX: &str = "vmlinux";

/// A symbol that only has a version: that of `struct module` and of what else is between the kernel
/// and every module.
pub const LAYOUT: &str = "module_layout";

/// Code of another place that a module refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub name: String,
    /// It may stay open.
    pub weak: bool,
}

/// A symbol that modules may use (include/linux/export.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The version: a checksum over its C types.
    pub crc: Option<u32>,
    /// Not for modules under licences that are not the GPL's.
    pub gpl_only: bool,
    /// What a user has to import (Documentation/core-api/symbol-namespaces.rst); mostly empty.
    pub namespace: String,
    /// [`VMLINUX`], or the module that has it.
    pub owner: Arc<str>,
    /// That module is not under the GPL.
    pub tainting: bool,
}

impl Export {
    /// One of which nothing else is known.
    fn of(owner: &Arc<str>) -> Self {
        Self { crc: None, gpl_only: false, namespace: String::new(), owner: owner.clone(), tainting: false }
    }
}

/// Symbols on offer, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exports(HashMap<String, Export>);

impl Exports {
    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Export> {
        self.0.get(name)
    }

    /// Their names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Symbols of the kernel itself, by name and version.
    pub fn of_kernel<'a>(symbols: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let owner: Arc<str> = VMLINUX.into();
        let export = |crc| Export { crc: Some(crc), ..Export::of(&owner) };
        Self(symbols.into_iter().map(|(name, crc)| (name.to_owned(), export(crc))).collect())
    }

    /// Adds symbols of which nothing but the name is known, unless more is known of them already.
    pub fn add_names<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let owner: Arc<str> = VMLINUX.into();
        for name in names {
            self.0.entry(name.to_owned()).or_insert_with(|| Export::of(&owner));
        }
    }

    /// Reads a Module.symvers (Documentation/kbuild/modules.rst, 6.2): lines of CRC, symbol, module,
    /// kind and namespace. Linux 5.4 and 5.5 had the namespace before the module, older ones none.
    pub fn from_symvers(text: &str) -> Self {
        let mut owner: Arc<str> = VMLINUX.into();
        let mut exports = HashMap::with_capacity(text.len() / 60);
        for line in text.lines() {
            let mut fields = line.split('\t');
            let (Some(crc), Some(name), Some(third), Some(fourth)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let fifth = fields.next().unwrap_or_default();
            let (module, kind, namespace) = match fourth.starts_with("EXPORT_") {
                true => (third, fourth, fifth),
                false => (fourth, fifth, third),
            };
            if module != &*owner {
                owner = module.into();
            }
            let crc = crc.strip_prefix("0x").and_then(|crc| u32::from_str_radix(crc, 16).ok());
            let export = Export {
                // A symbol without a version is listed with 0.
                crc: crc.filter(|crc| *crc != 0),
                gpl_only: kind.ends_with("_GPL"),
                namespace: namespace.to_owned(),
                owner: owner.clone(),
                tainting: false,
            };
            exports.insert(name.to_owned(), export);
        }
        Self(exports)
    }

    /// Reads what the kernel itself offers from its System.map, where every exported symbol has a
    /// mark; empty where they were left out. Tells neither versions nor who may use a symbol.
    pub fn from_system_map(text: &str) -> Self {
        let owner: Arc<str> = VMLINUX.into();
        let export = || Export::of(&owner);
        let marked = text.lines().filter_map(|line| line.rsplit_once(" __ksymtab_"));
        Self(marked.map(|(_, name)| (name.to_owned(), export())).collect())
    }
}

/// What a module needs and offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbols {
    pub needs: Vec<Need>,
    /// The versions that it was built against; nothing if it has no list of them.
    pub versions: Option<HashMap<String, u32>>,
    pub exports: Exports,
    /// Variables without a place (`-fcommon`), for which the kernel refuses a module.
    pub common: Vec<String>,
}

/// The parts of any ELF file that are asked for.
struct Image<'a> {
    file: &'a object::File<'a>,
}

impl<'a> Image<'a> {
    /// A section that the kernel would load.
    fn section(&self, name: &str) -> Option<&'a [u8]> {
        let section = self.file.section_by_name(name)?;
        let object::SectionFlags::Elf { sh_flags } = section.flags() else { return None };
        if sh_flags & u64::from(elf::SHF_ALLOC) == 0 { None } else { section.data().ok() }
    }

    fn word(&self, data: &[u8], at: usize) -> Option<u32> {
        let bytes = data.get(at..)?.first_chunk()?;
        Some(if self.file.is_little_endian() {
            u32::from_le_bytes(*bytes)
        } else {
            u32::from_be_bytes(*bytes)
        })
    }

    fn part_of(&self, section: SectionIndex, at: u64) -> Option<&'a [u8]> {
        let data = self.file.section_by_index(section).ok()?.data().ok()?;
        data.get(usize::try_from(at).ok()?..)
    }

    /// `__versions` is an array of `struct modversion_info` (include/linux/module.h): a long and a
    /// name, 64 bytes together. Since 6.13 two sections may stand beside it or in its place, which
    /// take names of any length.
    fn versions(&self) -> Option<HashMap<String, u32>> {
        const ENTRY: usize = 64;
        if let (Some(crcs), Some(names)) =
            (self.section("__version_ext_crcs"), self.section("__version_ext_names"))
        {
            let names = names.split(|byte| *byte == 0).filter_map(text);
            let crcs = (0..crcs.len() / 4).filter_map(|at| self.word(crcs, at * 4));
            return Some(names.zip(crcs).map(|(name, crc)| (name.to_owned(), crc)).collect());
        }
        let (long, low) = match (self.file.is_64(), self.file.is_little_endian()) {
            (true, true) => (8, 0),
            (true, false) => (8, 4),
            (false, _) => (4, 0),
        };
        let entries = self.section("__versions")?.chunks_exact(ENTRY);
        let read = |entry: &[u8]| Some((until_nul(&entry[long..])?.to_owned(), self.word(entry, low)?));
        Some(entries.filter_map(read).collect())
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn until_nul(bytes: &[u8]) -> Option<&str> {
    text(bytes.split(|byte| *byte == 0).next()?)
}

impl Symbols {
    /// Reads an unpacked module of this name.
    pub fn read(image: &[u8], name: &str, info: &ModInfo) -> Result<Self> {
        let file = object::File::parse(image).context("it is not an ELF file")?;
        let image = Image { file: &file };
        if file.symbol_table().is_none() {
            bail!("it has no symbols (stripped of too much?)");
        }
        // ELFv1 calls what code begins at by a name of its own; the kernel takes the dot off.
        let plain = |name: &str| match file.architecture() {
            Architecture::PowerPc64 => name.strip_prefix('.').unwrap_or(name).to_owned(),
            _ => name.to_owned(),
        };
        let (mut needs, mut common) = (Vec::new(), Vec::new());
        let mut exports: HashMap<&str, Export> = HashMap::new();
        let owner: Arc<str> = name.into();
        let nothing_known = || Export { tainting: !info.is_gpl_compatible(), ..Export::of(&owner) };
        for symbol in file.symbols() {
            let Ok(name) = symbol.name() else { continue };
            match symbol.section() {
                // Left by assemblers and linkers, resolved by nobody.
                SymbolSection::Undefined if matches!(name, "" | "_GLOBAL_OFFSET_TABLE_" | ".TOC.") => {}
                SymbolSection::Undefined => needs.push(Need { name: plain(name), weak: symbol.is_weak() }),
                SymbolSection::Common if !name.starts_with("__gnu_lto") => common.push(name.to_owned()),
                section => {
                    let place = section.index().map(|index| (index, symbol.address()));
                    if let Some(name) = name.strip_prefix("__ksymtab_") {
                        let table = place.and_then(|(at, _)| file.section_by_index(at).ok());
                        let gpl_only = table.is_some_and(|table| {
                            table
                                .name()
                                .is_ok_and(|name| name.trim_start_matches('_').starts_with("ksymtab_gpl"))
                        });
                        exports.entry(name).or_insert_with(nothing_known).gpl_only = gpl_only;
                    } else if let Some(name) = name.strip_prefix("__crc_") {
                        // It is the version or, of late, where the version is.
                        let crc = match place {
                            None => u32::try_from(symbol.address() & u64::from(u32::MAX)).ok(),
                            Some((at, offset)) => {
                                image.part_of(at, offset).and_then(|data| image.word(data, 0))
                            }
                        };
                        exports.entry(name).or_insert_with(nothing_known).crc = crc.filter(|crc| *crc != 0);
                    } else if let Some(name) = name.strip_prefix("__kstrtabns_")
                        && let Some(space) =
                            place.and_then(|(at, offset)| until_nul(image.part_of(at, offset)?))
                    {
                        exports.entry(name).or_insert_with(nothing_known).namespace = space.to_owned();
                    }
                }
            }
        }
        let mut exports: HashMap<String, Export> =
            exports.into_iter().map(|(name, export)| (name.to_owned(), export)).collect();
        // A module that was stripped of its local symbols still has the names, as depmod knows.
        if let (true, Some(names)) = (exports.is_empty(), image.section("__ksymtab_strings")) {
            let names = names.split(|byte| *byte == 0).filter_map(text).filter(|name| !name.is_empty());
            exports = names.map(|name| (name.to_owned(), nothing_known())).collect();
        }
        Ok(Self { needs, versions: image.versions(), exports: Exports(exports), common })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Made;
    use super::*;
    use object::Endianness;
    use rstest::rstest;

    fn read(made: &Made) -> Symbols {
        let image = made.build();
        Symbols::read(&image, "foo", &ModInfo::read(&image).unwrap()).unwrap()
    }

    #[test]
    fn a_module_tells_what_it_needs() {
        let symbols = read(&Made::new("foo").needs("printk").may_need("perhaps").common("oops"));
        let need = |name: &str, weak| Need { name: name.to_owned(), weak };
        assert_eq!(symbols.needs, [need("printk", false), need("perhaps", true)]);
        assert_eq!(symbols.common, ["oops"]);
        assert_eq!((symbols.versions, symbols.exports.is_empty()), (None, true));
    }

    #[test]
    fn what_tools_leave_open_is_needed_by_nobody() {
        let symbols = read(&Made::new("foo").needs("_GLOBAL_OFFSET_TABLE_").needs(".TOC."));
        assert_eq!(symbols.needs, []);
    }

    #[rstest]
    #[case::basic(Made::new("foo").version("printk", 0x1234))]
    #[case::extended(Made::new("foo").extended_version("printk", 0x1234))]
    #[case::both(Made::new("foo").version("printk", 0x9999).extended_version("printk", 0x1234))]
    fn versions_come_from_either_list_the_extended_first(#[case] made: Made) {
        assert_eq!(read(&made).versions, Some([("printk".to_owned(), 0x1234)].into()));
    }

    #[rstest]
    #[case::big_endian(Architecture::S390x, Endianness::Big)]
    #[case::of_32_bits(Architecture::Arm, Endianness::Little)]
    fn every_machine_has_its_own_numbers(#[case] machine: Architecture, #[case] endianness: Endianness) {
        let made = Made::new("foo").on(machine, endianness).version("printk", 0x1234).exports("one", 0xabcd);
        let symbols = read(&made);
        assert_eq!(symbols.versions, Some([("printk".to_owned(), 0x1234)].into()));
        assert_eq!(symbols.exports.get("one").unwrap().crc, Some(0xabcd));
        let extended = read(&Made::new("foo").on(machine, endianness).extended_version("printk", 0x1234));
        assert_eq!(extended.versions, Some([("printk".to_owned(), 0x1234)].into()));
    }

    #[rstest]
    #[case::of_today(Made::new("foo"))]
    #[case::before_5_19(Made::new("foo").absolute_crcs())]
    fn a_module_tells_what_it_offers(#[case] made: Made) {
        let symbols = read(&made.gpl().exports("one", 1).export("two", 0xffff_fffe, true, "SPACE"));
        let one = Export {
            crc: Some(1),
            gpl_only: false,
            namespace: String::new(),
            owner: "foo".into(),
            tainting: false,
        };
        let two =
            Export { crc: Some(0xffff_fffe), gpl_only: true, namespace: "SPACE".to_owned(), ..one.clone() };
        assert_eq!(symbols.exports.get("one"), Some(&one));
        assert_eq!(symbols.exports.get("two"), Some(&two));
    }

    #[rstest]
    #[case::since_5_6("0x0000beef\tfrob\tfs/foo/foo\tEXPORT_SYMBOL_GPL\tSPACE", "SPACE", true)]
    #[case::of_5_4("0x0000beef\tfrob\tSPACE\tfs/foo/foo\tEXPORT_SYMBOL", "SPACE", false)]
    #[case::before_5_4("0x0000beef\tfrob\tfs/foo/foo\tEXPORT_UNUSED_SYMBOL_GPL", "", true)]
    #[case::no_namespace("0x0000beef\tfrob\tfs/foo/foo\tEXPORT_SYMBOL\t", "", false)]
    #[case::for_later("0x0000beef\tfrob\tfs/foo/foo\tEXPORT_SYMBOL_GPL_FUTURE", "", false)]
    fn every_form_of_symvers_is_read(#[case] line: &str, #[case] namespace: &str, #[case] gpl_only: bool) {
        let exports = Exports::from_symvers(&format!("rubbish\n{line}\n"));
        let export = Export {
            crc: Some(0xbeef),
            gpl_only,
            namespace: namespace.to_owned(),
            owner: "fs/foo/foo".into(),
            tainting: false,
        };
        assert_eq!((exports.get("frob"), exports.names().count()), (Some(&export), 1));
    }

    #[test]
    fn a_symbol_without_version_is_listed_with_zero() {
        let exports = Exports::from_symvers("0x00000000\tfrob\tvmlinux\tEXPORT_SYMBOL\t\n");
        let frob = exports.get("frob").unwrap();
        assert_eq!((frob.crc, &*frob.owner), (None, VMLINUX));
    }

    #[test]
    fn a_system_map_marks_what_is_exported() {
        let exports = Exports::from_system_map(
            "ffffffff81000000 T _text\nffffffff81000010 T printk\nffffffff82000000 r __ksymtab_printk\n",
        );
        assert_eq!(exports.names().collect::<Vec<_>>(), ["printk"]);
        let stub = "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n";
        assert!(Exports::from_system_map(stub).is_empty());
    }
}
