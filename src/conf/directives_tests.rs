// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables for the directives: each case is a plain dkms.conf after the two obligatory lines.

use super::*;
use crate::conf::ConfFile;
use crate::conf::plain::{Plain, evaluate};
use rstest::rstest;

fn variables(text: &str) -> Variables {
    let file = ConfFile { path: "/src/dkms.conf".into(), text: text.to_owned() };
    match evaluate(&Variables::new(), &[file]) {
        Plain::Evaluated(vars) => vars,
        other => panic!("{other:?}"),
    }
}

fn conf(text: &str) -> ModuleConf {
    let text = format!("PACKAGE_NAME=m\nPACKAGE_VERSION=1.0\n{text}");
    read(&variables(&text), "/src/dkms.conf").unwrap()
}

const GOOD: &str = "PACKAGE_NAME=m\nPACKAGE_VERSION=1.0\nDEST_MODULE_LOCATION=/updates\n";

#[rstest]
#[case::nothing("", &["No 'PACKAGE_NAME' directive specified.", "No 'PACKAGE_VERSION' directive specified."])]
#[case::no_version("PACKAGE_NAME=m\n", &["No 'PACKAGE_VERSION' directive specified."])]
#[case::no_location(
    "PACKAGE_NAME=m PACKAGE_VERSION=1 BUILT_MODULE_NAME=m\n",
    &["No 'DEST_MODULE_LOCATION' directive specified for record #0."]
)]
#[case::unnamed(
    "PACKAGE_NAME=m PACKAGE_VERSION=1 DEST_MODULE_LOCATION=(/updates /extra)\n",
    &[
        "No 'BUILT_MODULE_NAME' directive specified for record #0.",
        "No 'BUILT_MODULE_NAME' directive specified for record #1.",
    ]
)]
#[case::everything_about_a_record(
    "PACKAGE_NAME=m PACKAGE_VERSION=1 BUILT_MODULE_NAME=(a.ko b) DEST_MODULE_NAME=(c.o)\n\
     DEST_MODULE_LOCATION=(/lib) AUTOINSTALL=Y\n",
    &[
        "'BUILT_MODULE_NAME' directive ends in '.o' or '.ko' in record #0.",
        "'DEST_MODULE_NAME' directive ends in '.o' or '.ko' in record #0.",
        "Directive 'DEST_MODULE_LOCATION' does not begin with\n'/kernel', '/updates', or '/extra' in record #0.",
        "No 'DEST_MODULE_LOCATION' directive specified for record #1.",
        "Unsupported AUTOINSTALL value 'Y'",
    ]
)]
#[case::switches(
    &format!("{GOOD}AUTOINSTALL=maybe BUILD_DEPENDS_REBUILD=1 NO_WEAK_MODULES=y BOOT_CRITICAL=true\n"),
    &[
        "Unsupported AUTOINSTALL value 'maybe'",
        "Unsupported BUILD_DEPENDS_REBUILD value '1'",
        "Unsupported NO_WEAK_MODULES value 'y'",
        "Unsupported BOOT_CRITICAL value 'true'",
    ]
)]
#[case::name_that_leaves_the_tree(
    "PACKAGE_NAME=../m PACKAGE_VERSION=1 DEST_MODULE_LOCATION=/updates BUILT_MODULE_NAME=m\n",
    &["'../m' is not a valid module name."]
)]
#[case::destination_that_leaves_its_directory(
    &format!("{GOOD}BUILT_MODULE_NAME=m DEST_MODULE_NAME=../../m\n"),
    &["The module name '../../m' in record #0 is no file name."]
)]
fn problems_are_worded_and_ordered_as_dkms_does(#[case] text: &str, #[case] want: &[&str]) {
    let want: Vec<String> = want.iter().map(|line| format!("dkms.conf: Error! {line}")).collect();
    assert_eq!(read(&variables(text), "/x").unwrap_err(), want);
}

#[test]
fn a_mad_index_is_an_error_and_not_a_hang() {
    let mut vars = variables(GOOD);
    vars.set_element("BUILT_MODULE_NAME", usize::MAX - 1, "x");
    assert!(read(&vars, "/x").unwrap_err().len() < 200);
}

#[test]
fn a_single_record_may_be_unnamed() {
    let conf = conf("DEST_MODULE_LOCATION=/kernel/drivers/\n");
    let [record] = conf.records.as_slice() else { panic!("{conf:?}") };
    assert_eq!((record.built_name.as_str(), record.dest_name.as_str()), ("m", "m"));
    assert_eq!(record.dest_location, "/kernel/drivers/");
    assert!(record.strip && record.built_location.is_empty());
}

#[test]
fn records_go_by_index() {
    let conf = conf(
        "BUILT_MODULE_NAME[0]=a BUILT_MODULE_NAME[1]=b\nBUILT_MODULE_LOCATION[1]=src/\n\
         DEST_MODULE_NAME[0]=c\nDEST_MODULE_LOCATION=(/updates /extra)\n",
    );
    let records: Vec<_> = conf
        .records
        .iter()
        .map(|r| {
            [r.built_name.as_str(), r.built_location.as_str(), r.dest_name.as_str(), r.dest_location.as_str()]
        })
        .collect();
    assert_eq!(records, [["a", "", "c", "/updates"], ["b", "src/", "b", "/extra"]]);
}

#[rstest]
#[case::unset("", &[true, true, true])]
#[case::first_is_the_default("STRIP[0]=no\n", &[false, false, false])]
#[case::own("STRIP[1]=no\n", &[true, false, true])]
#[case::own_against_the_default("STRIP=(no yes)\n", &[false, true, false])]
#[case::another_word("STRIP=(maybe never No)\n", &[true, false, false])]
fn strip_is_yes_unless_told_otherwise(#[case] text: &str, #[case] want: &[bool]) {
    let text = format!("BUILT_MODULE_NAME=(a b c) DEST_MODULE_LOCATION=(/updates /updates /updates)\n{text}");
    let strips: Vec<bool> = conf(&text).records.iter().map(|record| record.strip).collect();
    assert_eq!(strips, want);
}

#[test]
fn carriage_returns_belong_to_the_line() {
    let text = "PACKAGE_NAME=m\r\nPACKAGE_VERSION=\"1.0\"\r\nBUILT_MODULE_NAME[0]=m\r\n\
                DEST_MODULE_LOCATION[0]=/updates\r\nAUTOINSTALL=yes\r\nBUILD_DEPENDS[0]=spl\r\n";
    let conf = read(&variables(text), "/x").unwrap();
    assert_eq!(conf.id.to_string(), "m/1.0");
    assert!(conf.autoinstall);
    assert_eq!(conf.records[0].dest_location, "/updates");
    assert_eq!(conf.build_depends, ["spl"]);
}

#[test]
fn the_rest_is_taken_as_written() {
    let conf = conf(
        "DEST_MODULE_LOCATION=/updates\nPRE_BUILD='conf.sh $kernelver' POST_REMOVE=bye\n\
         BUILD_DEPENDS=(spl 'zlib spl') BUILD_DEPENDS_REBUILD=yes NO_WEAK_MODULES=yes\n\
         REMAKE_INITRD=Y BOOT_CRITICAL=yes OBSOLETE_BY=6.9 build_exclude=yes\n",
    );
    assert_eq!(conf.scripts.pre_build.as_deref(), Some("conf.sh $kernelver"));
    assert_eq!(conf.scripts.post_remove.as_deref(), Some("bye"));
    assert_eq!(conf.scripts.post_add, None);
    assert_eq!(conf.build_depends, ["spl", "zlib"]);
    assert!(conf.build_depends_rebuild && conf.no_weak_modules && conf.remake_initrd);
    assert!(conf.boot_critical && conf.build_exclude && !conf.autoinstall);
    assert_eq!(conf.obsolete_by.as_deref(), Some("6.9"));
}

#[rstest]
#[case::no_modules("", &["dkms.conf: Warning! Zero modules specified."])]
#[case::none("DEST_MODULE_LOCATION=/updates\n", &[])]
#[case::pattern(
    "DEST_MODULE_LOCATION=/updates MAKE_MATCH[1]='('\n",
    &["dkms.conf: Warning! 'MAKE_MATCH[1]' is not a regular expression and matches no kernel."]
)]
fn warnings_do_not_fail(#[case] text: &str, #[case] want: &[&str]) {
    assert_eq!(conf(text).warnings, want);
}

#[rstest]
#[case::none("CLEAN=true REMAKE_INITRD=yes\n", &[])]
#[case::all(
    "CLEAN='make clean' OBSOLETE_BY=7 MODULES_CONF[1]=x\n",
    &[
        "Deprecated feature: MODULES_CONF (/src/dkms.conf)",
        "Deprecated feature: OBSOLETE_BY (/src/dkms.conf): use BUILD_EXCLUSIVE_KERNEL_MAX instead",
        "Deprecated feature: CLEAN (/src/dkms.conf)",
    ]
)]
fn deprecated_features_are_named(#[case] text: &str, #[case] want: &[&str]) {
    assert_eq!(conf(text).deprecated, want);
}

#[test]
fn duplicates_are_problems_of_the_strict_verbs() {
    let conf = conf(
        "BUILT_MODULE_NAME=(a a b) DEST_MODULE_NAME=([1]=b) DEST_MODULE_LOCATION=(/extra /extra /extra)\n",
    );
    assert_eq!(
        conf.strict_problems(),
        [
            "dkms.conf: Error! Duplicate module 'a' in 'BUILT_MODULE_NAME[1]'.",
            "dkms.conf: Error! Duplicate module 'b' in 'DEST_MODULE_NAME[2]'.",
        ]
    );
}

#[test]
fn every_directive_has_an_effect() {
    let mut plain = variables(&format!("{GOOD}MAKE=make PATCH=a.patch\n"));
    plain.set("BUILT_MODULE_NAME", "b");
    let base = read(&plain, "/x");
    let changes = |name: &str, value: &str| {
        let mut vars = plain.clone();
        vars.set(name, value);
        read(&vars, "/x") != base
    };
    for name in NAMES {
        assert!(["yes", "no"].iter().any(|value| changes(name, value)), "{name} has none");
    }
}
