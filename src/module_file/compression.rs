// SPDX-License-Identifier: MIT OR Apache-2.0
//! How module files are compressed, so that kmod and the kernel's own decompressors can read them.

use std::borrow::Cow;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};

use crate::conf::compressors::{Compressors, Tuning, Xz, Zstd};
use crate::kernel::KernelConfig;

/// How module files are compressed for a kernel (kernel/module/Kconfig, MODULE_COMPRESS_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// What goes behind `.ko` in a file's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
        }
    }

    /// What a kernel's configuration asks for. `MODULE_COMPRESS_ALL=n` (since 6.12) leaves the
    /// files of external modules as they are, yet kmod loads either form.
    pub fn of_kernel(config: &KernelConfig) -> Self {
        let asked = |names: &[&str]| names.iter().any(|name| config.enabled(name));
        if asked(&["CONFIG_MODULE_COMPRESS_ZSTD"]) {
            Self::Zstd
        } else if asked(&["CONFIG_MODULE_COMPRESS_XZ"]) {
            Self::Xz
        } else if asked(&["CONFIG_MODULE_COMPRESS_GZIP"]) {
            Self::Gzip
        } else {
            Self::None
        }
    }

    /// How a file is compressed, which its first bytes tell.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Compresses a module so that the kernel and kmod can read it: xz with a CRC32 check or none,
    /// and without filters for branches (Documentation/staging/xz.rst).
    pub fn compress(self, bytes: Vec<u8>, with: &Compressors) -> Result<Vec<u8>> {
        let compressed = match self {
            Self::None => Ok(bytes),
            Self::Gzip => {
                let level = flate2::Compression::new(with.gzip);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(&bytes).and_then(|()| encoder.finish())
            }
            Self::Xz => {
                let stream = xz_stream(&with.xz, bytes.len()).context("setting up xz compression")?;
                let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(&bytes).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd_frame(&with.zstd, &bytes),
        };
        compressed.context("compressing a module")
    }
}

fn xz_stream(with: &Xz, length: usize) -> Result<Stream, liblzma::stream::Error> {
    let extreme = if with.extreme { liblzma::stream::PRESET_EXTREME } else { 0 };
    let mut lzma = LzmaOptions::new_preset(with.preset | extreme)?;
    // Whoever loads the module needs as much memory; beyond the module it does nothing.
    let all = u32::try_from(length.next_power_of_two()).unwrap_or(u32::MAX).max(1 << 12);
    let dict = with.dict.unwrap_or_else(|| preset_dict(with.preset));
    lzma.dict_size(dict.min(all));
    for (tuning, value) in &with.tuned {
        match tuning {
            Tuning::LiteralContext => lzma.literal_context_bits(*value),
            Tuning::LiteralPosition => lzma.literal_position_bits(*value),
            Tuning::Position => lzma.position_bits(*value),
            Tuning::Nice => lzma.nice_len(*value),
            Tuning::Depth => lzma.depth(*value),
        };
    }
    let check = if with.check { Check::Crc32 } else { Check::None };
    Stream::new_stream_encoder(Filters::new().lzma2(&lzma), check)
}

/// The dictionary of a preset in bytes, from 256 KiB to 64 MiB (xz(1), "Compression preset levels").
fn preset_dict(preset: u32) -> u32 {
    let mebibytes_log = [0, 0, 1, 2, 2, 3, 3, 4, 5, 6];
    let log = mebibytes_log.get(preset as usize).copied().unwrap_or(3);
    if preset == 0 { 1 << 18 } else { 1 << (20 + log) }
}

fn zstd_frame(with: &Zstd, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), with.level)?;
    encoder.include_checksum(with.check)?;
    // With the size known, the window is no larger than the module.
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    if let Some(log) = with.long {
        encoder.long_distance_matching(true)?;
        encoder.window_log(log)?;
    }
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// The largest module that we unpack, in bytes; nvidia.ko with debug information has 100 MiB.
const LARGEST: u64 = 1 << 30;

/// What xz may take besides, in bytes: the largest dictionary that we write.
const XZ_MEMORY: u64 = LARGEST + (64 << 20);

/// The module's ELF image, unpacked if the file is compressed.
pub fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    unpacked_up_to(bytes, LARGEST)
}

fn unpacked_up_to(bytes: &[u8], largest: u64) -> Result<Cow<'_, [u8]>> {
    let reader: Box<dyn Read> = match Compression::of_bytes(bytes) {
        Compression::None => return Ok(Cow::Borrowed(bytes)),
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Compression::Xz => {
            let decoder = Stream::new_stream_decoder(XZ_MEMORY, 0).context("unpacking a module")?;
            Box::new(liblzma::read::XzDecoder::new_stream(bytes, decoder))
        }
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(bytes).context("unpacking a module")?)
        }
    };
    let mut image = Vec::new();
    reader.take(largest + 1).read_to_end(&mut image).context("unpacking a module")?;
    if image.len() as u64 > largest {
        bail!("it unpacks to more than {} MiB", largest >> 20);
    }
    Ok(Cow::Owned(image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::compressors;
    use rstest::rstest;

    /// As large as a module may well be, and with something to find far apart.
    fn image() -> Vec<u8> {
        let mut noise: u32 = 1;
        let mut next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        let part: Vec<u8> = (0..60_000).map(|_| next()).collect();
        [part.as_slice(), &[0; 20_000], &part].concat()
    }

    #[rstest]
    #[case::gzip(Compression::Gzip)]
    #[case::xz(Compression::Xz)]
    #[case::zstd(Compression::Zstd)]
    #[case::none(Compression::None)]
    fn what_is_compressed_unpacks_to_the_same(#[case] compression: Compression) {
        let image = image();
        let packed = compression.compress(image.clone(), &Compressors::default()).unwrap();
        assert_eq!(Compression::of_bytes(&packed), compression);
        assert_eq!(unpacked(&packed).unwrap(), image);
    }

    #[rstest]
    #[case::fast("-0")]
    #[case::best("-9e")]
    #[case::large("--lzma2=dict=1536MiB,lc=0,lp=4,pb=0,nice=273,depth=10")]
    #[case::no_check("--check=none -1")]
    fn xz_settings_come_to_what_the_kernel_reads(#[case] options: &str) {
        let with = Compressors { xz: compressors::xz(options, &mut Vec::new()), ..Compressors::default() };
        let packed = Compression::Xz.compress(image(), &with).unwrap();
        assert_eq!(unpacked(&packed).unwrap(), image());
        // The stream's flags (xz file format, 2.1.1.2): no check, or CRC32.
        assert_eq!(packed[7], u8::from(with.xz.check));
        // One filter, LZMA2 (3.1.2, 5.3.1), whose dictionary is no larger than the module: 256 KiB.
        assert_eq!((packed[13] & 3, packed[14], packed[15]), (0, 0x21, 1));
        assert!(packed[16] <= 12, "{}", packed[16]);
    }

    #[rstest]
    #[case::fast("--fast=9")]
    #[case::ultra("--ultra -22")]
    #[case::long("--long=27 --no-check")]
    fn zstd_settings_come_to_what_kmod_reads(#[case] options: &str) {
        let with =
            Compressors { zstd: compressors::zstd(options, &mut Vec::new()), ..Compressors::default() };
        let packed = Compression::Zstd.compress(image(), &with).unwrap();
        assert_eq!(unpacked(&packed).unwrap(), image());
        // The frame header's descriptor (RFC 8878, 3.1.1.1.1): the check, and the size is known.
        assert_eq!(packed[4] & 4 != 0, with.zstd.check);
        assert_ne!(packed[4] >> 6, 0);
    }

    /// What is cut off would look like a damaged module.
    #[rstest]
    #[case::gzip(Compression::Gzip)]
    #[case::xz(Compression::Xz)]
    #[case::zstd(Compression::Zstd)]
    fn what_unpacks_to_more_than_a_module_is_told(#[case] compression: Compression) {
        let packed = compression.compress(vec![0; 3 << 20], &Compressors::default()).unwrap();
        assert_eq!(unpacked_up_to(&packed, 3 << 20).unwrap().len(), 3 << 20);
        let error = unpacked_up_to(&packed, (3 << 20) - 1).unwrap_err();
        assert_eq!(error.to_string(), "it unpacks to more than 2 MiB");
    }

    #[test]
    fn settings_make_a_difference() {
        let symbols: String = (0..20_000).map(|at| format!("symbol_{} ", at * 7919 % 10_007)).collect();
        let size = |how: Compression, set: &dyn Fn(&mut Compressors)| {
            let mut with = Compressors::default();
            set(&mut with);
            how.compress(symbols.clone().into_bytes(), &with).unwrap().len()
        };
        let xz = |text: &'static str| {
            size(Compression::Xz, &|with| with.xz = compressors::xz(text, &mut Vec::new()))
        };
        assert!(xz("-0") > xz("-9e"));
        assert!(xz("--lzma2=dict=4KiB") > xz("--lzma2=dict=128KiB"));
        let zstd = |text: &'static str| {
            size(Compression::Zstd, &|with| with.zstd = compressors::zstd(text, &mut Vec::new()))
        };
        assert!(zstd("--fast=9") > zstd("-12"));
        let gzip = |level| size(Compression::Gzip, &|with| with.gzip = level);
        assert!(gzip(1) > gzip(9));
    }

    #[test]
    fn presets_have_the_dictionaries_of_xz() {
        let mebibytes: Vec<u32> = (1..10).map(|preset| preset_dict(preset) >> 20).collect();
        assert_eq!(mebibytes, [1, 2, 4, 4, 8, 8, 16, 32, 64]);
        assert_eq!(preset_dict(0), 1 << 18);
    }
}
