// SPDX-License-Identifier: MIT OR Apache-2.0
//! `add`: registers a module's source tree, copying it to the source tree first if need be, an
//! archive, or what an rpm package brings.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::select::{Among, Selected, select};
use super::session::Session;
use super::{rpm, rpm_upgrade, tarball};
use crate::build::script_command;
use crate::cli::ModuleArg;
use crate::failure::Failure;
use crate::module::{ModuleId, Target};
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Output, Run, Tool};
use crate::tree::registered::Loaded;
use crate::tree::transaction::Transaction;

/// Registers a module that is not registered yet.
pub(super) fn add(session: &Session, module: &ModuleArg) -> Result<()> {
    let id = match select(session, module, "add", Among::Sources)? {
        Selected::Id(id) => id,
        Selected::Source(directory) => copy_source(session, &directory)?,
        Selected::Rpm(package) => return rpm::install(session, &package).map(drop),
        Selected::Archive(archive) => return tarball::load(session, &archive).map(drop),
    };
    session.asks_for(&id);
    rpm_upgrade::note(session, &id)?;
    register(session, &id)
}

/// What `build` and `install` are to work on.
pub(super) enum Named {
    /// One module; whether it had to be added.
    Module(ModuleId, bool),
    /// What a package brought.
    Package(Vec<ModuleId>),
}

/// Finds a module for `build` and `install`, which add what is not there yet.
pub(super) fn add_if_missing(session: &Session, module: &ModuleArg, verb: &'static str) -> Result<Named> {
    let id = match select(session, module, verb, Among::Both)? {
        Selected::Id(id) => id,
        Selected::Source(directory) => brought(session, copy_source(session, &directory))?,
        Selected::Rpm(package) => return rpm::install(session, &package).map(Named::Package),
        Selected::Archive(archive) => {
            let id = brought(session, tarball::load(session, &archive))?;
            session.report.line("");
            return Ok(Named::Module(id, true));
        }
    };
    session.asks_for(&id);
    rpm_upgrade::note(session, &id)?;
    let missing = !session.tree.is_registered(&id);
    if missing {
        register(session, &id)?;
        session.report.line("");
    }
    Ok(Named::Module(id, missing))
}

/// The module that a source or an archive brings. A run that is replayed has brought it already,
/// and failed later.
fn brought(session: &Session, brought: Result<ModuleId>) -> Result<ModuleId> {
    brought.or_else(|error| match error.downcast_ref() {
        Some(Failure::AlreadyAdded { id } | Failure::AlreadyLoaded { id }) if session.is_by_hand() => {
            Ok(id.clone())
        }
        _ => Err(error),
    })
}

/// Registers a module whose source a package has put into the source tree, unless it is there.
pub fn register_if_missing(session: &Session, id: &ModuleId) -> Result<()> {
    if session.tree.is_registered(id) && !session.tree.is_broken(id) {
        return Ok(());
    }
    register(session, id)
}

/// The module that a source tree holds.
pub fn identify(session: &Session, directory: &Path) -> Result<ModuleId> {
    let conf = fs::canonicalize(directory)?.join("dkms.conf");
    let loaded = session.tree.load_from(&conf, None, None, session.scope())?;
    Ok(loaded.conf.id)
}

/// Copies a directory to `<source tree>/M-V`, unless it is that already.
fn copy_source(session: &Session, directory: &Path) -> Result<ModuleId> {
    let id = identify(session, directory)?;
    if session.tree.is_registered(&id) && !session.tree.is_broken(&id) {
        return Err(Failure::AlreadyAdded { id }.into());
    }
    let (from, to) = (fs::canonicalize(directory)?, session.tree.source_dir(&id));
    if to.exists() && fs::canonicalize(&to)? == from {
        return Ok(id);
    }
    let lock = session.tree.lock_unpacking(&session.report)?;
    let staged = session.tree.stage_source(&lock)?;
    let copy = staged.path().join("copy");
    files::copy_tree(&from, &copy)?;
    let mut transaction = Transaction::new(&session.tree, format!("copying the source of {id}"), None);
    transaction.put_directory(&to, &copy);
    transaction.apply()?.keep()?;
    Ok(id)
}

/// Links `<source tree>/M-V` into the dkms tree; a broken link is mended.
fn register(session: &Session, id: &ModuleId) -> Result<()> {
    let tree = &session.tree;
    if tree.is_registered(id) && !tree.is_broken(id) {
        return Err(Failure::AlreadyAdded { id: id.clone() }.into());
    }
    let source = tree.source_dir(id);
    if !source.is_dir() {
        return Err(Failure::SourceMissing { directory: source.display().to_string() }.into());
    }
    let conf = session.options.conf.clone().unwrap_or_else(|| source.join("dkms.conf"));
    let checked = CheckedConf::read(session, id, &conf)?;
    checked.announce(session);
    let link = tree.source_link(id);
    link_line(session, &link, &source);
    {
        let _lock = tree.lock_registry(&session.report)?;
        let mut transaction = Transaction::new(tree, format!("adding {id}"), None);
        transaction.put_link(&link, &source);
        transaction.apply()?.keep()?;
        // Of one that another dkms has removed.
        tree.forget_attempts(id)?;
    }
    run_post_add(session, &checked)
}

/// The conf of a module that is being registered, as the running kernel has it.
pub(super) struct CheckedConf {
    pub id: ModuleId,
    target: Option<Target>,
    loaded: Loaded,
}

impl CheckedConf {
    /// Reads a conf and checks it strictly.
    pub(super) fn read(session: &Session, id: &ModuleId, conf: &Path) -> Result<Self> {
        let running = session.tree.running_kernel().ok();
        let target = running.map(|kernel| Target { kernel, arch: session.tree.arch.clone() });
        let loaded = session.tree.load_from(conf, Some(id), target.as_ref(), session.scope())?;
        check_strictly(&loaded, conf)?;
        Ok(Self { id: id.clone(), target, loaded })
    }

    /// Says what is remarkable about the conf.
    pub(super) fn announce(&self, session: &Session) {
        self.loaded.conf.warnings.iter().for_each(|warning| session.report.err(warning));
        self.loaded.conf.deprecated.iter().for_each(|feature| session.report.err(feature));
    }
}

/// Says that a module's source becomes known.
pub(super) fn link_line(session: &Session, link: &Path, source: &Path) {
    session.report.line(format_args!("Creating symlink {} -> {}", link.display(), source.display()));
}

/// The end of a registration; no lock may be held.
pub(super) fn run_post_add(session: &Session, checked: &CheckedConf) -> Result<()> {
    if let Some(script) = &checked.loaded.conf.scripts.post_add {
        let target = checked.target.as_ref();
        shown_script(session, &session.report, &checked.id, target, "post_add", script)?;
    }
    Ok(())
}

/// The checks that registering, building and installing make beyond reading.
pub(super) fn check_strictly(loaded: &Loaded, conf: &Path) -> Result<()> {
    let problems = loaded.conf.strict_problems();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::BadConf { path: conf.display().to_string(), problems }.into())
}

/// Runs one of the module's scripts in its source directory, showing what it says. No lock may be
/// held: scripts may call what calls us. Returns its status.
pub(super) fn shown_script(
    session: &Session,
    report: &Report,
    id: &ModuleId,
    target: Option<&Target>,
    name: &'static str,
    words: &str,
) -> Result<u8> {
    let directory = session.tree.source_link(id);
    let Some(command) = script_command(&session.tree, id, &directory, words) else {
        report.line("");
        report.warning(format_args!("The {name} script is not executable."));
        return Ok(0);
    };
    report.line(format_args!("Running the {name} script:"));
    let run = Run::new(Tool::Bash)?
        .arg("-c")
        .arg(&command)
        .envs(&session.environment(id, target))
        .directory(&fs::canonicalize(&directory)?);
    let ended = run.end(if report.is_direct() { Output::Shown } else { Output::Apart })?;
    report.out(String::from_utf8_lossy(&ended.output));
    for line in String::from_utf8_lossy(&ended.errors).lines() {
        report.err(line);
    }
    Ok(ended.code())
}
