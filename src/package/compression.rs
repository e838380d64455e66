// SPDX-License-Identifier: MIT OR Apache-2.0
//! How an archive is compressed: told by its content when it is read, by its name when it is
//! written.

use std::io::{BufRead, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use liblzma::write::XzEncoder;

/// What xz may take to decompress, in bytes. `xz -9` asks for 65 MiB; a header that asks for
/// gigabytes is none that anybody made on purpose.
const XZ_MEMORY: u64 = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// The suffixes that GNU tar's `--auto-compress` goes by; nothing for those it needs programs for
/// that we do not have.
const SUFFIXES: [(&str, Option<Compression>); 17] = [
    (".gz", Some(Compression::Gzip)),
    (".tgz", Some(Compression::Gzip)),
    (".taz", Some(Compression::Gzip)),
    (".bz2", Some(Compression::Bzip2)),
    (".tbz", Some(Compression::Bzip2)),
    (".tbz2", Some(Compression::Bzip2)),
    (".tz2", Some(Compression::Bzip2)),
    (".xz", Some(Compression::Xz)),
    (".txz", Some(Compression::Xz)),
    (".zst", Some(Compression::Zstd)),
    (".tzst", Some(Compression::Zstd)),
    (".Z", None),
    (".taZ", None),
    (".lz", None),
    (".lzma", None),
    (".tlz", None),
    (".lzo", None),
];

impl Compression {
    /// What the name of an archive asks for; nothing if that is not known here.
    pub fn of_name(path: &Path) -> Option<Self> {
        let name = path.to_string_lossy();
        let known = SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix));
        known.map_or(Some(Self::Plain), |(_, compression)| *compression)
    }

    /// Told by the first bytes, as file(1) does.
    fn of_content(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Writes through this compression what `fill` writes, to the end of the compressed stream.
    pub fn write<W: Write>(self, to: W, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<W> {
        let mut to = to;
        Ok(match self {
            Self::Plain => {
                fill(&mut to)?;
                to
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(to, flate2::Compression::default());
                fill(&mut encoder)?;
                encoder.finish()?
            }
            Self::Bzip2 => {
                let mut encoder = BzEncoder::new(to, bzip2::Compression::best());
                fill(&mut encoder)?;
                encoder.finish()?
            }
            Self::Xz => {
                let mut encoder = XzEncoder::new(to, 6);
                fill(&mut encoder)?;
                encoder.finish()?
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(to, 0).context("setting up zstd compression")?;
                fill(&mut encoder)?;
                encoder.finish()?
            }
        })
    }
}

/// What a stream holds, decompressed if its first bytes say that it is compressed.
pub fn decompressed<'a>(mut stream: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let compression = Compression::of_content(stream.fill_buf()?);
    Ok(match compression {
        Compression::Plain => Box::new(stream),
        Compression::Gzip => Box::new(MultiGzDecoder::new(stream)),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(stream)),
        Compression::Xz => {
            let decoder =
                Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).context("setting up xz decompression")?;
            Box::new(XzDecoder::new_stream(stream, decoder))
        }
        Compression::Zstd => {
            Box::new(zstd::Decoder::with_buffer(stream).context("setting up zstd decompression")?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::dkms_default("/x/foo-1.0.dkms.tar.gz", Some(Compression::Gzip))]
    #[case::tgz("b.tgz", Some(Compression::Gzip))]
    #[case::plain("b.tar", Some(Compression::Plain))]
    #[case::without_suffix("bare", Some(Compression::Plain))]
    #[case::bzip2("b.tar.bz2", Some(Compression::Bzip2))]
    #[case::xz("b.txz", Some(Compression::Xz))]
    #[case::zstd("b.tar.zst", Some(Compression::Zstd))]
    #[case::unknown("b.tar.Z", None)]
    fn names_ask_for_a_compression(#[case] name: &str, #[case] want: Option<Compression>) {
        assert_eq!(Compression::of_name(Path::new(name)), want);
    }

    #[rstest]
    #[case(Compression::Plain)]
    #[case(Compression::Gzip)]
    #[case(Compression::Bzip2)]
    #[case(Compression::Xz)]
    #[case(Compression::Zstd)]
    fn what_is_written_is_recognised_and_read_back(#[case] compression: Compression) {
        let text = b"a module ".repeat(1000);
        let packed = compression.write(Vec::new(), |to| Ok(to.write_all(&text)?)).unwrap();
        assert_eq!(Compression::of_content(&packed), compression);
        // Two streams one after the other are one, as gzip(1) and the others have it.
        let twice = if compression == Compression::Plain { packed.clone() } else { packed.repeat(2) };
        let mut read = Vec::new();
        decompressed(twice.as_slice()).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), if compression == Compression::Plain { text.len() } else { 2 * text.len() });
        assert!(read.starts_with(&text));
    }
}
