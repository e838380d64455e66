// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which kernel this machine boots next when nobody touches a key: from the loader's own files and
//! variables, as they are now. Changes nothing, and says so where it cannot tell.

use fs_err as fs;

use super::bls::{self, Choice, Menu};
use super::clear;
use super::grub::{GrubEnv, Prediction, predict};
use super::loader;
use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::sys::tools::{Run, Tool};
use crate::tree::Tree;

/// The firmware's own choice for one boot (UEFI specification 3.3, "Globally Defined Variables").
const BOOT_NEXT: &str = "/sys/firmware/efi/efivars/BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// systemd-boot as `bootctl install` puts it on the partition.
const SYSTEMD_BOOT: &str = "EFI/systemd";

/// What comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextBoot {
    Kernel {
        kernel: KernelRelease,
        /// The entry as its menu shows it.
        title: String,
        loader: &'static str,
    },
    /// An entry that boots no kernel of this system.
    Other {
        title: String,
        loader: &'static str,
    },
    Unknown {
        why: String,
    },
}

fn unknown(why: impl Into<String>) -> NextBoot {
    NextBoot::Unknown { why: why.into() }
}

/// Foretells the next boot.
pub fn foretell(tree: &Tree) -> NextBoot {
    if files::exists(&tree.path(BOOT_NEXT)) {
        return unknown("the firmware was told what to boot once (BootNext; see efibootmgr)");
    }
    if clear::is_here(tree) {
        return of_clear();
    }
    let booted_by = bls::booted_by(tree).map(|name| name.to_lowercase());
    match booted_by.as_deref() {
        Some(name) if name.starts_with("systemd-boot") => return of_bls(tree).unwrap_or_else(no_menu),
        Some(name) if name.starts_with("grub") => return of_grub(tree).unwrap_or_else(no_menu),
        Some(other) => {
            return unknown(format!("this machine was booted by {other}, whose choice is not known here"));
        }
        None => {}
    }
    if let Some(other) = loader::detect(tree).into_iter().find(|loader| !loader.can_be_foretold()) {
        return unknown(format!("{} is installed, whose choice is not known here", other.name));
    }
    let is_efi = tree.path("/sys/firmware/efi").is_dir();
    let grub = of_grub(tree);
    // Without its program its entries are another loader's: GRUB's on Fedora.
    let is_there =
        ["/efi", "/boot", "/boot/efi"].iter().any(|path| tree.path(path).join(SYSTEMD_BOOT).is_dir());
    let bls = if is_there && (is_efi || grub.is_none()) { of_bls(tree) } else { None };
    match (grub, bls) {
        (Some(one), None) | (None, Some(one)) => one,
        (Some(grub), Some(bls)) if kernel(&grub).is_some() && kernel(&grub) == kernel(&bls) => grub,
        (Some(_), Some(_)) => unknown("GRUB and systemd-boot are both installed and do not agree"),
        (None, None) => unknown("no boot loader that is known here was found"),
    }
}

fn no_menu() -> NextBoot {
    unknown("the menu of the loader that booted this machine was not found (is its partition mounted?)")
}

fn kernel(next: &NextBoot) -> Option<&KernelRelease> {
    match next {
        NextBoot::Kernel { kernel, .. } => Some(kernel),
        _ => None,
    }
}

fn of_bls(tree: &Tree) -> Option<NextBoot> {
    let loader = loader::BLS;
    let menu = Menu::read(tree)?;
    Some(match menu.wishes.choose(&menu.entries) {
        Choice::Entry(entry) => match &entry.kernel {
            Some(kernel) => NextBoot::Kernel { kernel: kernel.clone(), title: entry.title.clone(), loader },
            None => NextBoot::Other { title: entry.title.clone(), loader },
        },
        Choice::Automatic(id) => NextBoot::Other { title: id, loader },
        Choice::Nothing => unknown("systemd-boot has no entries"),
    })
}

/// The menu is on a partition that is not mounted but by clr-boot-manager.
fn of_clear() -> NextBoot {
    let loader = loader::CLEAR;
    let listed = Run::new(Tool::ClrBootManager).and_then(|run| run.arg("list-kernels").succeed());
    match listed {
        Ok(list) => match clear::listed_default(&String::from_utf8_lossy(&list)) {
            Some(kernel) => NextBoot::Kernel { title: kernel.to_string(), kernel, loader },
            None => unknown("clr-boot-manager list-kernels marks no default"),
        },
        Err(error) => unknown(format!("{error:#}")),
    }
}

fn of_grub(tree: &Tree) -> Option<NextBoot> {
    let path = loader::grub_cfg(tree)?;
    let cfg = match files::read_if_there(&path) {
        Ok(cfg) => cfg?,
        Err(error) => return Some(unknown(format!("{error:#}"))),
    };
    let env = env(tree, path.parent()?, &cfg);
    if let Some(next) = saved_entry(tree, &env) {
        return Some(next);
    }
    let loader = loader::GRUB;
    Some(match predict(&cfg, &env) {
        Prediction::Entry { kernel: Some(kernel), titles, .. } => {
            NextBoot::Kernel { kernel, title: titles.join(" > "), loader }
        }
        Prediction::Entry { titles, .. } => NextBoot::Other { title: titles.join(" > "), loader },
        Prediction::Unknown { why } => unknown(why),
    })
}

/// The entry that GRUB's blscfg takes, where grub2-set-default or Fedora's kernel-install plugin has
/// saved one that is still there. Otherwise it is the first in an order of its own.
fn saved_entry(tree: &Tree, env: &GrubEnv) -> Option<NextBoot> {
    if !loader::grub_takes_entries(tree) {
        return None;
    }
    let wanted =
        ["next_entry", "saved_entry"].into_iter().filter_map(|name| env.get(name)).find(|id| !id.is_empty());
    let id = format!("{}.conf", wanted?.to_lowercase());
    let entry = Menu::read(tree)?.entries.into_iter().find(|entry| entry.id == id)?;
    Some(NextBoot::Kernel { kernel: entry.kernel?, title: entry.title, loader: loader::GRUB_BLS })
}

/// What GRUB will find beside a grub.cfg with this text.
pub fn env(tree: &Tree, directory: &std::path::Path, cfg: &str) -> GrubEnv {
    let block = fs::read(directory.join("grubenv")).unwrap_or_default();
    let mut env = GrubEnv::parse(&block);
    if let Ok(Some(custom)) = files::read_if_there(&directory.join("custom.cfg")) {
        env = env.with_file("custom.cfg", &custom);
    }
    let missing = images(cfg).filter(|image| {
        let name = image.rsplit('/').next().unwrap_or(image);
        // Paths are the file system's that GRUB reads: /boot may be one of its own, or a subvolume.
        !tree.path("/boot").join(name).exists() && !tree.path(image).exists()
    });
    missing.fold(env, |env, image| env.with_missing(image))
}

/// The kernel images that a grub.cfg names.
fn images(cfg: &str) -> impl Iterator<Item = &str> {
    let words = cfg.lines().flat_map(str::split_whitespace).map(|word| word.trim_matches(['"', '\'', ';']));
    words.filter(|word| {
        let name = word.rsplit('/').next().unwrap_or_default();
        word.starts_with('/') && (name.starts_with("vmlinuz-") || name.starts_with("vmlinux-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::bls::fixture::Partition;
    use rstest::rstest;

    const CFG: &str = "load_env\nset default=\"${saved_entry}\"\n\
        menuentry 'New' --id new { linux /boot/vmlinuz-6.12\n }\n\
        menuentry 'Old' --id old { linux /boot/vmlinuz-6.1\n }\n";

    /// What is on the machine: its loaders and what they say of themselves.
    fn machine(what: &str) -> Partition {
        let machine = Partition::new();
        for word in what.split(' ') {
            match word.split_once('=').unwrap_or((word, "")) {
                ("grub", saved) => {
                    machine.write("boot/grub/grub.cfg", CFG.as_bytes());
                    let block = format!("# GRUB Environment Block\nsaved_entry={saved}\n");
                    machine.write("boot/grub/grubenv", block.as_bytes());
                    machine.write("boot/vmlinuz-6.1", b"");
                    machine.write("boot/vmlinuz-6.12", b"");
                }
                ("sd-boot", default) => {
                    machine.entry("6.1");
                    machine.entry("6.12");
                    machine.write("boot/efi/EFI/systemd/systemd-bootx64.efi", b"");
                    machine.write("boot/efi/loader/loader.conf", format!("default {default}\n").as_bytes());
                }
                ("entries", _) => {
                    machine.entry("6.1");
                    machine.entry("6.12");
                }
                ("blscfg", saved) => {
                    machine.write("boot/grub/grub.cfg", b"insmod blscfg\nblscfg\n");
                    let block = format!("# GRUB Environment Block\nsaved_entry={saved}\n");
                    machine.write("boot/grub/grubenv", block.as_bytes());
                }
                ("efi", "") => machine.write("sys/firmware/efi/fw_platform_size", b"64"),
                ("efi", by) => machine.variable("LoaderInfo", by),
                ("boot-next", _) => machine.write(&BOOT_NEXT[1..], &[7, 0, 0, 0, 1, 0]),
                ("extlinux", _) => machine.write("boot/extlinux/extlinux.conf", b""),
                _ => {}
            }
        }
        machine
    }

    #[rstest]
    #[case::grub("grub", "6.12 by GRUB")]
    #[case::grub_saved("grub=old", "6.1 by GRUB")]
    #[case::systemd_boot("sd-boot", "6.12 by systemd-boot")]
    #[case::systemd_boot_default("efi sd-boot=*6.1.conf", "6.1 by systemd-boot")]
    #[case::leftovers_on_bios("grub=old sd-boot", "6.1 by GRUB")]
    #[case::both_agree("efi grub=old sd-boot=*6.1.conf", "6.1 by GRUB")]
    #[case::both_differ("efi grub=old sd-boot", "unknown")]
    #[case::both_and_one_has_booted("efi=systemd-boot grub=old sd-boot", "6.12 by systemd-boot")]
    #[case::both_and_the_other_has_booted("efi=GRUB grub=old sd-boot", "6.1 by GRUB")]
    #[case::another_has_booted("efi=rEFInd grub sd-boot", "unknown")]
    #[case::entries_without_a_loader("efi grub entries", "6.12 by GRUB")]
    #[case::entries_of_grub_saved("efi blscfg=m-6.1 entries", "6.1 by GRUB (blscfg)")]
    #[case::entries_of_grub_not_saved("efi blscfg entries", "unknown")]
    #[case::entries_of_grub_saved_and_gone("efi blscfg=m-5.10 entries", "unknown")]
    #[case::firmware_was_told("efi boot-next sd-boot", "unknown")]
    #[case::other_loader("grub extlinux", "unknown")]
    #[case::menu_not_mounted("efi=systemd-boot", "unknown")]
    #[case::nothing("", "unknown")]
    fn the_next_boot_is_foretold(#[case] what: &str, #[case] want: &str) {
        let said = match foretell(&machine(what).tree) {
            NextBoot::Kernel { kernel, loader, .. } => format!("{kernel} by {loader}"),
            NextBoot::Other { title, .. } => title,
            NextBoot::Unknown { .. } => "unknown".to_owned(),
        };
        assert_eq!(said, want);
    }

    #[test]
    fn a_kernel_whose_image_is_gone_is_not_foretold() {
        let machine = machine("grub");
        fs::remove_file(machine.tree.path("/boot/vmlinuz-6.12")).unwrap();
        let NextBoot::Unknown { why } = foretell(&machine.tree) else { panic!() };
        assert!(why.contains("/boot/vmlinuz-6.12 is missing"), "{why}");
    }
}
