// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driver disks of Ubuntu (wiki.ubuntu.com, Ubiquity/DriverUpdates): `ubuntu-drivers/<release>/` with a
//! package for each kernel. dkms has the kernel's version for the release.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::DriverDisk;
use crate::module::Arch;
use crate::package::built::Built;
use crate::package::staging::{plain, write};
use crate::sys::tools::{Run, Tool};

pub(super) fn fill(disk: &DriverDisk<'_>, tree: &Path, work: &Path) -> Result<()> {
    for (at, one) in disk.built.iter().enumerate() {
        let kernel = plain(one.target.kernel.as_str(), "a kernel release")?;
        let release = disk.release.unwrap_or_else(|| kernel.split('-').next().unwrap_or(kernel));
        let to = tree.join("ubuntu-drivers").join(release);
        fs::create_dir_all(&to)?;
        let content = work.join(at.to_string());
        for module in &one.modules {
            write(&content, format!("lib/modules/{kernel}/updates/dkms/{}", module.file), &module.bytes)?;
        }
        write(&content, "DEBIAN/control", control(disk, one)?)?;
        for (name, after) in [("postinst", "configure"), ("postrm", "remove")] {
            write(&content, format!("DEBIAN/{name}"), script(kernel, after))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(content.join("DEBIAN").join(name), mode)?;
        }
        let (name, version) = (disk.id.name(), version(disk.id.version()));
        let deb = to.join(format!("{name}_{version}-{kernel}_{}.deb", one.target.arch));
        // Not zstd, which only Ubuntu's own dpkg knows of old.
        Run::new(Tool::DpkgDeb)?
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&content)
            .arg(deb)
            .succeed()?;
    }
    Ok(())
}

/// One package for each kernel, so that they can be installed beside each other.
fn control(disk: &DriverDisk<'_>, one: &Built) -> Result<String> {
    let kernel = one.target.kernel.as_str();
    let about = one.modules.first().map_or(disk.id.name(), |module| module.description());
    Ok(format!(
        "Package: {}\nVersion: {}\nArchitecture: {}\nSection: kernel\nPriority: optional\n\
         Maintainer: dkms <root@localhost>\nDepends: kmod\n\
         Description: kernel modules of {} {} for {kernel}\n {about}\n",
        package_name(disk.id.name(), kernel),
        version(disk.id.version()),
        debian_architecture(&one.target.arch),
        disk.id.name(),
        disk.id.version(),
    ))
}

/// What makes the modules known, and forgotten.
fn script(kernel: &str, after: &str) -> String {
    format!(
        "#!/bin/sh\nset -e\nif [ \"$1\" = {after} ] && [ -d '/lib/modules/{kernel}/kernel' ]; then\n\
         \tdepmod -a '{kernel}'\n\
         \tif [ -e '/boot/initrd.img-{kernel}' ] && command -v update-initramfs >/dev/null; then\n\
         \t\tupdate-initramfs -u -k '{kernel}'\n\tfi\nfi\n"
    )
}

/// Lower-case letters, digits, `+`, `-` and `.` (deb-control(5)).
fn package_name(name: &str, kernel: &str) -> String {
    let allowed =
        |c: char| if c.is_ascii_alphanumeric() || "+.".contains(c) { c.to_ascii_lowercase() } else { '-' };
    format!("{name}-modules-{kernel}").chars().map(allowed).collect()
}

/// A version begins with a digit (deb-version(7)); an epoch is none of a module's.
fn version(version: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || ".+~-".contains(c) { c } else { '.' };
    let version: String = version.chars().map(allowed).collect();
    if version.starts_with(|c: char| c.is_ascii_digit()) { version } else { format!("0~{version}") }
}

/// What dpkg calls a machine (dpkg-architecture -L).
fn debian_architecture(arch: &Arch) -> &str {
    match arch.as_str() {
        "x86_64" => "amd64",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "aarch64" => "arm64",
        "ppc64le" => "ppc64el",
        "loongarch64" => "loong64",
        arm if arm.starts_with("armv7") => "armhf",
        arm if arm.starts_with("armv") => "armel",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("1.0", "1.0")]
    #[case::word("git-2024", "0~git-2024")]
    #[case::epoch("1:2.0_rc", "1.2.0.rc")]
    fn versions_are_those_of_debian(#[case] of_module: &str, #[case] want: &str) {
        assert_eq!(version(of_module), want);
    }

    #[test]
    fn names_of_packages_are_plain() {
        assert_eq!(package_name("Foo_bar", "6.1~rc1-amd64"), "foo-bar-modules-6.1-rc1-amd64");
    }
}
