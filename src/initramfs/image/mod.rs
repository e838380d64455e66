// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads images back: the modules in an initramfs or in a unified kernel image, as the kernel will
//! unpack them. Streams what may be large, keeps the modules that are asked for, and believes no
//! size that it is told. Does not judge what it finds.

mod blocks;
mod buffer;
mod modules;
mod uki;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;

use crate::kernel::KernelRelease;
use modules::Collector;
pub use modules::{Contents, Found};

/// Why an image cannot be read. What it lacks is another matter.
#[derive(Debug)]
pub enum Unreadable {
    /// The file itself cannot be read.
    File(io::Error),
    CutShort,
    /// In words of whoever noticed it.
    Damaged(String),
    /// More than a machine has memory for.
    TooLarge,
    /// Neither a cpio archive nor compressed in any way that a kernel knows.
    Unknown,
    /// The format that lz4(1) writes unless it is told to write the one that kernels read.
    Lz4Frame,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::CutShort => f.write_str("it is cut short"),
            Self::Damaged(what) => write!(f, "it is damaged: {what}"),
            Self::TooLarge => f.write_str("it unpacks to more than any machine has memory for"),
            Self::Unknown => f.write_str("it is no archive that a kernel can unpack"),
            Self::Lz4Frame => {
                f.write_str("it is compressed in lz4's frame format, which kernels cannot unpack (lz4 -l writes what they can)")
            }
        }
    }
}

impl std::error::Error for Unreadable {}

impl From<Unreadable> for io::Error {
    fn from(unreadable: Unreadable) -> Self {
        Self::other(unreadable)
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(unreadable) => unreadable,
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof => Self::CutShort,
                // What the codecs say.
                ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other => {
                    Self::Damaged(error.to_string())
                }
                _ => Self::File(error),
            },
        }
    }
}

/// An image that cannot be read, and why.
#[derive(Debug)]
pub struct CannotRead {
    pub image: PathBuf,
    pub why: Unreadable,
}

/// Finds modules (by canonical names) of a kernel in images which the boot loader hands over
/// together, so that they are one initramfs: what a later one holds replaces what an earlier does.
pub fn read(
    images: &[PathBuf],
    kernel: &KernelRelease,
    wanted: &BTreeSet<String>,
) -> Result<Contents, CannotRead> {
    let mut collector = Collector::new(kernel, wanted);
    for image in images {
        walk(image, &mut collector).map_err(|why| CannotRead { image: image.clone(), why })?;
    }
    Ok(collector.finish())
}

fn walk(image: &Path, visitor: &mut dyn buffer::Visitor) -> Result<(), Unreadable> {
    let mut file = File::open(image)?;
    let mut head = Vec::new();
    (&mut file).take(uki::HEAD).read_to_end(&mut head)?;
    let end = file.metadata()?.len();
    let (start, length) = match uki::initrd(&head)? {
        uki::Kind::Uki(section) => section,
        uki::Kind::Other => (0, end),
        uki::Kind::WithoutInitrd => return Ok(()),
    };
    if start.saturating_add(length) > end {
        return Err(Unreadable::CutShort);
    }
    let length = without_bootconfig(&mut file, start, length)?;
    file.seek(SeekFrom::Start(start))?;
    let mut input = BufReader::with_capacity(128 << 10, file.take(length));
    Ok(buffer::walk(&mut input, visitor)?)
}

/// The length of an image before the boot configuration that may be appended to it, which the kernel
/// cuts off before it unpacks (Documentation/admin-guide/bootconfig.rst): its size and checksum,
/// little-endian, and a mark come last.
fn without_bootconfig(file: &mut File, start: u64, length: u64) -> Result<u64, Unreadable> {
    const MARK: [u8; 12] = *b"#BOOTCONFIG\n";
    let mut tail = [0; 20];
    let Some(before) = length.checked_sub(tail.len() as u64) else { return Ok(length) };
    file.seek(SeekFrom::Start(start + before))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, _, _, _, _, mark @ ..] = tail;
    let size = u64::from(u32::from_le_bytes([a, b, c, d]));
    let rest = before.checked_sub(size).filter(|_| mark == MARK);
    Ok(rest.unwrap_or(length))
}
