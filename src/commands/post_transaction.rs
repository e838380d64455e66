// SPDX-License-Identifier: MIT OR Apache-2.0
//! The administrator's command after every transaction that has changed modules
//! (framework.conf, `post_transaction`).

use anyhow::Result;

use super::session::Session;
use crate::build::log::MakeLog;
use crate::conf::framework::late;
use crate::module::Target;
use crate::sys::tools::{Run, Tool};

/// Runs the command if there is one. No lock may be held: it may call what calls us. Its failure
/// takes nothing back.
pub(super) fn post_transaction(session: &Session, target: &Target) {
    let Some(setting) = &session.framework.post_transaction else { return };
    if let Err(error) = execute(session, &late(setting, target.kernel.as_str())) {
        session.report.warning(format_args!("running post_transaction, ignoring: {error:#}"));
    }
}

fn execute(session: &Session, command: &str) -> Result<()> {
    let report = &session.report;
    let mut log = MakeLog::create(&session.tree.dkms.join("post_transaction.log"))?;
    if report.is_verbose() {
        report.line(command);
    } else {
        report.out("Executing post-transaction command...");
    }
    let run = Run::new(Tool::Bash)?.arg("-c").arg(command);
    let ended = log.step("Executing post-transaction command", command, run)?;
    if ended.success() {
        report.out(" done.\n");
    } else {
        report.out(format!("(bad exit status: {})\nFailed command:\n{command}\n", ended.code()));
    }
    Ok(())
}
