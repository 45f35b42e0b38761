//! Between raft's types and ours: peers' messages, stored entries, snapshots.
//!
//! raft's messages are built and taken apart field by field. So raft's own parser (protobuf 2.28, RUSTSEC-2024-0437) never
//! sees a byte of the network or of the disk, and an entry's data crosses as a counted reference, not as a copy.
//!
//! A conf-change entry carries our fixed form of the change in raft's `context`; its `data`, raft's own encoding, exists
//! only on the leader that proposed it and is read by nobody else.

use bytes::Bytes;
use raft::eraftpb::{self, ConfChangeType, EntryType, MessageType, Snapshot};

use super::claim::{Checkpoint, Claim};
use crate::pb::peer as pb;
use crate::storage::digest::Digest;
use crate::storage::entry::{BadEntry, Entry, EntryKind, Stamp};
use crate::storage::log::{Base, ConfState, LogSnapshot, LogState};
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};

/// The limit of a peer's terms, indexes and offsets. They count up from 0, and no cluster comes near it. What is added to such a
/// number stays below the maximum that the storage takes (2^62), so one message can't bring a node to where it can't go on.
const NUMBER_MAX: u64 = 1 << 61;
const TOO_LARGE: BadMessage = BadMessage("a term, an index or an offset that no cluster comes to");

fn check_numbers(numbers: impl IntoIterator<Item = u64>) -> Result<(), BadMessage> {
    if numbers.into_iter().all(|number| number < NUMBER_MAX) { Ok(()) } else { Err(TOO_LARGE) }
}

const NORMAL: u32 = 0;
const NOOP: u32 = 1;
const CONF_CHANGE: u32 = 2;

/// A peer sent what no peer of this version sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage(pub &'static str);

impl std::fmt::Display for BadMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// One step of a group's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfChange {
    /// What happens to the node.
    pub kind: ConfChangeKind,
    /// Which node.
    pub node: NodeId,
}

/// What happens to a node of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChangeKind {
    /// It gets a vote.
    AddVoter,
    /// It leaves the group.
    Remove,
    /// It listens without a vote.
    AddLearner,
}

impl ConfChange {
    /// Bytes of the stored form: kind (u32), zero (u32), node id (u64), little-endian.
    const BYTES: usize = 16;

    /// The stored form.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[8..].copy_from_slice(&self.node.0.to_le_bytes());
        bytes
    }

    /// Reads what [`ConfChange::encode`] wrote.
    ///
    /// # Errors
    /// [`BadMessage`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<ConfChange, BadMessage> {
        const BAD: BadMessage = BadMessage("a malformed conf change");
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| BAD)?;
        let (kind, node) = bytes.split_at(8);
        let kind = u64::from_le_bytes(kind.try_into().map_err(|_| BAD)?);
        let kind = u32::try_from(kind).map_err(|_| BAD)?;
        let node = u64::from_le_bytes(node.try_into().map_err(|_| BAD)?);
        Ok(ConfChange { kind: ConfChangeKind::from_code(kind)?, node: NodeId(node) })
    }

    /// As raft takes it.
    pub fn to_raft(self) -> eraftpb::ConfChange {
        let mut change = eraftpb::ConfChange { node_id: self.node.0, ..Default::default() };
        change.set_change_type(match self.kind {
            ConfChangeKind::AddVoter => ConfChangeType::AddNode,
            ConfChangeKind::Remove => ConfChangeType::RemoveNode,
            ConfChangeKind::AddLearner => ConfChangeType::AddLearnerNode,
        });
        change
    }
}

impl ConfChangeKind {
    fn from_code(code: u32) -> Result<ConfChangeKind, BadMessage> {
        match code {
            0 => Ok(ConfChangeKind::AddVoter),
            1 => Ok(ConfChangeKind::Remove),
            2 => Ok(ConfChangeKind::AddLearner),
            _ => Err(BadMessage("an unknown kind of conf change")),
        }
    }
}

/// True for raft's empty entry of a new leader.
pub fn is_noop(entry: &eraftpb::Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal && entry.data.is_empty()
}

/// True for a change of the voters or learners.
pub fn is_conf_change(entry: &eraftpb::Entry) -> bool {
    matches!(entry.get_entry_type(), EntryType::EntryConfChange | EntryType::EntryConfChangeV2)
}

/// An entry as raft takes it, from the disk's form.
///
/// # Errors
/// [`BadEntry`] when the stamp does not decode.
pub fn entry_to_raft(entry: &Entry) -> Result<eraftpb::Entry, BadEntry> {
    let mut raft = eraftpb::Entry { index: entry.index.0, term: entry.term.0, ..Default::default() };
    match entry.stamp()?.kind {
        EntryKind::Noop => {}
        EntryKind::ConfChange => {
            raft.set_entry_type(EntryType::EntryConfChange);
            raft.context = entry.payload();
        }
        EntryKind::Records | EntryKind::Trim => raft.data = entry.data.clone(),
    }
    Ok(raft)
}

/// An entry as the disk takes it. `base` is where the entry before ends: a no-op and a conf change are stamped with it, and
/// with no time, so that every node writes the same bytes.
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
        EntryType::EntryNormal if entry.data.is_empty() => out.kind = NOOP,
        EntryType::EntryNormal => {
            out.kind = NORMAL;
            out.data = entry.data;
        }
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            out.kind = CONF_CHANGE;
            if let Ok(change) = ConfChange::decode(&entry.context) {
                out.conf_type = change.kind as u32;
                out.conf_node = change.node.0;
            }
        }
    }
    out
}

fn entry_from_pb(entry: pb::Entry) -> Result<eraftpb::Entry, BadMessage> {
    check_numbers([entry.term, entry.index])?;
    let mut raft = eraftpb::Entry { index: entry.index, term: entry.term, ..Default::default() };
    match entry.kind {
        NOOP => {}
        NORMAL if entry.data.is_empty() => return Err(BadMessage("an entry without its stamp")),
        NORMAL => raft.data = entry.data,
        CONF_CHANGE => {
            let kind = ConfChangeKind::from_code(entry.conf_type)?;
            raft.set_entry_type(EntryType::EntryConfChange);
            raft.context = Bytes::copy_from_slice(&ConfChange { kind, node: NodeId(entry.conf_node) }.encode());
        }
        _ => return Err(BadMessage("an unknown kind of entry")),
    }
    Ok(raft)
}

/// The conf state in raft's form.
pub fn conf_to_raft(conf: &ConfState) -> eraftpb::ConfState {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|n| n.0).collect();
    eraftpb::ConfState { voters: ids(&conf.voters), learners: ids(&conf.learners), ..Default::default() }
}

/// The conf state in our form; joint states are never used.
pub fn conf_from_raft(conf: &eraftpb::ConfState) -> ConfState {
    let ids = |nodes: &[u64]| {
        let mut nodes: Vec<NodeId> = nodes.iter().map(|n| NodeId(*n)).collect();
        nodes.sort_unstable();
        nodes
    };
    ConfState { voters: ids(&conf.voters), learners: ids(&conf.learners) }
}

/// Encodes a snapshot as raft's. The fields that raft does not know are in its data: 32 bytes, then the log state.
pub fn snapshot_to_raft(snapshot: &LogSnapshot) -> Snapshot {
    let mut data = Vec::with_capacity(64);
    for number in [snapshot.base.offset.0, snapshot.base.digest.0, snapshot.conf_index.0, snapshot.log_state_index.0] {
        data.extend_from_slice(&number.to_le_bytes());
    }
    data.extend_from_slice(&snapshot.log_state.encode());
    let mut raft_snapshot = Snapshot { data: data.into(), ..Default::default() };
    let metadata = raft_snapshot.mut_metadata();
    metadata.index = snapshot.base.index.0;
    metadata.term = snapshot.base.term.0;
    metadata.set_conf_state(conf_to_raft(&snapshot.conf_state));
    raft_snapshot
}

/// Reads what [`snapshot_to_raft`] made.
///
/// # Errors
/// [`BadMessage`] for anything else.
pub fn snapshot_from_raft(snapshot: &Snapshot) -> Result<LogSnapshot, BadMessage> {
    const BAD: BadMessage = BadMessage("a malformed snapshot");
    let (numbers, log_state) = snapshot.data.split_at_checked(32).ok_or(BAD)?;
    let number = |i: usize| -> u64 {
        numbers[i * 8..i * 8 + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let metadata = snapshot.get_metadata();
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
    })
}

/// raft's message in the peers' form.
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

/// The peers' message in raft's form. Messages that only a process says to itself are refused.
///
/// # Errors
/// [`BadMessage`] naming what is wrong.
pub fn message_from_pb(message: pb::RaftMessage) -> Result<eraftpb::Message, BadMessage> {
    let msg_type = match message.type_ {
        t if t == MessageType::MsgAppend as u32 => MessageType::MsgAppend,
        t if t == MessageType::MsgAppendResponse as u32 => MessageType::MsgAppendResponse,
        t if t == MessageType::MsgRequestVote as u32 => MessageType::MsgRequestVote,
        t if t == MessageType::MsgRequestVoteResponse as u32 => MessageType::MsgRequestVoteResponse,
        t if t == MessageType::MsgSnapshot as u32 => MessageType::MsgSnapshot,
        t if t == MessageType::MsgHeartbeat as u32 => MessageType::MsgHeartbeat,
        t if t == MessageType::MsgHeartbeatResponse as u32 => MessageType::MsgHeartbeatResponse,
        t if t == MessageType::MsgTimeoutNow as u32 => MessageType::MsgTimeoutNow,
        t if t == MessageType::MsgRequestPreVote as u32 => MessageType::MsgRequestPreVote,
        t if t == MessageType::MsgRequestPreVoteResponse as u32 => MessageType::MsgRequestPreVoteResponse,
        _ => return Err(BadMessage("a kind of raft message that peers do not send")),
    };
    let (log, commit) = ([message.log_term, message.index], [message.commit_term, message.commit]);
    check_numbers([message.term, message.reject_hint].into_iter().chain(log).chain(commit))?;
    if message.request_snapshot != 0 {
        // raft would send its sender nothing but snapshots until one has arrived.
        return Err(BadMessage("a request for a snapshot, which no node sends"));
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
            return Err(BadMessage("entries that do not follow each other"));
        }
        entries.push(entry_from_pb(entry)?);
    }
    raft.set_entries(entries.into());
    match (msg_type, message.snapshot.into_option()) {
        (MessageType::MsgSnapshot, Some(snapshot)) => {
            raft.set_snapshot(snapshot_to_raft(&snapshot_from_pb(&snapshot)?))
        }
        (MessageType::MsgSnapshot, None) => return Err(BadMessage("a snapshot message without its snapshot")),
        (_, _) => {}
    }
    Ok(raft)
}

/// A leader's claim in the peers' form.
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

/// The claim that came with a peer's message.
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
    let ids = |nodes: &[NodeId]| nodes.iter().map(|n| n.0).collect();
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
        ..Default::default()
    }
}

fn snapshot_from_pb(snapshot: &pb::LogSnapshot) -> Result<LogSnapshot, BadMessage> {
    let ids = |nodes: &[u64]| nodes.iter().map(|n| NodeId(*n)).collect();
    let (voters, learners) = (&snapshot.conf_state.voters, &snapshot.conf_state.learners);
    if snapshot.index == 0 || voters.is_empty() {
        return Err(BadMessage("a snapshot without an index or without voters"));
    }
    // As every node sends them. raft takes a node that is there twice for two.
    let ordered = |ids: &[u64]| ids.first() != Some(&0) && ids.windows(2).all(|two| two[0] < two[1]);
    if !ordered(voters) || !ordered(learners) || learners.iter().any(|id| voters.contains(id)) {
        return Err(BadMessage("a snapshot whose nodes are not there once each, in order"));
    }
    let log_state = LogState::decode(&snapshot.log_state).map_err(|_| BadMessage("a malformed log state"))?;
    check_numbers([snapshot.index, snapshot.term, snapshot.offset, snapshot.conf_index, snapshot.log_state_index])?;
    check_numbers([log_state.first_offset.0])?;
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append() -> pb::RaftMessage {
        let entry = pb::Entry { term: 3, index: 2, kind: NOOP, ..Default::default() };
        let msg_type = MessageType::MsgAppend as u32;
        pb::RaftMessage { type_: msg_type, term: 3, index: 1, entries: vec![entry], ..Default::default() }
    }

    fn snapshot() -> pb::RaftMessage {
        let snapshot = LogSnapshot {
            base: Base { index: LogIndex(1), term: Term(1), offset: Offset(1), ..Base::default() },
            conf_state: ConfState { voters: vec![NodeId(1)], learners: Vec::new() },
            ..LogSnapshot::default()
        };
        let snapshot = protobuf::MessageField::some(snapshot_to_pb(&snapshot));
        pb::RaftMessage { type_: MessageType::MsgSnapshot as u32, snapshot, ..Default::default() }
    }

    /// One heartbeat with the term 2^64 - 1 ended every node that received it, at each restart again, and a snapshot with such
    /// numbers its receiver.
    #[test]
    fn numbers_that_no_cluster_comes_to_are_refused() {
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
        // One such rejection of a follower ended the replication to it until the leader was restarted.
        let request = pb::RaftMessage { request_snapshot: 5, reject: true, ..append() };
        assert!(message_from_pb(request).is_err());
        let changes: [fn(&mut pb::LogSnapshot, u64); 6] = [
            |m, n| m.index = n,
            |m, n| m.term = n,
            |m, n| m.offset = n,
            |m, n| m.conf_index = n,
            |m, n| m.log_state_index = n,
            |m, n| m.log_state = LogState { first_offset: Offset(n), last_append_time_us: 0 }.encode().into(),
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
