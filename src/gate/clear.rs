// SPDX-License-Identifier: MIT OR Apache-2.0
//! clr-boot-manager's kernels (Clear Linux; Solus has the same): how they are named, which of them
//! become defaults, and whether somebody calls it without asking us. Reads only.

use std::path::Path;

use anyhow::Result;

use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::tree::Tree;

/// Where the kernels are that clr-boot-manager copies to the EFI partition.
const KERNELS: &str = "/usr/lib/kernel";

const PROGRAM: &str = "/usr/bin/clr-boot-manager";

/// What runs us after an update of the system, enabled (systemd.unit(5), ".wants/").
const ENABLED: [&str; 2] = [
    "/etc/systemd/system/update-triggers.target.wants/dkms-new-kernel.service",
    "/usr/lib/systemd/system/update-triggers.target.wants/dkms-new-kernel.service",
];

/// Settings of swupd(1), which calls clr-boot-manager by itself unless told otherwise.
const SWUPD: &str = "/etc/swupd/config";

/// Whether clr-boot-manager keeps this machine's boot loader.
pub fn is_here(tree: &Tree) -> bool {
    files::is_executable(&tree.path(PROGRAM))
}

/// Why a kernel that is held would become the default all the same; nothing if it would not.
pub(super) fn trouble(tree: &Tree) -> Option<String> {
    let is_enabled = ENABLED.iter().any(|unit| files::exists(&tree.path(unit)));
    if !is_enabled {
        return Some("dkms-new-kernel.service is not wanted by update-triggers.target".to_owned());
    }
    let swupd = files::read_if_there(&tree.path(SWUPD)).ok().flatten().unwrap_or_default();
    if tree.path("/usr/bin/swupd").exists() && !is_left_alone(&swupd) {
        return Some(format!(
            "swupd updates it before modules are built: put no_boot_update=true below [GLOBAL] in {SWUPD}"
        ));
    }
    None
}

/// Whether swupd's settings say that it leaves the boot loader alone (swupd(1), "Configuration file").
fn is_left_alone(settings: &str) -> bool {
    let mut section = "";
    let mut answer = false;
    for line in settings.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let ("[GLOBAL]", Some((key, value))) = (section, line.split_once('='))
            && key.trim() == "no_boot_update"
        {
            answer = value.trim() == "true";
        }
    }
    answer
}

/// The releases that boot by default, one of each type of kernel, in the order of the types' names.
pub fn defaults(tree: &Tree) -> Result<Vec<KernelRelease>> {
    let directory = tree.path(KERNELS);
    let mut found = Vec::new();
    for name in files::names(&directory)? {
        if name.starts_with("default-") {
            let target = fs_err::read_link(directory.join(name));
            found.extend(target.ok().and_then(|target| release(target.file_name()?.to_str()?)));
        }
    }
    found.dedup();
    Ok(found)
}

/// Whether a kernel is there to be booted, by default or not.
pub fn has(tree: &Tree, kernel: &KernelRelease) -> Result<bool> {
    let names = files::names(&tree.path(KERNELS))?;
    Ok(names.iter().any(|name| release(name).as_ref() == Some(kernel)))
}

/// What uname(2) calls the kernel in `NAMESPACE.TYPE.VERSION-RELEASE`: `VERSION-RELEASE.TYPE`.
pub(super) fn release(file: &str) -> Option<KernelRelease> {
    let words: Vec<&str> = file.split('.').collect();
    let at = words.iter().position(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    // A namespace is a domain: org.clearlinux, com.solus-project.
    if at < 3 || file.ends_with(".tmp") {
        return None;
    }
    format!("{}.{}", words[at..].join("."), words[at - 1]).parse().ok()
}

/// The files whose words a kernel of clr-boot-manager's is started with; nothing for others.
pub(super) fn command_lines(tree: &Tree, kernel: &KernelRelease) -> Vec<String> {
    let own = format!("{KERNELS}/cmdline-{kernel}");
    if !tree.path(&own).exists() {
        return Vec::new();
    }
    let mut found = vec![own];
    // A file in /etc takes the place of one of the same name.
    let drop_ins = ["/etc/kernel/cmdline.d", "/usr/share/kernel/cmdline.d"];
    let mut seen = Vec::new();
    for directory in drop_ins {
        for name in files::names(&tree.path(directory)).unwrap_or_default() {
            if Path::new(&name).extension().is_some_and(|end| end == "conf") && !seen.contains(&name) {
                found.push(format!("{directory}/{name}"));
                seen.push(name);
            }
        }
    }
    found
}

/// The release of the default in what `clr-boot-manager list-kernels` prints, which marks it.
pub(super) fn listed_default(list: &str) -> Option<KernelRelease> {
    let line = list.lines().find_map(|line| line.trim_start().strip_prefix("* "))?;
    release(line.split_whitespace().next()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use rstest::rstest;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[rstest]
    #[case::clear("org.clearlinux.native.6.2.8-1293", Some("6.2.8-1293.native"))]
    #[case::long_type("org.clearlinux.lts2018.4.19.13-5", Some("4.19.13-5.lts2018"))]
    #[case::solus("com.solus-project.current.6.5.1-255", Some("6.5.1-255.current"))]
    #[case::no_type("org.clearlinux.6.2.8-1293", None)]
    #[case::settings("cmdline-6.2.8-1293.native", None)]
    #[case::link("default-native", None)]
    fn releases_are_read_from_names(#[case] file: &str, #[case] want: Option<&str>) {
        assert_eq!(release(file).map(|release| release.to_string()).as_deref(), want);
    }

    #[rstest]
    #[case::said("[GLOBAL]\nno_boot_update=true\n", true)]
    #[case::spaces("# mine\n[GLOBAL]\n no_boot_update = true \n", true)]
    #[case::no("[GLOBAL]\nno_boot_update=false\n", false)]
    #[case::other_section("[update]\nno_boot_update=true\n", false)]
    #[case::comment("[GLOBAL]\n#no_boot_update=true\n", false)]
    #[case::last_one_counts("[GLOBAL]\nno_boot_update=true\nno_boot_update=false\n", false)]
    #[case::nothing("", false)]
    fn swupd_leaves_the_loader_alone_if_told(#[case] settings: &str, #[case] want: bool) {
        assert_eq!(is_left_alone(settings), want);
    }

    #[rstest]
    #[case::marked(
        "* org.clearlinux.native.6.2.8-1293\n  org.clearlinux.lts.5.15.1-7\n",
        Some("6.2.8-1293.native")
    )]
    #[case::later(
        "  org.clearlinux.native.6.2.8-1293\n* org.clearlinux.lts.5.15.1-7\n",
        Some("5.15.1-7.lts")
    )]
    #[case::none("  org.clearlinux.native.6.2.8-1293\n", None)]
    fn the_default_is_the_marked_one(#[case] list: &str, #[case] want: Option<&str>) {
        assert_eq!(listed_default(list).map(|release| release.to_string()).as_deref(), want);
    }

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        for (path, text) in files {
            let path = tree.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => {
                    fs::write(&path, text).unwrap();
                    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
                }
            }
        }
        (dir, tree)
    }

    #[test]
    fn the_default_of_every_type_is_found() {
        let (_dir, tree) = machine(&[
            ("/usr/lib/kernel/org.clearlinux.native.6.2.8-1293", ""),
            ("/usr/lib/kernel/org.clearlinux.native.6.2.7-1290", ""),
            ("/usr/lib/kernel/default-native", "-> org.clearlinux.native.6.2.8-1293"),
            ("/usr/lib/kernel/default-lts", "-> org.clearlinux.lts.5.15.1-7"),
        ]);
        let names = defaults(&tree).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names, ["5.15.1-7.lts", "6.2.8-1293.native"]);
        assert!(has(&tree, &"6.2.7-1290.native".parse().unwrap()).unwrap());
        assert!(!has(&tree, &"6.2.6-1.native".parse().unwrap()).unwrap());
    }

    #[rstest]
    #[case::all_well(&[(ENABLED[1], ""), ("/usr/bin/swupd", ""), (SWUPD, "[GLOBAL]\nno_boot_update=true\n")], None)]
    #[case::no_swupd(&[(ENABLED[0], "")], None)]
    #[case::swupd_does_as_it_likes(&[(ENABLED[1], ""), ("/usr/bin/swupd", "")], Some("no_boot_update"))]
    #[case::not_enabled(&[], Some("update-triggers"))]
    fn a_hold_needs_its_wiring(#[case] files: &[(&str, &str)], #[case] want: Option<&str>) {
        let (_dir, tree) = machine(files);
        let said = trouble(&tree);
        assert_eq!(said.is_some(), want.is_some());
        assert!(said.unwrap_or_default().contains(want.unwrap_or_default()));
    }

    #[test]
    fn drop_ins_of_the_administrator_take_the_vendors_place() {
        let (_dir, tree) = machine(&[
            ("/usr/lib/kernel/cmdline-6.2.8-1293.native", "quiet"),
            ("/usr/share/kernel/cmdline.d/a.conf", "a"),
            ("/usr/share/kernel/cmdline.d/b.conf", "b"),
            ("/etc/kernel/cmdline.d/b.conf", "other"),
            ("/etc/kernel/cmdline.d/notes", ""),
        ]);
        assert_eq!(
            command_lines(&tree, &"6.2.8-1293.native".parse().unwrap()),
            [
                "/usr/lib/kernel/cmdline-6.2.8-1293.native",
                "/etc/kernel/cmdline.d/b.conf",
                "/usr/share/kernel/cmdline.d/a.conf",
            ]
        );
        assert!(command_lines(&tree, &"6.2.7-1.native".parse().unwrap()).is_empty());
    }
}
