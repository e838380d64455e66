// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small archives that are made here, and what the reader makes of them.

mod contents;
mod damage;
mod formats;

use std::io::Write;

use cpio::newc::{Builder, ModeFileType, trailer};
use fs_err as fs;
use liblzma::stream::{Check, LzmaOptions, Stream};

use super::*;

/// One file of an archive.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Regular(&'a str, &'a [u8]),
    /// One of several names of a file, by its inode number.
    Linked(&'a str, u32, &'a [u8]),
    Link(&'a str, &'a str),
}
use Entry::{Link, Linked, Regular};

fn entry(to: &mut Vec<u8>, file: Entry<'_>) {
    let (name, inode, links, kind, content) = match file {
        Regular(name, content) => (name, 0, 1, ModeFileType::Regular, content),
        Linked(name, inode, content) => (name, inode, 2, ModeFileType::Regular, content),
        Link(name, target) => (name, 0, 1, ModeFileType::Symlink, target.as_bytes()),
    };
    let builder = Builder::new(name).ino(inode).nlink(links).set_mode_file_type(kind);
    let mut writer = builder.write(to, content.len().try_into().unwrap());
    writer.write_all(content).unwrap();
    writer.finish().unwrap();
}

fn archive(files: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    files.iter().for_each(|file| entry(&mut archive, *file));
    trailer(archive).unwrap()
}

/// An archive of regular files.
pub(crate) fn image(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files: Vec<Entry<'_>> = files.iter().map(|(name, content)| Regular(name, content)).collect();
    archive(&files)
}

const DISK: &str = "lib/modules/6.1/updates/disk.ko";

/// Something that compresses to more than nothing.
fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect()
}

fn read_files(images: &[Vec<u8>]) -> Result<Contents, CannotRead> {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..images.len()).map(|number| dir.path().join(number.to_string())).collect();
    paths.iter().zip(images).for_each(|(path, image)| fs::write(path, image).unwrap());
    super::read(&paths, &"6.1".parse().unwrap(), &BTreeSet::from(["disk".to_owned()]))
}

/// Reads one image, looking for the module `disk` of kernel 6.1.
fn read(image: &[u8]) -> Result<Contents, Unreadable> {
    read_files(&[image.to_vec()]).map_err(|error| error.why)
}

/// The contents of the files that modprobe may take.
fn disks(image: &[u8]) -> Vec<Vec<u8>> {
    read(image).unwrap().module("disk").iter().map(|found| found.content.to_vec()).collect()
}

/// A program for EFI with these sections.
pub(crate) fn uki(is_64: bool, sections: &[(&[u8; 8], &[u8])]) -> Vec<u8> {
    use object::write::pe::{NtHeaders, Writer};
    let mut file = Vec::new();
    let mut writer = Writer::new(is_64, 0x1000, 0x200, &mut file);
    writer.reserve_dos_header_and_stub();
    writer.reserve_nt_headers(16);
    writer.reserve_section_headers(sections.len().try_into().unwrap());
    let places: Vec<u32> = sections
        .iter()
        .map(|(name, content)| {
            let length = content.len().try_into().unwrap();
            let characteristics = object::pe::IMAGE_SCN_CNT_INITIALIZED_DATA;
            writer.reserve_section(**name, characteristics, length, length).file_offset
        })
        .collect();
    writer.write_dos_header_and_stub().unwrap();
    writer.write_nt_headers(NtHeaders {
        machine: object::pe::IMAGE_FILE_MACHINE_AMD64,
        time_date_stamp: 0,
        characteristics: object::pe::IMAGE_FILE_EXECUTABLE_IMAGE,
        major_linker_version: 0,
        minor_linker_version: 0,
        address_of_entry_point: 0,
        image_base: 0,
        major_operating_system_version: 0,
        minor_operating_system_version: 0,
        major_image_version: 0,
        minor_image_version: 0,
        major_subsystem_version: 0,
        minor_subsystem_version: 0,
        subsystem: object::pe::IMAGE_SUBSYSTEM_EFI_APPLICATION,
        dll_characteristics: 0,
        size_of_stack_reserve: 0,
        size_of_stack_commit: 0,
        size_of_heap_reserve: 0,
        size_of_heap_commit: 0,
    });
    writer.write_section_headers();
    for (place, (_, content)) in places.iter().zip(sections) {
        writer.write_section(*place, content);
    }
    file
}

// ── compressions ──

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn liblzma(bytes: &[u8], stream: Stream) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    liblzma(bytes, Stream::new_easy_encoder(1, Check::Crc32).unwrap())
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    liblzma(bytes, Stream::new_lzma_encoder(&LzmaOptions::new_preset(1).unwrap()).unwrap())
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut packed = 0x184c_2102_u32.to_le_bytes().to_vec();
    for block in bytes.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        packed.extend(block);
    }
    packed
}

/// As lzop writes it, without checking its checksums.
fn lzo(bytes: &[u8]) -> Vec<u8> {
    let mut packed = b"\x89LZO\0\r\n\x1a\n\x10\x40\x20\xa0\x09\x40\x01\x05".to_vec();
    packed.extend(0x0300_0001_u32.to_be_bytes());
    packed.extend([0; 12]);
    packed.extend(b"\x04name\0\0\0\0");
    for block in bytes.chunks(256 << 10) {
        let compressed = lzokay::compress::compress(block).unwrap();
        let stored = if compressed.len() < block.len() { compressed.as_slice() } else { block };
        packed.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        packed.extend(u32::try_from(stored.len()).unwrap().to_be_bytes());
        packed.extend([0; 4]);
        packed.extend(stored);
    }
    packed.extend([0; 4]);
    packed
}

type Compress = fn(&[u8]) -> Vec<u8>;
