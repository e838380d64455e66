// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's kernel hooks: `/etc/kernel/{preinst,postinst,prerm,header_postinst}.d`, run by
//! run-parts with the kernel release and, but for headers, the image's path. A failing postinst.d
//! hook keeps the initramfs and the boot loader's hooks from being run.

use anyhow::{Context, Result, bail};

use super::{Event, bring_up_to_date, held_fails, holds_by_itself, target};
use crate::commands::session::Session;
use crate::commands::{Caller, kernel_gone, mark_pending, report_error};
use crate::kernel::KernelRelease;

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let [stage, kernel, ..] = args else {
        bail!("expected: hook debian preinst|postinst|prerm|header-postinst KERNEL-VERSION [IMAGE]");
    };
    let kernel: KernelRelease = kernel.parse().context("reading the kernel hook's arguments")?;
    match stage.as_str() {
        "preinst" => {
            // The kernel's own files are about to be replaced; what worked stays until its
            // replacement is there, so nothing is removed here.
            let marked =
                session.begin_changes().and_then(|()| mark_pending(session, &target(session, kernel)));
            if let Err(error) = marked {
                session.report.warning(format_args!("marking the kernel as pending, ignoring: {error:#}"));
            }
            Ok(0)
        }
        "postinst" => installed(session, kernel, Caller::KernelInstallation),
        "header-postinst" => {
            // Headers may come before their kernel: its own hooks then make the initramfs.
            let image = session.tree.path(format!("/boot/vmlinuz-{kernel}"));
            let has_image = image.exists() || session.tree.kernel_dir(&kernel).join("kernel").is_dir();
            installed(
                session,
                kernel,
                if has_image { Caller::CommandLine } else { Caller::KernelInstallation },
            )
        }
        "prerm" => {
            kernel_gone(session, &kernel);
            Ok(0)
        }
        other => bail!("unknown kernel hook '{other}'"),
    }
}

fn installed(session: &Session, kernel: KernelRelease, caller: Caller) -> Result<u8> {
    match bring_up_to_date(session, &target(session, kernel), caller) {
        Ok(Event::Fine) => Ok(0),
        Ok(Event::Held) => Ok(u8::from(held_fails(session)?)),
        Err(error) => {
            report_error(&session.report, &error);
            Ok(u8::from(holds_by_itself(session, &error)))
        }
    }
}
