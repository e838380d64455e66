// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trial builds: what a transaction is about to bring is laid over the system for this process
//! alone, and modules are built there as they will be. What they become is in the store, and the
//! real hooks find it there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::add::{identify, register_if_missing};
use super::autoinstall::{TriedOut, kernels, try_out};
use super::critical::critical;
use super::gate::ensure_indexed;
use super::session::Session;
use crate::gate::verdict::Critical;
use crate::kernel::KernelRelease;
use crate::module::Target;
use crate::sys::files;
use crate::trial::{Kind, View, spread};

/// What is to be tried.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// An empty directory, which the caller removes afterwards.
    pub scratch: PathBuf,
    /// The archives that are about to be unpacked, as far as builds need them.
    pub packages: Vec<(Kind, PathBuf)>,
    /// Whether modules are tried whose builds cannot be kept for their installation.
    pub all: bool,
    /// Where the answer is to go.
    pub answer: PathBuf,
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    pub kernels: Vec<Tried>,
    /// What could not be tried, for people.
    pub untried: Vec<String>,
}

/// One kernel's modules.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tried {
    pub kernel: KernelRelease,
    /// Whether its files come with the transaction.
    pub is_new: bool,
    /// PACKAGE_NAME and what went wrong.
    pub failed: Vec<(String, String)>,
    /// What the kernel needs to boot this machine.
    pub critical: Vec<Critical>,
}

/// Tries it. The process must have a single thread, and sees the result ever after.
pub fn try_transaction(session: &Session, request: &Request) -> Result<()> {
    let tree = &session.tree;
    let mut view = View::begin(&request.scratch)?;
    let mut answer = Answer::default();
    for (kind, archive) in &request.packages {
        if let Err(error) = spread(*kind, archive, &tree.path("/"), &view.new_files()) {
            answer.untried.push(format!("{error:#}"));
        }
    }
    let new_kernels = kernels_in(&view.new_files());
    let new_sources = sources_in(&view.new_files());
    // What is built is kept, and nobody else works on it meanwhile.
    let kept = ["store", "locks"].map(|name| tree.hooks_dir().join(name));
    kept.iter().try_for_each(fs_err::create_dir_all)?;
    view.cover(&covered(session), &kept)?;
    session.begin_changes()?;
    for name in &new_sources {
        let known = identify(session, &tree.path("/usr/src").join(name));
        if let Err(error) = known.and_then(|id| register_if_missing(session, &id)) {
            answer.untried.push(format!("{name}: {error:#}"));
        }
    }
    let mut targets: Vec<(KernelRelease, bool)> =
        new_kernels.into_iter().map(|kernel| (kernel, true)).collect();
    if !new_sources.is_empty() {
        // As their own scripts do: the running one, and the newest.
        for kernel in kernels(session)?.0.into_iter().take(2) {
            if targets.iter().all(|(known, _)| *known != kernel) {
                targets.push((kernel, false));
            }
        }
    }
    for (kernel, is_new) in targets {
        match try_kernel(session, &kernel, is_new, request.all, &mut answer.untried) {
            Ok(tried) => answer.kernels.push(tried),
            Err(error) => answer.untried.push(format!("kernel {kernel}: {error:#}")),
        }
    }
    let text = serde_json::to_string(&answer).context("writing down what was tried")?;
    files::write_atomically(&request.answer, text.as_bytes(), 0o600)
}

fn try_kernel(
    session: &Session,
    kernel: &KernelRelease,
    is_new: bool,
    all: bool,
    untried: &mut Vec<String>,
) -> Result<Tried> {
    let target = Target { kernel: kernel.clone(), arch: session.tree.arch.clone() };
    session.report.line(format_args!("Trying modules for kernel {kernel} before anything is unpacked:"));
    let policy = session.policy()?;
    let needed = critical(session, &target, &policy)?;
    ensure_indexed(session, kernel, &needed)?;
    let TriedOut { failed, waiting } = try_out(session, &target, all)?;
    untried.extend(waiting.iter().map(|id| format!("{id} for kernel {kernel}: it builds on other modules")));
    Ok(Tried { kernel: kernel.clone(), is_new, failed, critical: needed })
}

/// The directories that packages of kernels and modules bring files to, and our own.
fn covered(session: &Session) -> Vec<PathBuf> {
    let tree = &session.tree;
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in
        ["/usr", "/lib"].map(|path| tree.path(path)).iter().chain([&tree.dkms, &tree.source, &tree.install])
    {
        // Where /lib is a link it is covered with what it leads to.
        let Ok(directory) = fs_err::canonicalize(directory) else { continue };
        if !directories.iter().any(|covered| directory.starts_with(covered)) {
            directories.push(directory);
        }
    }
    directories
}

/// The kernels that come with what they are built against (`lib/modules/K/build`; Fedora's
/// `usr/src/kernels/K`).
fn kernels_in(new: &Path) -> BTreeSet<KernelRelease> {
    let mut found = BTreeSet::new();
    let has_build = |directory: &Path| directory.join("build").symlink_metadata().is_ok();
    for modules in ["lib/modules", "usr/lib/modules"] {
        for name in files::names(&new.join(modules)).unwrap_or_default() {
            if has_build(&new.join(modules).join(&name)) {
                found.extend(name.parse::<KernelRelease>());
            }
        }
    }
    for name in files::names(&new.join("usr/src/kernels")).unwrap_or_default() {
        found.extend(name.parse::<KernelRelease>());
    }
    found
}

/// The directories of the source tree that come with a dkms.conf.
fn sources_in(new: &Path) -> Vec<String> {
    let sources = new.join("usr/src");
    let mut names = files::names(&sources).unwrap_or_default();
    names.retain(|name| sources.join(name).join("dkms.conf").is_file());
    names
}
