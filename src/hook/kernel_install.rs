// SPDX-License-Identifier: MIT OR Apache-2.0
//! kernel-install(8): two plugins, one that builds before anything is published and one that
//! proves after the initramfs generators. Exit 77 skips all later plugins and succeeds: the clean
//! hold. A failing `remove` would block the removal of kernels, so it never fails.

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::replay::afterwards;
use super::{Event, announce, bring_up_to_date, go_on, holds_by_itself, target};
use crate::commands::after::{After, is_done_already};
use crate::commands::foretell::{self, Kernel};
use crate::commands::session::Session;
use crate::commands::{Caller, kernel_gone, prove_installed, report_error};
use crate::conf::policy::{Generator, OnFailure};
use crate::gate::contents::deciding;
use crate::gate::proof::Image;
use crate::gate::verdict::Standing;
use crate::gate::{bls, loader};
use crate::initramfs::{self, Joined};
use crate::kernel::KernelRelease;
use crate::sys::files;

/// Later plugins are skipped, kernel-install succeeds (kernel-install(8), "Plugins").
pub(super) const SKIP_LATER: u8 = 77;

#[derive(Debug, PartialEq, Eq)]
enum Call {
    Build(KernelRelease),
    Prove { kernel: KernelRelease, image: Option<PathBuf>, initrds: Vec<PathBuf> },
    Gone(KernelRelease),
    Nothing,
}

/// `STAGE COMMAND KVER ENTRY_DIR [IMAGE [INITRD…]]`, the stage from the plugin's file and the rest
/// as kernel-install gives it.
fn parse(args: &[String]) -> Result<Call> {
    let [stage, command, kernel, rest @ ..] = args else {
        bail!("expected: hook kernel-install build|prove add|remove KERNEL-VERSION ENTRY-DIR …");
    };
    let kernel: KernelRelease = kernel.parse()?;
    Ok(match (stage.as_str(), command.as_str()) {
        ("build", "add") => Call::Build(kernel),
        ("prove", "add") => {
            let mut files = rest.iter().skip(1).map(PathBuf::from);
            Call::Prove { kernel, image: files.next(), initrds: files.collect() }
        }
        ("build", "remove") => Call::Gone(kernel),
        ("prove", _) | ("build", _) => Call::Nothing,
        (other, _) => bail!("unknown stage '{other}', expected build or prove"),
    })
}

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let args = staged(session, args);
    let call = match parse(&args).context("reading kernel-install's arguments") {
        Err(error) if args.get(1).is_some_and(|command| command == "remove") => {
            session.report.warning(format_args!("{error:#}, ignoring"));
            Call::Nothing
        }
        call => call?,
    };
    match call {
        Call::Nothing => Ok(0),
        Call::Gone(kernel) => {
            match only_entries_go(session, &kernel) {
                Some(entry_type) => entries_gone(session, &kernel, entry_type),
                None => kernel_gone(session, &kernel),
            }
            Ok(0)
        }
        Call::Build(kernel) | Call::Prove { kernel, .. } if session.is_by_hand() => {
            by_hand(session, kernel, &args)
        }
        Call::Build(kernel) => Ok(guarded(session, build(session, kernel))),
        Call::Prove { kernel, image, initrds } => {
            let is_unified = session.variable("KERNEL_INSTALL_IMAGE_TYPE") == Some("uki");
            let staged = Staged {
                kernel: image.filter(|_| is_unified),
                given: initrds,
                directory: session.variable("KERNEL_INSTALL_STAGING_AREA").map(PathBuf::from),
                layout: session.variable("KERNEL_INSTALL_LAYOUT").map(str::to_owned),
                none_wanted: session.variable("KERNEL_INSTALL_INITRD_GENERATOR") == Some("none"),
            };
            Ok(guarded(session, prove(session, kernel, &staged)))
        }
    }
}

/// The type of entries that a kernel is to lose while it stays (`kernel-install --entry-type`, 258):
/// by the same marks as systemd's own 50-depmod.install goes by.
fn only_entries_go<'a>(session: &'a Session, kernel: &KernelRelease) -> Option<&'a str> {
    let entry_type = session.variable("KERNEL_INSTALL_BOOT_ENTRY_TYPE").filter(|name| !name.is_empty())?;
    session.tree.kernel_dir(kernel).join("kernel").is_dir().then_some(entry_type)
}

fn entries_gone(session: &Session, kernel: &KernelRelease, entry_type: &str) {
    let is_meant = |entry: &bls::Entry| match entry_type {
        "type1" => !entry.is_unified(),
        "type2" => entry.is_unified(),
        _ => false,
    };
    if let Err(error) = bls::remove_held(&session.tree, kernel, &is_meant) {
        session
            .report
            .warning(format_args!("removing the held entries of kernel {kernel}, ignoring: {error:#}"));
    }
}

/// An error that tells nothing about the kernel is a warning: kernel-install's other plugins, and
/// the package manager behind them, go on.
pub(super) fn guarded(session: &Session, result: Result<u8>) -> u8 {
    match result {
        Ok(code) => code,
        Err(error) => {
            report_error(&session.report, &error);
            if holds_by_itself(session, &error) { SKIP_LATER } else { 0 }
        }
    }
}

/// A person need not know of our stages: what they are told is kernel-install's own arguments.
fn staged<'a>(session: &Session, args: &'a [String]) -> Cow<'a, [String]> {
    match args.first().map(String::as_str) {
        Some("add" | "remove") if session.is_by_hand() => {
            Cow::Owned(std::iter::once("build".to_owned()).chain(args.iter().cloned()).collect())
        }
        _ => Cow::Borrowed(args),
    }
}

/// As when the kernel was installed: the modules are brought up to date, then kernel-install goes
/// through all its plugins. Where it is not there, the initramfs and the boot loader are ours.
fn by_hand(session: &Session, kernel: KernelRelease, args: &[String]) -> Result<u8> {
    if !session.tree.kernel_dir(&kernel).is_dir() {
        return Ok(0);
    }
    let after = after(session, &kernel, args);
    let caller = if after.is_some() { Caller::KernelInstallation } else { Caller::CommandLine };
    match (bring_up_to_date(session, &target(session, kernel.clone()), caller)?, after) {
        (Event::Held, _) => held(session, &kernel),
        (Event::Fine, Some(after)) => go_on(session, after),
        (Event::Fine, None) => Ok(0),
    }
}

/// What a person's call would do; nothing is worked on for a kernel without modules.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Option<Kernel>> {
    let args = staged(session, args);
    match parse(&args)? {
        Call::Nothing => Ok(None),
        Call::Gone(kernel) if only_entries_go(session, &kernel).is_some() => Ok(None),
        Call::Gone(kernel) => foretell::removal(session, &target(session, kernel), None).map(Some),
        Call::Build(kernel) | Call::Prove { kernel, .. } => {
            if !session.tree.kernel_dir(&kernel).is_dir() {
                return Ok(None);
            }
            let after = after(session, &kernel, &args);
            let whose = target(session, kernel);
            foretell::autoinstall(session, &whose, &afterwards(after.as_ref())).map(Some)
        }
    }
}

/// kernel-install, called again with what it was called with as far as that is still there.
fn after(session: &Session, kernel: &KernelRelease, args: &[String]) -> Option<After> {
    // STAGE COMMAND KVER ENTRY_DIR IMAGE INITRD…; it may be called elsewhere than it was.
    let place = |word: &String| std::path::absolute(word).unwrap_or_else(|_| PathBuf::from(word));
    let files: Vec<PathBuf> = args.iter().skip(4).map(place).collect();
    let (image, initrds) = files.split_first().map_or((None, &[][..]), |(image, rest)| (Some(image), rest));
    After::kernel_install(session, kernel, image.map(PathBuf::as_path), initrds)
}

pub(super) fn build(session: &Session, kernel: KernelRelease) -> Result<u8> {
    if !session.tree.kernel_dir(&kernel).is_dir() {
        return Ok(0); // a kernel without modules has none of ours either
    }
    if is_done_already() || built_by_package_manager(session) {
        return look_again(session, kernel);
    }
    match bring_up_to_date(session, &target(session, kernel.clone()), Caller::KernelInstallation)? {
        Event::Fine => Ok(0),
        Event::Held => held(session, &kernel),
    }
}

/// Under dpkg, linux-image's and linux-headers' own hooks build: building what failed there once
/// more, each time that update-initramfs calls kernel-install, would cost and tell nothing new.
fn built_by_package_manager(session: &Session) -> bool {
    let under_dpkg =
        ["DEB_MAINT_PARAMS", "DPKG_MAINTSCRIPT_PACKAGE"].iter().any(|name| session.variable(name).is_some());
    under_dpkg && files::is_executable(&session.tree.path("/etc/kernel/postinst.d/dkms"))
}

/// Holds a kernel that still lacks something, whoever was to bring it. Its reasons have been told.
fn look_again(session: &Session, kernel: KernelRelease) -> Result<u8> {
    let images = Image::Later(deciding(&session.tree, &kernel));
    match prove_installed(session, &target(session, kernel), &images)? {
        Some(verdict) if verdict.standing == Standing::Held => {
            session.report.err(format_args!(
                "dkms: kernel {} is held, no boot entry is made for it; dkms gate tells why.",
                verdict.kernel
            ));
            held(session, &verdict.kernel)
        }
        _ => Ok(0),
    }
}

/// Where images are that are about to be published.
#[derive(Debug)]
pub(super) struct Staged {
    /// The kernel, if it is a unified image itself.
    pub kernel: Option<PathBuf>,
    /// Named on the command line, possibly staged as well.
    pub given: Vec<PathBuf>,
    /// Where generators leave theirs.
    pub directory: Option<PathBuf>,
    /// As kernel-install calls what becomes of them.
    pub layout: Option<String>,
    /// Whether none is to be made.
    pub none_wanted: bool,
}

pub(super) fn prove(session: &Session, kernel: KernelRelease, staged: &Staged) -> Result<u8> {
    let image = initramfs_of(session, &kernel, staged)?;
    match prove_installed(session, &target(session, kernel), &image)? {
        Some(verdict) if !verdict.standing.may_boot() => {
            announce(session, &verdict)?;
            held(session, &verdict.kernel)
        }
        _ => Ok(0),
    }
}

/// No entry is made; one that is there already is taken out of the menu. A loud stop is for those
/// who ask for it: it fails update-initramfs, and with it unrelated upgrades.
fn held(session: &Session, kernel: &KernelRelease) -> Result<u8> {
    let policy = session.policy()?;
    let code = match policy.on_failure {
        OnFailure::Auto | OnFailure::Hold => SKIP_LATER,
        OnFailure::Warn => return Ok(0),
        OnFailure::Abort => 1,
    };
    let gate = session.gate(&policy);
    let may_boot = |other: &KernelRelease| gate.may_boot(other);
    if let Err(error) = loader::shelve_entries(&session.tree, kernel, &may_boot, &session.report) {
        session
            .report
            .warning(format_args!("taking kernel {kernel} out of the boot menu, ignoring: {error:#}"));
    }
    Ok(code)
}

/// The images that are about to be published; where there are none, those that are there.
fn initramfs_of(session: &Session, kernel: &KernelRelease, staged: &Staged) -> Result<Image> {
    let tree = &session.tree;
    // Relative ones are relative to where kernel-install was called, and so are we.
    let place = |path: &PathBuf| if path.is_relative() { path.clone() } else { tree.path(path) };
    let mut given: Vec<PathBuf> = staged.given.iter().map(place).collect();
    given.extend(staged.directory.iter().flat_map(|directory| initramfs::initrds_in(&place(directory))));
    // What is given may be staged as well, as a link.
    let mut files = Vec::new();
    given.retain(|path| {
        let file = fs_err::canonicalize(path).unwrap_or_else(|_| path.clone());
        let is_new = !files.contains(&file);
        files.push(file);
        is_new
    });
    let mut images = published(staged.layout.as_deref(), staged.kernel.as_ref().map(place), given);
    if images.is_empty() {
        images = deciding(tree, kernel);
    }
    let none_wanted = staged.none_wanted || session.policy()?.generator == Generator::None;
    Ok(if none_wanted && images.is_empty() { Image::NotNeeded } else { Image::Needed(images) })
}

/// What becomes of a kernel that is a unified image itself, and of what is given and staged, under a
/// layout (90-loaderentry.install, 90-uki-copy.install). Plain images become one initramfs.
fn published(layout: Option<&str>, kernel: Option<PathBuf>, given: Vec<PathBuf>) -> Vec<Joined> {
    let is_unified = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "efi");
    let (mut unified, mut plain): (Vec<_>, Vec<_>) = given.into_iter().partition(is_unified);
    if layout == Some("uki") {
        // The kernel itself only if no image was made of it; initrds only within one.
        if unified.is_empty() {
            unified.extend(kernel);
        }
        if !unified.is_empty() {
            plain.clear();
        }
    } else {
        if layout == Some("bls") {
            unified.clear();
        }
        // Its own comes first.
        plain.splice(0..0, kernel);
    }
    let mut images: Vec<Joined> = unified.into_iter().map(|path| vec![path]).collect();
    images.extend(Some(plain).filter(|plain| !plain.is_empty()));
    images
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::build("build add 6.1 /boot/t/6.1 /boot/vmlinuz-6.1", Call::Build("6.1".parse().unwrap()))]
    #[case::prove(
        "prove add 6.1 /boot/t/6.1 /boot/vmlinuz-6.1 /boot/initrd.img-6.1",
        Call::Prove {
            kernel: "6.1".parse().unwrap(),
            image: Some("/boot/vmlinuz-6.1".into()),
            initrds: vec!["/boot/initrd.img-6.1".into()],
        }
    )]
    #[case::no_initrd(
        "prove add 6.1 /boot/t/6.1 /boot/vmlinuz-6.1",
        Call::Prove {
            kernel: "6.1".parse().unwrap(),
            image: Some("/boot/vmlinuz-6.1".into()),
            initrds: Vec::new(),
        }
    )]
    #[case::remove("build remove 6.1 /boot/t/6.1", Call::Gone("6.1".parse().unwrap()))]
    #[case::remove_late("prove remove 6.1 /boot/t/6.1", Call::Nothing)]
    #[case::new_command("build inspect 6.1", Call::Nothing)]
    fn arguments_are_kernel_installs(#[case] args: &str, #[case] want: Call) {
        let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        assert_eq!(parse(&args).unwrap(), want);
    }

    #[rstest]
    #[case::short("build add")]
    #[case::stage("later add 6.1 /boot")]
    #[case::kernel("build add ../etc /boot")]
    fn other_arguments_are_refused(#[case] args: &str) {
        let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        assert!(parse(&args).is_err());
    }
    #[rstest]
    #[case::entry("bls", "", "/boot/initrd /s/initrd", "/boot/initrd+/s/initrd")]
    #[case::entry_without_initrd("bls", "", "", "")]
    #[case::nobody_copies_a_unified_one("bls", "", "/s/uki.efi", "")]
    #[case::entry_of_a_unified_kernel("bls", "/k.efi", "/s/initrd", "/k.efi+/s/initrd")]
    #[case::made_of_the_initrd("uki", "", "/s/initrd /s/uki.efi", "/s/uki.efi")]
    #[case::made_beside_an_old_initrd("uki", "", "/boot/initrd.img /s/uki.efi", "/s/uki.efi")]
    #[case::unified_kernel("uki", "/k.efi", "/boot/initrd.img", "/k.efi")]
    #[case::unified_kernel_and_a_new_one("uki", "/k.efi", "/s/uki.efi", "/s/uki.efi")]
    #[case::none_was_made("uki", "", "/s/initrd", "/s/initrd")]
    #[case::who_knows("other", "", "/s/initrd /s/uki.efi", "/s/uki.efi /s/initrd")]
    #[case::who_knows_of_a_unified_kernel("other", "/k.efi", "", "/k.efi")]
    fn what_is_published_depends_on_the_layout(
        #[case] layout: &str,
        #[case] kernel: &str,
        #[case] given: &str,
        #[case] want: &str,
    ) {
        let kernel = Some(PathBuf::from(kernel)).filter(|path| !path.as_os_str().is_empty());
        let given = given.split_whitespace().map(PathBuf::from).collect();
        let images = published(Some(layout), kernel, given);
        let joined = |image: &Joined| {
            image.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("+")
        };
        assert_eq!(images.iter().map(joined).collect::<Vec<_>>().join(" "), want);
    }
}
