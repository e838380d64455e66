// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that cannot be read.

use rstest::rstest;

use super::*;

#[rstest]
#[case::text(b"image\n".to_vec(), "no archive")]
#[case::another_file_system(b"hsqs and more".to_vec(), "no archive")]
#[case::lz4_frame(b"\x04\x22\x4d\x18and more".to_vec(), "lz4 -l")]
#[case::old_cpio([b"070707".as_slice(), &[b'0'; 200]].concat(), "Invalid magic number")]
#[case::long_name({
    let mut image = image(&[("a", b"")]);
    image[94..102].copy_from_slice(b"00001001");
    image
}, "long name")]
#[case::junk_behind(gzip(&[image(&[("a", b"")]), b"junk".to_vec()].concat()), "padding")]
#[case::program([b"MZ".as_slice(), &[0; 100]].concat(), "damaged")]
fn the_reason_is_told(#[case] image: Vec<u8>, #[case] words: &str) {
    let error = read(&image).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn an_empty_image_holds_nothing() {
    assert_eq!(read(b"").unwrap(), Contents::default());
}

#[test]
fn what_is_not_there_is_no_damage() {
    let nowhere = [PathBuf::from("/nowhere/initrd")];
    let error =
        crate::initramfs::image::read(&nowhere, &"6.1".parse().unwrap(), &BTreeSet::new()).unwrap_err();
    assert!(matches!(error.why, Unreadable::File(_)), "{}", error.why);
    assert_eq!(error.image, nowhere[0]);
}

#[rstest]
#[case::none(<[u8]>::to_vec)]
#[case::gzip(gzip)]
#[case::bzip2(bzip2)]
#[case::xz(xz)]
#[case::lzma(lzma)]
#[case::zstd(zstd)]
#[case::lz4(lz4)]
#[case::lzo(lzo)]
fn what_is_cut_short_is_told(#[case] compress: Compress) {
    let whole = compress(&image(&[(DISK, &content())]));
    for length in [whole.len() / 2, whole.len() / 3, 100, 7] {
        let error = read(&whole[..length]).unwrap_err();
        assert!(matches!(error, Unreadable::CutShort), "{length} of {}: {error}", whole.len());
    }
}

/// xorshift, so that what fails fails again.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 16).unwrap()
}

/// Whatever comes of it, it comes without a panic, and soon.
#[rstest]
#[case::none(<[u8]>::to_vec)]
#[case::gzip(gzip)]
#[case::bzip2(bzip2)]
#[case::xz(xz)]
#[case::lzma(lzma)]
#[case::zstd(zstd)]
#[case::lz4(lz4)]
#[case::lzo(lzo)]
fn damage_does_no_harm(#[case] compress: Compress) {
    let content = &content()[..5000];
    let index = b"updates/disk.ko:\n";
    let whole = [
        image(&[("kernel/x86/microcode/AuthenticAMD.bin", &[3; 300])]),
        compress(&image(&[("lib/modules/6.1/modules.dep", index), (DISK, content)])),
    ]
    .concat();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..200 {
        let mut damaged = whole.clone();
        for _ in 0..1 + random(&mut state) % 4 {
            let at = random(&mut state) % damaged.len();
            damaged[at] ^= 1 << (random(&mut state) % 8);
        }
        damaged.truncate(damaged.len() - random(&mut state) % damaged.len());
        if let Ok(contents) = read(&damaged) {
            assert!(contents.module("disk").len() <= 1);
        }
    }
}
