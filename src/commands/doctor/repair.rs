// SPDX-License-Identifier: MIT OR Apache-2.0
//! `doctor --repair`: mends under the right lock, after a second look. Never deletes what somebody may
//! want: sources, modules that are or can be used, files of others.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use nix::fcntl::OFlag;

use super::super::Initramfs;
use super::super::install::install_anew;
use super::super::items::Done;
use super::super::kernel::forget_kernel;
use super::super::session::Session;
use super::registered::holds_nothing;
use super::{Finding, Treated, look};
use crate::kernel::KernelRelease;
use crate::module::{ModuleId, Target};
use crate::sys::files;
use crate::tree::abandoned::place_of_leftover;

/// How a finding is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// Everything that changes something begins with it.
    Finish,
    ForgetKernel(Vec<Target>),
    /// A `kernel-K-A` link.
    Unlink {
        link: PathBuf,
        kernel: KernelRelease,
    },
    /// Directories without any file.
    Prune {
        directory: PathBuf,
        id: Option<ModuleId>,
        kernel: Option<KernelRelease>,
    },
    /// What a module's builds leave: its build directory, or what was to be kept of one.
    Build {
        path: PathBuf,
        id: ModuleId,
    },
    /// What is staged in the source tree.
    Source,
    /// What a transaction has staged or kept.
    Staged(PathBuf),
    Install(ModuleId, Target),
    /// Takes permissions (bits of a mode) away.
    Restrict {
        paths: Vec<PathBuf>,
        bits: u32,
    },
}

/// Mends what can be mended until nothing more comes to light, and looks what is left.
pub(super) fn repair(session: &Session, found: Vec<Finding>) -> Result<Vec<Treated>> {
    session.begin_changes()?;
    let mut treated: Vec<Treated> = found.into_iter().map(Treated::new).collect();
    let mut tried = 0;
    loop {
        let now = look(session)?;
        for finding in &now {
            if !treated.iter().any(|treated| treated.finding.is_same(finding)) {
                treated.push(Treated::new(finding.clone()));
            }
        }
        for treated in &mut treated {
            treated.repaired = !now.iter().any(|finding| finding.is_same(&treated.finding));
        }
        let of_this_round = tried..treated.len();
        tried = treated.len();
        let mut did_something = false;
        for treated in treated[of_this_round].iter_mut().filter(|treated| !treated.repaired) {
            let Some(repair) = &treated.finding.repair else { continue };
            did_something = true;
            treated.error = mend(session, repair).err().map(|error| format!("{error:#}"));
        }
        if !did_something {
            return Ok(treated);
        }
    }
}

fn mend(session: &Session, repair: &Repair) -> Result<()> {
    let (tree, report) = (&session.tree, &session.report);
    match repair {
        Repair::Finish => bail!("it cannot be finished yet"),
        Repair::ForgetKernel(targets) => targets.iter().try_for_each(|target| forget_kernel(session, target)),
        Repair::Unlink { link, kernel } => {
            let _lock = tree.lock_kernel(kernel, report)?;
            if link.is_symlink() && !link.exists() {
                files::remove(link)?;
            }
            Ok(())
        }
        Repair::Prune { directory, id, kernel } => {
            let _module = id.as_ref().map(|id| tree.lock_module(id, report)).transpose()?;
            let _kernel = kernel.as_ref().map(|kernel| tree.lock_kernel(kernel, report)).transpose()?;
            let _registry = tree.lock_registry(report)?;
            if holds_nothing(directory) {
                files::remove_empty_below(directory);
            }
            Ok(())
        }
        Repair::Build { path, id } => {
            let _lock = tree.lock_module(id, report)?;
            files::remove(path)
        }
        Repair::Source => {
            let unpacking = tree.lock_unpacking(report)?;
            drop(tree.stage_source(&unpacking)?);
            Ok(())
        }
        Repair::Staged(path) => match place_of_leftover(tree, path) {
            Some(_) => files::remove(path),
            None => Ok(()),
        },
        Repair::Install(id, target) => {
            let result = install_anew(session, id, target, true, Initramfs::Ours)?;
            let failed = result.modules.into_iter().find_map(|(_, done)| match done {
                Done::Failed(error) | Done::Skipped(error) => Some(error),
                _ => None,
            });
            failed.or(result.trouble).map_or(Ok(()), Err)
        }
        Repair::Restrict { paths, bits } => paths.iter().try_for_each(|path| restrict(path, *bits)),
    }
}

/// Takes the mode from what is changed: whoever may write there could put a link in its place meanwhile,
/// and what that leads to may be anybody's.
fn restrict(path: &Path, bits: u32) -> Result<()> {
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file() || meta.is_dir()) {
        return Ok(());
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o7777 & !bits;
    Ok(file.set_permissions(PermissionsExt::from_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::writable(0o666, 0o022, 0o644)]
    #[case::readable_key(0o644, 0o077, 0o600)]
    #[case::directory(0o2777, 0o022, 0o2755)]
    fn permissions_are_taken_away_and_no_others(#[case] mode: u32, #[case] bits: u32, #[case] want: u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        fs::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        restrict(&dir.path().join("link"), 0o777).unwrap();
        restrict(&path, bits).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, want);
    }
}
