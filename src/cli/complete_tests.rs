// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unfinished command lines against what is asked for. A line ends with the word being typed;
//! one that ends with a blank begins a new word.

use std::path::PathBuf;

use super::*;
use crate::cli::{Action, parse};
use rstest::rstest;

fn asked(line: &str) -> (Options, Question) {
    let words = ["complete"].into_iter().chain(line.split(' ')).map(OsString::from);
    match parse(words, &|_| None) {
        Ok((options, Action::Complete(question))) => (options, question),
        other => panic!("{line:?}: {other:?}"),
    }
}

fn question(line: &str) -> Question {
    asked(line).1
}

fn words(line: &str) -> Vec<String> {
    match question(line).wanted {
        Wanted::Words(words) => words.into_iter().map(|candidate| candidate.word).collect(),
        other => panic!("{line:?}: {other:?}"),
    }
}

#[rstest]
#[case::add("add ", Wanted::Modules(Modules::Unregistered), Files::Any)]
#[case::build("build fo", Wanted::Modules(Modules::Known), Files::Any)]
#[case::install("install ", Wanted::Modules(Modules::Known), Files::Any)]
#[case::install_for_a_kernel("-k 6.1 install ", Wanted::Modules(Modules::Known), Files::Any)]
#[case::unbuild("unbuild ", Wanted::Modules(Modules::Built), Files::None)]
#[case::uninstall("uninstall --all ", Wanted::Modules(Modules::Installed), Files::None)]
#[case::remove("remove ", Wanted::Modules(Modules::Registered), Files::None)]
#[case::remove_for_a_kernel("remove -k 6.1 ", Wanted::Modules(Modules::Built), Files::None)]
#[case::status("status ", Wanted::Modules(Modules::Registered), Files::None)]
#[case::matching("match --templatekernel 6.1 ", Wanted::Modules(Modules::Installed), Files::None)]
#[case::mktarball("mktarball ", Wanted::Modules(Modules::Built), Files::None)]
#[case::mkrpm("mkrpm ", Wanted::Modules(Modules::Built), Files::None)]
#[case::mkdeb_source("mkdeb --source-only ", Wanted::Modules(Modules::Registered), Files::None)]
#[case::mktarball_source("mktarball --source-only ", Wanted::Modules(Modules::Registered), Files::None)]
#[case::driver_disk("mkdriverdisk -d suse ", Wanted::Modules(Modules::Built), Files::None)]
#[case::driver_disk_for_a_kernel("mkdriverdisk foo/1.0 -k ", Wanted::Kernels(Kernels::Built), Files::None)]
#[case::extension("mksysext ", Wanted::Modules(Modules::Built), Files::None)]
#[case::system_of_an_extension("mksysext -d ", Wanted::Words(vec![]), Files::None)]
#[case::ldtarball("ldtarball ", Wanted::Words(vec![]), Files::Archives)]
#[case::no_module_wanted("autoinstall ", Wanted::Words(vec![]), Files::None)]
#[case::no_second_module("install foo/1.0 ", Wanted::Words(vec![]), Files::None)]
#[case::module_by_option("install -m foo ", Wanted::Words(vec![]), Files::None)]
#[case::archive_by_option("add --archive /a.tgz ", Wanted::Words(vec![]), Files::None)]
#[case::words_of_a_hook("hook grub ", Wanted::Words(vec![]), Files::None)]
#[case::name("install -m ", Wanted::Names(Modules::Known), Files::None)]
#[case::name_attached("install --module=f", Wanted::Names(Modules::Known), Files::None)]
#[case::name_before_the_action("-m ", Wanted::Names(Modules::Registered), Files::None)]
#[case::version("remove -m foo -v ", Wanted::Versions(Modules::Registered), Files::None)]
#[case::version_of_a_word("uninstall foo -v ", Wanted::Versions(Modules::Installed), Files::None)]
#[case::kernel("build foo/1.0 -k ", Wanted::Kernels(Kernels::WithHeaders), Files::None)]
#[case::kernel_long("autoinstall --kernelver 6", Wanted::Kernels(Kernels::WithHeaders), Files::None)]
#[case::kernel_attached("install --kernelver=6", Wanted::Kernels(Kernels::WithHeaders), Files::None)]
#[case::kernel_elsewhere("build --kernelsourcedir /k -k ", Wanted::Kernels(Kernels::Present), Files::None)]
#[case::kernel_of_built("unbuild foo/1.0 -k ", Wanted::Kernels(Kernels::Built), Files::None)]
#[case::kernel_of_removed("remove -k ", Wanted::Kernels(Kernels::Built), Files::None)]
#[case::kernel_of_installed("uninstall foo/1.0 -k ", Wanted::Kernels(Kernels::Installed), Files::None)]
#[case::kernel_of_status("status -k ", Wanted::Kernels(Kernels::Listed), Files::None)]
#[case::kernel_going("kernel_prerm -k ", Wanted::Kernels(Kernels::Built), Files::None)]
#[case::kernel_coming("kernel_preinst -k ", Wanted::Kernels(Kernels::Present), Files::None)]
#[case::kernel_before_the_action("-k ", Wanted::Kernels(Kernels::Present), Files::None)]
#[case::arch("uninstall foo/1.0 -k 6.1 -a ", Wanted::Arches(Kernels::Installed), Files::None)]
#[case::template("match --templatekernel ", Wanted::Kernels(Kernels::Installed), Files::None)]
#[case::conf("add -c ", Wanted::Words(vec![]), Files::Any)]
#[case::config("build --config=/b", Wanted::Words(vec![]), Files::Any)]
#[case::kernel_source("build --kernelsourcedir ", Wanted::Words(vec![]), Files::Directories)]
#[case::dkms_tree("status --dkmstree /va", Wanted::Words(vec![]), Files::Directories)]
#[case::root("--root=", Wanted::Words(vec![]), Files::Directories)]
#[case::archive("ldtarball --archive ", Wanted::Words(vec![]), Files::Archives)]
#[case::package("install --archive ", Wanted::Words(vec![]), Files::Any)]
#[case::release("gate release ", Wanted::Kernels(Kernels::Held), Files::None)]
#[case::release_by_option("gate release -k ", Wanted::Kernels(Kernels::Held), Files::None)]
#[case::released("gate release 6.1 ", Wanted::Words(vec![]), Files::None)]
#[case::released_by_option("gate release -k 6.1 ", Wanted::Words(vec![]), Files::None)]
#[case::run("log ", Wanted::Runs, Files::None)]
#[case::run_again("replay --dry-run ", Wanted::Runs, Files::None)]
#[case::no_second_run("replay 3 ", Wanted::Words(vec![]), Files::None)]
#[case::words_of_a_protocol("replay --protocol debian ", Wanted::Words(vec![]), Files::None)]
#[case::verify("verify ", Wanted::Modules(Modules::Registered), Files::None)]
#[case::kernel_to_verify("verify -k ", Wanted::Kernels(Kernels::Present), Files::None)]
#[case::jobs("build -j ", Wanted::Words(vec![]), Files::None)]
#[case::value_of_a_switch("build --force=", Wanted::Words(vec![]), Files::None)]
#[case::after_an_unknown_option("--bogus -k ", Wanted::Kernels(Kernels::Present), Files::None)]
fn the_place_tells_what_is_wanted(#[case] line: &str, #[case] wanted: Wanted, #[case] files: Files) {
    let Question { wanted: found, files: found_files, .. } = question(line);
    // Options that a word cannot become are no candidates for it.
    let fits = match found {
        Wanted::Words(words) => {
            Wanted::Words(words.into_iter().filter(|candidate| candidate.word.contains('=')).collect())
        }
        other => other,
    };
    assert_eq!((fits, found_files), (wanted, files));
}

#[rstest]
#[case::first("")]
#[case::begun("inst")]
#[case::after_a_module("foo/1.0 ")]
#[case::after_options("-q -k 6.1 ")]
fn the_action_comes_first(#[case] line: &str) {
    let actions: Vec<&str> = super::super::usage::actions().map(|(name, _)| name).collect();
    assert_eq!(words(line), actions);
}

#[rstest]
#[case::before_the_action("--", &["--module", "-m", "-v", "--templatekernel", "--json", "-q"], &["--no-initrd"])]
#[case::install(
    "install foo/1.0 -",
    &["--force", "-k", "--archive", "--rpm_safe_upgrade"],
    &["--all", "--all-kernels", "--templatekernel", "--json"]
)]
#[case::status("status --j", &["--json", "--all"], &["--source-only"])]
#[case::matching("match -", &["--templatekernel"], &["--archive"])]
#[case::autoinstall("autoinstall -", &["--kernelver", "--all-kernels"], &["--module", "-v"])]
#[case::log("log -", &["--json"], &["--dry-run", "--repair", "-k"])]
#[case::push("push -", &["--to", "--generate-key", "-k"], &["--all", "--json", "--repair"])]
#[case::doctor("doctor -", &["--json", "--repair", "--root"], &["-k", "--module", "--all"])]
#[case::replay("replay -", &["--json", "--dry-run", "--protocol", "--force"], &["-k", "--module"])]
#[case::hook("hook -", &[], &["--root", "--force"])]
fn options_are_those_that_mean_something(#[case] line: &str, #[case] some: &[&str], #[case] none: &[&str]) {
    let found = words(line);
    assert!(some.iter().all(|option| found.iter().any(|word| word == option)), "{found:?}");
    assert!(!none.iter().any(|option| found.iter().any(|word| word == option)), "{found:?}");
}

#[test]
fn a_gate_can_be_opened() {
    assert_eq!(words("gate "), ["release"]);
}

#[rstest]
#[case::disk("mkdriverdisk --media ", &["floppy", "iso", "tar"])]
#[case::extension("mksysext --media ", &["squashfs", "erofs"])]
#[case::distributions("mkdriverdisk -d ", &["redhat", "redhat1", "redhat2", "redhat3", "suse", "UnitedLinux", "ubuntu"])]
fn what_is_made_is_one_of_a_few_things(#[case] line: &str, #[case] want: &[&str]) {
    assert_eq!(words(line), want);
}

#[test]
fn directives_come_with_their_sign() {
    let found = words("build --directive MA");
    assert!(found.contains(&"MAKE=".to_owned()) && found.len() == directives::NAMES.len());
}

#[rstest]
#[case::apart("install -k 6.", "", "6.")]
#[case::attached("install --kernelver=6.", "--kernelver=", "6.")]
#[case::nothing_yet("install --kernelver=", "--kernelver=", "")]
#[case::option("install --kern", "", "--kern")]
#[case::sign_in_a_value("build --directive MAKE=a=b", "", "MAKE=a=b")]
fn the_word_falls_into_prefix_and_value(#[case] line: &str, #[case] prefix: &str, #[case] typed: &str) {
    let Question { prefix: found, typed: rest, .. } = question(line);
    assert_eq!((found.as_str(), rest.as_str()), (prefix, typed));
}

#[rstest]
#[case::none("install -k ", None)]
#[case::word("install foo/1.0 -k ", Some(("foo", Some("1.0"))))]
#[case::name("install foo -k ", Some(("foo", None)))]
#[case::options("install -v 1.0 -m foo -k ", Some(("foo", Some("1.0"))))]
#[case::name_and_version("install foo -v 1.0 -k ", Some(("foo", Some("1.0"))))]
fn the_module_is_known(#[case] line: &str, #[case] want: Option<(&str, Option<&str>)>) {
    let want = want.map(|(name, version)| (name.to_owned(), version.map(str::to_owned)));
    assert_eq!(question(line).module, want);
}

#[test]
fn kernels_are_known_without_their_architectures() {
    assert_eq!(question("remove -k 6.1/x86_64 --kernelver=6.2 ").kernels, ["6.1", "6.2"]);
}

#[test]
fn trees_and_root_hold_for_the_question() {
    let line = "--root /r --dkmstree=/d --sourcetree /s --installtree /i -q --force -j x status ";
    let want = Options {
        root: Some(PathBuf::from("/r")),
        dkms_tree: Some(PathBuf::from("/d")),
        source_tree: Some(PathBuf::from("/s")),
        install_tree: Some(PathBuf::from("/i")),
        ..Options::default()
    };
    assert_eq!(asked(line).0, want);
}

#[test]
fn no_word_at_all_is_an_empty_one() {
    let parsed = parse([OsString::from("complete")].into_iter(), &|_| None);
    assert!(matches!(parsed, Ok((_, Action::Complete(question))) if question.typed.is_empty()));
}
