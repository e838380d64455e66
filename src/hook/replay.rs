// SPDX-License-Identifier: MIT OR Apache-2.0
//! `replay`: a recorded run once more, or a protocol that a person calls. What was called goes in by
//! the same door as at first; who would have come after us is called by us (`commands::after`).

use std::ffi::OsString;

use anyhow::{Context, Result, bail};

use super::{alpine, apt, clear, debian, dnf, gentoo, kernel_install, package, pacman, rpm, void};
use crate::cli::{self, Action, Options, Replayed};
use crate::commands::after::After;
use crate::commands::call::{Call, KBUILD};
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::log::recorded;
use crate::commands::record::Recorder;
use crate::commands::session::Session;
use crate::sys::tools;

/// Replays a run, or tells what that would do. The result is the exit code that the run's caller
/// would have got.
pub(super) fn replay(session: &Session, what: Replayed, dry_run: bool) -> Result<u8> {
    let call = match what {
        Replayed::Run(run) => {
            let record = recorded(session, run)?;
            if record.only_removes() && !dry_run && !session.options.force {
                bail!(
                    "run {0} took modules away, and they may have come back since; see: dkms replay {0} --dry-run\n\
                     To do it all the same: dkms replay {0} --force",
                    record.run
                );
            }
            Call::recorded(&record)
        }
        Replayed::Protocol { protocol, args } => Call::made_up(&protocol, &args),
    };
    let (options, action) = understood(session, &call)?;
    enter_directory(session, &call, &action)?;
    let kbuild = call.environment.iter().filter(|(name, _)| KBUILD.contains(&name.as_str()));
    tools::lend(kbuild.map(|(name, value)| (name.clone(), value.clone())).collect());
    let recorder = Recorder::new(call, &action);
    let regardless = super::only_asks(&action);
    let replayed = Session::open(session.tree.root.clone(), options, regardless, recorder)?;
    if dry_run {
        return foretell(&replayed, &action).map(|()| 0);
    }
    let call = &replayed.recorder.call;
    if let Some(run) = call.replay_of {
        let words = shell_words::join(&call.argv);
        replayed.report.line(format_args!("Replaying run {run}: dkms {words}"));
    }
    Ok(super::carry_out(&replayed, action))
}

/// What a run was called with, with the options of the replay that are about how it is shown and
/// where it is found.
fn understood(session: &Session, call: &Call) -> Result<(Options, Action)> {
    let words = call.argv.iter().map(OsString::from);
    let parsed = cli::parse(words, &|name| call.variable(name).map(str::to_owned));
    let (options, action) =
        parsed.map_err(|misuse| misuse.failure).context("reading what the run was called with")?;
    if matches!(action, Action::Replay { .. }) {
        bail!("a replay is on record as what it replays, never as itself");
    }
    let (given, tree) = (&session.options, &session.tree);
    let options = Options {
        // The image has been entered, or is this system now.
        root: None,
        json: given.json,
        quiet: given.quiet,
        verbose: given.verbose || options.verbose,
        force: given.force || options.force,
        dkms_tree: options.dkms_tree.or(given.dkms_tree.is_some().then(|| tree.dkms.clone())),
        source_tree: options.source_tree.or(given.source_tree.is_some().then(|| tree.source.clone())),
        install_tree: options.install_tree.or(given.install_tree.is_some().then(|| tree.install.clone())),
        ..options
    };
    Ok((options, action))
}

/// Relative paths are relative to where the run was called. Package managers call from directories
/// that go, and name no such paths.
fn enter_directory(session: &Session, call: &Call, action: &Action) -> Result<()> {
    let entered = nix::unistd::chdir(&session.tree.path(&call.directory));
    match (entered, action) {
        (Ok(()), _) => Ok(()),
        (Err(_), Action::Hook { .. }) => {
            nix::unistd::chdir(&session.tree.path("/")).context("entering the root directory")
        }
        (Err(errno), _) => {
            Err(errno).with_context(|| format!("entering {}, where it was called", call.directory.display()))
        }
    }
}

/// Tells what an action would do.
fn foretell(session: &Session, action: &Action) -> Result<()> {
    let ours = Afterwards::Ours;
    let mut notes = Vec::new();
    let kernels = match action {
        Action::Hook { protocol, args } => foretell_hook(session, protocol, args, &mut notes)?,
        Action::Autoinstall { targets } | Action::KernelPostinst { targets } => {
            vec![foretell::autoinstall(session, &session.one_target(targets)?, &ours)?]
        }
        Action::AutoinstallAll => foretell::all_kernels(session)?,
        Action::Match { template, module, targets } => {
            let target = session.one_target(targets)?;
            vec![foretell::matched(session, template, module.as_ref(), &target)?]
        }
        Action::Gate { release: Some(kernel) } => {
            vec![foretell::look(super::target(session, kernel.clone()))]
        }
        action => foretell::affected(session, action)?,
    };
    if kernels.is_empty() && notes.is_empty() {
        notes.push("It works on no kernel; see dkms(8) for what it does.".to_owned());
    }
    foretell::show(session, &kernels, &notes)
}

fn foretell_hook(
    session: &Session,
    protocol: &str,
    args: &[String],
    notes: &mut Vec<String>,
) -> Result<Vec<Kernel>> {
    Ok(match protocol {
        "debian" => vec![debian::foretell(session, args)?],
        "kernel-install" => kernel_install::foretell(session, args)?.into_iter().collect(),
        "boot" | "autoinstaller" => {
            let kernel = args.get(1).filter(|_| protocol == "autoinstaller");
            let kernel = kernel.map_or_else(|| session.running_kernel(), |word| Ok(word.parse()?))?;
            vec![foretell::autoinstall(session, &super::target(session, kernel), &Afterwards::Ours)?]
        }
        "image" => match args {
            [kernel, ..] => vec![foretell::look(super::target(session, kernel.parse()?))],
            [] => bail!("expected: hook image KERNEL-VERSION"),
        },
        "common-postinst" => package::foretell(session, args)?,
        "clear" => clear::foretell(session)?,
        "pacman" => pacman::foretell(session, args, notes)?,
        "rpm" => rpm::foretell(session, args)?,
        "gentoo" => vec![gentoo::foretell(session, args)?],
        "void" => vec![void::foretell(session, args)?],
        "alpine" => alpine::foretell(session, args)?,
        "dnf" | "dnf5" => {
            notes.push(dnf::foretell(session)?);
            Vec::new()
        }
        "apt" => {
            notes.push(apt::foretell(session, args)?);
            Vec::new()
        }
        "grub" => {
            notes.push("It only asks; no kernel is worked on.".to_owned());
            Vec::new()
        }
        _ => return Err(super::unknown(protocol)),
    })
}

/// Who makes the initramfs in a replay.
pub(super) fn afterwards(after: Option<&After>) -> Afterwards {
    after.map_or(Afterwards::Ours, |after| Afterwards::Called(after.pasteable()))
}
