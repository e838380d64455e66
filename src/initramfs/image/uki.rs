// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a unified kernel image has its initramfs (UAPI Group Specifications, "Unified Kernel
//! Image"; systemd-stub(7)). Pure: the head of a file in, a place in the file out.

use object::pe::{IMAGE_NT_OPTIONAL_HDR32_MAGIC, ImageDosHeader, ImageNtHeaders32, ImageNtHeaders64};
use object::read::pe::{ImageNtHeaders, optional_header_magic};

use super::Unreadable;

/// How much of a file has to be looked at, in bytes: headers come first.
pub(super) const HEAD: u64 = 64 << 10;

/// What a file is, by its head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Where the initramfs is, and how long, in bytes.
    Uki((u64, u64)),
    WithoutInitrd,
    /// No program for EFI.
    Other,
}

/// Looks for the section `.initrd`. Of an image with several profiles the first one counts, which
/// is booted unless somebody chooses another: sections before the first `.profile` belong to all,
/// those behind it replace them in that profile.
pub(super) fn initrd(head: &[u8]) -> Result<Kind, Unreadable> {
    if !head.starts_with(b"MZ") {
        return Ok(Kind::Other);
    }
    let sections = match optional_header_magic(head) {
        Ok(IMAGE_NT_OPTIONAL_HDR32_MAGIC) => sections::<ImageNtHeaders32>(head),
        Ok(_) => sections::<ImageNtHeaders64>(head),
        Err(error) => Err(error),
    };
    let sections = sections.map_err(|error| Unreadable::Damaged(error.to_string()))?;
    let mut found = Kind::WithoutInitrd;
    let mut profiles = 0;
    for (name, place) in sections {
        match name {
            ".profile" => profiles += 1,
            ".initrd" if profiles < 2 => found = Kind::Uki(place),
            _ => {}
        }
    }
    Ok(found)
}

type Section<'a> = (&'a str, (u64, u64));

fn sections<Headers: ImageNtHeaders>(head: &[u8]) -> object::Result<Vec<Section<'_>>> {
    let mut offset = ImageDosHeader::parse(head)?.nt_headers_offset().into();
    let (headers, _) = Headers::parse(head, &mut offset)?;
    let section = |section: &'_ object::pe::ImageSectionHeader| {
        let (start, length) = section.pe_file_range();
        (u64::from(start), u64::from(length))
    };
    let sections = headers.sections(head, offset)?;
    Ok(sections
        .iter()
        .filter_map(|header| Some((std::str::from_utf8(header.raw_name()).ok()?, section(header))))
        .collect())
}
