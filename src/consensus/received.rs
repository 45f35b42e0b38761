//! A follower's checks of a leader's entries before it writes them.
//!
//! A leader checks its own proposals, and raft trusts its leader. But one faulty or compromised node may send entries
//! as the leader of a newer term. An entry in the log is read again at each restart, so an entry that can't be
//! applied would disable this node permanently. A message with such an entry is dropped, as if the network had lost
//! it. A correct leader then sends its own entries.

use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};

use super::bad_message::BadMessage;
use super::wire::snapshot_from_raft;
use crate::catalog::{Catalog, Command};
use crate::codes::UnknownCode;
use crate::feature_level::FeatureRange;
use crate::log_state::StateChange;
use crate::storage::entry::{ENTRY_BYTES_MAX, EntryKind, Stamp};
use crate::storage::payload;
use crate::storage::state_change::state_change;
use crate::types::{GroupId, LogIndex, Term};

/// Checks every entry of an append, and the term of a snapshot.
///
/// # Errors
/// [`BadMessage`] for an entry that no leader of this version proposes.
pub(super) fn check(group: GroupId, message: &Message, supported: FeatureRange) -> Result<(), BadMessage> {
    match message.get_msg_type() {
        MessageType::MsgAppend => {
            check_terms(message)?;
            message.entries.iter().try_for_each(|entry| check_entry(group, entry, supported))
        }
        MessageType::MsgSnapshot if message.get_snapshot().get_metadata().term > message.term => Err(NEWER),
        MessageType::MsgSnapshot if group == GroupId::CATALOG => check_catalog(message),
        _ => Ok(()),
    }
}

const NEWER: BadMessage = BadMessage::Malformed("an entry of a newer term than its leader's");

/// Checks the order of terms. They never decrease within a log, so after an entry of a term that is newer than its
/// leader's, no later leader could append anything.
fn check_terms(message: &Message) -> Result<(), BadMessage> {
    let terms = || std::iter::once(message.log_term).chain(message.entries.iter().map(|entry| entry.term));
    if !terms().is_sorted() {
        return Err(BadMessage::Malformed("an entry of an older term than the one before it"));
    }
    if terms().all(|term| term <= message.term) { Ok(()) } else { Err(NEWER) }
}

/// Checks the catalog of a snapshot before it is stored: it is decoded again at each start. Only a log that begins at
/// its first entry needs none.
fn check_catalog(message: &Message) -> Result<(), BadMessage> {
    let snapshot = snapshot_from_raft(message.get_snapshot())?;
    match snapshot.catalog {
        Some(catalog) if catalog.index < snapshot.base.index => {
            Err(BadMessage::Malformed("a snapshot whose catalog is older than its log"))
        }
        Some(catalog) => Ok(Catalog::decode(&catalog.bytes).map(drop)?),
        None if snapshot.base.index > LogIndex(1) => {
            Err(BadMessage::Malformed("a snapshot of the catalog's log without the catalog"))
        }
        None => Ok(()),
    }
}

fn check_entry(group: GroupId, entry: &RaftEntry, supported: FeatureRange) -> Result<(), BadMessage> {
    if entry.data.len() > ENTRY_BYTES_MAX {
        return Err(BadMessage::Malformed("an entry that is too large"));
    }
    if entry.get_entry_type() != EntryType::EntryNormal || entry.data.is_empty() {
        return Ok(());
    }
    EntryKind::try_from(entry.data[0])
        .map_err(|unknown| UnknownCode { what: unknown.what, code: unknown.code.into() })?;
    let stamp = Stamp::decode(&entry.data).map_err(|_| BadMessage::Malformed("an entry without a valid stamp"))?;
    let body = &entry.data[Stamp::BYTES..];
    let position = (LogIndex(entry.index), Term(entry.term));
    match state_change(group, position, &stamp, body).map_err(|bad| BadMessage::Malformed(bad.0))? {
        StateChange::Records { .. } => {
            let term = Term(entry.term);
            let records = stamp.kind.payload().records(body);
            payload::check_stamped(records, stamp.base_offset, term, stamp.append_time_us, stamp.count)
                .map_err(|bad| BadMessage::Malformed(bad.0))?;
            if group == GroupId::CATALOG {
                payload::records(records).flatten().try_for_each(|record| check_command(record, supported))?;
            }
            Ok(())
        }
        StateChange::Trim(first) if first > stamp.base_offset => {
            Err(BadMessage::Malformed("a trim beyond the end of the log"))
        }
        // `state_change` has checked everything else.
        _ => Ok(()),
    }
}

/// A raise of the feature level beyond what this node supports would end it, and again at each later start. So such a
/// raise is committed only if a majority supports it.
fn check_command(record: &[u8], supported: FeatureRange) -> Result<(), BadMessage> {
    match Command::of_record(record)? {
        Command::RaiseFeatureLevel(level) if level > supported.max() => {
            Err(BadMessage::FeatureLevel { level, supported })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::command_proposal;
    use crate::feature_level::FeatureLevel;
    use crate::storage::entry::Unstamped;
    use crate::storage::payload::{RecordFields, encode_record, stamp_records};
    use crate::types::{NodeId, Offset};

    const BASE: Offset = Offset(7);
    const TERM: u64 = 3;

    fn entry(kind: EntryKind, count: u32, payload: Unstamped) -> RaftEntry {
        let stamp = Stamp { kind, count, base_offset: BASE, append_time_us: 5, producer_id: 0, sequence: 0 };
        let mut data = payload.stamp(&stamp);
        if kind == EntryKind::Records {
            // The error is ignored: tests of malformed payloads use this function, too.
            let _ = stamp_records(&mut data[Stamp::BYTES..], BASE, Term(TERM), 5);
        }
        RaftEntry { index: 9, term: TERM, data: data.into(), ..Default::default() }
    }

    fn records(values: &[&[u8]]) -> Unstamped {
        let mut payload = Vec::new();
        for value in values {
            encode_record(&mut payload, &RecordFields { value, ..RecordFields::default() });
        }
        payload.as_slice().into()
    }

    fn checked(group: u64, entry: RaftEntry) -> Result<(), BadMessage> {
        let mut message = Message { entries: vec![entry].into(), term: TERM + 1, ..Default::default() };
        message.set_msg_type(MessageType::MsgAppend);
        check(GroupId(group), &message, FeatureRange::SUPPORTED)
    }

    /// One append with a level that no binary supports ended every node that applied it, and again at each later start.
    #[test]
    fn a_level_beyond_what_this_node_supports_is_not_written() {
        let raise = |level| {
            let payload = command_proposal(&Command::RaiseFeatureLevel(FeatureLevel(level))).payload;
            checked(0, entry(EntryKind::Records, 1, payload))
        };
        let max = FeatureRange::SUPPORTED.max().0;
        assert_eq!(raise(max), Ok(()));
        let refused = raise(max + 1).expect_err("beyond");
        assert!(refused.to_string().contains("start a newer version"), "{refused}");
    }

    /// One append with an entry that no node can apply stopped its receiver, and again at each later start.
    #[test]
    fn rejects_a_catalog_entry_that_cannot_be_applied() {
        let removal = command_proposal(&Command::RemoveNode(NodeId(4))).payload;
        assert_eq!(checked(0, entry(EntryKind::Records, 1, removal)), Ok(()));
        assert!(checked(0, entry(EntryKind::Records, 1, records(&[b"\xff\xff\xff"]))).is_err());
        assert!(checked(0, entry(EntryKind::Records, 1, records(&[b""]))).is_err());
        assert!(checked(0, entry(EntryKind::Trim, 0, 7u64.to_le_bytes().as_slice().into())).is_err());
        assert_eq!(
            checked(1, entry(EntryKind::Records, 1, records(&[b"\xff\xff\xff"]))),
            Ok(()),
            "a log accepts any value"
        );
    }

    /// An entry with one record that claimed a million records used up a million offsets, which no node could read.
    #[test]
    fn rejects_a_wrong_number_of_records() {
        assert_eq!(checked(1, entry(EntryKind::Records, 2, records(&[b"a", b"b"]))), Ok(()));
        assert!(checked(1, entry(EntryKind::Records, 1_000_000, records(&[b"a"]))).is_err());
        assert!(checked(1, entry(EntryKind::Records, 1, b"\xff\xff".as_slice().into())).is_err());
        let other_term = RaftEntry { term: TERM + 1, ..entry(EntryKind::Records, 1, records(&[b"a"])) };
        assert!(checked(1, other_term).is_err());
    }

    #[test]
    fn rejects_a_trim_beyond_the_end_of_the_log() {
        let trim = |first: u64| checked(1, entry(EntryKind::Trim, 0, first.to_le_bytes().as_slice().into()));
        assert_eq!(trim(BASE.0), Ok(()));
        assert!(trim(BASE.0 + 1).is_err());
        assert!(trim(1 << 60).is_err());
        assert!(checked(1, entry(EntryKind::Trim, 0, b"short".as_slice().into())).is_err());
    }

    /// After one entry whose term was newer than any leader's, no later leader could append anything.
    #[test]
    fn rejects_decreasing_terms_and_terms_above_the_leaders() {
        let append = |terms: &[u64]| {
            let entries: Vec<_> = terms.iter().map(|term| RaftEntry { term: *term, ..Default::default() }).collect();
            let mut message = Message { entries: entries.into(), term: 5, log_term: 3, ..Default::default() };
            message.set_msg_type(MessageType::MsgAppend);
            check(GroupId(1), &message, FeatureRange::SUPPORTED)
        };
        assert_eq!([append(&[]), append(&[3, 3, 4, 5])], [Ok(()), Ok(())]);
        for terms in [&[2][..], &[4, 3], &[6], &[5, 1 << 40]] {
            assert!(append(terms).is_err(), "{terms:?}");
        }
        let mut snapshot = Message { term: 5, ..Default::default() };
        snapshot.set_msg_type(MessageType::MsgSnapshot);
        snapshot.mut_snapshot().mut_metadata().term = 5;
        assert_eq!(check(GroupId(1), &snapshot, FeatureRange::SUPPORTED), Ok(()));
        snapshot.mut_snapshot().mut_metadata().term = 6;
        assert!(check(GroupId(1), &snapshot, FeatureRange::SUPPORTED).is_err());
    }

    #[test]
    fn an_entry_of_a_newer_version_is_refused_by_its_kind() {
        let mut newer = entry(EntryKind::Records, 1, records(&[b"a"]));
        let mut data = newer.data.to_vec();
        data[0] = 99;
        newer.data = data.into();
        let refused = checked(1, newer).expect_err("not known");
        assert_eq!(refused.to_string(), "entry kind 99, which this version does not know; start a newer version");
    }

    #[test]
    fn entries_without_records_are_not_checked_further() {
        assert_eq!(checked(1, RaftEntry { index: 9, term: TERM, ..Default::default() }), Ok(()));
        let mut conf_change = RaftEntry { index: 9, term: TERM, ..Default::default() };
        conf_change.set_entry_type(EntryType::EntryConfChange);
        assert_eq!(checked(0, conf_change), Ok(()));
        assert!(checked(1, RaftEntry { data: vec![1, 2, 3].into(), ..Default::default() }).is_err());
    }
}
