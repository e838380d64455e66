// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a module is newer than what the kernel already has under the same name: a driver that
//! the kernel has overtaken must not replace the kernel's own unasked.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::{How, Placement};
use crate::failure::Failure;
use crate::kernel::compare_versions;
use crate::module_file::{ModInfo, stem, unpacked};
use crate::sys::files;

/// Compares a built module with another of its name in the kernel's tree. Of ours, a version that
/// is installed and says that it is newer counts as well.
pub(super) fn check(
    placement: &Placement<'_>,
    built: &Path,
    name: &str,
    ours: &[PathBuf],
    how: How,
) -> Result<()> {
    let kernel_dir = placement.tree.kernel_dir(&placement.target.kernel);
    let same_name = |path: &PathBuf| {
        path.file_name().and_then(|file| stem(file.to_str()?)).is_some_and(|found| found == name)
    };
    // Of several, the same one whatever order the directories are in: the kernel's own before ours.
    let Some(found) = files::files_below(&kernel_dir).into_iter().filter(same_name).min() else {
        return Ok(());
    };
    let (Some(new), Some(old)) = (info(built)?, info(&found)?) else { return Ok(()) };
    let refuse = |found_version: &str, version: &str| Failure::NotNewer {
        version: version.to_owned(),
        file: format!("{name}.ko"),
        kernel: placement.target.kernel.to_string(),
        found: found_version.to_owned(),
    };
    match (new.get("version"), old.get("version")) {
        (Some(version), Some(found_version)) if !how.any_version => {
            if compare_versions(version, found_version).is_gt() {
                return Ok(());
            }
            Err(refuse(found_version, version).into())
        }
        (None, None) if !ours.contains(&found) => {
            let same = match (new.get("srcversion"), old.get("srcversion")) {
                (Some(new), Some(old)) => new == old,
                _ => super::same_module(built, &found),
            };
            if !same {
                return Ok(());
            }
            Err(Failure::SameUnversioned { path: found.display().to_string() }.into())
        }
        _ => Ok(()),
    }
}

/// A file that is no module has no say.
fn info(path: &Path) -> Result<Option<ModInfo>> {
    Ok(unpacked(&fs::read(path)?).and_then(|image| ModInfo::read(&image)).ok())
}
