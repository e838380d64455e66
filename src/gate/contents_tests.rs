// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which images decide over made-up partitions, and what is said of what they hold.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use rstest::rstest;

use super::bls::fixture::Partition;
use super::contents::{Need, Problem, Wanted, deciding, image_problems};
use crate::initramfs::image::tests::{image, uki};
use crate::module_file::tests::module;

/// The files of every deciding image of kernel 6.1, from the root.
fn decided(machine: &Partition) -> Vec<String> {
    let root = machine.tree.path("/");
    let shown = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
    let images = deciding(&machine.tree, &"6.1".parse().unwrap());
    images.iter().map(|joined| joined.iter().map(shown).collect::<Vec<_>>().join(" ")).collect()
}

/// Writes images, each a minute older than the one before.
fn machine(images: &[&str]) -> Partition {
    let machine = Partition::new();
    let now = SystemTime::now();
    for (path, age) in images.iter().zip(0..) {
        machine.write(path, b"");
        let file = fs::File::options().write(true).open(machine.tree.path(path)).unwrap();
        file.file().set_modified(now - Duration::from_secs(60 * age)).unwrap();
    }
    machine
}

const PLAIN: &str = "boot/initrd.img-6.1";
const COPY: &str = "boot/efi/m/6.1/initrd.img-6.1";

#[rstest]
#[case::leftover(&[PLAIN, "boot/initramfs-6.1.img"], PLAIN)]
#[case::leftover_of_the_other(&["boot/initramfs-6.1.img", PLAIN], "boot/initramfs-6.1.img")]
#[case::beside_each_other(&[COPY, "boot/efi/m/6.1/initrd-0", PLAIN], "boot/efi/m/6.1/initrd-0 boot/efi/m/6.1/initrd.img-6.1")]
#[case::other_kernel(&["boot/initrd.img-6.12"], "")]
fn without_an_entry_the_newest_image_decides(#[case] images: &[&str], #[case] want: &str) {
    assert_eq!(decided(&machine(images)).join(", "), want);
}

#[rstest]
#[case::in_the_menu("m-6.1.conf")]
#[case::counting_boots("m-6.1+2-1.conf")]
#[case::held("m-6.1.conf.held")]
fn what_an_entry_names_decides(#[case] file: &str) {
    let machine = machine(&[PLAIN, COPY]);
    machine.write("boot/efi/m/6.1/linux", b"");
    machine.write("boot/efi/ucode.img", b"");
    let text =
        "version 6.1\nlinux /m/6.1/linux\ninitrd /ucode.img\ninitrd /m/6.1/initrd.img-6.1 $tuned_initrd\n";
    machine.write(&format!("boot/efi/loader/entries/{file}"), text.as_bytes());
    assert_eq!(decided(&machine), [format!("boot/efi/ucode.img {COPY}")]);
}

/// As on Fedora, where /boot need not be a file system of its own.
#[test]
fn an_entry_may_name_its_initrd_from_the_root() {
    let machine = machine(&[PLAIN]);
    machine.write("boot/vmlinuz-6.1", b"");
    machine
        .write("boot/loader/entries/m-6.1.conf", b"linux /vmlinuz-6.1\ninitrd /root/boot/initrd.img-6.1\n");
    assert_eq!(decided(&machine), [PLAIN]);
}

#[test]
fn every_entry_decides() {
    let machine = machine(&[COPY]);
    machine.write("boot/efi/m/6.1/linux", b"");
    machine.write("boot/efi/loader/entries/a.conf", b"linux /m/6.1/linux\ninitrd /m/6.1/initrd.img-6.1\n");
    machine.write("boot/efi/loader/entries/b.conf", b"linux /m/6.1/linux\ninitrd /gone\n");
    machine.write("boot/efi/loader/entries/c.conf", b"linux /m/6.1/linux\n");
    let sections: [(&[u8; 8], &[u8]); 2] = [(b".osrel\0\0", b"ID=x\n"), (b".uname\0\0", b"6.1")];
    machine.write("boot/efi/EFI/Linux/unified.efi", &uki(true, &sections));
    assert_eq!(decided(&machine), [COPY, "boot/efi/gone", "boot/efi/EFI/Linux/unified.efi"]);
}

const INSTALLED: &[u8] = b"name=disk\0version=2\0";

/// What is said of an image with these files, where the module `disk` has to be there.
fn said(files: &[(&str, &[u8])]) -> Vec<Problem> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("initrd");
    fs::write(&path, image(files)).unwrap();
    problems(dir.path(), &[path], Need::There)
}

fn problems(dir: &Path, images: &[PathBuf], need: Need) -> Vec<Problem> {
    let installed = dir.join("disk.ko");
    fs::write(&installed, module(INSTALLED)).unwrap();
    let wanted = [Wanted { package: "disks", installed: &installed, need }];
    image_problems(&"6.1".parse().unwrap(), &[images.to_vec()], &wanted)
}

const PLACE: &str = "lib/modules/6.1/updates/disk.ko";

#[test]
fn an_image_that_holds_the_installed_build_is_good() {
    assert_eq!(said(&[(PLACE, &module(INSTALLED))]), []);
    // Which of two is loaded is not known without modules.dep: one will do.
    let other = module(b"name=disk\0");
    assert_eq!(said(&[("lib/modules/6.1/a/disk.ko", &other), (PLACE, &module(INSTALLED))]), []);
}

#[rstest]
#[case::other_kernel(
    "lib/modules/6.12/updates/disk.ko",
    "disks: the initramfs",
    "has no modules for kernel 6.1"
)]
#[case::other_module("lib/modules/6.1/disk2.ko", "lacks disk (if", "[module.disks] initramfs = false")]
fn what_is_missing_is_told(#[case] path: &str, #[case] words: &str, #[case] more: &str) {
    let problems = said(&[(path, &module(INSTALLED))]);
    let [Problem::Missing(said)] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(said.contains(words) && said.contains(more), "{said}");
}

#[rstest]
#[case::another(module(b"name=disk\0version=1\0"), "holds another build of disk than /")]
#[case::damaged(b"\x7fELF".to_vec(), "cannot be compared")]
fn what_differs_is_told(#[case] disk: Vec<u8>, #[case] words: &str) {
    let problems = said(&[(PLACE, &disk)]);
    let [Problem::Different(said)] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(said.contains(words), "{said}");
}

#[test]
fn what_cannot_be_read_is_no_failure_of_a_module() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("initrd");
    fs::write(&path, "text").unwrap();
    let unreadable = problems(dir.path(), std::slice::from_ref(&path), Need::There);
    let [Problem::Unreadable(said)] = unreadable.as_slice() else { panic!("{unreadable:?}") };
    assert!(said.contains("initrd cannot be read: it is no archive"), "{said}");
    fs::remove_file(&path).unwrap();
    let gone = problems(dir.path(), &[path], Need::There);
    assert!(matches!(gone.as_slice(), [Problem::Missing(said)] if said.contains("is not there")), "{gone:?}");
}

#[rstest]
#[case::not_there(image(&[("lib/modules/6.1/ext4.ko", b"")]), true)]
#[case::the_same(image(&[(PLACE, &module(INSTALLED))]), true)]
#[case::another(image(&[(PLACE, &module(b"name=disk\0"))]), false)]
#[case::unreadable(b"text".to_vec(), true)]
fn where_nobody_knows_what_is_there_has_to_be_the_same(#[case] image: Vec<u8>, #[case] good: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("initrd");
    fs::write(&path, image).unwrap();
    assert_eq!(problems(dir.path(), &[path], Need::SameIfThere).is_empty(), good);
}
