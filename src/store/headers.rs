// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds what modules are built against: a kernel's headers, makefiles, programs and lists of
//! symbols, wherever they lie. Of a whole kernel tree only the part that headers packages have.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::toolchain::identity;
use super::trees::Listing;
use crate::sys::files;

/// Directories of a kernel tree that builds of modules read nothing of.
const SKIPPED: &[&str] = &["Documentation", "samples", "debian", ".git", ".tmp_versions", "tests"];

/// What a kernel's build directory holds, and what it refers to. `arch` is kbuild's name for the
/// machine; without it all are taken in.
pub(super) fn list(build_dir: &Path, arch: Option<&str>) -> Result<Listing> {
    let mut walk = Walk { arch, roots: BTreeSet::new(), listing: Listing::default() };
    // Headers that are split in two, and builds that are kept apart from their sources, lead to the
    // rest by these links, or by a Makefile that does nothing else.
    let beside = build_dir.with_file_name("source");
    let mut parts = vec![build_dir.to_owned(), beside, build_dir.join("source")];
    parts.extend(named_by_makefile(&build_dir.join("Makefile")));
    for part in parts.iter().filter_map(|part| part.canonicalize().ok()) {
        let part = if part.is_file() { part.parent().unwrap_or(&part).to_owned() } else { part };
        if walk.roots.insert(part.clone()) {
            let name = PathBuf::from(walk.roots.len().to_string());
            walk.directory(&part, Path::new(""), &name)?;
        }
    }
    Ok(walk.listing)
}

/// The absolute paths in a makefile that is too short to be a kernel's own.
fn named_by_makefile(makefile: &Path) -> Vec<PathBuf> {
    let text = files::read_if_there(makefile).ok().flatten().filter(|text| text.len() < 4096);
    let text = text.unwrap_or_default();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

struct Walk<'a> {
    arch: Option<&'a str>,
    /// Real directories that are taken in whole.
    roots: BTreeSet<PathBuf>,
    listing: Listing,
}

impl Walk<'_> {
    /// `inside` is the path within the kernel tree, `name` what it is listed by.
    fn directory(&mut self, real: &Path, inside: &Path, name: &Path) -> Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(real)? {
            let entry = entry?;
            entries.push((entry.file_name(), entry.file_type()?));
        }
        // Which way a directory is come to first decides what it is called.
        entries.sort_by(|(one, _), (two, _)| one.cmp(two));
        for (file_name, kind) in entries {
            let (mut path, inside, name) =
                (real.join(&file_name), inside.join(&file_name), name.join(&file_name));
            let mut kind = kind;
            if kind.is_symlink() {
                let Ok(target) = path.canonicalize() else { continue };
                if self.roots.iter().any(|root| target.starts_with(root)) {
                    continue;
                }
                kind = fs::metadata(&target)?.file_type();
                if kind.is_dir() && self.enters(&inside) {
                    self.roots.insert(target.clone());
                }
                path = target;
            }
            if kind.is_dir() && self.enters(&inside) {
                self.directory(&path, &inside, &name)?;
            } else if kind.is_file() && inside == Path::new("vmlinux") {
                // Where types of modules are described by reference to the kernel's (BTF).
                self.listing.name(&name, identity(&path)?);
            } else if kind.is_file() && is_read(&inside) {
                self.listing.file(&name, "", path);
            }
        }
        Ok(())
    }

    fn enters(&self, inside: &Path) -> bool {
        let parts: Vec<&OsStr> = inside.iter().collect();
        match parts.as_slice() {
            [top] => !SKIPPED.iter().any(|skipped| top == skipped),
            // 32-bit ARM's headers are read for 64-bit ARM, too.
            [arch, machine] if *arch == "arch" => {
                self.arch.is_none_or(|wanted| *machine == wanted || (wanted == "arm64" && *machine == "arm"))
            }
            _ => true,
        }
    }
}

/// Whether a file of a kernel tree is there for the building of modules.
fn is_read(inside: &Path) -> bool {
    let name = inside.file_name().unwrap_or_default().to_string_lossy();
    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    let top = inside.iter().next().unwrap_or_default().to_string_lossy();
    // One empty file for every option, for make's sake; all options are in auto.conf.
    if inside.starts_with("include/config") {
        return matches!(&*name, "auto.conf" | "kernel.release");
    }
    let is_made = matches!(suffix, "o" | "cmd" | "d" | "ko" | "a");
    match &*top {
        "include" | "scripts" => !is_made,
        "arch" if inside.iter().any(|part| part == "include") => !is_made,
        "rust" if matches!(suffix, "rmeta" | "so" | "json") => true,
        _ => {
            matches!(suffix, "h" | "lds" | "mk" | "include")
                || name.starts_with("Makefile")
                || name.starts_with("Kbuild")
                || name.starts_with("localversion")
                || matches!(&*name, ".config" | ".kernelvariables" | "Module.symvers" | "crtsavres.o")
                || matches!(&*name, "objtool" | "resolve_btfids")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blake3::Hash;
    use fs_err::os::unix::fs::symlink;
    use rstest::rstest;

    /// A kernel's headers in Debian's parts.
    fn headers() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (path, text) in [
            ("usr/src/own/Module.symvers", "0x1\tprintk\tvmlinux\tEXPORT_SYMBOL\t"),
            ("usr/src/own/.config", "CONFIG_X=y"),
            ("usr/src/own/include/config/auto.conf", "CONFIG_X=y"),
            ("usr/src/own/include/config/X", ""),
            ("usr/src/own/include/generated/utsrelease.h", "#define UTS_RELEASE \"6.1\""),
            ("usr/src/common/Makefile", "VERSION = 6"),
            ("usr/src/common/include/linux/module.h", "struct module;"),
            ("usr/src/common/arch/x86/include/asm/page.h", "one"),
            ("usr/src/common/arch/s390/include/asm/page.h", "one"),
            ("usr/lib/kbuild/scripts/mod/modpost", "program"),
            ("usr/lib/kbuild/scripts/mod/modpost.o", "object"),
        ] {
            files::write_atomically(&at(path), text.as_bytes(), 0o644).unwrap();
        }
        fs::create_dir_all(at("lib/modules/6.1")).unwrap();
        symlink("../../../usr/src/own", at("lib/modules/6.1/build")).unwrap();
        symlink("../../../usr/src/common", at("lib/modules/6.1/source")).unwrap();
        symlink("../../lib/kbuild/scripts", at("usr/src/own/scripts")).unwrap();
        symlink("../../lib/kbuild/scripts", at("usr/src/common/scripts")).unwrap();
        dir
    }

    fn digest_of(dir: &tempfile::TempDir) -> Hash {
        list(&dir.path().join("lib/modules/6.1/build"), Some("x86")).unwrap().digest().unwrap()
    }

    #[rstest]
    #[case::symbols("usr/src/own/Module.symvers", true)]
    #[case::configuration("usr/src/own/.config", true)]
    #[case::header("usr/src/own/include/generated/utsrelease.h", true)]
    #[case::common_header("usr/src/common/include/linux/module.h", true)]
    #[case::common_makefile("usr/src/common/Makefile", true)]
    #[case::machine("usr/src/common/arch/x86/include/asm/page.h", true)]
    #[case::program("usr/lib/kbuild/scripts/mod/modpost", true)]
    #[case::other_machine("usr/src/common/arch/s390/include/asm/page.h", false)]
    #[case::object("usr/lib/kbuild/scripts/mod/modpost.o", false)]
    #[case::mark("usr/src/own/include/config/X", false)]
    fn what_builds_read_changes_the_digest(#[case] path: &str, #[case] matters: bool) {
        let dir = headers();
        let before = digest_of(&dir);
        fs::write(dir.path().join(path), "changed").unwrap();
        assert_eq!(digest_of(&dir) != before, matters);
    }

    #[test]
    fn where_headers_are_does_not_matter() {
        assert_eq!(digest_of(&headers()), digest_of(&headers()));
    }

    #[test]
    fn a_makefile_that_leads_elsewhere_is_followed() {
        let dir = headers();
        fs::remove_file(dir.path().join("lib/modules/6.1/source")).unwrap();
        let common = dir.path().join("usr/src/common");
        let makefile = format!("include {}/Makefile\n", common.display());
        fs::write(dir.path().join("usr/src/own/Makefile"), makefile).unwrap();
        let before = digest_of(&dir);
        fs::write(common.join("include/linux/module.h"), "changed").unwrap();
        assert_ne!(digest_of(&dir), before);
    }
}
