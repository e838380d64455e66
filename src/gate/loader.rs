// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which boot loaders this machine has, whether a hold of ours works with each, and the update
//! that a held kernel was denied.

use std::path::PathBuf;

use anyhow::Result;

use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Run, Tool};
use crate::tree::Tree;

/// The script by which GRUB's configuration asks us for the default.
const GRUB_SCRIPT: &str = "/etc/grub.d/zz_dkms";

/// The plugins by which kernel-install asks us before it makes an entry.
const PLUGINS: [&str; 2] = ["15-dkms.install", "88-dkms-proof.install"];

/// A boot loader that was found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// As people call it.
    pub name: &'static str,
    /// Whether a hold of ours is wired in.
    pub hold: bool,
    /// What the hold is, or why there is none.
    pub how: String,
}

impl Loader {
    /// Whether what it boots next can be told from its files.
    pub fn can_be_foretold(&self) -> bool {
        matches!(self.name, GRUB | BLS)
    }
}

pub(super) const GRUB: &str = "GRUB";
pub(super) const BLS: &str = "systemd-boot";

/// Loaders that we recognise by their files and have no hold for.
const OTHERS: [(&str, &str); 6] = [
    ("extlinux", "/boot/extlinux/extlinux.conf"),
    ("flash-kernel", "/usr/sbin/flash-kernel"),
    ("raspi-firmware", "/boot/firmware/config.txt"),
    ("zipl", "/etc/zipl.conf"),
    ("rEFInd", "/boot/refind_linux.conf"),
    ("Limine", "/boot/limine.conf"),
];

/// Finds this machine's boot loaders; empty if there is none that we know.
pub fn detect(tree: &Tree) -> Vec<Loader> {
    let mut found = Vec::new();
    if grub_cfg(tree).is_some() && (grub_tool(Tool::GrubMkconfig) || grub_tool(Tool::UpdateGrub)) {
        let hold = files::is_executable(&tree.path(GRUB_SCRIPT));
        let how = if hold {
            format!("{GRUB_SCRIPT} asks for the default")
        } else {
            format!("{GRUB_SCRIPT} is missing or not executable")
        };
        found.push(Loader { name: GRUB, hold, how });
    }
    let loader_dirs = ["/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries"];
    let entries = loader_dirs.iter().find(|directory| tree.path(directory).is_dir());
    if let Some(entries) = entries
        && Tool::KernelInstall.find().is_some()
    {
        let missing = PLUGINS.iter().find(|plugin| !plugin_runs(tree, plugin));
        let how = match missing {
            None => format!("kernel-install makes no entry in {entries}"),
            Some(plugin) => format!("the kernel-install plugin {plugin} is missing"),
        };
        found.push(Loader { name: BLS, hold: missing.is_none(), how });
    }
    for (name, mark) in OTHERS {
        if files::exists(&tree.path(mark)) {
            found.push(Loader { name, hold: false, how: format!("no hold is known for it ({mark})") });
        }
    }
    found
}

/// Whether a held kernel is kept from becoming the default on this machine: there is a loader
/// that we know, and none without a hold.
pub fn holds(tree: &Tree) -> bool {
    let loaders = detect(tree);
    !loaders.is_empty() && loaders.iter().all(|loader| loader.hold)
}

/// Runs the boot loader update that was withheld while the kernel was held. No lock may be held.
pub fn update(tree: &Tree, kernel: &KernelRelease, report: &Report) -> Result<()> {
    for loader in detect(tree) {
        let run = match loader.name {
            GRUB => remake_menu(tree)?,
            BLS => {
                let Some(image) = kernel_image(tree, kernel) else { continue };
                let run = Run::new(Tool::KernelInstall)?.arg("add").arg(kernel).arg(image);
                let initrd = tree.path(format!("/boot/initrd.img-{kernel}"));
                Some(if initrd.is_file() { run.arg(initrd) } else { run })
            }
            _ => None,
        };
        if let Some(run) = run {
            shown(run, report)?;
        }
    }
    Ok(())
}

/// Makes a menu anew that names a default, for a kernel that has become unfit: only then does the
/// hold reach it. Entries that a loader finds by itself stay. No lock may be held.
pub fn move_default(tree: &Tree, report: &Report) -> Result<()> {
    if detect(tree).iter().any(|loader| loader.name == GRUB && loader.hold)
        && let Some(run) = remake_menu(tree)?
    {
        shown(run, report)?;
    }
    Ok(())
}

fn remake_menu(tree: &Tree) -> Result<Option<Run>> {
    if Tool::UpdateGrub.find().is_some() {
        return Run::new(Tool::UpdateGrub).map(Some);
    }
    let Some(cfg) = grub_cfg(tree) else { return Ok(None) };
    Ok(Some(Run::new(Tool::GrubMkconfig)?.arg("-o").arg(cfg)))
}

fn shown(run: Run, report: &Report) -> Result<()> {
    report.out(format!("Running {}...", run.pasteable()));
    let ran = run.succeed();
    report.out(if ran.is_ok() { " done.\n" } else { "(failed)\n" });
    ran.map(drop)
}

fn kernel_image(tree: &Tree, kernel: &KernelRelease) -> Option<PathBuf> {
    let beside_modules = tree.kernel_dir(kernel).join("vmlinuz");
    [beside_modules, tree.path(format!("/boot/vmlinuz-{kernel}"))].into_iter().find(|path| path.is_file())
}

/// The menu that GRUB reads.
pub fn grub_cfg(tree: &Tree) -> Option<PathBuf> {
    ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"]
        .map(|path| tree.path(path))
        .into_iter()
        .find(|path| path.is_file())
}

fn grub_tool(tool: Tool) -> bool {
    tool.find().is_some()
}

/// In /etc a file of the same name overrides the vendor's, a link to /dev/null masks it
/// (kernel-install(8)).
fn plugin_runs(tree: &Tree, name: &str) -> bool {
    let own = tree.path("/etc/kernel/install.d").join(name);
    if files::exists(&own) {
        return files::is_executable(&own);
    }
    files::is_executable(&tree.path("/usr/lib/kernel/install.d").join(name))
}
