//! The output format of scripts: effects, messages and states, each on one short line that is the same in every run.

use std::fmt::Write as _;

use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};

use crate::consensus::conf_change::ConfChange;
use crate::consensus::group::{Effects, Group, LogWrite};
use crate::consensus::handle::{Appended, GroupStatus, ProposeError, Role};
use crate::consensus::wire;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::log::{ConfState, HardState};
use crate::types::{Offset, ReplicaId};

/// A node in a script, by its number.
pub fn node(id: ReplicaId) -> String {
    format!("n{}", id.0)
}

fn node_or_none(id: Option<ReplicaId>) -> String {
    id.map_or_else(|| "-".to_owned(), node)
}

fn nodes(ids: &[ReplicaId]) -> String {
    ids.iter().map(|id| node(*id)).collect::<Vec<_>>().join(",")
}

fn conf(conf: &ConfState) -> String {
    format!("voters=[{}] learners=[{}]", nodes(&conf.voters), nodes(&conf.learners))
}

fn hard_state(hard: &HardState) -> String {
    format!("term={} vote={} commit={}", hard.term, node_or_none(hard.vote), hard.commit)
}

/// Returns an entry as `index/term kind`, and records with their offsets.
pub fn entry(entry: &Entry) -> String {
    let (index, term, stamp) = (entry.index, entry.term, entry.stamp().expect("a stamp"));
    let what = match stamp.kind {
        EntryKind::Records => records(&stamp),
        EntryKind::ConfChange => conf_change(&entry.payload()),
        other => format!("{other:?}").to_lowercase(),
    };
    format!("{index}/{term} {what}")
}

fn records(stamp: &Stamp) -> String {
    format!("records@{}..{}", stamp.base_offset, stamp.base_offset.0 + u64::from(stamp.count))
}

fn conf_change(bytes: &[u8]) -> String {
    ConfChange::decode(bytes)
        .map_or_else(|bad| bad.to_string(), |change| format!("{:?} {}", change.kind, node(change.replica)))
}

fn raft_entry(entry: &RaftEntry) -> String {
    let what = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => "noop".to_owned(),
        EntryType::EntryNormal => match Stamp::decode(&entry.data) {
            Ok(stamp) if stamp.kind == EntryKind::Records => records(&stamp),
            Ok(stamp) => format!("{:?}", stamp.kind).to_lowercase(),
            Err(bad) => bad.to_string(),
        },
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => conf_change(&entry.context),
    };
    format!("{}/{} {what}", entry.index, entry.term)
}

/// Returns a message as `from -> to kind`, followed by the fields of that kind.
pub fn message(message: &Message) -> String {
    let kind = message.get_msg_type();
    let name = format!("{kind:?}");
    let mut out = format!("n{} -> n{} {}", message.from, message.to, name.trim_start_matches("Msg"));
    let mut field = |name: &str, value: u64| write!(out, " {name}={value}").expect("a string");
    field("term", message.term);
    match kind {
        MessageType::MsgAppend => {
            write!(out, " after={}/{} commit={}", message.index, message.log_term, message.commit).expect("a string");
            let entries: Vec<String> = message.entries.iter().map(raft_entry).collect();
            write!(out, " [{}]", entries.join(", ")).expect("a string");
        }
        MessageType::MsgAppendResponse => field("index", message.index),
        MessageType::MsgHeartbeat => field("commit", message.commit),
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            write!(out, " last={}/{}", message.index, message.log_term).expect("a string");
        }
        MessageType::MsgSnapshot => {
            let snapshot = wire::snapshot_from_raft(message.get_snapshot()).expect("a snapshot");
            let base = snapshot.base;
            write!(out, " base={}/{} offset={} {}", base.index, base.term, base.offset, conf(&snapshot.conf_state))
                .expect("a string");
        }
        _ => {}
    }
    if message.reject {
        out.push_str(" rejected");
    }
    out
}

fn write(write: &LogWrite) -> String {
    let mut parts = Vec::new();
    if let Some(snapshot) = &write.snapshot {
        parts.push(format!("snapshot base={}/{}", snapshot.base.index, snapshot.base.term));
    }
    if let Some(from) = write.truncate_from {
        parts.push(format!("truncate from {from}"));
    }
    parts.extend(write.entries.iter().map(entry));
    parts.extend(write.hard_state.as_ref().map(hard_state));
    parts.join(", ")
}

/// Returns one line for each effect except answers, in the order in which they are performed.
pub fn effects(of: ReplicaId, effects: &Effects) -> Vec<String> {
    let of = node(of);
    let mut lines = Vec::new();
    lines.extend(effects.write.as_ref().map(|w| format!("{of} writes {}", write(w))));
    if let Some((conf_state, index)) = &effects.conf_state {
        lines.push(format!("{of} conf state {} as of {index}", conf(conf_state)));
    }
    lines.extend(effects.visible.map(|visible| {
        let (applied, first, next) = (visible.applied, visible.first_offset, visible.next_offset);
        format!("{of} applied {applied}, visible offsets {first}..{next}")
    }));
    lines.extend(effects.trim.map(|(first, at)| format!("{of} trims below offset {first} as of {at}")));
    lines.extend(effects.sync.map(|ready| format!("{of} syncs ready {ready}")));
    lines.extend(effects.messages.iter().map(message));
    lines.extend(effects.fetches.iter().map(|fetch| format!("{of} fetches {}..{}", fetch.low, fetch.high)));
    lines
}

/// Returns the role of a node.
pub fn role(group: &Group) -> String {
    let status = group.status();
    let role = match status.role {
        Role::Leader => "leads",
        Role::Candidate => "campaigns",
        Role::Follower => "follows",
        Role::Learner => "learns",
    };
    let whom = if status.role == Role::Leader { String::new() } else { format!(" {}", node_or_none(status.leader)) };
    format!("{role}{whom} in term {}", status.term)
}

/// Positions and members.
pub fn status(group: &Group) -> String {
    let GroupStatus { last_index, commit_index, applied_index, voters, learners, .. } = group.status();
    let conf = conf(&ConfState { voters, learners });
    let damage = group.status().damage.map(|damage| format!(" damage={damage:?}")).unwrap_or_default();
    format!("{} last={last_index} commit={commit_index} applied={applied_index} {conf}{damage}", role(group))
}

/// The answer to a proposal.
pub fn answer(answer: &Result<Appended, ProposeError>) -> String {
    match answer {
        Ok(Appended { offset, count: 0, index, .. }) => format!("applied as entry {index} at offset {offset}"),
        Ok(Appended { offset, index, .. }) => format!("appended at offset {offset} as entry {index}"),
        Err(ProposeError::NotLeader { leader }) => {
            format!("NotLeader, the leader is {}", node_or_none(leader.map(ReplicaId::of_node)))
        }
        Err(ProposeError::ExpectedOffset { next_offset }) => format!("ExpectedOffset, {}", next(*next_offset)),
        Err(ProposeError::PastEnd { next_offset }) => format!("PastEnd, {}", next(*next_offset)),
        Err(other) => format!("{other:?}"),
    }
}

fn next(offset: Offset) -> String {
    format!("the next offset is {offset}")
}
