// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes a module from a shared store in the place of compiling it, and makes what is put there.
//! Nothing is taken that a trusted key has not signed, that is of something else than what is here,
//! or that the kernel would not load.

use anyhow::{Context, Result};

use super::{Build, stored};
use crate::machine::Machine;
use crate::module::ModuleId;
use crate::store::artefact::{Artefact, Wanted};
use crate::store::key::Inputs;
use crate::store::remote::Package;
use crate::store::signature::Trusted;
use crate::tree::made::MadeOf;

/// What came of asking shared stores for a module.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is kept now, as if it had been built.
    Kept,
    /// Nobody has it, or these were refused: which, and why.
    No(Vec<String>),
}

/// What is asked for; nothing if that cannot be told.
fn wanted<'a>(build: &Build<'a>) -> Result<Option<Wanted<'a>>> {
    let Build { tree, id, target, kernel, .. } = *build;
    let Some((sources, overlaid)) = stored::sources(tree, id)? else { return Ok(None) };
    let machine = Machine::of_kernel(&kernel.config, &target.arch);
    let headers = if build.has_headers { build.store.headers(kernel, machine) } else { None };
    // What it is built against has a part in it, whether it asks for rebuilds or not.
    let mut settings = Inputs::default();
    settings.text("settings", build.settings);
    for name in &build.loaded.conf.build_depends {
        let active = tree.active(name, target);
        settings.texts("depends", [name.as_str()].into_iter().chain(active.as_ref().map(ModuleId::version)));
    }
    Ok(Some(Wanted {
        id,
        target,
        sources,
        overlaid,
        settings: settings.hash().to_hex().to_string(),
        headers: headers.map(|digest| digest.to_hex().to_string()),
    }))
}

/// Asks one shared store after the other. Whatever is wrong with one is a warning.
pub(super) fn take(build: &Build<'_>) -> Result<Taken> {
    let (root, report) = (&build.tree.root, build.report);
    let mut refused = Vec::new();
    if !build.store.may_share(&build.loaded.conf) || !build.remotes.can_be_asked(root, report) {
        return Ok(Taken::No(refused));
    }
    // What cannot be told from others is compiled.
    let Ok(Some(wanted)) = wanted(build) else { return Ok(Taken::No(refused)) };
    let (name, trusted) = (wanted.name(), build.remotes.trusted(root, report));
    for remote in build.remotes.iter() {
        let Some(package) = remote.fetch(root, &name, report) else { continue };
        match examined(build, &wanted, &package, trusted) {
            Ok((found, mut of)) => {
                let from = remote.to_string();
                stored::bring(build, found, Some(&from))?;
                of.from = Some(from);
                stored::note(build, Some(&of));
                return Ok(Taken::Kept);
            }
            Err(error) => {
                let why = stored::told(&error);
                report.warning(format_args!("{name} of {remote} is refused: {why}"));
                refused.push(format!("{name} of {remote}: {why}"));
            }
        }
    }
    Ok(Taken::No(refused))
}

/// Looks at a package from every side before anything of it is used.
fn examined(
    build: &Build<'_>,
    wanted: &Wanted<'_>,
    package: &Package,
    trusted: &Trusted,
) -> Result<(stored::Found, MadeOf)> {
    let signature = package.signature.as_ref().context("it is not signed")?;
    trusted.verify(&package.archive, signature)?;
    let Artefact { manifest, entry } = Artefact::unpack(&package.archive)?;
    manifest.ensure_is(wanted)?;
    Ok((stored::found(build, entry)?, manifest.made_of))
}

/// What goes into a shared store of a build that is kept: its name there, and the archive. Nothing if
/// the local store does not have it.
pub(super) fn artefact(build: &Build<'_>) -> Result<Option<(String, Vec<u8>)>> {
    let Some((key, of, entry)) = stored::kept(build) else { return Ok(None) };
    let Some(wanted) = wanted(build)? else { return Ok(None) };
    let name = wanted.name();
    Ok(Some((name, Artefact::new(&wanted, key.as_str(), of, entry).pack()?)))
}
