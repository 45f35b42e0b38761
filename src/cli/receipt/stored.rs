//! Compares the log in the data directory of a stopped node with receipts.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::file::{Link, Receipt};
use crate::hash_chain::ContentHash;
use crate::storage::disk::Disk;
use crate::storage::dump::dump;
use crate::storage::error::StorageError;
use crate::types::GroupId;

/// What the comparison of a log with a receipt has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The log up to the receipt is the one that was signed.
    Good,
    /// The records of the receipt were trimmed, so nothing can be compared.
    Trimmed,
    /// The log is another one. The text says what differs.
    Changed(String),
}

/// The results of all receipts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared(Vec<(String, Verdict)>);

impl Compared {
    /// Returns the number of receipts that the log does not fit.
    pub fn changed(&self) -> usize {
        self.0.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Changed(_))).count()
    }

    /// Returns one line for each receipt.
    pub fn text(&self) -> String {
        let line = |(receipt, verdict): &(String, Verdict)| match verdict {
            Verdict::Good => format!("receipt good: {receipt}\n"),
            Verdict::Trimmed => format!("receipt not compared, its records were trimmed: {receipt}\n"),
            Verdict::Changed(what) => format!("CHANGED {what}; receipt: {receipt}\n"),
        };
        self.0.iter().map(line).collect()
    }

    /// Returns a list with one object for each receipt.
    pub fn to_json(&self) -> Value {
        let object = |(receipt, verdict): &(String, Verdict)| {
            let (result, what) = match verdict {
                Verdict::Good => ("good", None),
                Verdict::Trimmed => ("trimmed", None),
                Verdict::Changed(what) => ("changed", Some(what)),
            };
            json!({ "receipt": receipt, "result": result, "what": what })
        };
        self.0.iter().map(object).collect()
    }
}

/// Compares the log of a group with receipts, whose signatures were checked. Reads only committed entries. Damage is
/// skipped: `verify` reports it.
///
/// # Errors
/// The directory is in use or missing, or not a data directory.
pub fn compare(disk: &Disk, path: &Path, group: GroupId, receipts: &[Receipt]) -> Result<Compared, StorageError> {
    let wanted: BTreeMap<u64, &Receipt> = receipts.iter().map(|receipt| (receipt.link.offset, receipt)).collect();
    let mut found: BTreeMap<u64, Link> = BTreeMap::new();
    let (mut first_offset, mut next_offset) = (None, 0);
    let dumped = dump::<StorageError>(disk, path, group, true, |frame| {
        let (offset, count) = (frame.header.base_offset.0, frame.header.count);
        first_offset.get_or_insert(offset);
        next_offset = offset.saturating_add(u64::from(count));
        // Also an entry that begins elsewhere than that of the receipt, and contains its records.
        let is_wanted = wanted.range(..next_offset).next_back().is_some_and(|(_, receipt)| receipt.link.end() > offset);
        if let Some(chain) = frame.chain().filter(|_| is_wanted) {
            found.insert(offset, Link { offset, count, content: ContentHash::of(frame.records()), chain });
        }
        Ok(())
    })?;
    let verdict = |receipt: &Receipt| {
        let link = receipt.link;
        if first_offset.is_none_or(|first| link.offset < first) {
            return if first_offset.is_some() {
                Verdict::Trimmed
            } else {
                Verdict::Changed("the log contains no record".to_owned())
            };
        }
        match found.get(&link.offset) {
            Some(stored) if *stored == link => Verdict::Good,
            Some(stored) if stored.content != link.content => {
                Verdict::Changed(format!("records {} to {} are not those of the receipt", link.offset, link.end() - 1))
            }
            Some(_) => {
                Verdict::Changed(format!("a record before offset {} was changed, removed or moved", link.offset))
            }
            None if next_offset < link.end() => Verdict::Changed(format!(
                "the log ends before offset {next_offset} on this node, and the receipt goes up to {}{}",
                link.end() - 1,
                match dumped.uncommitted {
                    0 => String::new(),
                    entries => format!(" ({entries} further entries are not known to be committed here)"),
                }
            )),
            None => Verdict::Changed(format!("no entry begins at offset {}, as the receipt says", link.offset)),
        }
    };
    Ok(Compared(receipts.iter().map(|receipt| (receipt.described(), verdict(receipt))).collect()))
}
