// SPDX-License-Identifier: MIT OR Apache-2.0
//! What transactions have left whose owners died: journals, which the next run that changes something
//! ends, and staged or kept content without one, which nobody will. Looks only.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::Tree;
use super::transaction::journals;
use crate::sys::files;
use crate::sys::lock::Lock;

/// A transaction whose owner has died.
#[derive(Debug)]
pub struct Abandoned {
    pub journal: PathBuf,
    /// What was being done, where the journal got as far as telling.
    pub what: Option<String>,
}

/// As much of a journal's first line as is of interest here.
#[derive(Deserialize)]
struct Begun {
    what: String,
}

/// What the next run that changes something will finish. Changes nothing.
pub fn abandoned(tree: &Tree) -> Result<Vec<Abandoned>> {
    let mut found = Vec::new();
    for name in files::names(&journals(tree))? {
        let journal = journals(tree).join(name);
        // One that may not be looked at may be under way.
        if Lock::is_held(&journal).unwrap_or(true) {
            continue;
        }
        // One that has gone meanwhile has been ended.
        let Some(text) = files::read_if_there(&journal)? else { continue };
        let begun = text.lines().next().and_then(|line| serde_json::from_str::<Begun>(line).ok());
        found.push(Abandoned { journal, what: begun.map(|begun| begun.what) });
    }
    Ok(found)
}

/// The place beside which a transaction has staged or kept something under this path; nothing if the
/// path is none of its kind, or belongs to a transaction that has a journal.
pub fn place_of_leftover(tree: &Tree, path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_prefix('.')?;
    let (place, kind, id) = ["new", "old"].into_iter().find_map(|kind| {
        let (place, id) = name.rsplit_once(&format!(".dkms-{kind}-"))?;
        Some((place, kind, id.strip_suffix("-copy").unwrap_or(id)))
    })?;
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let (process, count) = id.split_once('-')?;
    if place.is_empty() || !is_number(process) || !is_number(count) {
        return None;
    }
    let has_journal = [id.to_owned(), format!(".{id}")].iter().any(|name| journals(tree).join(name).exists());
    let place = path.with_file_name(place);
    // Old content without anything in its place may be all that is left of it.
    let may_be_wanted = kind == "old" && !files::exists(&place);
    // The journal is the last thing to go.
    (!has_journal && files::exists(path) && !may_be_wanted).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::transaction::Transaction;
    use fs_err as fs;
    use rstest::rstest;

    fn made_up() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        (dir, tree)
    }

    #[test]
    fn a_transaction_is_abandoned_when_its_owner_has_died() {
        let (_dir, tree) = made_up();
        assert!(abandoned(&tree).unwrap().is_empty());
        let mut transaction = Transaction::new(&tree, "changing a thing", None);
        transaction.put_file(&tree.path("/x"), Vec::new(), 0o644);
        let applied = transaction.apply().unwrap();
        assert!(abandoned(&tree).unwrap().is_empty(), "its owner is at work");
        drop(applied);
        let found = abandoned(&tree).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what.as_deref(), Some("changing a thing"));
        fs::write(&found[0].journal, "").unwrap();
        assert_eq!(abandoned(&tree).unwrap()[0].what, None);
    }

    #[rstest]
    #[case::old(".foo.ko.dkms-old-7-0", true)]
    #[case::new(".gone.ko.dkms-new-7-12", true)]
    #[case::copy(".foo.ko.dkms-old-7-0-copy", true)]
    #[case::of_a_journal(".foo.ko.dkms-old-8-0", false)]
    #[case::of_one_that_begins(".foo.ko.dkms-new-9-0", false)]
    #[case::all_that_is_left(".gone.ko.dkms-old-7-0", false)]
    #[case::somebody_elses(".foo.ko.dkms-mine", false)]
    #[case::not_hidden("foo.ko.dkms-old-7-0", false)]
    #[case::of_nothing("..dkms-old-7-0", false)]
    #[case::no_number(".foo.ko.dkms-old-7-x", false)]
    fn leftovers_are_of_no_transaction_and_of_no_other_use(#[case] name: &str, #[case] is_one: bool) {
        let (_dir, tree) = made_up();
        let directory = tree.path("/lib/modules/k");
        for path in [
            directory.join(name),
            directory.join("foo.ko"),
            journals(&tree).join("8-0"),
            journals(&tree).join(".9-0"),
        ] {
            files::write_atomically(&path, b"", 0o644).unwrap();
        }
        let place = place_of_leftover(&tree, &directory.join(name));
        assert_eq!(place.is_some(), is_one);
        let gone = directory.join(".foo.ko.dkms-old-7-99");
        assert_eq!(place_of_leftover(&tree, &gone), None, "it has gone meanwhile");
    }
}
