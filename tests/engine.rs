// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the engine promises beyond single modules, with a real compiler: offline images, several
//! processes at once, one pool of jobs, runs that were killed.

mod common;

use common::{Lab, Series, broken, good};
use rstest::rstest;

/// A view of the lab's root without its /proc: as an image that is not running would be.
const IMAGE: &str = "mkdir -p /image && mount --bind / /image && mkdir -p /image/lib \
    && for part in usr etc var; do mount --bind /$part /image/$part; done;";

/// In the lab / is no mount point, so that the image cannot be lent a /dev.
const DEVICES: &str = "mount --rbind /dev /image/dev;";

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_offline_image_is_built_for_without_the_running_kernel() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered("foo", "1.0", good());

    // Without -k there is no kernel to build for: the running one is the host's.
    lab.sh(&format!("{IMAGE} {DEVICES} dkms --root /image install foo/1.0"))
        .fails()
        .says("the running kernel is not this image's");
    lab.sh(&format!("{IMAGE} dkms --root /image autoinstall -k {release}"))
        .exits(1)
        .says("mount /dev in the image");
    lab.sh(&format!("{IMAGE} {DEVICES} dkms --root /image autoinstall -k {release}")).succeeds();
    lab.assert_installed("foo", "1.0", release);
    lab.sh(&format!("{IMAGE} dkms --root /image status"))
        .succeeds()
        .says(&format!("foo/1.0, {release}, x86_64: installed"));
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_image_that_is_none_is_refused() {
    let lab = Lab::new();
    lab.sh("dkms --root /etc/passwd status").exits(1).says("--root /etc/passwd is not a directory");
}

/// One builds for as long as it likes; another waits for the policy's time, and says for whom.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn who_waits_too_long_is_told_for_whom_and_what_to_do() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered("foo", "1.0", good().conf("PRE_BUILD=\"slow\""));
    let lab = lab
        .executable("usr/src/foo-1.0/slow", "#!/bin/sh\ntouch begun\nuntil [ -e go ]; do sleep 0.1; done\n");
    lab.write("etc/dkms/policy.toml", "[locks]\ntimeout = 2\n");
    let ran = lab.sh(&format!(
        "build=/var/lib/dkms/foo/1.0/build
         dkms build foo/1.0 -k {release} >/tmp/first 2>&1 & first=$!
         until [ -e $build/begun ]; do sleep 0.1; done
         echo \"the first is $first\"
         dkms status # waits for nobody
         began=$(date +%s); code=0; dkms build foo/1.0 -k {release} || code=$?
         echo \"the second ended with $code after $(($(date +%s) - began)) s\"
         touch $build/go
         wait $first && dkms build foo/1.0 -k {release} && dkms status"
    ));
    ran.succeeds();
    let said = ran.stdout();
    let first = said.lines().find_map(|line| line.strip_prefix("the first is ")).unwrap();
    let lock = "/var/lib/dkms/.hooks/locks/module-foo-1.0";
    ran.says(&format!("waiting for process {first} (dkms build foo/1.0 -k) to release {lock}\n"));
    ran.says(&format!(
        "process {first} (dkms build foo/1.0 -k) has held {lock} for 2 s, which is as long as the policy has us \
         wait (timeout in [locks]); see what it does, then try again\n"
    ));
    assert!(
        said.contains("the second ended with 1 after 2 s\n") || said.contains("with 1 after 3 s\n"),
        "{ran}"
    );
    ran.says(&format!("foo/1.0, {release}, x86_64: built\n"));
}

/// Eight processes that want the same: each waits for the others, nobody fails.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn processes_at_once_do_not_get_in_each_others_way() {
    let (old, new) = (Series::Old.release(), Series::New.release());
    let lab = Lab::new().kernel(Series::Old).kernel(Series::New).registered("foo", "1.0", good()).registered(
        "bar",
        "1.0",
        good(),
    );

    lab.sh(&format!(
        "set -m; for k in {old} {new}; do for i in 1 2; do \
           dkms autoinstall -k $k & dkms install foo/1.0 -k $k & done; done; \
         failed=0; for job in $(jobs -p); do wait $job || failed=1; done; exit $failed"
    ))
    .succeeds();
    for release in [old, new] {
        lab.assert_installed("foo", "1.0", release);
        lab.assert_installed("bar", "1.0", release);
    }
    lab.sh("ls -A /var/lib/dkms/.hooks/journal").succeeds().says_nothing_of("-");
}

/// However many modules are built side by side, no more compilers run than there are jobs.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn all_modules_together_run_no_more_jobs_than_asked_for() {
    let release = Series::New.release();
    // Notes how many of its kind run while it runs; the compiler proper has the same name below.
    let counting = "#!/bin/sh\n\
        echo start >>/tmp/calls\n\
        running=/tmp/running; mkdir -p $running; touch $running/$$\n\
        ls $running | wc -l >>/tmp/most\n\
        sleep 0.3\n\
        rm -f $running/$$\n";
    let mut lab = Lab::new().kernel(Series::New).executable("usr/local/bin/counting-job", counting);
    for name in ["ma", "mb", "mc", "md"] {
        // Four recipes that a make with jobs of its own would run at once.
        let conf = format!(
            "MAKE[0]=\"make -f /usr/src/jobs.mk && make -C $kernel_source_dir M=$dkms_tree/{name}/1.0/build\""
        );
        lab = lab.registered(name, "1.0", good().conf(&conf));
    }
    // The notes are for all of them.
    lab.write("etc/dkms/policy.toml", "[build]\nsandbox = \"off\"\n");
    lab.write("usr/src/jobs.mk", "all: a b c d\na b c d:\n\tcounting-job\n.PHONY: all a b c d\n");

    lab.sh(&format!("rm -f /tmp/most; dkms autoinstall -j 2 -k {release}")).succeeds();
    let most = lab.sh("sort -n /tmp/most | tail -n 1").stdout();
    assert_eq!(most.trim(), "2", "two jobs were asked for");
}

/// A build is remembered with all that the compiler read, not with the release alone.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn what_was_built_before_of_the_same_things_is_not_compiled_again() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered("foo", "1.0", good());
    let again = format!(
        "dkms unbuild foo/1.0 -k {release}; dkms autoinstall -k {release}; \
         tail -n 2 /var/lib/dkms/foo/1.0/{release}/*/log/make.log"
    );
    let stored = "Taken from the store";
    lab.run(["install", "foo/1.0", "-k", release]).succeeds();
    lab.sh(&again).succeeds().says(stored);
    lab.assert_installed("foo", "1.0", release);
    for change in [
        "echo >>$(realpath /lib/modules/$K/source)/include/linux/module.h",
        "echo >>/lib/modules/$K/build/include/generated/autoconf.h",
        "cp /bin/true /usr/local/bin/clang-99",
    ] {
        lab.sh(&format!("K={release}; {change}")).succeeds();
        lab.sh(&again).succeeds().says_nothing_of(stored);
        lab.sh(&again).succeeds().says(stored);
    }
    lab.assert_installed("foo", "1.0", release);
}

/// A run that is killed leaves what worked, and the next one finishes.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_killed_run_loses_nothing_and_the_next_one_finishes() {
    let release = Series::New.release();
    let slow = good().conf("PRE_BUILD=\"slow.sh\"").critical();
    let lab = Lab::new()
        .kernel(Series::New)
        .registered("foo", "1.0", good().critical())
        .image_stand_in(release)
        .initramfs_stand_in();
    lab.run(["install", "foo/1.0", "-k", release]).succeeds();
    let lab = lab.source("foo", "2.0", slow).executable("usr/src/foo-2.0/slow.sh", "#!/bin/sh\nsleep 60\n");
    lab.run(["add", "foo/2.0"]).succeeds();

    lab.sh(&format!(
        "set +e; dkms install foo/2.0 -k {release} & sleep 2; kill -KILL $!; wait $! 2>/dev/null; \
         pkill -f '^/bin/sh .*slow.sh$'; dkms gate"
    ))
    .says(&format!("{release}: pending"));
    lab.assert_installed("foo", "1.0", release);
    lab.sh("printf '#!/bin/sh\\n' >/usr/src/foo-2.0/slow.sh").succeeds();
    lab.run(["install", "foo/2.0", "-k", release]).succeeds();
    lab.assert_installed("foo", "2.0", release);
    lab.run(["gate"]).says(&format!("{release}: proven"));
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_signal_ends_the_build_and_gives_its_number() {
    let release = Series::New.release();
    let lab = Lab::new()
        .kernel(Series::New)
        .registered("foo", "1.0", good().conf("PRE_BUILD=\"slow.sh\""))
        .executable("usr/src/foo-1.0/slow.sh", "#!/bin/sh\nsleep 71\n");

    lab.sh(&format!(
        "set +e; dkms install foo/1.0 -k {release} & dkms=$!; sleep 2; kill -TERM $dkms; wait $dkms; code=$?; \
         pgrep -f '^sleep 71$' && exit 1; exit $code"
    ))
    .exits(128 + 15)
    .says("Stopped by signal 15");
    lab.run(["status"]).says("foo/1.0: added");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_build_over_its_time_is_ended() {
    let release = Series::New.release();
    let lab = Lab::new()
        .kernel(Series::New)
        .registered("slow", "1.0", good().conf("MAKE[0]=\"sleep 60\""))
        .registered("other", "1.0", good());
    lab.write("etc/dkms/policy.toml", "[build]\ntimeout = 20\n");

    lab.run(["autoinstall", "-k", release]).exits(11).says("longer than [build] timeout allows");
    lab.assert_installed("other", "1.0", release);
}

/// `install` builds what the module depends on first, whatever the order on the command line.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn dependencies_are_installed_first() {
    let release = Series::New.release();
    let lab = Lab::new()
        .kernel(Series::New)
        .registered("base", "1.0", good())
        .registered("top", "1.0", good().conf("BUILD_DEPENDS[0]=\"base\""))
        .registered("lost", "1.0", good().conf("BUILD_DEPENDS[0]=\"bad\""))
        .registered("bad", "1.0", broken());

    lab.run(["install", "top/1.0", "-k", release]).succeeds();
    lab.assert_installed("base", "1.0", release);
    lab.assert_installed("top", "1.0", release);
    lab.run(["install", "lost/1.0", "-k", release]).exits(13).says("missing BUILD_DEPENDS: bad");
}
