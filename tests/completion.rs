// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completion as real shells do it: a line is typed, TAB is pressed, and what the shell offers is
//! what is there. The shells' scripts are where `make install` puts them.

mod common;

use std::collections::BTreeSet;

use common::{ARCH, Lab, good};
use rstest::rstest;

const OLD: &str = "6.1.0-9-amd64";
const NEW: &str = "6.1.0-10-amd64";
const BARE: &str = "6.12.1";

/// Lines, up to the cursor, and the words that their last word can become.
const LINES: [(&str, &[&str]); 26] = [
    ("dkms inst", &["install"]),
    ("/usr/sbin/dkms unb", &["unbuild"]),
    ("dkms add ", &["new/3.0"]),
    ("dkms install ", &["bar-baz/0.1", "foo/1.0", "foo/2.0", "new/3.0"]),
    ("dkms install foo/", &["foo/1.0", "foo/2.0"]),
    ("dkms install 'foo/", &["foo/1.0", "foo/2.0"]),
    ("dkms install -m ", &["bar-baz", "foo", "new"]),
    ("dkms uninstall ", &["foo/1.0"]),
    ("dkms unbuild ", &["foo/1.0", "foo/2.0"]),
    ("dkms remove ", &["bar-baz/0.1", "foo/1.0", "foo/2.0"]),
    ("dkms remove -k 6.1.0-10-amd64 ", &["foo/2.0"]),
    ("dkms remove -m foo -v ", &["1.0", "2.0"]),
    ("dkms build foo/1.0 -k ", &[OLD, NEW]),
    ("dkms kernel_preinst -k ", &[OLD, NEW, BARE]),
    ("dkms uninstall foo/1.0 -k ", &[OLD]),
    ("dkms unbuild foo/2.0 -k ", &[OLD, NEW]),
    ("dkms unbuild -a ", &[ARCH]),
    ("dkms match --templatekernel ", &[OLD]),
    ("dkms install foo/1.0 --kernelver=6.1.0-1", &["--kernelver=6.1.0-10-amd64"]),
    ("dkms status --js", &["--json"]),
    ("dkms build --directive MAKE_", &["MAKE_MATCH="]),
    ("dkms --dkmstree /elsewhere unbuild ", &["other/9"]),
    ("dkms --root /nowhere unbuild ", &[]),
    ("dkms ldtarball ", &["a.tar.gz", "directory", "with blank.tar"]),
    ("dkms --installtree=dir", &["--installtree=directory"]),
    ("dkms build -c ", &["a.tar.gz", "b.txt", "directory", "with blank.tar"]),
];

/// Modules and kernels in all states, and a directory with files to choose from.
fn lab() -> Lab {
    let lab = Lab::new()
        .registered("foo", "1.0", good())
        .registered("foo", "2.0", good())
        .registered("bar-baz", "0.1", good())
        .source("new", "3.0", good());
    for kernel in [OLD, NEW] {
        lab.write(&format!("usr/lib/modules/{kernel}/build/Makefile"), "");
    }
    lab.sh(&format!(
        "mkdir /lib/modules/{BARE}
         cd /var/lib/dkms/foo
         mkdir -p 1.0/{OLD}/{ARCH}/module 2.0/{{{OLD},{NEW}}}/{ARCH}/module
         ln -s 1.0/{OLD}/{ARCH} kernel-{OLD}-{ARCH}
         mkdir -p /elsewhere/other/9/{OLD}/{ARCH}/module /here/directory
         cd /here
         touch a.tar.gz b.txt 'with blank.tar'"
    ))
    .succeeds();
    lab
}

/// A word as the program means it: shells offer it quoted, or with the slash of a directory, and
/// bash without the `--option=` before it.
fn plain(offered: &str, line: &str, is_bash: bool) -> String {
    let offered = offered.replace('\\', "");
    let offered = offered.trim_end_matches('/');
    let option = line.rsplit(' ').next().and_then(|word| Some(word.split_once('=')?.0));
    match option.filter(|_| is_bash) {
        Some(option) => format!("{option}={offered}"),
        None => offered.to_owned(),
    }
}

#[track_caller]
fn offers(lab: &Lab, how: &str) {
    let files = "find /var/lib/dkms /usr/src /lib/modules | sort";
    let before = lab.sh(files).stdout();
    let mut wrong = Vec::new();
    for (line, wanted) in LINES {
        let ran = lab.sh(&format!("cd /here; {how} {}", shell_words::quote(line)));
        let offered = ran.succeeds().stdout();
        let offered: BTreeSet<String> = offered
            .lines()
            .filter(|word| !word.is_empty())
            .map(|word| plain(word, line, how.starts_with("bash")))
            .collect();
        let wanted: BTreeSet<String> = wanted.iter().map(|word| (*word).to_owned()).collect();
        if offered != wanted || !ran.stderr().is_empty() {
            wrong.push(format!("{line:?}: wanted {wanted:?}\n{ran}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(lab.sh(files).stdout(), before, "completion has changed something");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn bash_offers_what_is_there() {
    let lab = lab().packages(&["bsdutils"]);
    lab.write("offered.bash", include_str!("lib/completion/offered.bash"));
    offers(&lab, "bash /offered.bash");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn zsh_offers_what_is_there() {
    let lab = lab().packages_and_dependencies(&["zsh"]);
    lab.write("offered.zsh", include_str!("lib/completion/offered.zsh"));
    offers(&lab, "zsh /offered.zsh");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn fish_offers_what_is_there() {
    let lab = lab().packages_and_dependencies(&["fish"]);
    // What stands behind a tab is the meaning.
    lab.write("offered.sh", "fish -c 'complete -C $argv[1]' -- \"$1\" | cut -f 1\n");
    offers(&lab, "sh /offered.sh");
}
