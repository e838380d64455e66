// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driver disks as the installers before RHEL 6 read them (anaconda, loader2/driverdisk.c and modules.c):
//! modules in a compressed cpio archive, and tables of what they are and for which devices. The
//! module's source may bring the tables, in `redhat_driver_disk/`; what it lacks is made of what the
//! modules say of themselves.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use cpio::newc::{Builder, ModeFileType, trailer};
use flate2::write::GzEncoder;
use fs_err as fs;

use super::DriverDisk;
use crate::package::built::{Built, Module};
use crate::package::staging::write;

/// Where a module's source keeps files for these disks.
const SOURCE: &str = "redhat_driver_disk";

/// What the source may bring besides the tables that are made where it does not.
const FURTHER: [&str; 3] = ["disk-info", "modules.pcimap", "pci.ids"];

/// Where in the archive the loader looks for a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `K/foo.ko`; the disk is marked by `rhdd-6.1`.
    ByKernel,
    /// `K/A/foo.ko`; the disk is marked by `rhdd`.
    ByArch,
}

/// A table: its name, and how it is made of modules.
type Table = (&'static str, fn(&[&Module]) -> String);

pub(super) fn fill(disk: &DriverDisk<'_>, tree: &Path, format: Format) -> Result<()> {
    if format == Format::ByKernel
        && let Some(twice) = disk.built.iter().enumerate().find_map(|(at, one)| {
            let earlier = &disk.built[..at];
            earlier.iter().any(|other| other.target.kernel == one.target.kernel).then_some(&one.target.kernel)
        })
    {
        bail!(
            "this layout has one architecture for each kernel, and {twice} was given two; -d redhat2 has more"
        );
    }
    write(tree, "modules.cgz", archive(disk.built, format).context("packing the modules")?)?;
    // Each once, though it is built for several kernels.
    let mut modules: Vec<&Module> = Vec::new();
    for module in disk.built.iter().flat_map(|built| &built.modules) {
        if !modules.iter().any(|known| known.name == module.name) {
            modules.push(module);
        }
    }
    let brought = |name: &str| {
        let path = disk.source.join(SOURCE).join(name);
        if path.is_file() { fs::read(path).map(Some) } else { Ok(None) }
    };
    let tables: &[Table] = &[
        ("modinfo", modinfo),
        ("modules.dep", dependencies),
        ("pcitable", pcitable),
        ("modules.alias", aliases),
    ];
    for (name, make) in tables {
        if let Some(content) = brought(name)? {
            write(tree, name, content)?;
        } else if *name != "modules.alias" || format == Format::ByArch {
            write(tree, name, make(&modules))?;
        }
    }
    for name in FURTHER {
        if let Some(content) = brought(name)? {
            write(tree, name, content)?;
        }
    }
    // The loader shows it, and knows the disk by it when it asks for it again: one line.
    let told = brought("disk-info")?.map(|text| String::from_utf8_lossy(&text).into_owned());
    let title = told.as_deref().and_then(|text| text.lines().map(str::trim).find(|line| !line.is_empty()));
    let title = title.map_or_else(|| disk.title(), str::to_owned);
    let marker = if format == Format::ByArch { "rhdd" } else { "rhdd-6.1" };
    write(tree, marker, format!("{title}\n"))
}

/// A compressed archive of uncompressed modules, which is what those loaders can unpack.
fn archive(built: &[Built], format: Format) -> Result<Vec<u8>> {
    let mut archive = GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut inode = 0;
    for one in built {
        let kernel = one.target.kernel.as_str();
        for module in &one.modules {
            let name = match format {
                Format::ByKernel => format!("{kernel}/{}.ko", module.name),
                Format::ByArch => format!("{kernel}/{}/{}.ko", one.target.arch, module.name),
            };
            let image = module.image()?;
            inode += 1;
            let entry = Builder::new(&name).ino(inode).nlink(1).mode(0o644);
            let entry = entry.set_mode_file_type(ModeFileType::Regular);
            let mut writer = entry.write(&mut archive, u32::try_from(image.len())?);
            writer.write_all(&image)?;
            writer.finish()?;
        }
    }
    trailer(&mut archive)?;
    Ok(archive.finish()?)
}

/// `modinfo`: the name, the kind of driver and what it is for, indented.
fn modinfo(modules: &[&Module]) -> String {
    let mut text = "Version 0\n".to_owned();
    for module in modules {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}\n\t{}\n\t\"{}\"",
            module.name,
            kind(module),
            module.description().replace('"', "'")
        );
    }
    text
}

/// What the installer takes a driver for, told by what it registers with.
fn kind(module: &Module) -> &'static str {
    let calls = |prefixes: &[&str]| {
        module.needs.iter().any(|need| prefixes.iter().any(|prefix| need.starts_with(prefix)))
    };
    if calls(&[
        "scsi_add_host",
        "ata_host_activate",
        "sas_register_ha",
        "blk_mq_alloc",
        "__blk_mq_alloc_disk",
    ]) {
        "scsi"
    } else if calls(&["register_netdev", "alloc_etherdev"]) {
        "eth"
    } else {
        "other"
    }
}

/// `modules.dep`, in the loader's own form: names without directories.
fn dependencies(modules: &[&Module]) -> String {
    let mut text = String::new();
    for module in modules {
        let names: Vec<&str> = module.depends().collect();
        if !names.is_empty() {
            let _ = writeln!(text, "{}: {}", module.name, names.join(" "));
        }
    }
    text
}

/// `pcitable` (kudzu): numbers of the device, and of its subsystem if that matters.
fn pcitable(modules: &[&Module]) -> String {
    let mut text = String::new();
    for module in modules {
        for device in module.pci_devices().collect::<BTreeSet<_>>() {
            let _ = write!(text, "0x{:04x}\t0x{:04x}\t", device.vendor, device.device);
            if let Some((vendor, device)) = device.subsystem {
                let _ = write!(text, "0x{vendor:04x}\t0x{device:04x}\t");
            }
            let _ = writeln!(text, "\"{}\"\t\"{}\"", module.name, module.description().replace('"', "'"));
        }
    }
    text
}

/// `modules.alias`, as depmod(8) writes it.
fn aliases(modules: &[&Module]) -> String {
    let mut text = String::new();
    for module in modules {
        for alias in module.info.all("alias") {
            let _ = writeln!(text, "alias {alias} {}", module.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::built::tests::module;
    use super::*;

    #[test]
    fn tables_are_made_of_what_modules_say() {
        let mut nic = module(
            "nic.ko",
            &["depends=mii,ptp", "description=A \"fast\" card", "alias=pci:v00008086d0000100Esv*sd*bc*sc*i*"],
        );
        nic.needs = vec!["register_netdev".to_owned()];
        let plain = module("plain.ko", &["depends="]);
        let modules = [&nic, &plain];
        assert_eq!(
            modinfo(&modules),
            "Version 0\nnic\n\teth\n\t\"A 'fast' card\"\nplain\n\tother\n\t\"plain\"\n"
        );
        assert_eq!(dependencies(&modules), "nic: mii ptp\n");
        assert_eq!(pcitable(&modules), "0x8086\t0x100e\t\"nic\"\t\"A 'fast' card\"\n");
        assert_eq!(aliases(&modules), "alias pci:v00008086d0000100Esv*sd*bc*sc*i* nic\n");
    }
}
