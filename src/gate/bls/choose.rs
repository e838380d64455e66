// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which entry systemd-boot takes when nobody touches a key. Pure. Source: systemd-boot(7)
//! ("LoaderEntryOneShot", "LoaderEntryDefault"), loader.conf(5) ("default"), and boots.

use glob::{MatchOptions, Pattern};

use super::entry::Entry;

/// What was asked of the loader; each names entries by a pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The EFI variable LoaderEntryOneShot: `bootctl set-oneshot`, once.
    pub oneshot: Option<String>,
    /// The EFI variable LoaderEntryDefault: `bootctl set-default`.
    pub variable: Option<String>,
    /// `default` in loader.conf.
    pub conf: Option<String>,
    /// The EFI variable LoaderEntryLastBooted, which `@saved` stands for.
    pub last_booted: Option<String>,
}

/// The default entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    Entry(&'a Entry),
    /// Something that the loader finds by itself: another system, a firmware shell.
    Automatic(String),
    /// There is no entry at all.
    Nothing,
}

impl Wishes {
    /// Without what holds for one boot only.
    pub fn lasting(&self) -> Self {
        Self { oneshot: None, ..self.clone() }
    }

    /// The first wish that names an entry decides, else the first entry of the menu. `entries` are
    /// in its order.
    pub fn choose<'a>(&self, entries: &'a [Entry]) -> Choice<'a> {
        let wishes = [&self.oneshot, &self.variable, &self.conf];
        for wish in wishes.into_iter().flatten().filter(|wish| !wish.is_empty()) {
            let saved = wish == "@saved";
            let Some(pattern) = (if saved { self.last_booted.as_ref() } else { Some(wish) }) else {
                continue;
            };
            let pattern = pattern.to_lowercase();
            if let Some(entry) = entries.iter().find(|entry| matches(&pattern, &entry.id)) {
                return Choice::Entry(entry);
            }
            // They come last in the menu, and are not ours to find.
            if pattern.starts_with("auto-") {
                return Choice::Automatic(pattern);
            }
        }
        entries.first().map_or(Choice::Nothing, Choice::Entry)
    }
}

fn matches(pattern: &str, id: &str) -> bool {
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: false,
        require_literal_leading_dot: false,
    };
    Pattern::new(pattern).map_or(pattern == id, |pattern| pattern.matches_with(id, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn entries() -> Vec<Entry> {
        ["m-6.12.conf", "m-6.1.conf", "rescue.conf"]
            .map(|file| Entry::from_conf(file, "linux /l", "x86_64").unwrap())
            .to_vec()
    }

    fn wishes(oneshot: &str, variable: &str, conf: &str) -> Wishes {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let last_booted = Some("m-6.1.conf".to_owned());
        Wishes { oneshot: some(oneshot), variable: some(variable), conf: some(conf), last_booted }
    }

    #[rstest]
    #[case::nobody_asks("", "", "", "m-6.12.conf")]
    #[case::conf("", "", "m-6.1.conf", "m-6.1.conf")]
    #[case::conf_pattern("", "", "m-6.1[!2]*", "m-6.1.conf")]
    #[case::first_that_matches("", "", "m-*", "m-6.12.conf")]
    #[case::variable_beats_conf("", "rescue*", "m-6.1.conf", "rescue.conf")]
    #[case::oneshot_beats_all("m-6.1.conf", "rescue*", "m-6.12*", "m-6.1.conf")]
    #[case::name_of_nothing_is_passed_over("gone.conf", "", "m-6.1.conf", "m-6.1.conf")]
    #[case::all_name_nothing("gone.conf", "gone", "m-6.1", "m-6.12.conf")]
    #[case::saved("", "", "@saved", "m-6.1.conf")]
    #[case::saved_by_variable("", "@saved", "rescue.conf", "m-6.1.conf")]
    #[case::case_does_not_matter("", "", "M-6.1.CONF", "m-6.1.conf")]
    fn the_default_is_the_loaders(
        #[case] oneshot: &str,
        #[case] variable: &str,
        #[case] conf: &str,
        #[case] want: &str,
    ) {
        let entries = entries();
        let Choice::Entry(entry) = wishes(oneshot, variable, conf).choose(&entries) else { panic!() };
        assert_eq!(entry.id, want);
    }

    #[test]
    fn what_the_loader_finds_by_itself_is_no_kernel_of_ours() {
        let entries = entries();
        let choice = wishes("", "auto-windows", "").choose(&entries);
        assert_eq!(choice, Choice::Automatic("auto-windows".to_owned()));
        assert_eq!(wishes("", "", "").choose(&[]), Choice::Nothing);
    }

    #[test]
    fn what_lasts_is_not_what_comes_next() {
        let entries = entries();
        let Choice::Entry(entry) = wishes("rescue.conf", "", "").lasting().choose(&entries) else { panic!() };
        assert_eq!(entry.id, "m-6.12.conf");
    }
}
