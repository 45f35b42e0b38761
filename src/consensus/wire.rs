//! Conversion between raft's types and our own: peers' messages, stored entries, snapshots.
//!
//! Messages are converted field by field. So raft's own parser (protobuf 2.28, RUSTSEC-2024-0437) never reads bytes
//! from the network or the disk, and an entry's data is passed as a reference-counted buffer without a copy.
//!
//! A conf-change entry carries our fixed-size form of the change in raft's `context`. Its `data`, raft's own
//! encoding, exists only on the leader that proposed it.

use bytes::Bytes;
use raft::eraftpb::{self, EntryType, MessageType, Snapshot};

use super::bad_message::BadMessage;
use super::claim::{Checkpoint, Claim};
use super::conf_change::{ConfChange, ConfChangeKind};
use crate::codes::{UnknownCode, codes};
use crate::log_state::LogState;
use crate::pb::peer as pb;
use crate::storage::digest::Digest;
use crate::storage::entry::{BadEntry, Entry, EntryKind, Stamp};
use crate::storage::log::{Base, CatalogState, ConfState, LogSnapshot};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

/// The upper limit of a peer's terms, indexes and offsets. They count up from 0, and no real cluster reaches it. It
/// leaves room below the storage's maximum (2^62), so that no message can bring a node to a number that it can't
/// increase any more.
const NUMBER_MAX: u64 = 1 << 61;
const TOO_LARGE: BadMessage = BadMessage::Malformed("a term, an index or an offset that no cluster comes to");

fn check_numbers(numbers: impl IntoIterator<Item = u64>) -> Result<(), BadMessage> {
    if numbers.into_iter().all(|number| number < NUMBER_MAX) { Ok(()) } else { Err(TOO_LARGE) }
}

codes! {
    /// The kind of an entry in a message between peers.
    enum WireEntry: u32, "kind of raft entry" {
        /// An entry with a stamp.
        Normal = 0,
        /// The empty entry of a new leader.
        Noop = 1,
        /// It changes the voters or learners.
        ConfChange = 2,
    }
}

/// The types of raft messages that are sent between peers. A process sends the others only to itself.
const PEER_MESSAGES: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// Returns the type of a peer's message.
fn peer_message(code: u32) -> Result<MessageType, BadMessage> {
    let known = PEER_MESSAGES.into_iter().find(|kind| *kind as u32 == code);
    known.ok_or(BadMessage::Unknown(UnknownCode { what: "kind of raft message between peers", code }))
}

/// Returns true for the empty entry that raft appends when a leader is elected.
pub fn is_noop(entry: &eraftpb::Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal && entry.data.is_empty()
}

/// Returns true for a change of the voters or learners.
pub fn is_conf_change(entry: &eraftpb::Entry) -> bool {
    matches!(entry.get_entry_type(), EntryType::EntryConfChange | EntryType::EntryConfChangeV2)
}

/// Converts a stored entry to raft's type.
///
/// # Errors
/// [`BadEntry`] if the stamp is invalid.
pub fn entry_to_raft(entry: &Entry) -> Result<eraftpb::Entry, BadEntry> {
    let mut raft = eraftpb::Entry { index: entry.index.0, term: entry.term.0, ..Default::default() };
    match entry.stamp()?.kind {
        EntryKind::Noop => {}
        EntryKind::ConfChange => {
            raft.set_entry_type(EntryType::EntryConfChange);
            raft.context = entry.payload();
        }
        // What a leader was asked to append.
        _ => raft.data = entry.data.clone(),
    }
    Ok(raft)
}

/// Converts raft's entry to its stored form. `base` is the end of the entry before it. A no-op and a conf change are
/// stamped with this offset and without a time, so that every node writes the same bytes.
pub fn entry_to_storage(raft: &eraftpb::Entry, base: Offset) -> Entry {
    let (index, term) = (LogIndex(raft.index), Term(raft.term));
    let kind = match raft.get_entry_type() {
        EntryType::EntryNormal if raft.data.is_empty() => EntryKind::Noop,
        EntryType::EntryNormal => return Entry { index, term, data: raft.data.clone() },
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::ConfChange,
    };
    let stamp = Stamp { kind, count: 0, base_offset: base, append_time_us: 0, producer_id: 0, sequence: 0 };
    Entry::new(index, term, stamp, &raft.context)
}

fn entry_to_pb(entry: eraftpb::Entry) -> pb::Entry {
    let mut out = pb::Entry { term: entry.term, index: entry.index, ..Default::default() };
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => out.kind = WireEntry::Noop.code(),
        EntryType::EntryNormal => {
            out.kind = WireEntry::Normal.code();
            out.data = entry.data;
        }
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            out.kind = WireEntry::ConfChange.code();
            if let Ok(change) = ConfChange::decode(&entry.context) {
                out.conf_type = change.kind.code();
                out.conf_node = change.replica.0;
            }
        }
    }
    out
}

fn entry_from_pb(entry: pb::Entry) -> Result<eraftpb::Entry, BadMessage> {
    check_numbers([entry.term, entry.index])?;
    let mut raft = eraftpb::Entry { index: entry.index, term: entry.term, ..Default::default() };
    match WireEntry::try_from(entry.kind)? {
        WireEntry::Noop => {}
        WireEntry::Normal if entry.data.is_empty() => return Err(BadMessage::Malformed("an entry without its stamp")),
        WireEntry::Normal => raft.data = entry.data,
        WireEntry::ConfChange => {
            let kind = ConfChangeKind::try_from(entry.conf_type)?;
            raft.set_entry_type(EntryType::EntryConfChange);
            raft.context = Bytes::copy_from_slice(&ConfChange { kind, replica: ReplicaId(entry.conf_node) }.encode());
        }
    }
    Ok(raft)
}

/// Converts stored entries for a peer that repairs its disk.
///
/// # Errors
/// [`BadEntry`] if a stamp is invalid.
pub fn stored_entries_to_pb(entries: &[Entry]) -> Result<Vec<pb::Entry>, BadEntry> {
    entries.iter().map(|entry| entry_to_raft(entry).map(entry_to_pb)).collect()
}

/// Converts the entries of such a peer, which continue the log after `end`. Also returns the end of the log after them.
///
/// # Errors
/// What is wrong with them.
pub fn stored_entries_from_pb(entries: Vec<pb::Entry>, mut end: Base) -> Result<(Vec<Entry>, Base), String> {
    let mut stored = Vec::with_capacity(entries.len());
    for entry in entries {
        let entry = entry_to_storage(&entry_from_pb(entry).map_err(|e| e.to_string())?, end.offset);
        if entry.index != end.index.next() {
            return Err(format!("entry {} does not follow entry {}", entry.index, end.index));
        }
        end = end.then(&entry).map_err(|e| e.to_string())?;
        stored.push(entry);
    }
    Ok((stored, end))
}

/// Converts a conf state to raft's type.
pub fn conf_to_raft(conf: &ConfState) -> eraftpb::ConfState {
    let ids = |nodes: &[ReplicaId]| nodes.iter().map(|n| n.0).collect();
    eraftpb::ConfState { voters: ids(&conf.voters), learners: ids(&conf.learners), ..Default::default() }
}

/// Converts a conf state from raft's type. Joint consensus is never used.
pub fn conf_from_raft(conf: &eraftpb::ConfState) -> ConfState {
    let ids = |nodes: &[u64]| {
        let mut nodes: Vec<ReplicaId> = nodes.iter().map(|n| ReplicaId(*n)).collect();
        nodes.sort_unstable();
        nodes
    };
    ConfState { voters: ids(&conf.voters), learners: ids(&conf.learners) }
}

/// The numbers before the log state in the data of raft's snapshot.
const SNAPSHOT_NUMBERS: usize = 6;

/// Converts a snapshot to raft's type. The fields that raft does not know are encoded in its data: numbers of eight
/// bytes, the log state, and the state of the catalog.
pub fn snapshot_to_raft(snapshot: &LogSnapshot) -> Snapshot {
    let mut data = Vec::with_capacity(64);
    let catalog = snapshot.catalog.clone().unwrap_or_default();
    let (base, catalog_bytes) = (&snapshot.base, catalog.bytes.len() as u64);
    let positions = [base.offset.0, base.digest.0, snapshot.conf_index.0, snapshot.log_state_index.0];
    for number in positions.into_iter().chain([catalog.index.0, catalog_bytes]) {
        data.extend_from_slice(&number.to_le_bytes());
    }
    data.extend_from_slice(&snapshot.log_state.encode());
    data.extend_from_slice(&catalog.bytes);
    let mut raft_snapshot = Snapshot { data: data.into(), ..Default::default() };
    let metadata = raft_snapshot.mut_metadata();
    metadata.index = snapshot.base.index.0;
    metadata.term = snapshot.base.term.0;
    metadata.set_conf_state(conf_to_raft(&snapshot.conf_state));
    raft_snapshot
}

/// Converts a snapshot from raft's type, the inverse of [`snapshot_to_raft`].
///
/// # Errors
/// [`BadMessage`] for anything else.
pub fn snapshot_from_raft(snapshot: &Snapshot) -> Result<LogSnapshot, BadMessage> {
    const BAD: BadMessage = BadMessage::Malformed("a malformed snapshot");
    let (numbers, states) = snapshot.data.split_at_checked(8 * SNAPSHOT_NUMBERS).ok_or(BAD)?;
    let number = |i: usize| -> u64 {
        numbers[i * 8..i * 8 + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let metadata = snapshot.get_metadata();
    let catalog_bytes = usize::try_from(number(5)).map_err(|_| BAD)?;
    let log_state_bytes = states.len().checked_sub(catalog_bytes).ok_or(BAD)?;
    let (log_state, catalog) = states.split_at_checked(log_state_bytes).ok_or(BAD)?;
    if number(4) == 0 && !catalog.is_empty() {
        return Err(BAD);
    }
    let catalog = CatalogState { index: LogIndex(number(4)), bytes: snapshot.data.slice_ref(catalog) };
    Ok(LogSnapshot {
        base: Base {
            index: LogIndex(metadata.index),
            term: Term(metadata.term),
            offset: Offset(number(0)),
            digest: Digest(number(1)),
        },
        conf_state: conf_from_raft(metadata.get_conf_state()),
        conf_index: LogIndex(number(2)),
        log_state: LogState::decode(log_state).map_err(|_| BAD)?,
        log_state_index: LogIndex(number(3)),
        catalog: Some(catalog).filter(|catalog| catalog.index.0 != 0),
    })
}

/// Converts raft's message to the message that is sent to a peer.
pub fn message_to_pb(group: GroupId, mut message: eraftpb::Message) -> pb::RaftMessage {
    let mut out = pb::RaftMessage {
        group: group.0,
        type_: message.get_msg_type() as u32,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.take_context(),
        priority: message.priority,
        ..Default::default()
    };
    out.entries = message.take_entries().into_iter().map(entry_to_pb).collect();
    if let Ok(snapshot) = snapshot_from_raft(message.get_snapshot()) {
        out.snapshot = protobuf::MessageField::some(snapshot_to_pb(&snapshot));
    }
    out
}

/// Converts a peer's message to raft's type. Types that a process sends only to itself are rejected.
///
/// # Errors
/// [`BadMessage`] if the message is invalid.
pub fn message_from_pb(message: pb::RaftMessage) -> Result<eraftpb::Message, BadMessage> {
    let msg_type = peer_message(message.type_)?;
    let (log, commit) = ([message.log_term, message.index], [message.commit_term, message.commit]);
    check_numbers([message.term, message.reject_hint].into_iter().chain(log).chain(commit))?;
    if message.request_snapshot != 0 {
        // In response, raft would send only snapshots to the sender until one has arrived.
        return Err(BadMessage::Malformed("a request for a snapshot, which no node sends"));
    }
    let mut raft = eraftpb::Message {
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        priority: message.priority,
        ..Default::default()
    };
    raft.set_msg_type(msg_type);
    let mut entries = Vec::with_capacity(message.entries.len());
    for (i, entry) in message.entries.into_iter().enumerate() {
        if entry.index != message.index + 1 + i as u64 {
            return Err(BadMessage::Malformed("entries that do not follow each other"));
        }
        entries.push(entry_from_pb(entry)?);
    }
    raft.set_entries(entries.into());
    match (msg_type, message.snapshot.into_option()) {
        (MessageType::MsgSnapshot, Some(snapshot)) => {
            raft.set_snapshot(snapshot_to_raft(&snapshot_from_pb(&snapshot)?))
        }
        (MessageType::MsgSnapshot, None) => {
            return Err(BadMessage::Malformed("a snapshot message without its snapshot"));
        }
        (_, _) => {}
    }
    Ok(raft)
}

/// Converts a claim to the message that is sent to a peer.
pub fn claim_to_pb(claim: &Claim) -> pb::LogClaim {
    let checkpoint = |at: &Checkpoint| pb::Checkpoint {
        index: at.index.0,
        offset: at.offset.0,
        digest: at.digest.0,
        ..Default::default()
    };
    pb::LogClaim {
        last_index: claim.last_index.0,
        checkpoints: claim.checkpoints.iter().map(checkpoint).collect(),
        unreadable_index: claim.unreadable.map_or(0, |index| index.0),
        before: claim.before.as_ref().map(checkpoint).into(),
        ..Default::default()
    }
}

/// Converts the claim of a peer's message.
pub fn claim_from_pb(claim: &pb::LogClaim) -> Claim {
    let checkpoint = |at: &pb::Checkpoint| Checkpoint {
        index: LogIndex(at.index),
        offset: Offset(at.offset),
        digest: Digest(at.digest),
    };
    Claim {
        last_index: LogIndex(claim.last_index),
        checkpoints: claim.checkpoints.iter().map(checkpoint).collect(),
        unreadable: Some(LogIndex(claim.unreadable_index)).filter(|index| index.0 != 0),
        before: claim.before.as_ref().map(checkpoint),
    }
}

fn snapshot_to_pb(snapshot: &LogSnapshot) -> pb::LogSnapshot {
    let ids = |nodes: &[ReplicaId]| nodes.iter().map(|n| n.0).collect();
    pb::LogSnapshot {
        index: snapshot.base.index.0,
        term: snapshot.base.term.0,
        offset: snapshot.base.offset.0,
        conf_state: protobuf::MessageField::some(pb::ConfState {
            voters: ids(&snapshot.conf_state.voters),
            learners: ids(&snapshot.conf_state.learners),
            ..Default::default()
        }),
        conf_index: snapshot.conf_index.0,
        log_state: Bytes::from(snapshot.log_state.encode()),
        log_state_index: snapshot.log_state_index.0,
        digest: snapshot.base.digest.0,
        catalog_state: snapshot.catalog.as_ref().map(|catalog| catalog.bytes.clone()).unwrap_or_default(),
        catalog_index: snapshot.catalog.as_ref().map_or(0, |catalog| catalog.index.0),
        ..Default::default()
    }
}

fn snapshot_from_pb(snapshot: &pb::LogSnapshot) -> Result<LogSnapshot, BadMessage> {
    let ids = |nodes: &[u64]| nodes.iter().map(|n| ReplicaId(*n)).collect();
    let (voters, learners) = (&snapshot.conf_state.voters, &snapshot.conf_state.learners);
    if snapshot.index == 0 || voters.is_empty() {
        return Err(BadMessage::Malformed("a snapshot without an index or without voters"));
    }
    // Correct nodes send ids in order and without duplicates. raft would count a duplicate id as two nodes.
    let ordered = |ids: &[u64]| ids.first() != Some(&0) && ids.windows(2).all(|two| two[0] < two[1]);
    if !ordered(voters) || !ordered(learners) || learners.iter().any(|id| voters.contains(id)) {
        return Err(BadMessage::Malformed("a snapshot whose nodes are not there once each, in order"));
    }
    let log_state = LogState::decode(&snapshot.log_state)?;
    check_numbers([snapshot.index, snapshot.term, snapshot.offset, snapshot.conf_index, snapshot.log_state_index])?;
    check_numbers([log_state.first_offset.0, snapshot.catalog_index])?;
    Ok(LogSnapshot {
        base: Base {
            index: LogIndex(snapshot.index),
            term: Term(snapshot.term),
            offset: Offset(snapshot.offset),
            digest: Digest(snapshot.digest),
        },
        conf_state: ConfState {
            voters: ids(&snapshot.conf_state.voters),
            learners: ids(&snapshot.conf_state.learners),
        },
        conf_index: LogIndex(snapshot.conf_index),
        log_state,
        log_state_index: LogIndex(snapshot.log_state_index),
        catalog: (snapshot.catalog_index != 0)
            .then(|| CatalogState { index: LogIndex(snapshot.catalog_index), bytes: snapshot.catalog_state.clone() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append() -> pb::RaftMessage {
        let entry = pb::Entry { term: 3, index: 2, kind: WireEntry::Noop.code(), ..Default::default() };
        let msg_type = MessageType::MsgAppend as u32;
        pb::RaftMessage { type_: msg_type, term: 3, index: 1, entries: vec![entry], ..Default::default() }
    }

    fn snapshot() -> pb::RaftMessage {
        let snapshot = LogSnapshot {
            base: Base { index: LogIndex(1), term: Term(1), offset: Offset(1), ..Base::default() },
            conf_state: ConfState { voters: vec![ReplicaId(1)], learners: Vec::new() },
            ..LogSnapshot::default()
        };
        let snapshot = protobuf::MessageField::some(snapshot_to_pb(&snapshot));
        pb::RaftMessage { type_: MessageType::MsgSnapshot as u32, snapshot, ..Default::default() }
    }

    /// One heartbeat with term 2^64 - 1 stopped every node that received it, and again at each restart. A snapshot
    /// with such numbers stopped its receiver.
    #[test]
    fn rejects_numbers_that_no_cluster_reaches() {
        assert!(message_from_pb(append()).is_ok() && message_from_pb(snapshot()).is_ok());
        let refused = |message: pb::RaftMessage| message_from_pb(message).expect_err("too large") == TOO_LARGE;
        let changes: [fn(&mut pb::RaftMessage, u64); 7] = [
            |m, n| m.term = n,
            |m, n| m.log_term = n,
            |m, n| m.commit_term = n,
            |m, n| m.commit = n,
            |m, n| m.reject_hint = n,
            |m, n| m.entries[0].term = n,
            |m, n| (m.index, m.entries[0].index) = (n, n.wrapping_add(1)),
        ];
        for change in changes {
            let mut message = append();
            change(&mut message, NUMBER_MAX - 2);
            assert!(message_from_pb(message.clone()).is_ok());
            for large in [NUMBER_MAX, 1 << 62, 1 << 63, u64::MAX] {
                change(&mut message, large);
                assert!(refused(message.clone()), "{message:?}");
            }
        }
        // One such rejection from a follower stopped replication to it until the leader was restarted.
        let request = pb::RaftMessage { request_snapshot: 5, reject: true, ..append() };
        assert!(message_from_pb(request).is_err());
        let changes: [fn(&mut pb::LogSnapshot, u64); 6] = [
            |m, n| m.index = n,
            |m, n| m.term = n,
            |m, n| m.offset = n,
            |m, n| m.conf_index = n,
            |m, n| m.log_state_index = n,
            |m, n| {
                m.log_state =
                    LogState { first_offset: Offset(n), last_append_time_us: 0, ..LogState::default() }.encode().into()
            },
        ];
        for change in changes {
            for (number, taken) in [(NUMBER_MAX - 1, true), (NUMBER_MAX, false), (u64::MAX, false)] {
                let mut message = snapshot();
                change(message.snapshot.mut_or_insert_default(), number);
                assert_eq!(message_from_pb(message.clone()).is_ok(), taken, "{message:?}");
            }
        }
    }
}
