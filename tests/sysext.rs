// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dkms mksysext`: the real systemd-sysext merges what it makes, two extensions at a time, and modprobe
//! finds the modules of both without any index of them.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{ARCH, Lab, Series};
use rstest::rstest;

/// What stands in for programs that would load something, and tells what for.
const LOADERS: &str = r#"mkdir -p /tmp/bin
for name in insmod modprobe; do
    printf '#!/bin/sh\necho %s "$@"\n' $name >/tmp/bin/$name
done
printf '#!/bin/sh\necho "$RUNNING"\n' >/tmp/bin/uname
chmod 755 /tmp/bin/*
"#;

/// Merges what is in /var/lib/extensions, as systemd does at boot: it wants /run to be one, and hands the
/// result over through shared mounts.
const MERGE: &str = "mount --make-shared /usr; mount -t tmpfs run /run; systemd-sysext merge";

fn lab() -> Lab {
    let (old, new) = (Series::Old.release(), Series::New.release());
    let lab = Lab::new().packages_and_dependencies(&["systemd"]).packages(&["udev"]).pair(&[]).two_modules(
        "twin",
        &[old, new],
        &[],
    );
    lab.sh(&format!("mkdir -p /var/lib/extensions; depmod -a {old}; depmod -a {new}")).succeeds();
    lab
}

/// Makes the extensions of both modules for both kernels, as plain directories.
fn installed(lab: &Lab) {
    let (old, new) = (Series::Old.release(), Series::New.release());
    for name in ["pair", "twin"] {
        lab.sh(&format!(
            "dkms mksysext {name}/1.0 -k {old} -k {new} --directory
             cp -a /var/lib/dkms/{name}/1.0/sysext/* /var/lib/extensions"
        ))
        .succeeds()
        .says(&format!("System extension: /var/lib/dkms/{name}/1.0/sysext/{name}-1.0-{new}-{ARCH}\n"));
    }
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn two_extensions_at_once_are_both_found_by_modprobe() {
    let lab = lab();
    installed(&lab);
    let (old, new) = (Series::Old.release(), Series::New.release());
    let said = lab.sh(&format!(
        "{LOADERS}{MERGE} 2>&1
         for name in pair twin; do
             modprobe --show-depends -S {new} $name-high
             RUNNING={old} PATH=/tmp/bin:$PATH /usr/lib/dkms/sysext/$name/load $name-high debug=1
             RUNNING=other PATH=/tmp/bin:$PATH /usr/lib/dkms/sysext/$name/load $name-high debug=1
         done
         modprobe --show-depends -S {new} pci:v000010FFd00007E57sv0sd0bc0sc0i0
         systemd-analyze verify dkms-sysext-pair-1.0-{new}-{ARCH}.service
         systemd-sysext unmerge; modprobe -n -S {new} pair-high 2>&1 || true"
    ));
    let said = said.succeeds().stdout();
    for name in ["pair", "twin"] {
        let load = format!("install /usr/lib/dkms/sysext/{name}/load {name}-high $CMDLINE_OPTS");
        assert!(said.contains(&load), "{load} in {said}");
        let loaded = format!(
            "modprobe {name}_low\ninsmod /usr/lib/modules/{old}/updates/{name}/{name}-high.ko debug=1\n\
             modprobe --ignore-install {name}-high debug=1\n"
        );
        assert!(said.contains(&loaded), "{loaded} in {said}");
    }
    assert!(said.contains("Module pair-high not found"), "{said}");
    // Nothing is in two of them that is not the same in both.
    let differing =
        lab.sh("cd /var/lib/extensions; find . -type f -printf '%P\\n' | cut -d/ -f2- | sort | uniq -d |
         while read -r path; do md5sum */$path | cut -d' ' -f1 | uniq | tail -n +2; done
         find . -name 'modules.*'");
    assert_eq!(differing.succeeds().stdout(), "");
}

/// Asks for a device's module, whose extension is merged, and for one of another extension.
const INIT: &str = r#"#!/bin/sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
modprobe pci:v000010FFd00007E57sv00000000sd00000000bc00sc00i00 && modprobe -a twin_high pair_low
echo "LOADED $(busybox grep -E '^(pair|twin)_' /proc/modules | busybox cut -d' ' -f1 | busybox sort | busybox xargs)"
modprobe loop && busybox grep -q '^loop ' /proc/modules && echo "ITS OWN, TOO"
busybox reboot -f
"#;

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn a_real_kernel_loads_what_is_merged() {
    let release = Series::New.cloud_release();
    let lab = Lab::new()
        .image(release)
        .headers(release)
        .packages(&["busybox-static"])
        .packages_and_dependencies(&["qemu-system-x86"])
        .two_modules("pair", &[release], &[])
        .two_modules("twin", &[release], &[]);
    lab.write("tmp/guest/init", INIT);
    let ran = lab.sh(&format!(
        "depmod -a {release}; cd /tmp/guest
         mkdir -p bin sbin proc sys dev usr/lib/modules/{release} usr/lib64
         ln -s usr/lib lib; ln -s usr/lib64 lib64
         cp /lib/modules/{release}/modules.* lib/modules/{release}
         cp --parents /usr/lib/modules/{release}/kernel/drivers/block/loop.ko* .
         cp /usr/bin/busybox bin; ln -s busybox bin/uname
         cp /usr/bin/dash bin/sh # busybox's would take its own modprobe
         kmod=$(readlink -f \"$(command -v modprobe)\"); cp \"$kmod\" bin/kmod
         for name in modprobe insmod modinfo; do ln -s kmod bin/$name; done
         for library in $(ldd \"$kmod\" bin/sh | grep -o '/[^ :]* (' | tr -d '( '); do
             mkdir -p \".$(dirname $library)\"; cp -L $library .$library
         done
         for name in pair twin; do
             dkms mksysext $name/1.0 -k {release} --directory
             cp -a /var/lib/dkms/$name/1.0/sysext/*/usr/. usr
         done
         chmod 755 init
         find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >/tmp/initrd
         timeout 240 qemu-system-x86_64 -M pc -accel tcg -cpu qemu64 -smp 1 -m 512 \\
             -nodefaults -display none -serial stdio -no-reboot \\
             -kernel /boot/vmlinuz-{release} -initrd /tmp/initrd -append 'console=ttyS0 panic=-1 quiet'"
    ));
    ran.succeeds().says("LOADED pair_high pair_low twin_high twin_low").says("ITS OWN, TOO");
}

#[rstest]
#[case::squashfs(
    "--media squashfs",
    "squashfs-tools",
    "unsquashfs -lls -d '' IMAGE | awk '{ print $2, $NF }'"
)]
#[case::erofs(
    "--media erofs",
    "erofs-utils",
    "dump.erofs --ls --path=/usr/lib/extension-release.d IMAGE; fsck.erofs IMAGE"
)]
#[ignore = "runs in the lab (root, network): make test"]
fn an_image_holds_what_the_directory_does(#[case] media: &str, #[case] package: &str, #[case] list: &str) {
    let lab = lab().packages_and_dependencies(&[package]);
    let new = Series::New.release();
    let name = format!("pair-1.0-{new}-{ARCH}");
    let image = format!("/var/lib/dkms/pair/1.0/sysext/{name}.raw");
    lab.sh(&format!("dkms mksysext pair/1.0 -k {new} {media}")).succeeds().says(&format!("{image}\n"));
    let listed = lab.sh(&list.replace("IMAGE", &image));
    listed.succeeds().says(&format!("extension-release.{name}"));
    if package == "squashfs-tools" {
        listed.says(&format!("root/root /usr/lib/modules/{new}/updates/pair/pair_low.ko\n"));
    }
}

#[test]
#[ignore = "runs in the lab (root, network): make test"]
fn an_extension_for_another_system_is_not_merged() {
    let lab = lab();
    let new = Series::New.release();
    let release =
        format!("/var/lib/extensions/*/usr/lib/extension-release.d/extension-release.pair-1.0-{new}-{ARCH}");
    lab.sh(&format!(
        "dkms mksysext pair/1.0 -k {new} --directory -d elsewhere -r 7
         cp -a /var/lib/dkms/pair/1.0/sysext/* /var/lib/extensions; head -n 3 {release}"
    ))
    .succeeds()
    .says("ID=elsewhere\nVERSION_ID=7\nARCHITECTURE=");
    lab.sh(&format!("{MERGE} 2>&1; modprobe -n -S {new} pair-high 2>&1 || true")).says("not found");
    // Making it again takes the place of the old one.
    lab.sh(&format!("dkms mksysext pair/1.0 -k {new} --directory; head -n 1 /var/lib/dkms/pair/1.0/sysext/*/usr/lib/extension-release.d/*; ls -A /var/lib/dkms/pair/1.0/sysext"))
        .succeeds()
        .says(&format!("ID=_any\npair-1.0-{new}-{ARCH}\n"));
}
