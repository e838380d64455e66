// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dkms mkdriverdisk`: what installers find on each kind of disk, read back by the usual tools, and what
//! the packages on it do where they are installed.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{ARCH, Lab, Ran, Series};
use rstest::rstest;

const TOOLS: [&str; 4] = ["dosfstools", "mtools", "genisoimage", "cpio"];

fn lab(disk: &[(&str, &str)]) -> Lab {
    Lab::new().packages_and_dependencies(&TOOLS).pair(disk)
}

/// Both kernels, one of them for two machines, as options.
fn everything() -> String {
    let (old, new) = (Series::Old.release(), Series::New.release());
    format!("-k {old}/{ARCH} -k {new}/{ARCH} -k {new}/other")
}

/// Makes a disk, and unpacks it below `/tmp/disk`.
fn made(lab: &Lab, arguments: &str, image: &str) -> Ran {
    let image = format!("/var/lib/dkms/pair/1.0/driver_disk/{image}");
    let made = lab.sh(&format!("dkms mkdriverdisk pair/1.0 {arguments}"));
    made.succeeds().says(&format!("Disk image location: {image}\n"));
    let unpack = match image.rsplit_once('.').unwrap().1 {
        "img" => format!("mcopy -s -n -i {image} :: /tmp/disk"),
        // As it would be mounted: with Rock Ridge's names.
        "iso" => format!(
            "isoinfo -R -f -i {image} | while read -r path; do
                isoinfo -R -x \"$path\" -i {image} >/tmp/part 2>/dev/null || true
                [ -s /tmp/part ] || continue
                mkdir -p \"$(dirname \"/tmp/disk$path\")\"; cp /tmp/part \"/tmp/disk$path\"
             done"
        ),
        _ => format!("tar -C /tmp/disk -xf {image}"),
    };
    lab.sh(&format!("rm -rf /tmp/disk; mkdir /tmp/disk; {unpack}; ls -A /var/lib/dkms/pair/1.0/driver_disk"))
        .succeeds();
    made
}

/// The files below a directory, sorted.
fn files(lab: &Lab, directory: &str) -> Vec<String> {
    let found = lab.sh(&format!("cd {directory}; find . -type f | sed 's,^./,,' | LC_ALL=C sort"));
    found.succeeds().stdout().lines().map(str::to_owned).collect()
}

/// What a shell says.
fn said(lab: &Lab, script: &str) -> Vec<String> {
    lab.sh(script).succeeds().stdout().lines().map(str::to_owned).collect()
}

/// What an archive has in these directories.
fn modules_of(directories: &[&str]) -> Vec<String> {
    let both = |directory: &&str| ["pair_low", "pair-high"].map(|name| format!("{directory}/{name}.ko"));
    directories.iter().flat_map(both).collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[rstest]
#[case::floppy("", "img")]
#[case::iso("--media iso", "iso")]
#[case::tar("--media tar", "tar")]
#[ignore = "runs in the lab (root, network): make test"]
fn old_red_hat_has_tables_and_modules_by_kernel(#[case] media: &str, #[case] suffix: &str) {
    let lab = lab(&[("disk-info", "The pair, version 1\n"), ("pcitable", "brought\n"), ("pci.ids", "ids\n")]);
    let (old, new) = (Series::Old.release(), Series::New.release());
    let image = format!("pair-1.0-redhat-dd.{suffix}");
    made(&lab, &format!("-d redhat -k {old} -k {new} {media}"), &image);
    assert_eq!(
        files(&lab, "/tmp/disk"),
        ["disk-info", "modinfo", "modules.cgz", "modules.dep", "pci.ids", "pcitable", "rhdd-6.1"]
    );
    assert_eq!(said(&lab, "cat /tmp/disk/rhdd-6.1 /tmp/disk/pcitable"), ["The pair, version 1", "brought"]);
    assert_eq!(said(&lab, "cat /tmp/disk/modules.dep"), ["pair-high: pair_low"]);
    let packed = said(&lab, "gzip -dc /tmp/disk/modules.cgz | cpio -t --quiet");
    assert_eq!(packed, modules_of(&[old, new]));
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn red_hat_4_and_5_have_modules_by_kernel_and_architecture() {
    let lab = lab(&[]);
    let (old, new) = (Series::Old.release(), Series::New.release());
    made(&lab, &format!("-d redhat2 {} --size 2880", everything()), "pair-1.0-redhat2-dd.img");
    assert_eq!(
        files(&lab, "/tmp/disk"),
        ["modinfo", "modules.alias", "modules.cgz", "modules.dep", "pcitable", "rhdd"]
    );
    assert_eq!(said(&lab, "cat /tmp/disk/rhdd"), ["pair 1.0 driver disk"]);
    assert_eq!(
        said(&lab, "cat /tmp/disk/pcitable"),
        ["0x10ff\t0x7e57\t\"pair-high\"\t\"A pair that belongs together\""]
    );
    let packed = said(&lab, "gzip -dc /tmp/disk/modules.cgz | cpio -t --quiet");
    let targets = [format!("{old}/{ARCH}"), format!("{new}/{ARCH}"), format!("{new}/other")];
    assert_eq!(packed, modules_of(&targets.each_ref().map(String::as_str)));
    // What comes out is what was built.
    lab.sh(&format!(
        "cd /tmp; gzip -dc disk/modules.cgz | cpio -id --quiet
         cmp {new}/other/pair_low.ko /var/lib/dkms/pair/1.0/{new}/other/module/pair_low.ko"
    ))
    .succeeds();
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn red_hat_since_6_has_a_repository_for_each_architecture() {
    let lab = Lab::new()
        .packages_and_dependencies(&["genisoimage"])
        .packages_and_dependencies(&["createrepo-c"])
        .rpm()
        .pair(&[]);
    let (old, new) = (Series::Old.release(), Series::New.release());
    // What is not for this machine would have a machine's name.
    lab.sh(&format!("mv /var/lib/dkms/pair/1.0/{new}/other /var/lib/dkms/pair/1.0/{new}/aarch64")).succeeds();
    let image = "pair-1.0-redhat3-dd.iso";
    made(&lab, &format!("-d redhat3 {}", everything().replace("/other", "/aarch64")), image);
    lab.sh(&format!("isoinfo -d -i /var/lib/dkms/pair/1.0/driver_disk/{image}")).says("Volume id: OEMDRV\n");
    let found = files(&lab, "/tmp/disk");
    for arch in [ARCH, "aarch64"] {
        for name in [&format!("kmod-pair-1.0-1.{arch}.rpm"), "repodata/repomd.xml"] {
            assert!(found.contains(&format!("rpms/{arch}/{name}")), "{name} of {arch} in {found:?}");
        }
    }
    assert_eq!(said(&lab, "cat /tmp/disk/rhdd3"), ["pair 1.0 driver disk"]);
    let package = format!("/tmp/disk/rpms/{ARCH}/kmod-pair-1.0-1.{ARCH}.rpm");
    let provided = said(&lab, &format!("rpm -qp --provides {package}"));
    for kernel in [old, new] {
        let (version, release) = kernel.split_once('-').unwrap();
        let want = format!("kernel-modules = {version}-{}", release.replace('-', "_"));
        assert!(provided.contains(&want), "{want} in {provided:?}");
    }
    let want = [old, new].into_iter().flat_map(|kernel| {
        let directory = format!("/lib/modules/{kernel}/extra/pair");
        ["", "/pair-high.ko", "/pair_low.ko"].map(|file| format!("{directory}{file}"))
    });
    assert_eq!(sorted(said(&lab, &format!("rpm -qlp {package}"))), sorted(want.collect()));

    lab.sh(&format!("rpm -i {package}")).succeeds();
    assert_resolves(&lab, new, "extra/pair");
    lab.sh(&format!(
        "cmp /lib/modules/{new}/extra/pair/pair_low.ko /var/lib/dkms/pair/1.0/{new}/{ARCH}/module/pair_low.ko"
    ))
    .succeeds();
    lab.sh("rpm -e kmod-pair").succeeds();
    assert_eq!(said(&lab, "find /lib/modules/ -path '*extra/*'"), Vec::<String>::new());
    lab.sh(&format!("modprobe -n -S {new} pair-high")).fails();
}

/// modprobe knows both modules, and the one that goes first.
#[track_caller]
fn assert_resolves(lab: &Lab, kernel: &str, place: &str) {
    let order =
        said(lab, &format!("modprobe --show-depends -S {kernel} pci:v000010FFd00007E57sv0sd0bc0sc0i0"));
    let want =
        ["pair_low", "pair-high"].map(|name| format!("insmod /lib/modules/{kernel}/{place}/{name}.ko"));
    let order: Vec<&str> = order.iter().map(|line| line.trim()).collect();
    assert_eq!(order, want);
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn suse_has_the_installers_modules_and_what_the_new_system_gets() {
    let lab = lab(&[]);
    let (old, new) = (Series::Old.release(), Series::New.release());
    made(&lab, &format!("-d suse -r sles15 {} --media tar", everything()), "pair-1.0-suse-sles15-dd.tar");
    let want = [ARCH, "other"].into_iter().flat_map(|arch| {
        [
            "dud.config",
            "install/update.post",
            "install/update.tar.gz",
            "modules/module.order",
            "modules/pair-high.ko",
            "modules/pair_low.ko",
        ]
        .map(|file| format!("linux/suse/{arch}-sles15/{file}"))
    });
    assert_eq!(files(&lab, "/tmp/disk"), sorted(want.collect()));
    let directory = format!("/tmp/disk/linux/suse/{ARCH}-sles15");
    assert_eq!(said(&lab, &format!("cat {directory}/modules/module.order")), ["pair_low", "pair-high"]);
    assert_eq!(
        said(&lab, &format!("head -n 1 {directory}/dud.config")),
        [format!("UpdateName: pair 1.0 ({ARCH})")]
    );
    lab.sh(&format!(
        "cmp {directory}/modules/pair_low.ko /var/lib/dkms/pair/1.0/{old}/{ARCH}/module/pair_low.ko"
    ))
    .succeeds();

    lab.sh(&format!("tar -C / -xzf {directory}/install/update.tar.gz; sh {directory}/install/update.post"))
        .succeeds();
    lab.sh("test -L /lib").succeeds();
    for kernel in [old, new] {
        assert_resolves(&lab, kernel, "updates");
    }
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn ubuntu_has_a_package_for_each_kernel() {
    let lab = lab(&[]);
    let (old, new) = (Series::Old.release(), Series::New.release());
    made(&lab, &format!("-d ubuntu {} --media tar", everything()), "pair-1.0-ubuntu-dd.tar");
    // Its directory is named by the kernel's version unless a release is given, as dkms has it.
    let place = |kernel: &str, arch: &str| {
        format!("ubuntu-drivers/{}/pair_1.0-{kernel}_{arch}.deb", kernel.split('-').next().unwrap())
    };
    let want = vec![place(old, ARCH), place(new, ARCH), place(new, "other")];
    assert_eq!(files(&lab, "/tmp/disk"), sorted(want));
    let deb = format!("/tmp/disk/{}", place(new, ARCH));
    let content = said(&lab, &format!("dpkg-deb -c {deb} | grep -v /$ | awk '{{ print $2, $6 }}'"));
    let want =
        ["pair-high", "pair_low"].map(|name| format!("root/root ./lib/modules/{new}/updates/dkms/{name}.ko"));
    assert_eq!(content, want);
    made(&lab, &format!("-d ubuntu -r noble -k {new}"), "pair-1.0-ubuntu-noble-dd.img");
    assert_eq!(files(&lab, "/tmp/disk"), [format!("ubuntu-drivers/noble/pair_1.0-{new}_{ARCH}.deb")]);

    // A database of its own: this machine's is nobody's business, and has no kmod.
    let dpkg = "dpkg --admindir=/tmp/dpkg --force-depends --log=/dev/null";
    lab.sh(&format!(
        "mkdir -p /tmp/dpkg/info /tmp/dpkg/updates; touch /tmp/dpkg/status
         {dpkg} -i /tmp/disk/ubuntu-drivers/noble/*.deb"
    ))
    .succeeds();
    assert_resolves(&lab, new, "updates/dkms");
    lab.sh(&format!("{dpkg} -P pair-modules-{new}")).succeeds();
    assert_eq!(said(&lab, "find /lib/modules/ -path '*updates/*' -type f"), Vec::<String>::new());
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn what_does_not_fit_is_told_with_what_would() {
    let lab = lab(&[("pci.ids", &"0001  SafeNet\n".repeat(10_000))]);
    let ran = lab.sh(&format!("dkms mkdriverdisk pair/1.0 -d redhat2 {} --size 60", everything()));
    ran.fails().says("on a disk of 60 KiB; --size makes a larger one, --media iso one that fits");
    assert_eq!(said(&lab, "ls -A /var/lib/dkms/pair/1.0/driver_disk"), Vec::<String>::new());
}
