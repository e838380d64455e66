// SPDX-License-Identifier: MIT OR Apache-2.0
//! argv and environment to a `Root` and one call; prints the final error; the only exit.

use std::process::ExitCode;

use anyhow::Result;
use dkms_hooks::cli::{self, Action, Options};
use dkms_hooks::commands::call::Call;
use dkms_hooks::commands::record::Recorder;
use dkms_hooks::commands::session::Session;
use dkms_hooks::sys::report::Report;
use dkms_hooks::sys::root::Root;
use dkms_hooks::sys::signals;
use dkms_hooks::{commands, hook};
use nix::sys::stat::{Mode, umask};

fn main() -> ExitCode {
    let parsed = cli::parse(std::env::args_os().skip(1), &|name| std::env::var(name).ok());
    let (options, action) = match parsed {
        Ok(parsed) => parsed,
        Err(misuse) => {
            let report = Report::new(misuse.options.quiet, false);
            misuse.options.notices.iter().for_each(|notice| report.err(notice));
            if misuse.show_usage {
                report.out(cli::usage::text());
            }
            return ExitCode::from(commands::report_error(&report, &misuse.failure.into()));
        }
    };
    let report = Report::new(options.quiet, options.verbose);
    options.notices.iter().for_each(|notice| report.err(notice));
    let done = run(&report, options, action);
    ExitCode::from(done.unwrap_or_else(|error| commands::report_error(&report, &error)))
}

fn run(report: &Report, options: Options, action: Action) -> Result<u8> {
    // Entering an image wants a single thread, listening for signals starts another.
    let root = match &options.root {
        Some(image) => Root::enter(image)?,
        None => Root::live(),
    };
    // Modules are for everybody to read, whatever the caller keeps to itself. Scripts have it, too.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    if changes_something(&action) {
        signals::listen(hook::works_for_package_manager(&action))?;
    }
    let recorder = Recorder::new(Call::of_this_process(), &action);
    let session = match (Session::open(root.clone(), options, hook::only_asks(&action), recorder), &action) {
        (Err(error), Action::Hook { protocol, args }) => {
            return match hook::code_without_session(&root, protocol, args) {
                Some(code) => {
                    commands::report_error(report, &error);
                    Ok(code)
                }
                None => Err(error),
            };
        }
        (session, _) => session?,
    };
    Ok(hook::carry_out(&session, action))
}

/// A reader may die of a signal at any time; whoever changes something rolls back first.
fn changes_something(action: &Action) -> bool {
    let reads = matches!(
        action,
        Action::Help
            | Action::Version
            | Action::Status { .. }
            | Action::RebootSafe
            | Action::Verify { .. }
            | Action::Complete(_)
            | Action::Critical { .. }
            | Action::Log { .. }
            | Action::Replay { dry_run: true, .. }
            | Action::Doctor { repair: false }
    );
    !reads && *action != Action::Gate { release: None }
}
