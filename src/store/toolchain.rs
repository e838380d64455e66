// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who builds: the compilers, linkers, makes and their like that are installed, told apart by what
//! they are and not by when they came. Runs none of them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use blake3::Hash;
use fs_err as fs;
use object::Object;
use object::read::ReadCache;

use super::key::Inputs;
use super::trees;
use crate::sys::files;
use crate::sys::root::Root;
use crate::sys::tools;

/// Programs that have a part in building modules (Documentation/process/changes.rst); versions
/// and a prefix for another machine may be part of their names.
const PROGRAMS: &[&str] = &[
    "gcc", "cc", "cpp", "g++", "c++", "clang", "clang++", "ld", "ld.bfd", "ld.gold", "ld.lld", "lld", "as",
    "ar", "nm", "objcopy", "objdump", "strip", "ranlib", "readelf", "make", "gmake", "cmake", "rustc",
    "bindgen", "pahole", "ccache", "distcc", "flex", "bison",
];

/// What those programs consist of beside themselves.
const PARTS: &[&str] = &[
    "/usr/lib/gcc/*/*/cc1",
    "/usr/libexec/gcc/*/*/cc1",
    "/usr/lib*/libbfd-*.so*",
    "/usr/lib/*/libbfd-*.so*",
    "/usr/lib*/libLLVM*.so*",
    "/usr/lib/*/libLLVM*.so*",
    "/usr/lib/llvm-*/lib/lib*.so*",
    "/usr/lib*/libclang-cpp.so*",
    "/usr/lib*/librustc_driver*",
];

/// Tells a program or library from every other: by its build ID (ld(1)), which stands for its
/// content, or by the content itself.
pub(super) fn identity(path: &Path) -> Result<String> {
    let mut magic = [0; 4];
    let is_elf = fs::File::open(path)?.read(&mut magic)? == 4 && magic == *b"\x7fELF";
    if is_elf {
        let cache = ReadCache::new(fs::File::open(path)?);
        let file = object::File::parse(&cache).ok();
        if let Some(id) = file.and_then(|file| file.build_id().ok().flatten().map(hex)) {
            return Ok(format!("build ID {id}"));
        }
    }
    Ok(format!("content {}", trees::content(path)?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of what builds for this machine; with a prefix (`aarch64-linux-gnu-`, or a path that
/// ends like that) of what builds for another.
pub fn digest(root: &Root, prefix: &str) -> Result<Hash> {
    let mut inputs = Inputs::default();
    let (directory, prefix) = match Path::new(prefix).parent().filter(|_| prefix.starts_with('/')) {
        Some(directory) => (Some(directory.to_owned()), &prefix[directory.as_os_str().len()..]),
        None => (None, prefix),
    };
    let prefix = prefix.trim_start_matches('/');
    let path: Vec<PathBuf> = match directory {
        Some(directory) => vec![directory],
        None => tools::PATH.split(':').map(|directory| root.path(directory)).collect(),
    };
    let mut seen = BTreeSet::new();
    for directory in path.iter().filter_map(|directory| directory.canonicalize().ok()) {
        // /bin is /usr/bin nearly everywhere.
        if !seen.insert(directory.clone()) {
            continue;
        }
        for name in files::names(&directory)? {
            if name.strip_prefix(prefix).is_some_and(is_of_toolchain) {
                take(&mut inputs, &name, &directory.join(&name))?;
            }
        }
    }
    for pattern in PARTS {
        let pattern = root.path(pattern).display().to_string();
        for path in glob::glob(&pattern).context("looking for compilers")?.flatten() {
            take(&mut inputs, &path.file_name().unwrap_or_default().to_string_lossy(), &path)?;
        }
    }
    Ok(inputs.hash())
}

fn take(inputs: &mut Inputs, name: &str, path: &Path) -> Result<()> {
    // Alternatives that lead nowhere are no programs.
    if path.is_file() {
        inputs.text(name, &identity(path)?);
    }
    Ok(())
}

/// Whether this is one of the programs, perhaps with a version: `gcc-12`, `ld.lld-16`.
fn is_of_toolchain(name: &str) -> bool {
    let is_version = |text: &str| text.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    let plain =
        name.rsplit_once('-').filter(|(_, version)| is_version(version)).map_or(name, |(name, _)| name);
    PROGRAMS.contains(&plain) || plain.starts_with("llvm-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::os::unix::fs::symlink;

    #[rstest]
    #[case::plain("gcc", true)]
    #[case::version("gcc-12", true)]
    #[case::long_version("clang-16.0.6", true)]
    #[case::linker("ld.lld-16", true)]
    #[case::llvm("llvm-objcopy-16", true)]
    #[case::longer_name("gcc-ar", false)]
    #[case::other_machine("aarch64-linux-gnu-gcc-12", false)]
    #[case::other("makeinfo", false)]
    fn programs_have_names(#[case] name: &str, #[case] want: bool) {
        assert_eq!(is_of_toolchain(name), want);
    }

    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("usr/bin/gcc-12", "gcc 12.2"),
            ("usr/bin/ld", "ld 2.40"),
            ("usr/bin/make", "make 4.3"),
            ("usr/bin/vi", "vi"),
            ("usr/bin/a64-gcc", "gcc 12.2 for a64"),
            ("opt/x/b64-gcc", "gcc 12.2 for b64"),
            ("usr/lib/gcc/x86_64-linux-gnu/12/cc1", "cc1 12.2"),
        ] {
            files::write_atomically(&dir.path().join(path), text.as_bytes(), 0o755).unwrap();
        }
        symlink("gcc-12", dir.path().join("usr/bin/gcc")).unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[rstest]
    #[case::compiler("usr/bin/gcc-12", "", true)]
    #[case::its_part("usr/lib/gcc/x86_64-linux-gnu/12/cc1", "", true)]
    #[case::linker("usr/bin/ld", "", true)]
    #[case::make("usr/bin/make", "", true)]
    #[case::new_program("usr/bin/clang-19", "", true)]
    #[case::editor("usr/bin/vi", "", false)]
    #[case::for_another_machine("usr/bin/a64-gcc", "", false)]
    #[case::for_that_machine("usr/bin/a64-gcc", "a64-", true)]
    fn another_program_is_another_toolchain(#[case] path: &str, #[case] prefix: &str, #[case] matters: bool) {
        let (dir, root) = machine();
        let before = digest(&root, prefix).unwrap();
        fs::write(dir.path().join(path), "another").unwrap();
        assert_eq!(digest(&root, prefix).unwrap() != before, matters);
    }

    #[test]
    fn an_alternative_that_points_elsewhere_is_another_toolchain() {
        let (dir, root) = machine();
        fs::write(dir.path().join("usr/bin/gcc-13"), "gcc 13").unwrap();
        let before = digest(&root, "").unwrap();
        fs::remove_file(dir.path().join("usr/bin/gcc")).unwrap();
        symlink("gcc-13", dir.path().join("usr/bin/gcc")).unwrap();
        assert_ne!(digest(&root, "").unwrap(), before);
    }

    #[test]
    fn a_prefix_may_be_a_path() {
        let (dir, root) = machine();
        let prefix = dir.path().join("opt/x/b64-").display().to_string();
        let before = digest(&root, &prefix).unwrap();
        fs::write(dir.path().join("opt/x/b64-gcc"), "another").unwrap();
        assert_ne!(digest(&root, &prefix).unwrap(), before);
    }

    #[test]
    fn programs_are_told_apart_without_reading_them_whole() {
        let bash = tools::find("bash").unwrap();
        let id = identity(&bash).unwrap();
        assert!(id.starts_with("build ID ") || id.starts_with("content "), "{id}");
        assert_ne!(id, identity(&tools::find("env").unwrap()).unwrap());
    }
}
