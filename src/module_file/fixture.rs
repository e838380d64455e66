// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules made up for tests: real ELF files, with what the kernel looks at and no code.

use object::write::{Object, SectionId, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// A module in the making.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    machine: (Architecture, Endianness),
    info: Vec<u8>,
    /// Names with whether they are weak.
    needs: Vec<(String, bool)>,
    versions: Option<Vec<(String, u32)>>,
    extended_versions: Vec<(String, u32)>,
    exports: Vec<(String, u32, bool, String)>,
    absolute_crcs: bool,
    common: Vec<String>,
}

impl Made {
    /// One of this name, for Linux 6.1.
    pub(crate) fn new(name: &str) -> Self {
        Self::nameless().info("name", name).info("vermagic", "6.1 SMP mod_unload modversions ")
    }

    /// One that says nothing of itself.
    pub(crate) fn nameless() -> Self {
        Self {
            machine: (Architecture::X86_64, Endianness::Little),
            info: Vec::new(),
            needs: Vec::new(),
            versions: None,
            extended_versions: Vec::new(),
            exports: Vec::new(),
            absolute_crcs: false,
            common: Vec::new(),
        }
    }

    pub(crate) fn on(mut self, architecture: Architecture, endianness: Endianness) -> Self {
        self.machine = (architecture, endianness);
        self
    }

    /// A number as the machine keeps it, of as many bytes.
    fn number(&self, number: u32, bytes: usize) -> Vec<u8> {
        let long = u64::from(number);
        match self.machine.1 {
            Endianness::Little => long.to_le_bytes()[..bytes].to_vec(),
            Endianness::Big => long.to_be_bytes()[8 - bytes..].to_vec(),
        }
    }

    pub(crate) fn info(mut self, key: &str, value: &str) -> Self {
        self.info.extend(format!("{key}={value}\0").bytes());
        self
    }

    pub(crate) fn gpl(self) -> Self {
        self.info("license", "GPL")
    }

    pub(crate) fn needs(mut self, name: &str) -> Self {
        self.needs.push((name.to_owned(), false));
        self
    }

    pub(crate) fn may_need(mut self, name: &str) -> Self {
        self.needs.push((name.to_owned(), true));
        self
    }

    pub(crate) fn version(mut self, name: &str, crc: u32) -> Self {
        self.versions.get_or_insert_default().push((name.to_owned(), crc));
        self
    }

    pub(crate) fn extended_version(mut self, name: &str, crc: u32) -> Self {
        self.extended_versions.push((name.to_owned(), crc));
        self
    }

    pub(crate) fn exports(self, name: &str, crc: u32) -> Self {
        self.export(name, crc, false, "")
    }

    pub(crate) fn export(mut self, name: &str, crc: u32, gpl_only: bool, namespace: &str) -> Self {
        self.exports.push((name.to_owned(), crc, gpl_only, namespace.to_owned()));
        self
    }

    /// Versions as kernels before 5.19 had them: in the symbol, not where it points to.
    pub(crate) fn absolute_crcs(mut self) -> Self {
        self.absolute_crcs = true;
        self
    }

    pub(crate) fn common(mut self, name: &str) -> Self {
        self.common.push(name.to_owned());
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut elf = Object::new(BinaryFormat::Elf, self.machine.0, self.machine.1);
        let section = |elf: &mut Object<'_>, name: &str, data: &[u8]| {
            let section = elf.add_section(Vec::new(), name.as_bytes().to_vec(), SectionKind::ReadOnlyData);
            elf.append_section_data(section, data, 1);
            section
        };
        section(&mut elf, ".modinfo", &self.info);
        // Without any symbol there would be no table of them, which every module has.
        let text = elf.section_id(StandardSection::Text);
        symbol(&mut elf, "init_module", SymbolSection::Section(text), 0, false);
        for (name, weak) in &self.needs {
            symbol(&mut elf, name, SymbolSection::Undefined, 0, *weak);
        }
        for name in &self.common {
            symbol(&mut elf, name, SymbolSection::Common, 0, false);
        }
        if let Some(versions) = &self.versions {
            let mut data = Vec::new();
            for (name, crc) in versions {
                let long = self.machine.0.address_size().map_or(8, |size| usize::from(size.bytes()));
                let mut entry = [self.number(*crc, long), name.as_bytes().to_vec()].concat();
                entry.resize(64, 0);
                data.extend(entry);
            }
            section(&mut elf, "__versions", &data);
        }
        if !self.extended_versions.is_empty() {
            let crcs: Vec<u8> =
                self.extended_versions.iter().flat_map(|(_, crc)| self.number(*crc, 4)).collect();
            let names: String = self.extended_versions.iter().map(|(name, _)| format!("{name}\0")).collect();
            section(&mut elf, "__version_ext_crcs", &crcs);
            section(&mut elf, "__version_ext_names", names.as_bytes());
        }
        if !self.exports.is_empty() {
            let plain = section(&mut elf, "__ksymtab", &[]);
            let gpl = section(&mut elf, "__ksymtab_gpl", &[]);
            let crcs = section(&mut elf, "__kcrctab", &[]);
            let strings = section(&mut elf, "__ksymtab_strings", &[]);
            for (name, crc, gpl_only, namespace) in &self.exports {
                let append = |elf: &mut Object<'_>, section: SectionId, data: &[u8]| {
                    elf.append_section_data(section, data, 1)
                };
                let table = if *gpl_only { gpl } else { plain };
                let at = append(&mut elf, table, &[0; 12]);
                symbol(&mut elf, &format!("__ksymtab_{name}"), SymbolSection::Section(table), at, false);
                let at = append(&mut elf, crcs, &self.number(*crc, 4));
                let crc = match self.absolute_crcs {
                    true => (SymbolSection::Absolute, u64::from(*crc)),
                    false => (SymbolSection::Section(crcs), at),
                };
                symbol(&mut elf, &format!("__crc_{name}"), crc.0, crc.1, false);
                append(&mut elf, strings, format!("{name}\0").as_bytes());
                let at = append(&mut elf, strings, format!("{namespace}\0").as_bytes());
                symbol(&mut elf, &format!("__kstrtabns_{name}"), SymbolSection::Section(strings), at, false);
            }
        }
        elf.write().unwrap()
    }
}

fn symbol(elf: &mut Object<'_>, name: &str, section: SymbolSection, value: u64, weak: bool) {
    elf.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size: 8,
        kind: SymbolKind::Data,
        scope: SymbolScope::Linkage,
        weak,
        section,
        flags: SymbolFlags::None,
    });
}
