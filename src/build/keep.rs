// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a build made, checked by the kernel's own rules and kept as `<dkms tree>/M/V/K/A`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::log::MakeLog;
use super::sandbox::Sandbox;
use super::symbols::{self, Built, Sources};
use super::{Build, Product};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::module_file::{Compression, Wanted, check_loadable, kernel_vermagic};
use crate::sys::files;
use crate::sys::tools::{Run, Tool};
use crate::tree::transaction::{Applied, Transaction};

/// The beginning of the names of directories, beside what is kept for a kernel, in which that is staged.
pub const STAGING: &str = ".dkms-kept-";

/// Strips and checks the results; gives their images in the order of the products.
pub(super) fn results(
    build: &Build<'_>,
    build_dir: &Path,
    sandbox: &Sandbox,
    log: &MakeLog,
) -> Result<Vec<Vec<u8>>> {
    let products = build.products();
    for product in &products {
        if !product.path.is_file() {
            let file = product.path.strip_prefix(build_dir).unwrap_or(&product.path).display().to_string();
            let (target, log) = (build.target.clone(), log.path().display().to_string());
            return Err(Failure::ResultMissing { file, target, log }.into());
        }
    }
    let symbols = build_dir.join("Module.symvers");
    let read = products.iter().map(|product| &product.path).chain([&symbols]);
    if let Some(link) = read.into_iter().find(|path| !sandbox.may_be_read(path)) {
        bail!("{} is a link out of the build directory", link.display());
    }
    strip(build, &products, log)?;
    let read = products.iter().map(|product| Ok(fs::read(&product.path)?));
    let images = read.collect::<Result<Vec<_>>>()?;
    check(build, &images, &log.path())?;
    Ok(images)
}

/// Signs and compresses what has been checked and puts it in the place of an earlier build's, with
/// further files (path, mode, content) that a script had made there.
pub(super) fn keep(
    build: &Build<'_>,
    build_dir: &Path,
    images: &[Vec<u8>],
    extra: &[(PathBuf, u32, Vec<u8>)],
    log: &MakeLog,
) -> Result<Applied> {
    keep_images(build, build_dir, images, extra, log).inspect_err(|_| tidy(build))
}

/// Removes the directories that nothing is kept in after all.
pub(super) fn tidy(build: &Build<'_>) {
    if let Some(parent) = build.tree.target_dir(build.id, build.target).parent() {
        files::remove_empty_up_to(parent, &build.tree.version_dir(build.id));
    }
}

/// Keeps the log once more, with what was added since.
pub(super) fn keep_log(build: &Build<'_>, log: &MakeLog) -> Result<()> {
    fs::write(build.tree.target_dir(build.id, build.target).join("log/make.log"), log.text()?)?;
    Ok(())
}

fn keep_images(
    build: &Build<'_>,
    build_dir: &Path,
    images: &[Vec<u8>],
    extra: &[(PathBuf, u32, Vec<u8>)],
    log: &MakeLog,
) -> Result<Applied> {
    let target_dir = build.tree.target_dir(build.id, build.target);
    let parent = files::parent(&target_dir)?;
    fs::create_dir_all(parent)?;
    drop_stale(parent)?;
    let staged = tempfile::Builder::new()
        .prefix(STAGING)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(parent)
        .with_context(|| format!("staging the results of {}", build.id))?;
    let (modules, logs) = (staged.path().join("module"), staged.path().join("log"));
    fs::create_dir(&modules)?;
    fs::create_dir(&logs)?;
    let compression = Compression::of_kernel(&build.kernel.config);
    for (product, image) in build.products().iter().zip(images) {
        let mut image = image.clone();
        if let Some(signer) = build.signer {
            image = signer.sign(&product.path, image, build.variables, build.report);
        }
        // The signature has to be the last thing in the image: it is compressed along.
        let name = format!("{}.ko{}", product.name, compression.suffix());
        fs::write(modules.join(name), compression.compress(image, build.compressors)?)?;
    }
    let symbols = build_dir.join("Module.symvers");
    if symbols.is_file() {
        fs::copy(symbols, modules.join("Module.symvers"))?;
    }
    fs::write(logs.join("make.log"), log.text()?)?;
    for (name, version) in build.built_against {
        fs::write(staged.path().join(format!(".dep_{name}")), format!("{version}\n"))?;
    }
    for (path, mode, content) in extra {
        files::write_atomically(&staged.path().join(path), content, *mode)?;
    }
    let mut transaction =
        Transaction::new(build.tree, format!("keeping {} built for {}", build.id, build.target), None);
    transaction.put_directory(&target_dir, &staged.keep());
    transaction.apply()
}

/// Nothing is signed or kept unless the kernel would take all of it.
pub(super) fn check(build: &Build<'_>, images: &[Vec<u8>], log: &Path) -> Result<()> {
    let products = build.products();
    let own = build.symbols.vermagic().map(str::to_owned);
    let vermagic = own.or_else(|| kernel_vermagic(&build.target.kernel, &build.kernel.config));
    let refused = |product: &Product, why: String| {
        let (file, log) = (product.path.display().to_string(), log.display().to_string());
        anyhow::Error::from(Failure::NotLoadable { file, why, log })
    };
    let mut built = Vec::with_capacity(products.len());
    for (product, image) in products.iter().zip(images) {
        let wanted = Wanted {
            name: Some(&product.built),
            kernel: &build.target.kernel,
            machine: Machine::of_kernel(&build.kernel.config, &build.target.arch),
            vermagic: vermagic.as_deref(),
        };
        let read = check_loadable(image, wanted).and_then(|info| Built::read(&product.built, info, image));
        built.push(read.map_err(|error| refused(product, format!("{error:#}")))?);
    }
    let sources = Sources {
        tree: build.tree,
        target: build.target,
        config: &build.kernel.config,
        kernel: build.symbols,
        siblings: &built,
    };
    for (product, built) in products.iter().zip(&built) {
        let problems = symbols::problems(built, sources);
        if !problems.is_empty() {
            return Err(refused(product, problems.join("; ")));
        }
    }
    Ok(())
}

/// What runs that were killed left; the module's lock says that nobody is at work here.
fn drop_stale(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(STAGING) {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Takes the debug information out, which no loaded module needs.
fn strip(build: &Build<'_>, products: &[Product], log: &MakeLog) -> Result<()> {
    let files: Vec<&Path> =
        products.iter().filter(|product| product.strip).map(|product| &*product.path).collect();
    if files.is_empty() {
        return Ok(());
    }
    // A module with debug information works just as well.
    let program = match build.cross {
        None => Run::new(Tool::Strip),
        Some(cross) => {
            cross.strip().map(|path| Run::program(&path)).context("there is no strip for that machine")
        }
    };
    program
        .and_then(|run| run.arg("-g").args(files).succeed())
        .map(drop)
        .or_else(|error| log.note(&format!("stripping the modules, ignoring: {error:#}")))
}
