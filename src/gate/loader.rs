// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which boot loaders this machine has, whether a hold of ours works with each, and the update
//! that a held kernel was denied.

use std::path::PathBuf;

use anyhow::Result;

use super::grub::GrubEnv;
use super::verdict::Verdict;
use super::{bls, clear};
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
        matches!(self.name, GRUB | GRUB_BLS | BLS | CLEAR)
    }
}

pub(super) const GRUB: &str = "GRUB";
pub(super) const BLS: &str = "systemd-boot";
/// GRUB that takes its entries from where systemd-boot does: Fedora's and its kin's.
pub(super) const GRUB_BLS: &str = "GRUB (blscfg)";
/// Whatever clr-boot-manager keeps, which may be one of the others.
pub(super) const CLEAR: &str = "clr-boot-manager";

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
    if clear::is_here(tree) {
        let trouble = clear::trouble(tree);
        let hold = trouble.is_none();
        let how = trouble.unwrap_or_else(|| "it is called when every default kernel may boot".to_owned());
        return vec![Loader { name: CLEAR, hold, how }];
    }
    let mut found = Vec::new();
    let takes_entries = grub_takes_entries(tree);
    if !takes_entries
        && grub_cfg(tree).is_some()
        && (grub_tool(Tool::GrubMkconfig) || grub_tool(Tool::UpdateGrub))
    {
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
        let name = if takes_entries { GRUB_BLS } else { BLS };
        found.push(Loader { name, hold: missing.is_none(), how });
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

/// Gives a kernel that has become fit what it was denied: its held entries and the update of the
/// boot loader. No lock may be held.
pub fn release(tree: &Tree, kernel: &KernelRelease, report: &Report) -> Result<()> {
    bls::put_back(tree, kernel)?;
    if !holds(tree) {
        return Ok(());
    }
    for loader in detect(tree) {
        let run = match loader.name {
            GRUB => remake_menu(tree)?,
            BLS | GRUB_BLS => {
                let Some(image) = kernel_image(tree, kernel) else { continue };
                let run = Run::new(Tool::KernelInstall)?.arg("add").arg(kernel).arg(image);
                let initrd = tree.path(format!("/boot/initrd.img-{kernel}"));
                Some(if initrd.is_file() { run.arg(initrd) } else { run })
            }
            CLEAR => {
                update_clear(tree, report)?;
                None
            }
            _ => None,
        };
        if let Some(run) = run {
            shown(run, report)?;
        }
    }
    Ok(())
}

/// Has clr-boot-manager update the boot loader, unless one of the kernels that it would make the
/// default may not boot.
pub fn update_clear(tree: &Tree, report: &Report) -> Result<()> {
    for kernel in clear::defaults(tree)? {
        if Verdict::load(tree, &kernel)?.is_some_and(|verdict| !verdict.standing.may_boot()) {
            report.err(format_args!(
                "dkms: the boot loader is not updated, kernel {kernel} is held; see: dkms gate"
            ));
            return Ok(());
        }
    }
    shown(Run::new(Tool::ClrBootManager)?.arg("update"), report)
}

/// Keeps a kernel that has become unfit from being the default where it is in a menu already: GRUB
/// is asked again, entries that a loader finds by itself are taken out. No lock may be held.
/// `may_boot` tells of other kernels whether they are fit.
pub fn withhold(
    tree: &Tree,
    kernel: &KernelRelease,
    may_boot: &dyn Fn(&KernelRelease) -> bool,
    report: &Report,
) -> Result<()> {
    shelve_entries(tree, kernel, may_boot, report)?;
    if detect(tree).iter().any(|loader| loader.name == GRUB && loader.hold)
        && let Some(run) = remake_menu(tree)?
    {
        shown(run, report)?;
    }
    Ok(())
}

/// Takes the entries that a loader finds by itself out of its menu for a kernel that is held.
pub fn shelve_entries(
    tree: &Tree,
    kernel: &KernelRelease,
    may_boot: &dyn Fn(&KernelRelease) -> bool,
    report: &Report,
) -> Result<()> {
    match bls::hold(tree, kernel, may_boot)? {
        bls::Shelved::NotThere => {}
        bls::Shelved::Held(entries) => {
            for entry in &entries {
                report.err(format_args!("dkms: the boot entry {} is held back", entry.display()));
            }
            save_another(tree, &entries, may_boot)?;
        }
        bls::Shelved::LastOne => report.err(format_args!(
            "dkms: WARNING: kernel {kernel} stays in the boot menu: there is no other kernel to boot"
        )),
    }
    Ok(())
}

/// Fedora's kernel-install plugin saves the newest kernel as GRUB's default as soon as it comes: where
/// that is held now, the newest one that may boot takes its place.
fn save_another(tree: &Tree, held: &[PathBuf], may_boot: &dyn Fn(&KernelRelease) -> bool) -> Result<()> {
    let Some(cfg) = grub_cfg(tree).filter(|_| grub_takes_entries(tree)) else { return Ok(()) };
    let block = cfg.with_file_name("grubenv");
    let env = GrubEnv::parse(&fs_err::read(&block).unwrap_or_default());
    let is_saved =
        |entry: &PathBuf| entry.file_stem().and_then(|name| name.to_str()) == env.get("saved_entry");
    if let Some(newest) = bls::newest(tree, may_boot).filter(|_| held.iter().any(is_saved)) {
        let run = Run::new(Tool::GrubEditenv)?.arg(&block).arg("set").arg(format!("saved_entry={newest}"));
        run.succeed()?;
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

/// The image that a kernel boots from, where it usually is.
pub fn kernel_image(tree: &Tree, kernel: &KernelRelease) -> Option<PathBuf> {
    let beside_modules = tree.kernel_dir(kernel).join("vmlinuz");
    [beside_modules, tree.path(format!("/boot/vmlinuz-{kernel}"))].into_iter().find(|path| path.is_file())
}

pub(super) fn grub_takes_entries(tree: &Tree) -> bool {
    let text = grub_cfg(tree).and_then(|cfg| files::read_if_there(&cfg).ok()?);
    text.is_some_and(|text| text.lines().any(|line| line.trim() == "blscfg"))
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
