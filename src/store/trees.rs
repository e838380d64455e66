// SPDX-License-Identifier: MIT OR Apache-2.0
//! Digests of directories: what they hold, never where they are or how old it is.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use blake3::{Hash, Hasher};
use fs_err as fs;

/// Threads are started for no less than this many files each.
const WORTH_A_THREAD: usize = 64;

/// What a directory holds, in any order.
#[derive(Debug, Default)]
pub(super) struct Listing(Vec<Entry>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: PathBuf,
    /// All but the content.
    about: Vec<u8>,
    content: Option<PathBuf>,
}

impl Listing {
    /// Something without content.
    pub fn name(&mut self, name: &Path, about: impl Into<Vec<u8>>) {
        self.0.push(Entry { name: name.to_owned(), about: about.into(), content: None });
    }

    /// A file, and where it can be read.
    pub fn file(&mut self, name: &Path, about: impl Into<Vec<u8>>, content: PathBuf) {
        self.0.push(Entry { name: name.to_owned(), about: about.into(), content: Some(content) });
    }

    /// Tells cheaply whether anything has changed since: the digest of names and of what the file
    /// system knows of the files. Nothing if one is so young that it could change once more without
    /// looking older (the clock of file systems has a resolution of milliseconds).
    pub fn fingerprint(&mut self) -> Result<Option<Hash>> {
        self.0.sort();
        let settled = SystemTime::now() - Duration::from_secs(2);
        let settled = settled.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut hasher = Hasher::new();
        for Entry { name, about, content } in &self.0 {
            let mut words = vec![name.as_os_str().len() as i64, about.len() as i64];
            if let Some(path) = content {
                let meta = fs::metadata(path)?;
                if u64::try_from(meta.ctime()).is_ok_and(|ctime| ctime >= settled) {
                    return Ok(None);
                }
                words.extend([meta.dev() as i64, meta.ino() as i64, meta.size() as i64]);
                words.extend([meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]);
            }
            for word in words {
                hasher.update(&word.to_le_bytes());
            }
            hasher.update(name.as_os_str().as_bytes());
            hasher.update(about);
        }
        Ok(Some(hasher.finalize()))
    }

    /// The digest of names, what was said about them, and content.
    pub fn digest(mut self) -> Result<Hash> {
        self.0.sort();
        let files: Vec<&Path> = self.0.iter().filter_map(|entry| entry.content.as_deref()).collect();
        let mut contents = contents(&files)?.into_iter();
        let mut hasher = Hasher::new();
        for Entry { name, about, content } in &self.0 {
            for part in [name.as_os_str().as_bytes(), about] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            if content.is_some() {
                hasher.update(contents.next().context("counting files")?.as_bytes());
            }
        }
        Ok(hasher.finalize())
    }
}

/// The digest of a file's content.
pub(super) fn content(path: &Path) -> Result<Hash> {
    let mut hasher = Hasher::new();
    hasher.update_reader(fs::File::open(path)?).with_context(|| format!("reading {}", path.display()))?;
    Ok(hasher.finalize())
}

/// The digests of files, in their order.
fn contents(files: &[&Path]) -> Result<Vec<Hash>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = files.len().div_ceil(threads).max(WORTH_A_THREAD);
    let digests = |files: &[&Path]| files.iter().map(|path| content(path)).collect::<Result<Vec<Hash>>>();
    if files.len() <= share {
        return digests(files);
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = files.chunks(share).map(|share| scope.spawn(move || digests(share))).collect();
        let mut all = Vec::with_capacity(files.len());
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a thread that reads files has died"))??);
        }
        Ok(all)
    })
}

/// The digest of a directory with all it holds: paths, modes, content, where links point to. One
/// that is not there is as good as empty. Nothing if links lead to other directories: what a build
/// reads there cannot be told.
pub fn digest(directory: &Path) -> Result<Option<Hash>> {
    let mut listing = Listing::default();
    if !directory.exists() {
        return listing.digest().map(Some);
    }
    let root = fs::canonicalize(directory)?;
    Ok(if list(&root, &root, &mut listing)? { Some(listing.digest()?) } else { None })
}

/// Whether all could be listed.
fn list(root: &Path, directory: &Path, listing: &mut Listing) -> Result<bool> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = path.strip_prefix(root).unwrap_or(&path);
        // Who else than its owner may write to a file makes no difference to a build.
        let mode = || -> Result<u32> { Ok(entry.metadata()?.permissions().mode() & 0o7777 & !0o022) };
        if kind.is_dir() {
            listing.name(name, format!("directory {:o}", mode()?));
            if !list(root, &path, listing)? {
                return Ok(false);
            }
        } else if kind.is_file() {
            listing.file(name, format!("file {:o}", mode()?), path.clone());
        } else if kind.is_symlink() {
            let points_to = [b"link ", fs::read_link(&path)?.as_os_str().as_bytes()].concat();
            match path.canonicalize() {
                Ok(target) if !target.starts_with(root) => {
                    if !target.is_file() {
                        return Ok(false);
                    }
                    listing.file(name, points_to, target);
                }
                // What is in the tree has its own entry, and what is nowhere has no content.
                _ => listing.name(name, points_to),
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err::os::unix::fs::symlink;
    use rstest::rstest;

    fn sources() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("foo-1.0");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("a.c"), "int a;").unwrap();
        fs::set_permissions(root.join("a.c"), PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(root.join("sub/b.c"), "int b;").unwrap();
        symlink("sub/b.c", root.join("link")).unwrap();
        fs::write(dir.path().join("outside"), "one").unwrap();
        symlink("../outside", root.join("out")).unwrap();
        dir
    }

    fn digest_of(dir: &tempfile::TempDir) -> Hash {
        digest(&dir.path().join("foo-1.0")).unwrap().unwrap()
    }

    #[rstest]
    #[case::content(|root: &Path| fs::write(root.join("a.c"), "int A;").unwrap())]
    #[case::mode(|root: &Path| fs::set_permissions(root.join("a.c"), PermissionsExt::from_mode(0o755)).unwrap())]
    #[case::name(|root: &Path| fs::rename(root.join("a.c"), root.join("c.c")).unwrap())]
    #[case::place(|root: &Path| fs::rename(root.join("sub/b.c"), root.join("b.c")).unwrap())]
    #[case::one_more(|root: &Path| fs::write(root.join("empty"), "").unwrap())]
    #[case::directory(|root: &Path| fs::create_dir(root.join("empty")).unwrap())]
    #[case::link(|root: &Path| {
        fs::remove_file(root.join("link")).unwrap();
        symlink("a.c", root.join("link")).unwrap();
    })]
    #[case::what_a_link_leads_to(|root: &Path| fs::write(root.join("../outside"), "two").unwrap())]
    fn every_change_of_a_tree_changes_its_digest(#[case] change: fn(&Path)) {
        let dir = sources();
        let before = digest_of(&dir);
        change(&dir.path().join("foo-1.0"));
        assert_ne!(digest_of(&dir), before);
    }

    #[test]
    fn place_and_age_and_writers_do_not_matter() {
        let (one, two) = (sources(), sources());
        fs::set_permissions(two.path().join("foo-1.0/a.c"), PermissionsExt::from_mode(0o666)).unwrap();
        let file = fs::File::options().append(true).open(two.path().join("foo-1.0/a.c")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(digest_of(&one), digest_of(&two));
    }

    #[test]
    fn many_files_are_digested_as_few_are() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..1000).map(|n| dir.path().join(format!("{n}"))).collect();
        paths.iter().enumerate().for_each(|(n, path)| fs::write(path, n.to_string()).unwrap());
        let files: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let one_by_one: Vec<Hash> = files.iter().map(|path| content(path).unwrap()).collect();
        assert_eq!(contents(&files).unwrap(), one_by_one);
    }

    #[test]
    fn a_link_to_another_directory_is_more_than_can_be_told() {
        let dir = sources();
        symlink("/usr", dir.path().join("foo-1.0/usr")).unwrap();
        assert_eq!(digest(&dir.path().join("foo-1.0")).unwrap(), None);
        assert!(digest(&dir.path().join("nothing")).unwrap().is_some());
    }
}
