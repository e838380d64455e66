// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a module's build depends on, and how it is put into the store of built modules and taken
//! from there. Modules are stored as they are before they are signed and compressed, because keys
//! and settings change.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::cross::Cross;
use super::log::MakeLog;
use super::{Build, Product, keep, prepare};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::module::{ModuleId, Target};
use crate::store::Store;
use crate::store::entry::Entry;
use crate::store::key::{Inputs, Key};
use crate::store::{command, configuration, environment, trees};
use crate::sys::{files, tools};
use crate::tree::Tree;
use crate::tree::kernels::BuildDir;
use crate::tree::made::MadeOf;

/// Stands for the directory of the kernel's headers: its content matters, not its place.
const HEADERS: &str = "<headers>";

const LOG: &str = "log/make.log";
const SYMBOLS: &str = "module/Module.symvers";

/// The key of a build, and what of its inputs has a name; nothing if it is not one to store.
pub(super) fn key(build: &Build<'_>) -> Option<(Key, MadeOf)> {
    let inputs =
        if build.store.wants(&build.loaded.conf) { inputs(build, &tools::inherited()) } else { Ok(None) };
    // A build that cannot be told from others is compiled, that is all.
    let (inputs, of) = inputs.ok()??;
    Some((inputs.key(), of))
}

/// All that the result depends on; nothing if that cannot be told.
fn inputs(build: &Build<'_>, environment: &[(String, String)]) -> Result<Option<(Inputs, MadeOf)>> {
    let Build { tree, id, target, loaded, kernel, .. } = build;
    let root = &tree.root;
    let Some(of) = made_of(tree, build.store, kernel, id, target)? else { return Ok(None) };
    let source = fs::canonicalize(tree.source_link(id))?;
    let mut inputs = Inputs::default();
    inputs.texts("target", [target.kernel.as_str(), target.arch.as_str(), tree.arch.as_str()]);
    inputs.texts("module", [id.name(), id.version()]);
    inputs.text("headers", &of.headers);
    inputs.digest("configuration", configuration(&kernel.config));
    inputs.text("toolchain", &of.toolchain);
    inputs.text("sources", &of.sources);
    inputs.text("overlaid", &of.overlaid);

    let headers_dir = kernel.path.display().to_string();
    let placeless = |text: &str| text.replace(&headers_dir, HEADERS);
    let cross = build.cross.map(Cross::variables).unwrap_or_default();
    let relevant = environment::relevant(environment);
    for (name, variables) in [("variables", build.variables), ("cross", &cross), ("environment", &relevant)] {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.clone(), placeless(value))).collect();
        inputs.variables(name, &variables);
    }
    command::take_programs(&mut inputs, root, &cross)?;
    command::take_programs(&mut inputs, root, &relevant)?;

    let build_dir = tree.build_dir(id);
    let script = placeless(&build.shell_script(&build.command().line));
    let known = [build_dir.clone(), source, fs::canonicalize(&kernel.path)?, tree.kernel_dir(&target.kernel)];
    let known: Vec<&Path> = known.iter().map(PathBuf::as_path).collect();
    inputs.text("command", &script);
    inputs.text("directory", &build_dir.display().to_string());
    inputs.text("clang", &kernel.clang.to_string());
    if !command::take(&mut inputs, root, &script, &known)? {
        return Ok(None);
    }
    let conf = &loaded.conf;
    inputs.texts("patches", conf.patches_for(&target.kernel));
    for script in [&conf.scripts.pre_build, &conf.scripts.post_build] {
        inputs.texts("script", script.as_deref());
    }
    for product in build.products() {
        let path = product.path.display().to_string();
        inputs.texts("product", [path.as_str(), if product.strip { "stripped" } else { "" }]);
    }
    for name in &conf.build_depends {
        let active = tree.active(name, target);
        inputs.texts("depends", [name.as_str()].into_iter().chain(active.as_ref().map(ModuleId::version)));
        if let Some(id) = active
            && !take_dependency(&mut inputs, tree, &id, target)?
        {
            return Ok(None);
        }
    }
    Ok(Some((inputs, of)))
}

/// What a module would be made of if it were built now; nothing if that cannot be told.
pub fn made_of(
    tree: &Tree,
    store: &Store<'_>,
    kernel: &BuildDir,
    id: &ModuleId,
    target: &Target,
) -> Result<Option<MadeOf>> {
    let machine = Machine::of_kernel(&kernel.config, &target.arch);
    let (Some(headers), Some(toolchain)) = (store.headers(kernel, machine), store.toolchain()) else {
        return Ok(None);
    };
    let Some((sources, overlaid)) = sources(tree, id)? else { return Ok(None) };
    let (headers, toolchain) = (headers.to_hex().to_string(), toolchain.to_hex().to_string());
    Ok(Some(MadeOf { headers, toolchain, sources, overlaid, from: None }))
}

/// The digests of a module's sources, and of what the administrator lays over them; nothing if
/// that cannot be told.
pub(super) fn sources(tree: &Tree, id: &ModuleId) -> Result<Option<(String, String)>> {
    let source = fs::canonicalize(tree.source_link(id))?;
    let overrides = tree.path("/etc/dkms").join(id.name());
    let (Some(sources), Some(overlaid)) = (trees::digest(&source)?, trees::digest(&overrides)?) else {
        return Ok(None);
    };
    Ok(Some((sources.to_hex().to_string(), overlaid.to_hex().to_string())))
}

/// What a build that is not stored is made of, as far as that can be told; nothing where nobody wants
/// all of it to be read.
pub(super) fn made_of_now(build: &Build<'_>) -> Option<MadeOf> {
    let Build { tree, store, kernel, id, target, .. } = build;
    if store.is_off() {
        return None;
    }
    made_of(tree, store, kernel, id, target).ok().flatten()
}

/// Notes what has just been kept was made of. Nothing but an explanation is lost without it.
pub(super) fn note(build: &Build<'_>, of: Option<&MadeOf>) {
    let noted = match of {
        Some(of) => build.tree.note_made_of(build.id, build.target, of),
        None => build.tree.forget_made_of(build.id, build.target),
    };
    if let Err(error) = noted {
        build.report.warning(format_args!("noting what {} was made of, ignoring: {error:#}", build.id));
    }
}

/// What other modules' builds can read of a module: its sources, and what is kept of it but for the
/// modules themselves, whose signatures change.
fn take_dependency(inputs: &mut Inputs, tree: &Tree, id: &ModuleId, target: &Target) -> Result<bool> {
    let Some(sources) = trees::digest(&tree.source_link(id))? else { return Ok(false) };
    inputs.digest("sources", sources);
    let kept = tree.target_dir(id, target);
    let mut found = files::files_below(&kept);
    found.sort();
    for path in found {
        let name = path.strip_prefix(&kept).unwrap_or(&path).display().to_string();
        if name == SYMBOLS || !(name.starts_with("module/") || name.starts_with("log/")) {
            inputs.digest(&name, blake3::hash(&fs::read(&path)?));
        }
    }
    Ok(true)
}

/// A build from the store that fits the machine as it is now.
pub(super) struct Found {
    entry: Entry,
    /// In the order of the products.
    images: Vec<Vec<u8>>,
}

/// Looks for a build in the store. What does not pass the checks that every build has to is dropped.
pub(super) fn find(build: &Build<'_>, key: &Key) -> Option<Found> {
    let entry = build.store.take(key, build.report)?;
    match found(build, entry) {
        Ok(found) => Some(found),
        Err(error) => {
            let (id, why) = (build.id, told(&error));
            build.report.warning(format_args!("what is stored of {id} is no good ({why}); building it anew"));
            build.store.forget(key);
            None
        }
    }
}

/// Checks what a store has of a build as every build is checked.
pub(super) fn found(build: &Build<'_>, mut entry: Entry) -> Result<Found> {
    let build_dir = build.tree.build_dir(build.id);
    let image = |product: &Product| {
        let place = product.path.strip_prefix(&build_dir).ok()?;
        let at = entry.built.iter().position(|(path, _)| path == place)?;
        Some(entry.built.swap_remove(at).1)
    };
    let images: Option<Vec<_>> = build.products().iter().map(image).collect();
    let images = images.context("a module is missing")?;
    ensure!(entry.kept(LOG).is_some(), "the log is missing");
    keep::check(build, &images, &build_dir.join("make.log"))?;
    Ok(Found { entry, images })
}

/// Why something from a store is no good, in one line.
pub(super) fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(Failure::NotLoadable { why, .. }) => format!("the kernel would not load it: {why}"),
        _ => format!("{error:#}"),
    }
}

/// Keeps what was found, as if it had just been built. What comes from a shared store says so.
pub(super) fn bring(build: &Build<'_>, found: Found, from: Option<&str>) -> Result<()> {
    let Found { entry, images } = found;
    let build_dir = build.tree.build_dir(build.id);
    files::remove(&build_dir)?;
    fs::create_dir_all(&build_dir)?;
    let store = from.unwrap_or("the store of built modules");
    let log = MakeLog::resume(&build_dir.join("make.log"), entry.kept(LOG).unwrap_or_default(), store)?;
    if from.is_some() {
        let step = format!("Taking module(s) from {store}");
        done(build, &step, &step);
    } else {
        for patch in build.loaded.conf.patches_for(&build.target.kernel) {
            done(build, &format!("Applying patch {patch}"), &prepare::patch_command(patch));
        }
        done(build, "Building module(s)", &build.command().shown);
        if build.report.is_verbose() {
            build.report.line("Nothing was compiled: the store of built modules has it.");
        }
    }
    // Signing programs sign files in their places.
    for (product, image) in build.products().iter().zip(&images) {
        fs::create_dir_all(files::parent(&product.path)?)?;
        fs::write(&product.path, image)?;
    }
    if let Some(symbols) = entry.kept(SYMBOLS) {
        fs::write(build_dir.join("Module.symvers"), symbols)?;
    }
    let mut extra = entry.kept;
    extra.retain(|(path, ..)| is_extra(build, path));
    keep::keep(build, &build_dir, &images, &extra, &log)?.keep()?;
    files::remove(&build_dir)
}

fn done(build: &Build<'_>, title: &str, command: &str) {
    build.begin(title, command);
    build.report.out(" done.\n");
}

/// Stores what has just been built and kept; `before` is the build's key from before it began. That
/// it cannot be stored is no reason to fail.
pub(super) fn put(build: &Build<'_>, before: Option<&Key>, images: Vec<Vec<u8>>) {
    let put = || {
        if build.store.is_off() {
            return build.store.clear();
        }
        // What was changed while it was being read may have been built in part.
        let Some(key) = before.filter(|before| key(build).is_some_and(|(key, _)| key == **before)) else {
            return Ok(());
        };
        let Some(entry) = entry(build, images)? else { return Ok(()) };
        build.store.put(key, &entry, &format!("{} for {}", build.id, build.target))
    };
    if let Err(error) = put() {
        build.report.warning(format_args!("storing what was built of {}, ignoring: {error:#}", build.id));
    }
}

/// What the store has of a build that is kept, with its key and what it was made of; nothing if it
/// would be built otherwise today, or is not stored.
pub(super) fn kept(build: &Build<'_>) -> Option<(Key, MadeOf, Entry)> {
    let (key, of) = key(build)?;
    let entry = build.store.take(&key, build.report)?;
    Some((key, of, entry))
}

/// What is stored of a build that is kept; nothing if a script has put more there than files.
fn entry(build: &Build<'_>, images: Vec<Vec<u8>>) -> Result<Option<Entry>> {
    let (build_dir, target_dir) =
        (build.tree.build_dir(build.id), build.tree.target_dir(build.id, build.target));
    let mut entry = Entry::default();
    for (product, image) in build.products().iter().zip(images) {
        entry.built.push((product.path.strip_prefix(&build_dir)?.to_owned(), image));
    }
    if !files::links_below(&target_dir).is_empty() {
        return Ok(None);
    }
    for path in files::files_below(&target_dir) {
        let name = path.strip_prefix(&target_dir)?.to_owned();
        if name == Path::new(LOG) || name == Path::new(SYMBOLS) || is_extra(build, &name) {
            let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
            entry.kept.push((name, mode, fs::read(&path)?));
        }
    }
    Ok(Some(entry))
}

/// Whether a file in the place of what is kept is neither a module nor ours: post_build made it.
fn is_extra(build: &Build<'_>, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_of = |product: &Product| name.starts_with(&format!("{}.ko", product.name));
    let is_module = path.starts_with("module") && build.products().iter().any(is_of);
    let is_ours = path == Path::new(LOG) || path == Path::new(SYMBOLS) || name.starts_with(".dep_");
    !is_ours && !is_module
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
