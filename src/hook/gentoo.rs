// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gentoo's installkernel where systemd's kernel-install does not do its work:
//! `/usr/lib/kernel/preinst.d`, called with the kernel release and the path of its image before anything
//! is copied to /boot. The two hooks are kernel-install's two plugins under other names, and exit code
//! 77 stops here as well.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::kernel_install::{self, SKIP_LATER, Staged};
use super::{Event, bring_up_to_date, target};
use crate::commands::Caller;
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::kernel::KernelRelease;

/// The stage, the kernel, and its image, which may be relative to the directory of the call.
fn parse(args: &[String]) -> Result<(&str, KernelRelease, &Path)> {
    let [stage, kernel, image] = args else {
        bail!("expected: hook gentoo build|prove KERNEL-VERSION IMAGE");
    };
    Ok((stage, kernel.parse().context("reading installkernel's arguments")?, Path::new(image)))
}

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let (stage, kernel, image) = parse(args)?;
    let code = match stage {
        "build" | "prove" if session.is_by_hand() => return by_hand(session, &kernel),
        "build" => kernel_install::build(session, kernel.clone()),
        "prove" => kernel_install::prove(session, kernel.clone(), &staged(session, image)),
        other => bail!("unknown stage '{other}', expected build or prove"),
    };
    let code = kernel_install::guarded(session, code);
    if code == SKIP_LATER {
        tell_the_way_on(session, &kernel);
    }
    Ok(code)
}

/// Generators leave their images in a staging area, in older versions beside the kernel's.
fn staged(session: &Session, image: &Path) -> Staged {
    let named = session.variable("INSTALLKERNEL_STAGING_AREA").map(PathBuf::from);
    let directory = named.or_else(|| image.parent().map(Path::to_owned));
    let none_wanted = session.variable("INSTALLKERNEL_INITRD_GENERATOR") == Some("none");
    Staged { kernel: None, given: Vec::new(), directory, layout: None, none_wanted }
}

/// The modules and an initramfs that is there already are ours; nothing here copies the kernel.
fn by_hand(session: &Session, kernel: &KernelRelease) -> Result<u8> {
    let event = bring_up_to_date(session, &target(session, kernel.clone()), Caller::CommandLine)?;
    tell_the_way_on(session, kernel);
    Ok(if event == Event::Held { SKIP_LATER } else { 0 })
}

/// What is held here is nowhere that a boot loader could find it.
fn tell_the_way_on(session: &Session, kernel: &KernelRelease) {
    // Beside its modules there may be one all the same, which no boot loader reads.
    if !session.tree.path(format!("/boot/vmlinuz-{kernel}")).exists() {
        session.report.err(format_args!(
            "dkms: Kernel {kernel} is not in /boot. Once it has its modules, install it again: make install in \
             its sources, or emerge --config of its package."
        ));
    }
}

/// What a person's call would do.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Kernel> {
    let (_, kernel, _) = parse(args)?;
    foretell::autoinstall(session, &target(session, kernel), &Afterwards::Ours)
}
