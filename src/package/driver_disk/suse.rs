// SPDX-License-Identifier: MIT OR Apache-2.0
//! Update media of SUSE (Update-Media-HOWTO; linuxrc, util.c): `linux/suse/<arch>-<release>/` with the
//! modules that the installer's own kernel is given, and what is unpacked into the new system.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::{DriverDisk, Layout, by_arch};
use crate::package::built::Built;
use crate::package::compression::Compression;
use crate::package::staging::write;
use crate::package::tarball::Tarball;

pub(super) fn fill(disk: &DriverDisk<'_>, tree: &Path) -> Result<()> {
    let vendor = if disk.layout == Layout::UnitedLinux { "UnitedLinux" } else { "suse" };
    let release = disk.release.unwrap_or_default();
    for (arch, kernels) in by_arch(disk.built) {
        let directory = tree.join("linux").join(vendor).join(format!("{}-{release}", architecture(arch)));
        write(&directory, "dud.config", config(disk, arch, &kernels))?;
        // An installer has one kernel, the first that was named, and unpacks nothing.
        if let Some(first) = kernels.first() {
            let mut order = String::new();
            for module in &first.modules {
                write(&directory, format!("modules/{}.ko", module.name), module.image()?)?;
                let _ = writeln!(order, "{}", module.name);
            }
            write(&directory, "modules/module.order", order)?;
        }
        install(&directory, &kernels)?;
    }
    Ok(())
}

/// What becomes of the new system: `update.tar.gz` is unpacked at its root, then `update.post` is run.
fn install(directory: &Path, kernels: &[&Built]) -> Result<()> {
    let staged = tempfile::tempdir_in(directory)?;
    let mut tarball = Tarball::new([]);
    let mut script =
        "#!/bin/sh\n# The modules are there, below /mnt or, if that is where this runs, in it.\n".to_owned();
    for one in kernels {
        let kernel = one.target.kernel.as_str();
        for module in &one.modules {
            // No directories: where /lib is a link, an entry for it would take its place.
            let path = format!("lib/modules/{kernel}/updates/{}", module.file);
            write(staged.path(), &path, &module.bytes)?;
            tarball.file(&path, &staged.path().join(&path));
        }
        let _ = write!(
            script,
            "for root in /mnt /; do\n\t[ ! -d \"$root/lib/modules/{kernel}\" ] || depmod -b \"$root\" -a '{kernel}'\ndone\n"
        );
    }
    let to = directory.join("install");
    fs_err::create_dir(&to)?;
    tarball.write(&to.join("update.tar.gz"), Compression::Gzip)?;
    write(&to, "update.post", script + "exit 0\n")
}

/// `dud.config`: what the installer shows, and by what it knows an update that it has had already.
fn config(disk: &DriverDisk<'_>, arch: &str, kernels: &[&Built]) -> String {
    let mut digest = blake3::Hasher::new();
    for module in kernels.iter().flat_map(|one| &one.modules) {
        digest.update(&module.bytes);
    }
    let id = digest.finalize().to_hex();
    format!("UpdateName: {} {} ({arch})\nUpdateID: {}\n", disk.id.name(), disk.id.version(), &id[..32])
}

/// SUSE calls all 32-bit PCs i386.
fn architecture(arch: &str) -> &str {
    if matches!(arch, "i486" | "i586" | "i686") { "i386" } else { arch }
}
