// SPDX-License-Identifier: MIT OR Apache-2.0
//! What GRUB finds when it boots besides grub.cfg: its environment block, the files beside
//! grub.cfg, and whether kernel images are there. Reads nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use super::expand::BESIDE;

/// The first line of every environment block.
const HEADER: &str = "# GRUB Environment Block\n";

/// GRUB's saved variables (`grubenv`) and, where the caller supplies them, the files that grub.cfg
/// looks at. Files beside grub.cfg that were not supplied count as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrubEnv {
    variables: BTreeMap<String, String>,
    beside: BTreeMap<String, String>,
    missing: BTreeSet<String>,
    listed: BTreeSet<String>,
}

impl GrubEnv {
    /// Reads an environment block (GRUB manual, "GRUB environment block": 1024 bytes, the header
    /// line, `name=value` lines with `\` before a backslash or newline of the value, then `#`s).
    /// A block that GRUB would refuse holds nothing.
    pub fn parse(block: &[u8]) -> Self {
        let text = String::from_utf8_lossy(block);
        let mut variables = BTreeMap::new();
        let mut chars = text.strip_prefix(HEADER).unwrap_or_default().chars();
        let mut line = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\\' => line.extend(chars.next()),
                '\n' => {
                    if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                        variables.insert(name.to_owned(), value.to_owned());
                    }
                    line.clear();
                }
                _ => line.push(c),
            }
        }
        Self { variables, ..Self::default() }
    }

    /// With a variable set, as `grub-editenv set` does.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a file beside grub.cfg (`custom.cfg`, by its name) and what it says.
    #[must_use]
    pub fn with_file(mut self, name: &str, text: &str) -> Self {
        self.beside.insert(name.to_owned(), text.to_owned());
        self
    }

    /// With a kernel image, by its path as grub.cfg writes it, known to be missing. Images that the
    /// menu names count as there otherwise.
    #[must_use]
    pub fn with_missing(mut self, image: &str) -> Self {
        self.missing.insert(image.to_owned());
        self
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// What remains after one boot: the one-shot choices of `grub-reboot` (and Ubuntu's second try
    /// after a failed boot without initramfs) set aside.
    #[must_use]
    pub fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        for name in ["next_entry", "prev_entry", "initrdfail"] {
            lasting.variables.remove(name);
        }
        // grub-reboot before 2.00, and the header's own way to come back from it.
        if let Some(saved) = lasting.variables.remove("prev_saved_entry").filter(|saved| !saved.is_empty()) {
            lasting.variables.insert("saved_entry".to_owned(), saved);
        }
        lasting
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Learns that the menu names an image: then it is there, unless it is known to be missing.
    pub(super) fn list(&mut self, image: &str) {
        self.listed.insert(image.to_owned());
    }

    pub(super) fn is_missing(&self, image: &str) -> bool {
        self.missing.contains(image)
    }

    /// The text of a file beside grub.cfg.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.beside.get(name_beside(path)?).map(String::as_str)
    }

    /// Whether there is a file; none where nobody can know.
    pub(super) fn exists(&self, path: &str) -> Option<bool> {
        if let Some(name) = name_beside(path) {
            return Some(name == "grubenv" || self.beside.contains_key(name));
        }
        // "(disk)/path" names the same image as "/path" of an entry whose search finds the disk.
        let path =
            path.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(path, |(_, path)| path);
        if self.missing.contains(path) {
            return Some(false);
        }
        self.listed.contains(path).then_some(true)
    }
}

fn name_beside(path: &str) -> Option<&str> {
    path.strip_prefix(BESIDE)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::saved("saved_entry=a>b\n####", "saved_entry", Some("a>b"))]
    #[case::equals_sign("kernelopts=root=UUID=x ro\n##", "kernelopts", Some("root=UUID=x ro"))]
    #[case::escaped("x=a\\\\b\\\nc\n##", "x", Some("a\\b\nc"))]
    #[case::empty("next_entry=\n##", "next_entry", Some(""))]
    #[case::warning_line("# WARNING: a=b\nx=y\n##", "# WARNING: a", None)]
    #[case::unfinished("x=y", "x", None)]
    fn blocks_are_read(#[case] body: &str, #[case] name: &str, #[case] want: Option<&str>) {
        assert_eq!(GrubEnv::parse(format!("{HEADER}{body}").as_bytes()).get(name), want);
    }

    #[rstest]
    #[case::no_header(b"saved_entry=1\n" as &[u8])]
    #[case::not_text(b"\xff\xfe\0\0")]
    #[case::nothing(b"")]
    fn what_is_no_block_holds_nothing(#[case] block: &[u8]) {
        assert_eq!(GrubEnv::parse(block), GrubEnv::default());
    }

    #[test]
    fn a_lasting_environment_has_no_one_shots() {
        let env = GrubEnv::default().with("next_entry", "1").with("saved_entry", "2").with("recordfail", "1");
        assert_eq!(env.lasting(), GrubEnv::default().with("saved_entry", "2").with("recordfail", "1"));
        let old = GrubEnv::default().with("prev_saved_entry", "2").with("saved_entry", "1");
        assert_eq!(old.lasting(), GrubEnv::default().with("saved_entry", "2"));
    }
}
