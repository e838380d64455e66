// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--rpm_safe_upgrade`: rpm runs the old package's %preun after the new package's %post, so that
//! the `dkms remove` in the one would take away what `dkms add` in the other has just brought, if
//! both packages hold the same version of the module. `add` makes a note of it for the rpm
//! transaction that it is called in, `remove` looks there. Of another version, which the new package
//! may have failed to replace for a kernel, `remove` leaves what is installed ([`is_upgrade`]).

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::session::Session;
use crate::module::ModuleId;
use crate::sys::ancestors::{Process, ancestors};
use crate::sys::files;

/// Programs that run transactions, by how their names begin.
const MANAGERS: [&str; 6] = ["rpm", "dnf", "yum", "zypper", "microdnf", "packagekit"];

/// What was added in one transaction. rpm runs one at a time, so that there is one such file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Notes {
    transaction: Transaction,
    added: Vec<Note>,
}

/// A transaction is the process that runs it, or the last one that a daemon ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Transaction {
    boot: String,
    pid: i32,
    started: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    name: String,
    version: String,
    count: Option<u32>,
}

/// Who called us.
#[derive(Debug, PartialEq, Eq)]
struct Caller {
    transaction: Transaction,
    /// Whether that is a scriptlet for certain.
    is_scriptlet: bool,
    /// How many packages of its name there are when the scriptlet's part is done, its `$1`
    /// (rpm-scriptlets(7)): of a %post 2 in an upgrade, of a %preun 0 if the package goes for good.
    count: Option<u32>,
}

/// Notes that this transaction has asked for a module, registered by now or not.
pub(super) fn note(session: &Session, id: &ModuleId) -> Result<()> {
    if !session.options.rpm_safe_upgrade {
        return Ok(());
    }
    match caller(session) {
        Some(caller) => write_down(session, id, caller),
        None => {
            session.report.warning(
                "the rpm transaction cannot be found in /proc, so --rpm_safe_upgrade cannot keep its end from \
                 removing what is added now",
            );
            Ok(())
        }
    }
}

/// As [`note`], for `common.postinst`: dkms's model of a spec calls that in %post, and names the
/// option only in %preun.
pub fn note_of_scriptlet(session: &Session, id: &ModuleId) -> Result<()> {
    match caller(session) {
        Some(caller) if caller.is_scriptlet => write_down(session, id, caller),
        _ => Ok(()),
    }
}

fn write_down(session: &Session, id: &ModuleId, caller: Caller) -> Result<()> {
    let Caller { transaction, count, .. } = caller;
    let _lock = session.tree.lock_registry(&session.report)?;
    let mut notes = read(session, &transaction)?;
    notes.added.retain(|note| !note.is_of(id));
    notes.added.push(Note { name: id.name().to_owned(), version: id.version().to_owned(), count });
    write(session, &notes)
}

/// Whether a module is to stay because this transaction has asked for it.
pub(super) fn keeps(session: &Session, id: &ModuleId) -> Result<bool> {
    if !session.options.rpm_safe_upgrade {
        return Ok(false);
    }
    let Some(Caller { transaction, count, .. }) = caller(session) else { return Ok(false) };
    let _lock = session.tree.lock_registry(&session.report)?;
    let mut notes = read(session, &transaction)?;
    let Some(note) = notes.added.iter().find(|note| note.is_of(id)) else { return Ok(false) };
    let keeps = stays(note.count, count);
    // In an upgrade there may be several calls, one for each kernel. Otherwise the note has had its
    // day, as dkms's has: the next transaction of the same daemon means what it says.
    if !matches!((keeps, count), (true, Some(1..))) {
        notes.added.retain(|note| !note.is_of(id));
        write(session, &notes)?;
    }
    Ok(keeps)
}

/// Whether the script that called us belongs to a package of which another version is there: what
/// that could not put in the place of this one's modules has to stay.
pub(super) fn is_upgrade(session: &Session) -> bool {
    let count = || caller(session).filter(|caller| caller.is_scriptlet)?.count;
    session.options.rpm_safe_upgrade && count().is_some_and(|count| count > 0)
}

/// Whether a note made by a scriptlet holds against one that removes, by their counts. What came
/// with an upgrade and goes for good goes in a later transaction of the same daemon. (A package's
/// first installation and another's end may be one transaction: that is how packages are renamed.)
fn stays(added: Option<u32>, removed: Option<u32>) -> bool {
    !matches!((added, removed), (Some(2..), Some(0)))
}

impl Note {
    fn is_of(&self, id: &ModuleId) -> bool {
        self.name == id.name() && self.version == id.version()
    }
}

fn path(session: &Session) -> PathBuf {
    session.tree.hooks_dir().join("rpm-transaction.json")
}

/// The notes of a transaction; those of another are of no use any more, nor is what cannot be read.
fn read(session: &Session, transaction: &Transaction) -> Result<Notes> {
    let text = files::read_if_there(&path(session))?.unwrap_or_default();
    let notes = serde_json::from_str(&text).ok().filter(|notes: &Notes| notes.transaction == *transaction);
    Ok(notes.unwrap_or_else(|| Notes { transaction: transaction.clone(), added: Vec::new() }))
}

fn write(session: &Session, notes: &Notes) -> Result<()> {
    let text = serde_json::to_string(notes).context("writing down what an rpm transaction added")?;
    files::write_atomically(&path(session), text.as_bytes(), 0o644)
}

/// Nothing for an offline image, whose processes these are not.
fn caller(session: &Session) -> Option<Caller> {
    if !session.tree.root.is_live() {
        return None;
    }
    let boot = files::read_if_there(&session.tree.path("/proc/sys/kernel/random/boot_id")).ok()??;
    find(&ancestors(&session.tree.path("/proc")), boot.trim())
}

/// The transaction's process: the parent of the scriptlet, which rpm runs from a file with a name
/// of its own; else the nearest package manager; else, as dkms has it, our parent's parent.
fn find(ancestors: &[Process], boot: &str) -> Option<Caller> {
    let scriptlet = ancestors.iter().position(|process| argument(process).is_some());
    let manager = || ancestors.iter().position(is_manager);
    let at = scriptlet.map(|at| at + 1).or_else(manager).unwrap_or(1);
    let Process { pid, started, .. } = ancestors.get(at)?;
    let transaction = Transaction { boot: boot.to_owned(), pid: *pid, started: *started };
    let count = scriptlet.and_then(|at| argument(&ancestors[at])).and_then(|word| word.parse().ok());
    Some(Caller { transaction, is_scriptlet: scriptlet.is_some(), count })
}

/// What follows the file of a scriptlet (rpm, lib/rpmscript.cc: `INTERPRETER TMP/rpm-tmp.XXXXXX $1`).
fn argument(process: &Process) -> Option<&str> {
    let is_file = |word: &String| file_name(word).starts_with("rpm-tmp.");
    let at = process.words.iter().position(is_file)?;
    Some(process.words.get(at + 1).map_or("", String::as_str))
}

/// Some are scripts: their names come second.
fn is_manager(process: &Process) -> bool {
    let begins = |word: &String| MANAGERS.iter().any(|name| file_name(word).starts_with(name));
    process.words.iter().take(2).any(begins)
}

fn file_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn process(pid: i32, line: &str) -> Process {
        Process { pid, started: 7, words: line.split(' ').map(str::to_owned).collect() }
    }

    #[rstest]
    #[case::scriptlet(&["/bin/sh /var/tmp/rpm-tmp.Ab3 2", "rpm -Uvh x.rpm", "bash"], Some((1, Some(2))))]
    #[case::within_a_script(
        &["/bin/sh /usr/lib/dkms/common.postinst x", "/bin/sh /var/tmp/rpm-tmp.Ab3 1", "/usr/bin/python3 /usr/bin/dnf up"],
        Some((2, Some(1)))
    )]
    #[case::no_argument(&["/bin/bash /tmp/rpm-tmp.Z", "zypper in x"], Some((1, None)))]
    #[case::replaced_its_shell(&["/usr/bin/rpm -e x", "bash"], Some((0, None)))]
    #[case::a_daemon(&["sh -c dkms", "sh -c x", "/usr/libexec/packagekitd"], Some((2, None)))]
    #[case::as_dkms(&["sh x", "alien", "bash"], Some((1, None)))]
    #[case::nobody(&["init"], None)]
    fn the_transaction_is_found(#[case] lines: &[&str], #[case] want: Option<(i32, Option<u32>)>) {
        let processes: Vec<Process> =
            lines.iter().enumerate().map(|(pid, line)| process(i32::try_from(pid).unwrap(), line)).collect();
        let found = find(&processes, "boot");
        assert_eq!(found.map(|caller| (caller.transaction.pid, caller.count)), want);
    }

    #[rstest]
    #[case::upgrade(Some(2), Some(1), true)]
    #[case::renamed_package(Some(1), Some(0), true)]
    #[case::went_later(Some(2), Some(0), false)]
    #[case::unknown(None, None, true)]
    fn a_note_holds_within_its_transaction(
        #[case] added: Option<u32>,
        #[case] removed: Option<u32>,
        #[case] want: bool,
    ) {
        assert_eq!(stays(added, removed), want);
    }
}
