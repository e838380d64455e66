// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which files of an archive are the module that is looked for.

use rstest::rstest;

use super::*;

#[rstest]
#[case::merged_usr("usr/lib/modules/6.1/kernel/disk.ko")]
#[case::slash("/lib/modules/6.1/disk.ko")]
#[case::dot("./usr/lib/modules/6.1/disk.ko")]
#[case::compressed("lib/modules/6.1/disk.ko.zst")]
#[case::booster("usr/lib/modules/disk.ko")]
fn modules_are_found_by_their_paths(#[case] path: &str) {
    assert_eq!(disks(&image(&[(path, b"disk")])), [b"disk"]);
}

#[rstest]
#[case::other_kernel("lib/modules/6.12/disk.ko")]
#[case::other_module("lib/modules/6.1/disk2.ko")]
#[case::elsewhere("root/lib/modules/6.1/disk.ko")]
#[case::no_module("lib/modules/6.1/disk.txt")]
fn other_files_are_not_the_module(#[case] path: &str) {
    assert!(disks(&image(&[(path, b"disk")])).is_empty());
}

#[test]
fn a_name_is_compared_as_the_kernel_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, image(&[("lib/modules/6.1/snd-foo.ko", b"x")])).unwrap();
    let wanted = BTreeSet::from(["snd_foo".to_owned()]);
    assert_eq!(
        crate::initramfs::image::read(&[path], &"6.1".parse().unwrap(), &wanted)
            .unwrap()
            .module("snd_foo")
            .len(),
        1
    );
}

#[rstest]
#[case::this_kernel("lib/modules/6.1/kernel/other.ko.xz", true)]
#[case::other_kernel("lib/modules/6.12/kernel/other.ko.xz", false)]
#[case::only_an_index("lib/modules/6.1/modules.dep", false)]
fn whether_there_are_modules_of_the_kernel_at_all_is_told(#[case] path: &str, #[case] has: bool) {
    assert_eq!(read(&image(&[(path, b"")])).unwrap().has_modules, has);
}

#[rstest]
#[case::content_first(b"disk", b"")]
#[case::content_last(b"", b"disk")]
fn hard_links_share_their_content(#[case] first: &[u8], #[case] last: &[u8]) {
    let files = [
        Linked("lib/modules/6.1/extra/disk.ko", 7, first),
        Linked("lib/modules/6.1/updates/disk.ko", 7, last),
        Linked("lib/modules/6.1/z/disk.ko", 8, b"another"),
    ];
    assert_eq!(disks(&archive(&files)), [b"disk".as_slice(), b"disk", b"another"]);
}

#[test]
fn inode_numbers_count_from_anew_in_every_archive() {
    let one = archive(&[Linked("lib/modules/6.1/a/disk.ko", 7, b"one")]);
    let two = archive(&[Linked("lib/modules/6.1/b/disk.ko", 7, b"two")]);
    assert_eq!(disks(&[one, two].concat()), [b"one", b"two"]);
}

#[rstest]
#[case::relative("../../6.0/extra/disk.ko")]
#[case::absolute("/usr/lib/modules/6.0/extra/disk.ko")]
#[case::through_the_root("../../../../../lib/modules/6.0/extra/disk.ko")]
fn links_are_followed(#[case] target: &str) {
    let files = [
        Link("usr/lib/modules/6.1/weak-updates/disk.ko", target),
        Regular("usr/lib/modules/6.0/extra/disk.ko", b"disk"),
    ];
    assert_eq!(disks(&archive(&files)), [b"disk"]);
}

#[rstest]
#[case::nowhere("disk2.ko")]
#[case::itself("disk.ko")]
fn links_that_lead_nowhere_are_no_modules(#[case] target: &str) {
    assert!(
        disks(&archive(&[Link(DISK, target), Link("lib/modules/6.1/updates/disk2.ko", "disk.ko")]))
            .is_empty()
    );
}

#[rstest]
#[case::chosen("kernel/a.ko:\nupdates/disk.ko: kernel/a.ko\n", &["new"])]
#[case::not_said("kernel/a.ko:\n", &["old", "new"])]
fn of_several_copies_the_one_in_the_index_counts(#[case] index: &str, #[case] want: &[&str]) {
    let files = image(&[
        ("lib/modules/6.1/extra/disk.ko", b"old"),
        (DISK, b"new"),
        ("lib/modules/6.1/modules.dep", index.as_bytes()),
    ]);
    let want: Vec<&[u8]> = want.iter().map(|text| text.as_bytes()).collect();
    assert_eq!(disks(&files), want);
}

/// dracut-cpio puts data at the beginning of a block by making names longer.
#[test]
fn names_may_be_filled_up_with_zeros() {
    let name = format!("{DISK}{}", "\0".repeat(4000));
    assert_eq!(disks(&image(&[(&name, b"disk")])), [b"disk"]);
}

#[test]
fn a_sum_of_the_content_may_be_there() {
    let mut archive = Vec::new();
    let file = Builder::new(DISK).set_mode_file_type(ModeFileType::Regular);
    let mut writer = file.write_crc(&mut archive, 4, b"disk".iter().map(|byte| u32::from(*byte)).sum());
    writer.write_all(b"disk").unwrap();
    writer.finish().unwrap();
    assert_eq!(disks(&trailer(archive).unwrap()), [b"disk"]);
}

#[test]
fn an_appended_boot_configuration_is_no_part_of_the_image() {
    let configuration = b"kernel.quiet\n\0\0\0";
    let tail = [configuration.as_slice(), &16_u32.to_le_bytes(), &[1; 4], b"#BOOTCONFIG\n"].concat();
    let whole = [image(&[(DISK, b"disk")]), tail].concat();
    assert_eq!(disks(&whole), [b"disk"]);
}
