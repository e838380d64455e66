// SPDX-License-Identifier: MIT OR Apache-2.0
//! weak-updates: on distributions with a stable kABI, their own tool links the modules installed for
//! one kernel into others that can load them. We tell it what came and what goes; the links and the
//! other kernels' indexes are its own.

use std::path::PathBuf;

use super::distribution::Distribution;
use crate::kernel::KernelRelease;
use crate::sys::report::Report;
use crate::sys::tools::{Output, Run, Tool};

/// What has happened to the modules, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They are in their kernel's directory.
    Added,
    /// They are still there.
    Leaving,
}

/// Lets the other kernels have part in a change, where the distribution has a tool for that. No lock
/// may be held: SUSE's tool remakes an initramfs. A failure is told of and is nobody's.
pub fn announce(
    distribution: Distribution,
    kernel: &KernelRelease,
    modules: &[PathBuf],
    change: Change,
    report: &Report,
) {
    let tool = match distribution {
        Distribution::RedHat => Tool::WeakModules,
        Distribution::Suse => Tool::WeakModules2,
        _ => return,
    };
    if modules.is_empty() || tool.find().is_none() {
        return;
    }
    report.line(match change {
        Change::Added => "Adding linked weak modules...",
        Change::Leaving => "Removing linked weak modules...",
    });
    let list: String = modules.iter().map(|module| format!("{}\n", module.display())).collect();
    let ended = Run::new(tool).and_then(|run| {
        let run = match (tool, change) {
            // The kernels' images are remade by those who ask for it, once.
            (Tool::WeakModules, Change::Added) => run.arg("--no-initramfs").arg("--add-modules"),
            (Tool::WeakModules, Change::Leaving) => run.arg("--no-initramfs").arg("--remove-modules"),
            (_, Change::Added) => run.arg("--add-kernel-modules").arg(kernel),
            (_, Change::Leaving) => run.arg("--remove-kernel-modules").arg(kernel),
        };
        run.text(&list)?.end(Output::Apart)
    });
    match ended {
        Ok(ended) => {
            report.out(String::from_utf8_lossy(&ended.output));
            let said = String::from_utf8_lossy(&ended.errors);
            if !said.trim().is_empty() {
                report.err(said.trim_end());
            }
            if !ended.success() {
                report.warning(format_args!(
                    "{} ended with status {}, ignoring it: other kernels may lack links in weak-updates",
                    tool.name(),
                    ended.code()
                ));
            }
        }
        Err(error) => report.warning(format_args!("linking weak modules, ignoring: {error:#}")),
    }
}
