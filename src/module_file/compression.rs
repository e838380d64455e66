// SPDX-License-Identifier: MIT OR Apache-2.0
//! How module files are compressed, for a kernel and by their content.

use std::borrow::Cow;
use std::io::{Read, Write};

use anyhow::{Context, Result};

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

    /// Compresses a module so that the kernel and kmod can read it: xz with a CRC32 check
    /// (Documentation/staging/xz.rst: the kernel knows no other).
    pub fn compress(self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let compressed = match self {
            Self::None => Ok(bytes),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&bytes).and_then(|()| encoder.finish())
            }
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_easy_encoder(6, liblzma::stream::Check::Crc32)
                    .context("setting up xz compression")?;
                let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(&bytes).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd::stream::encode_all(bytes.as_slice(), 0),
        };
        compressed.context("compressing a module")
    }
}

/// The largest module that we unpack, in bytes; nvidia.ko with debug information has 100 MiB.
const LARGEST: u64 = 1 << 30;

/// The module's ELF image, unpacked if the file is compressed.
pub fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    let reader: Box<dyn Read> = match Compression::of_bytes(bytes) {
        Compression::None => return Ok(Cow::Borrowed(bytes)),
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Compression::Xz => Box::new(liblzma::read::XzDecoder::new(bytes)),
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(bytes).context("unpacking a module")?)
        }
    };
    let mut image = Vec::new();
    reader.take(LARGEST).read_to_end(&mut image).context("unpacking a module")?;
    Ok(Cow::Owned(image))
}

#[cfg(test)]
mod tests {
    use super::super::tests::module;
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::gzip(Compression::Gzip)]
    #[case::xz(Compression::Xz)]
    #[case::zstd(Compression::Zstd)]
    #[case::none(Compression::None)]
    fn what_is_compressed_unpacks_to_the_same(#[case] compression: Compression) {
        let image = module(b"name=foo\0");
        let packed = compression.compress(image.clone()).unwrap();
        assert_eq!(Compression::of_bytes(&packed), compression);
        assert_eq!(unpacked(&packed).unwrap(), image);
    }
}
