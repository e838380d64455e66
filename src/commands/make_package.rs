// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mkrpm`, `mkdeb`, `mkbmdeb` and `mkdsc`: packages of a module. Gathers what goes into one, has
//! the distribution's own tools make it, and puts it into the dkms tree.
//!
//! No lock is held while these tools run: a module's own spec calls `dkms mktarball`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::select::registered;
use super::session::Session;
use super::tarball::{archive_of, check_built, keys, packed_targets, warn_of_left_out};
use crate::cli::{ArchiveContent, ModuleArg, PackageKind, TargetArgs};
use crate::failure::Failure;
use crate::install::Placement;
use crate::module::{ModuleId, Target};
use crate::package::compression::Compression;
use crate::package::{debian, rpm, tarball};
use crate::sys::files;
use crate::sys::tools::{Run, Tool};

/// Where templates are; a system that has nothing in /etc has them in the second place.
const TEMPLATES: [&str; 2] = ["/etc/dkms", "/usr/share/dkms"];

/// What an action is asked to pack.
pub(super) struct Wish<'a> {
    pub targets: &'a TargetArgs,
    pub all: bool,
    pub content: ArchiveContent,
}

/// The four actions.
pub(super) fn make(session: &Session, module: &ModuleArg, kind: PackageKind, wish: &Wish<'_>) -> Result<()> {
    session.begin_changes()?;
    let action = kind.action();
    let id = registered(session, module, action)?;
    if session.tree.is_broken(&id) {
        return Err(Failure::Broken { id }.into());
    }
    let targets = packed_targets(session, &id, wish.targets, wish.all, wish.content, action)?;
    targets.iter().try_for_each(|target| check_built(session, &id, target, action))?;
    let tool = match kind {
        PackageKind::Rpm => Tool::Rpmbuild,
        PackageKind::Deb | PackageKind::BinaryDeb | PackageKind::DebianSource => Tool::DpkgBuildpackage,
    };
    // Before anything is gathered for it.
    Run::new(tool)?;
    let of_targets = targets.iter().flat_map(|target| [target.kernel.as_str(), target.arch.as_str()]);
    for word in [id.name(), id.version()].into_iter().chain(of_targets) {
        // They become parts of scripts.
        if !word.chars().all(|c| c.is_ascii_alphanumeric() || "._+~^:@=-".contains(c)) {
            bail!("'{word}' cannot be packed: no package has such characters in its scripts");
        }
    }
    let place = session.tree.path(&session.framework.tmp_location);
    let work = tempfile::Builder::new()
        .prefix(&format!("dkms-{action}."))
        .tempdir_in(&place)
        .with_context(|| format!("making a directory to pack in below {}", place.display()))?;
    let packing =
        Packing { session, id: &id, targets: &targets, content: wish.content, kind, tool, work: work.path() };
    let made = match kind {
        PackageKind::Rpm => packing.rpm()?,
        PackageKind::Deb | PackageKind::BinaryDeb | PackageKind::DebianSource => packing.debian()?,
    };
    if made.is_empty() {
        let why = "Its tool succeeded, but there is no package.".to_owned();
        return Err(Failure::PackageFailed { action, why }.into());
    }
    let to = session.tree.version_dir(&id).join(match kind {
        PackageKind::Rpm => "rpm",
        PackageKind::Deb => "deb",
        PackageKind::BinaryDeb => "bmdeb",
        PackageKind::DebianSource => "dsc",
    });
    for path in made {
        session.report.line(format_args!("Wrote: {}", keep(&path, &to)?.display()));
    }
    Ok(())
}

/// Puts a file into a directory, whole, in the place of one of that name.
fn keep(file: &Path, directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let name = file.file_name().unwrap_or_default();
    let (staged, place) = (directory.join(Path::new(".dkms-package")), directory.join(name));
    fs::copy(file, &staged)?;
    fs::File::open(&staged)?.sync_all()?;
    fs::rename(&staged, &place)?;
    files::sync_directory(directory)?;
    Ok(place)
}

/// One package that is being made.
struct Packing<'a> {
    session: &'a Session,
    id: &'a ModuleId,
    targets: &'a [Target],
    content: ArchiveContent,
    kind: PackageKind,
    tool: Tool,
    /// A directory of its own.
    work: &'a Path,
}

impl Packing<'_> {
    fn rpm(&self) -> Result<Vec<PathBuf>> {
        let (session, id) = (self.session, self.id);
        let names = ["dkms-mkrpm.spec", "dkms-rpm.spec"].map(|name| format!("{}-{name}", id.name()));
        let spec = fs::read_to_string(self.template(&names, &["template-dkms-mkrpm.spec"])?)?;
        let sources = self.work.join(rpm::SOURCES);
        fs::create_dir(&sources)?;
        {
            let _lock = session.tree.lock_module(id, &session.report)?;
            self.add_source(&sources)?;
            self.add_archive(&sources, self.content)?;
        }
        let mut options = Vec::new();
        if self.content == ArchiveContent::BinariesOnly {
            options.push("--binaries-only".to_owned());
        }
        if let Some(tree) = &session.options.dkms_tree {
            options.push(format!("--dkmstree {}", tree.display()));
        }
        let places = (session.tree.dkms.as_path(), session.framework.source_tree.as_str());
        let macros = rpm::macros(id, self.targets, &options.join(" "), places);
        self.with_tool(|| rpm::build(self.work, id, &spec, &macros))
    }

    fn debian(&self) -> Result<Vec<PathBuf>> {
        let (session, id) = (self.session, self.id);
        // What a source package is made by is the same unless somebody has it otherwise.
        let actions: &[&str] = match self.kind {
            PackageKind::DebianSource => &["mkdsc", "mkdeb"],
            PackageKind::BinaryDeb => &["mkbmdeb"],
            _ => &["mkdeb"],
        };
        let own: Vec<_> = actions.iter().map(|action| format!("{}-dkms-{action}", id.name())).collect();
        let shared: Vec<_> = actions.iter().map(|action| format!("template-dkms-{action}")).collect();
        let template = self.template(&own, &shared)?;
        let package = debian::package_name(id.name());
        let source = self.work.join(format!("{package}-{}", debian::version(id.version())));
        {
            let _lock = session.tree.lock_module(id, &session.report)?;
            let keys = keys(session, self.targets);
            tarball::copy(&template, &source, keys.iter().map(PathBuf::as_path))?;
            self.add_source(&source)?;
            if self.content != ArchiveContent::SourceOnly {
                // The source lies beside it.
                self.add_archive(&source, ArchiveContent::BinariesOnly)?;
            }
        }
        let target = self.targets.first();
        let architecture = debian::architecture(target.map_or(&session.tree.arch, |target| &target.arch));
        let mut words: debian::Words = vec![
            ("DEBIAN_PACKAGE", package.clone()),
            ("MODULE_NAME", id.name().to_owned()),
            ("MODULE_VERSION", id.version().to_owned()),
            ("DATE_STAMP", debian::date_stamp()),
            ("@DEBIAN_VERSION@", debian::version(id.version())),
        ];
        words.push(("DEBIAN_BUILD_ARCH", architecture.unwrap_or("any").to_owned()));
        words.push(("KERNEL_VERSION", target.map_or(String::new(), |target| target.kernel.to_string())));
        if let (PackageKind::BinaryDeb, Some(target)) = (self.kind, target) {
            let kernel = debian::package_name(target.kernel.as_str());
            words.insert(0, ("@PACKAGE@", format!("{package}-modules-{kernel}")));
            words.insert(0, ("@REMAKE_INITRD@", self.add_modules(&source, target)?.to_owned()));
        }
        let make = match self.kind {
            PackageKind::DebianSource => debian::Make::Source,
            PackageKind::BinaryDeb => debian::Make::Packages(architecture),
            _ => debian::Make::Packages(None),
        };
        self.with_tool(|| debian::build(&source, &words, &make))
    }

    /// The first of the files or directories that packages are made by: the module's own, by these
    /// names, else those that are everybody's.
    fn template(&self, own: &[String], shared: &[impl AsRef<str>]) -> Result<PathBuf> {
        let tree = &self.session.tree;
        let source = tree.source_link(self.id);
        let mut places: Vec<PathBuf> = own.iter().map(|name| source.join(name)).collect();
        for name in shared {
            places.extend(TEMPLATES.map(|directory| tree.path(directory).join(name.as_ref())));
        }
        let Some(found) = places.iter().find(|place| place.exists()) else {
            let places = places.iter().map(|place| place.display().to_string()).collect();
            return Err(Failure::TemplateMissing { action: self.kind.action(), places }.into());
        };
        self.session.report.line(format_args!("Using {}", found.display()));
        Ok(found.clone())
    }

    /// The module's source, as `M-V`, unless only what was built of it is wanted.
    fn add_source(&self, directory: &Path) -> Result<()> {
        if self.content == ArchiveContent::BinariesOnly {
            return Ok(());
        }
        let to = directory.join(format!("{}-{}", self.id.name(), self.id.version()));
        let keys = keys(self.session, self.targets);
        let source = self.session.tree.source_link(self.id);
        let left_out = tarball::copy(&source, &to, keys.iter().map(PathBuf::as_path))?;
        warn_of_left_out(self.session, &left_out, "package");
        Ok(())
    }

    /// The archive that `common.postinst` loads. What it leaves out of the source has been told of.
    fn add_archive(&self, directory: &Path, content: ArchiveContent) -> Result<()> {
        let name = format!("{}-{}.dkms.tar.gz", self.id.name(), self.id.version());
        let archive = archive_of(self.session, self.id, self.targets, content, self.kind.action())?;
        archive.write(&directory.join(name), Compression::Gzip).map(drop)
    }

    /// The built files for one kernel, in `modules/` as they are to lie below the root. Says whether
    /// that kernel's initramfs has to be made anew with them.
    fn add_modules(&self, directory: &Path, target: &Target) -> Result<&'static str> {
        let Session { tree, report, distribution, .. } = self.session;
        let conf = self.session.load(self.id, Some(target))?.conf;
        let place = Placement { tree, report, distribution: *distribution, id: self.id, target };
        let is_merged = tree.path("/lib").is_symlink();
        let install_tree =
            directory.join("modules").join(if is_merged { "usr/lib/modules" } else { "lib/modules" });
        let _lock = tree.lock_module(self.id, report)?;
        for (_, built, place) in place.built_files(&conf)? {
            let to = install_tree.join(place.strip_prefix(&tree.install).unwrap_or(&place));
            fs::create_dir_all(files::parent(&to)?)?;
            fs::copy(built, to)?;
        }
        Ok(if conf.remake_initrd || conf.boot_critical { "yes" } else { "no" })
    }

    /// Tells which tool is at work, and fails with what it said.
    fn with_tool(&self, build: impl FnOnce() -> Result<Vec<PathBuf>>) -> Result<Vec<PathBuf>> {
        let report = &self.session.report;
        report.out(format!("\nRunning {}...", self.tool.name()));
        let made = build();
        report.line(if made.is_ok() { " done." } else { "(failed)" });
        made.map_err(|error| {
            Failure::PackageFailed { action: self.kind.action(), why: format!("{error:#}") }.into()
        })
    }
}
