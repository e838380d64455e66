// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a new image will fit: generators that run out of space leave half an image, or none.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;
use nix::sys::statvfs::statvfs;

use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::tree::Tree;

const MIB: u64 = 1 << 20;

/// Fails if what is free where an image goes is less than images take here. The new one is written
/// beside the old one by most generators, so the old one's space does not count. Nothing is known,
/// and nothing refused, before the first image.
pub(super) fn check(tree: &Tree, kernel: &KernelRelease, images: &[PathBuf]) -> Result<()> {
    let boot = tree.path("/boot");
    let Some(takes) = largest(images).or_else(|| largest(&others(&boot))) else { return Ok(()) };
    let place = images.first().and_then(|image| image.parent()).unwrap_or(&boot);
    let Ok(stat) = statvfs(place) else { return Ok(()) };
    judge(place, kernel, takes, stat.blocks_available() * stat.fragment_size())
}

/// `takes` and `free` in bytes.
fn judge(place: &Path, kernel: &KernelRelease, takes: u64, free: u64) -> Result<()> {
    if free < takes {
        bail!(
            "{} has {} MiB left and an initramfs takes {} MiB; make room there (old kernels: apt autoremove, dnf \
             remove --oldinstallonly), then run: dkms autoinstall -k {kernel}",
            place.display(),
            free / MIB,
            takes.div_ceil(MIB),
        );
    }
    Ok(())
}

/// In bytes.
fn largest(images: &[PathBuf]) -> Option<u64> {
    images.iter().filter_map(|image| Some(fs::metadata(image).ok()?.len())).max()
}

/// The images of other kernels.
fn others(boot: &Path) -> Vec<PathBuf> {
    let is_image = |name: &String| name.starts_with("initrd") || name.starts_with("initramfs");
    let names = files::names(boot).unwrap_or_default();
    names.into_iter().filter(is_image).map(|name| boot.join(name)).filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::fits(40 * MIB, 41 * MIB, None)]
    #[case::just(40 * MIB, 40 * MIB, None)]
    #[case::does_not(40 * MIB + 1, 12 * MIB, Some("/boot has 12 MiB left and an initramfs takes 41 MiB"))]
    fn an_image_needs_its_space(#[case] takes: u64, #[case] free: u64, #[case] want: Option<&str>) {
        let said = judge(Path::new("/boot"), &"6.1".parse().unwrap(), takes, free).err();
        assert_eq!(said.is_some(), want.is_some(), "{said:?}");
        if let (Some(said), Some(want)) = (said, want) {
            assert!(said.to_string().starts_with(want), "{said}");
        }
    }

    #[test]
    fn the_size_is_that_of_the_images_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        let kernel = "6.12".parse().unwrap();
        fs::create_dir(dir.path().join("boot")).unwrap();
        check(&tree, &kernel, &[]).unwrap();
        // Larger than any disk, and takes no space.
        let image = dir.path().join("boot/initrd.img-6.1");
        fs::File::create(&image).unwrap().set_len(1 << 42).unwrap();
        assert!(check(&tree, &kernel, &[]).is_err());
        let own = dir.path().join("boot/initrd.img-6.12");
        fs::write(&own, "image").unwrap();
        check(&tree, &kernel, &[own]).unwrap();
    }
}
