// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of several files of one module depmod takes (depmod.d(5)). Says so; moves nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::conf::ere;
use crate::kernel::KernelRelease;
use crate::module_file::canonical;
use crate::sys::files;
use crate::tree::Tree;

/// Where depmod's configuration is; a file hides those of the same name further down.
const PLACES: [&str; 5] =
    ["/etc/depmod.d", "/run/depmod.d", "/usr/local/lib/depmod.d", "/usr/lib/depmod.d", "/lib/depmod.d"];

/// The order among the directories of a kernel, for one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Precedence {
    /// Directories, the first one before the others; `built-in` is every directory not named.
    searches: Vec<PathBuf>,
    /// Modules by their canonical names, and the directory that goes before all others; the last
    /// one goes before earlier ones.
    overrides: Vec<(String, PathBuf)>,
}

impl Precedence {
    /// Reads depmod's configuration.
    pub fn read(tree: &Tree, kernel: &KernelRelease) -> Result<Self> {
        let mut named = BTreeMap::new();
        for place in PLACES {
            let directory = tree.path(place);
            for name in files::names(&directory)?.into_iter().filter(|name| name.ends_with(".conf")) {
                named.entry(name.clone()).or_insert_with(|| directory.join(name));
            }
        }
        let mut text = String::new();
        for path in named.values() {
            text += &files::read_regular_if_there(path)?.unwrap_or_default();
            text.push('\n');
        }
        Ok(Self::parse(&text, kernel))
    }

    fn parse(text: &str, kernel: &KernelRelease) -> Self {
        let mut precedence = Self::default();
        for line in text.replace("\\\n", " ").lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("search") => precedence.searches.extend(words.map(PathBuf::from)),
                Some("override") => {
                    if let (Some(module), Some(pattern), Some(directory)) =
                        (words.next(), words.next(), words.next())
                        && (pattern == "*" || ere::matches(pattern, kernel.as_str()))
                    {
                        precedence.overrides.push((canonical(module), PathBuf::from(directory)));
                    }
                }
                _ => {}
            }
        }
        if precedence.searches.is_empty() {
            precedence.searches = ["updates", "built-in"].map(PathBuf::from).to_vec();
        }
        precedence
    }

    /// The directory of the kernel that depmod is told to take a module from, whatever else there
    /// is: the last of several in which `is_there` finds it.
    pub fn overridden(&self, module: &str, is_there: impl Fn(&Path) -> bool) -> Option<&Path> {
        let module = canonical(module);
        let directories = self.overrides.iter().rev().filter(|(name, _)| *name == module);
        directories.map(|(_, directory)| directory.as_path()).find(|directory| is_there(directory))
    }

    /// Whether depmod surely takes a module from one directory rather than from another; both are
    /// relative to the kernel's. Between directories of one rank it takes what it comes to first.
    pub fn prefers(&self, module: &str, directory: &Path, other: &Path) -> bool {
        if let Some(first) = self.overridden(module, |place| place == directory || place == other) {
            return first == directory && first != other;
        }
        self.rank(directory) < self.rank(other)
    }

    /// The lower, the earlier.
    fn rank(&self, directory: &Path) -> usize {
        let position = |wanted: &dyn Fn(&PathBuf) -> bool| self.searches.iter().position(wanted);
        position(&|search| directory.starts_with(search))
            .or_else(|| position(&|search| search == Path::new("built-in")))
            .unwrap_or(self.searches.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const RED_HAT: &str = "# comment\nsearch updates extra built-in weak-updates\n";

    // Each compared with what kmod 30's depmod does.
    #[rstest]
    #[case::updates_first("", "updates", "kernel/net", true)]
    #[case::below_updates("", "updates/dkms", "kernel/net", true)]
    #[case::both_in_updates("", "updates/dkms", "updates", false)]
    #[case::extra_is_nothing_special("", "extra", "kernel", false)]
    #[case::whole_names("", "updatesX", "kernel", false)]
    #[case::extra_on_red_hat(RED_HAT, "extra", "kernel", true)]
    #[case::weak_updates_last(RED_HAT, "kernel", "weak-updates", true)]
    #[case::not_named_is_built_in(RED_HAT, "other", "weak-updates", true)]
    #[case::lines_add_up("search updates\nsearch extra built-in\n", "extra", "updates", false)]
    #[case::the_first_that_fits("search extra updates/dkms updates\n", "updates/dkms", "updates", true)]
    #[case::override_first("override foo * extra\n", "extra", "updates", true)]
    #[case::override_second("override foo * extra\n", "updates", "extra", false)]
    #[case::override_of_another("override bar * extra\n", "updates", "extra", true)]
    #[case::override_of_that_directory_alone("override foo * extra\n", "extra/sub", "updates", false)]
    #[case::override_for_a_kernel("override foo ^6 extra\n", "extra", "updates", true)]
    #[case::override_for_another_kernel("override foo ^5 extra\n", "extra", "updates", false)]
    #[case::the_last_override("override foo * extra\noverride foo * kernel\n", "kernel", "extra", true)]
    #[case::continued("override \\\nfoo * \\\n extra\n", "extra", "updates", true)]
    fn depmod_takes_one(#[case] text: &str, #[case] one: &str, #[case] other: &str, #[case] want: bool) {
        let precedence = Precedence::parse(text, &"6.1".parse().unwrap());
        assert_eq!(precedence.prefers("foo", Path::new(one), Path::new(other)), want);
    }

    #[test]
    fn a_file_hides_those_of_its_name_further_down() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        for (place, text) in [("/etc", "override foo-x * extra\n"), ("/usr/lib", "search extra\n")] {
            let directory = tree.path(format!("{place}/depmod.d"));
            fs_err::create_dir_all(&directory).unwrap();
            fs_err::write(directory.join("a.conf"), text).unwrap();
        }
        let precedence = Precedence::read(&tree, &"6.1".parse().unwrap()).unwrap();
        assert_eq!(precedence, Precedence::parse("override foo_x * extra", &"6.1".parse().unwrap()));
    }
}
