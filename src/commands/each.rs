// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several kernels in one call: each is worked on, whatever becomes of the others.

use anyhow::Result;

use super::report_error;
use super::session::Session;
use crate::failure::Failure;
use crate::module::Target;
use crate::sys::signals;

/// Works for one target after the other and says what went wrong as it happens. The result is the
/// exit code: the first failure's; that of a skipped kernel only if no kernel came through.
pub(super) fn each(
    session: &Session,
    targets: &[Target],
    mut work: impl FnMut(&Target) -> Result<()>,
) -> Result<u8> {
    let mut failed = None;
    let mut skipped = None;
    let mut done = false;
    for target in targets {
        match work(target) {
            Ok(()) => done = true,
            Err(error) if signals::caught().is_some() => return Err(error),
            Err(error) => {
                let is_skipped = matches!(error.downcast_ref(), Some(Failure::Excluded { .. }));
                let code = report_error(&session.report, &error);
                (if is_skipped { &mut skipped } else { &mut failed }).get_or_insert(code);
            }
        }
    }
    Ok(failed.or(skipped.filter(|_| !done)).unwrap_or(0))
}
