// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory as a shared store: a mounted file system, or a part of an image.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use fs_err as fs;
use nix::fcntl::OFlag;

use super::{Asked, Files, Trouble};
use crate::sys::files;

#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn ensure_there(&self) -> Asked<()> {
        let missing = || Trouble::Unreachable(anyhow!("there is no directory {}", self.0.display()));
        if self.0.is_dir() { Ok(()) } else { Err(missing()) }
    }
}

impl Files for Directory {
    fn get(&self, name: &str, most: u64) -> Asked<Option<Vec<u8>>> {
        self.ensure_there()?;
        read(&self.0.join(name), most).map_err(Trouble::Answer)
    }

    fn put(&self, name: &str, content: &[u8]) -> Asked<()> {
        // Where nothing is mounted now, nobody would find it later.
        self.ensure_there()?;
        files::write_atomically(&self.0.join(name), content, 0o644).map_err(Trouble::Answer)
    }
}

/// Others may have put anything there: only a plain file is read, and that as far as it may go.
fn read(path: &Path, most: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    anyhow::ensure!(file.metadata()?.is_file(), "{} is no plain file", path.display());
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content).with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(content.len() as u64 <= most, "{} is larger than {most} bytes", path.display());
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    #[test]
    fn only_plain_files_of_a_decent_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::new(dir.path());
        store.put("a", b"12345").unwrap();
        assert_eq!(store.get("a", 5).unwrap().unwrap(), b"12345");
        assert!(store.get("b", 5).unwrap().is_none());
        assert!(matches!(store.get("a", 4), Err(Trouble::Answer(_))));
        nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(matches!(store.get("pipe", 5), Err(Trouble::Answer(_))));
        let gone = Directory::new(&dir.path().join("gone"));
        assert!(matches!(gone.get("a", 5), Err(Trouble::Unreachable(_))));
        assert!(matches!(gone.put("a", b""), Err(Trouble::Unreachable(_))));
    }
}
