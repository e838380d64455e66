// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a module is newer than what the kernel already has under the same name: a driver that
//! the kernel has overtaken must not replace the kernel's own unasked.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::originals::Present;
use super::{How, Placement};
use crate::conf::directives::ModuleConf;
use crate::failure::Failure;
use crate::kernel::compare_versions;
use crate::module_file::{ModInfo, stem, unpacked};

/// Why a built module must not be installed for now, if there is a reason: what the conf says of the
/// kernel, or another module of its name in the kernel's tree. Of ours, one that says that it is
/// newer counts as well.
pub(super) fn check(
    placement: &Placement<'_>,
    conf: &ModuleConf,
    built: &Path,
    name: &str,
    present: &Present,
    how: How,
) -> Result<Option<Failure>> {
    let kernel = placement.target.kernel.as_str();
    if let Some(obsolete_by) = &conf.obsolete_by
        && compare_versions(kernel, obsolete_by).is_ge()
    {
        return Ok(Some(Failure::Obsolete { by: obsolete_by.clone() }));
    }
    if how.any_version {
        return Ok(None);
    }
    let same_name = |path: &&PathBuf| {
        path.file_name().and_then(|file| stem(file.to_str()?)).is_some_and(|found| found == name)
    };
    // Of several, the same one whatever order the directories are in: the kernel's own before ours.
    let Some(found) = present.files.iter().filter(same_name).min() else { return Ok(None) };
    let (Some(new), Some(old)) = (info(built)?, info(found)?) else { return Ok(None) };
    let (version, found_version) = (new.get("version"), old.get("version"));
    let compared = compare_versions(version.unwrap_or_default(), found_version.unwrap_or_default());
    let is_same = || match (new.get("srcversion"), old.get("srcversion")) {
        (Some(new), Some(old)) => new == old,
        _ => super::same_module(built, found),
    };
    let path = || found.display().to_string();
    Ok(match compared {
        Ordering::Greater => None,
        Ordering::Less => Some(Failure::NotNewer {
            version: version.unwrap_or_default().to_owned(),
            file: format!("{name}.ko"),
            kernel: kernel.to_owned(),
            found: found_version.unwrap_or_default().to_owned(),
        }),
        // The same in a newer package takes its own earlier place.
        Ordering::Equal if present.ours.contains(found) || !is_same() => None,
        Ordering::Equal => Some(match version {
            Some(version) => Failure::SameVersion { path: path(), version: version.to_owned() },
            None => Failure::SameUnversioned { path: path() },
        }),
    })
}

/// A file that is no module has no say.
pub(super) fn info(path: &Path) -> Result<Option<ModInfo>> {
    Ok(unpacked(&fs::read(path)?).and_then(|image| ModInfo::read(&image)).ok())
}
