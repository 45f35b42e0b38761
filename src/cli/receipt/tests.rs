//! A log is changed on the disk, and every checksum and every hash is computed again.

use std::path::Path;

use protobuf::Message as _;

use super::file::Receipt;
use super::stored::compare;
use crate::hash_chain::{ChainHash, ContentHash, EntryChain};
use crate::pb::v1;
use crate::storage::disk::Disk;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::frame::{HEADER_BYTES, set_kind};
use crate::storage::log::{Genesis, GroupLog, HardState, LogOptions};
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::payload::{RecordFields, encode_record, stamp_records};
use crate::storage::verify::{Severity, verify};
use crate::types::{GroupId, LogIndex, NodeId, NodeName, Offset, ReplicaId, Term};

const GROUP: GroupId = GroupId(1);

/// The records of each entry.
type Log = Vec<Vec<&'static str>>;

fn original() -> Log {
    vec![vec!["a", "b"], vec!["c"], vec!["d", "e", "f"], vec!["g"]]
}

/// How the hash chain of the written entries is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hashes {
    Computed,
    /// Those of the original log are kept.
    Kept,
    /// The entries before the last one are written without.
    Left,
}

/// Returns the entries of a log, from index 2 on.
fn entries(log: &Log, hashes: Hashes) -> Vec<Entry> {
    entries_after(ChainHash::default(), log, hashes)
}

fn entries_after(mut chain: ChainHash, log: &Log, hashes: Hashes) -> Vec<Entry> {
    let (mut offset, mut entries) = (0u64, Vec::new());
    let kept = if hashes == Hashes::Kept { entries_of(&original()) } else { Vec::new() };
    for (i, values) in log.iter().enumerate() {
        let mut payload = Vec::new();
        for value in values {
            encode_record(&mut payload, &RecordFields { value: value.as_bytes(), ..RecordFields::default() });
        }
        let count = u32::try_from(values.len()).expect("few");
        stamp_records(&mut payload, Offset(offset), Term(1), 1000).expect("canonical");
        let computed = EntryChain::of(chain, offset + u64::from(count), ContentHash::of(&payload));
        let stored = kept.get(i).and_then(|entry: &Entry| entry.stamp().ok()?.kind.payload().chain(&entry.payload()));
        let written = stored.unwrap_or(computed);
        chain = written.after;
        let is_plain = hashes == Hashes::Left && i + 1 < log.len();
        if !is_plain {
            payload.extend_from_slice(&written.encode());
        }
        let stamp = Stamp {
            kind: if is_plain { EntryKind::Records } else { EntryKind::ChainedRecords },
            count,
            base_offset: Offset(offset),
            append_time_us: 1000,
            producer_id: 0,
            sequence: 0,
        };
        entries.push(Entry::new(LogIndex(2 + i as u64), Term(1), stamp, &payload));
        offset += u64::from(count);
    }
    entries
}

fn entries_of(log: &Log) -> Vec<Entry> {
    entries(log, Hashes::Computed)
}

/// Writes a stopped node's directory with this log, in which all entries are committed.
fn write(dir: &Path, entries: &[Entry]) {
    write_committed(dir, entries, None);
}

fn write_committed(dir: &Path, entries: &[Entry], committed: Option<LogIndex>) {
    let disk = Disk::real();
    let data = DataDir::open(&disk, dir).expect("a data directory");
    for group in [GroupId::CATALOG, GROUP] {
        let genesis = Genesis::founder(ReplicaId(5));
        GroupLog::create(&disk, &data.groups_dir(), group, &LogOptions::default(), genesis).expect("a group");
    }
    let node = NodeFile::new(NodeId(5), NodeName::new("n1").expect("a name"));
    data.store(&node.with_group(GroupId::CATALOG).with_group(GROUP)).expect("stored");
    let (mut log, _) = GroupLog::open(&disk, &data.groups_dir(), GROUP, &LogOptions::default()).expect("opened");
    log.append(entries).expect("appended");
    let commit = committed.unwrap_or(log.bounds().last_index);
    log.append_hard_state(&HardState { term: Term(1), vote: None, commit }).expect("appended");
    log.close().expect("closed");
}

/// The receipt of an entry of the original log.
fn receipt(entry: &Entry) -> Receipt {
    let stamp = entry.stamp().expect("a stamp");
    let form = stamp.kind.payload();
    let payload = entry.payload();
    let chain = form.chain(&payload).expect("a chain");
    let link = v1::ChainLink {
        offset: stamp.base_offset.0,
        count: stamp.count,
        content_hash: ContentHash::of(form.records(&payload)).0.to_vec().into(),
        previous_chain_hash: chain.before.0.to_vec().into(),
        chain_hash: chain.after.0.to_vec().into(),
        ..v1::ChainLink::default()
    };
    let statement = v1::ReceiptStatement { link: Some(link).into(), ..v1::ReceiptStatement::default() };
    let statement = statement.write_to_bytes().expect("encoded");
    Receipt::of(v1::Receipt { statement: statement.into(), ..v1::Receipt::default() }).expect("a receipt")
}

/// The receipt of an entry with this place in a log.
pub(super) fn receipt_of(log_id: &str, offset: u64, count: u32) -> Receipt {
    let content = ContentHash::of(b"records");
    let chain = EntryChain::of(ChainHash::default(), offset + u64::from(count), content);
    let link = v1::ChainLink {
        offset,
        count,
        content_hash: content.0.to_vec().into(),
        previous_chain_hash: chain.before.0.to_vec().into(),
        chain_hash: chain.after.0.to_vec().into(),
        ..v1::ChainLink::default()
    };
    let link = Some(link).into();
    let statement = v1::ReceiptStatement { log_id: log_id.to_owned(), link, ..v1::ReceiptStatement::default() };
    let statement = statement.write_to_bytes().expect("encoded").into();
    Receipt::of(v1::Receipt { statement, ..v1::Receipt::default() }).expect("a receipt")
}

/// Returns whether `data verify` finds damage, and how many of the receipts of the original do not fit.
fn found(log: &Log, hashes: Hashes) -> (bool, usize) {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &entries(log, hashes));
    let report = verify(&Disk::real(), dir.path()).expect("a report");
    let receipts: Vec<Receipt> = entries_of(&original()).iter().map(receipt).collect();
    let group = report.groups.iter().find(|group| group.group == GROUP).expect("a group");
    let compared = compare(&Disk::real(), dir.path(), group, &receipts).expect("compared");
    (report.worst() == Some(Severity::Damage), compared.not_good())
}

#[test]
fn receipts_find_a_log_that_was_written_anew() {
    assert_eq!(found(&original(), Hashes::Computed), (false, 0), "the original");
    let mut more = original();
    more.push(vec!["h"]);
    assert_eq!(found(&more, Hashes::Computed), (false, 0), "further records are no change");

    let mut flipped = original();
    flipped[1][0] = "x";
    assert_eq!(found(&flipped, Hashes::Computed), (false, 3), "all from the changed record on");
    let mut removed = original();
    removed[2].remove(1);
    assert_eq!(found(&removed, Hashes::Computed), (false, 2));
    let mut whole = original();
    whole.remove(1);
    assert_eq!(found(&whole, Hashes::Computed), (false, 3), "an entry is missing");
    let mut reordered = original();
    reordered[2].swap(0, 1);
    assert_eq!(found(&reordered, Hashes::Computed), (false, 2));
    let mut swapped = original();
    swapped.swap(1, 3);
    assert_eq!(found(&swapped, Hashes::Computed), (false, 3), "two entries of the same size");
    let mut shorter = original();
    shorter.pop();
    assert_eq!(found(&shorter, Hashes::Computed), (false, 1), "the end is missing");
    assert_eq!(found(&vec![vec!["a"], vec!["b"]], Hashes::Computed), (false, 4), "other entries");
}

#[test]
fn a_changed_record_does_not_fit_the_hashes_that_are_stored_with_it() {
    assert_eq!(found(&original(), Hashes::Kept), (false, 0), "the original");
    let mut flipped = original();
    flipped[1][0] = "x";
    assert!(found(&flipped, Hashes::Kept).0);
    let mut swapped = original();
    swapped.swap(1, 3);
    assert!(found(&swapped, Hashes::Kept).0);
}

/// The records before the first entry of a log were not trimmed: they never existed.
#[test]
fn a_log_begins_with_the_chain_of_no_records() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &entries_after(ChainHash([7; 32]), &original(), Hashes::Computed));
    let report = verify(&Disk::real(), dir.path()).expect("a report");
    let found: Vec<&str> = report.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(found.iter().any(|what| what.contains("does not continue")), "{found:?}");
}

/// A log in which only the entry of the receipt has a hash chain hides every change before it.
#[test]
fn entries_without_a_hash_chain_are_damage() {
    let mut flipped = original();
    flipped[1][0] = "x";
    let dir = tempfile::tempdir().expect("a directory");
    // As after a trim, where the chain before the first entry is not known.
    write(dir.path(), &entries_after(ChainHash([7; 32]), &flipped, Hashes::Left));
    let report = verify(&Disk::real(), dir.path()).expect("a report");
    let found: Vec<&str> = report.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(found.iter().any(|what| what.contains("only a part of the log has a hash chain")), "{found:?}");
}

/// Returns the receipts of the original log that fit a directory, and the worst finding in it.
fn good(dir: &Path, first_offset: Option<Offset>) -> (usize, Option<Severity>) {
    let mut report = verify(&Disk::real(), dir).expect("a report");
    let worst = report.worst();
    let group = report.groups.iter_mut().find(|group| group.group == GROUP).expect("a group");
    group.first_offset = first_offset.unwrap_or(group.first_offset);
    let receipts: Vec<Receipt> = entries_of(&original()).iter().map(receipt).collect();
    let compared = compare(&Disk::real(), dir, group, &receipts).expect("compared");
    (receipts.len() - compared.not_good(), worst)
}

/// Once, a frame of a newer version between two entries separated their hash chains: entries before it could be changed,
/// and the receipts of those after it were called good.
#[test]
fn a_frame_of_another_version_does_not_hide_a_change() {
    let mut flipped = original();
    flipped[0][0] = "x";
    let shifted =
        |entry: &Entry| Entry::new(entry.index.next(), entry.term, entry.stamp().expect("a stamp"), &entry.payload());
    let mut entries = entries_of(&flipped)[..2].to_vec();
    let noop = Stamp {
        kind: EntryKind::Noop,
        count: 0,
        base_offset: Offset(3),
        append_time_us: 0,
        producer_id: 0,
        sequence: 0,
    };
    entries.push(Entry::new(LogIndex(4), Term(1), noop, &[]));
    entries.extend(entries_of(&original())[2..].iter().map(shifted));
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &entries);
    separate(dir.path(), 99);
    assert_eq!(good(dir.path(), None), (0, Some(Severity::Format)));
}

/// Once, a changed manifest, by which the records were trimmed, hid every change of them from receipts.
#[test]
fn records_that_only_seem_to_be_trimmed_are_compared() {
    let trimmed = Some(Offset(1000));
    for (log, fit) in [(original(), 4), (vec![vec!["a", "b"], vec!["x"], vec!["d", "e", "f"], vec!["g"]], 1)] {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &entries_of(&log));
        assert_eq!(good(dir.path(), trimmed), (fit, None));
    }
}

/// A new leader replaces entries that were not committed: their hash chain is not part of the log.
#[test]
fn the_chain_of_replaced_entries_does_not_count() {
    let dir = tempfile::tempdir().expect("a directory");
    write_committed(dir.path(), &entries_of(&original()), Some(LogIndex(3)));
    let disk = Disk::real();
    let data = DataDir::open(&disk, dir.path()).expect("a data directory");
    let (mut log, _) = GroupLog::open(&disk, &data.groups_dir(), GROUP, &LogOptions::default()).expect("opened");
    log.truncate_suffix(LogIndex(4)).expect("truncated");
    let mut replaced = original();
    replaced.truncate(2);
    replaced.extend([vec!["x"], vec!["y", "z"], vec!["g"]]);
    log.append(&entries_of(&replaced)[2..]).expect("appended");
    let commit = log.bounds().last_index;
    log.append_hard_state(&HardState { term: Term(1), vote: None, commit }).expect("appended");
    log.close().expect("closed");
    drop(data);
    assert_eq!(good(dir.path(), None), (2, None));
}

/// Numbers that only depend on the seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

const VALUES: [&str; 8] = ["", "a", "b", "c", "dd", "ee", "a longer one", "another long one"];

fn random_log(dice: &mut Dice, entries: usize) -> Log {
    let mut entry = |_| (0..=dice.below(3)).map(|_| VALUES[dice.below(VALUES.len())]).collect();
    (0..entries).map(&mut entry).collect()
}

/// Changes a record, or removes, moves or adds records or entries.
fn change(log: &mut Log, dice: &mut Dice) {
    let (at, other) = (dice.below(log.len()), dice.below(log.len()));
    match dice.below(6) {
        0 => log[at][0] = VALUES[dice.below(VALUES.len())],
        1 => log.swap(at, other),
        2 => log[at].rotate_left(1),
        3 if log.len() > 1 => drop(log.remove(at)),
        4 => log[at].push("new"),
        _ => {
            let copy = log[other].clone();
            log.insert(at, copy);
        }
    }
}

/// An insider changes the beginning of a log, computes its chain again, and lets the original end follow, perhaps after a
/// frame that separates the two. A receipt is good only if all entries up to its own are those of the original.
#[test]
fn no_change_of_an_insider_is_good() {
    let (mut found, mut all_good) = (0, 0);
    for seed in 1..=60 {
        let mut dice = Dice(seed);
        let log = random_log(&mut dice, 6);
        let whole = entries_of(&log);
        let split = dice.below(log.len() + 1);
        let mut begin = log[..split].to_vec();
        if !begin.is_empty() && dice.below(5) > 0 {
            change(&mut begin, &mut dice);
        }
        let count = |log: &[Vec<&str>]| log.iter().map(Vec::len).sum::<usize>();
        let end = if count(&begin) == count(&log[..split]) { &whole[split..] } else { &[] };
        let mut entries = entries_of(&begin);
        let offset = Offset(count(&begin) as u64);
        let is_separated = dice.below(3) > 0;
        if is_separated {
            let (kind, producer_id, sequence) = (EntryKind::Noop, 0, 0);
            let noop = Stamp { kind, count: 0, base_offset: offset, append_time_us: 0, producer_id, sequence };
            entries.push(Entry::new(LogIndex(2 + entries.len() as u64), Term(1), noop, &[]));
        }
        for entry in end {
            let index = LogIndex(2 + entries.len() as u64);
            entries.push(Entry::new(index, entry.term, entry.stamp().expect("a stamp"), &entry.payload()));
        }
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &entries);
        if is_separated {
            let separator = [EntryKind::Noop.code(), 7, 99][dice.below(3)];
            separate(dir.path(), separator);
        }
        let records = |entry: &&Entry| entry.stamp().expect("a stamp").count > 0;
        let stored: Vec<&Entry> = entries.iter().filter(records).collect();
        let same = stored.iter().zip(&whole).take_while(|(a, b)| a.payload() == b.payload()).count();
        let report = verify(&Disk::real(), dir.path()).expect("a report");
        let group = report.groups.iter().find(|group| group.group == GROUP).expect("a group");
        for (i, entry) in whole.iter().enumerate() {
            let is_good =
                compare(&Disk::real(), dir.path(), group, &[receipt(entry)]).expect("compared").not_good() == 0;
            assert!(!is_good || i < same, "seed {seed}: receipt {i} is good, and {same} entries are the same");
            assert!(
                is_good || i >= same || is_separated,
                "seed {seed}: receipt {i} of {same} same entries is not good"
            );
            (found, all_good) = (found + usize::from(!is_good), all_good + usize::from(is_good));
        }
    }
    assert!(found > 40 && all_good > 40, "{found} {all_good}");
}

/// Turns the no-op of a log into a frame of another kind.
fn separate(dir: &Path, kind: u8) {
    let segment = dir.join("groups/1/00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let mut at = 128;
    while bytes[at + 8] != EntryKind::Noop.code() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        at += (HEADER_BYTES + length as usize).next_multiple_of(8);
    }
    set_kind(&mut bytes, at as u64, kind);
    std::fs::write(&segment, bytes).expect("written");
}
