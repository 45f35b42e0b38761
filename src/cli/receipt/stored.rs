//! Compares the log in the data directory of a stopped node with receipts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::file::{Link, Receipt};
use crate::hash_chain::{ChainHash, ContentHash};
use crate::storage::disk::Disk;
use crate::storage::dump::dump;
use crate::storage::error::StorageError;
use crate::storage::verify::GroupReport;

/// What the comparison of a log with a receipt has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The log up to the receipt is the one that was signed.
    Good,
    /// The records of the receipt were trimmed, so nothing can be compared.
    Trimmed,
    /// Records before the end of the receipt can't be read, or are not on this node. The text says which.
    Unconfirmed(String),
    /// The log is another one. The text says what differs.
    Changed(String),
}

impl Verdict {
    /// The result in one word, and what differs.
    fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            Verdict::Good => ("good", None),
            Verdict::Trimmed => ("trimmed", None),
            Verdict::Unconfirmed(what) => ("unconfirmed", Some(what)),
            Verdict::Changed(what) => ("changed", Some(what)),
        }
    }
}

/// The results of all receipts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared(Vec<(String, Verdict)>);

impl Compared {
    /// Returns the number of receipts that the log does not fit, or may not fit.
    pub fn not_good(&self) -> usize {
        let is_bad = |verdict: &Verdict| matches!(verdict, Verdict::Changed(_) | Verdict::Unconfirmed(_));
        self.0.iter().filter(|(_, verdict)| is_bad(verdict)).count()
    }

    /// The receipts of a log that can't be compared. `what` says why.
    pub fn unconfirmed(receipts: &[Receipt], what: &str) -> Compared {
        let result = |receipt: &Receipt| (receipt.described(), Verdict::Unconfirmed(what.to_owned()));
        Compared(receipts.iter().map(result).collect())
    }

    /// Makes good results unconfirmed, because the log is not the one that clients read. `what` says why.
    pub fn doubted(mut self, what: &str) -> Compared {
        for (_, verdict) in self.0.iter_mut().filter(|(_, verdict)| *verdict == Verdict::Good) {
            *verdict = Verdict::Unconfirmed(what.to_owned());
        }
        self
    }

    /// Returns whether a log is another one than that of a receipt.
    pub fn is_changed(&self) -> bool {
        self.0.iter().any(|(_, verdict)| matches!(verdict, Verdict::Changed(_)))
    }

    /// Adds the results of another log.
    pub fn extend(&mut self, other: Compared) {
        self.0.extend(other.0);
    }

    /// Returns one line for each receipt.
    pub fn text(&self) -> String {
        let line = |(receipt, verdict): &(String, Verdict)| match verdict {
            Verdict::Good => format!("receipt good: {receipt}\n"),
            Verdict::Trimmed => format!("receipt not compared, its records were trimmed: {receipt}\n"),
            Verdict::Unconfirmed(what) => format!("receipt NOT CONFIRMED, {what}: {receipt}\n"),
            Verdict::Changed(what) => format!("CHANGED {what}; receipt: {receipt}\n"),
        };
        self.0.iter().map(line).collect()
    }

    /// Returns a list with one object for each receipt.
    pub fn to_json(&self) -> Value {
        let object = |(receipt, verdict): &(String, Verdict)| {
            let (result, what) = verdict.parts();
            json!({ "receipt": receipt, "result": result, "what": what })
        };
        self.0.iter().map(object).collect()
    }
}

/// The entries of a log, as far as the receipts need them.
struct Stored {
    /// The first record that was not trimmed.
    first_offset: u64,
    /// The entries that begin where one of a receipt begins.
    found: BTreeMap<u64, Link>,
    /// The first record from which on the entries, or their hash chain, do not continue those before.
    gap: Option<u64>,
    /// The offset after the last record.
    end: u64,
    /// Entries at the end that are not known to be committed.
    uncommitted: u64,
}

impl Stored {
    /// Reads only committed entries. Damage is skipped: `verify` reports it, and it leaves a gap here.
    fn read(disk: &Disk, path: &Path, group: &GroupReport, receipts: &[Receipt]) -> Result<Stored, StorageError> {
        let first_offset = group.first_offset.0;
        let mut stored = Stored { first_offset, found: BTreeMap::new(), gap: None, end: first_offset, uncommitted: 0 };
        let wanted: BTreeSet<u64> = receipts.iter().map(|receipt| receipt.link.offset).collect();
        // The chain after the last entry; the outer `None` before the first one that was not trimmed.
        let mut before: Option<Option<ChainHash>> = None;
        let dumped = dump::<StorageError>(disk, path, group.group, true, |frame| {
            let (offset, count) = (frame.header.base_offset.0, frame.header.count);
            let chain = frame.chain();
            if let Some(chain) = chain.filter(|_| wanted.contains(&offset)) {
                stored.found.insert(offset, Link { offset, count, content: ContentHash::of(frame.records()), chain });
            }
            let end = offset.saturating_add(u64::from(count));
            if end > first_offset {
                // `verify` has compared the chain of each entry with its records. Here it is compared with the entry
                // before once more, because `verify` does not know what a frame of another version between them is.
                let continues = match before {
                    Some(before) => offset == stored.end && chain.map(|chain| chain.before) == before,
                    None => {
                        offset <= first_offset && (offset > 0 || chain.is_none_or(|c| c.before == ChainHash::default()))
                    }
                };
                if !continues {
                    stored.gap.get_or_insert(offset.min(stored.end));
                }
                (stored.end, before) = (end, Some(chain.map(|chain| chain.after)));
            }
            Ok(())
        })?;
        stored.uncommitted = dumped.uncommitted;
        Ok(stored)
    }

    fn verdict(&self, link: Link) -> Verdict {
        let last = link.end().saturating_sub(1);
        if link.end() <= self.first_offset {
            // The files with trimmed records are removed later.
            return match self.found.get(&link.offset) {
                Some(stored) if *stored != link => Verdict::Changed(format!(
                    "records {} to {last}, or some before them, are not those of the receipt, and only seem to be trimmed",
                    link.offset
                )),
                Some(_) | None => Verdict::Trimmed,
            };
        }
        let unreadable = self.gap.filter(|gap| *gap < link.end()).map(|gap| {
            Verdict::Unconfirmed(format!("because records around offset {gap} can't be read or were changed"))
        });
        match self.found.get(&link.offset) {
            Some(stored) if *stored == link => unreadable.unwrap_or(Verdict::Good),
            Some(stored) if stored.content != link.content => {
                Verdict::Changed(format!("records {} to {last} are not those of the receipt", link.offset))
            }
            Some(_) => {
                Verdict::Changed(format!("a record before offset {} was changed, removed or moved", link.offset))
            }
            None if self.end < link.end() => {
                let further = match self.uncommitted {
                    0 => String::new(),
                    entries => format!(", and {entries} further entries are not known to be committed"),
                };
                unreadable.unwrap_or_else(|| {
                    Verdict::Unconfirmed(format!(
                        "because the log ends before offset {} on this node{further}: let the node catch up, or verify another one",
                        self.end
                    ))
                })
            }
            None => unreadable.unwrap_or_else(|| {
                Verdict::Changed(format!("no entry begins at offset {}, as the receipt says", link.offset))
            }),
        }
    }
}

/// Compares the log of a group with receipts, whose signatures were checked. `group` is what `verify` has found.
///
/// # Errors
/// The directory is in use or missing, or not a data directory.
pub fn compare(disk: &Disk, path: &Path, group: &GroupReport, receipts: &[Receipt]) -> Result<Compared, StorageError> {
    let stored = Stored::read(disk, path, group, receipts)?;
    let results = receipts.iter().map(|receipt| (receipt.described(), stored.verdict(receipt.link)));
    Ok(Compared(results.collect()))
}
