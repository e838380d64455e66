// SPDX-License-Identifier: MIT OR Apache-2.0
//! GRUB's question for the default, asked by `/etc/grub.d/zz_dkms` at each grub-mkconfig. Whatever
//! goes wrong here must not keep a configuration from being written.

use anyhow::Result;

use crate::commands::grub_script;
use crate::commands::session::Session;

pub(super) fn run(session: &Session) -> Result<u8> {
    if let Err(error) = grub_script(session) {
        session.report.err(format_args!("dkms: WARNING: asking for the default kernel, ignoring: {error:#}"));
    }
    Ok(0)
}
