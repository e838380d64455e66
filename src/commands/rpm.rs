// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules that come as an rpm package: rpm installs it, and what it brought is found in the
//! source tree. The package's scriptlets call dkms themselves, so no lock may be held here.

use std::path::Path;

use anyhow::Result;

use super::add::register_if_missing;
use super::session::Session;
use crate::failure::Failure;
use crate::module::ModuleId;
use crate::sys::tools::{Output, Run, Tool};

/// Has rpm install a package and registers the modules whose sources it holds, if its scriptlets
/// have not done so. `--force` lets rpm install it again.
pub(super) fn install(session: &Session, package: &Path) -> Result<Vec<ModuleId>> {
    let report = &session.report;
    if !package.is_file() {
        return Err(Failure::ArchiveMissing { path: package.display().to_string() }.into());
    }
    let failed = |why: String| Failure::Rpm { package: package.display().to_string(), why };
    let rpm = || Run::new(Tool::Rpm).map_err(|error| failed(format!("{error:#}.")));
    let mut run = rpm()?.arg("-Uvh");
    if session.options.force {
        run = run.arg("--replacepkgs");
    }
    let run = run.arg(package);
    let command = run.pasteable();
    let ended = run.end(if report.is_direct() { Output::Shown } else { Output::Apart })?;
    for line in String::from_utf8_lossy(&ended.errors).lines() {
        report.err(line);
    }
    if !ended.success() {
        return Err(failed(format!("`{command}` ended with status {}.", ended.code())).into());
    }
    let files = rpm()?.args(["-qlp", "--nosignature"]).arg(package).end(Output::Apart)?;
    let mut brought = Vec::new();
    for conf in String::from_utf8_lossy(&files.output).lines().filter_map(|line| conf_of(session, line)) {
        let loaded = session.tree.load_from(&conf, None, None, session.scope())?;
        register_if_missing(session, &loaded.conf.id)?;
        brought.push(loaded.conf.id);
    }
    Ok(brought)
}

/// The conf of a module, if a package's file is one: `<source tree>/M-V/dkms.conf`.
fn conf_of(session: &Session, file: &str) -> Option<std::path::PathBuf> {
    let path = session.tree.path(file.trim());
    let is_conf = path.file_name()? == "dkms.conf" && path.parent()?.parent()? == session.tree.source;
    (is_conf && path.is_file()).then_some(path)
}
