// SPDX-License-Identifier: MIT OR Apache-2.0
//! What else must know while a kernel is held: people who log in, apt, which must not remove the
//! kernel that the machine goes on booting, and whoever restarts machines for the sake of a new
//! kernel. All is gone when nothing is held any more.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::loader::kernel_image;
use super::verdict::{Standing, Verdict};
use crate::kernel::{KernelRelease, compare_versions};
use crate::sys::files;
use crate::tree::Tree;

/// Read by pam_motd(8).
const MOTD: &str = "/run/motd.d/dkms";

/// Read by apt at its next run (apt.conf(5)); the number lets it add to apt's own list.
const APT: &str = "/etc/apt/apt.conf.d/90dkms-held";

/// Tells unattended-upgrades and its like to restart the machine, and on whose behalf.
const REBOOT: &str = "/run/reboot-required";
const REBOOT_FOR: &str = "/run/reboot-required.pkgs";

/// Brings the notices in line with the verdicts as they are stored now.
pub(super) fn refresh(tree: &Tree) -> Result<()> {
    // One that cannot be read is not what this is about.
    let verdicts = Verdict::all(tree).unwrap_or_default();
    let is_any = |standing| verdicts.iter().any(|verdict| verdict.standing == standing);
    if !is_any(Standing::Held) && is_any(Standing::Pending) {
        return Ok(()); // in the middle of a run, which will tell
    }
    if tree.path("/run").is_dir() {
        bring(&tree.path(MOTD), &motd(&verdicts))?;
    }
    if tree.path("/etc/apt/apt.conf.d").is_dir() {
        bring(&tree.path(APT), &apt(tree, &verdicts)?)?;
    }
    Ok(())
}

/// Takes both away: our package goes.
pub fn clear(tree: &Tree) -> Result<()> {
    files::remove(&tree.path(MOTD))?;
    files::remove(&tree.path(APT))
}

/// Writes a file, or removes it if nothing is to be in it.
fn bring(path: &Path, text: &str) -> Result<()> {
    if text.is_empty() {
        return files::remove(path);
    }
    if files::read_if_there(path)?.is_some_and(|old| old == text) {
        return Ok(());
    }
    fs_err::create_dir_all(files::parent(path)?)?;
    files::write_atomically(path, text.as_bytes(), 0o644)
}

fn motd(verdicts: &[Verdict]) -> String {
    let held = verdicts.iter().filter(|verdict| verdict.standing == Standing::Held);
    held.map(|verdict| {
        let reason =
            verdict.reasons.first().and_then(|reason| reason.lines().next()).unwrap_or("see dkms gate");
        format!(
            "dkms: kernel {0} is held back, it lacks what this machine needs to boot:\n  {reason}\n\
             Mend the cause, then run: dkms autoinstall -k {0}\n",
            verdict.kernel
        )
    })
    .collect()
}

/// The newest proven kernel is what a held one is held back for. Where another one would be booted,
/// because nobody has marked it, that one is kept as well.
fn apt(tree: &Tree, verdicts: &[Verdict]) -> Result<String> {
    if !verdicts.iter().any(|verdict| verdict.standing == Standing::Held) {
        return Ok(String::new());
    }
    let proven = verdicts.iter().filter(|verdict| verdict.standing == Standing::Proven);
    let newest =
        proven.map(|verdict| &verdict.kernel).max_by(|a, b| compare_versions(a.as_str(), b.as_str()));
    let may_boot = |kernel: &KernelRelease| {
        let known = verdicts.iter().find(|verdict| verdict.kernel == *kernel);
        known.is_none_or(|verdict| verdict.standing.may_boot()) && kernel_image(tree, kernel).is_some()
    };
    let installed = if tree.install.is_dir() { tree.installed_kernels()? } else { Vec::new() };
    let kept: BTreeSet<&str> = newest
        .into_iter()
        .chain(installed.iter().rfind(|kernel| may_boot(kernel)))
        .map(|k| k.as_str())
        .collect();
    if kept.is_empty() {
        return Ok(String::new());
    }
    let patterns: String = kept
        .iter()
        // POSIX knows no escaped hyphen.
        .map(|release| regex::escape(release).replace("\\-", "-"))
        .map(|release| format!(" \"^linux-(image|headers|modules)(-.+)?-{release}$\";"))
        .collect();
    Ok(format!(
        "// Written by dkms while a kernel is held (see dkms gate), and removed by it.\n\
         APT::NeverAutoRemove {{{patterns} }};\n"
    ))
}

/// Nobody has to restart the machine for a kernel that it would not boot: takes back what that one's
/// hooks have asked for after ours. What other packages ask for stays.
pub fn ask_for_no_reboot(tree: &Tree, held: &KernelRelease) -> Result<()> {
    let (asked, packages) = (tree.path(REBOOT), tree.path(REBOOT_FOR));
    let Some(text) = files::read_if_there(&packages)? else { return Ok(()) };
    let others = without_kernel(&text, held);
    if others == text {
        return Ok(());
    }
    if others.is_empty() {
        files::remove(&packages)?;
        return files::remove(&asked);
    }
    files::write_atomically(&packages, others.as_bytes(), 0o644)
}

/// A list of packages, one a line, without those of a kernel; Ubuntu's hook names linux-base beside
/// each of them.
fn without_kernel(text: &str, kernel: &KernelRelease) -> String {
    let is_kernels = |line: &&str| line.starts_with("linux-") && line.ends_with(&format!("-{kernel}"));
    let others: Vec<&str> = text.lines().filter(|line| !is_kernels(line)).collect();
    if others.len() == text.lines().count() || !others.iter().all(|line| *line == "linux-base") {
        return others.iter().map(|line| format!("{line}\n")).collect();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn store(tree: &Tree, kernel: &str, standing: Standing) {
        let reasons = vec!["zfs: kernel 6.12 has no module zfs\nand more".to_owned()];
        Verdict::now(&kernel.parse().unwrap(), standing, reasons, Vec::new()).store(tree).unwrap();
    }

    fn machine() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        for path in ["run", "etc/apt/apt.conf.d"] {
            fs_err::create_dir_all(dir.path().join(path)).unwrap();
        }
        let tree = Tree::at(dir.path());
        (dir, tree)
    }

    fn text(tree: &Tree, path: &str) -> String {
        files::read_if_there(&tree.path(path)).unwrap().unwrap_or_default()
    }

    #[test]
    fn a_held_kernel_is_told_of_and_the_proven_one_is_kept() {
        let (_dir, tree) = machine();
        store(&tree, "6.1.0-9", Standing::Proven);
        store(&tree, "6.1.0-10", Standing::Proven);
        assert_eq!((text(&tree, MOTD), text(&tree, APT)), (String::new(), String::new()));

        store(&tree, "6.12", Standing::Held);
        assert!(text(&tree, MOTD).contains("kernel 6.12 is held back"), "{}", text(&tree, MOTD));
        assert!(
            text(&tree, MOTD).contains("  zfs: kernel 6.12 has no module zfs\nMend"),
            "{}",
            text(&tree, MOTD)
        );
        let apt = text(&tree, APT);
        assert!(apt.contains(r#""^linux-(image|headers|modules)(-.+)?-6\.1\.0-10$""#), "{apt}");
    }

    #[rstest]
    #[case::proven(Standing::Proven, false)]
    #[case::released(Standing::Released, false)]
    #[case::looked_at_again(Standing::Pending, true)]
    fn notices_go_with_the_hold(#[case] standing: Standing, #[case] stay: bool) {
        let (_dir, tree) = machine();
        store(&tree, "6.1", Standing::Proven);
        store(&tree, "6.12", Standing::Held);
        store(&tree, "6.12", standing);
        assert_eq!(text(&tree, MOTD).is_empty(), !stay);
        assert_eq!(text(&tree, APT).is_empty(), !stay);
        Verdict::forget(&tree, &"6.12".parse().unwrap()).unwrap();
        assert_eq!((text(&tree, MOTD), text(&tree, APT)), (String::new(), String::new()));
    }

    #[test]
    fn a_kernel_that_nobody_marked_is_kept_where_it_is_the_one_to_boot() {
        let (_dir, tree) = machine();
        for kernel in ["6.1.0-9", "6.1.0-10", "6.12"] {
            let directory = tree.kernel_dir(&kernel.parse().unwrap());
            fs_err::create_dir_all(&directory).unwrap();
            fs_err::write(directory.join("vmlinuz"), "").unwrap();
        }
        // Headers alone are no kernel.
        fs_err::create_dir_all(tree.kernel_dir(&"6.11".parse().unwrap())).unwrap();
        store(&tree, "6.12", Standing::Held);
        let kept = text(&tree, APT);
        assert!(kept.contains(r#"-6\.1\.0-10$""#) && !kept.contains(r#"-6\.1\.0-9$""#), "{kept}");
        store(&tree, "6.1.0-9", Standing::Proven);
        let kept = text(&tree, APT);
        assert!(kept.contains(r#"-6\.1\.0-10$""#) && kept.contains(r#"-6\.1\.0-9$""#), "{kept}");
        assert!(!kept.contains(r"6\.11") && !kept.contains(r"6\.12"), "{kept}");
    }

    #[rstest]
    #[case::only_the_kernel("linux-image-6.12\n", None)]
    #[case::others_too("dbus\nlinux-image-6.12\nlibc6\n", Some("dbus\nlibc6\n"))]
    #[case::another_kernel("linux-image-6.12\nlinux-image-6.1\n", Some("linux-image-6.1\n"))]
    #[case::as_on_ubuntu("linux-image-6.12\nlinux-base\n", None)]
    #[case::not_the_kernel("linux-base\n", Some("linux-base\n"))]
    fn a_held_kernel_asks_for_no_reboot(#[case] asked_for: &str, #[case] want: Option<&str>) {
        let (_dir, tree) = machine();
        fs_err::write(tree.path(REBOOT), "").unwrap();
        fs_err::write(tree.path(REBOOT_FOR), asked_for).unwrap();
        ask_for_no_reboot(&tree, &"6.12".parse().unwrap()).unwrap();
        assert_eq!(files::read_if_there(&tree.path(REBOOT_FOR)).unwrap().as_deref(), want);
        assert_eq!(tree.path(REBOOT).exists(), want.is_some());
    }

    #[test]
    fn nothing_is_made_where_nobody_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        store(&tree, "6.12", Standing::Held);
        assert!(!tree.path("/run").exists() && !tree.path("/etc").exists());
    }
}
