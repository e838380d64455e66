// SPDX-License-Identifier: MIT OR Apache-2.0
//! The usage text, made from the verbs and the options that really are accepted.

use std::fmt::Write as _;

use clap::Arg;

use super::flags;
use super::verb::Verb;

/// The actions and what they do, in the order of their importance.
pub fn actions() -> impl Iterator<Item = (&'static str, &'static str)> {
    Verb::ALL.into_iter().map(|verb| (verb.name(), verb.meaning()))
}

/// The text of `--help`: standard output, ends with a newline.
pub fn text() -> String {
    let mut actions = String::new();
    for (name, meaning) in self::actions() {
        // Writing to a String cannot fail.
        let _ = writeln!(actions, "  {name:<16} {meaning}");
    }
    let template = format!(
        "Usage: dkms [action] [options]\n\nActions:\n{actions}\n\
         A module is named as module/version, -m module/version or -m module -v version\n\
         (the version may be left out if there is only one); add, build and install also\n\
         take a directory, a dkms.conf, an archive or an rpm package.\n\n\
         Options:\n{{options}}\n"
    );
    let text = flags::command().help_template(template).render_help().to_string();
    // clap indents options without a short form beneath those that have one, and ends lines bare.
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// One option in one line, for the failures that are about it.
pub(super) fn option(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let spellings = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let value = arg.get_value_names().and_then(<[_]>::first).map(|name| format!(" <{name}>"));
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    format!("{spellings}{}: {help}", value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn first_line_is_the_one_scripts_know() {
        assert!(text().starts_with("Usage: dkms [action] [options]\n"), "{}", text());
    }

    #[test]
    fn every_option_is_explained_on_one_line() {
        let text = text();
        for arg in flags::command().get_arguments().filter(|arg| !arg.is_positional()) {
            let long = arg.get_long().map(|long| format!("--{long} "));
            let short = arg.get_short().map(|short| format!("-{short}"));
            for spelling in long.iter().chain(&short) {
                let help = arg.get_help().unwrap_or_else(|| panic!("{spelling} has no help")).to_string();
                let explained = text.lines().any(|line| {
                    (line.to_owned() + " ").contains(spelling.as_str())
                        && line.ends_with(&help)
                        && !help.is_empty()
                });
                assert!(explained, "{spelling} in\n{text}");
            }
        }
    }

    #[test]
    fn every_action_is_explained_on_one_line() {
        let text = text();
        for verb in Verb::ALL {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(verb.name()));
            assert!(line.is_some_and(|line| line.ends_with(verb.meaning())), "{} in\n{text}", verb.name());
        }
    }

    #[test]
    fn no_line_wraps_on_a_console() {
        let text = text();
        let longest = text.lines().max_by_key(|line| line.len()).unwrap();
        assert!(longest.len() <= 80, "{longest:?}");
    }

    #[rstest]
    #[case::both("module", "-m, --module <module[/version]>: the module to work on")]
    #[case::short("module-version", "-v <module-version>: its version")]
    #[case::long("dkmstree", "--dkmstree <dir>: instead of /var/lib/dkms")]
    fn option_line_shows_all_spellings(#[case] id: &str, #[case] want: &str) {
        let command = flags::command();
        let arg = command.get_arguments().find(|arg| arg.get_id() == id).unwrap();
        assert_eq!(option(arg), want);
    }
}
