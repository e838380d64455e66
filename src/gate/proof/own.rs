// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel says of itself: one of its own modules, which is as every module for it has to be,
//! and the list of the symbols that it offers.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::index::Index;
use super::signing::Signatures;
use crate::kernel::KernelRelease;
use crate::module_file::{Compression, Exports, LAYOUT, ModInfo, Signer, Symbols, VMLINUX, unpacked};
use crate::tree::Tree;

/// How many modules are looked at for one of the kernel's own.
const TRIES: usize = 32;

/// One of the modules that were built with the kernel.
#[derive(Debug)]
pub(super) struct Sample {
    pub vermagic: String,
    pub compression: Compression,
    pub signers: Vec<Signer>,
    symbols: Symbols,
}

impl Sample {
    /// The first module of the kernel's own that can be read, if it has one.
    pub fn find(index: &Index, kernel_dir: &Path) -> Option<Self> {
        index.own(kernel_dir).take(TRIES).find_map(|path| Self::read(path).ok().flatten())
    }

    /// Nothing if the module comes from elsewhere: only the kernel's own say `intree`.
    fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = fs::read(path)?;
        let image = unpacked(&bytes)?;
        let info = ModInfo::read(&image)?;
        let (Some(_), Some(vermagic)) = (info.get("intree"), info.get("vermagic")) else { return Ok(None) };
        Ok(Some(Self {
            vermagic: vermagic.to_owned(),
            compression: Compression::of_bytes(&bytes),
            signers: Signatures::makers(&image).unwrap_or_default(),
            symbols: Symbols::read(&image, "", &info)?,
        }))
    }

    /// The one symbol that every module uses and that is the kernel's for certain.
    fn layout(&self) -> Exports {
        let version = self.symbols.versions.as_ref().and_then(|versions| versions.get(LAYOUT));
        Exports::of_kernel(version.map(|crc| (LAYOUT, *crc)))
    }

    /// Whether a list of symbols is the kernel's that this module was built with, as far as it can
    /// tell: a list may be left from another build of the same release.
    fn agrees_with(&self, exports: &Exports) -> bool {
        let versions = self.symbols.versions.iter().flatten();
        versions.clone().all(|(name, crc)| {
            exports.get(name).is_none_or(|export| {
                *export.owner != *VMLINUX || export.crc.is_none_or(|known| known == *crc)
            })
        })
    }
}

/// What is known of the symbols that a kernel offers.
#[derive(Debug)]
pub(super) enum Offered {
    /// All of them.
    All(Exports),
    /// These, and why no others are known.
    Some(Exports, String),
}

/// Finds the list of a kernel's symbols: with its headers, where distributions keep a copy, or the
/// names alone in System.map.
pub(super) fn offered(tree: &Tree, kernel: &KernelRelease, sample: Option<&Sample>) -> Offered {
    let kernel_dir = tree.kernel_dir(kernel);
    let mut places: Vec<PathBuf> = vec![kernel_dir.join("build/Module.symvers")];
    places.extend(tree.symbol_lists(kernel));
    let mut disagrees = None;
    for place in places {
        let Some(exports) = read(&place, Exports::from_symvers) else { continue };
        if sample.is_none_or(|sample| sample.agrees_with(&exports)) {
            return Offered::All(exports);
        }
        disagrees = Some(place);
    }
    let some = |why: String| Offered::Some(sample.map(Sample::layout).unwrap_or_default(), why);
    if let Some(place) = disagrees {
        return some(format!("{} is of another build of the kernel than its modules", place.display()));
    }
    for place in [tree.path(format!("/boot/System.map-{kernel}")), kernel_dir.join("System.map")] {
        if let Some(exports) = read(&place, Exports::from_system_map) {
            return Offered::All(exports);
        }
    }
    some(format!("there is no Module.symvers of the kernel (install the headers of kernel {kernel})"))
}

/// Nothing if the file cannot be read or lists nothing.
fn read(path: &Path, parse: fn(&str) -> Exports) -> Option<Exports> {
    let bytes = fs::read(path).ok()?;
    let text = unpacked(&bytes).ok()?;
    Some(parse(std::str::from_utf8(&text).ok()?)).filter(|exports| !exports.is_empty())
}
