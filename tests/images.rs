// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images made by the real generators, read back: the module in them is the installed one, and is
//! not any more once that was built anew. What generators do to modules on the way (strip them,
//! unpack them) must not show.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::image_root::ImageRoot;
use dkms_hooks::initramfs::image;
use dkms_hooks::module_file::same_code;
use fs_err as fs;
use rstest::rstest;

/// Builds the module `foo` that says `text`, and installs it, compressed as that suite's are.
fn install(root: &ImageRoot, text: &str) -> Vec<u8> {
    let release = root.release();
    root.sh(&format!(
        "mkdir -p /root/foo /lib/modules/{release}/updates/dkms
         cd /root/foo
         echo 'obj-m := foo.o' >Makefile
         cat >foo.c <<'END'
         #include <linux/module.h>
         static int __init start(void) {{ pr_info(\"{text}\\n\"); return 0; }}
         static void __exit stop(void) {{ }}
         module_init(start);
         module_exit(stop);
         MODULE_LICENSE(\"GPL\");\nEND
         make -s -C /lib/modules/{release}/build M=$PWD modules
         xz -f --check=crc32 foo.ko
         cp foo.ko.xz /lib/modules/{release}/updates/dkms/
         depmod {release}"
    ))
    .succeeds();
    fs::read(root.path(&format!("usr/lib/modules/{release}/updates/dkms/foo.ko.xz"))).unwrap()
}

/// A root with `foo` installed, and what generators take as microcode.
fn root(suite: &str) -> (ImageRoot, Vec<u8>) {
    let root = ImageRoot::new(suite);
    let installed = install(&root, "one");
    root.sh("mkdir -p /images /lib/firmware/intel-ucode
             echo microcode >/lib/firmware/intel-ucode/06-9e-09")
        .succeeds();
    (root, installed)
}

/// Reads every image in /images.
fn assert_images(root: &ImageRoot, installed: &[u8], count: usize) {
    let kernel = root.release().parse().unwrap();
    let wanted = ["foo", "bar"].map(str::to_owned).into();
    let mut found = Vec::new();
    for entry in fs::read_dir(root.path("images")).unwrap() {
        let path = entry.unwrap().path();
        let contents = image::read(std::slice::from_ref(&path), &kernel, &wanted)
            .unwrap_or_else(|error| panic!("{}: {}", path.display(), error.why));
        assert!(contents.has_modules, "{}", path.display());
        assert!(contents.module("bar").is_empty(), "{}", path.display());
        let [module] = contents.module("foo") else {
            panic!("{}: {:?}", path.display(), contents.module("foo"));
        };
        assert!(same_code(&module.content, installed).unwrap(), "{}: {}", path.display(), module.path);
        found.push((path, module.clone()));
    }
    assert_eq!(found.len(), count);
    let rebuilt = install(root, "another");
    for (path, module) in found {
        assert!(!same_code(&module.content, &rebuilt).unwrap(), "{}: {}", path.display(), module.path);
    }
}

#[rstest]
#[case::bookworm("bookworm")]
#[case::trixie("trixie")]
#[ignore = "runs in the lab (root, network): make test"]
fn images_of_initramfs_tools(#[case] suite: &str) {
    let (root, installed) = root(suite);
    root.sh(&format!(
        "echo foo >>/etc/initramfs-tools/modules
         mkinitramfs -o /images/with-most-modules {release}
         echo MODULES=list >/etc/initramfs-tools/conf.d/small
         for compression in gzip bzip2 lz4 lzma lzop xz zstd; do
             mkinitramfs -c $compression -o /images/$compression {release}
         done",
        release = root.release()
    ))
    .succeeds();
    assert_images(&root, &installed, 8);
}

/// dracut strips modules, and puts microcode first.
#[rstest]
#[case::bookworm("bookworm")]
#[case::trixie("trixie")]
#[ignore = "runs in the lab (root, network): make test"]
fn images_of_dracut(#[case] suite: &str) {
    let (root, installed) = root(suite);
    root.sh(&format!(
        "make() {{
             dracut --no-hostonly --early-microcode --kver {release} --add-drivers foo --force \"$@\"
         }}
         make --zstd /images/whole
         for compression in 'gzip -1' 'xz --check=crc32' 'lz4 -l' lzop 'bzip2 -1' 'lzma -0' cat; do
             make --modules base --compress \"$compression\" \"/images/${{compression%% *}}\"
         done
         make --modules base --nostrip /images/unstripped",
        release = root.release()
    ))
    .succeeds();
    assert_images(&root, &installed, 9);
}

/// mkinitcpio is no package of Debian's: the layout is made by hand, by the programs that it uses.
#[rstest]
#[case::bookworm("bookworm")]
#[case::trixie("trixie")]
#[ignore = "runs in the lab (root, network): make test"]
fn images_in_the_layout_of_mkinitcpio(#[case] suite: &str) {
    let (root, installed) = root(suite);
    root.sh(&format!(
        "archive() {{
             (cd $1; find . -mindepth 1 -printf '%P\\0' | sort -z |
                 bsdtar --uid 0 --gid 0 --null -cnf - -T - | bsdtar --null -cf - --format=newc @-)
         }}
         mkdir -p early/kernel/x86/microcode main/usr/lib/modules/{release}/kernel main/usr/bin
         cp /lib/firmware/intel-ucode/06-9e-09 early/kernel/x86/microcode/GenuineIntel.bin
         ln -s usr/lib main/lib
         cp /usr/bin/kmod main/usr/bin
         module=main/usr/lib/modules/{release}/kernel/foo.ko
         xz -dc /lib/modules/{release}/updates/dkms/foo.ko.xz >$module
         strip --strip-debug $module
         depmod -b main/usr {release}
         rm main/usr/lib/modules/{release}/modules.{{dep,alias,symbols}}
         archive early >microcode.img
         (cat microcode.img; archive main | zstd -T0 -9) >/images/microcode-inside
         archive main | zstd -T0 -9 >main.img
         cat microcode.img main.img >/images/joined
         archive main | gzip >/images/gzip
         cp main.img /images/zstd",
        release = root.release()
    ))
    .succeeds();
    assert_images(&root, &installed, 4);
}

/// Trixie has ukify; before that people put sections into the stub by hand.
#[rstest]
#[case::bookworm(
    "bookworm",
    "objcopy --add-section .linux=/boot/vmlinuz-$K --change-section-vma .linux=0x2000000 \
         --add-section .initrd=initrd --change-section-vma .initrd=0x6000000 \
         --set-section-flags .initrd=data,readonly $STUB /images/uki.efi",
    1
)]
#[case::trixie(
    "trixie",
    "common=\"--linux=/boot/vmlinuz-$K --uname=$K --stub=$STUB --os-release=ID=debian --cmdline=quiet\"
     ukify build $common --initrd=early --initrd=initrd --output=/images/uki.efi
     ukify build --profile='TITLE=Without' --initrd=early --output=other.efi
     ukify build $common --profile='TITLE=Main' --initrd=initrd --join-profile=other.efi \
         --output=/images/profiles.efi",
    2
)]
#[ignore = "runs in the lab (root, network): make test"]
fn unified_kernel_images(#[case] suite: &str, #[case] make: &str, #[case] count: usize) {
    let (root, installed) = root(suite);
    root.sh(&format!(
        "K={release} STUB=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
         echo foo >>/etc/initramfs-tools/modules
         echo MODULES=list >/etc/initramfs-tools/conf.d/small
         mkinitramfs -o initrd $K
         mkdir -p empty/kernel/x86/microcode
         (cd empty; find | cpio --quiet -o -H newc) >early
         {make}",
        release = root.release()
    ))
    .succeeds();
    assert_images(&root, &installed, count);
}
