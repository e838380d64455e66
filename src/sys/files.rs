// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files and directories: durable atomic writes, copies and removals that follow no links.

use std::fs::FileType;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, UtimensatFlags, stat, utimensat};
use nix::sys::time::TimeSpec;

/// Held by those who have a file open for writing that may be run afterwards, and taken whole while
/// a program is started: a child that is forked meanwhile holds the file open until it becomes that
/// program, and running the file fails as long (ETXTBSY, execve(2)).
pub(super) static WRITING: RwLock<()> = RwLock::new(());

fn writing() -> RwLockReadGuard<'static, ()> {
    WRITING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a file whole or not at all: beside the target, fsync, rename, fsync the directory.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let _writing = writing();
    let replacing = || format!("replacing {}", path.display());
    staged(path, content, mode)?.persist(path).map_err(|failed| failed.error).with_context(replacing)?;
    sync_directory(parent(path)?)
}

/// As [`write_atomically`], but never in the place of another file; returns whether the name was free.
pub fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<bool> {
    let _writing = writing();
    match staged(path, content, mode)?.persist_noclobber(path).map_err(|failed| failed.error) {
        Ok(_) => sync_directory(parent(path)?).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("making {}", path.display())),
    }
}

/// A temporary file beside a path, with what is to be there.
fn staged(path: &Path, content: &[u8], mode: u32) -> Result<tempfile::NamedTempFile> {
    let directory = parent(path)?;
    fs::create_dir_all(directory)?;
    let mut staged = tempfile::Builder::new()
        .prefix(".dkms-")
        .permissions(PermissionsExt::from_mode(mode))
        .tempfile_in(directory)
        .with_context(|| format!("staging {}", path.display()))?;
    staged.write_all(content).with_context(|| format!("writing {}", path.display()))?;
    staged.as_file().sync_all().with_context(|| format!("syncing {}", path.display()))?;
    Ok(staged)
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> Result<()> {
    Ok(fs::File::open(directory)?.sync_all()?)
}

/// The directory that a path stands in.
pub fn parent(path: &Path) -> Result<&Path> {
    path.parent().with_context(|| format!("finding the directory of {}", path.display()))
}

/// The text of a file, or nothing if there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        // A kernel's configuration is worth the quick way, which copies nothing.
        Ok(bytes) => Ok(Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The text of a file that has to be a regular one, or nothing if there is no such file: a pipe or a
/// device might never end. `/dev/null`, by which one masks a file, is empty.
pub fn read_regular_if_there(path: &Path) -> Result<Option<String>> {
    let about = match stat(path) {
        Ok(about) => about,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
    };
    match SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => read_if_there(path),
        SFlag::S_IFCHR if stat("/dev/null").is_ok_and(|null| null.st_rdev == about.st_rdev) => {
            Ok(Some(String::new()))
        }
        _ => bail!("{} is no regular file", path.display()),
    }
}

/// The names in a directory, sorted; empty if there is no such directory. Names that are not
/// UTF-8 and those that begin with a dot (what we stage) are left out.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a path is a file that may be run.
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether something has this name, be it a link to nowhere.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Copies a file, a link or a directory with all it holds, keeping modes and modification times.
/// Links are copied as links. Sockets, pipes and devices are passed over.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(from)?;
    let kind = meta.file_type();
    if kind.is_symlink() {
        fs_err::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        return Ok(());
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, meta.permissions())?;
    } else if kind.is_file() {
        let _writing = writing();
        fs::copy(from, to)?;
    } else {
        return Ok(());
    }
    let time = TimeSpec::new(meta.mtime(), meta.mtime_nsec());
    utimensat(nix::fcntl::AT_FDCWD, to, &time, &time, UtimensatFlags::NoFollowSymlink)
        .with_context(|| format!("keeping the modification time of {}", to.display()))
}

/// Makes a file, a link or a directory with all it holds a user's, and of the group of that number; who
/// owns it may write to it. Links are not followed.
pub fn give(path: &Path, user: u32) -> Result<()> {
    give_alone(path, user)?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// The same without what a directory holds.
pub fn give_alone(path: &Path, user: u32) -> Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let mode = meta.permissions().mode();
    let wanted = mode | if meta.is_dir() { 0o700 } else { 0o600 };
    if (meta.uid(), meta.gid()) != (user, user) {
        fs_err::os::unix::fs::lchown(path, Some(user), Some(user))?;
    }
    if wanted != mode && !meta.is_symlink() {
        fs::set_permissions(path, PermissionsExt::from_mode(wanted & 0o777))?;
    }
    Ok(())
}

/// Removes a file, a link or a directory with all it holds; nothing there is fine.
pub fn remove(path: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        // A name that is too long never was one of anything.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if kind.is_dir() {
        fs::remove_dir_all(path)?
    } else {
        fs::remove_file(path)?
    }
    Ok(())
}

/// Removes a directory and its parents up to, not including, `stop`, as long as they are empty.
pub fn remove_empty_up_to(directory: &Path, stop: &Path) {
    let mut current = Some(directory);
    while let Some(path) = current {
        if path == stop || !path.starts_with(stop) || fs::remove_dir(path).is_err() {
            return;
        }
        current = path.parent();
    }
}

/// Removes every directory in this one that holds no file, and this one too if nothing is left.
pub fn remove_empty_below(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_below(&entry.path());
        }
    }
    // A directory that is not empty refuses to go.
    let _ = fs::remove_dir(directory);
}

/// Every regular file below a directory, links not followed, in no particular order.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    below(directory, |kind| kind.is_file())
}

/// Every symbolic link below a directory, in no particular order.
pub fn links_below(directory: &Path) -> Vec<PathBuf> {
    below(directory, |kind| kind.is_symlink())
}

fn below(directory: &Path, wanted: impl Fn(FileType) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if wanted(kind) => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_tree_keeps_links_modes_and_times() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/run"), "x").unwrap();
        fs::set_permissions(from.join("sub/run"), PermissionsExt::from_mode(0o750)).unwrap();
        fs_err::os::unix::fs::symlink("nowhere", from.join("link")).unwrap();
        let old = TimeSpec::new(1_000_000, 0);
        utimensat(nix::fcntl::AT_FDCWD, &from.join("sub/run"), &old, &old, UtimensatFlags::NoFollowSymlink)
            .unwrap();
        let to = dir.path().join("to");
        copy_tree(&from, &to).unwrap();
        let meta = fs::metadata(to.join("sub/run")).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.mtime()), (0o750, 1_000_000));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("nowhere"));
    }

    #[test]
    fn only_what_ends_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "text").unwrap();
        fs::create_dir(path("directory")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, target) in [("null", "/dev/null"), ("zero", "/dev/zero"), ("circle", "circle")] {
            fs_err::os::unix::fs::symlink(target, path(name)).unwrap();
        }
        let read = |name: &str| read_regular_if_there(&path(name));
        assert_eq!(read("file").unwrap().as_deref(), Some("text"));
        assert_eq!(read("null").unwrap().as_deref(), Some(""));
        assert_eq!(read("nothing").unwrap(), None);
        assert_eq!(read("circle").unwrap(), None);
        for name in ["directory", "pipe", "zero"] {
            assert!(read(name).unwrap_err().to_string().ends_with("is no regular file"));
        }
    }

    #[test]
    fn removing_what_cannot_be_there_is_fine() {
        remove(Path::new("/nonexistent/file")).unwrap();
        remove(&Path::new("/tmp").join("x".repeat(300))).unwrap();
    }

    #[test]
    fn empty_parents_go_and_full_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("k/updates/dkms")).unwrap();
        fs::write(dir.path().join("k/keep"), "").unwrap();
        remove_empty_up_to(&dir.path().join("k/updates/dkms"), dir.path());
        assert_eq!(names(&dir.path().join("k")).unwrap(), ["keep"]);
    }

    #[test]
    fn directories_without_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("k");
        fs::create_dir_all(kernel.join("empty/deep")).unwrap();
        fs::create_dir_all(kernel.join("full")).unwrap();
        fs::write(kernel.join("full/file"), "").unwrap();
        remove_empty_below(&kernel);
        assert_eq!(names(&kernel).unwrap(), ["full"]);
        fs::remove_file(kernel.join("full/file")).unwrap();
        remove_empty_below(&kernel);
        assert!(!kernel.exists());
    }

    #[test]
    fn a_new_file_takes_nobodys_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/1");
        assert!(write_new(&path, b"one", 0o600).unwrap());
        assert!(!write_new(&path, b"two", 0o600).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "what was staged stays");
    }

    #[test]
    fn an_atomic_write_replaces_content_and_sets_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/file");
        write_atomically(&path, b"one", 0o600).unwrap();
        write_atomically(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert_eq!(names(path.parent().unwrap()).unwrap(), ["file"]);
    }
}
