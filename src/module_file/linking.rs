// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a kernel would find every symbol that a module needs, by the rules of its
//! simplify_symbols() (kernel/module/main.c) and check_version() (kernel/module/version.c).

use super::{Export, LAYOUT, ModInfo, Symbols, VMLINUX};
use crate::kernel::{KernelConfig, KernelRelease, compare_versions};

/// How strict a kernel is about symbols, which its configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strictness {
    /// A module without a list of versions is refused (MODVERSIONS without MODULE_FORCE_LOAD).
    pub versions_needed: bool,
    /// MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS
    pub imports_optional: bool,
    /// Who uses symbols of a module that is not GPL-compatible has no GPL-only ones (since 5.9).
    pub taint_is_inherited: bool,
}

impl Strictness {
    /// That of a kernel.
    pub fn of(kernel: &KernelRelease, config: &KernelConfig) -> Self {
        let on = |name: &str| config.enabled(name);
        Self {
            versions_needed: on("CONFIG_MODVERSIONS") && !on("CONFIG_MODULE_FORCE_LOAD"),
            imports_optional: on("CONFIG_MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS"),
            taint_is_inherited: compare_versions(kernel.as_str(), "5.9").is_ge(),
        }
    }
}

/// What is known of a symbol that a module needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer<'a> {
    Found(&'a Export),
    /// Only a module has it that would not be there.
    Absent(&'a Export),
    /// Nobody has it.
    Nowhere,
    /// Not everybody who may have it is known.
    Unknown,
}

/// What came of a module's symbols.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Linked {
    /// Why the kernel would refuse the module.
    pub problems: Vec<String>,
    /// What the kernel may object to, or only warns of.
    pub warnings: Vec<String>,
    /// What could not be told.
    pub untold: Option<String>,
}

/// Whether the kernel takes a module's licence for one that may use all symbols
/// (include/linux/license.h).
fn is_gpl_compatible(license: Option<&str>) -> bool {
    let known =
        ["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"];
    license.is_some_and(|license| known.contains(&license))
}

impl ModInfo {
    /// Whether the module may use symbols that are for modules under the GPL only.
    pub fn is_gpl_compatible(&self) -> bool {
        is_gpl_compatible(self.get("license"))
    }
}

/// Whether a module may use symbols of a namespace: it imports it or, since 6.16, is named by it.
fn may_use(namespace: &str, name: &str, info: &ModInfo) -> bool {
    let named = |list: &str| {
        list.split(',').any(|allowed| match allowed.strip_suffix('*') {
            Some(start) => super::canonical(name).starts_with(&super::canonical(start)),
            None => super::canonical(name) == super::canonical(allowed),
        })
    };
    namespace.is_empty()
        || namespace.strip_prefix("module:").is_some_and(named)
        || info.all("import_ns").any(|imported| imported == namespace)
}

/// `a, b, c and 4 more`
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Resolves everything that a module needs. `find` looks a symbol up; of several that have it, it
/// knows which one the kernel would take, or takes one with the version that it is given.
pub fn link<'a>(
    name: &str,
    symbols: &Symbols,
    info: &ModInfo,
    strictness: Strictness,
    find: &dyn Fn(&str, Option<u32>) -> Offer<'a>,
) -> Linked {
    let version_of = |name: &str| symbols.versions.as_ref().and_then(|versions| versions.get(name)).copied();
    let mut absent = Vec::new();
    let (mut nowhere, mut unknown, mut other_version, mut unversioned) = (vec![], vec![], vec![], vec![]);
    let (mut not_for_us, mut not_imported, mut not_gpl) = (vec![], vec![], vec![]);
    let mut uses_gpl_only = false;
    let layout = super::Need { name: LAYOUT.to_owned(), weak: true };
    for super::Need { name: symbol, weak } in symbols.needs.iter().chain(std::iter::once(&layout)) {
        let version = version_of(symbol);
        let export = match find(symbol, version) {
            Offer::Found(export) => export,
            Offer::Absent(_) | Offer::Nowhere | Offer::Unknown if *weak => continue,
            Offer::Absent(export) => {
                let owner = export.owner.rsplit('/').next().unwrap_or_default();
                absent.push(format!("{symbol} of {owner}"));
                continue;
            }
            Offer::Nowhere => {
                nowhere.push(symbol.as_str());
                continue;
            }
            Offer::Unknown => {
                unknown.push(symbol.as_str());
                continue;
            }
        };
        match (export.crc, version) {
            (Some(crc), Some(version)) if crc != version => other_version.push(symbol.as_str()),
            (Some(_), None) => unversioned.push(symbol.as_str()),
            _ => {}
        }
        if symbol == &layout.name {
            continue;
        }
        if export.gpl_only && !info.is_gpl_compatible() {
            // Hidden from this module as if it were not there.
            if !*weak {
                not_for_us.push(symbol.as_str());
            }
            continue;
        }
        uses_gpl_only |= export.gpl_only;
        if export.tainting {
            not_gpl.push(&*export.owner);
        }
        if !may_use(&export.namespace, name, info) {
            not_imported.push((export.namespace.as_str(), symbol.as_str()));
        }
    }
    let mut linked = Linked::default();
    if !nowhere.is_empty() {
        linked.problems.push(format!("it needs what the kernel does not have: {}", listed(&nowhere)));
    }
    if !absent.is_empty() {
        let names: Vec<&str> = absent.iter().map(String::as_str).collect();
        linked
            .problems
            .push(format!("it needs what no module has that would be loaded before it: {}", listed(&names)));
    }
    if !other_version.is_empty() {
        linked
            .problems
            .push(format!("it was built for other versions of what it uses: {}", listed(&other_version)));
    }
    if !not_for_us.is_empty() {
        linked.problems.push(format!(
            "it uses what is for modules under the GPL only, and its licence is '{}': {}",
            info.get("license").unwrap_or("unspecified"),
            listed(&not_for_us)
        ));
    }
    not_gpl.dedup();
    if strictness.taint_is_inherited && uses_gpl_only && !not_gpl.is_empty() {
        linked.problems.push(format!(
            "it uses what is for modules under the GPL only, and a module that is not: {}",
            listed(&not_gpl)
        ));
    }
    not_imported.sort_unstable();
    for group in not_imported.chunk_by(|one, other| one.0 == other.0) {
        let names: Vec<&str> = group.iter().map(|(_, name)| *name).collect();
        let words =
            format!("it does not import the namespace {} of what it uses: {}", group[0].0, listed(&names));
        if strictness.imports_optional { &mut linked.warnings } else { &mut linked.problems }.push(words);
    }
    if !symbols.common.is_empty() {
        let names: Vec<&str> = symbols.common.iter().map(String::as_str).collect();
        linked.problems.push(format!("it was compiled without -fno-common: {}", listed(&names)));
    }
    let mut duplicate: Vec<&str> = symbols
        .exports
        .names()
        .filter(|name| matches!(find(name, None), Offer::Found(export) if *export.owner == *VMLINUX))
        .collect();
    duplicate.sort_unstable();
    if !duplicate.is_empty() {
        linked.problems.push(format!("it exports what the kernel itself exports: {}", listed(&duplicate)));
    }
    // Those that came with the kernel are taken at their word.
    if !unknown.is_empty() && info.get("intree").is_none() {
        linked.untold = Some(format!("could not tell whether the kernel has {}", listed(&unknown)));
    }
    match &symbols.versions {
        None if !unversioned.is_empty() && strictness.versions_needed => {
            linked
                .problems
                .push("it does not say for which versions of the kernel's symbols it was built".to_owned());
        }
        _ if !unversioned.is_empty() => linked
            .warnings
            .push(format!("it does not say for which version it was built of {}", listed(&unversioned))),
        _ => {}
    }
    linked
}

#[cfg(test)]
mod tests {
    use super::super::Exports;
    use super::super::fixture::Made;
    use super::*;
    use rstest::rstest;

    const SYMVERS: &str = "0x00000001\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n\
                           0x00000002\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n\
                           0x00000003\tkobj\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
                           0x00000004\tdma\tvmlinux\tEXPORT_SYMBOL\tDMA_BUF\n\
                           0x00000005\tkvm\tvmlinux\tEXPORT_SYMBOL\tmodule:kvm-*,vfio_pci\n\
                           0x00000006\taway\tfs/away/away\tEXPORT_SYMBOL\t\n\
                           0x00000000\tasm\tvmlinux\tEXPORT_SYMBOL\t\n";
    const STRICT: Strictness =
        Strictness { versions_needed: true, imports_optional: false, taint_is_inherited: true };

    fn made() -> Made {
        Made::new("foo").gpl().version("module_layout", 1)
    }

    fn linked(name: &str, made: &Made, strictness: Strictness, complete: bool) -> Linked {
        let exports = Exports::from_symvers(SYMVERS);
        let other = Made::new("nv").info("license", "NVIDIA").exports("nv_open", 9).build();
        let other = Symbols::read(&other, "nv", &ModInfo::read(&other).unwrap()).unwrap().exports;
        let image = made.build();
        let info = ModInfo::read(&image).unwrap();
        let symbols = Symbols::read(&image, name, &info).unwrap();
        link(name, &symbols, &info, strictness, &|symbol, _| match exports
            .get(symbol)
            .or_else(|| other.get(symbol))
        {
            Some(export) if export.owner.contains('/') => Offer::Absent(export),
            Some(export) => Offer::Found(export),
            None if complete => Offer::Nowhere,
            None => Offer::Unknown,
        })
    }

    #[rstest]
    #[case::needs_nothing(made())]
    #[case::same_version(made().needs("printk").version("printk", 2))]
    #[case::weak(made().may_need("nowhere").may_need("away"))]
    #[case::gpl(made().needs("kobj").version("kobj", 3))]
    #[case::gpl_as_an_option(Made::new("foo").info("license", "NVIDIA").version("module_layout", 1).may_need("kobj").version("kobj", 3))]
    #[case::imported(made().needs("dma").version("dma", 4).info("import_ns", "OTHER").info("import_ns", "DMA_BUF"))]
    #[case::without_version_on_offer(made().needs("asm").version("asm", 77))]
    #[case::proprietary_alone(made().needs("nv_open").version("nv_open", 9))]
    #[case::proprietary(Made::new("foo").info("license", "CDDL").version("module_layout", 1).needs("printk").version("printk", 2))]
    fn a_module_whose_symbols_fit_is_taken(#[case] made: Made) {
        assert_eq!(linked("foo", &made, STRICT, true), Linked::default());
    }

    #[rstest]
    #[case::unknown(made().needs("nowhere"), "what the kernel does not have: nowhere")]
    #[case::of_an_absent_module(made().needs("away"), "would be loaded before it: away of away")]
    #[case::other_version(made().needs("printk").version("printk", 7), "other versions of what it uses: printk")]
    #[case::other_layout(Made::new("foo").version("module_layout", 7), "of what it uses: module_layout")]
    #[case::other_version_of_a_weak_one(made().may_need("printk").version("printk", 7), "uses: printk")]
    #[case::no_versions(Made::new("foo").gpl().needs("printk"), "does not say for which versions")]
    #[case::not_imported(made().needs("dma").version("dma", 4), "import the namespace DMA_BUF of what it uses: dma")]
    #[case::for_another_module(made().needs("kvm").version("kvm", 5), "namespace module:kvm-*,vfio_pci")]
    #[case::licence(
        Made::new("foo").info("license", "NVIDIA").version("module_layout", 1).needs("kobj").version("kobj", 3),
        "its licence is 'NVIDIA': kobj"
    )]
    #[case::no_licence(Made::new("foo").version("module_layout", 1).needs("kobj").version("kobj", 3), "'unspecified': kobj")]
    #[case::inherited_taint(
        made().needs("kobj").version("kobj", 3).needs("nv_open").version("nv_open", 9),
        "and a module that is not: nv"
    )]
    #[case::duplicate(made().exports("printk", 2), "exports what the kernel itself exports: printk")]
    #[case::common(made().common("variable"), "without -fno-common: variable")]
    fn a_module_that_the_kernel_would_refuse_is_told_why(#[case] made: Made, #[case] words: &str) {
        let Linked { problems, warnings, untold } = linked("foo", &made, STRICT, true);
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
        assert_eq!((warnings.len(), untold), (0, None));
    }

    #[rstest]
    #[case::not_told(made().needs("nowhere"), "could not tell whether the kernel has nowhere")]
    #[case::import(made().needs("dma").version("dma", 4), "does not import the namespace DMA_BUF")]
    #[case::no_version(made().needs("printk"), "for which version it was built of printk")]
    #[case::no_versions(Made::new("foo").gpl().needs("printk"), "for which version it was built of printk, module_layout")]
    fn what_the_kernel_may_let_pass_is_a_warning(#[case] made: Made, #[case] words: &str) {
        let lenient =
            Strictness { versions_needed: false, imports_optional: true, taint_is_inherited: false };
        let Linked { problems, mut warnings, untold } = linked("foo", &made, lenient, false);
        assert_eq!(problems, [""; 0]);
        warnings.extend(untold);
        assert!(warnings.len() == 1 && warnings[0].contains(words), "{warnings:?}");
    }

    #[rstest]
    #[case::exactly("vfio-pci")]
    #[case::by_pattern("kvm_intel")]
    fn some_namespaces_name_who_may_use_them(#[case] name: &str) {
        let made = made().needs("kvm").version("kvm", 5);
        assert_eq!(linked(name, &made, STRICT, true), Linked::default());
    }

    #[test]
    fn many_names_are_told_in_part() {
        let made = (1..=9).fold(made(), |made, n| made.needs(&format!("s{n}")));
        let problems = linked("foo", &made, STRICT, true).problems;
        assert!(problems[0].ends_with("s1, s2, s3, s4, s5 and 4 more"), "{problems:?}");
    }

    #[rstest]
    #[case::old("5.4.0-1", "", (false, false, false))]
    #[case::versions("6.1", "CONFIG_MODVERSIONS=y\n", (true, false, true))]
    #[case::force("6.1", "CONFIG_MODVERSIONS=y\nCONFIG_MODULE_FORCE_LOAD=y\n", (false, false, true))]
    #[case::imports("5.10", "CONFIG_MODULE_ALLOW_MISSING_NAMESPACE_IMPORTS=y\n", (false, true, true))]
    fn strictness_is_the_kernels(
        #[case] kernel: &str,
        #[case] config: &str,
        #[case] want: (bool, bool, bool),
    ) {
        let Strictness { versions_needed, imports_optional, taint_is_inherited } =
            Strictness::of(&kernel.parse().unwrap(), &KernelConfig::new(config));
        assert_eq!((versions_needed, imports_optional, taint_is_inherited), want);
    }
}
