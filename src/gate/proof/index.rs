// SPDX-License-Identifier: MIT OR Apache-2.0
//! What modprobe would load for a name: a kernel's indexes as depmod wrote them, which is also where
//! all that depmod's own configuration says has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;

use crate::module_file::{canonical, stem};
use crate::sys::files;

/// One module file with what has to be loaded before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    /// All of it, in no order that matters here.
    pub needs: Vec<PathBuf>,
}

/// What a name comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    Builtin,
    /// Several files where the name is an alias.
    Files(Vec<&'a Entry>),
    Nowhere,
}

/// A kernel's indexes: modules.dep (modules.dep(5)), modules.alias, modules.builtin, modules.softdep.
#[derive(Debug)]
pub struct Index {
    modules: BTreeMap<String, Entry>,
    /// Names as modules.dep has them, which is the order of the directories.
    order: Vec<String>,
    builtin: BTreeSet<String>,
    aliases: String,
    builtin_info: Vec<u8>,
    softdeps: String,
}

impl Index {
    /// Reads what is there below `<install tree>/K`.
    pub fn read(kernel_dir: &Path) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let text = files::read_if_there(&kernel_dir.join(name));
            Ok(text.with_context(|| format!("reading {name}"))?.unwrap_or_default())
        };
        let mut modules = BTreeMap::new();
        let mut order = Vec::new();
        for (path, needs) in text("modules.dep")?.lines().filter_map(|line| line.split_once(':')) {
            let Some(name) = name_of(Path::new(path)) else { continue };
            let needs = needs.split_whitespace().map(|path| kernel_dir.join(path)).collect();
            order.push(name.clone());
            modules.insert(name, Entry { path: kernel_dir.join(path), needs });
        }
        let builtin = text("modules.builtin")?.lines().filter_map(|path| name_of(Path::new(path))).collect();
        Ok(Self {
            modules,
            order,
            builtin,
            aliases: text("modules.alias")?,
            builtin_info: fs::read(kernel_dir.join("modules.builtin.modinfo")).unwrap_or_default(),
            softdeps: text("modules.softdep")?,
        })
    }

    /// Looks a module or an alias up in the order of kmod_module_new_from_lookup(). Patterns, which
    /// are for devices, are passed over.
    pub fn find(&self, name: &str) -> Found<'_> {
        let name = canonical(name);
        if let Some(entry) = self.modules.get(&name).filter(|entry| entry.path.is_file()) {
            return Found::Files(vec![entry]);
        }
        let aliased: Vec<&Entry> = self
            .aliases
            .lines()
            .filter_map(|line| line.strip_prefix("alias ")?.split_once(' '))
            .filter(|(alias, _)| canonical(alias) == name)
            .filter_map(|(_, module)| self.modules.get(&canonical(module)))
            .filter(|entry| entry.path.is_file())
            .collect();
        if !aliased.is_empty() {
            return Found::Files(aliased);
        }
        if self.builtin.contains(&name) || self.is_builtin_alias(&name) {
            return Found::Builtin;
        }
        Found::Nowhere
    }

    /// modules.builtin.modinfo (since 5.2) is a sequence of `MODULE.key=value`, each ended by a NUL.
    fn is_builtin_alias(&self, name: &str) -> bool {
        let fields = self.builtin_info.split(|byte| *byte == 0);
        let mut aliases = fields.filter_map(|field| std::str::from_utf8(field).ok()?.split_once(".alias="));
        aliases.any(|(_, alias)| canonical(alias) == name)
    }

    /// The entry of a file.
    pub fn entry(&self, path: &Path) -> Option<&Entry> {
        self.modules.get(&name_of(path)?).filter(|entry| entry.path == path)
    }

    /// The files below `kernel/`, where a kernel's own are.
    pub fn own(&self, kernel_dir: &Path) -> impl Iterator<Item = &Path> {
        let kernel = kernel_dir.join("kernel");
        let entries = self.order.iter().filter_map(|name| self.modules.get(name));
        entries.map(|entry| entry.path.as_path()).filter(move |path| path.starts_with(&kernel))
    }

    /// Modules that should be loaded before this one, by its own word; if they cannot be, nothing
    /// comes of it.
    pub fn wished_before(&self, module: &str) -> Vec<String> {
        let lines = self.softdeps.lines().filter_map(|line| line.strip_prefix("softdep ")?.split_once(' '));
        let of_module = lines.filter(|(name, _)| canonical(name) == canonical(module));
        of_module.flat_map(|(_, wishes)| before(wishes)).collect()
    }
}

/// The names between `pre:` and `post:`.
pub(super) fn before(wishes: &str) -> Vec<String> {
    let mut wanted = false;
    let mut names = Vec::new();
    for word in wishes.split_whitespace() {
        match word {
            "pre:" => wanted = true,
            "post:" => wanted = false,
            name if wanted => names.push(name.to_owned()),
            _ => {}
        }
    }
    names
}

/// The name by which modprobe knows the module in a file.
pub fn name_of(path: &Path) -> Option<String> {
    stem(path.file_name()?.to_str()?).map(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn index() -> (tempfile::TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for file in ["updates/dkms/zfs.ko", "kernel/net/snd-foo.ko.xz", "updates/spl.ko"] {
            write(file, "");
        }
        write(
            "modules.dep",
            "updates/dkms/zfs.ko: updates/spl.ko\nkernel/net/snd-foo.ko.xz:\nupdates/spl.ko:\nkernel/gone.ko:\n",
        );
        write(
            "modules.alias",
            "# Aliases\nalias fs-zfs zfs\nalias both zfs\nalias both snd_foo\nalias pci:v*d* zfs\nalias lost gone\n",
        );
        write("modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        write("modules.builtin.modinfo", "ext4.license=GPL\0ext4.alias=fs-ext4\0");
        write("modules.softdep", "# Soft\nsoftdep zfs pre: one two post: three\n");
        let index = Index::read(dir.path()).unwrap();
        (dir, index)
    }

    #[rstest]
    #[case::module("zfs", "updates/dkms/zfs.ko")]
    #[case::either_dash("snd_foo", "kernel/net/snd-foo.ko.xz")]
    #[case::alias("fs-zfs", "updates/dkms/zfs.ko")]
    #[case::alias_of_two("both", "updates/dkms/zfs.ko kernel/net/snd-foo.ko.xz")]
    #[case::builtin("ext4", "builtin")]
    #[case::alias_of_builtin("fs_ext4", "builtin")]
    #[case::file_gone("gone", "nowhere")]
    #[case::alias_of_what_is_gone("lost", "nowhere")]
    #[case::unheard_of("nothing", "nowhere")]
    fn a_name_is_looked_up_as_modprobe_does(#[case] name: &str, #[case] want: &str) {
        let (dir, index) = index();
        let found = match index.find(name) {
            Found::Builtin => "builtin".to_owned(),
            Found::Nowhere => "nowhere".to_owned(),
            Found::Files(entries) => {
                let path =
                    |entry: &&Entry| entry.path.strip_prefix(dir.path()).unwrap().display().to_string();
                entries.iter().map(path).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(found, want);
    }

    #[test]
    fn what_comes_first_is_known() {
        let (dir, index) = index();
        let zfs = index.entry(&dir.path().join("updates/dkms/zfs.ko")).unwrap();
        assert_eq!(zfs.needs, [dir.path().join("updates/spl.ko")]);
        assert_eq!(index.entry(&dir.path().join("extra/zfs.ko")), None);
        assert_eq!(index.wished_before("zfs"), ["one", "two"]);
        let own: Vec<_> = index.own(dir.path()).collect();
        assert_eq!(own, [dir.path().join("kernel/net/snd-foo.ko.xz"), dir.path().join("kernel/gone.ko")]);
    }
}
