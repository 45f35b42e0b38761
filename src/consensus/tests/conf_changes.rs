//! A conf change and a snapshot that come together.

use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};

use super::disk::Disk;
use crate::consensus::conf_change::{ConfChange, ConfChangeKind};
use crate::consensus::group::{Group, GroupConfig, Rules};
use crate::consensus::wire;
use crate::storage::log::{Base, ConfState, Genesis, LogSnapshot, LogState};
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};

fn message(msg_type: MessageType, index: u64, commit: u64) -> Message {
    let mut message = Message { from: 1, to: 2, term: 1, log_term: 1, index, commit, ..Message::default() };
    message.set_msg_type(msg_type);
    message
}

/// raft takes a snapshot's conf state when the message comes; a conf change that waits for its commit to be synced meanwhile
/// was applied on top of it, though the snapshot has seen it: a voter of the snapshot became a learner here.
#[test]
fn a_conf_change_that_waits_is_not_applied_on_top_of_a_marker() {
    let config = GroupConfig { id: GroupId(1), me: NodeId(2), election_ticks: Some(12), rules: Rules::default() };
    let voters = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
    let mut disk = Disk::new(Genesis::Founder(NodeId(1)));
    disk.files.conf_state.voters = voters(&[1, 2]);
    let mut group: Group = disk.open(NodeId(2), &config);
    let perform = |group: &mut Group| {
        let mut sync = 0;
        while let Some(effects) = group.ready() {
            sync = sync.max(effects.sync.unwrap_or(0));
        }
        sync
    };

    let mut append = message(MessageType::MsgAppend, 1, 1);
    let mut entry = RaftEntry { term: 1, index: 2, ..RaftEntry::default() };
    entry.set_entry_type(EntryType::EntryConfChange);
    entry.context = ConfChange { kind: ConfChangeKind::AddLearner, node: NodeId(3) }.encode().to_vec().into();
    append.set_entries(vec![entry].into());
    group.step(append);
    let persisted = perform(&mut group);
    group.persisted(persisted);
    perform(&mut group);
    group.step(message(MessageType::MsgHeartbeat, 0, 2));
    let commit = perform(&mut group);
    assert!(commit > persisted && group.status().learners.is_empty(), "the conf change waits for its commit");

    let mut snapshot = message(MessageType::MsgSnapshot, 0, 0);
    let log_state = LogState { first_offset: Offset(0), last_append_time_us: 0 };
    snapshot.set_snapshot(wire::snapshot_to_raft(&LogSnapshot {
        base: Base { index: LogIndex(10), term: Term(1), offset: Offset(0), ..Base::default() },
        conf_state: ConfState { voters: voters(&[1, 2, 3]), learners: Vec::new() },
        conf_index: LogIndex(9),
        log_state,
        log_state_index: LogIndex(10),
    }));
    group.step(snapshot);
    group.persisted(commit);
    perform(&mut group);
    let in_raft = wire::conf_from_raft(&group.node.raft.prs().conf().to_conf_state());
    assert_eq!(in_raft.voters, voters(&[1, 2, 3]));
    assert_eq!(group.status().voters, voters(&[1, 2, 3]));
}
