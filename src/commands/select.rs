// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the words of the command line to modules: a name with or without a version, a directory,
//! a dkms.conf, an archive, an rpm package.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::session::Session;
use crate::cli::ModuleArg;
use crate::failure::Failure;
use crate::kernel::compare_versions;
use crate::module::ModuleId;
use crate::sys::files;

/// What a word on the command line turned out to be.
pub(super) enum Selected {
    Id(ModuleId),
    /// A directory with a dkms.conf.
    Source(PathBuf),
    Rpm(PathBuf),
    /// Any other file.
    Archive(PathBuf),
}

/// Where the version of a module is looked for that is named without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// The source tree: `add`.
    Sources,
    /// The dkms tree, or else the source tree: `build`, `install`.
    Both,
    /// The dkms tree.
    Registered,
}

/// Looks a module up for an action. A name without a version stands for the only one that is there.
pub(super) fn select(
    session: &Session,
    module: &ModuleArg,
    verb: &'static str,
    among: Among,
) -> Result<Selected> {
    // build and install begin by adding, and dkms asks in the name of that.
    let action = if among == Among::Registered { verb } else { "add" };
    let (name, version) = match module {
        ModuleArg::Archive(path) => return Ok(file(path.clone())),
        ModuleArg::Word(word) => {
            let path = PathBuf::from(word);
            if path.join("dkms.conf").is_file() {
                return Ok(Selected::Source(path));
            }
            if path.is_file() && path.ends_with("dkms.conf") {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                return Ok(Selected::Source(directory.map_or_else(|| PathBuf::from("."), PathBuf::from)));
            }
            // A module of that name goes before a file that happens to lie here.
            if path.is_file() && (word.contains('/') || versions(session, word, among)?.is_empty()) {
                return Ok(file(path));
            }
            if let Some((first, rest)) = word.split_once('/') {
                return Err(match (first.is_empty() || rest.is_empty() || files::exists(&path), among) {
                    (true, _) => Failure::NoModule { action },
                    (false, Among::Registered) => Failure::ModuleNotInTree { name: word.clone() },
                    (false, _) => Failure::SourceMissing { directory: word.clone() },
                }
                .into());
            }
            (word.clone(), None)
        }
        ModuleArg::Named { name, version } => (name.clone(), version.clone()),
    };
    if let Some(version) = version {
        return Ok(Selected::Id(ModuleId::new(&name, &version)?));
    }
    match versions(session, &name, among)?.as_slice() {
        [] => Err(Failure::NoModule { action }.into()),
        [only] => Ok(Selected::Id(only.clone())),
        several => Err(Failure::SeveralVersions { verb, ids: several.to_vec() }.into()),
    }
}

/// As [`select`], for actions on what is registered already.
pub(super) fn registered(session: &Session, module: &ModuleArg, action: &'static str) -> Result<ModuleId> {
    let id = match select(session, module, action, Among::Registered)? {
        Selected::Id(id) => id,
        Selected::Source(_) | Selected::Rpm(_) | Selected::Archive(_) => {
            return Err(Failure::NoModule { action }.into());
        }
    };
    session.asks_for(&id);
    if !session.tree.is_registered(&id) {
        return Err(Failure::NotInTree { id }.into());
    }
    Ok(id)
}

fn file(path: PathBuf) -> Selected {
    if is_rpm(&path) { Selected::Rpm(path) } else { Selected::Archive(path) }
}

/// Whether a file is an rpm package, which dkms tells by its name.
pub(super) fn is_rpm(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rpm")
}

fn versions(session: &Session, name: &str, among: Among) -> Result<Vec<ModuleId>> {
    if among != Among::Sources {
        let registered = session.tree.versions(name)?;
        if !registered.is_empty() || among == Among::Registered {
            return Ok(registered);
        }
    }
    sources(session, name)
}

/// The versions whose sources lie in the source tree, oldest first. Of a directory like
/// `nvidia-current-535` only its conf can tell whether the name ends at the first hyphen; one that
/// cannot be read is left to those who read it next.
fn sources(session: &Session, name: &str) -> Result<Vec<ModuleId>> {
    let tree = &session.tree;
    let mut found = Vec::new();
    for directory in files::names(&tree.source)? {
        let version = directory.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        let Some(id) = version.and_then(|version| ModuleId::new(name, version).ok()) else { continue };
        let conf = tree.source_dir(&id).join("dkms.conf");
        if conf.is_file()
            && tree.load_from(&conf, None, None, session.scope()).map_or(true, |it| it.conf.id.name() == name)
        {
            found.push(id);
        }
    }
    found.sort_by(|a, b| compare_versions(a.version(), b.version()));
    Ok(found)
}
