// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel unpacks into the initramfs (Documentation/driver-api/early-userspace/
//! buffer-format.rst, init/initramfs.c): cpio archives one after the other, zeros between them,
//! any but nested ones compressed. Knows nothing of modules.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use bzip2::bufread::BzDecoder;
use cpio::newc::{self, Entry};
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use super::{Unreadable, blocks};

/// How much a whole image may unpack to, in bytes. All of it has to fit into memory at boot.
const LARGEST: u64 = 16 << 30;

/// What xz and lzma may take to unpack, in bytes; `xz -9` takes 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// What the kernel takes as a name (PATH_MAX), with the NUL at its end. dracut-cpio fills names up
/// with NULs, so that the data behind them begins with a block of the file system.
const LONGEST_NAME: u32 = 4096;

/// Who is shown the files of an image, in their order.
pub(super) trait Visitor {
    /// Looks at one file; what it leaves of the content is skipped.
    fn file(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()>;

    /// An archive is over: inode numbers count from anew.
    fn end_of_archive(&mut self);
}

/// Goes through a whole image.
pub(super) fn walk(mut input: &mut dyn BufRead, visitor: &mut dyn Visitor) -> io::Result<()> {
    while let Some(first) = skip_padding(input)? {
        if first == b'0' {
            archive(input, visitor)?;
            continue;
        }
        let mut magic = [0; 2];
        input.read_exact(&mut magic)?;
        let mut packed = magic.chain(&mut input);
        let unpacked = Limited { from: decoder(magic, &mut packed)?, left: LARGEST };
        let mut unpacked = BufReader::with_capacity(128 << 10, unpacked);
        while let Some(first) = skip_padding(&mut unpacked)? {
            if first != b'0' {
                return Err(Unreadable::Damaged("there is more behind an archive than padding".into()).into());
            }
            archive(&mut unpacked, visitor)?;
        }
    }
    Ok(())
}

/// The next byte that is no padding; nothing at the end.
fn skip_padding(input: &mut dyn BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let padding = buffer.iter().take_while(|byte| **byte == 0).count();
        let first = buffer.get(padding).copied();
        input.consume(padding);
        if first.is_some() {
            return Ok(first);
        }
    }
}

/// The compressions that kernels know, by what they look at (lib/decompress.c). One stream each:
/// what comes behind it is left in the input.
fn decoder<'a, R: BufRead>(magic: [u8; 2], input: &'a mut R) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match magic {
        [0x1f, 0x8b | 0x9e] => Box::new(GzDecoder::new(input)),
        [b'B', b'Z'] => Box::new(BzDecoder::new(input)),
        [0xfd, b'7'] => Box::new(XzDecoder::new_stream(input, Stream::new_stream_decoder(XZ_MEMORY, 0)?)),
        [0x5d, 0] => Box::new(XzDecoder::new_stream(input, Stream::new_lzma_decoder(XZ_MEMORY)?)),
        [0x28, 0xb5] => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
        [0x02, 0x21] => Box::new(blocks::lz4(input)?),
        [0x89, b'L'] => Box::new(blocks::lzo(input)?),
        [0x04, 0x22] => return Err(Unreadable::Lz4Frame.into()),
        _ => return Err(Unreadable::Unknown.into()),
    })
}

/// Reads one archive, in "newc" or "crc" format. The last entry, which says that it is over, may be
/// missing where the image ends.
fn archive(input: &mut dyn BufRead, visitor: &mut dyn Visitor) -> io::Result<()> {
    const HEADER: usize = 110;
    while !input.fill_buf()?.is_empty() {
        let mut header = [0; HEADER];
        input.read_exact(&mut header)?;
        // c_namesize; what is no number is the crate's to complain of.
        let name = std::str::from_utf8(&header[94..102]).unwrap_or_default();
        if u32::from_str_radix(name, 16).is_ok_and(|length| length > LONGEST_NAME) {
            return Err(Unreadable::Damaged("a file has an impossibly long name".into()).into());
        }
        let mut file = newc::Reader::new(header.chain(&mut *input))?;
        let entry = file.entry().clone();
        if entry.is_trailer() {
            file.finish()?;
            break;
        }
        let mut content = Counted { from: &mut file, count: 0 };
        visitor.file(&entry, &mut content)?;
        io::copy(&mut content, &mut io::sink())?;
        if content.count != u64::from(entry.file_size()) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        file.finish()?;
    }
    visitor.end_of_archive();
    Ok(())
}

struct Counted<R> {
    from: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(to)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// Fails where a small file unpacks to what no machine has the memory for.
struct Limited<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(to)?;
        self.left = self.left.checked_sub(count as u64).ok_or(Unreadable::TooLarge)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unpacks_without_end() {
        let mut limited = Limited { from: io::repeat(0), left: 100_000 };
        let error = io::copy(&mut limited, &mut io::sink()).unwrap_err();
        assert!(matches!(error.into(), Unreadable::TooLarge));
    }
}
