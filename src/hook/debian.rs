// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's kernel hooks: `/etc/kernel/{preinst,postinst,prerm,header_postinst}.d`, run by
//! run-parts with the kernel release and, but for headers, the image's path. A failing postinst.d
//! hook keeps the initramfs and the boot loader's hooks from being run.

use anyhow::{Context, Result, bail};

use super::replay::afterwards;
use super::{go_on, installed, target};
use crate::commands::after::{After, is_done_already};
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::commands::{Caller, kernel_gone, look_again, mark_pending};
use crate::kernel::KernelRelease;

/// The stage and the kernel.
fn parse(args: &[String]) -> Result<(&str, KernelRelease)> {
    let [stage, kernel, ..] = args else {
        bail!("expected: hook debian preinst|postinst|prerm|header-postinst KERNEL-VERSION [IMAGE]");
    };
    Ok((stage, kernel.parse().context("reading the kernel hook's arguments")?))
}

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let (stage, kernel) = parse(args)?;
    match stage {
        "preinst" => {
            // The kernel's own files are about to be replaced; what worked stays until its
            // replacement is there, so nothing is removed here.
            let marked = session
                .begin_changes()
                .and_then(|()| mark_pending(session, &target(session, kernel.clone())))
                // Called by hand nobody replaces them, and nobody would look at it afterwards.
                .and_then(
                    |()| if session.is_by_hand() { look_again(session, &kernel, false) } else { Ok(()) },
                );
            if let Err(error) = marked {
                session.report.warning(format_args!("marking the kernel as pending, ignoring: {error:#}"));
            }
            Ok(0)
        }
        "postinst" if is_done_already() => Ok(0),
        "postinst" if session.is_by_hand() => by_hand(session, kernel, args.get(2).map(String::as_str)),
        "postinst" => installed(session, kernel, Caller::KernelInstallation),
        "header-postinst" => {
            // Without its kernel, that one's own hooks make the initramfs when it comes.
            let caller =
                if has_image(session, &kernel) { Caller::CommandLine } else { Caller::KernelInstallation };
            installed(session, kernel, caller)
        }
        "prerm" => {
            kernel_gone(session, &kernel);
            Ok(0)
        }
        other => bail!("unknown kernel hook '{other}'"),
    }
}

/// What a hook would do.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Kernel> {
    let (stage, kernel) = parse(args)?;
    let whose = target(session, kernel.clone());
    match stage {
        "preinst" => Ok(foretell::look(whose)),
        "prerm" => foretell::removal(session, &whose, None),
        "postinst" => {
            let after = After::kernel_hooks(session, &kernel, args.get(2).map(String::as_str));
            foretell::autoinstall(session, &whose, &afterwards(after.as_ref()))
        }
        "header-postinst" => {
            let afterwards = if has_image(session, &kernel) { Afterwards::Ours } else { Afterwards::Later };
            foretell::autoinstall(session, &whose, &afterwards)
        }
        other => bail!("unknown kernel hook '{other}'"),
    }
}

/// Headers may come before their kernel.
fn has_image(session: &Session, kernel: &KernelRelease) -> bool {
    let image = session.tree.path(format!("/boot/vmlinuz-{kernel}"));
    image.exists() || session.tree.kernel_dir(kernel).join("kernel").is_dir()
}

/// As when the kernel was installed, with the hooks that run-parts would go on to: they make the
/// initramfs and tell the boot loader. Where there are none that is ours to do.
fn by_hand(session: &Session, kernel: KernelRelease, image: Option<&str>) -> Result<u8> {
    let Some(after) = After::kernel_hooks(session, &kernel, image) else {
        return installed(session, kernel, Caller::CommandLine);
    };
    match installed(session, kernel, Caller::KernelInstallation)? {
        0 => go_on(session, after),
        code => Ok(code),
    }
}
