// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel's module indexes: made anew by depmod(8), or taken away with the last module.

use anyhow::Result;
use fs_err as fs;

use crate::failure::Failure;
use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Output, Run, Tool};
use crate::tree::Tree;

/// Makes a kernel's module indexes anew and says so. The kernel's lock must be held.
pub fn depmod(tree: &Tree, kernel: &KernelRelease, report: &Report) -> Result<()> {
    let mut run = Run::new(Tool::Depmod)?;
    // depmod wants the directory above lib/modules (depmod(8), -b).
    if tree.install != tree.path("/lib/modules")
        && let Some(base) = tree.install.to_string_lossy().strip_suffix("/lib/modules")
    {
        run = run.arg("-b").arg(base);
    }
    let run = run.arg("-a").arg(kernel);
    if report.is_verbose() {
        report.line(run.pasteable());
    } else {
        report.out("Running depmod...");
    }
    let shown = run.pasteable();
    let ended = run.end(Output::Merged)?;
    if ended.success() {
        report.out(" done.\n");
        return Ok(());
    }
    report.out(format!("(bad exit status: {})\nFailed command:\n{shown}\n", ended.code()));
    let said = String::from_utf8_lossy(&ended.output).trim_end().to_owned();
    if !said.is_empty() {
        report.err(said);
    }
    Err(Failure::Depmod { kernel: kernel.to_string() }.into())
}

/// What depmod makes (depmod(8), modules.dep(5)) and nobody's package owns.
const INDEXES: [&str; 12] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.devname",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.weakdep",
    "modules.builtin.modinfo.alias.bin",
];

/// Whether a name in a kernel's directory is one of depmod's.
pub fn is_index(name: &std::ffi::OsStr) -> bool {
    INDEXES.iter().any(|index| name == *index)
}

/// Makes a kernel's module indexes anew after modules went. A directory that holds nothing but
/// indexes is one that we made, or whose package is gone: it goes as a whole.
pub fn depmod_after_removal(tree: &Tree, kernel: &KernelRelease, report: &Report) -> Result<()> {
    let kernel_dir = tree.kernel_dir(kernel);
    let left = || fs::read_dir(&kernel_dir).into_iter().flatten().flatten();
    if left().any(|entry| !is_index(&entry.file_name())) {
        return depmod(tree, kernel, report);
    }
    left().try_for_each(|entry| files::remove(&entry.path()))?;
    files::remove_empty_below(&kernel_dir);
    report.line("Running depmod... done.");
    Ok(())
}
