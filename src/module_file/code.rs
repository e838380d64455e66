// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether two files of a module bring the same code and data into the kernel. What makes initramfs
//! images unpacks modules and strips them, so their files differ where the kernel never looks.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use object::read::{Relocation, RelocationTarget, SymbolIndex};
use object::{File, Object, ObjectSection, ObjectSymbol, RelocationFlags, SectionFlags, elf};

use super::{signed, unpacked};

/// Says which build a module is from, and changes with the directory that it was built in, even if
/// the code is the same: the kernel shows it in /sys/module and goes by nothing in it.
const BUILD_ID: &str = ".note.gnu.build-id";

/// Whether the kernel would load the same from both files, compressed and signed as they may be.
///
/// Compared are the sections that take up memory in the kernel (SHF_ALLOC: what move_module() in
/// kernel/module/main.c copies), with the relocations that apply to them. A relocation counts by
/// what it points at, not by its number: tools that strip number the symbols anew. All else, such
/// as symbols that nothing refers to, debug information and the signature, is set aside; so is the
/// build id. strip and objcopy (binutils), eu-strip and llvm-strip leave the rest as it is,
/// whatever they are told to remove.
///
/// Fails if one of them cannot be read.
pub fn same_code(a: &[u8], b: &[u8]) -> Result<bool> {
    if a == b {
        return Ok(true);
    }
    let (a, b) = (unpacked(a)?, unpacked(b)?);
    let content = |image| anyhow::Ok(signed(image)?.map_or(image, |signed| signed.content));
    let (a, b) = (content(&a)?, content(&b)?);
    Ok(a == b || loaded(&parsed(a)?)? == loaded(&parsed(b)?)?)
}

fn parsed(image: &[u8]) -> Result<File<'_>> {
    File::parse(image).context("it is not an ELF file")
}

/// Sections have names that need not be unique; these are told apart by their order.
type Name<'a> = (&'a str, usize);

/// What one section brings into the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Loaded<'a> {
    /// In bytes; sections of zeros have a size but no data.
    size: u64,
    /// Whether the kernel may write it and run it.
    access: u64,
    data: &'a [u8],
    relocations: BTreeMap<u64, Vec<Patch<'a>>>,
}

/// What the kernel puts into one place.
#[derive(Debug, PartialEq, Eq)]
struct Patch<'a> {
    kind: u32,
    addend: i64,
    to: Target<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    /// Another module's symbol, or the kernel's.
    Symbol(&'a str),
    /// A place in this module.
    Place(Name<'a>, u64),
    Absolute(u64),
}

fn loaded<'a>(elf: &File<'a>) -> Result<BTreeMap<Name<'a>, Loaded<'a>>> {
    let mut count = HashMap::new();
    let mut names = HashMap::new();
    for section in elf.sections() {
        let name = section.name().context("reading the names of sections")?;
        let nth = count.entry(name).and_modify(|nth| *nth += 1).or_insert(0_usize);
        names.insert(section.index(), (name, *nth));
    }
    let target = |index: SymbolIndex| -> Result<Target<'a>> {
        let symbol = elf.symbol_by_index(index).context("reading a symbol")?;
        Ok(match symbol.section_index().and_then(|index| names.get(&index)) {
            Some(name) => Target::Place(*name, symbol.address()),
            None if symbol.is_undefined() => Target::Symbol(symbol.name().context("reading a symbol")?),
            None => Target::Absolute(symbol.address()),
        })
    };
    let patch = |relocation: &Relocation| -> Result<Patch<'a>> {
        let kind = match relocation.flags() {
            RelocationFlags::Elf { r_type } => r_type,
            _ => 0,
        };
        let to = match relocation.target() {
            RelocationTarget::Symbol(index) => target(index)?,
            _ => Target::Absolute(0),
        };
        Ok(Patch { kind, addend: relocation.addend(), to })
    };
    let mut found = BTreeMap::new();
    for section in elf.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let name = names[&section.index()];
        if sh_flags & u64::from(elf::SHF_ALLOC) == 0 || name.0 == BUILD_ID {
            continue;
        }
        let mut relocations: BTreeMap<u64, Vec<Patch<'a>>> = BTreeMap::new();
        for (place, relocation) in section.relocations() {
            relocations.entry(place).or_default().push(patch(&relocation)?);
        }
        found.insert(
            name,
            Loaded {
                size: section.size(),
                access: sh_flags & u64::from(elf::SHF_WRITE | elf::SHF_EXECINSTR),
                data: section.data().with_context(|| format!("reading section {}", name.0))?,
                relocations,
            },
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{Compression, tests::module};
    use super::*;
    use crate::conf::compressors::Compressors;
    use object::write::{self, Symbol, SymbolSection};
    use object::{SectionKind, SymbolFlags, SymbolKind, SymbolScope};
    use rstest::rstest;

    /// What a module is made of, as far as it matters here.
    #[derive(Clone)]
    struct Made {
        text: Vec<u8>,
        build_id: &'static [u8],
        debug: &'static [u8],
        /// Names of symbols that nothing refers to, which come before the others.
        unused: &'static [&'static str],
        /// The kernel's function that is called.
        calls: &'static str,
        /// Which byte of .data a pointer in .text points at.
        points_at: u64,
        /// Where that pointer is.
        place: u64,
    }

    fn made() -> Made {
        Made {
            text: vec![0x90; 64],
            build_id: b"one",
            debug: b"line numbers",
            unused: &["a", "b"],
            calls: "printk",
            points_at: 4,
            place: 16,
        }
    }

    impl Made {
        fn elf(&self) -> Vec<u8> {
            let mut object = write::Object::new(
                object::BinaryFormat::Elf,
                object::Architecture::X86_64,
                object::Endianness::Little,
            );
            let mut section = |name: &str, kind, data: &[u8]| {
                let id = object.add_section(Vec::new(), name.into(), kind);
                object.append_section_data(id, data, 1);
                id
            };
            let build_id = section(BUILD_ID, SectionKind::Note, self.build_id);
            let text = section(".text", SectionKind::Text, &self.text);
            let data = section(".data", SectionKind::Data, &[0; 16]);
            section(".debug_line", SectionKind::Debug, self.debug);
            object.section_mut(build_id).flags = SectionFlags::Elf { sh_flags: elf::SHF_ALLOC.into() };
            let symbol = |name: &str, section, value| Symbol {
                name: name.into(),
                value,
                size: 0,
                kind: SymbolKind::Data,
                scope: SymbolScope::Linkage,
                weak: false,
                section,
                flags: SymbolFlags::None,
            };
            for name in self.unused {
                object.add_symbol(symbol(name, SymbolSection::Section(data), 0));
            }
            let called = object.add_symbol(symbol(self.calls, SymbolSection::Undefined, 0));
            let variable = object.add_symbol(symbol("v", SymbolSection::Section(data), self.points_at));
            for (offset, symbol, r_type) in
                [(4, called, elf::R_X86_64_PLT32), (self.place, variable, elf::R_X86_64_PC32)]
            {
                let flags = RelocationFlags::Elf { r_type };
                object.add_relocation(text, write::Relocation { offset, symbol, addend: -4, flags }).unwrap();
            }
            object.write().unwrap()
        }
    }

    #[rstest]
    #[case::symbols_removed(Made { unused: &[], ..made() }, true)]
    #[case::debug_information_removed(Made { debug: b"", ..made() }, true)]
    #[case::built_elsewhere(Made { build_id: b"two", ..made() }, true)]
    #[case::other_code(Made { text: vec![0xcc; 64], ..made() }, false)]
    #[case::longer_code(Made { text: vec![0x90; 65], ..made() }, false)]
    #[case::calls_another_function(Made { calls: "panic", ..made() }, false)]
    #[case::points_elsewhere(Made { points_at: 8, ..made() }, false)]
    #[case::pointer_elsewhere(Made { place: 24, ..made() }, false)]
    fn what_the_kernel_loads_is_compared(#[case] other: Made, #[case] same: bool) {
        assert_ne!(made().elf(), other.elf());
        assert_eq!(same_code(&made().elf(), &other.elf()).unwrap(), same);
    }

    #[test]
    fn compression_and_signature_are_set_aside() {
        let plain = module(b"name=foo\0");
        let signature = [b"abc".as_slice(), &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3]].concat();
        let signed = [plain.as_slice(), &signature, b"~Module signature appended~\n"].concat();
        assert!(
            same_code(&plain, &Compression::Xz.compress(signed, &Compressors::default()).unwrap()).unwrap()
        );
        let other = module(b"name=bar\0");
        assert!(
            !same_code(&Compression::Zstd.compress(plain, &Compressors::default()).unwrap(), &other).unwrap()
        );
    }

    #[rstest]
    #[case::rubbish(b"rubbish".to_vec())]
    #[case::cut_short(module(b"name=foo\0")[..100].to_vec())]
    #[case::empty(Vec::new())]
    fn what_is_no_module_is_compared_with_none(#[case] other: Vec<u8>) {
        assert!(same_code(&module(b"name=foo\0"), &other).is_err());
    }
}
