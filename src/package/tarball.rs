// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes archives: whole or not at all, with nothing in them that could not be unpacked again,
//! and never a private key.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;
use tar::{Builder, EntryType, Header};

use super::compression::Compression;
use super::stays_inside;
use super::unpack::{LIMITS, unpack};
use crate::sys::files;

/// The name that dkms gives the key that it signs modules with.
const KEY_NAME: &str = "mok.key";

enum Content {
    /// A directory and all that is in it.
    Tree(PathBuf),
    EmptyDirectory,
    Text(String),
    File(PathBuf),
}

/// An archive to be written.
pub struct Tarball {
    parts: Vec<(PathBuf, Content)>,
    /// Device and inode of files that are kept out.
    secrets: HashSet<(u64, u64)>,
}

/// What was left out of an archive, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub path: PathBuf,
    pub why: &'static str,
}

impl Tarball {
    /// An empty archive. `secrets` are private keys, under whatever name they turn up.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Path>) -> Self {
        let identities = secrets.into_iter().filter_map(|path| fs::metadata(path).ok());
        Self { parts: Vec::new(), secrets: identities.map(|meta| (meta.dev(), meta.ino())).collect() }
    }

    /// A directory of the archive with all that is in the directory `from`.
    pub fn tree(&mut self, name: impl Into<PathBuf>, from: &Path) {
        self.parts.push((name.into(), Content::Tree(from.to_owned())));
    }

    pub fn empty_directory(&mut self, name: impl Into<PathBuf>) {
        self.parts.push((name.into(), Content::EmptyDirectory));
    }

    pub fn text(&mut self, name: impl Into<PathBuf>, text: String) {
        self.parts.push((name.into(), Content::Text(text)));
    }

    pub fn file(&mut self, name: impl Into<PathBuf>, from: &Path) {
        self.parts.push((name.into(), Content::File(from.to_owned())));
    }

    /// Writes the archive beside its place and renames it. The directory must be there.
    pub fn write(self, to: &Path, compression: Compression) -> Result<Vec<LeftOut>> {
        let directory = files::parent(to)?;
        let mut staged = tempfile::Builder::new()
            .prefix(".dkms-")
            .permissions(PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)
            .with_context(|| format!("staging {}", to.display()))?;
        let mut left_out = Vec::new();
        compression
            .write(staged.as_file_mut(), |stream| {
                left_out = self.fill(stream)?;
                Ok(())
            })
            .with_context(|| format!("writing {}", to.display()))?;
        staged.as_file().sync_all().with_context(|| format!("syncing {}", to.display()))?;
        staged
            .persist(to)
            .map_err(|failed| failed.error)
            .with_context(|| format!("replacing {}", to.display()))?;
        files::sync_directory(directory)?;
        Ok(left_out)
    }

    fn fill(&self, stream: &mut dyn Write) -> Result<Vec<LeftOut>> {
        let mut writer = Writer { tar: Builder::new(stream), secrets: &self.secrets, left_out: Vec::new() };
        for (name, content) in &self.parts {
            match content {
                Content::Tree(from) => {
                    // The source is a link in the dkms tree.
                    let from = fs::canonicalize(from)?;
                    writer.tree(name, &from, &from)?;
                }
                Content::EmptyDirectory => {
                    writer.append(name, EntryType::Directory, &Attributes::of_a_directory(), &[][..])?;
                }
                Content::Text(text) => {
                    let attributes = Attributes { size: text.len() as u64, ..Attributes::of_a_file() };
                    writer.append(name, EntryType::Regular, &attributes, text.as_bytes())?;
                }
                Content::File(from) => writer.file(name, from)?,
            }
        }
        writer.tar.finish()?;
        Ok(writer.left_out)
    }
}

/// Copies a directory to a place that is free, as an archive of it would be unpacked there: without
/// private keys and what is no file, without links that lead out of it, writable for nobody else.
pub fn copy<'a>(from: &Path, to: &Path, secrets: impl IntoIterator<Item = &'a Path>) -> Result<Vec<LeftOut>> {
    let staging = tempfile::Builder::new()
        .prefix(".dkms-")
        .tempdir_in(files::parent(to)?)
        .with_context(|| format!("staging {}", to.display()))?;
    let (archive, unpacked) = (staging.path().join("archive"), staging.path().join("unpacked"));
    let mut tarball = Tarball::new(secrets);
    tarball.tree("copy", from);
    let left_out = tarball.write(&archive, Compression::Plain)?;
    fs::create_dir(&unpacked)?;
    unpack(&archive, &unpacked, LIMITS)?;
    fs::rename(unpacked.join("copy"), to)?;
    Ok(left_out)
}

struct Attributes {
    mode: u32,
    /// Seconds since the epoch.
    time: u64,
    size: u64,
}

impl Attributes {
    fn of_a_file() -> Self {
        Self { mode: 0o644, time: 0, size: 0 }
    }

    fn of_a_directory() -> Self {
        Self { mode: 0o755, time: 0, size: 0 }
    }

    fn read(meta: &std::fs::Metadata) -> Self {
        let size = if meta.is_file() { meta.len() } else { 0 };
        Self { mode: meta.mode() & 0o777, time: u64::try_from(meta.mtime()).unwrap_or(0), size }
    }
}

struct Writer<'a> {
    tar: Builder<&'a mut dyn Write>,
    secrets: &'a HashSet<(u64, u64)>,
    left_out: Vec<LeftOut>,
}

impl Writer<'_> {
    fn append(
        &mut self,
        name: &Path,
        kind: EntryType,
        attributes: &Attributes,
        data: impl Read,
    ) -> Result<()> {
        let mut header = header(kind, attributes)?;
        // tar(1) ends the names of directories with a slash.
        let name = if kind.is_dir() { name.join("") } else { name.to_owned() };
        Ok(self.tar.append_data(&mut header, name, data)?)
    }

    /// A directory with all that is in it, in a fixed order; `root` is what links must not leave.
    fn tree(&mut self, name: &Path, from: &Path, root: &Path) -> Result<()> {
        let attributes = Attributes::read(&fs::metadata(from)?);
        self.append(name, EntryType::Directory, &attributes, &[][..])?;
        let mut entries = fs::read_dir(from)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.tree(&name, &path, root)?;
            } else if kind.is_symlink() {
                self.link(&name, &path, root)?;
            } else if kind.is_file() {
                self.file(&name, &path)?;
            } else {
                self.left_out
                    .push(LeftOut { path, why: "it is neither a file, nor a directory, nor a link" });
            }
        }
        Ok(())
    }

    /// A link that leads out of the tree would lead nowhere on another machine, or somewhere else:
    /// the file itself goes in.
    fn link(&mut self, name: &Path, from: &Path, root: &Path) -> Result<()> {
        let target = fs::read_link(from)?;
        if stays_inside(from.strip_prefix(root).unwrap_or(from), &target) {
            let mut header =
                header(EntryType::Symlink, &Attributes { mode: 0o777, ..Attributes::of_a_file() })?;
            return Ok(self.tar.append_link(&mut header, name, target)?);
        }
        if from.is_file() {
            return self.file(name, from);
        }
        self.left_out.push(LeftOut {
            path: from.to_owned(),
            why: "it is a link that leads out of the source, to no file",
        });
        Ok(())
    }

    fn file(&mut self, name: &Path, from: &Path) -> Result<()> {
        let file = fs::File::open(from)?;
        let meta = file.metadata()?;
        if self.secrets.contains(&(meta.dev(), meta.ino())) || name.ends_with(KEY_NAME) {
            self.left_out
                .push(LeftOut { path: from.to_owned(), why: "private keys are no part of a module" });
            return Ok(());
        }
        let attributes = Attributes::read(&meta);
        let data = file.take(attributes.size);
        self.append(name, EntryType::Regular, &attributes, data)
            .with_context(|| format!("adding {}", from.display()))
    }
}

/// Everything belongs to root in the archive: the numbers of users mean nothing elsewhere.
fn header(kind: EntryType, attributes: &Attributes) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_mtime(attributes.time);
    header.set_size(attributes.size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_archived_can_be_unpacked_but_for_keys_and_stray_links() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        let long = "long/".repeat(30);
        fs::create_dir_all(source.join(&long)).unwrap();
        fs::write(source.join(&long).join("file"), "deep").unwrap();
        fs::write(source.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(source.join("run"), PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(source.join("mok.key"), "secret").unwrap();
        fs::write(dir.path().join("signing.pem"), "secret").unwrap();
        fs::hard_link(dir.path().join("signing.pem"), source.join("innocent")).unwrap();
        fs::write(dir.path().join("outside"), "from outside").unwrap();
        for (link, target) in
            [("in", "run"), ("out", "../outside"), ("key", "../signing.pem"), ("stray", "/nowhere")]
        {
            fs_err::os::unix::fs::symlink(target, source.join(link)).unwrap();
        }
        nix::unistd::mkfifo(&source.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();

        let mut tarball = Tarball::new([dir.path().join("signing.pem").as_path()]);
        tarball.empty_directory("dkms_main_tree");
        tarball.tree("dkms_source_tree", &source);
        tarball.text("note", "x\n".to_owned());
        let archive = dir.path().join("a.tar.xz");
        let left_out = tarball.write(&archive, Compression::Xz).unwrap();
        let names: Vec<_> =
            left_out.iter().map(|left| left.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["innocent", "key", "mok.key", "pipe", "stray"]);
        assert_eq!(fs::metadata(&archive).unwrap().mode() & 0o777, 0o644);

        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();
        unpack(&archive, &into, LIMITS).unwrap();
        let unpacked = into.join("dkms_source_tree");
        assert_eq!(files::names(&into).unwrap(), ["dkms_main_tree", "dkms_source_tree", "note"]);
        assert_eq!(files::names(&unpacked).unwrap(), ["in", "long", "out", "run"]);
        assert_eq!(fs::read_link(unpacked.join("in")).unwrap(), Path::new("run"));
        assert_eq!(fs::read_to_string(unpacked.join("out")).unwrap(), "from outside");
        assert_eq!(fs::read_to_string(unpacked.join(long).join("file")).unwrap(), "deep");
        let [before, after] = [&source, &unpacked].map(|tree| fs::metadata(tree.join("run")).unwrap());
        assert_eq!((before.mode(), before.mtime()), (after.mode(), after.mtime()));
    }

    #[test]
    fn what_is_copied_has_no_keys() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        for name in ["foo.c", "mok.key", "innocent"] {
            fs::write(from.join(name), "x").unwrap();
        }
        let secret = from.join("innocent");
        let left_out = copy(&from, &dir.path().join("to"), [secret.as_path()]).unwrap();
        assert_eq!(left_out.len(), 2);
        assert_eq!(files::names(&dir.path().join("to")).unwrap(), ["foo.c"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "what was staged stays");
    }

    #[test]
    fn a_failed_archive_leaves_the_old_one_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.tar");
        fs::write(&archive, "old").unwrap();
        let mut tarball = Tarball::new([]);
        tarball.tree("x", &dir.path().join("nowhere"));
        assert!(tarball.write(&archive, Compression::Plain).is_err());
        assert_eq!(fs::read_to_string(&archive).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
