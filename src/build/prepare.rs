// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fresh build directory: the source copied, the administrator's patches laid over it, the
//! patches of the conf applied.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::Build;
use super::log::MakeLog;
use super::sandbox::Sandbox;
use crate::failure::Failure;
use crate::module::ModuleId;
use crate::sys::files;
use crate::sys::tools::Tool;
use crate::tree::Tree;

/// Whether a module's source tree holds anything to build; a conf alone is no source.
pub fn has_source(tree: &Tree, id: &ModuleId) -> Result<bool> {
    let is_source =
        |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() != "dkms.conf");
    Ok(fs::read_dir(tree.source_link(id))?.any(is_source))
}

/// Makes `<dkms tree>/M/V/build` anew from the source tree; what a failed build left there goes.
pub(super) fn build_dir(tree: &Tree, id: &ModuleId) -> Result<PathBuf> {
    let source = tree.source_link(id);
    if !has_source(tree, id)? {
        return Err(Failure::NoSource { source: source.display().to_string() }.into());
    }
    let build_dir = tree.build_dir(id);
    files::remove(&build_dir)?;
    files::copy_tree(&fs::canonicalize(&source)?, &build_dir)?;
    let patches = tree.path("/etc/dkms").join(id.name()).join("patches");
    if patches.is_dir() {
        overlay(&patches, &build_dir.join("patches"))?;
    }
    Ok(build_dir)
}

/// Copies what is in one directory over what is in another.
fn overlay(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            overlay(&entry.path(), &target)?;
        } else {
            files::remove(&target)?;
            files::copy_tree(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Applies the conf's patches in order.
pub(super) fn patch(build: &Build<'_>, build_dir: &Path, sandbox: &Sandbox, log: &mut MakeLog) -> Result<()> {
    for patch in build.loaded.conf.patches_for(&build.target.kernel) {
        if Path::new(patch).components().any(|part| part == std::path::Component::ParentDir) {
            return Err(Failure::PatchLeaves { patch: patch.to_owned() }.into());
        }
        let file = build_dir.join("patches").join(patch.trim_start_matches('/'));
        if !file.is_file() {
            let directory = build_dir.join("patches/").display().to_string();
            return Err(Failure::PatchMissing { patch: patch.to_owned(), directory }.into());
        }
        let shown = patch_command(patch);
        build.begin(&format!("Applying patch {patch}"), &shown);
        let run = sandbox
            .run(Tool::Patch)?
            .arg("-p1")
            .english()
            .envs(build.variables)
            .directory(build_dir)
            .input(fs::File::open(&file)?)
            .limit(build.limit);
        let ended = log.step(&format!("Applying patch {patch}"), &shown, run)?;
        if !ended.success() {
            build.failed(&ended, &shown);
            let (log, first_error) = (log.path().display().to_string(), log.first_error(&ended));
            return Err(Failure::PatchFailed { patch: patch.to_owned(), log, first_error }.into());
        }
        build.report.out(" done.\n");
    }
    Ok(())
}

/// How a patch is applied, as it is shown.
pub(super) fn patch_command(patch: &str) -> String {
    format!("patch -p1 < ./patches/{patch}")
}

/// A script of the module's: its first word is a file in `directory`, or an executable that the
/// administrator put into `/etc/dkms/M` in its place; the rest are its arguments, which real confs
/// (zfs) spread over lines. Returns the command, or nothing if the file is not there to be run.
pub fn script_command(tree: &Tree, id: &ModuleId, directory: &Path, words: &str) -> Option<String> {
    let words: Vec<&str> = words.split_ascii_whitespace().collect();
    let (script, arguments) = words.split_first()?;
    let replaced = tree.path("/etc/dkms").join(id.name()).join(script);
    let path = [replaced, directory.join(script)].into_iter().find(|path| files::is_executable(path))?;
    let path = path.to_string_lossy();
    let command = std::iter::once(shell_words::quote(&path)).chain(arguments.iter().copied().map(Into::into));
    Some(command.collect::<Vec<_>>().join(" "))
}
