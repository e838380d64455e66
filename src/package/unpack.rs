// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unpacks an archive that somebody else made into a directory, and nowhere else. What would
//! leave the directory, now or after it has been moved, ends the unpacking; the caller removes
//! what there is until then.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use tar::{Archive, Entry, EntryType};

use super::compression::decompressed;
use super::stays_inside;
use crate::failure::Failure;
use crate::sys::{files, signals};

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of all files together, unpacked.
    pub bytes: u64,
}

/// A whole kernel source has 80,000 files; the largest drivers, with debugging information and
/// for several kernels, take some hundred megabytes. More is a mistake or an attack on the disk.
pub const LIMITS: Limits = Limits { entries: 200_000, bytes: 4 << 30 };

/// How deep directories may lie, so that whoever walks the tree stays within its stack.
const DEPTH: usize = 64;

/// Bytes that the headers of one entry may take: a long name, a long link, PAX records. The tar
/// crate reads them into memory whole.
const HEADERS: u64 = 1 << 20;

/// Unpacks `archive`, whatever its compression, into the empty directory `into`, which nobody
/// else may write to. Files belong to us, keep their modification time and of their mode what
/// everybody may have: no setuid, no writing but by the owner.
///
/// Fails with [`Failure::BadArchive`] for what is wrong with the archive.
pub fn unpack(archive: &Path, into: &Path, limits: Limits) -> Result<()> {
    let refused = |why: String| Failure::BadArchive { archive: archive.display().to_string(), why };
    let damaged =
        |error: &dyn std::fmt::Display| refused(format!("The archive is damaged or is none: {error}."));
    let file = fs::File::open(archive)?;
    let stream = decompressed(BufReader::new(file)).map_err(|error| damaged(&error))?;
    let left = Rc::new(Cell::new(HEADERS));
    let mut tar = Archive::new(Metered { stream, left: Rc::clone(&left) });
    let mut unpacking = Unpacking { into, directories: HashSet::new(), bytes: limits.bytes };
    for (count, entry) in (1..).zip(tar.entries()?) {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        if signals::caught().is_some() {
            bail!("unpacking {} was interrupted", archive.display());
        }
        if count > limits.entries {
            return Err(refused(format!("The archive holds more than {} files.", limits.entries)).into());
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).escape_debug().to_string();
        left.set(HEADERS.saturating_add(entry.header().entry_size().unwrap_or(0)));
        match unpacking.entry(&mut entry) {
            Ok(()) => left.set(HEADERS),
            Err(Stop::Refused(why)) => {
                return Err(refused(format!("The archive's entry {name} {why}.")).into());
            }
            Err(Stop::Damaged(error)) => return Err(damaged(&error).into()),
            Err(Stop::TooLarge) => {
                return Err(refused(format!(
                    "The archive holds more than {} MiB unpacked.",
                    limits.bytes >> 20
                ))
                .into());
            }
            Err(Stop::Failed(error)) => return Err(error.context(format!("unpacking {name}"))),
        }
    }
    Ok(())
}

/// Ends a stream in an error once more has been read than was to be expected.
struct Metered<R> {
    stream: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other("an entry has more headers than any sensible one"));
        }
        let most = buffer.len().min(usize::try_from(self.left.get()).unwrap_or(usize::MAX));
        let count = self.stream.read(&mut buffer[..most])?;
        self.left.set(self.left.get().saturating_sub(count as u64));
        Ok(count)
    }
}

/// Why an unpacking ends.
enum Stop {
    /// The entry is not what we let in.
    Refused(&'static str),
    Damaged(io::Error),
    TooLarge,
    /// Not the archive's fault.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct Unpacking<'a> {
    into: &'a Path,
    /// Those that are known to be directories and no links, relative to `into`.
    directories: HashSet<PathBuf>,
    /// What files may still take.
    bytes: u64,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), Stop> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            // What `git archive` writes: the commit, for nobody here.
            return Ok(());
        }
        let path = entry.path().map_err(Stop::Damaged)?;
        let path = inside(&path).ok_or(Stop::Refused("leads out of the directory that it is unpacked to"))?;
        match kind {
            EntryType::Directory => self.directory(&path),
            // The root is there already, and is nothing else.
            _ if path.as_os_str().is_empty() => Err(Stop::Refused("is no directory, but stands for one")),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(&path, entry),
            EntryType::Symlink => {
                let target = entry.link_name().map_err(Stop::Damaged)?;
                let target = target.filter(|target| stays_inside(&path, target));
                let target = target.ok_or(Stop::Refused("is a link that leads out of its directory"))?;
                let place = self.free(&path)?;
                Ok(fs_err::os::unix::fs::symlink(target, place)?)
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(Stop::Damaged)?;
                let target = target.and_then(|target| inside(&target));
                let target = target.ok_or(Stop::Refused("is a hard link that leads out of its directory"))?;
                self.hard_link(&path, &target)
            }
            EntryType::Char | EntryType::Block => Err(Stop::Refused("is a device")),
            EntryType::Fifo => Err(Stop::Refused("is a pipe")),
            _ => Err(Stop::Refused("is neither a file, nor a directory, nor a link")),
        }
    }

    /// Makes sure that a directory and all above it are there and are no links.
    fn directory(&mut self, path: &Path) -> Result<(), Stop> {
        if path.as_os_str().is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        if path.components().count() > DEPTH {
            return Err(Stop::Refused("lies deeper than any sensible one"));
        }
        self.directory(path.parent().unwrap_or(Path::new("")))?;
        let place = self.into.join(path);
        match place.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(Stop::Refused("lies below something that is no directory")),
            Err(_) => {
                fs::create_dir(&place)?;
                fs::set_permissions(&place, PermissionsExt::from_mode(0o755))?;
            }
        }
        self.directories.insert(path.to_owned());
        Ok(())
    }

    /// The place for a file or link. Later entries replace earlier ones, as in tar(1).
    fn free(&mut self, path: &Path) -> Result<PathBuf, Stop> {
        self.directory(path.parent().unwrap_or(Path::new("")))?;
        let place = self.into.join(path);
        match place.symlink_metadata() {
            Ok(meta) if meta.is_dir() => return Err(Stop::Refused("would replace a directory")),
            Ok(_) => files::remove(&place)?,
            Err(_) => {}
        }
        Ok(place)
    }

    fn file<R: Read>(&mut self, path: &Path, entry: &mut Entry<'_, R>) -> Result<(), Stop> {
        let header = entry.header();
        let mode = header.mode().map_err(Stop::Damaged)? & 0o755 | 0o600;
        let time = header.mtime().map_err(Stop::Damaged)?;
        // Holes take no place in the archive: told in time, they take none on the disk either.
        if entry.size() > self.bytes {
            return Err(Stop::TooLarge);
        }
        let place = self.free(path)?;
        let mut file = create(&place, mode)?;
        self.fill(&mut file, entry)?;
        if let Some(time) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time)) {
            // A time that the file system cannot keep is not worth a failure.
            let _ = file.file().set_modified(time);
        }
        Ok(())
    }

    /// A copy: what is moved to different places must not hang together.
    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Stop> {
        self.directory(target.parent().unwrap_or(Path::new("")))?;
        let from = self.into.join(target);
        let meta = from.symlink_metadata().ok().filter(std::fs::Metadata::is_file);
        let meta = meta.ok_or(Stop::Refused("is a hard link to what is no file of the archive"))?;
        if path == target {
            return Ok(());
        }
        let place = self.free(path)?;
        let mut source = fs::File::open(&from)?;
        let mut file = create(&place, meta.permissions().mode())?;
        self.fill(&mut file, &mut source)?;
        file.file().set_modified(meta.modified().context("reading a modification time")?)?;
        Ok(())
    }

    fn fill(&mut self, file: &mut fs::File, from: &mut dyn Read) -> Result<(), Stop> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Damaged(error)),
            };
            self.bytes = self.bytes.checked_sub(count as u64).ok_or(Stop::TooLarge)?;
            file.write_all(&buffer[..count])?;
        }
    }
}

fn create(place: &Path, mode: u32) -> Result<fs::File> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
    // Not left to the umask.
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    Ok(file)
}

/// A path within the archive; nothing if it is absolute or has a `..`.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
