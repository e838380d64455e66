// SPDX-License-Identifier: MIT OR Apache-2.0
//! `generate_mok`: makes the signing key and its certificate, unless they are there.

use anyhow::{Context, Result};

use super::session::Session;
use crate::build::keys::Keys;
use crate::cli::TargetArgs;

/// The verb; the result is the exit code. The kernel matters only where the keys' paths name it:
/// in an image, where none runs, any will do.
pub(super) fn generate_mok(session: &Session, targets: &TargetArgs) -> Result<u8> {
    session.begin_changes()?;
    let kernel = if session.tree.root.is_live() || !targets.kernels.is_empty() {
        session.one_target(targets)?.kernel
    } else {
        session.tree.installed_kernels()?.pop().context("looking for a kernel in the image")?
    };
    match Keys::ready(session.signing(&kernel), &session.report) {
        Ok(_) => Ok(0),
        Err(why) => {
            session.report.line(why);
            Ok(1)
        }
    }
}
