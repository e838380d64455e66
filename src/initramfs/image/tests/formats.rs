// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compressions, archives one after the other, unified kernel images.

use rstest::rstest;

use super::*;

#[rstest]
#[case::none(<[u8]>::to_vec)]
#[case::gzip(gzip)]
#[case::bzip2(bzip2)]
#[case::xz(xz)]
#[case::lzma(lzma)]
#[case::zstd(zstd)]
#[case::lz4(lz4)]
#[case::lzo(lzo)]
fn every_compression_of_kernels_is_read(#[case] compress: Compress) {
    let content = content();
    let main = compress(&image(&[("init", b"#!/bin/sh"), (DISK, &content)]));
    assert_eq!(disks(&main), [content.as_slice()]);
    // Early microcode before it, padding behind it, and one more archive that has the last word.
    let early = image(&[("kernel/x86/microcode/GenuineIntel.bin", &[1; 1001])]);
    assert_eq!(disks(&[early.as_slice(), &main].concat()), [content.as_slice()]);
    assert_eq!(disks(&[main.as_slice(), &[0; 509]].concat()), [content.as_slice()]);
    let last = compress(&image(&[(DISK, b"newer")]));
    assert_eq!(disks(&[early.as_slice(), &[0; 512], &main, &[0; 8], &last].concat()), [b"newer"]);
}

#[rstest]
#[case::gzip(gzip)]
#[case::bzip2(bzip2)]
#[case::xz(xz)]
#[case::lzma(lzma)]
#[case::zstd(zstd)]
#[case::lz4(lz4)]
#[case::lzo(lzo)]
fn without_padding_archives_follow_each_other(#[case] compress: Compress) {
    let [first, last] = [image(&[("init", b"x")]), image(&[(DISK, b"newer")])].map(|image| compress(&image));
    assert_eq!(disks(&[first, last].concat()), [b"newer"]);
}

#[test]
fn archives_follow_each_other_inside_of_compression_too() {
    let inside = [image(&[(DISK, b"older")]), vec![0; 300], image(&[(DISK, b"newer")])].concat();
    assert_eq!(disks(&zstd(&inside)), [b"newer"]);
}

/// A boot loader joins the files of an entry into one initramfs.
#[test]
fn images_of_one_entry_are_read_together() {
    let [first, last] = [image(&[(DISK, b"disk")]), gzip(&image(&[("init", b"x")]))];
    let contents = read_files(&[first, last]).unwrap();
    assert_eq!(contents.module("disk").len(), 1);
}

#[rstest]
#[case::for_64_bits(true)]
#[case::for_32_bits(false)]
fn a_unified_kernel_image_carries_its_initramfs(#[case] is_64: bool) {
    let main = zstd(&image(&[(DISK, b"disk")]));
    let whole =
        uki(is_64, &[(b".osrel\0\0", b"ID=x\n"), (b".linux\0\0", b"MZ kernel"), (b".initrd\0", &main)]);
    assert_eq!(disks(&whole), [b"disk"]);
    assert!(matches!(read(&whole[..whole.len() - 512]).unwrap_err(), Unreadable::CutShort));
}

#[test]
fn without_initrd_it_holds_nothing() {
    assert_eq!(read(&uki(true, &[(b".linux\0\0", b"MZ kernel")])).unwrap(), Contents::default());
}

#[rstest]
#[case::base(&[(b".initrd\0", "base"), (b".profile", "main"), (b".profile", "other"), (b".initrd\0", "other")], "base")]
#[case::first_profile(&[(b".initrd\0", "base"), (b".profile", "main"), (b".initrd\0", "main"), (b".profile", "other")], "main")]
fn of_several_profiles_the_first_counts(#[case] sections: &[(&[u8; 8], &str)], #[case] want: &str) {
    let contents: Vec<(&[u8; 8], Vec<u8>)> =
        sections.iter().map(|(name, content)| (*name, image(&[(DISK, content.as_bytes())]))).collect();
    let sections: Vec<(&[u8; 8], &[u8])> =
        contents.iter().map(|(name, content)| (*name, content.as_slice())).collect();
    assert_eq!(disks(&uki(true, &sections)), [want.as_bytes()]);
}
