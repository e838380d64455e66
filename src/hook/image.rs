// SPDX-License-Identifier: MIT OR Apache-2.0
//! An initramfs generator has made an image (`/etc/initramfs/post-update.d`, mkinitcpio's `post`
//! hooks): its kernel is looked at again. Never fails: images are made in the middle of upgrades.

use anyhow::{Result, bail};

use crate::commands::look_again;
use crate::commands::session::Session;
use crate::initramfs;

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let [kernel, ..] = args else { bail!("expected: hook image KERNEL-VERSION") };
    // A run of ours that has the image made looks at it itself.
    if std::env::var_os(initramfs::BY_US).is_some() {
        return Ok(0);
    }
    // Debian's kernel hooks go on to the boot loader's (linux-run-hooks of linux-base).
    let updated_after_us = session.variable("DEB_MAINT_PARAMS").is_some() && !session.is_by_hand();
    let looked = kernel.parse().map_err(anyhow::Error::from);
    if let Err(error) = looked.and_then(|kernel| look_again(session, &kernel, updated_after_us)) {
        session.report.warning(format_args!("looking at kernel {kernel} again, ignoring: {error:#}"));
    }
    Ok(0)
}
