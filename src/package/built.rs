// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modules kept for one kernel, as those need them who pack them for other machines: what each
//! says of itself, and in which order they load. Reads one directory of the dkms tree.

use std::path::Path;

use anyhow::{Context, Result};
use fs_err as fs;
use petgraph::algo::toposort;
use petgraph::graph::DiGraph;

use crate::module::Target;
use crate::module_file::{ModInfo, Symbols, canonical, stem, unpacked};
use crate::sys::files;

/// All modules that are kept for a kernel.
#[derive(Debug)]
pub struct Built {
    pub target: Target,
    /// In the order in which they load: what another one depends on comes before it.
    pub modules: Vec<Module>,
}

/// A module's file.
#[derive(Debug)]
pub struct Module {
    /// `foo.ko.xz`
    pub file: String,
    /// `foo`, as the file is named; the kernel writes `-` as `_`.
    pub name: String,
    /// As it is kept: signed and compressed.
    pub bytes: Vec<u8>,
    pub info: ModInfo,
    /// The symbols that it needs.
    pub needs: Vec<String>,
}

impl Built {
    /// Reads what is kept in a directory.
    pub fn read(target: Target, directory: &Path) -> Result<Self> {
        let mut modules = Vec::new();
        for file in files::names(directory)? {
            let Some(name) = stem(&file).map(str::to_owned) else { continue };
            let path = directory.join(&file);
            let bytes = fs::read(&path)?;
            let reading = || format!("reading {}", path.display());
            let image = unpacked(&bytes).with_context(reading)?;
            let info = ModInfo::read(&image).with_context(reading)?;
            let symbols = Symbols::read(&image, &name, &info).with_context(reading)?;
            let needs = symbols.needs.into_iter().map(|need| need.name).collect();
            drop(image);
            modules.push(Module { file, name, bytes, info, needs });
        }
        Ok(Self { target, modules: in_order(modules) })
    }
}

/// Sorts what depends on others behind them. A circle, which no kernel would load, stays as it is.
fn in_order(mut modules: Vec<Module>) -> Vec<Module> {
    let mut graph = DiGraph::<(), ()>::new();
    let nodes: Vec<_> = modules.iter().map(|_| graph.add_node(())).collect();
    for (module, node) in modules.iter().zip(&nodes) {
        for (other, needed) in modules.iter().zip(&nodes) {
            if module.depends().any(|name| canonical(name) == canonical(&other.name)) {
                graph.add_edge(*needed, *node, ());
            }
        }
    }
    let Ok(order) = toposort(&graph, None) else { return modules };
    let mut ranks = vec![0; modules.len()];
    order.iter().enumerate().for_each(|(rank, node)| ranks[node.index()] = rank);
    let mut ranks = ranks.into_iter();
    modules.sort_by_cached_key(|_| ranks.next());
    modules
}

impl Module {
    /// The uncompressed file.
    pub fn image(&self) -> Result<Vec<u8>> {
        Ok(unpacked(&self.bytes).with_context(|| format!("unpacking {}", self.file))?.into_owned())
    }

    /// The modules that it depends on, by name (`depends=` of its modinfo).
    pub fn depends(&self) -> impl Iterator<Item = &str> {
        self.info
            .get("depends")
            .into_iter()
            .flat_map(|names| names.split(','))
            .filter(|name| !name.is_empty())
    }

    /// What it says that it is, in one line; its name if it says nothing.
    pub fn description(&self) -> &str {
        let said = self.info.get("description").and_then(|text| text.lines().next());
        said.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(&self.name)
    }

    /// The PCI devices that it is for (file2alias.c: `pci:vVVVVVVVVdDDDDDDDDsv*sd*bc*sc*i*`).
    pub fn pci_devices(&self) -> impl Iterator<Item = PciDevice> {
        self.info.all("alias").filter_map(PciDevice::of_alias)
    }
}

/// A PCI device's numbers; nothing where any will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciDevice {
    pub vendor: u16,
    pub device: u16,
    /// Of the subsystem: vendor and device.
    pub subsystem: Option<(u16, u16)>,
}

impl PciDevice {
    /// Nothing for what is not about one device, such as a class of them.
    fn of_alias(alias: &str) -> Option<Self> {
        let rest = alias.strip_prefix("pci:v")?;
        let (vendor, rest) = rest.split_once('d')?;
        let (device, rest) = rest.split_once("sv")?;
        let (subvendor, rest) = rest.split_once("sd")?;
        let (subdevice, _) = rest.split_once("bc")?;
        let number =
            |word: &str| u32::from_str_radix(word, 16).ok().and_then(|number| u16::try_from(number).ok());
        Some(Self {
            vendor: number(vendor)?,
            device: number(device)?,
            subsystem: number(subvendor).zip(number(subdevice)),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernel::KernelRelease;
    use crate::module::Arch;
    use crate::module_file::tests::module as image;
    use rstest::rstest;

    /// A module that says this of itself, as `key=value` words.
    pub(crate) fn module(file: &str, info: &[&str]) -> Module {
        let text: String = info.iter().map(|entry| format!("{entry}\0")).collect();
        let bytes = image(text.as_bytes());
        let info = ModInfo::read(&bytes).unwrap();
        Module { file: file.to_owned(), name: stem(file).unwrap().to_owned(), bytes, info, needs: Vec::new() }
    }

    pub(crate) fn built(kernel: &str, arch: &str, modules: Vec<Module>) -> Built {
        let kernel: KernelRelease = kernel.parse().unwrap();
        Built { target: Target { kernel, arch: Arch::new(arch).unwrap() }, modules: in_order(modules) }
    }

    #[test]
    fn what_is_depended_on_comes_first() {
        let modules = vec![
            module("a.ko", &["depends=b-low,usbcore"]),
            module("b_low.ko", &["depends=c"]),
            module("c.ko", &["depends="]),
        ];
        let built = built("6.1", "x86_64", modules);
        let names: Vec<&str> = built.modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["c", "b_low", "a"]);
    }

    #[rstest]
    #[case::any_subsystem("pci:v00008086d0000100Esv*sd*bc*sc*i*", Some((0x8086, 0x100e)), None)]
    #[case::one_subsystem(
        "pci:v00001028d00000001sv00001028sd0000016Cbc*sc*i*",
        Some((0x1028, 1)),
        Some((0x1028, 0x16c))
    )]
    #[case::class("pci:v*d*sv*sd*bc0Csc03i30*", None, None)]
    #[case::other_bus("usb:v0403p6001d*dc*dsc*dp*ic*isc*ip*in*", None, None)]
    fn devices_are_read_from_aliases(
        #[case] alias: &str,
        #[case] want: Option<(u16, u16)>,
        #[case] subsystem: Option<(u16, u16)>,
    ) {
        let want = want.map(|(vendor, device)| PciDevice { vendor, device, subsystem });
        assert_eq!(PciDevice::of_alias(alias), want);
    }
}
