// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dkms.conf files of real packages and of the golden cases: what the in-process evaluator
//! takes on it evaluates as bash does, and then no bash is started.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use common::bash::{bash, only};
use common::{Lab, Series};
use dkms_hooks::conf::plain::{Plain, evaluate};
use dkms_hooks::conf::{ConfFile, Variables, directives};
use fs_err as fs;
use rstest::rstest;

/// Twelve packages, by the names of their modules, whose conf holds assignments only…
const PLAIN: [(&str, &str); 6] = [
    ("acpi-call-dkms", "acpi-call"),
    ("bbswitch-dkms", "bbswitch"),
    ("dm-writeboost-dkms", "dm-writeboost"),
    ("evdi-dkms", "evdi"),
    ("r8168-dkms", "r8168"),
    ("xtables-addons-dkms", "xtables-addons"),
];

/// …or runs commands.
const SHELL: [(&str, &str); 6] = [
    ("ddcci-dkms", "ddcci"),
    ("iptables-netflow-dkms", "ipt-netflow"),
    ("lttng-modules-dkms", "lttng-modules"),
    ("openafs-modules-dkms", "openafs"),
    ("v4l2loopback-dkms", "v4l2loopback"),
    ("zfs-dkms", "zfs"),
];

fn scope(module: &str, version: &str, release: &str) -> Variables {
    let mut scope = Variables::new();
    for (name, value) in [
        ("kernelver", release),
        ("kernel_source_dir", &format!("/lib/modules/{release}/build")),
        ("arch", common::ARCH),
        ("module", module),
        ("module_version", version),
        ("dkms_tree", "/var/lib/dkms"),
        ("source_tree", "/usr/src"),
        ("install_tree", "/lib/modules"),
        ("tmp_location", "/tmp"),
    ] {
        scope.set(name, value);
    }
    scope
}

/// Whether it is plain, after a comparison with what bash makes of it.
fn is_plain(path: &Path, text: String, scope: &Variables) -> bool {
    let files = [ConfFile { path: path.to_owned(), text }];
    let Plain::Evaluated(ours) = evaluate(scope, &files) else { return false };
    let names = || directives::NAMES.iter().copied();
    assert_eq!(bash(scope, names(), &files), Ok(only(&ours, names(), scope)), "{}", files[0].text);
    true
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn confs_of_real_packages_are_evaluated_as_bash_does_and_plain_ones_without_bash() {
    let lab = Lab::debian();
    lab.fetch(&["patch"]);
    lab.apt_install_ours().succeeds();
    let packages: Vec<&str> = PLAIN.iter().chain(&SHELL).map(|(package, _)| *package).collect();
    lab.sh(&format!(
        "mkdir /debs; cd /debs; apt-get -qq download {}
         for deb in *.deb; do dpkg-deb -x $deb /debs; done; mv /debs/usr/src/* /usr/src",
        packages.join(" ")
    ))
    .succeeds();
    // Whoever starts it now fails.
    lab.sh("mv /usr/bin/bash /usr/bin/hidden").succeeds();

    let said = lab.enter(&["find", "/usr/src", "-name", "dkms.conf"]).stdout();
    let mut plain = BTreeSet::new();
    let mut shell = BTreeSet::new();
    for conf in said.lines() {
        let id = Path::new(conf).parent().unwrap().file_name().unwrap().to_str().unwrap();
        let (module, version) = id.rsplit_once('-').unwrap();
        let path = lab.path(conf);
        let is_plain = is_plain(
            &path,
            fs::read_to_string(&path).unwrap(),
            &scope(module, version, Series::Old.release()),
        );
        let added = lab.run(["add", &format!("{module}/{version}")]);
        assert_eq!(added.code() == 0, is_plain, "{added}");
        if is_plain { &mut plain } else { &mut shell }.insert(module.to_owned());
    }
    // Past the test harness, which would swallow it.
    drop(writeln!(std::io::stderr(), "without bash: {plain:?}\nby bash: {shell:?}"));
    let modules = |list: [(&str, &str); 6]| BTreeSet::from(list.map(|(_, module)| module.to_owned()));
    assert_eq!((plain, shell), (modules(PLAIN), modules(SHELL)));
}

#[test]
fn confs_of_the_golden_cases_are_evaluated_as_bash_does() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut confs = BTreeSet::new();
    for case in fs::read_dir(cases).unwrap() {
        let script = case.unwrap().path().join("script");
        let Ok(script) = fs::read_to_string(script) else { continue };
        confs.extend(script.lines().filter_map(conf_of_setup));
    }
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("dkms.conf");
    let mut plain = 0;
    for conf in &confs {
        fs::write(&path, conf).unwrap();
        plain += usize::from(is_plain(&path, conf.clone(), &scope("foo", "1.0", "6.1.0-1-test")));
    }
    assert!(confs.len() > 100 && plain > 80, "only {plain} of {} confs are plain", confs.len());
}

/// The conf that a line of a golden case writes, as `module` and `conf` of `tests/golden/run.sh` do.
fn conf_of_setup(line: &str) -> Option<String> {
    let line = line.strip_prefix("+ ")?;
    let words = shell_words::split(line).ok()?;
    let command: Vec<&str> =
        words.iter().map(String::as_str).take_while(|word| !["&&", "||", ";", "|"].contains(word)).collect();
    let (own, lines) = match command.as_slice() {
        ["module", name, version, lines @ ..] => (
            format!(
                "PACKAGE_NAME=\"{name}\"\nPACKAGE_VERSION=\"{version}\"\nBUILT_MODULE_NAME[0]=\"{name}\"\n\
                 DEST_MODULE_LOCATION[0]=\"/updates\"\n"
            ),
            lines,
        ),
        ["conf", _, lines @ ..] => (String::new(), lines),
        _ => return None,
    };
    Some(own + &lines.join("\n") + "\n")
}
