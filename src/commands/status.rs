// SPDX-License-Identifier: MIT OR Apache-2.0
//! `status`: how far each module has come for each kernel. Takes no lock and changes nothing.

mod details;

use anyhow::Result;
use serde::Serialize;

use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::install::{Comparison, Placement};
use crate::kernel::compare_versions;
use crate::module::{ModuleId, State, Target};
use crate::tree::kernels::find_module;
use crate::tree::registered::Loaded;
use crate::tree::retained::Retained;
use details::Details;

/// Fewer modules than this are not worth a thread.
const SMALLEST_SHARE: usize = 4;

/// One line of status. In the machine-readable form there are more of them: targets that something
/// was tried for, and nothing came of it, which leaves the module as added.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    id: ModuleId,
    #[serde(flatten)]
    target: Option<Target>,
    state: String,
    notes: Vec<&'static str>,
    #[serde(flatten)]
    details: Option<Details>,
}

/// What `--json` prints; the schema's number changes when a field changes its meaning.
#[derive(Debug, Serialize)]
struct Document {
    schema: u32,
    modules: Vec<Line>,
}

/// The verb `status`.
pub(super) fn status(session: &Session, module: Option<&ModuleArg>, targets: &TargetArgs) -> Result<()> {
    let (name, version) = match module {
        None | Some(ModuleArg::Archive(_)) => (None, None),
        Some(ModuleArg::Named { name, version }) => (Some(name.as_str()), version.as_deref()),
        Some(ModuleArg::Word(word)) => (Some(word.as_str()), None),
    };
    let mut ids = session.tree.ids()?;
    let is_meant = |id: &ModuleId| {
        name.is_none_or(|name| name == id.name()) && version.is_none_or(|version| version == id.version())
    };
    ids.retain(is_meant);
    let mut lines = of_modules(session, &ids, targets);
    add_retained(session, targets, &mut lines, &is_meant);
    if session.options.json {
        let document = serde_json::to_string_pretty(&Document { schema: 1, modules: lines })?;
        session.report.line(document);
        return Ok(());
    }
    let mut text = String::new();
    for Line { id, target, state, notes, .. } in &lines {
        text.push_str(&id.to_string());
        if let Some(Target { kernel, arch }) = target {
            text.push_str(&format!(", {kernel}, {arch}"));
        }
        text.push_str(&format!(": {state}"));
        notes.iter().for_each(|note| text.push_str(&format!(" ({note})")));
        text.push('\n');
    }
    session.report.out(text);
    for Line { id, .. } in lines.iter().filter(|line| line.state == "broken") {
        session.report.error(format_args!(
            "{id}: Missing the module source directory or the symbolic link pointing to it.\n\
             Manual intervention is required!"
        ));
    }
    Ok(())
}

/// Adds what upgrades of packages have left installed, in its place among the modules.
fn add_retained(
    session: &Session,
    wanted: &TargetArgs,
    lines: &mut Vec<Line>,
    is_meant: &dyn Fn(&ModuleId) -> bool,
) {
    for Retained { id, target, .. } in session.tree.all_retained() {
        if !is_meant(&id) || !wanted.includes(&target) {
            continue;
        }
        let is_before = |line: &Line| {
            line.id
                .name()
                .cmp(id.name())
                .then_with(|| compare_versions(line.id.version(), id.version()))
                .is_lt()
        };
        let at = lines.iter().position(|line| !is_before(line)).unwrap_or(lines.len());
        let state = State::Installed.to_string();
        let notes = vec!["Retained until its successor is installed"];
        lines.insert(at, Line { id, target: Some(target), state, notes, details: None });
    }
}

/// The lines in the order of the modules, which are shared out among the processors: installed
/// files are compared with the built ones, and some confs are programs.
fn of_modules(session: &Session, ids: &[ModuleId], wanted: &TargetArgs) -> Vec<Line> {
    let in_turn = |ids: &[ModuleId]| ids.iter().flat_map(|id| of_module(session, id, wanted)).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = ids.len().div_ceil(workers).max(SMALLEST_SHARE);
    if ids.len() <= share {
        return in_turn(ids);
    }
    std::thread::scope(|scope| {
        let shares: Vec<_> =
            ids.chunks(share).map(|ids| scope.spawn(move || -> Vec<Line> { in_turn(ids) })).collect();
        shares
            .into_iter()
            .flat_map(|share| share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn of_module(session: &Session, id: &ModuleId, wanted: &TargetArgs) -> Vec<Line> {
    let (tree, json) = (&session.tree, session.options.json);
    let of_itself = |state: &str| {
        let details = json.then(|| Details::of_module(session, id, wanted));
        Line { id: id.clone(), target: None, state: state.to_owned(), notes: Vec::new(), details }
    };
    if tree.is_broken(id) {
        return vec![of_itself("broken")];
    }
    let matches = |target: &Target| wanted.includes(target);
    let of_target = |target: Target, state: State| {
        let has_files = matches!(state, State::Built | State::Installed);
        let loaded = (json || has_files).then(|| session.load(id, Some(&target)));
        let conf = loaded.as_ref().and_then(|loaded| loaded.as_ref().ok()).filter(|_| has_files);
        let notes = conf.map(|conf| notes(session, id, &target, &state, conf)).unwrap_or_default();
        let details =
            loaded.filter(|_| json).map(|loaded| Details::of_target(session, id, &target, &state, &loaded));
        Line { id: id.clone(), target: Some(target), state: state.to_string(), notes, details }
    };
    let mut lines: Vec<Line> = Vec::new();
    for target in tree.targets(id).into_iter().filter(matches) {
        let state = tree.state(id, &target);
        lines.push(of_target(target, state));
    }
    for (target, from) in tree.weak_links(id).into_iter().filter(|(target, _)| matches(target)) {
        lines.push(of_target(target, State::InstalledWeak { from }));
    }
    if lines.is_empty() {
        lines.push(of_itself("added"));
    }
    if json {
        let is_new = |target: &Target| !lines.iter().any(|line| line.target.as_ref() == Some(target));
        let attempted = tree
            .attempted(id)
            .into_iter()
            .filter(|target| matches(target) && is_new(target) && tree.attempt(id, target).is_some());
        let attempted: Vec<Line> = attempted.map(|target| of_target(target, State::Added)).collect();
        lines.extend(attempted);
    }
    lines
}

/// What is remarkable about a built or installed module.
fn notes(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    state: &State,
    loaded: &Loaded,
) -> Vec<&'static str> {
    let mut notes = Vec::new();
    let (tree, report) = (&session.tree, &session.report);
    let place = Placement { tree, report, distribution: session.distribution, id, target };
    let installed = *state == State::Installed;
    let originals = tree.originals_dir(id.name(), target);
    if installed
        && loaded.conf.records.iter().any(|record| find_module(&originals, &record.dest_name).is_some())
    {
        notes.push("Original modules exist");
    }
    let Comparison { missing, differs } = place.compare(&loaded.conf, installed);
    if missing {
        notes.push("Built modules are missing in the kernel modules folder");
    } else if installed && differs {
        notes.push("Differences between built and installed modules");
    }
    notes
}
