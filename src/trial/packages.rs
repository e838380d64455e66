// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packages taken apart below a directory, without their scripts, so that their files lie as they
//! would in the root. The archives are those of a transaction that has been verified.

use std::path::Path;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::sys::files;
use crate::sys::tools::{Run, Tool};

/// Whose archive it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// Debian's, deb(5).
    Deb,
    /// pacman's, a compressed tar with files of its own on top.
    Pacman,
    /// rpm's.
    Rpm,
}

/// Unpacks the rpm package that it is given into the working directory.
const RPM: &str = "set -o pipefail; rpm2cpio \"$1\" | cpio --quiet -idm --no-absolute-filenames";

/// Where / has links to directories of /usr.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Puts a package's files below a directory. `root` tells where directories are links.
pub fn spread(kind: Kind, archive: &Path, root: &Path, into: &Path) -> Result<()> {
    let apart = tempfile::Builder::new()
        .prefix("package-")
        .tempdir_in(files::parent(into)?)
        .context("making a directory for a package's files")?;
    let run = match kind {
        Kind::Deb => Run::new(Tool::DpkgDeb)?.arg("-x").arg(archive).arg(apart.path()),
        Kind::Pacman => {
            Run::new(Tool::Bsdtar)?.arg("-xf").arg(archive).arg("-C").arg(apart.path()).arg("usr")
        }
        // What every system with rpm has, older ones too.
        Kind::Rpm => Run::new(Tool::Bash)?.args(["-c", RPM, "bash"]).arg(archive).directory(apart.path()),
    };
    run.succeed().with_context(|| format!("unpacking {}", archive.display()))?;
    for name in MERGED {
        let directory = apart.path().join(name);
        if directory.is_dir() && !directory.is_symlink() && root.join(name).is_symlink() {
            merge(&directory, &into.join("usr").join(name))?;
        } else if directory.is_dir() && !directory.is_symlink() {
            merge(&directory, &into.join(name))?;
        }
    }
    let usr = apart.path().join("usr");
    if usr.is_dir() { merge(&usr, &into.join("usr")) } else { Ok(()) }
}

/// Moves a tree into another one; a file that is there is replaced.
fn merge(from: &Path, to: &Path) -> Result<()> {
    if !to.is_dir() || to.is_symlink() || from.is_symlink() || !from.is_dir() {
        fs::create_dir_all(files::parent(to)?)?;
        return Ok(fs::rename(from, to)?);
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        merge(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn trees_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write(&a.join("lib/modules/1/x"), "x");
        write(&a.join("lib/same"), "new");
        symlink("modules/1", a.join("lib/link")).unwrap();
        write(&b.join("lib/modules/0/y"), "y");
        write(&b.join("lib/same"), "old");
        merge(&a, &b).unwrap();
        assert_eq!(fs::read_to_string(b.join("lib/link/x")).unwrap(), "x");
        assert_eq!(fs::read_to_string(b.join("lib/modules/0/y")).unwrap(), "y");
        assert_eq!(fs::read_to_string(b.join("lib/same")).unwrap(), "new");
    }
}
