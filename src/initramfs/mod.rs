// SPDX-License-Identifier: MIT OR Apache-2.0
//! Initial RAM file systems: which generator this system has, running it once for a kernel, and
//! finding a kernel's image. Does not decide on the boot.

pub mod image;
mod space;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::conf::policy::Generator;
use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Run, Tool};
use crate::tree::Tree;

/// Where boot loaders' partitions are mounted (Boot Loader Specification, "Mount Points").
const BOOT_PARTITIONS: [&str; 3] = ["/boot", "/efi", "/boot/efi"];

/// Set for a generator that we run, and for the hooks that it calls.
pub const BY_US: &str = "DKMS_REMAKES_INITRAMFS";

/// Files that a boot loader hands to the kernel together, as one initramfs.
pub type Joined = Vec<PathBuf>;

/// The generator to use: the policy's, else the first one that is installed.
pub fn generator(wish: Generator) -> Option<Tool> {
    let tool = match wish {
        Generator::UpdateInitramfs => Tool::UpdateInitramfs,
        Generator::Dracut => Tool::Dracut,
        Generator::Mkinitcpio => Tool::Mkinitcpio,
        Generator::Mkinitfs => Tool::Mkinitfs,
        Generator::Booster => Tool::Booster,
        Generator::None => return None,
        Generator::Auto => {
            return [Tool::UpdateInitramfs, Tool::Dracut, Tool::Mkinitcpio, Tool::Booster, Tool::Mkinitfs]
                .into_iter()
                .find(|tool| tool.find().is_some());
        }
    };
    Some(tool)
}

/// Makes the image of one kernel anew. No lock may be held: generators call hooks, which call us.
pub fn remake(tree: &Tree, kernel: &KernelRelease, wish: Generator, report: &Report) -> Result<()> {
    let Some(tool) = generator(wish) else {
        bail!("no initramfs generator is installed (update-initramfs, dracut, mkinitcpio, booster, mkinitfs)")
    };
    let images = images(tree, kernel);
    space::check(tree, kernel, &images)?;
    let image = images.into_iter().next();
    let run = Run::new(tool)?.env(BY_US, "1");
    let run = match tool {
        // -u refuses a kernel that has no image yet (update-initramfs(8)).
        Tool::UpdateInitramfs => run.arg(if image.is_some() { "-u" } else { "-c" }).arg("-k").arg(kernel),
        Tool::Dracut => run.args(["--force", "--kver"]).arg(kernel),
        Tool::Mkinitcpio => match preset(tree, kernel)? {
            Some(preset) => run.arg("-p").arg(preset),
            None => {
                run.arg("-k").arg(kernel).arg("-g").arg(image.unwrap_or_else(|| default_image(tree, kernel)))
            }
        },
        Tool::Mkinitfs => match image {
            Some(image) => run.arg("-o").arg(image).arg(kernel),
            // It knows the name: initramfs-FLAVOR.
            None => run.arg(kernel),
        },
        _ => run
            .args(["build", "--force", "--kernel-version"])
            .arg(kernel)
            .arg(image.unwrap_or_else(|| default_image(tree, kernel))),
    };
    if report.is_verbose() {
        report.line(run.pasteable());
    } else {
        report.out(format!("Remaking the initramfs of {kernel}..."));
    }
    let remade = run.succeed().with_context(|| format!("remaking the initramfs of {kernel}"));
    report.out(if remade.is_ok() { " done.\n" } else { "(failed)\n" });
    remade.map(drop)
}

fn default_image(tree: &Tree, kernel: &KernelRelease) -> PathBuf {
    tree.path(format!("/boot/initramfs-{kernel}.img"))
}

/// Arch's kernels have one package name each; presets and images are called after it.
fn package_base(tree: &Tree, kernel: &KernelRelease) -> Result<Option<String>> {
    let text = files::read_if_there(&tree.kernel_dir(kernel).join("pkgbase"))?;
    Ok(text.map(|text| text.trim().to_owned()).filter(|name| !name.is_empty() && !name.contains('/')))
}

/// Alpine's kernels are one of each flavor, after which the image is called; a file of the package
/// says which release that is.
fn flavor<'a>(tree: &Tree, kernel: &'a KernelRelease) -> Option<&'a str> {
    // VERSION-PKGREL-FLAVOR.
    let flavor = kernel.as_str().splitn(3, '-').nth(2)?;
    let file = tree.path("/usr/share/kernel").join(flavor).join("kernel.release");
    let owner = files::read_if_there(&file).ok()??;
    (owner.trim() == kernel.as_str()).then_some(flavor)
}

fn preset(tree: &Tree, kernel: &KernelRelease) -> Result<Option<String>> {
    let base = package_base(tree, kernel)?;
    Ok(base.filter(|base| tree.path(format!("/etc/mkinitcpio.d/{base}.preset")).is_file()))
}

/// The images that are there for a kernel, under all names that generators and boot loaders use.
pub fn images(tree: &Tree, kernel: &KernelRelease) -> Vec<PathBuf> {
    let mut names = vec![
        format!("initrd.img-{kernel}"),
        format!("initramfs-{kernel}.img"),
        format!("initrd-{kernel}"),
        format!("initramfs-{kernel}"),
        format!("booster-{kernel}.img"),
    ];
    if let Ok(Some(base)) = package_base(tree, kernel) {
        names.push(format!("initramfs-{base}.img"));
        names.push(format!("booster-{base}.img"));
    }
    if let Some(flavor) = flavor(tree, kernel) {
        names.push(format!("initramfs-{flavor}"));
    }
    let mut found: Vec<PathBuf> =
        names.iter().map(|name| tree.path("/boot").join(name)).filter(|path| path.is_file()).collect();
    for partition in BOOT_PARTITIONS.map(|partition| tree.path(partition)) {
        for token in files::names(&partition).unwrap_or_default() {
            found.extend(initrds_in(&partition.join(token).join(kernel)));
        }
        // Unified kernel images carry theirs inside.
        for file in files::names(&partition.join("EFI/Linux")).unwrap_or_default() {
            if uki_is_of(&file, kernel) {
                found.push(partition.join("EFI/Linux").join(file));
            }
        }
    }
    found
}

/// `TOKEN-K.efi`, possibly with a boot counter (`TOKEN-K+3-0.efi`, systemd-boot(7)).
fn uki_is_of(file: &str, kernel: &KernelRelease) -> bool {
    let Some(stem) = file.strip_suffix(".efi") else { return false };
    let ends = |stem: &str| stem.strip_suffix(kernel.as_str()).is_some_and(|token| token.ends_with('-'));
    ends(stem) || stem.rsplit_once('+').is_some_and(|(stem, _)| ends(stem))
}

/// The files in an entry directory or a staging area that are initrds by their name.
pub fn initrds_in(directory: &Path) -> Vec<PathBuf> {
    files::names(directory)
        .unwrap_or_default()
        .iter()
        .filter(|name| name.starts_with("initrd") || name.starts_with("initramfs") || *name == "uki.efi")
        .map(|name| directory.join(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_under_the_names_of_several_distributions() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let want = ["boot/initrd.img-6.1", "boot/abc/6.1/initrd.img-6.1", "efi/EFI/Linux/abc-6.1.efi"];
        let others = ["boot/initrd.img-6.12", "boot/abc/6.12/initrd", "efi/EFI/Linux/abc-6.12.efi"];
        for name in want.iter().copied().chain(others) {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        let kernel = "6.1".parse().unwrap();
        assert_eq!(images(&tree, &kernel), want.map(|name| dir.path().join(name)));
    }

    #[test]
    fn the_image_of_a_flavor_is_of_the_release_that_its_package_names() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        for (name, text) in [
            ("usr/share/kernel/lts/kernel.release", "6.6.30-0-lts\n"),
            ("boot/initramfs-lts", ""),
            ("boot/initramfs-virt", ""),
        ] {
            let path = dir.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        assert_eq!(images(&tree, &"6.6.30-0-lts".parse().unwrap()), [dir.path().join("boot/initramfs-lts")]);
        assert_eq!(images(&tree, &"6.6.28-0-lts".parse().unwrap()), Vec::<PathBuf>::new());
        assert_eq!(images(&tree, &"6.6.30-0-virt".parse().unwrap()), Vec::<PathBuf>::new());
    }
}
