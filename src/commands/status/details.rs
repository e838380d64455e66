// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `status --json` says beyond the plain lines: why a module is not where it should be, what
//! its last attempt came to, where everything is, and since when. README.md, "For programs", tells
//! what the fields mean. Looks only.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use serde::Serialize;

use super::super::session::Session;
use crate::cli::TargetArgs;
use crate::failure::Failure;
use crate::install::{Files, Placement};
use crate::module::{ModuleId, State, Target};
use crate::sys::{clock, files};
use crate::tree::attempts::{Attempt, Outcome};
use crate::tree::kernels::find_module;
use crate::tree::registered::Loaded;

/// Why a module is not what one would expect it to be.
#[derive(Debug, Serialize)]
struct Reason {
    kind: Kind,
    text: String,
}

/// Kinds of reasons; the names are part of the schema.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    SourceMissing,
    BadConf,
    Excluded,
    Dependency,
    Failed,
    NotBuilt,
    NotInstalled,
    OtherVersion,
    Missing,
    Differs,
}

/// The last build or installation that failed.
#[derive(Debug, Serialize)]
struct LastError {
    message: String,
    code: u8,
    first_error: Option<String>,
    log: Option<PathBuf>,
    time: String,
}

#[derive(Debug, Default, Serialize)]
struct Paths {
    source: Option<PathBuf>,
    build: Option<PathBuf>,
    module: Option<PathBuf>,
    log: Option<PathBuf>,
    installed: Vec<PathBuf>,
    originals: Vec<PathBuf>,
}

#[derive(Debug, Default, Serialize)]
struct Times {
    built: Option<String>,
    installed: Option<String>,
    tried: Option<String>,
}

/// The further fields of one entry.
#[derive(Debug, Serialize)]
pub(super) struct Details {
    reasons: Vec<Reason>,
    last_error: Option<LastError>,
    paths: Paths,
    times: Times,
}

impl Details {
    /// Of a module that no kernel is known for.
    pub(super) fn of_module(session: &Session, id: &ModuleId, wanted: &TargetArgs) -> Self {
        let tree = &session.tree;
        let reason = if tree.is_broken(id) {
            let link = tree.source_link(id);
            let missing = fs::read_link(&link).unwrap_or(link).display().to_string();
            Reason {
                kind: Kind::SourceMissing,
                text: format!("{missing} is missing; put it back, or install the module's package again"),
            }
        } else {
            match session.load(id, None) {
                Err(error) => bad_conf(&error),
                Ok(loaded) => not_built(session, id, &loaded, wanted),
            }
        };
        let paths = Paths { source: source(session, id), ..build_dir(session, id) };
        Self { reasons: vec![reason], last_error: None, paths, times: Times::default() }
    }

    /// Of a module for one kernel.
    pub(super) fn of_target(
        session: &Session,
        id: &ModuleId,
        target: &Target,
        state: &State,
        loaded: &Result<Loaded>,
    ) -> Self {
        let tree = &session.tree;
        let report = &session.report;
        let place = Placement { tree, report, distribution: session.distribution, id, target };
        let is_installed = *state == State::Installed;
        let attempt = tree.attempt(id, target);
        let kept: Vec<Files> =
            loaded.iter().flat_map(|loaded| place.files(&loaded.conf, is_installed)).collect();

        let reasons = match loaded {
            Err(error) => vec![bad_conf(error)],
            Ok(loaded) => match state {
                State::Added => why_added(session, id, target, loaded, attempt.as_ref()),
                State::Built => why_built(session, id, target, &kept, attempt.as_ref()),
                State::Installed => why_different(session, id, target, &kept),
                State::InstalledWeak { .. } => Vec::new(),
            },
        };
        let log = tree.target_dir(id, target).join("log/make.log");
        let built_dir = tree.built_dir(id, target);
        let originals = tree.originals_dir(id.name(), target);
        let built = modified(&log).or_else(|| modified(&built_dir));
        let installed = match state {
            State::Installed | State::InstalledWeak { .. } => modified(&tree.active_link(id.name(), target)),
            _ => None,
        };
        let tried = attempt.as_ref().map(|attempt| attempt.time.clone());
        Self {
            reasons,
            paths: Paths {
                source: source(session, id),
                module: Some(built_dir).filter(|path| path.is_dir()),
                log: Some(log).filter(|path| path.is_file()),
                originals: kept.iter().filter_map(|files| find_module(&originals, &files.name)).collect(),
                installed: kept.into_iter().filter_map(|files| files.installed).collect(),
                ..build_dir(session, id)
            },
            times: Times { tried: tried.or_else(|| built.clone().max(installed.clone())), built, installed },
            last_error: attempt.filter(|attempt| attempt.outcome == Outcome::Failed).map(|attempt| {
                LastError {
                    message: attempt.message,
                    code: attempt.code,
                    first_error: attempt.first_error,
                    log: tree.attempt_log(id, target),
                    time: attempt.time,
                }
            }),
        }
    }
}

/// Where the source link points to, be it to nowhere; an archive without source has a directory.
fn source(session: &Session, id: &ModuleId) -> Option<PathBuf> {
    let link = session.tree.source_link(id);
    fs::read_link(&link).ok().or_else(|| Some(link).filter(|path| path.is_dir()))
}

fn build_dir(session: &Session, id: &ModuleId) -> Paths {
    let build = Some(session.tree.build_dir(id)).filter(|path| path.is_dir());
    Paths { build, ..Paths::default() }
}

fn modified(path: &Path) -> Option<String> {
    clock::of(fs::symlink_metadata(path).ok()?.modified().ok()?)
}

fn bad_conf(error: &anyhow::Error) -> Reason {
    let text = match error.downcast_ref() {
        Some(failure @ Failure::BadConf { problems, .. }) => format!("{failure}\n{}", problems.join("\n")),
        _ => format!("{error:#}"),
    };
    Reason { kind: Kind::BadConf, text }
}

fn not_built(session: &Session, id: &ModuleId, loaded: &Loaded, wanted: &TargetArgs) -> Reason {
    let none = if wanted.kernels.is_empty() && wanted.arches.is_empty() {
        "no kernel"
    } else {
        "none of these kernels"
    };
    let why = if !session.tree.attempted(id).is_empty() {
        "what was tried came to nothing"
    } else if !loaded.conf.autoinstall {
        "its dkms.conf does not set AUTOINSTALL"
    } else if files::exists(&session.tree.path("/etc/dkms/no-autoinstall")) {
        "/etc/dkms/no-autoinstall switches automatic installation off"
    } else {
        "no kernel has come since it was added"
    };
    let text = format!("it is built for {none}: {why}");
    Reason { kind: Kind::NotBuilt, text }
}

fn why_added(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    loaded: &Loaded,
    attempt: Option<&Attempt>,
) -> Vec<Reason> {
    let tree = &session.tree;
    let config = session.kernel_config(&target.kernel).unwrap_or_default();
    if let Some(constraint) = loaded.conf.why_excluded(target, &config) {
        let text = format!("{constraint} in its dkms.conf rules this kernel out");
        return vec![Reason { kind: Kind::Excluded, text }];
    }
    let mut reasons = Vec::new();
    for name in &loaded.conf.build_depends {
        let versions = tree.versions(name).unwrap_or_default();
        if versions.iter().any(|id| tree.state(id, target) == State::Installed) {
            continue;
        }
        let what = if versions.is_empty() { "registered" } else { "installed for this kernel" };
        let text = format!("it depends on {name} (BUILD_DEPENDS), which is not {what}");
        reasons.push(Reason { kind: Kind::Dependency, text });
    }
    reasons.extend(attempt.and_then(failed));
    if reasons.is_empty() {
        let text = format!("nothing is in its way any more; run: dkms install {id} -k {}", target.kernel);
        reasons.push(Reason { kind: Kind::NotBuilt, text });
    }
    reasons
}

/// The failure in one line.
fn failed(attempt: &Attempt) -> Option<Reason> {
    if attempt.outcome != Outcome::Failed {
        return None;
    }
    let line = attempt.first_error.as_deref().or_else(|| attempt.message.lines().next());
    Some(Reason { kind: Kind::Failed, text: line.unwrap_or_default().to_owned() })
}

fn why_built(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    kept: &[Files],
    attempt: Option<&Attempt>,
) -> Vec<Reason> {
    let mut reasons = why_different(session, id, target, kept);
    reasons.extend(attempt.and_then(failed));
    if let Some(active) = session.tree.active(id.name(), target) {
        let text = format!("{active} is installed for this kernel");
        reasons.push(Reason { kind: Kind::OtherVersion, text });
    } else if reasons.is_empty() {
        let text =
            format!("it is built, nobody has installed it; run: dkms install {id} -k {}", target.kernel);
        reasons.push(Reason { kind: Kind::NotInstalled, text });
    }
    reasons
}

/// What is remarkable about each file; the plain form's notes tell of them in sum.
fn why_different(session: &Session, id: &ModuleId, target: &Target, kept: &[Files]) -> Vec<Reason> {
    let is_installed = session.tree.state(id, target) == State::Installed;
    let reason = |files: &Files| {
        let name = &files.name;
        let (kind, text) = match (&files.built, &files.installed) {
            (None, _) => {
                let directory = session.tree.built_dir(id, target);
                (Kind::Missing, format!("{name}.ko is not in {}", directory.display()))
            }
            (Some(_), None) if is_installed => {
                (Kind::Missing, format!("{name}.ko is not in {}", files.directory.display()))
            }
            (Some(built), Some(installed)) if !files.are_same() => (
                Kind::Differs,
                format!("{} is not {}, which was built", installed.display(), built.display()),
            ),
            _ => return None,
        };
        Some(Reason { kind, text })
    };
    kept.iter().filter_map(reason).collect()
}
