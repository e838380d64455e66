// SPDX-License-Identifier: MIT OR Apache-2.0
//! One stored build as a file: a line that says what it is, with the digest of the rest, which is a
//! tar archive in zstd. Pure: bytes in, bytes out.

use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// How the line begins; what follows are the digest and words for people.
const MAGIC: &str = "dkms-hooks-build-1 ";

/// Of what zstd offers the usual one: quick, and modules become a quarter.
const LEVEL: i32 = 3;

/// What a build made, neither signed nor compressed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The modules, by their paths in the build directory.
    pub built: Vec<(PathBuf, Vec<u8>)>,
    /// What else is kept of a build, by its path in `<dkms tree>/M/V/K/A`, with its mode.
    pub kept: Vec<(PathBuf, u32, Vec<u8>)>,
}

impl Entry {
    /// Something that is kept.
    pub fn kept(&self, path: &str) -> Option<&[u8]> {
        self.kept.iter().find(|(kept, ..)| kept == Path::new(path)).map(|(.., content)| content.as_slice())
    }

    /// All of it as members of an archive: path, mode, content.
    pub(super) fn members(&self) -> impl Iterator<Item = (PathBuf, u32, &[u8])> {
        let below = |directory: &str, path: &PathBuf| Path::new(directory).join(path);
        let built = self.built.iter();
        let built = built.map(move |(path, content)| (below("built", path), 0o644, content.as_slice()));
        let kept = self.kept.iter();
        built.chain(kept.map(move |(path, mode, content)| (below("kept", path), *mode, content.as_slice())))
    }

    /// Takes in a member of an archive.
    pub(super) fn take(&mut self, path: &Path, mode: u32, content: Vec<u8>) -> Result<()> {
        let below = |directory: &str| path.strip_prefix(directory).ok().filter(|path| *path != Path::new(""));
        if let Some(path) = below("built") {
            self.built.push((path.to_owned(), content));
        } else if let Some(path) = below("kept") {
            self.kept.push((path.to_owned(), mode & 0o777, content));
        } else {
            bail!("it holds {}", path.display());
        }
        Ok(())
    }

    /// The file's content; `about` is one line for people.
    pub fn pack(&self, about: &str) -> Result<Vec<u8>> {
        let packing = "packing what was built";
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).context(packing)?);
        for (path, mode, content) in self.members() {
            append(&mut archive, &path, mode, content).context(packing)?;
        }
        let packed = archive.into_inner().and_then(zstd::Encoder::finish).context(packing)?;
        let mut file = format!("{MAGIC}{} {about}\n", blake3::hash(&packed)).into_bytes();
        file.extend(packed);
        Ok(file)
    }

    /// Reads a file's content; fails if a bit of it is not as it was written.
    pub fn unpack(file: &[u8]) -> Result<Self> {
        let end = file.iter().position(|byte| *byte == b'\n').context("it does not begin as it should")?;
        let (line, packed) = (String::from_utf8_lossy(&file[..end]), &file[end + 1..]);
        let digest = line.strip_prefix(MAGIC).and_then(|rest| rest.split(' ').next());
        ensure!(digest == Some(blake3::hash(packed).to_hex().as_str()), "its digest is another");
        let mut entry = Self::default();
        read(packed, u64::MAX, |path, mode, content| entry.take(path, mode, content))?;
        Ok(entry)
    }
}

/// Adds a file to an archive.
pub(super) fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    mode: u32,
    content: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, path, content)
}

/// Reads a tar archive in zstd, which may hold plain files below it and nothing else, and altogether
/// so many bytes.
pub(super) fn read(
    packed: &[u8],
    most: u64,
    mut take: impl FnMut(&Path, u32, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let unpacking = "unpacking it";
    let plain = zstd::Decoder::new(packed).context(unpacking)?.take(most);
    let mut archive = tar::Archive::new(plain);
    for file in archive.entries().context(unpacking)? {
        let mut file = file.context(unpacking)?;
        let (path, mode) = (file.path()?.into_owned(), file.header().mode()?);
        ensure!(path.components().all(|part| matches!(part, Component::Normal(_))), "it leads elsewhere");
        ensure!(file.header().entry_type().is_file(), "{} in it is no plain file", path.display());
        let mut content = Vec::new();
        file.read_to_end(&mut content).context(unpacking)?;
        ensure!(content.len() as u64 == file.size(), "{} in it is cut off", path.display());
        take(&path, mode, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            built: vec![(format!("src/{}/foo.ko", "long".repeat(40)).into(), vec![7; 5000])],
            kept: vec![
                ("log/make.log".into(), 0o644, b"it was built".to_vec()),
                ("tool".into(), 0o755, b"#!/bin/sh".to_vec()),
            ],
        }
    }

    #[test]
    fn what_is_packed_comes_back() {
        let packed = entry().pack("foo/1.0 for 6.1 (x86_64)").unwrap();
        assert_eq!(Entry::unpack(&packed).unwrap(), entry());
        assert!(packed.starts_with(MAGIC.as_bytes()) && packed.len() < 1000, "{}", packed.len());
        assert_eq!(entry().kept("log/make.log"), Some(&b"it was built"[..]));
    }

    #[test]
    fn every_damage_is_found() {
        let packed = entry().pack("foo").unwrap();
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            // The words for people may say what they like.
            assert!(Entry::unpack(&damaged).is_err() || Entry::unpack(&damaged).unwrap() == entry(), "{at}");
            assert!(Entry::unpack(&packed[..at]).is_err(), "{at}");
        }
    }
}
