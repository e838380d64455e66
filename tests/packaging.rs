// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make install`: every family gets its files, below DESTDIR and nowhere else, each hook inert
//! where the binary is not.
#![allow(clippy::disallowed_types, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::Lab;
use rstest::rstest;

const EVERYWHERE: [&str; 12] = [
    "usr/lib/dkms/common.postinst",
    "usr/lib/dkms/dkms_autoinstaller",
    "usr/lib/kernel/install.d/15-dkms.install",
    "usr/lib/kernel/install.d/88-dkms-proof.install",
    "usr/lib/systemd/system/dkms.service",
    "usr/share/bash-completion/completions/dkms",
    "usr/share/fish/vendor_completions.d/dkms.fish",
    "usr/share/man/man5/dkms-policy.toml.5",
    "usr/share/man/man5/dkms.conf.5",
    "usr/share/man/man8/dkms.8",
    "usr/share/zsh/FUNCTIONS/_dkms",
    "BINARY",
];

const RED_HAT: [&str; 4] = [
    "etc/dkms/framework.conf",
    "etc/dnf/libdnf5-plugins/actions.d/dkms.actions",
    "etc/grub.d/zz_dkms",
    "usr/lib/dkms/dnf/dkms.py",
];

const ARCH: [&str; 7] = [
    "etc/dkms/framework.conf",
    "etc/grub.d/zz_dkms",
    "usr/lib/initcpio/post/dkms",
    "usr/share/libalpm/hooks/50-dkms-preflight.hook",
    "usr/share/libalpm/hooks/70-dkms-install.hook",
    "usr/share/libalpm/hooks/70-dkms-upgrade.hook",
    "usr/share/libalpm/hooks/71-dkms-remove.hook",
];

const GENTOO: [&str; 4] = [
    "etc/dkms/framework.conf",
    "etc/grub.d/zz_dkms",
    "usr/lib/kernel/preinst.d/15-dkms.install",
    "usr/lib/kernel/preinst.d/88-dkms-proof.install",
];

const VOID: [&str; 5] = [
    "etc/dkms/framework.conf",
    "etc/grub.d/zz_dkms",
    "etc/kernel.d/post-install/10-dkms",
    "etc/kernel.d/post-install/40-dkms-proof",
    "etc/kernel.d/pre-remove/10-dkms",
];

const ALPINE: [&str; 3] = ["etc/dkms/framework.conf", "etc/grub.d/zz_dkms", "etc/kernel-hooks.d/dkms.hook"];

/// A bundle has nothing in /etc.
const CLEAR: [&str; 3] = [
    "usr/lib/systemd/system/dkms-new-kernel.service",
    "usr/share/kernel/cmdline.d/clr-ignore-mod-sig.conf",
    "usr/lib/motd.d/clr-ignore-mod-sig.motd",
];

const DEBIAN: [&str; 9] = [
    "etc/dkms/framework.conf",
    "etc/grub.d/zz_dkms",
    "etc/initramfs/post-update.d/dkms",
    "etc/apt/apt.conf.d/99dkms",
    "etc/kernel/header_postinst.d/dkms",
    "etc/kernel/postinst.d/00-dkms",
    "etc/kernel/postinst.d/dkms",
    "etc/kernel/preinst.d/dkms",
    "etc/kernel/prerm.d/dkms",
];

/// What packages of modules are made by: settings, but for a bundle.
const TEMPLATES: [&str; 14] = [
    "template-dkms-mkbmdeb/debian/changelog",
    "template-dkms-mkbmdeb/debian/control",
    "template-dkms-mkbmdeb/debian/copyright",
    "template-dkms-mkbmdeb/debian/postinst",
    "template-dkms-mkbmdeb/debian/postrm",
    "template-dkms-mkbmdeb/debian/rules",
    "template-dkms-mkdeb/debian/changelog",
    "template-dkms-mkdeb/debian/control",
    "template-dkms-mkdeb/debian/copyright",
    "template-dkms-mkdeb/debian/postinst",
    "template-dkms-mkdeb/debian/prerm",
    "template-dkms-mkdeb/debian/rules",
    "template-dkms-mkdeb/debian/source/format",
    "template-dkms-mkrpm.spec",
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Installs with a stand-in for the binary, which is not what is looked at here.
fn install(dest: &Path, family: &str) -> std::process::Output {
    let tree = dest.join("repository");
    fs_err::create_dir_all(tree.join("build")).unwrap();
    let parts = ["packaging", "hooks", "install.d", "apt", "clear-linux", "dnf", "pacman", "man"];
    let copied = Command::new("cp").arg("-r").args(parts).arg(&tree).current_dir(repository()).status();
    assert!(copied.unwrap().success());
    fs_err::write(tree.join("build/dkms"), "#!/bin/sh\n").unwrap();
    Command::new(tree.join("packaging/install.sh"))
        .arg(dest.join("root"))
        .args(["/usr", family])
        .output()
        .unwrap()
}

fn files(directory: &Path) -> BTreeSet<String> {
    let listed =
        Command::new("find").args([".", "-type", "f", "-printf", "%P\n"]).current_dir(directory).output();
    String::from_utf8(listed.unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

#[rstest]
#[case::debian("debian", "usr/sbin/dkms", "vendor-completions", &DEBIAN)]
#[case::redhat("redhat", "usr/sbin/dkms", "site-functions", &RED_HAT)]
#[case::arch("arch", "usr/bin/dkms", "site-functions", &ARCH)]
#[case::clear("clear", "usr/bin/dkms", "site-functions", &CLEAR)]
#[case::gentoo("gentoo", "usr/sbin/dkms", "site-functions", &GENTOO)]
#[case::void("void", "usr/bin/dkms", "site-functions", &VOID)]
#[case::alpine("alpine", "usr/sbin/dkms", "site-functions", &ALPINE)]
fn each_family_gets_its_files(
    #[case] family: &str,
    #[case] binary: &str,
    #[case] zsh_functions: &str,
    #[case] own: &[&str],
) {
    let dest = tempfile::tempdir().unwrap();
    let ran = install(dest.path(), family);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let want = EVERYWHERE
        .iter()
        .chain(own)
        .map(|path| if *path == "BINARY" { binary } else { path }.replace("FUNCTIONS", zsh_functions));
    let is_bundle = family == "clear";
    let templates = if is_bundle { "usr/share/dkms" } else { "etc/dkms" };
    let want: BTreeSet<String> =
        want.chain(TEMPLATES.iter().map(|path| format!("{templates}/{path}"))).collect();
    assert_eq!(files(&dest.path().join("root")), want);
    assert_eq!(dest.path().join("root/var/lib/dkms").is_dir(), !is_bundle);
    assert_eq!(dest.path().join("root/etc").exists(), !is_bundle);
    let wanted = dest.path().join("root/usr/lib/systemd/system/update-triggers.target.wants");
    assert_eq!(wanted.join("dkms-new-kernel.service").exists(), is_bundle);
    let hook = fs_err::read_link(dest.path().join("root/usr/lib/dkms/hook")).unwrap();
    assert_eq!(hook, Path::new("../../sbin/dkms"));
}

/// Settings and what is for people stand elsewhere in it.
#[rstest]
#[case::debian("debian")]
#[case::redhat("redhat")]
#[case::arch("arch")]
#[case::clear("clear")]
#[case::gentoo("gentoo")]
#[case::void("void")]
#[case::alpine("alpine")]
fn the_manual_names_every_hook(#[case] family: &str) {
    let dest = tempfile::tempdir().unwrap();
    install(dest.path(), family);
    let manual = fs_err::read_to_string(repository().join("man/dkms.8")).unwrap();
    for file in files(&dest.path().join("root")) {
        let is_hook = ["etc/", "usr/lib/", "usr/share/libalpm/"].iter().any(|start| file.starts_with(start));
        let named = match file.strip_prefix("usr/lib/systemd/system/") {
            Some(unit) => manual.contains(&format!(".It Pa {unit}\n")),
            None => {
                // Of a template the manual names the directory.
                let top = file.find("/debian/").map_or(file.as_str(), |at| &file[..at]);
                manual.contains(&format!(".It Pa /{top}"))
            }
        };
        assert!(!is_hook || named, "{file}");
    }
}

#[test]
fn an_unknown_family_is_refused() {
    let dest = tempfile::tempdir().unwrap();
    let ran = install(dest.path(), "plan9");
    assert!(!ran.status.success());
    assert!(String::from_utf8_lossy(&ran.stderr).contains("unknown FAMILY 'plan9'"));
    assert!(!dest.path().join("root").exists());
}

#[test]
fn an_administrators_settings_survive_a_second_installation() {
    let dest = tempfile::tempdir().unwrap();
    install(dest.path(), "debian");
    let settings = dest.path().join("root/etc/dkms/framework.conf");
    fs_err::write(&settings, "verbose=1\n").unwrap();
    install(dest.path(), "debian");
    assert_eq!(fs_err::read_to_string(&settings).unwrap(), "verbose=1\n");
}

/// A hook that a removed package has left behind must not fail anybody's update, nor ask another
/// dkms that has come in its place.
#[test]
fn every_hook_is_inert_without_the_package() {
    let hooks = Command::new("find")
        .args(["hooks", "install.d", "-type", "f", "-perm", "-u+x"])
        .current_dir(repository())
        .output()
        .unwrap();
    let hooks = String::from_utf8(hooks.stdout).unwrap();
    assert!(hooks.lines().count() >= 9, "{hooks}");
    let apt = fs_err::read_to_string(repository().join("apt/99dkms")).unwrap();
    assert!(apt.contains("[ ! -x /usr/lib/dkms/hook ] ||"), "{apt}");
    let dnf = fs_err::read_to_string(repository().join("dnf/dkms.py")).unwrap();
    assert!(
        dnf.contains("DKMS = \"/usr/lib/dkms/hook\"") && dnf.contains("not os.access(DKMS, os.X_OK)"),
        "{dnf}"
    );
    // A program that is not there, or fails, stops dnf 5 only where a line asks for that.
    let dnf5 = fs_err::read_to_string(repository().join("dnf/dkms.actions")).unwrap();
    assert!(dnf5.contains(":/usr/lib/dkms/hook hook dnf5") && !dnf5.contains("raise_error="), "{dnf5}");
    for hook in hooks.lines() {
        let text = fs_err::read_to_string(repository().join(hook)).unwrap();
        // The paths are absolute, so that only reading can tell on a machine that has a dkms.
        let in_etc = ["kernel", "grub", "initramfs", "void", "alpine"]
            .iter()
            .any(|to| hook.starts_with(&format!("hooks/{to}/")));
        let only_ours = if in_etc { "/usr/lib/dkms/hook" } else { "/usr/sbin/dkms" };
        assert!(text.contains(&format!("[ -x {only_ours} ] || exit 0")), "{hook} has no guard");
        assert!(text.lines().count() <= 9, "{hook} is no thin file any more");
    }
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_bundle_lies_below_usr_and_systemd_understands_its_units() {
    let bundle = || fs_err::read(common::our_bundle()).unwrap();
    let ours = bundle();
    assert!(ours == bundle(), "the same files make another archive");
    let lab = Lab::without_dkms().boot_loader_spec();
    fs_err::write(lab.path("tmp/bundle.tar.gz"), ours).unwrap();
    let listing = lab.sh("tar tzf /tmp/bundle.tar.gz").stdout();
    assert_eq!(listing.lines().find(|path| !path.starts_with("usr/")), None);
    lab.sh("tar xzf /tmp/bundle.tar.gz -C /; dkms --version").succeeds().says("dkms-4");
    // What Clear Linux has, where sbin is bin.
    lab.sh("ln -s ../bin/dkms /usr/sbin/dkms").succeeds();
    lab.write("etc/systemd/system/update-triggers.target", "[Unit]\nDescription=Update triggers\n");
    let looked = lab.sh("systemd-analyze verify --man=no dkms-new-kernel.service dkms.service 2>&1");
    looked.succeeds();
    assert_eq!(looked.stdout(), "");
    // It can find fault.
    let unit = "/usr/lib/systemd/system/dkms-new-kernel.service";
    lab.sh(&format!("sed -i s/oneshot/sometimes/ {unit}")).succeeds();
    lab.sh("systemd-analyze verify --man=no dkms-new-kernel.service 2>&1").says("sometimes");
}
