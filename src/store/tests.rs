// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries that come, go, are damaged, and are asked for by many at once.

use super::*;
use crate::conf::plain::{self, Plain};
use crate::conf::policy;
use crate::conf::{ConfFile, Variables, directives};
use crate::sys::lock::Lock;
use rstest::rstest;
use std::path::Path;

fn key(name: &str) -> Key {
    let mut inputs = key::Inputs::default();
    inputs.text("name", name);
    inputs.key()
}

/// What hardly gets smaller by compression.
fn entry(seed: u8, kib: usize) -> Entry {
    let mut bytes = vec![0; kib << 10];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    Entry { built: vec![("foo.ko".into(), bytes)], kept: Vec::new() }
}

fn sized(mib: u32) -> Policy {
    Policy { store_size: Some(mib), ..Policy::default() }
}

fn quiet() -> Report {
    Report::new(true, false).block()
}

fn take(store: &Store<'_>, name: &str) -> Option<Entry> {
    store.take(&key(name), &quiet())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("var/lib/dkms/.hooks/store")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_stored_is_found_by_its_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy) = (Tree::at(dir.path()), Policy::default());
    let store = Store::new(&tree, &policy);
    assert_eq!(take(&store, "one"), None);
    store.put(&key("one"), &entry(1, 4), "foo/1.0").unwrap();
    assert_eq!(take(&store, "one"), Some(entry(1, 4)));
    assert_eq!(take(&store, "two"), None);
    // A forced build takes the place of what was there.
    store.put(&key("one"), &entry(2, 4), "foo/1.0").unwrap();
    assert_eq!(take(&store, "one"), Some(entry(2, 4)));
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn a_damaged_entry_is_told_of_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy, report) = (Tree::at(dir.path()), Policy::default(), quiet());
    let store = Store::new(&tree, &policy);
    store.put(&key("one"), &entry(1, 4), "foo/1.0").unwrap();
    let file = store.file(&key("one"));
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(store.take(&key("one"), &report), None);
    assert!(!report.is_empty() && !file.exists());
    // Found missing, it is no longer damaged.
    let report = quiet();
    assert_eq!(store.take(&key("one"), &report), None);
    assert!(report.is_empty());
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy) = (Tree::at(dir.path()), sized(1));
    let store = Store::new(&tree, &policy);
    for (seed, name) in ["one", "two", "three"].into_iter().enumerate() {
        store.put(&key(name), &entry(seed as u8, 300), name).unwrap();
    }
    assert!(take(&store, "one").is_some(), "there is room for three");
    store.put(&key("four"), &entry(4, 300), "four").unwrap();
    let there = ["one", "two", "three", "four"].map(|name| take(&store, name).is_some());
    assert_eq!(there, [true, false, true, true]);
    // One that is too large for the store is not kept, and nothing else goes for it in vain.
    store.put(&key("huge"), &entry(5, 1100), "huge").unwrap();
    assert_eq!(take(&store, "huge"), None);
    assert!(take(&store, "four").is_some(), "dropped for what was not stored");
}

#[test]
fn what_a_killed_writer_left_goes_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy) = (Tree::at(dir.path()), Policy::default());
    let store = Store::new(&tree, &policy);
    store.put(&key("one"), &entry(1, 4), "foo/1.0").unwrap();
    fs::write(store.directory().join(".dkms-AbCdEf"), "half an ent").unwrap();
    assert!(take(&store, "one").is_some());
    store.put(&key("two"), &entry(2, 4), "foo/2.0").unwrap();
    assert_eq!(names(dir.path()).len(), 2);
    assert!(take(&store, "one").is_some() && take(&store, "two").is_some());
}

/// Whoever writes is waited for, whoever reads is not: it sees the old entry or the new one.
#[test]
fn readers_and_writers_do_not_get_in_each_others_way() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy) = (Tree::at(dir.path()), sized(1));
    let entries: Vec<Entry> = (0..4).map(|seed| entry(seed, 300)).collect();
    let report = quiet();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (tree, policy, entries) = (&tree, &policy, &entries);
            scope.spawn(move || {
                let store = Store::new(tree, policy);
                for round in 0..8 {
                    let at = (writer + round) % 4;
                    store.put(&key(&at.to_string()), &entries[at], "foo").unwrap();
                }
            });
            let report = &report;
            scope.spawn(move || {
                let store = Store::new(tree, policy);
                for round in 0..50 {
                    let at = round % 4;
                    let found = store.take(&key(&at.to_string()), report);
                    assert!(found.is_none_or(|found| found == entries[at]));
                }
            });
        }
    });
    assert!(report.is_empty(), "something seemed damaged");
    let total: u64 = files::files_below(&tree.hooks_dir().join("store"))
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(total <= 1 << 20, "{total}");
}

#[test]
fn readers_wait_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy) = (Tree::at(dir.path()), Policy::default());
    let store = Store::new(&tree, &policy);
    store.put(&key("one"), &entry(1, 4), "foo/1.0").unwrap();
    let _held = Lock::try_take(&tree.hooks_dir().join("locks/store")).unwrap().unwrap();
    assert!(take(&store, "one").is_some());
}

#[rstest]
#[case::ordinary("", "", 1, true)]
#[case::scripts("PRE_BUILD=configure", "", 1, false)]
#[case::scripts_and_the_policy("POST_BUILD=copy", "[module.zfs-dkms]\nstore = true", 1, true)]
#[case::by_file("PRE_BUILD=configure", "[module.zfs]\nstore = true", 1, true)]
#[case::not_wanted("", "[module.zfs]\nstore = false", 1, false)]
#[case::another("", "[module.wl]\nstore = false", 1, true)]
#[case::off("", "[module.zfs]\nstore = true", 0, false)]
fn the_policy_has_the_last_word(
    #[case] line: &str,
    #[case] words: &str,
    #[case] mib: u32,
    #[case] want: bool,
) {
    let conf =
        "PACKAGE_NAME=zfs-dkms\nPACKAGE_VERSION=1\nBUILT_MODULE_NAME=zfs\nDEST_MODULE_LOCATION=/updates\n";
    let conf = ConfFile { path: "/dkms.conf".into(), text: format!("{conf}{line}\n") };
    let Plain::Evaluated(variables) = plain::evaluate(&Variables::new(), &[conf]) else { panic!() };
    let conf = directives::read(&variables, "/x").unwrap();
    let text = format!("[store]\nsize = {mib}\n{words}\n");
    let policy = policy::merge(&[ConfFile { path: "/p".into(), text }]).unwrap();
    let tree = Tree::at(Path::new("/nowhere"));
    assert_eq!(Store::new(&tree, &policy).wants(&conf), want);
}

#[test]
fn a_store_that_is_off_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy) = (Tree::at(dir.path()), sized(0));
    let store = Store::new(&tree, &policy);
    assert!(store.is_off());
    fs::create_dir_all(store.directory()).unwrap();
    store.clear().unwrap();
    assert!(!store.directory().exists());
}

/// A kernel's headers that have been there for a while.
fn old_headers(dir: &Path) -> BuildDir {
    let path = dir.join("usr/src/headers");
    for (name, text) in [("Module.symvers", "one"), ("include/linux/module.h", "struct one;")] {
        files::write_atomically(&path.join(name), text.as_bytes(), 0o644).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(3100));
    BuildDir { path, config: KernelConfig::default(), clang: false }
}

#[test]
fn headers_are_read_once_and_again_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, policy, kernel) = (Tree::at(dir.path()), Policy::default(), old_headers(dir.path()));
    let digest = || Store::new(&tree, &policy).headers(&kernel, None).unwrap();
    let without_note = Store::to_read(&tree, &policy).headers(&kernel, None).unwrap();
    assert!(!tree.hooks_dir().exists(), "who only reads writes nothing");
    let first = digest();
    assert_eq!(first, without_note);
    let [note] = names(dir.path()).try_into().unwrap();
    let note = dir.path().join("var/lib/dkms/.hooks/store").join(note);
    // What is noted is believed, as long as nothing has changed.
    let other = blake3::hash(b"other").to_hex().to_string();
    let text = fs::read_to_string(&note).unwrap();
    fs::write(&note, text.replace(first.to_hex().as_str(), &other)).unwrap();
    assert_eq!(digest().to_hex().as_str(), other);
    // Of the same size and, for all that mtime says, of the same age.
    let header = kernel.path.join("include/linux/module.h");
    let time = fs::metadata(&header).unwrap().modified().unwrap();
    fs::write(&header, "struct two;").unwrap();
    fs::File::options().append(true).open(&header).unwrap().set_modified(time).unwrap();
    let changed = digest();
    assert!(changed != first && changed.to_hex().as_str() != other);
    fs::write(&note, "rubbish").unwrap();
    assert_eq!(digest(), changed);
}
