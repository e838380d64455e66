// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two compressions that come as a series of blocks, in the containers that the kernel reads.
//! What is inside a block is the codecs' business.

use std::io::{Error, ErrorKind, Read, Result};

/// Reads what `next` unpacks, block by block. It puts the next block at the beginning of its buffer,
/// which is as long as blocks can be, and tells its length; none at the end, and it is not called
/// again then. The buffer is not cleared in between: blocks may be many and small.
struct Blocks<F> {
    next: Option<F>,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl<F: FnMut(&mut [u8]) -> Result<usize>> Blocks<F> {
    fn new(longest: usize, next: F) -> Self {
        Self { next: Some(next), buffer: vec![0; longest], at: 0, end: 0 }
    }
}

impl<F: FnMut(&mut [u8]) -> Result<usize>> Read for Blocks<F> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        if self.at == self.end
            && let Some(next) = &mut self.next
        {
            (self.at, self.end) = (0, next(&mut self.buffer)?);
            if self.end == 0 {
                self.next = None;
            }
        }
        let count = (&self.buffer[self.at..self.end]).read(to)?;
        self.at += count;
        Ok(count)
    }
}

fn corrupt(what: impl ToString) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_string())
}

fn array<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map(|()| bytes)
}

fn be32(from: &mut impl Read) -> Result<u32> {
    array(from).map(u32::from_be_bytes)
}

/// Exactly this many bytes; the length has been checked.
fn bytes(from: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).map(|()| bytes)
}

/// lz4's legacy format (lib/decompress_unlz4.c, and "Legacy frame" in lz4_Frame_format.md): a magic
/// number, then blocks behind their length, until the input or its padding. The magic number may
/// come again where two files were put together.
pub(super) fn lz4(mut from: impl Read) -> Result<impl Read> {
    const MAGIC: u32 = 0x184c_2102;
    /// How much a block unpacks to, at most.
    const BLOCK: usize = 8 << 20;
    /// How much it may be packed ("LZ4_COMPRESSBOUND" in lz4.h).
    const PACKED: usize = BLOCK + BLOCK / 255 + 16;
    if array(&mut from).map(u32::from_le_bytes)? != MAGIC {
        return Err(corrupt("its lz4 header is damaged"));
    }
    let next = move |block: &mut [u8]| {
        let length = loop {
            let mut length = [0; 4];
            let mut have = 0;
            while have < 4 {
                match from.read(&mut length[have..])? {
                    // The end, or less padding than a length takes.
                    0 if length == [0; 4] => break,
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    count => have += count,
                }
            }
            match u32::from_le_bytes(length) {
                MAGIC => {}
                length => break length as usize,
            }
        };
        if length > PACKED {
            return Err(corrupt("it has an lz4 block of an impossible size"));
        }
        if length == 0 {
            return Ok(0);
        }
        let packed = bytes(&mut from, length)?;
        lz4_flex::block::decompress_into(&packed, block).map_err(corrupt)
    };
    Ok(Blocks::new(BLOCK, next))
}

/// lzop's format (lib/decompress_unlzo.c).
pub(super) fn lzo(mut from: impl Read) -> Result<impl Read> {
    const MAGIC: [u8; 9] = *b"\x89LZO\0\r\n\x1a\n";
    /// How much a block unpacks to, at most.
    const BLOCK: usize = 256 << 10;
    // Bits of the header's flags; a checksum is of what is packed or of what is unpacked.
    const ADLER32_UNPACKED: u32 = 1;
    const ADLER32_PACKED: u32 = 2;
    const CRC32_UNPACKED: u32 = 0x100;
    const CRC32_PACKED: u32 = 0x200;
    const FILTER: u32 = 0x800;

    if array(&mut from)? != MAGIC {
        return Err(corrupt("its lzo header is damaged"));
    }
    let version = u16::from_be_bytes(array(&mut from)?);
    let is_recent = version >= 0x0940;
    // The library's version, the version needed to unpack, the method; later also a level.
    bytes(&mut from, if is_recent { 6 } else { 5 })?;
    let flags = be32(&mut from)?;
    // A filter, the file's mode and time, its name, a checksum of the header.
    bytes(&mut from, if flags & FILTER == 0 { 0 } else { 4 })?;
    bytes(&mut from, if is_recent { 12 } else { 8 })?;
    let [name] = array(&mut from)?;
    bytes(&mut from, usize::from(name) + 4)?;
    let checksums = move |kinds: [u32; 2]| 4 * kinds.iter().filter(|kind| flags & **kind != 0).count();
    let next = move |block: &mut [u8]| {
        let unpacked = be32(&mut from)? as usize;
        if unpacked == 0 {
            return Ok(0);
        }
        let packed = be32(&mut from)? as usize;
        if unpacked > BLOCK || packed > unpacked {
            return Err(corrupt("it has an lzo block of an impossible size"));
        }
        bytes(&mut from, checksums([ADLER32_UNPACKED, CRC32_UNPACKED]))?;
        if packed == unpacked {
            from.read_exact(&mut block[..packed])?;
            return Ok(packed);
        }
        bytes(&mut from, checksums([ADLER32_PACKED, CRC32_PACKED]))?;
        let packed = bytes(&mut from, packed)?;
        match lzokay::decompress::decompress(&packed, &mut block[..unpacked]) {
            Ok(length) if length == unpacked => Ok(length),
            Ok(_) => Err(corrupt("an lzo block is shorter than it says")),
            Err(error) => Err(corrupt(format_args!("an lzo block is damaged: {error:?}"))),
        }
    };
    Ok(Blocks::new(BLOCK, next))
}
