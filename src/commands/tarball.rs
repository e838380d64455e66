// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mktarball` and `ldtarball`: modules as archives, source, built files or both.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;

use super::add::{CheckedConf, link_line, register_if_missing, run_post_add};
use super::select::registered;
use super::session::Session;
use crate::build::keys::private_keys;
use crate::cli::{ArchiveContent, ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::module::{ModuleId, Target};
use crate::package::compression::Compression;
use crate::package::layout::{BINARIES_ONLY, Layout, MAIN_TREE, SOURCE_TREE};
use crate::package::tarball::{LeftOut, Tarball};
use crate::package::unpack::{LIMITS, unpack};
use crate::sys::files;
use crate::sys::lock::Lock;
use crate::tree::transaction::Transaction;

/// What `mktarball` is asked for.
pub(super) struct Wish<'a> {
    pub module: &'a ModuleArg,
    pub targets: &'a TargetArgs,
    pub all: bool,
    pub content: ArchiveContent,
    pub archive: Option<&'a Path>,
}

/// The verb `mktarball`.
pub(super) fn make(session: &Session, wish: &Wish<'_>) -> Result<()> {
    session.begin_changes()?;
    let (tree, report) = (&session.tree, &session.report);
    let id = registered(session, wish.module, "mktarball")?;
    if tree.is_broken(&id) {
        return Err(Failure::Broken { id }.into());
    }
    let _lock = tree.lock_module(&id, report)?;
    let targets = packed_targets(session, &id, wish.targets, wish.all, wish.content, "mktarball")?;
    let tarball = archive_of(session, &id, &targets, wish.content, "mktarball")?;

    let built_for = targets.iter().map(|target| format!("kernel{}-{}", target.kernel, target.arch));
    let built_for = match wish.content {
        ArchiveContent::SourceOnly => "source-only".to_owned(),
        _ => built_for.collect::<Vec<_>>().join("-"),
    };
    let default = PathBuf::from(format!("{}-{}-{built_for}.dkms.tar.gz", id.name(), id.version()));
    // A path that is not absolute is one below dkms's own directory, shown as dkms shows it.
    let archive = wish.archive.unwrap_or(&default);
    let own = tree.version_dir(&id).join("tarball");
    let to = own.join(archive);
    let shown = match archive.is_absolute() {
        true => to.display().to_string(),
        false => format!("{}//{}", own.display(), archive.display()),
    };
    report.line(format_args!("\nTarball location: {shown}"));
    let directory = if to.is_dir() { &to } else { files::parent(&to)? };
    let writable = !to.is_dir()
        && fs::create_dir_all(directory).is_ok()
        && nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).is_ok();
    if !writable {
        return Err(Failure::ArchiveNotWritable { directory: directory.display().to_string() }.into());
    }
    let failed = |why| Failure::TarballFailed { why };
    let compression = Compression::of_name(&to).ok_or_else(|| {
        failed("Its compression is unknown here, known are .gz, .bz2, .xz and .zst.".to_owned())
    })?;
    let left_out = tarball.write(&to, compression).map_err(|error| failed(format!("{error:#}")))?;
    warn_of_left_out(session, &left_out, "archive");
    Ok(())
}

/// The targets that `action` is to pack what was built for.
pub(super) fn packed_targets(
    session: &Session,
    id: &ModuleId,
    targets: &TargetArgs,
    all: bool,
    content: ArchiveContent,
    action: &'static str,
) -> Result<Vec<Target>> {
    let tree = &session.tree;
    let targets = match content {
        ArchiveContent::SourceOnly => return Ok(Vec::new()),
        _ if all => tree.targets(id),
        _ => session.targets(targets)?,
    };
    if targets.is_empty() {
        return Err(Failure::NotBuilt { target: None, action }.into());
    }
    Ok(targets)
}

/// Fails unless there is something that was built for a target.
pub(super) fn check_built(
    session: &Session,
    id: &ModuleId,
    target: &Target,
    action: &'static str,
) -> Result<()> {
    if session.tree.built_dir(id, target).is_dir() {
        return Ok(());
    }
    Err(Failure::NotBuilt { target: Some(target.clone()), action }.into())
}

/// What goes into a module's archive, and says so. The module's lock must be held.
pub(super) fn archive_of(
    session: &Session,
    id: &ModuleId,
    targets: &[Target],
    content: ArchiveContent,
    action: &'static str,
) -> Result<Tarball> {
    let (tree, report) = (&session.tree, &session.report);
    let keys = keys(session, targets);
    let mut tarball = Tarball::new(keys.iter().map(PathBuf::as_path));
    tarball.empty_directory(MAIN_TREE);
    for target in targets {
        check_built(session, id, target, action)?;
        report.line(format_args!("Marking modules for {target} for archiving..."));
        let kernel = Path::new(MAIN_TREE).join(&target.kernel);
        tarball.empty_directory(kernel.clone());
        tarball.tree(kernel.join(&target.arch), &tree.target_dir(id, target));
    }
    let source = tree.source_link(id);
    if content == ArchiveContent::BinariesOnly {
        report.line("\nCreating tarball structure to specifically accommodate binaries.");
        let within = |name: &str| Path::new(BINARIES_ONLY).join(name);
        tarball.empty_directory(BINARIES_ONLY);
        tarball.file(within("dkms.conf"), &source.join("dkms.conf"));
        // dkms 2 and early 3 look here and not into the conf.
        tarball.text(within("PACKAGE_NAME"), format!("{}\n", id.name()));
        tarball.text(within("PACKAGE_VERSION"), format!("{}\n", id.version()));
    } else {
        report.line(format_args!("\nMarking {} for archiving...", source.display()));
        tarball.tree(SOURCE_TREE, &source);
    }
    Ok(tarball)
}

/// What must not be given away together with what was built for these targets.
pub(super) fn keys(session: &Session, targets: &[Target]) -> Vec<PathBuf> {
    let kernels: Vec<_> = targets.iter().map(|target| &target.kernel).collect();
    private_keys(&session.tree, &session.framework, &kernels)
}

/// Says what is not in an archive or a package, `whole`.
pub(super) fn warn_of_left_out(session: &Session, left_out: &[LeftOut], whole: &str) {
    for LeftOut { path, why } in left_out {
        session.report.warning(format_args!("{} is left out of the {whole}: {why}.", path.display()));
    }
}

/// Registers what an archive holds, with the modules built.
pub(super) fn load(session: &Session, archive: &Path) -> Result<ModuleId> {
    load_archive(session, archive, None, session.options.force).map(|(id, _)| id)
}

/// Returns the module, and what the archive brought built. An archive of another module than
/// `expected` is refused.
fn load_archive(
    session: &Session,
    archive: &Path,
    expected: Option<&ModuleId>,
    force: bool,
) -> Result<(ModuleId, Vec<Target>)> {
    if !archive.is_file() {
        let path = archive.display().to_string();
        let is_there = archive.exists();
        return Err(if is_there { Failure::NoFile { path } } else { Failure::ArchiveMissing { path } }.into());
    }
    let (checked, brought, was_added) = {
        let unpacked = Unpacked::new(session, archive)?;
        let id = unpacked.identify()?;
        if let Some(expected) = expected.filter(|expected| **expected != id) {
            bail!("{} holds {id}, not {expected}", archive.display());
        }
        let _lock = session.tree.lock_module(&id, &session.report)?;
        let registered = session.tree.is_registered(&id) && !session.tree.is_broken(&id);
        let (checked, brought) = unpacked.place(&id, registered, force)?;
        // With --force one that is registered gets here, too: its source may be another one now.
        (checked, brought, !registered || !unpacked.layout.binaries_only)
    };
    if was_added {
        run_post_add(session, &checked)?;
    }
    Ok((checked.id, brought))
}

/// Registers a module that a package brings, from the package's archive if that is there, in the
/// place of what was registered; for hooks. Returns what it is built for by that.
pub fn load_or_register(session: &Session, id: &ModuleId, archive: Option<&Path>) -> Result<Vec<Target>> {
    match archive {
        Some(archive) => load_archive(session, archive, Some(id), true).map(|(_, brought)| brought),
        None => register_if_missing(session, id).map(|()| Vec::new()),
    }
}

/// An archive in a private directory of the dkms tree, which goes when this is dropped.
struct Unpacked<'a> {
    session: &'a Session,
    archive: &'a Path,
    directory: PathBuf,
    layout: Layout,
    lock: Lock,
}

impl Drop for Unpacked<'_> {
    fn drop(&mut self) {
        if let Err(error) = files::remove(&self.directory) {
            self.session.report.warning(format_args!("removing what was unpacked, ignoring: {error:#}"));
        }
    }
}

impl<'a> Unpacked<'a> {
    fn new(session: &'a Session, archive: &'a Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let lock = session.tree.lock_unpacking(&session.report)?;
        let directory = session.tree.hooks_dir().join("unpacked");
        // What one left that was killed.
        files::remove(&directory)?;
        fs::create_dir_all(&directory)?;
        let layout =
            Layout { source: PathBuf::new(), binaries_only: false, has_main_tree: false, built: Vec::new() };
        let mut unpacked = Self { session, archive, directory, layout, lock };
        fs::set_permissions(&unpacked.directory, PermissionsExt::from_mode(0o700))?;
        let root = unpacked.directory.join("archive");
        fs::create_dir(&root)?;
        fs::set_permissions(&root, PermissionsExt::from_mode(0o755))?;
        unpack(archive, &root, LIMITS)?;
        unpacked.layout = Layout::read(&root, archive)?;
        Ok(unpacked)
    }

    /// The module, from the conf in the archive.
    fn identify(&self) -> Result<ModuleId> {
        let session = self.session;
        let conf = self.layout.source.join("dkms.conf");
        let loaded = session.tree.load_from(&conf, None, None, session.scope());
        loaded.map(|loaded| loaded.conf.id).map_err(|error| self.named(error))
    }

    /// Names a conf by the archive: the directory will be gone.
    fn named(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast::<Failure>() {
            Ok(Failure::BadConf { problems, .. }) => {
                Failure::BadConf { path: format!("dkms.conf in {}", self.archive.display()), problems }.into()
            }
            Ok(other) => other.into(),
            Err(error) => error,
        }
    }

    /// Moves everything to its place, or nothing.
    fn place(&self, id: &ModuleId, registered: bool, force: bool) -> Result<(CheckedConf, Vec<Target>)> {
        let (session, layout) = (self.session, &self.layout);
        let (tree, report) = (&session.tree, &session.report);
        if registered && !force {
            let id = id.clone();
            return Err(match layout.has_main_tree {
                true => Failure::AlreadyLoaded { id },
                false => Failure::AlreadyAdded { id },
            }
            .into());
        }
        let (link, source) = (tree.source_link(id), tree.source_dir(id));
        // Of an archive without source only the conf is kept where there is no source either.
        let conf_only = layout.binaries_only && !registered && !source.is_dir();
        if conf_only && tree.is_registered(id) {
            return Err(Failure::SourceMissing { directory: source.display().to_string() }.into());
        }
        let conf = match (layout.binaries_only, registered) {
            (true, true) => link.join("dkms.conf"),
            (true, false) if !conf_only => source.join("dkms.conf"),
            _ => layout.source.join("dkms.conf"),
        };
        let checked = CheckedConf::read(session, id, &conf).map_err(|error| self.named(error))?;

        if layout.has_main_tree {
            report.line(format_args!("\nLoading tarball for {id}"));
        }
        if force && source.exists() {
            report.err("");
            report.line(format_args!("Forcing install of {id}"));
        }
        if conf_only {
            report.line(format_args!("Creating {}", link.display()));
            report.line(format_args!("Copying dkms.conf to {} ...", link.display()));
        }
        let mut transaction = Transaction::new(tree, format!("loading {id} from an archive"), None);
        let staged = tree.stage_source(&self.lock)?;
        if !layout.binaries_only {
            let copy = staged.path().join("copy");
            transaction.put_directory(&source, &copy);
        }
        // A version that is not registered yet appears in one step, links and all.
        let fresh = !tree.is_registered(id);
        let version = self.directory.join("version");
        fs::create_dir(&version)?;
        let mut brought = Vec::new();
        for (target, part) in &layout.built {
            let place = tree.target_dir(id, target);
            if !force && files::exists(&place) {
                report.warning(format_args!("{} already exists. Skipping...", place.display()));
                continue;
            }
            report.line(format_args!("Loading {}...", place.display()));
            brought.push(target.clone());
            if fresh {
                let kernel = version.join(&target.kernel);
                fs::create_dir_all(&kernel)?;
                fs::rename(part, kernel.join(&target.arch))?;
            } else {
                transaction.put_directory(&place, part);
            }
        }
        checked.announce(session);
        if !registered && !conf_only {
            link_line(session, &link, &source);
        }
        if !layout.binaries_only {
            // Last, because a bare archive's source is the directory of the whole archive.
            move_tree(&layout.source, &staged.path().join("copy"))?;
        }
        if fresh {
            if conf_only {
                let kept = version.join("source");
                fs::create_dir(&kept)?;
                fs::copy(layout.source.join("dkms.conf"), kept.join("dkms.conf"))?;
            } else {
                fs_err::os::unix::fs::symlink(&source, version.join("source"))?;
            }
            transaction.put_directory(&tree.version_dir(id), &version);
        } else if !layout.binaries_only || !registered {
            transaction.put_link(&link, &source);
        }
        let _lock = tree.lock_registry(report)?;
        let applied = transaction.apply().and_then(|applied| applied.keep());
        if let Err(error) = applied {
            // Directories that were made for what did not come.
            files::remove_empty_up_to(&tree.module_dir(id.name()), &tree.dkms);
            return Err(error);
        }
        Ok((checked, brought))
    }
}

/// Renames, or copies where that is another file system.
fn move_tree(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => files::copy_tree(from, to),
        other => Ok(other?),
    }
}
