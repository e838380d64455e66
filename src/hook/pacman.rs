// SPDX-License-Identifier: MIT OR Apache-2.0
//! pacman's hooks (alpm-hooks(5)): the paths that matched are on standard input, without a leading
//! slash. A failure counts before the transaction only, and there it stops it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use super::preflight::preflight;
use super::{Event, bring_up_to_date, target};
use crate::commands::after::make_image;
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::commands::{
    self, Caller, Done, Initramfs, has_been_disabled, identify, kernel_gone, kernels, register_if_missing,
    report_error,
};
use crate::commands::{let_go_without_successor, retain_source};
use crate::conf::policy::Preflight;
use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::sys::tools::{Output, Run, Tool};
use crate::trial::Kind;

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let targets = read(session)?;
    match args {
        [stage] if stage == "preflight" => before(session, &targets),
        [stage] if stage == "install" => installed(session, &targets),
        [stage] if stage == "source-goes" => source_goes(session, &targets),
        [stage] if stage == "gone" => gone(session, &targets),
        _ => bail!("expected: hook pacman preflight|install|source-goes|gone"),
    }
}

fn read(session: &Session) -> Result<Targets> {
    let text = session.recorder.call.stdin(str::to_owned).context("reading the paths of the transaction")?;
    Ok(Targets::read(text))
}

/// The kernels and sources of a transaction, with what is looked for in names of packages.
pub(super) fn named(text: &str) -> Vec<String> {
    let targets = Targets::read(text);
    let releases: Vec<String> = targets.releases().map(String::from).collect();
    let versions = targets.kernels.iter().chain(&targets.sources).map(|name| version_in(name));
    releases.into_iter().chain(versions).collect()
}

/// What a hook would do; of a trial there is a note.
pub(super) fn foretell(session: &Session, args: &[String], notes: &mut Vec<String>) -> Result<Vec<Kernel>> {
    let targets = read(session)?;
    let ours = |kernel: KernelRelease| target(session, kernel);
    let ids = || targets.sources.iter().map(|source| identify(session, &session.tree.source.join(source)));
    let mut found = Vec::new();
    match args {
        [stage] if stage == "preflight" => {
            let names: Vec<&String> = targets.kernels.iter().chain(&targets.sources).collect();
            notes.extend(names.iter().map(|name| format!("Modules are tried for what brings {name}.")));
        }
        [stage] if stage == "install" => {
            let after = match images_come_later(session) {
                true => Afterwards::Called("mkinitcpio".to_owned()),
                false => Afterwards::Ours,
            };
            for kernel in targets.releases() {
                found.push(foretell::autoinstall(session, &ours(kernel), &after)?);
            }
            for kernel in kernels(session)?.0 {
                for id in ids().filter(|_| !targets.kernels.contains(kernel.as_str())) {
                    found.push(foretell::bring(session, &id?, &ours(kernel.clone()), true, true)?);
                }
            }
        }
        [stage] if stage == "source-goes" => {
            for id in ids() {
                let id = id?;
                for target in session.tree.targets(&id) {
                    found.push(foretell::removal(session, &target, Some(&id))?);
                }
            }
        }
        [stage] if stage == "gone" => {
            for kernel in targets.releases() {
                found.push(foretell::removal(session, &ours(kernel), None)?);
            }
        }
        _ => bail!("expected: hook pacman preflight|install|source-goes|gone"),
    }
    Ok(found)
}

/// What a transaction is about, of what we asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Targets {
    /// By the name of the directory in usr/lib/modules.
    kernels: BTreeSet<String>,
    /// By the name of the directory in usr/src.
    sources: BTreeSet<String>,
}

impl Targets {
    fn read(text: &str) -> Self {
        let mut targets = Self::default();
        for path in text.lines() {
            match path.split('/').collect::<Vec<_>>().as_slice() {
                ["usr", "lib", "modules", kernel, ..] => drop(targets.kernels.insert((*kernel).to_owned())),
                ["usr", "src", source, "dkms.conf"] => drop(targets.sources.insert((*source).to_owned())),
                _ => {}
            }
        }
        targets
    }

    fn releases(&self) -> impl Iterator<Item = KernelRelease> {
        self.kernels.iter().filter_map(|name| name.parse().ok())
    }
}

/// Finds the packages by what they hold, because pacman does not name their files to hooks.
fn before(session: &Session, targets: &Targets) -> Result<u8> {
    let archives = archives(session)?;
    let wanted = targets
        .kernels
        .iter()
        .map(|kernel| (version_in(kernel), format!("usr/lib/modules/{kernel}/build/include/")))
        .chain(
            targets.sources.iter().map(|source| (version_in(source), format!("usr/src/{source}/dkms.conf"))),
        );
    let mut packages = Vec::new();
    for (version, path) in wanted {
        let holds = |archive: &&PathBuf| {
            archive.file_name().is_some_and(|name| name.to_string_lossy().contains(&version))
                && lists(archive, &path)
        };
        match archives.iter().find(holds) {
            Some(archive) if packages.iter().any(|(_, known)| known == archive) => {}
            Some(archive) => packages.push((Kind::Pacman, archive.clone())),
            None => session.report.err(format_args!(
                "dkms: not tried: no package in pacman's cache has {path} (one that pacman -U takes from elsewhere?)"
            )),
        }
    }
    preflight(session, packages, Preflight::Abort)
}

/// What comes of a version in file names: the numbers that it begins with. The rest is written
/// in other ways there, because a version of pacman's has no dash.
fn version_in(directory: &str) -> String {
    let begins = |at: &usize| directory[*at..].starts_with(|first: char| first.is_ascii_digit());
    let start = std::iter::once(0)
        .chain(directory.match_indices('-').map(|(at, _)| at + 1))
        .find(begins)
        .unwrap_or(0);
    let end = directory[start..].find('-').map_or(directory.len(), |length| start + length);
    directory[start..end].to_owned()
}

/// The packages in pacman's caches, the newest file first.
fn archives(session: &Session) -> Result<Vec<PathBuf>> {
    let said = Run::new(Tool::PacmanConf)?.arg("CacheDir").succeed()?;
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for directory in String::from_utf8_lossy(&said).lines() {
        let directory = session.tree.path(directory);
        for name in files::names(&directory).unwrap_or_default() {
            let is_package = name.contains(".pkg.tar") && !name.ends_with(".sig") && !name.ends_with(".part");
            let path = directory.join(name);
            if is_package && let Ok(changed) = fs_err::metadata(&path).and_then(|meta| meta.modified()) {
                found.push((changed, path));
            }
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn lists(archive: &Path, path: &str) -> bool {
    let listed = Run::new(Tool::Bsdtar)
        .and_then(|run| run.arg("-tf").arg(archive).arg("--fast-read").arg(path).end(Output::Apart));
    listed.is_ok_and(|listed| listed.success())
}

fn installed(session: &Session, targets: &Targets) -> Result<u8> {
    if has_been_disabled(session) {
        session.report.line("Automatic installation of modules has been disabled.");
        return Ok(0);
    }
    session.begin_changes()?;
    let mut failed = false;
    let mut ids = Vec::new();
    for source in &targets.sources {
        let known = identify(session, &session.tree.source.join(source));
        match known.and_then(|id| register_if_missing(session, &id).map(|()| id)) {
            Ok(id) => ids.push(id),
            Err(error) => failed |= report_error(&session.report, &error) != 0,
        }
    }
    let later = images_come_later(session);
    let initramfs = if later { Initramfs::Later } else { Initramfs::Ours };
    // Called by hand nobody makes images after us.
    let caller =
        if later || !session.is_by_hand() { Caller::KernelInstallation } else { Caller::CommandLine };
    let mut fit = Vec::new();
    for kernel in targets.releases().filter(|kernel| session.tree.kernel_dir(kernel).is_dir()) {
        match bring_up_to_date(session, &target(session, kernel.clone()), caller) {
            Ok(Event::Fine) => fit.push(kernel),
            Ok(Event::Held) => failed = true,
            Err(error) => failed |= report_error(&session.report, &error) != 0,
        }
    }
    for kernel in kernels(session)?.0 {
        if targets.kernels.contains(kernel.as_str()) {
            continue;
        }
        for id in &ids {
            let target = target(session, kernel.clone());
            let result = commands::install_anew(session, id, &target, false, initramfs)?;
            for (_, done) in result.modules {
                if let Done::Failed(error) = done {
                    failed |= report_error(&session.report, &error) != 0;
                }
            }
        }
        fit.extend((!ids.is_empty()).then_some(kernel));
    }
    if later && session.is_by_hand() {
        for kernel in fit {
            failed |= !make_image(session, &kernel)?;
        }
    }
    Ok(u8::from(failed))
}

/// mkinitcpio's own hook makes every image anew when sources of modules have changed.
fn images_come_later(session: &Session) -> bool {
    let name = "90-mkinitcpio-install.hook";
    let own = session.tree.path("/etc/pacman.d/hooks").join(name);
    if files::exists(&own) {
        return own.is_file();
    }
    session.tree.path("/usr/share/libalpm/hooks").join(name).is_file()
}

/// Nothing that the machine runs on goes before its successor has come.
fn source_goes(session: &Session, targets: &Targets) -> Result<u8> {
    session.begin_changes()?;
    let mut failed = false;
    for source in &targets.sources {
        let known = identify(session, &session.tree.source.join(source));
        if let Err(error) = known.and_then(|id| retain_source(session, &id)) {
            failed |= report_error(&session.report, &error) != 0;
        }
    }
    Ok(u8::from(failed))
}

fn gone(session: &Session, targets: &Targets) -> Result<u8> {
    session.begin_changes()?;
    for kernel in
        targets.releases().filter(|kernel| !session.tree.kernel_dir(kernel).join("modules.order").exists())
    {
        kernel_gone(session, &kernel);
    }
    if !targets.sources.is_empty() {
        let_go_without_successor(session)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn targets_are_told_by_their_paths() {
        let text = "usr/lib/modules/6.9.1-arch1-2/build/include/\nusr/lib/modules/6.9.1-arch1-2/modules.order\n\
                    usr/src/zfs-2.2.4/dkms.conf\nusr/src/other/readme\n";
        let targets = Targets::read(text);
        assert_eq!(targets.kernels.iter().collect::<Vec<_>>(), ["6.9.1-arch1-2"]);
        assert_eq!(targets.sources.iter().collect::<Vec<_>>(), ["zfs-2.2.4"]);
    }

    #[rstest]
    #[case::kernel("6.9.1-arch1-2", "6.9.1")]
    #[case::lts("6.6.32-1-lts", "6.6.32")]
    #[case::module("zfs-2.2.4", "2.2.4")]
    #[case::dashes("v4l2loopback-dkms-0.13.2-1", "0.13.2")]
    #[case::no_number("odd-git", "odd")]
    fn file_names_have_the_numbers_of_a_version(#[case] directory: &str, #[case] want: &str) {
        assert_eq!(version_in(directory), want);
    }
}
