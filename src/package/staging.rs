// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where something that programs make is made before it takes its place, whole or not at all. Knows nothing of
//! what is made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::sys::files;

/// The beginning of the names of such directories.
const PREFIX: &str = ".dkms-";

/// A private directory beside a place; it goes with all that is left in it.
pub(super) struct Staging<'a> {
    directory: tempfile::TempDir,
    place: &'a Path,
}

impl<'a> Staging<'a> {
    /// What one left that was killed goes first: nobody else may be at work beside the place.
    pub(super) fn new(place: &'a Path) -> Result<Self> {
        let parent = files::parent(place)?;
        for name in files::names(parent)?.iter().filter(|name| name.starts_with(PREFIX)) {
            files::remove(&parent.join(name))?;
        }
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(parent)
            .with_context(|| format!("staging {}", place.display()))?;
        Ok(Self { directory, place })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An empty directory in it.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Has a file that was made in it take its place.
    pub(super) fn put_file(self, made: &Path) -> Result<()> {
        fs::set_permissions(made, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        fs::File::open(made)?.sync_all()?;
        fs::rename(made, self.place)?;
        files::sync_directory(files::parent(self.place)?)
    }

    /// Has a directory that was made in it take its place; what is there goes.
    pub(super) fn put_directory(self, made: &Path) -> Result<()> {
        for path in files::files_below(made) {
            fs::File::open(path)?.sync_all()?;
        }
        fs::set_permissions(made, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        if files::exists(self.place) {
            renameat2(AT_FDCWD, made, AT_FDCWD, self.place, RenameFlags::RENAME_EXCHANGE)
                .with_context(|| format!("replacing {}", self.place.display()))?;
        } else {
            fs::rename(made, self.place)?;
        }
        files::sync_directory(files::parent(self.place)?)
    }
}

/// Writes a file below a directory, with all directories above it.
pub(super) fn write(root: &Path, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = root.join(path);
    fs::create_dir_all(files::parent(&path)?)?;
    fs::write(path, content)?;
    Ok(())
}

/// Fails for a word that the formats of packages, or a shell, would take for more than a word.
pub(super) fn plain<'a>(word: &'a str, what: &str) -> Result<&'a str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    if !word.chars().all(is_plain) {
        bail!("{word} cannot be {what} in a package: it may have letters, digits and ._+~- only");
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a");
        for content in ["old", "new"] {
            let staged = Staging::new(&place).unwrap();
            let made = staged.directory("made").unwrap();
            write(&made, "deep/file", content).unwrap();
            staged.put_directory(&made).unwrap();
            assert_eq!(fs::read_to_string(place.join("deep/file")).unwrap(), content);
        }
        assert_eq!(files::names(dir.path()).unwrap(), ["a"]);
    }
}
