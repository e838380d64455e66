// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a module's own build system cannot do, with a real kernel's headers and compiler.

mod common;

use common::{Lab, Series, Source, good};
use rstest::rstest;

/// Where a build might put things that outlive it.
const PLACES: &str = "/etc /usr /usr/lib /root /boot /opt /srv/open /var/lib/dkms/bar/1.0/build \
                      /var/lib/dkms /lib/modules /usr/src/reach-1.0 /tmp /var/tmp /run";

/// A module whose makefile tries them all, and to be heard elsewhere; its conf says so.
fn reaching() -> Source {
    good().conf("PRE_BUILD=\"reach.sh\"")
}

/// `daemon` is what it would leave running; roots share the processes of this machine.
fn lab(daemon: &str) -> Lab {
    let lab = Lab::new().kernel(Series::New).registered("bar", "1.0", good()).registered(
        "reach",
        "1.0",
        reaching(),
    );
    // Whoever may write to everything that everybody may write to would reach that.
    lab.sh("mkdir -p -m 777 /srv/open /var/lib/dkms/bar/1.0/build").succeeds();
    lab.executable(
        "usr/src/reach-1.0/reach.sh",
        &format!(
            "#!/bin/bash\n\
             for place in {PLACES} \"$HOME\"; do echo left >$place/mine && echo \"wrote $place/mine\"; done\n\
             exec 3<>/dev/tcp/127.0.0.1/4711 && echo talked\n\
             cp /bin/sleep ./{daemon} && setsid ./{daemon} 600 &\n\
             sleep 0.2\n\
             touch /etc/passwd || exit 3\n"
        ),
    )
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_build_reaches_nothing_but_its_own_directory() {
    let release = Series::New.release();
    let lab = lab("kept-in");
    // Somebody does listen there.
    let listen = "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 4711)); s.accept()' & \
                  trap \"kill $!\" EXIT; sleep 0.5;";
    let ran = lab.sh(&format!("{listen} dkms build reach/1.0 -k {release}"));
    ran.exits(3)
        .says("The pre_build script failed with status 3.")
        .says("[module.\"reach\"]\nsandbox = \"off\"\ninto /etc/dkms/policy.d/reach.toml")
        .says_nothing_of("Warning");
    let log = lab.sh("cat /var/lib/dkms/reach/1.0/build/make.log");
    // What is the build's alone it may write to.
    log.says("wrote /tmp/mine").says("wrote /var/tmp/mine").says("/dev/tcp/127.0.0.1/4711: ");
    for place in PLACES.split_whitespace().filter(|place| !place.contains("tmp")) {
        log.says_nothing_of(&format!("wrote {place}/mine\n"));
    }
    log.says_nothing_of("talked");
    assert_eq!(lab.sh("find / -xdev -name mine; find /tmp /dev/shm -name mine").stdout(), "");
    lab.sh("cat /proc/[0-9]*/comm 2>/dev/null || true").says_nothing_of("kept-in");
    // What it leaves is nobody's but root's.
    assert_eq!(lab.sh("find /var/lib/dkms -not -user root").stdout(), "");
    lab.sh("ls /var/lib/dkms/.hooks/sandbox").says_nothing_of("6552");
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_line_that_the_failure_names_lets_it_do_as_it_likes() {
    let release = Series::New.release();
    let lab = lab("let-out");
    lab.sh(&format!("dkms build reach/1.0 -k {release}")).exits(3);
    lab.write("etc/dkms/policy.d/reach.toml", "[module.\"reach\"]\nsandbox = \"off\"\n");
    lab.sh(&format!("dkms build reach/1.0 -k {release}; pkill let-out; cat /etc/mine"))
        .succeeds()
        .says("left");
}

/// Without the right to mount there are no namespaces, as in most containers.
#[rstest]
#[case::auto("auto", 3)]
#[case::require("require", 10)]
#[ignore = "runs in the lab (root, network): make test"]
fn where_no_namespaces_can_be_had_the_policy_decides(#[case] sandbox: &str, #[case] code: i32) {
    let release = Series::New.release();
    let lab = lab(&format!("left-{sandbox}"));
    lab.write("etc/dkms/policy.toml", &format!("[build]\nsandbox = \"{sandbox}\"\n"));
    let ran = lab.sh(&format!(
        "setpriv --bounding-set -sys_admin --inh-caps -sys_admin dkms build reach/1.0 -k {release}; code=$?; \
         pkill left-{sandbox}; exit $code"
    ));
    ran.exits(code).says("making namespaces: EPERM");
    if sandbox == "auto" {
        ran.says("Warning: Modules are built with less of a sandbox here");
        let log = lab.sh("cat /var/lib/dkms/reach/1.0/build/make.log");
        for place in ["/etc", "/usr", "/root", "/var/lib/dkms", "/usr/src/reach-1.0"] {
            log.says_nothing_of(&format!("wrote {place}/mine\n"));
        }
    } else {
        ran.says("No sandbox can be made for the build of reach, and policy requires one");
    }
}

/// The links are read as root, who may read everything.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_result_that_is_a_link_to_elsewhere_is_not_read() {
    let release = Series::New.release();
    let lab = Lab::new().kernel(Series::New).registered(
        "foo",
        "1.0",
        good().conf("MAKE=\"ln -s /etc/shadow foo.ko\""),
    );
    lab.sh(&format!("dkms build foo/1.0 -k {release}"))
        .exits(1)
        .says("/var/lib/dkms/foo/1.0/build/foo.ko is a link out of the build directory");
}
