// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the kernel that modules were built for has every symbol that they need. modpost sees to
//! that, unless it was told to warn only, or somebody changed a module afterwards.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Result;
use fs_err as fs;

use super::bare::Bare;
use crate::kernel::{KernelConfig, KernelRelease};
use crate::module::Target;
use crate::module_file::{
    Export, Exports, ModInfo, Offer, Strictness, Symbols, VMLINUX, canonical, link, stem, unpacked,
};
use crate::sys::files;
use crate::tree::Tree;
use crate::tree::kernels::BuildDir;

/// The symbols that one kernel offers, read when they are first asked for.
#[derive(Debug)]
pub struct KernelSymbols {
    list: PathBuf,
    exports: OnceLock<Option<Exports>>,
    /// In the place of the list, where there are no headers.
    bare: Option<Bare>,
}

impl KernelSymbols {
    /// Those of the kernel that is built for.
    pub fn of(build_dir: &BuildDir) -> Self {
        Self { list: build_dir.path.join("Module.symvers"), exports: OnceLock::new(), bare: None }
    }

    /// Those of a kernel whose headers are not there, as far as it tells.
    pub fn without_headers(tree: &Tree, kernel: &KernelRelease) -> Self {
        let bare = Some(Bare::read(tree, kernel));
        Self { list: PathBuf::new(), exports: OnceLock::new(), bare }
    }

    /// The vermagic that the kernel's own modules carry, where nothing else tells it.
    pub(super) fn vermagic(&self) -> Option<&str> {
        self.bare.as_ref()?.vermagic.as_deref()
    }

    /// Whether what is not among them is nowhere in the kernel.
    fn are_all(&self) -> bool {
        self.bare.as_ref().is_none_or(|bare| bare.is_whole)
    }

    /// Nothing without a list of them.
    fn exports(&self) -> Option<&Exports> {
        if let Some(bare) = &self.bare {
            return Some(&bare.exports).filter(|exports| !exports.is_empty());
        }
        let read = || {
            let text = files::read_if_there(&self.list).ok().flatten()?;
            Some(Exports::from_symvers(&text)).filter(|exports| !exports.is_empty())
        };
        self.exports.get_or_init(read).as_ref()
    }
}

/// A module that was built.
#[derive(Debug)]
pub(super) struct Built {
    name: String,
    info: ModInfo,
    symbols: Symbols,
}

impl Built {
    /// Reads it from its image.
    pub fn read(name: &str, info: ModInfo, image: &[u8]) -> Result<Self> {
        let name = canonical(info.get("name").unwrap_or(name));
        Ok(Self { symbols: Symbols::read(image, &name, &info)?, info, name })
    }
}

/// Where the symbols of the modules of one build may come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources<'a> {
    pub tree: &'a Tree,
    pub target: &'a Target,
    pub config: &'a KernelConfig,
    pub kernel: &'a KernelSymbols,
    /// Everything that was built together.
    pub siblings: &'a [Built],
}

/// Why the kernel would refuse a module for its symbols; empty if it would not, or if that could
/// not be told.
pub(super) fn problems(built: &Built, sources: Sources<'_>) -> Vec<String> {
    let Some(kernel) = sources.kernel.exports() else { return Vec::new() };
    let problems = resolve(built, sources, kernel, &Others::default());
    if problems.is_empty() {
        return problems;
    }
    // Seldom does anything come to this point: only now the disk is searched for other modules.
    resolve(built, sources, kernel, &Others::find(sources.tree, sources.target))
}

fn resolve(built: &Built, sources: Sources<'_>, kernel: &Exports, others: &Others) -> Vec<String> {
    let find = |symbol: &str, version: Option<u32>| {
        let of_kernel = kernel.get(symbol);
        if let Some(export) = of_kernel.filter(|export| *export.owner == *VMLINUX) {
            return Offer::Found(export);
        }
        let siblings = sources.siblings.iter().filter(|sibling| sibling.name != built.name);
        let candidates = siblings
            .map(|sibling| &sibling.symbols.exports)
            .chain(&others.built)
            .filter_map(|exports| exports.get(symbol))
            .chain(of_kernel);
        // Which of several modules will be loaded is for depmod to say.
        let fits = |export: &&Export| export.crc.is_none() || version.is_none() || export.crc == version;
        let candidates: Vec<_> = candidates.collect();
        match candidates.iter().copied().find(fits).or(candidates.first().copied()) {
            Some(export) => Offer::Found(export),
            None if !sources.kernel.are_all() => Offer::Unknown,
            None if others.elsewhere.iter().any(|exports| exports.get(symbol).is_some()) => Offer::Unknown,
            None => Offer::Nowhere,
        }
    };
    let strictness = Strictness::of(&sources.target.kernel, sources.config);
    link(&built.name, &built.symbols, &built.info, strictness, &find).problems
}

/// What modules offer that are not the kernel's own.
#[derive(Debug, Default)]
struct Others {
    /// Of those that are there for this kernel.
    built: Vec<Exports>,
    /// Of registered ones for other kernels: they may come for this one, too.
    elsewhere: Vec<Exports>,
}

impl Others {
    fn find(tree: &Tree, target: &Target) -> Self {
        let mut others = Self::default();
        let kernel_dir = tree.kernel_dir(&target.kernel);
        for name in files::names(&kernel_dir).unwrap_or_default() {
            if !matches!(name.as_str(), "kernel" | "build" | "source") {
                let found = files::files_below(&kernel_dir.join(name));
                others.built.extend(found.into_iter().filter_map(exports_of));
            }
        }
        for id in tree.ids().unwrap_or_default() {
            for of in tree.targets(&id) {
                let list = tree.built_dir(&id, &of).join("Module.symvers");
                let Ok(Some(text)) = files::read_if_there(&list) else { continue };
                let there = if of == *target { &mut others.built } else { &mut others.elsewhere };
                there.push(Exports::from_symvers(&text));
            }
        }
        others
    }
}

/// Nothing for what is no module.
fn exports_of(path: PathBuf) -> Option<Exports> {
    let name = stem(path.file_name()?.to_str()?)?;
    let bytes = fs::read(&path).ok()?;
    let image = unpacked(&bytes).ok()?;
    let info = ModInfo::read(&image).ok()?;
    Some(Symbols::read(&image, &canonical(name), &info).ok()?.exports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::{Arch, ModuleId};
    use crate::module_file::fixture::Made;
    use rstest::rstest;

    /// A root with the list of a kernel's symbols.
    struct Machine {
        _dir: tempfile::TempDir,
        tree: Tree,
        target: Target,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree::at(dir.path());
            let target = Target { kernel: "6.1-1".parse().unwrap(), arch: Arch::new("x86_64").unwrap() };
            let machine = Self { _dir: dir, tree, target };
            machine.write(
                "/lib/modules/6.1-1/build/Module.symvers",
                b"0x00000002\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n0x00000003\tcfg\tnet/cfg/cfg\tEXPORT_SYMBOL\t\n",
            );
            machine
        }

        fn write(&self, path: &str, content: &[u8]) {
            let path = self.tree.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        /// What a build for a kernel kept.
        fn kept(&self, kernel: &str, symvers: &str) {
            let id = ModuleId::new("other", "1.0").unwrap();
            let target = Target { kernel: kernel.parse().unwrap(), ..self.target.clone() };
            let path = self.tree.built_dir(&id, &target).join("Module.symvers");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, symvers).unwrap();
        }

        fn problems(&self, made: &Made, siblings: &[Made]) -> Vec<String> {
            let build_dir = BuildDir {
                path: self.tree.path("/lib/modules/6.1-1/build"),
                config: KernelConfig::default(),
                clang: false,
            };
            let read = |made: &Made| {
                let image = made.build();
                Built::read("", ModInfo::read(&image).unwrap(), &image).unwrap()
            };
            let siblings: Vec<Built> = siblings.iter().chain([made]).map(read).collect();
            let sources = Sources {
                tree: &self.tree,
                target: &self.target,
                config: &build_dir.config,
                kernel: &KernelSymbols::of(&build_dir),
                siblings: &siblings,
            };
            problems(&read(made), sources)
        }
    }

    fn foo() -> Made {
        Made::new("foo").gpl().version("printk", 2)
    }

    #[rstest]
    #[case::of_the_kernel(foo().needs("printk"), None)]
    #[case::of_a_module_of_the_kernels(foo().needs("cfg").version("cfg", 3), None)]
    #[case::of_a_sibling(foo().needs("bar_do").version("bar_do", 7), None)]
    #[case::of_a_sibling_that_replaces_the_kernels(foo().needs("cfg").version("cfg", 8), None)]
    #[case::of_nobody(foo().needs("nowhere"), Some("does not have: nowhere"))]
    #[case::another_version(foo().needs("printk").version("printk", 9), Some("uses: printk"))]
    #[case::another_version_of_a_siblings(foo().needs("bar_do").version("bar_do", 6), Some("uses: bar_do"))]
    fn a_module_needs_what_is_there(#[case] made: Made, #[case] want: Option<&str>) {
        let bar = Made::new("bar").gpl().exports("bar_do", 7).exports("cfg", 8);
        let problems = Machine::new().problems(&made, &[bar]);
        assert_eq!(problems.len(), usize::from(want.is_some()), "{problems:?}");
        assert!(problems.iter().all(|problem| problem.ends_with(want.unwrap_or_default())), "{problems:?}");
    }

    #[test]
    fn without_a_list_nothing_is_told() {
        let machine = Machine::new();
        machine.write("/lib/modules/6.1-1/build/Module.symvers", b"");
        assert_eq!(machine.problems(&foo().needs("nowhere"), &[]), [""; 0]);
    }

    #[rstest]
    #[case::installed(|machine: &Machine| machine.write(
        "/lib/modules/6.1-1/extra/other.ko.gz",
        &crate::module_file::Compression::Gzip
            .compress(Made::new("other").exports("other_do", 5).build(), &crate::conf::compressors::Compressors::default()).unwrap(),
    ), true)]
    #[case::built(|machine: &Machine| machine.kept("6.1-1", "0x00000005\tother_do\t/x/other\tEXPORT_SYMBOL\t\n"), true)]
    #[case::built_with_another_version(
        |machine: &Machine| machine.kept("6.1-1", "0x00000006\tother_do\t/x/other\tEXPORT_SYMBOL\t\n"), false
    )]
    #[case::still_to_be_built(
        |machine: &Machine| machine.kept("6.1-2", "0x00000006\tother_do\t/x/other\tEXPORT_SYMBOL\t\n"), true
    )]
    #[case::the_kernels_own_are_in_the_list(|machine: &Machine| machine.write(
        "/lib/modules/6.1-1/kernel/other.ko", &Made::new("other").exports("other_do", 5).build()
    ), false)]
    #[case::no_module(|machine: &Machine| machine.write("/lib/modules/6.1-1/extra/other.ko", b"rubbish"), false)]
    fn other_modules_may_have_it(#[case] prepare: fn(&Machine), #[case] fits: bool) {
        let machine = Machine::new();
        prepare(&machine);
        let problems = machine.problems(&foo().needs("other_do").version("other_do", 5), &[]);
        assert_eq!(problems.is_empty(), fits, "{problems:?}");
    }
}
