// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual says what the program does: each option, action, directive, setting, policy key and
//! exit code is explained once, and nothing else is. The lists are the program's own.
//!
//! Pages are mdoc(7); what is explained is the head of an item (`.It`), what is merely spoken of has
//! the same macro before it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::Lab;
use dkms_hooks::conf::ConfFile;
use dkms_hooks::conf::{directives, framework, policy};
use dkms_hooks::module::{Arch, ModuleId, Target};
use dkms_hooks::sys::root::Root;
use dkms_hooks::tree::Tree;
use dkms_hooks::tree::registered::Scope;
use dkms_hooks::{cli, failure};
use rstest::rstest;

const PAGES: [&str; 3] = ["dkms.8", "dkms.conf.5", "dkms-policy.toml.5"];

fn page(name: &str) -> String {
    fs_err::read_to_string(format!("{}/man/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The lines of a section, up to the next one.
fn section<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let head = format!(".Sh {title}");
    let lines: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != head)
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh "))
        .collect();
    assert!(!lines.is_empty(), "no section {title}");
    lines
}

/// What stands behind `.It MACRO` in these lines, each time.
fn heads<'a>(lines: &[&'a str], macro_name: &str) -> Vec<&'a str> {
    let start = format!(".It {macro_name} ");
    lines.iter().filter_map(|line| line.strip_prefix(start.as_str())).collect()
}

/// The first words of the heads.
fn first_words(lines: &[&str], macro_name: &str) -> Vec<String> {
    let first = |head: &str| head.split_whitespace().next().unwrap_or_default().to_owned();
    heads(lines, macro_name).into_iter().map(first).collect()
}

/// Fails unless both hold the same words, each once.
#[track_caller]
fn assert_explained<T: Ord + std::fmt::Debug>(explained: Vec<T>, known: impl IntoIterator<Item = T>) {
    let count = explained.len();
    let explained: BTreeSet<T> = explained.into_iter().collect();
    assert_eq!(explained.len(), count, "something is explained twice: {explained:?}");
    let known: BTreeSet<T> = known.into_iter().collect();
    let missing: Vec<&T> = known.difference(&explained).collect();
    let invented: Vec<&T> = explained.difference(&known).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:?}, unknown: {invented:?}");
}

fn names(known: &[&str]) -> Vec<String> {
    known.iter().map(|name| (*name).to_owned()).collect()
}

/// An option as the head of its item: `m , Fl -module Ar module[/version]`.
fn option_head(arg: &clap::Arg) -> String {
    let short = arg.get_short().map(|short| short.to_string());
    let long = arg.get_long().map(|long| format!("-{long}"));
    let spellings: Vec<String> = short.into_iter().chain(long).collect();
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().filter(|_| takes_value).and_then(|names| names.first());
    spellings.join(" , Fl ") + &value.map(|value| format!(" Ar {value}")).unwrap_or_default()
}

#[test]
fn every_action_is_explained() {
    let explained = first_words(&section(&page("dkms.8"), "ACTIONS"), "Ic");
    assert_explained(explained, cli::usage::actions().map(|(name, _)| name.to_owned()));
}

#[test]
fn every_option_is_explained_with_all_its_spellings() {
    let page = page("dkms.8");
    let explained = heads(&section(&page, "OPTIONS"), "Fl").into_iter().map(str::to_owned).collect();
    let command = cli::command();
    let known = command.get_arguments().filter(|arg| !arg.is_positional()).map(option_head);
    assert_explained(explained, known);
}

#[test]
fn every_setting_of_the_framework_is_explained() {
    let explained = first_words(&section(&page("dkms.8"), "FRAMEWORK CONFIGURATION"), "Va");
    assert_explained(explained, names(framework::NAMES));
}

#[test]
fn every_exit_code_is_explained() {
    let page = page("dkms.8");
    let codes = section(&page, "EXIT STATUS");
    let codes: Vec<u8> = codes.iter().filter_map(|line| line.strip_prefix(".It ")?.parse().ok()).collect();
    assert_explained(codes, failure::codes().into_iter().chain([0]));
}

#[test]
fn the_readme_knows_the_same_exit_codes() {
    let readme = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let code = |line: &str| line.strip_prefix("| ")?.split_once(" |")?.0.parse().ok();
    assert_explained(readme.lines().filter_map(code).collect(), failure::codes().into_iter().chain([0]));
}

#[test]
fn every_directive_is_explained() {
    let explained = first_words(&section(&page("dkms.conf.5"), "DIRECTIVES"), "Va");
    assert_explained(explained, names(directives::NAMES));
}

#[test]
fn every_variable_that_confs_see_is_explained() {
    let explained = first_words(&section(&page("dkms.conf.5"), "VARIABLES"), "Ev");
    let arch = Arch::new("x86_64").unwrap();
    let tree = Tree {
        root: Root::live(),
        dkms: "/d".into(),
        source: "/s".into(),
        install: "/i".into(),
        arch: arch.clone(),
    };
    let target = Target { kernel: "6.1".parse().unwrap(), arch };
    let id = ModuleId::new("foo", "1.0").unwrap();
    let variables = tree.variables(Some(&id), Some(&target), &Scope::default());
    assert_explained(explained, variables.names().map(str::to_owned));
}

/// What is wrong with a policy.
fn refusal(text: &str) -> String {
    policy::merge(&[ConfFile { path: "/p".into(), text: text.to_owned() }]).unwrap_err().what
}

/// The names in a refusal's `expected one of …`.
fn expected(refusal: &str) -> Vec<String> {
    let expected = refusal.split_once("expected ").map(|(_, expected)| expected);
    let expected = expected.unwrap_or_else(|| panic!("nothing is expected: {refusal}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The tables of the policy, as in `[boot]`, each with its keys.
fn policy_tables() -> Vec<(String, Vec<String>)> {
    let keys = |table: &str| expected(&refusal(&format!("[{table}]\nno_such_key = 1\n")));
    let named = |table: String| match table.as_str() {
        "module" => "module.NAME".to_owned(),
        _ => table,
    };
    let tables = expected(&refusal("no_such_table = 1\n")).into_iter().map(named);
    tables.map(|table| (format!("[{table}]"), keys(&table))).collect()
}

/// The lines of the policy's page about one table.
fn policy_lines<'a>(page: &'a str, table: &str) -> Vec<&'a str> {
    let head = format!(".Ss {table}");
    let begun = page.lines().skip_while(|line| *line != head).skip(1);
    begun.take_while(|line| !line.starts_with(".Ss ") && !line.starts_with(".Sh ")).collect()
}

#[test]
fn every_key_of_the_policy_is_explained() {
    let page = page("dkms-policy.toml.5");
    let tables = policy_tables();
    let explained = page.lines().filter_map(|line| line.strip_prefix(".Ss "));
    assert_explained(explained.map(str::to_owned).collect(), tables.iter().map(|(table, _)| table.clone()));
    for (table, keys) in tables {
        assert_explained(first_words(&policy_lines(&page, &table), "Va"), keys);
    }
}

#[test]
fn every_word_of_the_policy_is_explained() {
    let page = page("dkms-policy.toml.5");
    let mut looked_at = 0;
    for (table, keys) in policy_tables() {
        let lines = policy_lines(&page, &table);
        for key in keys {
            let refusal = refusal(&format!("{table}\n{key} = \"no such word\"\n"));
            if refusal.contains("unknown variant") {
                let head = format!(".It Va {key} ");
                let about = lines.iter().copied().skip_while(|line| !line.starts_with(&head)).skip(1);
                let about: Vec<&str> = about.take_while(|line| !line.starts_with(".It Va ")).collect();
                assert_explained(first_words(&about, "Cm"), expected(&refusal));
                looked_at += 1;
            }
        }
    }
    assert!(looked_at >= 2, "keys that take words: {looked_at}");
}

/// The words that a page marks with a macro, wherever they stand.
fn marked(page: &str, macro_name: &str) -> BTreeSet<String> {
    let is_macro = |word: &str| matches!(word.as_bytes(), [b'A'..=b'Z', b'a'..=b'z']);
    let mut found = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with('.') && !line.starts_with(".\\\"")) {
        let mut inside = false;
        for word in line.trim_start_matches('.').split_whitespace() {
            if is_macro(word) {
                inside = word == macro_name;
            } else if inside && word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-') {
                found.insert(word.to_owned());
            }
        }
    }
    found
}

#[rstest]
#[case::dkms("dkms.8")]
#[case::conf("dkms.conf.5")]
#[case::policy("dkms-policy.toml.5")]
fn nothing_unknown_is_spoken_of(#[case] name: &str) {
    let page = page(name);
    let command = cli::command();
    let spellings = |arg: &clap::Arg| {
        let long = arg.get_long().map(|long| format!("-{long}"));
        arg.get_short().map(|short| short.to_string()).into_iter().chain(long).collect::<Vec<_>>()
    };
    let options: BTreeSet<String> = command.get_arguments().flat_map(spellings).collect();
    let actions: BTreeSet<String> = cli::usage::actions().map(|(name, _)| name.to_owned()).collect();
    let keys = policy_tables().into_iter().flat_map(|(_, keys)| keys);
    let settings: BTreeSet<String> =
        names(directives::NAMES).into_iter().chain(names(framework::NAMES)).chain(keys).collect();
    for (macro_name, known) in [("Fl", options), ("Ic", actions), ("Va", settings)] {
        let spoken_of = marked(&page, macro_name);
        let unknown: Vec<&String> = spoken_of.difference(&known).collect();
        assert!(unknown.is_empty(), "{name}, {macro_name}: {unknown:?}");
    }
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn formatters_have_no_complaints() {
    let lab = Lab::without_dkms().packages_and_dependencies(&["mandoc"]).packages(&["groff-base"]);
    for name in PAGES {
        lab.write(&format!("tmp/{name}"), &page(name));
        let linted = lab.sh(&format!("mandoc -Tlint -Wwarning /tmp/{name}"));
        assert_eq!((linted.code(), linted.stdout().as_str()), (0, ""), "{linted}");
        for width in [72, 100] {
            let formatted = lab.sh(&format!("groff -mdoc -ww -rLL={width}n -Tutf8 -z /tmp/{name}"));
            assert_eq!((formatted.code(), formatted.stderr().as_str()), (0, ""), "{formatted}");
        }
    }
}
