// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the words of the command line to registered modules: a name and version, a directory, a
//! dkms.conf, an archive.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::session::Session;
use crate::cli::ModuleArg;
use crate::failure::Failure;
use crate::module::ModuleId;

/// What a word on the command line turned out to be.
pub(super) enum Selected {
    Id(ModuleId),
    /// A directory with a dkms.conf.
    Source(PathBuf),
    /// Any other file.
    Archive(PathBuf),
}

/// Looks a module up. A name without a version stands for the only version that is known.
pub(super) fn select(session: &Session, module: &ModuleArg, action: &'static str) -> Result<Selected> {
    let (name, version) = match module {
        ModuleArg::Archive(path) => return Ok(Selected::Archive(path.clone())),
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
            if path.is_file() && (word.contains('/') || session.tree.versions(word)?.is_empty()) {
                return Ok(Selected::Archive(path));
            }
            if word.contains('/') {
                return Err(Failure::NoModule { action }.into());
            }
            (word.clone(), None)
        }
        ModuleArg::Named { name, version } => (name.clone(), version.clone()),
    };
    if let Some(version) = version {
        return Ok(Selected::Id(ModuleId::new(&name, &version)?));
    }
    let known = session.tree.versions(&name)?;
    match known.as_slice() {
        [] => Err(Failure::NoModule { action }.into()),
        [only] => Ok(Selected::Id(only.clone())),
        several => {
            let versions: Vec<&str> = several.iter().map(ModuleId::version).collect();
            bail!("{name} is registered in several versions, name one: {}", versions.join(", "))
        }
    }
}

/// As [`select`], for actions on what is registered already.
pub(super) fn registered(session: &Session, module: &ModuleArg, action: &'static str) -> Result<ModuleId> {
    let id = match select(session, module, action)? {
        Selected::Id(id) => id,
        Selected::Source(_) | Selected::Archive(_) => return Err(Failure::NoModule { action }.into()),
    };
    session.asks_for(&id);
    if !session.tree.is_registered(&id) {
        return Err(Failure::NotInTree { id }.into());
    }
    Ok(id)
}
