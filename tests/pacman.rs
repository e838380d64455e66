// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real pacman, with packages that the real makepkg has made: kernels with real headers and
//! modules, among hooks in mkinitcpio's places which take the old kernel out of /boot before the
//! transaction and put the new one there after it.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{Lab, Series};
use rstest::rstest;

/// What mkinitcpio's hooks do at these places.
const STUBS: [(&str, &str, &str); 2] = [
    ("60-stub-remove", "PreTransaction", "rm -f /boot/vmlinuz; echo STUB 60"),
    ("90-stub-install", "PostTransaction", "cp /usr/lib/modules/*/vmlinuz /boot/; echo STUB 90"),
];

/// A machine with pacman and our package, on which nothing else is installed by it yet.
fn machine() -> Lab {
    prepared(Lab::without_dkms())
}

fn prepared(lab: Lab) -> Lab {
    let lab = lab.headers(Series::Old.release()).headers(Series::New.release()).pacman();
    lab.pacman_install_ours().succeeds();
    for (name, when, script) in STUBS {
        let hook = format!(
            "[Trigger]\nType = Path\nOperation = Install\nOperation = Upgrade\nOperation = Remove\n\
             Target = usr/lib/modules/*/vmlinuz\n[Action]\nWhen = {when}\nExec = /bin/sh -c \"{script}\"\n"
        );
        lab.write(&format!("usr/share/libalpm/hooks/{name}.hook"), &hook);
    }
    // What the packages are to bring is not there before they do.
    for series in [Series::Old, Series::New] {
        let release = series.release();
        lab.sh(&format!(
            "d=/tmp/headers-{release}/usr/lib/modules/{release}; mkdir -p $d
             cp -aL /usr/src/linux-headers-{release} $d/build
             d=/tmp/kernel-{release}/usr/lib/modules/{release}; mkdir -p $d
             echo {release} >$d/vmlinuz; touch $d/modules.order $d/modules.builtin
             rm -rf /lib/modules/{release} /usr/src/linux-headers-{release}"
        ))
        .succeeds();
    }
    kernel(&lab, Series::Old);
    lab
}

/// Puts a kernel and its headers into the repository.
fn kernel(lab: &Lab, series: Series) {
    let release = series.release();
    let version = release.replace('-', ".");
    lab.pacman_package("linux-test", &version, &format!("/tmp/kernel-{release}"), "");
    lab.pacman_package("linux-test-headers", &version, &format!("/tmp/headers-{release}"), "");
}

/// Puts a module's sources into the repository.
fn module(lab: &Lab, version: &str, body: &str, conf: &str) {
    let source = format!("tmp/foo-{version}/usr/src/foo-{version}");
    lab.write(
        &format!("{source}/Makefile"),
        "obj-m := foo.o\n$(shell echo $(KERNELRELEASE) >>/tmp/compiled)\n",
    );
    lab.write(
        &format!("{source}/dkms.conf"),
        &format!(
            "PACKAGE_NAME=foo\nPACKAGE_VERSION={version}\nBUILT_MODULE_NAME[0]=foo\n\
             DEST_MODULE_LOCATION[0]=/updates/dkms\nAUTOINSTALL=yes\n{conf}\n"
        ),
    );
    lab.write(
        &format!("{source}/foo.c"),
        &format!(
            "#include <linux/module.h>\nstatic int __init start(void) {{ {body} }}\n\
             static void __exit stop(void) {{ }}\nmodule_init(start);\nmodule_exit(stop);\n\
             MODULE_LICENSE(\"GPL\");\nMODULE_VERSION(\"{version}\");\n"
        ),
    );
    lab.pacman_package("foo-dkms", version, &format!("/tmp/foo-{version}"), "depends=(dkms)");
}

const EVERYTHING: &str = "-Sy linux-test linux-test-headers foo-dkms";

/// It runs the old kernel with the module, and the new one is in the repository.
fn about_to_be_updated(body: &str, conf: &str) -> Lab {
    updated_soon(machine(), body, conf)
}

fn updated_soon(lab: Lab, body: &str, conf: &str) -> Lab {
    module(&lab, "1.0", body, conf);
    lab.pacman_does(EVERYTHING).succeeds();
    lab.assert_installed("foo", "1.0", Series::Old.release());
    kernel(&lab, Series::New);
    lab
}

const GOOD: &str = "return 0;";

/// It compiles for the older kernel alone.
fn broken_for_the_new() -> String {
    let broken = "\n#include <generated/utsrelease.h>\n_Static_assert(__builtin_strcmp(UTS_RELEASE, \"NEW\"), \"knows nothing of this kernel\");\nreturn 0;";
    broken.replace("NEW", Series::New.release())
}

#[track_caller]
fn assert_boots(lab: &Lab, series: Series) {
    assert_eq!(lab.sh("cat /boot/vmlinuz").stdout().trim(), series.release());
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernels_update_brings_its_modules() {
    let lab = about_to_be_updated(GOOD, "BOOT_CRITICAL=yes");
    lab.sh("rm -f /tmp/compiled").succeeds();
    let ran = lab.pacman_does("-Syu");
    ran.succeeds();
    let said = ran.to_string();
    let place = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text}: {said}"));
    assert!(place("Trying kernel modules") < place("STUB 60"), "{said}");
    assert!(place("Installing kernel modules") < place("STUB 90"), "{said}");
    lab.assert_installed("foo", "1.0", Series::New.release());
    assert_boots(&lab, Series::New);
    lab.sh(&format!("ls -d /usr/lib/modules/{}", Series::Old.release())).fails();
    lab.sh("dkms status").says_nothing_of(Series::Old.release());
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_update_after_which_the_machine_would_not_boot_is_stopped() {
    let lab = about_to_be_updated(&broken_for_the_new(), "BOOT_CRITICAL=yes");
    lab.pacman_does("-Syu").fails().says("would lack a module").says_nothing_of("STUB 60");
    assert_boots(&lab, Series::Old);
    lab.assert_installed("foo", "1.0", Series::Old.release());
    lab.pacman_does("-Q linux-test").says(&Series::Old.release().replace('-', "."));
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_update_without_an_optional_module_goes_through() {
    let lab = about_to_be_updated(&broken_for_the_new(), "");
    lab.pacman_does("-Syu").succeeds().says("boots without it").says("STUB 90");
    assert_boots(&lab, Series::New);
    lab.assert_not_installed("foo", Series::New.release());
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_module_stays_until_its_successor_is_in_place_or_its_package_is_gone() {
    let lab = machine();
    let old = Series::Old.release();
    module(&lab, "1.0", GOOD, "");
    lab.pacman_does(EVERYTHING).succeeds();

    module(&lab, "2.0", "return no_such_function();", "");
    lab.pacman_does("-Syu").succeeds().says("what is installed there stays");
    lab.sh(&format!("modinfo -k {old} -F version foo")).succeeds().says("1.0");

    module(&lab, "3.0", GOOD, "");
    lab.pacman_does("-Syu").succeeds();
    lab.assert_installed("foo", "3.0", old);

    lab.pacman_does("-R foo-dkms").succeeds();
    lab.assert_not_installed("foo", old);
    assert_eq!(lab.sh("dkms status; ls /var/lib/dkms").stdout(), "");
}

/// What the distribution's hook for it does, between the modules and nothing else.
const KERNEL_INSTALL: &str = "[Trigger]\nType = Path\nOperation = Install\nOperation = Upgrade\n\
    Target = usr/lib/modules/*/vmlinuz\n[Action]\nWhen = PostTransaction\nNeedsTargets\n\
    Exec = /bin/sh -c 'while read -r image; do k=${image#usr/lib/modules/}; \
    kernel-install add ${k%/vmlinuz} /$image || true; done'\n";

#[rstest]
#[case::good(GOOD.to_owned(), true)]
#[case::broken(broken_for_the_new(), false)]
#[ignore = "runs in the lab (root, network): make test"]
fn where_kernel_install_makes_the_entries_a_kernel_without_its_module_gets_none(
    #[case] body: String,
    #[case] boots: bool,
) {
    let lab = prepared(Lab::without_dkms().boot_loader_spec());
    lab.write("usr/share/libalpm/hooks/90-kernel-install.hook", KERNEL_INSTALL);
    // Nobody looks before.
    lab.write("etc/dkms/policy.toml", "[boot]\npreflight = \"off\"\n");
    let lab = updated_soon(lab, &body, "BOOT_CRITICAL=yes");
    lab.assert_boots(Series::Old.release());

    let ran = lab.pacman_does("-Syu");
    ran.succeeds().says_nothing_of("Trying modules");
    if boots {
        lab.assert_boots(Series::New.release());
    } else {
        ran.says("is held");
        lab.assert_withheld(Series::New.release());
    }
}
