// SPDX-License-Identifier: MIT OR Apache-2.0
//! apt's hooks (apt.conf(5), "DPkg::Post-Invoke"). After dpkg has run: what is held, as the last
//! thing on the screen, because what the kernel's own hooks said has scrolled away.

use anyhow::{Result, bail};

use crate::commands::session::Session;
use crate::gate::is_off;
use crate::gate::verdict::{Standing, Verdict};

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    match args {
        [stage] if stage == "post-invoke" => {}
        _ => bail!("expected: hook apt post-invoke"),
    }
    if is_off(&session.tree.root) {
        return Ok(0);
    }
    for verdict in Verdict::all(&session.tree)?.iter().filter(|verdict| verdict.standing == Standing::Held) {
        super::announce(session, verdict)?;
    }
    Ok(0)
}
