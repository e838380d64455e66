// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules as files, their signatures, and what tells of a kernel what it offers them.

use std::path::Path;

use dkms_hooks::kernel::{KernelConfig, KernelRelease};
use dkms_hooks::module_file::{
    self, Certificate, Exports, ModInfo, Offer, Strictness, Symbols, Wanted, check_loadable,
};

use super::{Target, release, shown};

pub const TARGETS: &[Target] = &[
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
];

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
