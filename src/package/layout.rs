// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are in an unpacked archive: those of `mktarball`, older ones that lack a part, and
//! plain sources. Looks only at the directory that it is given.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::stays_inside;
use crate::failure::Failure;
use crate::module::{Arch, Target};
use crate::sys::files;
use crate::tree::NO_KERNELS;

/// Directories of an archive, by dkms's names.
pub const MAIN_TREE: &str = "dkms_main_tree";
pub const SOURCE_TREE: &str = "dkms_source_tree";
pub const BINARIES_ONLY: &str = "dkms_binaries_only";

/// How many directories a plain source may be wrapped in.
const WRAPPINGS: usize = 4;

/// What an unpacked archive holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// The directory with the dkms.conf; it is a module's whole source unless `binaries_only`.
    pub source: PathBuf,
    pub binaries_only: bool,
    /// Whether `mktarball` made it: there is a main tree, be it empty.
    pub has_main_tree: bool,
    /// What is kept of builds, each a directory with `module` in it.
    pub built: Vec<(Target, PathBuf)>,
}

impl Layout {
    /// Looks an unpacked archive over. `archive` is its name, for failures.
    ///
    /// Fails with [`Failure::NoConfInArchive`], and with [`Failure::BadArchive`] if a part that
    /// will be moved has links that lead out of it.
    pub fn read(root: &Path, archive: &Path) -> Result<Self> {
        let refused = |why| Failure::BadArchive { archive: archive.display().to_string(), why };
        let marked = [SOURCE_TREE, BINARIES_ONLY].map(|name| root.join(name));
        let marked = marked.into_iter().find(|part| is_directory(part) && has_conf(part));
        let binaries_only = marked.as_ref().is_some_and(|part| part.ends_with(BINARIES_ONLY));
        let main = root.join(MAIN_TREE);
        let has_main_tree = is_directory(&main);
        let source = match marked {
            Some(part) => part,
            None if has_main_tree => {
                return Err(
                    refused(format!("No valid dkms.conf in {SOURCE_TREE} or {BINARIES_ONLY}.")).into()
                );
            }
            None => match wrapped(root)?.as_slice() {
                [] => return Err(Failure::NoConfInArchive.into()),
                [only] => only.clone(),
                several => {
                    let names: Vec<_> = several.iter().map(|part| shown(part, root)).collect();
                    return Err(refused(format!(
                        "The archive holds several modules, unpack it and add them one by one: {}.",
                        names.join(", ")
                    ))
                    .into());
                }
            },
        };
        let mut built = Vec::new();
        for kernel in files::names(&main)?.into_iter().filter(|_| has_main_tree) {
            for arch in files::names(&main.join(&kernel))? {
                let part = main.join(&kernel).join(&arch);
                let release = kernel.parse().ok().filter(|_| !NO_KERNELS.contains(&kernel.as_str()));
                let (Some(release), Ok(arch)) = (release, Arch::new(&arch)) else {
                    return Err(refused(format!(
                        "The archive's entry {} is for no kernel.",
                        shown(&part, root)
                    ))
                    .into());
                };
                let real = [&main.join(&kernel), &part, &part.join("module")]
                    .into_iter()
                    .all(|dir| is_directory(dir));
                if !real {
                    return Err(refused(format!(
                        "The archive's entry {} holds no built modules.",
                        shown(&part, root)
                    ))
                    .into());
                }
                built.push((Target { kernel: release, arch }, part));
            }
        }
        for part in built.iter().map(|(_, part)| part).chain([&source]) {
            if let Some(link) = outward_link(part, part)? {
                let why = format!(
                    "The archive's entry {} is a link that leads out of its directory.",
                    shown(&link, root)
                );
                return Err(refused(why).into());
            }
        }
        Ok(Self { source, binaries_only, has_main_tree, built })
    }
}

/// A path of the archive as its user knows it, fit for a terminal.
fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().escape_debug().to_string()
}

/// Links to directories are none: what they lead to would stay behind.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

fn has_conf(directory: &Path) -> bool {
    directory.join("dkms.conf").is_file()
}

/// The directories with a dkms.conf that lie least deep.
fn wrapped(root: &Path) -> Result<Vec<PathBuf>> {
    let mut level = vec![root.to_owned()];
    for _ in 0..=WRAPPINGS {
        let found: Vec<PathBuf> = level.iter().filter(|directory| has_conf(directory)).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let mut below = Vec::new();
        for directory in &level {
            let children = files::names(directory)?.into_iter().map(|name| directory.join(name));
            below.extend(children.filter(|child| is_directory(child)));
        }
        level = below;
    }
    Ok(Vec::new())
}

/// The first link in a part that leads out of it.
fn outward_link(directory: &Path, part: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_symlink() {
            let link = path.strip_prefix(part).unwrap_or(&path);
            if !stays_inside(link, &fs::read_link(&path)?) {
                return Ok(Some(path));
            }
        } else if kind.is_dir()
            && let Some(found) = outward_link(&path, part)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn made_up(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    fn read(root: &Path) -> Result<Layout> {
        Layout::read(root, Path::new("a.tgz"))
    }

    const BUILT: &str = "dkms_main_tree/6.1/x86_64/module/foo.ko";

    #[rstest]
    #[case::whole(&["dkms_source_tree/dkms.conf", BUILT], "dkms_source_tree", (false, true, 1))]
    #[case::without_builds(&["dkms_source_tree/dkms.conf"], "dkms_source_tree", (false, false, 0))]
    #[case::binaries_only(&["dkms_binaries_only/dkms.conf", BUILT], "dkms_binaries_only", (true, true, 1))]
    #[case::bare(&["dkms.conf", "foo.c"], "", (false, false, 0))]
    #[case::wrapped(&["foo-1.0/dkms.conf", "README"], "foo-1.0", (false, false, 0))]
    #[case::wrapped_twice(&["foo/src/dkms.conf", "foo/README"], "foo/src", (false, false, 0))]
    #[case::shallowest(&["foo/dkms.conf", "foo/tests/dkms.conf"], "foo", (false, false, 0))]
    fn parts_are_found(#[case] files: &[&str], #[case] source: &str, #[case] want: (bool, bool, usize)) {
        let dir = made_up(files);
        let layout = read(dir.path()).unwrap();
        assert_eq!(layout.source, dir.path().join(source));
        assert_eq!((layout.binaries_only, layout.has_main_tree, layout.built.len()), want);
    }

    #[rstest]
    #[case::no_conf(&["foo.c"], 3, "No dkms.conf")]
    #[case::too_deep(&["a/b/c/d/e/dkms.conf"], 3, "No dkms.conf")]
    #[case::several(&["a/dkms.conf", "b/dkms.conf"], 7, "several modules")]
    #[case::kernel_named_source(&["dkms_source_tree/dkms.conf", "dkms_main_tree/source/x86_64/module/x"], 7, "no kernel")]
    #[case::main_tree_alone(&[BUILT, "foo/dkms.conf"], 7, "No valid dkms.conf")]
    #[case::no_modules(&["dkms_source_tree/dkms.conf", "dkms_main_tree/6.1/x86_64/log/x"], 7, "no built modules")]
    fn what_is_no_module_is_refused(#[case] files: &[&str], #[case] code: u8, #[case] message: &str) {
        let dir = made_up(files);
        let failure = read(dir.path()).unwrap_err().downcast::<Failure>().unwrap();
        assert_eq!(failure.code(), code);
        assert!(failure.to_string().contains(message), "{failure}");
    }

    #[rstest]
    #[case::to_another_part("dkms_source_tree/link", "../dkms_main_tree/6.1", false)]
    #[case::built_file(
        "dkms_main_tree/6.1/x86_64/module/bar.ko",
        "../../../../dkms_source_tree/dkms.conf",
        false
    )]
    #[case::inside("dkms_source_tree/sub/link", "../dkms.conf", true)]
    fn links_stay_in_their_part(#[case] link: &str, #[case] target: &str, #[case] accepted: bool) {
        let dir = made_up(&["dkms_source_tree/dkms.conf", "dkms_source_tree/sub/x", BUILT]);
        fs_err::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
        assert_eq!(read(dir.path()).is_ok(), accepted);
    }

    #[test]
    fn a_part_that_is_a_link_is_no_part() {
        let dir = made_up(&["elsewhere/dkms.conf", "elsewhere/6.1/x86_64/module/foo.ko"]);
        for part in [SOURCE_TREE, MAIN_TREE] {
            fs_err::os::unix::fs::symlink("elsewhere", dir.path().join(part)).unwrap();
        }
        let layout = read(dir.path()).unwrap();
        assert_eq!(layout.source, dir.path().join("elsewhere"));
        assert!(!layout.has_main_tree && layout.built.is_empty());
    }
}
