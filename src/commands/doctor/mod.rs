// SPDX-License-Identifier: MIT OR Apache-2.0
//! `doctor`: what is wrong with the trees, with what was built and with what is around it, why that
//! matters and what to type. Looking takes no lock and changes nothing; with `--repair` (`repair.rs`)
//! that is mended which can be without losing what somebody may want.

mod built;
mod kernels;
mod leftovers;
mod print;
mod registered;
mod repair;
mod system;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::session::Session;
use crate::module::Target;
use crate::sys::report::give_up_output;
use crate::tree::Tree;
use repair::Repair;

/// The exit code if anything is wrong and not mended.
const NOT_WELL: u8 = 1;

/// Kinds of findings; the names are part of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    HalfDone,
    SourceMissing,
    BadConf,
    KernelGone,
    OrphanedLink,
    EmptyDirectory,
    LeftOverBuild,
    LeftOver,
    BuiltFileMissing,
    NotInstalled,
    Differs,
    Outdated,
    NotProven,
    OtherDkms,
    Writable,
    Owner,
    KeyReadable,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    kind: Kind,
    /// The file or directory that it is about; with the kind it tells this finding from all others.
    place: PathBuf,
    what: String,
    why: String,
    /// What to do, as a rule a command to type.
    remedy: String,
    /// How `--repair` mends it.
    #[serde(skip)]
    repair: Option<Repair>,
}

impl Finding {
    fn is_same(&self, other: &Self) -> bool {
        (self.kind, &self.place) == (other.kind, &other.place)
    }
}

/// A finding and what became of it.
#[derive(Debug, Serialize)]
struct Treated {
    #[serde(flatten)]
    finding: Finding,
    /// Whether `--repair` mends it.
    repairable: bool,
    repaired: bool,
    /// Why it could not be mended.
    error: Option<String>,
}

impl Treated {
    fn new(finding: Finding) -> Self {
        Self { repairable: finding.repair.is_some(), finding, repaired: false, error: None }
    }
}

/// What `--json` prints; the schema's number changes when a field changes its meaning.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    well: bool,
    findings: &'a [Treated],
}

/// The verb `doctor`; returns the exit code.
pub(super) fn doctor(session: &Session, repair: bool) -> Result<u8> {
    let json = session.options.json;
    // What is done for a repair has something to say, too.
    let output = if repair && json { Some(give_up_output()?) } else { None };
    let found = look(session)?;
    let treated = match repair {
        true => repair::repair(session, found)?,
        false => found.into_iter().map(Treated::new).collect(),
    };
    let well = treated.iter().all(|treated| treated.repaired);
    if json {
        let document = serde_json::to_string_pretty(&Document { schema: 1, well, findings: &treated })?;
        match output {
            Some(mut output) => writeln!(output, "{document}").context("printing what was found")?,
            None => session.report.line(document),
        }
    } else {
        session.report.out(print::text(&treated, repair));
    }
    Ok(if well { 0 } else { NOT_WELL })
}

/// A target as one types it behind `-k`.
fn typed(tree: &Tree, target: &Target) -> String {
    let Target { kernel, arch } = target;
    if *arch == tree.arch { kernel.to_string() } else { format!("{kernel}/{arch}") }
}

/// Everything that is wrong, in the order in which it is best mended.
fn look(session: &Session) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    leftovers::half_done(session, &mut found)?;
    let gone = kernels::gone(session)?;
    gone.iter().for_each(|gone| found.push(kernels::finding(session, gone)));
    registered::sources(session, &mut found)?;
    registered::orphaned_links(session, &mut found)?;
    leftovers::builds(session, &mut found)?;
    leftovers::staged(session, &mut found)?;
    registered::empty_directories(session, &mut found)?;
    let is_gone = |target: &Target| gone.iter().any(|gone| gone.kernel == target.kernel);
    built::files(session, &is_gone, &mut found)?;
    built::outdated(session, &is_gone, &mut found)?;
    kernels::not_proven(session, &gone, &mut found);
    system::other_hooks(session, &mut found);
    system::other_programs(session, &mut found);
    system::permissions(session, &mut found)?;
    system::keys(session, &mut found)?;
    Ok(found)
}
