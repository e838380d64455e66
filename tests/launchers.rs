// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs before the compilers (`[build] launcher`), as Debian packages them, in the sandbox.

mod common;

use common::{Lab, Ran, Series, good};
use rstest::rstest;

fn lab(launcher: &str) -> Lab {
    let lab = Lab::new().kernel(Series::New).packages_and_dependencies(&[launcher]).registered(
        "foo",
        "1.0",
        good(),
    );
    // What our own store has is not compiled at all.
    lab.write(
        "etc/dkms/policy.toml",
        &format!("[build]\nlauncher = \"{launcher}\"\nsandbox = \"require\"\n[store]\nsize = 0\n"),
    );
    lab
}

fn build(lab: &Lab, before: &str) -> Ran {
    let ran = lab.sh(&format!("{before} dkms build foo/1.0 --force -k {}", Series::New.release()));
    ran.succeeds().says_nothing_of("Warning");
    lab.sh(&format!("dkms install foo/1.0 -k {0} && dkms verify -k {0} foo", Series::New.release()))
        .succeeds();
    ran
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn ccache_has_what_was_compiled_before() {
    let lab = lab("ccache");
    let counted = |what: &str| -> u32 {
        // tab-separated: a counter's name, its value
        let said = lab.sh("CCACHE_DIR=/var/cache/dkms/foo ccache --print-stats").stdout();
        let line = said.lines().find_map(|line| line.strip_prefix(what)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("no {what} in {said}"))
    };
    build(&lab, "");
    let missed = counted("cache_miss");
    assert!(missed >= 1, "{missed}");
    let hits = counted("direct_cache_hit") + counted("preprocessed_cache_hit");
    build(&lab, "");
    assert_eq!(counted("cache_miss"), missed);
    assert!(counted("direct_cache_hit") + counted("preprocessed_cache_hit") > hits);
    assert_eq!(lab.sh("find /var/cache/dkms -not -user root").stdout(), "");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn distcc_reaches_its_servers() {
    let lab = lab("distcc");
    let serve = "distccd --daemon --allow 127.0.0.1 --listen 127.0.0.1 --port 36321 --enable-tcp-insecure \
                 --user nobody --log-file /tmp/distccd.log --pid-file /tmp/distccd.pid; \
                 trap 'kill $(cat /tmp/distccd.pid)' EXIT; DISTCC_HOSTS=127.0.0.1:36321";
    build(&lab, serve);
    lab.sh("cat /tmp/distccd.log").says("COMPILE_OK");
}

/// Without servers of theirs these compile here.
#[rstest]
#[case::sccache("sccache")]
#[case::icecc("icecc")]
#[ignore = "runs in the lab (root, network): make test"]
fn the_others_build_as_well(#[case] launcher: &str) {
    build(&lab(launcher), "");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_launcher_that_is_not_there_is_done_without() {
    let lab = Lab::new().kernel(Series::New).registered("foo", "1.0", good());
    lab.write("etc/dkms/policy.toml", "[build]\nlauncher = \"icecc\"\n");
    lab.sh("rm -f /usr/bin/icecc").succeeds();
    lab.sh(&format!("dkms build foo/1.0 -k {}", Series::New.release())).succeeds().says(
        "Warning: getting icecc ready: icecc is not installed; install the package icecc; compiling without it",
    );
}
