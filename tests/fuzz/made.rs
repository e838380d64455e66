// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeds: files of the repository, and archives, images and modules that are made here.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use cpio::newc::{Builder as Cpio, ModeFileType, trailer};
use dkms_hooks::conf::compressors::Compressors;
use dkms_hooks::module::{Arch, ModuleId, Target};
use dkms_hooks::module_file::Compression;
use dkms_hooks::store::artefact::{Artefact, Wanted};
use dkms_hooks::store::entry::Entry;
use dkms_hooks::tree::made::MadeOf;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use tar::{Builder as Tar, EntryType, Header};

/// What a target begins with.
pub fn seeds(target: &str) -> Result<Vec<Vec<u8>>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut paths = Vec::new();
    if directory.is_dir() {
        for entry in fs_err::read_dir(&directory)? {
            paths.push(entry?.path());
        }
    }
    // The order of directories is nobody's.
    paths.sort();
    let mut seeds = paths.iter().map(fs_err::read).collect::<Result<Vec<_>, _>>()?;
    match target {
        "tar" => seeds.extend(tars()?),
        "artefact" => seeds.extend(artefacts()?),
        "initramfs" => seeds.extend(images()?),
        "module" => seeds.extend(modules()?),
        "signature" => {
            for file in ["mok.der", "other.der", "by-certificate.p7s", "by-key.p7s"] {
                let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signing");
                seeds.push(fs_err::read(fixtures.join(file))?);
            }
        }
        "uki" => seeds.extend([uki(&initramfs()?), uki(b"")]),
        _ => {}
    }
    Ok(seeds)
}

fn packed(how: Compression, bytes: &[u8]) -> Result<Vec<u8>> {
    how.compress(bytes.to_vec(), &Compressors::default())
}

fn tars() -> Result<Vec<Vec<u8>>> {
    let conf = b"PACKAGE_NAME=foo\nPACKAGE_VERSION=1.0\nDEST_MODULE_LOCATION[0]=/updates\n";
    let archive = |items: &[(EntryType, &str, &str, &[u8])]| -> Result<Vec<u8>> {
        let mut tar = Tar::new(Vec::new());
        for (kind, name, link, data) in items {
            let mut header = Header::new_gnu();
            let gnu = header.as_gnu_mut().unwrap();
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            header.set_cksum();
            tar.append(&header, *data)?;
        }
        Ok(tar.into_inner()?)
    };
    use EntryType as Kind;
    let whole = archive(&[
        (Kind::Directory, "dkms_main_tree/6.1/x86_64/module/", "", b""),
        (Kind::Regular, "dkms_main_tree/6.1/x86_64/module/foo.ko", "", b"module"),
        (Kind::Regular, "dkms_source_tree/dkms.conf", "", conf),
        (Kind::Regular, "dkms_source_tree/foo.c", "", b"int foo;\n"),
        (Kind::Symlink, "dkms_source_tree/link", "foo.c", b""),
        (Kind::Link, "dkms_source_tree/same", "dkms_source_tree/foo.c", b""),
    ])?;
    let hostile = archive(&[
        (Kind::Directory, "a", "", b""),
        (Kind::Symlink, "a/b", "..", b""),
        (Kind::Symlink, "a/c", "b", b""),
        (Kind::Regular, "a/c/secret", "", b"x"),
        (Kind::Link, "d", "a/c/secret", b""),
    ])?;
    let traversal =
        archive(&[(Kind::Regular, "./dkms.conf", "", conf), (Kind::Regular, "../evil", "", b"x")])?;
    let mut long = Tar::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(conf.len() as u64);
    long.append_data(&mut header, "long/".repeat(40) + "dkms.conf", &conf[..])?;
    let mut pax = Tar::new(Vec::new());
    pax.append_pax_extensions([("path", &b"foo-1.0/dkms.conf"[..]), ("size", b"3"), ("mtime", b"1.5")])?;
    pax.append(&Header::new_ustar(), &b""[..])?;
    let mut seeds = vec![whole.clone(), hostile, traversal, long.into_inner()?, pax.into_inner()?, sparse()];
    for how in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        seeds.push(packed(how, &whole)?);
    }
    Ok(seeds)
}

/// A file of a mebibyte of which there are three bytes.
fn sparse() -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(3);
    let gnu = header.as_gnu_mut().unwrap();
    let octal = |number: u64| -> [u8; 12] { format!("{number:011o}\0").into_bytes().try_into().unwrap() };
    gnu.realsize = octal(1 << 20);
    (gnu.sparse[0].offset, gnu.sparse[0].numbytes) = (octal(512), octal(3));
    (gnu.sparse[1].offset, gnu.sparse[1].numbytes) = (octal(1 << 20), octal(0));
    header.set_cksum();
    [header.as_bytes().as_slice(), b"abc", &[0; 509], &[0; 1024]].concat()
}

fn initramfs() -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    let mut add = |name: &str, kind: ModeFileType, inode: u32, links: u32, content: &[u8]| -> Result<()> {
        let builder = Cpio::new(name).ino(inode).nlink(links).set_mode_file_type(kind);
        let mut writer = builder.write(&mut archive, u32::try_from(content.len())?);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    };
    add("usr/lib/modules/6.1/modules.dep", ModeFileType::Regular, 1, 1, b"kernel/disk.ko:\n")?;
    add("usr/lib/modules/6.1/kernel/disk.ko", ModeFileType::Regular, 2, 1, b"disk")?;
    add("lib/modules/6.1/updates/disk.ko.xz", ModeFileType::Regular, 3, 2, b"")?;
    add("lib/modules/6.1/updates/net.ko", ModeFileType::Regular, 3, 2, b"linked")?;
    add("lib/modules/6.1/extra/net.ko", ModeFileType::Symlink, 4, 1, b"../updates/net.ko")?;
    add("etc/fstab", ModeFileType::Regular, 5, 1, b"x")?;
    Ok(trailer(archive)?)
}

fn images() -> Result<Vec<Vec<u8>>> {
    let plain = initramfs()?;
    let [gzip, xz, zstd] =
        [Compression::Gzip, Compression::Xz, Compression::Zstd].map(|how| packed(how, &plain));
    let (gzip, xz, zstd) = (gzip?, xz?, zstd?);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain)?;
    let options = liblzma::stream::LzmaOptions::new_preset(0)?;
    let stream = liblzma::stream::Stream::new_lzma_encoder(&options)?;
    let mut lzma = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    lzma.write_all(&plain)?;
    let block = lz4_flex::block::compress(&plain);
    let length = u32::try_from(block.len())?;
    let lz4 = [&0x184c_2102_u32.to_le_bytes()[..], &length.to_le_bytes(), &block].concat();
    let config = [plain.as_slice(), b"a=b\n", &[4, 0, 0, 0], &[0; 4], b"#BOOTCONFIG\n"].concat();
    let joined = [plain.as_slice(), &[0; 512], &zstd].concat();
    Ok(vec![
        joined,
        config,
        lzo(&plain)?,
        bzip2.finish()?,
        lzma.finish()?,
        lz4,
        gzip,
        xz,
        zstd,
        uki(&plain),
        plain,
    ])
}

/// As lzop writes it: a header, blocks of both sizes and a checksum, and an empty one.
fn lzo(plain: &[u8]) -> Result<Vec<u8>> {
    let block = lzokay::compress::compress(plain).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut made = b"\x89LZO\0\r\n\x1a\n\x10\x30\x20\xa0\x09\x40\x01\x05\0\0\0\0".to_vec();
    made.extend([0; 12]);
    made.extend([0, 0, 0, 0, 0]);
    made.extend(u32::try_from(plain.len())?.to_be_bytes());
    made.extend(u32::try_from(block.len())?.to_be_bytes());
    made.extend(&block);
    made.extend([0; 4]);
    Ok(made)
}

/// A program for EFI with the sections that boot loaders look for, as objcopy lays them out.
pub fn uki(initrd: &[u8]) -> Vec<u8> {
    let sections: [(&[u8], &[u8]); 5] = [
        (b".osrel", b"ID=debian\nPRETTY_NAME=\"Debian 12\"\nVERSION_ID=12\n"),
        (b".cmdline", b"root=/dev/sda1 quiet\0"),
        (b".uname", b"6.1"),
        (b".profile", b"ID=main\n"),
        (b".initrd", initrd),
    ];
    let mut image = vec![0; 0x1000];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    let optional = 112 + 16 * 8;
    let head = [
        &b"PE\0\0"[..],
        &0x8664_u16.to_le_bytes(),
        &(sections.len() as u16).to_le_bytes(),
        &[0; 12],
        &(optional as u16).to_le_bytes(),
        &0x22_u16.to_le_bytes(),
        &0x20b_u16.to_le_bytes(),
    ]
    .concat();
    image[0x40..0x40 + head.len()].copy_from_slice(&head);
    let optional_at = 0x40 + 24;
    image[optional_at + 108..optional_at + 112].copy_from_slice(&16_u32.to_le_bytes());
    for (number, (name, data)) in sections.iter().enumerate() {
        let (at, length) = (image.len() as u32, data.len() as u32);
        let mut header = [0; 40];
        header[..name.len()].copy_from_slice(name);
        for (place, value) in [(8, length), (12, at), (16, length), (20, at)] {
            header[place..place + 4].copy_from_slice(&value.to_le_bytes());
        }
        let place = optional_at + optional + number * 40;
        image[place..place + 40].copy_from_slice(&header);
        image.extend_from_slice(data);
    }
    image
}

/// One as it is pushed, one unpacked, and what comes with it.
fn artefacts() -> Result<Vec<Vec<u8>>> {
    let id = ModuleId::new("foo", "1.0")?;
    let target = Target { kernel: "6.1".parse()?, arch: Arch::new("x86_64")? };
    let text = || "0a".repeat(32);
    let made_of =
        MadeOf { headers: text(), toolchain: text(), sources: text(), overlaid: text(), from: None };
    let wanted = Wanted {
        id: &id,
        target: &target,
        sources: text(),
        overlaid: text(),
        settings: text(),
        headers: None,
    };
    let entry = Entry {
        built: vec![("foo.ko".into(), elf(Architecture::X86_64, Endianness::Little)?)],
        kept: vec![("log/make.log".into(), 0o644, b"built".to_vec())],
    };
    let packed = Artefact::new(&wanted, &text(), made_of, entry).pack()?;
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut zstd::Decoder::new(&packed[..])?, &mut plain)?;
    let digest = "0a".repeat(32);
    let manifest = format!(
        "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"x\",\"digest\":\"x\",\"size\":2}},\"layers\":[{{\"mediaType\":\
         \"application/vnd.dkms-hooks.module.v1.tar+zstd\",\"digest\":\"sha256:{digest}\",\"size\":7}}]}}"
    );
    let signature =
        format!("untrusted comment: x\nRUQ{}=\ntrusted comment: y\n{}==\n", "A".repeat(96), "A".repeat(86));
    Ok(vec![packed, plain, manifest.into_bytes(), signature.into_bytes()])
}

fn modules() -> Result<Vec<Vec<u8>>> {
    let mut seeds = vec![
        elf(Architecture::X86_64, Endianness::Little)?,
        elf(Architecture::S390x, Endianness::Big)?,
        elf(Architecture::Arm, Endianness::Little)?,
    ];
    let signature = fs_err::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signing/by-certificate.p7s"),
    )?;
    let length = u32::try_from(signature.len())?.to_be_bytes();
    let plain = seeds[0].clone();
    seeds.push(
        [&plain[..], &signature, &[0, 0, 2, 0, 0, 0, 0, 0], &length, b"~Module signature appended~\n"]
            .concat(),
    );
    for how in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        seeds.push(packed(how, &plain)?);
    }
    Ok(seeds)
}

fn elf(machine: Architecture, endianness: Endianness) -> Result<Vec<u8>> {
    let mut elf = Object::new(BinaryFormat::Elf, machine, endianness);
    let section = |elf: &mut Object<'_>, name: &str, kind: SectionKind, data: &[u8]| {
        let section = elf.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
        elf.append_section_data(section, data, 8);
        section
    };
    let info = b"name=foo\0vermagic=6.1 SMP mod_unload modversions \0license=GPL\0import_ns=SPACE\0";
    section(&mut elf, ".modinfo", SectionKind::ReadOnlyData, info);
    let text = section(&mut elf, ".text", SectionKind::Text, &[0x90; 32]);
    let mut versions = vec![0; 128];
    versions[8..14].copy_from_slice(b"printk");
    versions[72..85].copy_from_slice(b"module_layout");
    section(&mut elf, "__versions", SectionKind::ReadOnlyData, &versions);
    section(&mut elf, "__version_ext_crcs", SectionKind::ReadOnlyData, &[1; 8]);
    section(&mut elf, "__version_ext_names", SectionKind::ReadOnlyData, b"printk\0kfree\0");
    let table = section(&mut elf, "__ksymtab_gpl", SectionKind::ReadOnlyData, &[0; 12]);
    let crcs = section(&mut elf, "__kcrctab", SectionKind::ReadOnlyData, &[2; 4]);
    let strings = section(&mut elf, "__ksymtab_strings", SectionKind::ReadOnlyData, b"foo\0SPACE\0");
    for (name, section, value) in [
        ("init_module", SymbolSection::Section(text), 0),
        ("printk", SymbolSection::Undefined, 0),
        ("common", SymbolSection::Common, 8),
        ("__ksymtab_foo", SymbolSection::Section(table), 0),
        ("__crc_foo", SymbolSection::Section(crcs), 0),
        ("__crc_bar", SymbolSection::Absolute, 0x1234),
        ("__kstrtabns_foo", SymbolSection::Section(strings), 4),
    ] {
        let symbol = elf.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size: 8,
            kind: SymbolKind::Data,
            scope: SymbolScope::Linkage,
            weak: false,
            section,
            flags: SymbolFlags::None,
        });
        if name == "printk" && machine == Architecture::X86_64 {
            let flags = object::RelocationFlags::Elf { r_type: object::elf::R_X86_64_PC32 };
            elf.add_relocation(text, object::write::Relocation { offset: 4, symbol, addend: -4, flags })?;
        }
    }
    Ok(elf.write()?)
}
