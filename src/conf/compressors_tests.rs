// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use rstest::rstest;

#[rstest]
#[case::nothing("", 6, 0)]
#[case::digit("-9", 9, 0)]
#[case::words("--fast --best", 9, 0)]
#[case::cluster("-9nfq", 9, 0)]
#[case::last_digit("-96 -v", 6, 0)]
#[case::not_ours("-3 --rsyncable file", 3, 1)]
#[case::suffix("-S .z -1", 1, 1)]
fn gzip_options_are_read(#[case] text: &str, #[case] level: u32, #[case] count: usize) {
    let mut warnings = Vec::new();
    assert_eq!(gzip(text, &mut warnings), level);
    assert_eq!(warnings.len(), count, "{warnings:?}");
}

fn preset(preset: u32, extreme: bool) -> Xz {
    Xz { extreme, ..Xz::of_preset(preset) }
}

#[rstest]
#[case::nothing("", preset(6, false))]
#[case::kernels_own("--check=crc32 --lzma2=dict=2MiB", Xz { dict: Some(2 << 20), ..preset(6, false) })]
#[case::extreme("-9e", preset(9, true))]
#[case::extreme_apart("-e -T0 -4 -q", preset(4, true))]
#[case::words("--fast --extreme", preset(0, true))]
#[case::values_of_their_own("-C crc32 -T 4 --threads 2 -M 50% -1", preset(1, false))]
#[case::no_check("--check=none", Xz { check: false, ..preset(6, false) })]
#[case::a_preset_takes_filters_back("--lzma2=dict=1MiB -6", preset(6, false))]
#[case::filters_take_a_preset_back("-9 --lzma2=nice=273", Xz { tuned: vec![(Tuning::Nice, 273)], ..preset(6, false) })]
#[case::preset_in_a_filter(
    "--lzma2=preset=9e,dict=64KiB,lc=4,pb=0",
    Xz {
        dict: Some(64 << 10),
        tuned: vec![(Tuning::LiteralContext, 4), (Tuning::Position, 0)],
        ..preset(9, true)
    }
)]
fn xz_options_are_read(#[case] text: &str, #[case] want: Xz) {
    let mut warnings = Vec::new();
    assert_eq!(xz(text, &mut warnings), want);
    assert_eq!(warnings, [""; 0]);
}

#[rstest]
#[case::crc64("-9 --check=crc64", preset(9, false), "--check=crc64: kernels can check a CRC32")]
#[case::branch_filter("--x86 -8", preset(8, false), "--x86: this has no effect")]
#[case::mode("--lzma2=mode=fast", preset(6, false), "mode=fast: this has no effect")]
#[case::large_dict("--lzma2=dict=2GiB", preset(6, false), "dict=2GiB is no size")]
#[case::no_size("--lzma2=dict=big", preset(6, false), "dict=big is no size")]
#[case::too_many_bits("--lzma2=lc=4,lp=1", preset(6, false), "not be more than 4")]
#[case::other_format("-F lzma -2", preset(2, false), "-F: this has no effect")]
#[case::nonsense(
    "--nonsense --nonsense nonsense",
    preset(6, false),
    "--nonsense nonsense: this has no effect"
)]
fn xz_options_that_do_no_good_are_told_of(#[case] text: &str, #[case] want: Xz, #[case] words: &str) {
    let mut warnings = Vec::new();
    assert_eq!(xz(text, &mut warnings), want);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(
        warning.starts_with("framework.conf: compress_xz_opts: ") && warning.contains(words),
        "{warning}"
    );
}

const PLAIN: Zstd = Zstd { level: 3, long: None, check: true };

#[rstest]
#[case::nothing("", PLAIN)]
#[case::dkms_own("-q --rm -T0 -3", PLAIN)]
#[case::level("-19 --threads=2", Zstd { level: 19, ..PLAIN })]
#[case::ultra("--ultra -22 -qq", Zstd { level: 22, ..PLAIN })]
#[case::ultra_behind("-20 --ultra", Zstd { level: 20, ..PLAIN })]
#[case::fast("--fast", Zstd { level: -1, ..PLAIN })]
#[case::faster("--fast=5", Zstd { level: -5, ..PLAIN })]
#[case::long("--long -7", Zstd { level: 7, long: Some(27), ..PLAIN })]
#[case::shorter("--long=24 --no-check", Zstd { long: Some(24), check: false, ..PLAIN })]
fn zstd_options_are_read(#[case] text: &str, #[case] want: Zstd) {
    let mut warnings = Vec::new();
    assert_eq!(zstd(text, &mut warnings), want);
    assert_eq!(warnings, [""; 0]);
}

#[rstest]
#[case::without_ultra("-22", Zstd { level: 19, ..PLAIN }, "-22: it takes --ultra")]
#[case::window("--long=31", Zstd { long: Some(27), ..PLAIN }, "--long=31: kmod reads no window above 27")]
#[case::level("-99", PLAIN, "-99: levels go from 1 to 22")]
#[case::several("--adapt --rsyncable -1", Zstd { level: 1, ..PLAIN }, "--adapt --rsyncable: this has no effect")]
#[case::dictionary("-D dict", PLAIN, "-D dict: this has no effect")]
fn zstd_options_that_do_no_good_are_told_of(#[case] text: &str, #[case] want: Zstd, #[case] words: &str) {
    let mut warnings = Vec::new();
    assert_eq!(zstd(text, &mut warnings), want);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains(words), "{warning}");
}
