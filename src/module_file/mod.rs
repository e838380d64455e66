// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel module as a file: its modinfo, compression, signature, symbols, and whether a kernel would
//! take it. Pure: bytes in, values out.

mod code;
mod compression;
#[cfg(test)]
pub(crate) mod fixture;
mod linking;
mod loadable;
mod signature;
mod signer;
mod symbols;
mod vermagic;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectKind, ObjectSection};

pub use code::same_code;
pub use compression::{Compression, unpacked};
pub use linking::{Linked, Offer, Strictness, link};
pub use loadable::{Wanted, check_loadable};
pub use signature::{Signed, signed};
pub use signer::{Certificate, Signer, signers};
pub use symbols::{Export, Exports, LAYOUT, Need, Symbols, VMLINUX};
pub use vermagic::{kernel_vermagic, same_magic};

/// A name as the kernel compares it: with underscores.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The module that a file holds by its name: `snd-foo.ko.xz` → `snd-foo`.
pub fn stem(file_name: &str) -> Option<&str> {
    ["", ".gz", ".xz", ".zst"].iter().find_map(|suffix| file_name.strip_suffix(suffix)?.strip_suffix(".ko"))
}

/// What a module says of itself in its `.modinfo` section (include/linux/moduleinfo.h: a
/// sequence of `key=value`, each ended by a NUL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModInfo(Vec<(String, String)>);

impl ModInfo {
    /// Reads an unpacked module; fails if it is not a relocatable ELF file with that section.
    pub fn read(image: &[u8]) -> Result<Self> {
        let elf = object::File::parse(image).context("it is not an ELF file")?;
        if elf.kind() != ObjectKind::Relocatable {
            bail!("it is not a relocatable object");
        }
        let section = elf.section_by_name(".modinfo").context("it has no .modinfo section")?;
        let data = section.data().context("its .modinfo section cannot be read")?;
        Ok(Self(
            data.split(|byte| *byte == 0)
                .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ))
    }

    /// Every value of a key.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use object::write::Object as ElfWriter;
    use rstest::rstest;

    /// An ELF file that says of itself what a module does.
    pub(crate) fn module(info: &[u8]) -> Vec<u8> {
        let mut elf = ElfWriter::new(
            object::BinaryFormat::Elf,
            object::Architecture::X86_64,
            object::Endianness::Little,
        );
        let section = elf.add_section(Vec::new(), b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
        elf.append_section_data(section, info, 1);
        elf.write().unwrap()
    }

    #[rstest]
    #[case::plain("foo.ko", Some("foo"))]
    #[case::xz("foo.ko.xz", Some("foo"))]
    #[case::other("foo.txt", None)]
    fn file_names_have_stems(#[case] file: &str, #[case] want: Option<&str>) {
        assert_eq!(stem(file), want);
    }
}
