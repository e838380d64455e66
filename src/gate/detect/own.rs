// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel brings by itself, built in or as files of its own, and what its modules say that
//! they are for: modules.order, modules.builtin, modules.alias, modules.dep (depmod(8),
//! modules.dep(5); Documentation/kbuild/kbuild.rst).

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::Need;
use crate::gate::proof::index::{Found, Index, name_of};
use crate::module_file::{self, ModInfo, canonical, stem};
use crate::sys::files;
use crate::tree::kernels::find_module;

/// The modules that came with a kernel. Whatever is below `updates`, `extra` or `weak-updates` was
/// put there by somebody else.
pub(super) struct Own {
    kernel_dir: PathBuf,
    /// A kernel whose index may be asked where this one has none yet.
    fallback: Option<PathBuf>,
    /// Where files are kept that stood where ours are now.
    originals: Vec<PathBuf>,
    builtin: HashSet<String>,
    /// Where each module's file was installed, by its name; it may be compressed, or have gone.
    files: HashMap<String, PathBuf>,
    index: OnceCell<Aliases>,
}

impl Own {
    pub fn read(kernel_dir: &Path, fallback: Option<&Path>, originals: Vec<PathBuf>) -> Self {
        let text = |name: &str| text(&kernel_dir.join(name));
        let named = |path: &Path| Some((name_of(path)?, kernel_dir.join(path)));
        let list = text("modules.order");
        let list = list.lines().filter(|path| path.starts_with("kernel/"));
        let mut files: HashMap<_, _> = list.map(Path::new).filter_map(named).collect();
        if files.is_empty() {
            let found = files::files_below(&kernel_dir.join("kernel"));
            files = found.iter().filter_map(|path| named(path)).collect();
        }
        Self {
            builtin: text("modules.builtin").lines().filter_map(|path| name_of(Path::new(path))).collect(),
            files,
            originals,
            fallback: fallback.filter(|fallback| *fallback != kernel_dir).map(Path::to_owned),
            kernel_dir: kernel_dir.to_owned(),
            index: OnceCell::new(),
        }
    }

    /// What the kernel has for a need, for people; nothing if it needs somebody else's module.
    pub fn offer(&self, need: &Need) -> Option<String> {
        let named = need.names.iter().find_map(|name| self.module(name, need));
        named.map(|how| format!("the kernel {how}")).or_else(|| {
            let index = || Aliases::of_kernel(&self.kernel_dir, self.fallback.as_deref());
            let owners = self.index.get_or_init(index).owners(&need.aliases, &|_| true);
            let mut owners = owners.iter().filter_map(|(_, name)| Some((name, self.module(name, need)?)));
            owners.next().map(|(name, how)| format!("for {name} the kernel {how}"))
        })
    }

    /// How the kernel has a module of its own that will do.
    fn module(&self, name: &str, need: &Need) -> Option<String> {
        if self.builtin.contains(name) {
            return Some("has it built in".to_owned());
        }
        let listed = self.files.get(name)?;
        let name = stem(listed.file_name()?.to_str()?)?;
        let mut files = listed.parent().into_iter().chain(self.originals.iter().map(PathBuf::as_path));
        let path =
            files.find_map(|directory| find_module(directory, name).filter(|path| will_do(path, need)))?;
        let shown = path.strip_prefix(&self.kernel_dir).unwrap_or(&path);
        Some(format!("has its own {}", shown.display()))
    }
}

/// Whether a module was built with the kernel, which only such modules say of themselves, and is for
/// the device in question: an older driver may not know it. One that names no device of that bus
/// finds its devices in another way, and one that cannot be read gets the benefit of the doubt.
fn will_do(path: &Path, need: &Need) -> bool {
    let read = || {
        let bytes = fs_err::read(path).ok()?;
        ModInfo::read(&module_file::unpacked(&bytes).ok()?).ok()
    };
    let Some(info) = read() else { return true };
    let mut devices =
        need.aliases.iter().filter_map(|alias| Some((alias, alias.split_once(':')?.0))).peekable();
    let knows = |(alias, bus): (&String, &str)| {
        let is_of_bus = |pattern: &&str| pattern.split_once(':').is_some_and(|(its, _)| its == bus);
        let mut patterns = info.all("alias").filter(is_of_bus).peekable();
        patterns.peek().is_none() || patterns.any(|pattern| matches(pattern, alias))
    };
    info.get("intree").is_some() && (devices.peek().is_none() || devices.any(knows))
}

/// What modules are for, as a kernel's indexes have it.
pub(super) struct Aliases {
    /// Lines of `alias PATTERN MODULE`.
    modules: String,
    /// `MODULE.alias=PATTERN`, each ended by a NUL.
    builtin: String,
}

impl Aliases {
    /// What is built in is never taken from the fallback.
    pub fn of_kernel(kernel_dir: &Path, fallback: Option<&Path>) -> Self {
        let mut modules = text(&kernel_dir.join("modules.alias"));
        if modules.is_empty() {
            modules = fallback.map(|fallback| text(&fallback.join("modules.alias"))).unwrap_or_default();
        }
        Self { modules, builtin: text(&kernel_dir.join("modules.builtin.modinfo")) }
    }

    /// The modules among those asked for, by names with underscores, that are for one of these devices or whatever else has an
    /// alias, each with the number of the alias.
    pub fn owners(&self, aliases: &[String], asked: &dyn Fn(&str) -> bool) -> Vec<(usize, String)> {
        let modules = self.modules.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '));
        let builtin = self.builtin.split('\0').filter_map(|entry| {
            let (key, pattern) = entry.split_once('=')?;
            Some((pattern, key.strip_suffix(".alias")?))
        });
        let mut found = Vec::new();
        for (pattern, module) in modules.chain(builtin).filter(|(_, module)| asked(module)) {
            for (at, alias) in aliases.iter().enumerate() {
                if matches(pattern, alias) {
                    found.push((at, module.to_owned()));
                }
            }
        }
        found
    }
}

/// The modules that these need to be loaded before them, as a kernel's index has it.
pub(super) fn dependencies(kernel_dir: &Path, modules: &HashSet<String>) -> Vec<String> {
    let Ok(index) = Index::read(kernel_dir) else { return Vec::new() };
    let entries = modules.iter().flat_map(|module| match index.find(module) {
        Found::Files(entries) => entries,
        Found::Builtin | Found::Nowhere => Vec::new(),
    });
    entries.flat_map(|entry| &entry.needs).filter_map(|path| name_of(path)).collect()
}

/// Whether a pattern of modprobe's (fnmatch(3)) fits; dashes and underscores are the same to it
/// outside of brackets.
fn matches(pattern: &str, alias: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || matches!((a, b), (b'-', b'_') | (b'_', b'-'));
    let literal = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    // Nearly all of the twenty thousand end here.
    if alias.len() < literal || !pattern.bytes().take(literal).zip(alias.bytes()).all(same) {
        return false;
    }
    let mut in_brackets = false;
    let mut normal = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        in_brackets = matches!((c, in_brackets), ('[', _)) || (in_brackets && c != ']');
        match c {
            '-' if !in_brackets => normal.push('_'),
            // Two stars say no more than one, and are something else to the crate.
            '*' if normal.ends_with('*') => {}
            c => normal.push(c),
        }
    }
    glob::Pattern::new(&normal).is_ok_and(|pattern| pattern.matches(&canonical(alias)))
}

fn text(path: &Path) -> String {
    files::read_if_there(path).ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::device(
        "pci:v00008086d00001563sv*sd*bc*sc*i*",
        "pci:v00008086d00001563sv00008086sd00000001bc02sc00i00",
        true
    )]
    #[case::class(
        "pci:v*d*sv*sd*bc01sc08i02*",
        "pci:v0000144Dd0000A80Asv0000144Dsd0000A801bc01sc08i02",
        true
    )]
    #[case::other_class(
        "pci:v*d*sv*sd*bc01sc06i01*",
        "pci:v0000144Dd0000A80Asv0000144Dsd0000A801bc01sc08i02",
        false
    )]
    #[case::brackets("usb:v07B4p010Ad010[0-2]dc*", "usb:v07B4p010Ad0101dc08", true)]
    #[case::not_in_brackets("usb:v07B4p010Ad010[0-2]dc*", "usb:v07B4p010Ad0103dc08", false)]
    #[case::dash("of:N*T*Cfsl,imx6q-usdhcC*", "of:NmmcT(null)Cfsl,imx6q_usdhcCx", true)]
    #[case::two_stars("acpi*:PNP0C**:*", "acpi:PNP0C09:", true)]
    #[case::word("fs-zfs", "fs-zfs", true)]
    #[case::longer_word("fs-zfs", "fs-zfs2", false)]
    fn patterns_are_modprobes(#[case] pattern: &str, #[case] alias: &str, #[case] want: bool) {
        assert_eq!(matches(pattern, alias), want);
    }
}
