// SPDX-License-Identifier: MIT OR Apache-2.0
//! What modprobe was told about modules (modprobe.d(5)), where that keeps one from being loaded.

use std::collections::BTreeMap;

use anyhow::Result;

use super::index::before;
use crate::module_file::canonical;
use crate::sys::files;
use crate::tree::Tree;

/// Where modprobe looks for its configuration; a file hides those of its name further down.
const DIRECTORIES: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

/// The words of all files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What keeps a module from being loaded, with the file that says so.
    hindrances: Vec<(String, String)>,
    softdeps: Vec<(String, String)>,
}

impl Settings {
    /// Reads what is in force here.
    pub fn read(tree: &Tree) -> Result<Self> {
        let mut in_force = BTreeMap::new();
        for directory in DIRECTORIES.iter().rev() {
            for name in files::names(&tree.path(directory))? {
                if name.ends_with(".conf") {
                    in_force.insert(name.clone(), format!("{directory}/{name}"));
                }
            }
        }
        let mut settings = Self::default();
        for path in in_force.values() {
            if let Some(text) = files::read_if_there(&tree.path(path))? {
                settings.add(&text, path);
            }
        }
        Ok(settings)
    }

    /// Adds what a file says; `path` is for people.
    pub fn add(&mut self, text: &str, path: &str) {
        for line in text.replace("\\\n", " ").lines() {
            let mut words = line.split_whitespace();
            let (Some(what), Some(module)) = (words.next(), words.next()) else { continue };
            let first = words.clone().next().unwrap_or_default();
            let does_nothing = matches!(first.rsplit('/').next(), Some("true" | "false" | ":" | "exit"));
            let hinders = match what {
                "blacklist" => true,
                "install" => does_nothing,
                "alias" => first == "off",
                _ => false,
            };
            let module = canonical(module);
            if hinders {
                let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
                self.hindrances.push((module, format!("{path} says: {line}")));
            } else if what == "softdep" {
                self.softdeps.push((module, words.collect::<Vec<_>>().join(" ")));
            }
        }
    }

    /// What keeps a module from being loaded.
    pub fn hindrances(&self, module: &str) -> impl Iterator<Item = &str> {
        let module = canonical(module);
        self.hindrances.iter().filter(move |(name, _)| *name == module).map(|(_, line)| line.as_str())
    }

    /// Modules to be loaded before this one, if they can be.
    pub fn wished_before(&self, module: &str) -> Vec<String> {
        let module = canonical(module);
        let of_module = self.softdeps.iter().filter(|(name, _)| *name == module);
        of_module.flat_map(|(_, wishes)| before(wishes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use rstest::rstest;

    #[rstest]
    #[case::blacklist("blacklist snd-foo", &["f says: blacklist snd-foo"])]
    #[case::never("install snd_foo /bin/false", &["f says: install snd_foo /bin/false"])]
    #[case::in_two_lines("install snd-foo \\\n  /usr/bin/true", &["f says: install snd-foo /usr/bin/true"])]
    #[case::off("alias snd-foo off", &["f says: alias snd-foo off"])]
    #[case::another("blacklist snd-bar", &[])]
    #[case::remark("# blacklist snd-foo", &[])]
    #[case::by_a_program("install snd-foo /sbin/modprobe --ignore-install snd-foo", &[])]
    #[case::option("options snd-foo false=1", &[])]
    fn what_keeps_a_module_out_is_known(#[case] text: &str, #[case] want: &[&str]) {
        let mut settings = Settings::default();
        settings.add(text, "f");
        assert_eq!(settings.hindrances("snd_foo").collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_file_hides_those_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        for (path, text) in [
            ("/usr/lib/modprobe.d/foo.conf", "blacklist foo"),
            ("/etc/modprobe.d/foo.conf", "softdep foo pre: one two post: three"),
            ("/etc/modprobe.d/foo.conf.bak", "blacklist foo"),
            ("/lib/modprobe.d/bar.conf", "blacklist bar"),
        ] {
            fs::create_dir_all(tree.path(path).parent().unwrap()).unwrap();
            fs::write(tree.path(path), text).unwrap();
        }
        let settings = Settings::read(&tree).unwrap();
        assert_eq!(settings.hindrances("foo").count(), 0);
        assert_eq!(settings.hindrances("bar").count(), 1);
        assert_eq!(settings.wished_before("foo"), ["one", "two"]);
    }
}
