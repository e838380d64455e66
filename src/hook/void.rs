// SPDX-License-Identifier: MIT OR Apache-2.0
//! Void Linux's kernel hooks: `/etc/kernel.d/{post-install,pre-remove}`, called with the package's
//! name and the kernel release (xbps-triggers, `kernel-hooks`). Failures are ignored there, so what
//! holds a kernel is its verdict, for which the boot loader's menu is made to ask.

use anyhow::{Context, Result, bail};

use super::{installed, target};
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::commands::{Caller, kernel_gone, look_again};
use crate::kernel::KernelRelease;

/// The stage and the kernel.
fn parse(args: &[String]) -> Result<(&str, KernelRelease)> {
    let [stage, _package, kernel] = args else {
        bail!("expected: hook void post-install|prove|pre-remove PACKAGE KERNEL-VERSION");
    };
    Ok((stage, kernel.parse().context("reading the kernel hook's arguments")?))
}

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let (stage, kernel) = parse(args)?;
    match stage {
        "post-install" => {
            // The generator's and the boot loader's hooks come after us, but not after a person.
            let caller = if session.is_by_hand() { Caller::CommandLine } else { Caller::KernelInstallation };
            installed(session, kernel, caller)
        }
        "prove" => look_again(session, &kernel, !session.is_by_hand()).map(|()| 0),
        "pre-remove" => {
            kernel_gone(session, &kernel);
            Ok(0)
        }
        other => bail!("unknown kernel hook '{other}'"),
    }
}

/// What a person's call would do.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Kernel> {
    let (stage, kernel) = parse(args)?;
    let whose = target(session, kernel);
    match stage {
        "post-install" => foretell::autoinstall(session, &whose, &Afterwards::Ours),
        "prove" => Ok(foretell::look(whose)),
        "pre-remove" => foretell::removal(session, &whose, None),
        other => bail!("unknown kernel hook '{other}'"),
    }
}
