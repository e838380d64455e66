// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system's journal (systemd.journal-fields(7)): an entry with fields of ours where there is
//! one, nothing elsewhere.

use log::{Level, Record};
use systemd_journal_logger::JournalLog;

/// Sends one entry. `is_good` tells the priority: info, or warning.
pub fn tell(message: &str, is_good: bool, fields: &[(&'static str, String)]) {
    let Ok(journal) = JournalLog::empty() else { return };
    let journal = journal
        .with_syslog_identifier("dkms".to_owned())
        .with_extra_fields(fields.iter().map(|(name, value)| (*name, value.as_bytes())));
    let level = if is_good { Level::Info } else { Level::Warn };
    let mut record = Record::builder();
    // Nobody is to fail because nobody listens.
    let _ = journal.journal_send(&record.level(level).target("dkms").args(format_args!("{message}")).build());
}
