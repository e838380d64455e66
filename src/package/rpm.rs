// SPDX-License-Identifier: MIT OR Apache-2.0
//! rpm packages of modules, made by rpmbuild: what a spec is told of the module, and where
//! everything lies for it. Which spec, and what goes into the package, is decided in `commands`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::module::{ModuleId, Target};
use crate::sys::files;
use crate::sys::tools::{Run, Tool};

/// Where rpmbuild finds what is packed, below its top directory.
pub const SOURCES: &str = "SOURCES";

/// What a spec knows of the module: macros by name.
///
/// dkms has always told `module_name`, `version`, `kernel_versions` and `mktarball_line`, and specs
/// in modules' sources take `_dkmsdir` and `_srcdir` as well if they are there. `module_version` and
/// `rpm_version` are ours: the tag `Version` takes the place of `version`, and takes no hyphen.
///
/// `_srcdir` is where the package puts the source, whatever tree it comes from here.
pub fn macros(
    id: &ModuleId,
    targets: &[Target],
    options: &str,
    (dkms_tree, source_tree): (&Path, &str),
) -> Vec<(&'static str, String)> {
    let kernels: Vec<_> = targets.iter().map(|target| target.kernel.as_str()).collect();
    let of_targets = |target: &Target| format!("-k {} -a {}", target.kernel, target.arch);
    let mut line: Vec<String> = targets.iter().map(of_targets).collect();
    line.extend(Some(options).filter(|options| !options.is_empty()).map(str::to_owned));
    // Nothing of such a package was built: dkms's word for specs that ask before they call mktarball.
    let source_only = targets.is_empty();
    vec![
        ("module_name", id.name().to_owned()),
        ("version", id.version().to_owned()),
        ("kernel_versions", if source_only { "source-only".to_owned() } else { kernels.join(" ") }),
        ("mktarball_line", if source_only { "none".to_owned() } else { line.join(" ") }),
        ("_dkmsdir", dkms_tree.display().to_string()),
        ("_srcdir", source_tree.to_owned()),
        ("module_version", id.version().to_owned()),
        ("rpm_version", version(id.version())),
    ]
}

/// A module's version as the tag `Version` takes it (rpm-version(7)): letters, digits and `._+~^`.
fn version(text: &str) -> String {
    let fit = |c: char| match c {
        '-' => '_',
        _ if c.is_ascii_alphanumeric() || "._+~^".contains(c) => c,
        _ => '.',
    };
    text.chars().map(fit).collect()
}

/// A spec with its macros defined in it, so that the source package can be built without dkms.
fn with_macros(spec: &str, macros: &[(&str, String)]) -> String {
    let define = |(name, value): &(&str, String)| format!("%global {name} {}\n", value.replace('%', "%%"));
    macros.iter().map(define).chain([spec.to_owned()]).collect()
}

/// Makes the packages that a spec describes, in the directory `top`, whose [`SOURCES`] are filled.
/// Returns the source package and what was made of it.
///
/// Fails if rpmbuild is not installed, and with its last words if it fails.
pub fn build(
    top: &Path,
    id: &ModuleId,
    spec: &str,
    macros: &[(&'static str, String)],
) -> Result<Vec<PathBuf>> {
    let place = top.join("SPECS").join(format!("{}.spec", id.name()));
    fs::create_dir_all(files::parent(&place)?)?;
    fs::write(&place, with_macros(spec, macros))?;
    let topdir = format!("_topdir {}", top.display().to_string().replace('%', "%%"));
    Run::new(Tool::Rpmbuild)?.args(["-ba", "--define", &topdir]).arg(&place).english().succeed()?;
    let made = ["SRPMS", "RPMS"].into_iter().flat_map(|name| files::files_below(&top.join(name)));
    Ok(made.filter(|path| path.extension().is_some_and(|suffix| suffix == "rpm")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Arch;
    use rstest::rstest;

    fn told(targets: &[&str], options: &str) -> Vec<(&'static str, String)> {
        let arch = Arch::new("x86_64").unwrap();
        let target = |kernel: &&str| Target { kernel: kernel.parse().unwrap(), arch: arch.clone() };
        let targets: Vec<Target> = targets.iter().map(target).collect();
        let id = ModuleId::new("foo", "1.0-2").unwrap();
        macros(&id, &targets, options, (Path::new("/var/lib/dkms"), "/usr/src"))
    }

    #[test]
    fn specs_are_told_what_dkms_tells_them() {
        let told = told(&["6.1", "6.2"], "--binaries-only");
        let value = |name: &str| told.iter().find(|(known, _)| *known == name).unwrap().1.as_str();
        assert_eq!(value("module_name"), "foo");
        assert_eq!(value("version"), "1.0-2");
        assert_eq!(value("rpm_version"), "1.0_2");
        assert_eq!(value("kernel_versions"), "6.1 6.2");
        assert_eq!(value("mktarball_line"), "-k 6.1 -a x86_64 -k 6.2 -a x86_64 --binaries-only");
        assert_eq!((value("_dkmsdir"), value("_srcdir")), ("/var/lib/dkms", "/usr/src"));
    }

    #[test]
    fn nothing_built_is_no_line_for_mktarball() {
        assert!(told(&[], "").contains(&("mktarball_line", "none".to_owned())));
    }

    #[rstest]
    #[case::usual("1.0.3", "1.0.3")]
    #[case::hyphen("2.0-rc1", "2.0_rc1")]
    #[case::others("1:2~b^git+x", "1.2~b^git+x")]
    fn versions_are_ones_that_rpm_takes(#[case] version: &str, #[case] want: &str) {
        assert_eq!(super::version(version), want);
    }

    #[test]
    fn macros_are_taken_as_they_are() {
        let spec = with_macros("Name: x\n", &[("_srcdir", "/a%b".to_owned())]);
        assert_eq!(spec, "%global _srcdir /a%%b\nName: x\n");
    }
}
