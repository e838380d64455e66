// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory as an image: a floppy's, an ISO image, an archive. Knows nothing of what is in it.

use std::path::Path;

use anyhow::{Context, Result};
use fs_err as fs;

use super::LABEL;
use crate::package::compression::Compression;
use crate::package::tarball::Tarball;
use crate::sys::files;
use crate::sys::tools::{Run, Tool};

/// An image with a FAT file system of so many KiB: all installers can read it, and nothing has to be
/// mounted to make it.
pub(super) fn floppy(tree: &Path, to: &Path, size: u32) -> Result<()> {
    Run::new(Tool::MkfsVfat)?.args(["-n", LABEL, "-C"]).arg(to).arg(size.to_string()).succeed()?;
    let needed: u64 = files::files_below(tree)
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| meta.len())
        .sum();
    Run::new(Tool::Mcopy)?
        .env("MTOOLS_SKIP_CHECK", "1") // of a geometry that no floppy ever had
        .args(["-s", "-Q", "-i"])
        .arg(to)
        .args(files::names(tree)?.iter().map(|name| tree.join(name)))
        .arg("::/")
        .succeed()
        .map(drop)
        .with_context(|| {
            format!(
                "putting {} KiB on a disk of {size} KiB; --size makes a larger one, --media iso one that fits",
                needed.div_ceil(1024)
            )
        })
}

/// With the names and modes of Rock Ridge; everything belongs to root.
pub(super) fn iso(tree: &Path, to: &Path) -> Result<()> {
    Run::new(Tool::Mkisofs)?.args(["-quiet", "-r", "-V", LABEL, "-o"]).arg(to).arg(tree).succeed().map(drop)
}

pub(super) fn tar(tree: &Path, to: &Path) -> Result<()> {
    let mut tarball = Tarball::new([]);
    for name in files::names(tree)? {
        let path = tree.join(&name);
        if path.is_dir() { tarball.tree(name, &path) } else { tarball.file(name, &path) }
    }
    tarball.write(to, Compression::Plain).map(drop)
}
