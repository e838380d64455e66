// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transactions that end, fail and die.

use super::*;
use rstest::rstest;

fn made_up() -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::at(dir.path());
    (dir, tree)
}

/// A file replaced, a file added, a file taken, a link and a directory replaced.
fn prepare(tree: &Tree) -> (Transaction, [PathBuf; 5]) {
    let place = |name: &str| tree.path(format!("/lib/modules/k/{name}"));
    let paths = ["old.ko", "new.ko", "gone.ko", "link", "dir"].map(place);
    fs::create_dir_all(&paths[4]).unwrap();
    fs::write(paths[4].join("inside"), "before").unwrap();
    fs::write(&paths[0], "before").unwrap();
    fs::write(&paths[2], "before").unwrap();
    fs_err::os::unix::fs::symlink("before", &paths[3]).unwrap();
    let made = place("made");
    fs::create_dir_all(&made).unwrap();
    fs::write(made.join("inside"), "after").unwrap();
    let mut transaction = Transaction::new(tree, "changing five things", None);
    transaction.put_file(&paths[0], b"after".to_vec(), 0o644);
    transaction.put_file(&paths[1], b"after".to_vec(), 0o644);
    transaction.take(&paths[2]);
    transaction.put_link(&paths[3], Path::new("after"));
    transaction.put_directory(&paths[4], &made);
    (transaction, paths)
}

fn contents(paths: &[PathBuf; 5]) -> Vec<Option<String>> {
    let link = fs::read_link(&paths[3]).ok().map(|to| to.to_string_lossy().into_owned());
    [&paths[0], &paths[1], &paths[2]]
        .map(|path| fs::read_to_string(path).ok())
        .into_iter()
        .chain([link, fs::read_to_string(paths[4].join("inside")).ok()])
        .collect()
}

const BEFORE: [Option<&str>; 5] = [Some("before"), None, Some("before"), Some("before"), Some("before")];
const AFTER: [Option<&str>; 5] = [Some("after"), Some("after"), None, Some("after"), Some("after")];

fn assert_clean(tree: &Tree, want: [Option<&str>; 5], paths: &[PathBuf; 5]) {
    assert_eq!(contents(paths), want.map(|text| text.map(str::to_owned)));
    let directory = paths[0].parent().unwrap();
    let left: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".dkms-"))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert!(files::names(&journals(tree)).unwrap().is_empty());
}

fn assert_nothing_to_end(tree: &Tree) {
    let Recovered { carried_out, stuck } = recover(tree).unwrap();
    assert!(carried_out.is_empty() && stuck.is_empty(), "{stuck:?}");
}

/// What a run leaves that dies once everything is in place.
fn die(applied: Applied) {
    drop(applied);
}

#[test]
fn a_file_taken_for_another_to_come_survives_a_crash() {
    let (_dir, tree) = made_up();
    let place = tree.path("/lib/modules/k/foo.ko");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "the kernel's own").unwrap();
    let mut transaction = Transaction::new(&tree, "replacing a file", None);
    transaction.take(&place);
    transaction.put_file(&place, b"ours".to_vec(), 0o644);
    die(transaction.apply().unwrap());
    recover(&tree).unwrap().carried_out.into_iter().for_each(|applied| applied.keep().unwrap());
    assert_eq!(fs::read_to_string(&place).unwrap(), "ours");
}

#[test]
fn what_somebody_puts_where_a_file_was_taken_stays() {
    let (_dir, tree) = made_up();
    let place = tree.path("/lib/modules/k/foo.ko");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "ours").unwrap();
    let mut transaction = Transaction::new(&tree, "taking a file", None);
    transaction.take(&place);
    die(transaction.apply().unwrap());
    fs::write(&place, "unpacked since").unwrap();
    recover(&tree).unwrap().carried_out.into_iter().for_each(|applied| applied.keep().unwrap());
    assert_eq!(fs::read_to_string(&place).unwrap(), "unpacked since");
}

#[rstest]
#[case::begun(0)]
#[case::link_back(2)]
#[case::all_back(5)]
fn an_undoing_that_died_is_carried_on(#[case] undone: usize) {
    let (_dir, tree) = made_up();
    let (transaction, paths) = prepare(&tree);
    let applied = transaction.apply().unwrap();
    applied.note(UNDONE);
    for change in applied.journal.changes.iter().rev().take(undone) {
        files::remove(&change.target).unwrap();
        if change.replaces {
            fs::rename(&change.saved, &change.target).unwrap();
        }
    }
    die(applied);
    assert_nothing_to_end(&tree);
    assert_clean(&tree, BEFORE, &paths);
}

#[test]
fn a_kernel_that_has_gone_since_stands_in_nobodys_way() {
    let (_dir, tree) = made_up();
    let (transaction, paths) = prepare(&tree);
    die(transaction.apply().unwrap());
    files::remove(paths[0].parent().unwrap()).unwrap();
    let recovered = recover(&tree).unwrap();
    assert!(recovered.stuck.is_empty(), "{:?}", recovered.stuck);
    recovered.carried_out.into_iter().for_each(|applied| applied.keep().unwrap());
    assert!(files::names(&journals(&tree)).unwrap().is_empty());
}

#[test]
fn a_directory_replaces_a_link() {
    let (_dir, tree) = made_up();
    let (place, made) = (tree.path("/usr/src/foo-1"), tree.path("/usr/src/made"));
    fs::create_dir_all(&made).unwrap();
    fs::write(made.join("inside"), "").unwrap();
    fs_err::os::unix::fs::symlink("nowhere", &place).unwrap();
    let mut transaction = Transaction::new(&tree, "copying a source", None);
    transaction.put_directory(&place, &made);
    transaction.apply().unwrap().keep().unwrap();
    assert!(place.join("inside").is_file());
}

#[test]
fn kept_changes_are_all_there() {
    let (_dir, tree) = made_up();
    let (transaction, paths) = prepare(&tree);
    transaction.apply().unwrap().keep().unwrap();
    assert_clean(&tree, AFTER, &paths);
}

#[test]
fn undone_changes_leave_no_trace() {
    let (_dir, tree) = made_up();
    let (transaction, paths) = prepare(&tree);
    transaction.apply().unwrap().undo().unwrap();
    assert_clean(&tree, BEFORE, &paths);
}

#[rstest]
#[case::nothing_swapped(0)]
#[case::one_swapped(1)]
#[case::taken_as_well(3)]
#[case::all_swapped(5)]
fn a_run_that_died_after_preparing_is_carried_out(#[case] swapped: usize) {
    let (_dir, tree) = made_up();
    let (transaction, paths) = prepare(&tree);
    fs::create_dir_all(&transaction.directory).unwrap();
    let mut file = fs::File::create(transaction.directory.join(&transaction.id)).unwrap();
    write_journal(&mut file, &transaction.journal).unwrap();
    stage(&transaction.journal, transaction.contents).unwrap();
    file.write_all(PREPARED.as_bytes()).unwrap();
    transaction.journal.changes.iter().take(swapped).for_each(|change| swap_in(change).unwrap());
    let recovered = recover(&tree).unwrap().carried_out;
    assert_eq!(recovered.len(), 1);
    recovered.into_iter().for_each(|applied| applied.keep().unwrap());
    assert_clean(&tree, AFTER, &paths);
}

#[test]
fn a_run_that_died_while_staging_is_dropped() {
    let (_dir, tree) = made_up();
    let (transaction, paths) = prepare(&tree);
    fs::create_dir_all(&transaction.directory).unwrap();
    let mut file = fs::File::create(transaction.directory.join(&transaction.id)).unwrap();
    write_journal(&mut file, &transaction.journal).unwrap();
    stage(&transaction.journal, transaction.contents).unwrap();
    assert_nothing_to_end(&tree);
    assert_clean(&tree, BEFORE, &paths);
}

#[test]
fn a_transaction_under_way_is_left_to_its_owner() {
    let (_dir, tree) = made_up();
    let (transaction, paths) = prepare(&tree);
    let applied = transaction.apply().unwrap();
    assert_nothing_to_end(&tree);
    applied.undo().unwrap();
    assert_clean(&tree, BEFORE, &paths);
}

#[test]
fn a_failed_staging_changes_nothing() {
    let (_dir, tree) = made_up();
    let (mut transaction, paths) = prepare(&tree);
    transaction.put_file(&paths[0].join("below-a-file"), Vec::new(), 0o644);
    assert!(transaction.apply().is_err());
    assert_clean(&tree, BEFORE, &paths);
}
