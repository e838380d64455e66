// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driver disks since RHEL 6 (anaconda, docs/driverdisc.rst, "DDv3"): a marker that tells what the disk
//! is, and for each architecture a repository of packages with modules in them. Makes those packages.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::{DriverDisk, by_arch};
use crate::package::built::Built;
use crate::package::staging::{plain, write};
use crate::sys::tools::{Run, Tool};

pub(super) fn fill(disk: &DriverDisk<'_>, tree: &Path, work: &Path) -> Result<()> {
    write(tree, "rhdd3", format!("{}\n", disk.title()))?;
    for (arch, kernels) in by_arch(disk.built) {
        let packages = tree.join("rpms").join(plain(arch, "an architecture")?);
        fs::create_dir_all(&packages)?;
        let work = work.join(arch);
        build(disk, arch, &kernels, &work, &packages)?;
        // Its own cache and history are of no use on a disk.
        Run::new(Tool::CreaterepoC)?.args(["--quiet", "--no-database"]).arg(&packages).succeed()?;
    }
    Ok(())
}

/// One package with the modules for all kernels of an architecture: two versions of one package would
/// not be installed beside each other.
fn build(disk: &DriverDisk<'_>, arch: &str, kernels: &[&Built], work: &Path, to: &Path) -> Result<()> {
    let files = work.join("files");
    for one in kernels {
        let kernel = plain(one.target.kernel.as_str(), "a kernel release")?;
        for module in &one.modules {
            let file = plain(&module.file, "the name of a module")?;
            write(&files, format!("{}/{file}", directory(disk, kernel)), &module.bytes)?;
        }
    }
    let spec = work.join("kmod.spec");
    fs::write(&spec, text(disk, kernels)?)?;
    let define = |name: &str, value: &str| ["--define".to_owned(), format!("{name} {value}")];
    let paths = [("_topdir", work), ("_sourcedir", &files), ("_rpmdir", to)];
    let paths = paths.iter().flat_map(|(name, path)| define(name, &path.display().to_string()));
    Run::new(Tool::Rpmbuild)?
        .args(["-bb", "--quiet", "--target", arch])
        .args(paths)
        .args(define("_rpmfilename", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"))
        // Modules are done: to strip them would take their signatures away.
        .args(define("__os_install_post", "%{nil}"))
        .args(define("debug_package", "%{nil}"))
        .args(define("_build_id_links", "none"))
        // What the oldest of these installers can unpack and verify.
        .args(define("_binary_payload", "w9.gzdio"))
        .args(define("_binary_filedigest_algorithm", "8"))
        .arg(&spec)
        .succeed()
        .map(drop)
}

/// Where a kernel's modules are in the package, relative to the root.
fn directory(disk: &DriverDisk<'_>, kernel: &str) -> String {
    format!("lib/modules/{kernel}/extra/{}", disk.id.name())
}

/// The package's description. The installer goes by what it provides: `kernel-modules`, with the release
/// of a kernel. weak-modules lets kernels with the same interface have the modules, too.
fn text(disk: &DriverDisk<'_>, kernels: &[&Built]) -> Result<String> {
    let (name, version) = (plain(disk.id.name(), "a name")?, version(disk.id.version()));
    let (mut provides, mut files, mut added, mut gone) =
        (String::new(), String::new(), String::new(), String::new());
    for one in kernels {
        let kernel = one.target.kernel.as_str();
        let directory = directory(disk, kernel);
        provides += &format!("Provides: kernel-modules = {}\n", kernel_version(kernel));
        files += &format!("/{directory}\n");
        for module in &one.modules {
            provides += &format!("Provides: kmod({}) = {}\n", module.file, version);
        }
        let paths: Vec<String> =
            one.modules.iter().map(|module| format!("/{directory}/{}", module.file)).collect();
        let paths = paths.join(" ");
        let each = |verb: &str| {
            format!(
                "if [ -d /lib/modules/{kernel}/kernel ]; then depmod -a {kernel}; fi\n\
                 if [ -x /sbin/weak-modules ]; then printf '%s\\n' {paths} | /sbin/weak-modules {verb} --no-initramfs; fi\n"
            )
        };
        added += &each("--add-modules");
        gone += &each("--remove-modules");
    }
    let mut licenses: Vec<&str> = kernels
        .iter()
        .flat_map(|one| &one.modules)
        .map(|module| module.info.get("license").unwrap_or("unknown"))
        .collect();
    licenses.sort_unstable();
    licenses.dedup();
    // Those who are asked to type something would have to type it into an installer.
    let license = licenses.join(" and ").replace('%', "%%");
    Ok(format!(
        "Name: kmod-{name}\nVersion: {version}\nRelease: 1\nSummary: The kernel modules of {name}\n\
         License: {license}\nAutoReqProv: no\nRequires(post): kmod\nRequires(postun): kmod\n\
         Provides: {name}-kmod = {version}\n{provides}\n\
         %description\nModules of {name} {version}, built for the kernels that this package names.\n\n\
         %install\ncp -a '%{{_sourcedir}}/.' %{{buildroot}}\n\n\
         %post\n{added}exit 0\n\n%postun\n{gone}exit 0\n\n%files\n%defattr(-,root,root)\n{files}"
    ))
}

/// rpm's versions have no hyphen: what follows one is the release.
fn version(version: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._+~^".contains(c) { c } else { '_' };
    version.chars().map(allowed).collect()
}

/// A kernel's release as rpm knows it: version and release, as Red Hat's kernels are named. Others
/// have further hyphens.
fn kernel_version(kernel: &str) -> String {
    match kernel.split_once('-') {
        Some((version, release)) => format!("{version}-{}", release.replace('-', "_")),
        None => kernel.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::red_hat("4.18.0-80.el8.x86_64", "4.18.0-80.el8.x86_64")]
    #[case::debian("6.1.0-56-amd64", "6.1.0-56_amd64")]
    #[case::bare("6.1", "6.1")]
    fn releases_of_kernels_are_versions_of_rpm(#[case] kernel: &str, #[case] want: &str) {
        assert_eq!(kernel_version(kernel), want);
    }

    #[test]
    fn versions_have_what_rpm_allows() {
        assert_eq!(version("0.12.7+dfsg~1-2"), "0.12.7+dfsg~1_2");
    }
}
