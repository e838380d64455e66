// SPDX-License-Identifier: MIT OR Apache-2.0
//! One stored build as a file: a line that says what it is, with the digest of the rest, which is a
//! tar archive in zstd. Pure: bytes in, bytes out.

use std::io::Read;
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

    /// The file's content; `about` is one line for people.
    pub fn pack(&self, about: &str) -> Result<Vec<u8>> {
        let packing = "packing what was built";
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).context(packing)?);
        let built = self.built.iter().map(|(path, content)| (Path::new("built").join(path), 0o644, content));
        let kept =
            self.kept.iter().map(|(path, mode, content)| (Path::new("kept").join(path), *mode, content));
        for (path, mode, content) in built.chain(kept) {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            archive.append_data(&mut header, path, content.as_slice()).context(packing)?;
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
        let mut archive = tar::Archive::new(zstd::Decoder::new(packed).context("unpacking it")?);
        for file in archive.entries().context("unpacking it")? {
            let mut file = file.context("unpacking it")?;
            let (path, mode) = (file.path()?.into_owned(), file.header().mode()?);
            ensure!(path.components().all(|part| matches!(part, Component::Normal(_))), "it leads elsewhere");
            let mut content = Vec::new();
            file.read_to_end(&mut content).context("unpacking it")?;
            if let Ok(path) = path.strip_prefix("built") {
                entry.built.push((path.to_owned(), content));
            } else if let Ok(path) = path.strip_prefix("kept") {
                entry.kept.push((path.to_owned(), mode, content));
            } else {
                bail!("it holds {}", path.display());
            }
        }
        Ok(entry)
    }
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
