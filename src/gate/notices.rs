// SPDX-License-Identifier: MIT OR Apache-2.0
//! What else must know while a kernel is held: people who log in, and apt, which must not remove
//! the kernel that the machine goes on booting. Both are gone when nothing is held any more.

use std::path::Path;

use anyhow::Result;

use super::verdict::{Standing, Verdict};
use crate::kernel::compare_versions;
use crate::sys::files;
use crate::tree::Tree;

/// Read by pam_motd(8).
const MOTD: &str = "/run/motd.d/dkms";

/// Read by apt at its next run (apt.conf(5)); the number lets it add to apt's own list.
const APT: &str = "/etc/apt/apt.conf.d/90dkms-held";

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
        bring(&tree.path(APT), &apt(&verdicts))?;
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

/// The newest proven kernel is what a held one is held back for.
fn apt(verdicts: &[Verdict]) -> String {
    let proven = verdicts.iter().filter(|verdict| verdict.standing == Standing::Proven);
    let newest = proven.max_by(|a, b| compare_versions(a.kernel.as_str(), b.kernel.as_str()));
    let (true, Some(newest)) = (verdicts.iter().any(|verdict| verdict.standing == Standing::Held), newest)
    else {
        return String::new();
    };
    // POSIX knows no escaped hyphen.
    let release = regex::escape(newest.kernel.as_str()).replace("\\-", "-");
    format!(
        "// Written by dkms while a kernel is held (see dkms gate), and removed by it.\n\
         APT::NeverAutoRemove {{ \"^linux-(image|headers|modules)(-.+)?-{release}$\"; }};\n"
    )
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
    fn nothing_is_made_where_nobody_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        store(&tree, "6.12", Standing::Held);
        assert!(!tree.path("/run").exists() && !tree.path("/etc").exists());
    }
}
