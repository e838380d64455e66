// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mkdriverdisk` and `mksysext`: what is built of a module, packed for installers and for systems that
//! cannot be changed.

use std::path::PathBuf;

use anyhow::Result;
use fs_err as fs;

use super::select::registered;
use super::session::Session;
use crate::cli::{DiskArgs, ExtensionArgs, ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::module::ModuleId;
use crate::package::built::Built;
use crate::package::driver_disk::DriverDisk;
use crate::package::sysext::Extension;
use crate::sys::lock::Lock;

/// What is to be packed.
pub(super) struct Wish<'a> {
    pub module: &'a ModuleArg,
    pub targets: &'a TargetArgs,
    /// Every kernel that the module is built for.
    pub all: bool,
}

/// A module with all that was asked for of it; nobody else changes it meanwhile.
struct Packable {
    id: ModuleId,
    built: Vec<Built>,
    _lock: Lock,
}

impl Packable {
    /// Fails with [`Failure::NotBuilt`] unless the module is built for everything that was asked for.
    fn read(session: &Session, wish: &Wish<'_>, action: &'static str) -> Result<Self> {
        session.begin_changes()?;
        let tree = &session.tree;
        let id = registered(session, wish.module, action)?;
        let lock = tree.lock_module(&id, &session.report)?;
        let targets = if wish.all { tree.targets(&id) } else { session.targets(wish.targets)? };
        if targets.is_empty() {
            return Err(Failure::NotBuilt { action, target: None }.into());
        }
        let mut built: Vec<Built> = Vec::new();
        for target in targets {
            let directory = tree.built_dir(&id, &target);
            if !directory.is_dir() {
                return Err(Failure::NotBuilt { action, target: Some(target) }.into());
            }
            if built.iter().all(|known| known.target != target) {
                session.report.line(format_args!("Packing the modules for {target}..."));
                built.push(Built::read(target, &directory)?);
            }
        }
        Ok(Self { id, built, _lock: lock })
    }

    /// Where results go.
    fn directory(&self, session: &Session, name: &str) -> Result<PathBuf> {
        let directory = session.tree.version_dir(&self.id).join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

/// The verb `mkdriverdisk`.
pub(super) fn driver_disk(session: &Session, wish: &Wish<'_>, args: &DiskArgs) -> Result<()> {
    let packable = Packable::read(session, wish, "mkdriverdisk")?;
    let disk = DriverDisk {
        id: &packable.id,
        layout: args.layout,
        release: args.release.as_deref(),
        media: args.media,
        size: args.size,
        source: &session.tree.source_link(&packable.id),
        built: &packable.built,
    };
    let to = packable.directory(session, "driver_disk")?.join(disk.file_name());
    disk.write(&to)?;
    // Scripts take what stands behind the colon.
    session.report.line(format_args!("\nDisk image location: {}", to.display()));
    Ok(())
}

/// The verb `mksysext`: an extension for each kernel.
pub(super) fn sysext(session: &Session, wish: &Wish<'_>, args: &ExtensionArgs) -> Result<()> {
    let packable = Packable::read(session, wish, "mksysext")?;
    let directory = packable.directory(session, "sysext")?;
    for built in &packable.built {
        let extension = Extension {
            id: &packable.id,
            built,
            form: args.form,
            system: args.system.as_deref(),
            release: args.release.as_deref(),
        };
        let to = directory.join(extension.file_name());
        extension.write(&to)?;
        session.report.line(format_args!("System extension: {}", to.display()));
    }
    Ok(())
}
