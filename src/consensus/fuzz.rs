//! Fuzz loops of the decoders for bytes that consensus gets from peers and from the log.

use protobuf::Message as _;
use raft::eraftpb;

use super::conf_change::{ConfChange, ConfChangeKind};
use super::wire::{message_from_pb, message_to_pb, snapshot_from_raft, snapshot_to_raft};
use crate::catalog::{Catalog, Command, LogSettings, Member, NewLog, Origin};
use crate::fuzz::{Loop, PROTOBUF_FIXED_BYTES};
use crate::log_state::LogState;
use crate::pb::peer as pb;
use crate::storage::entry::{EntryKind, Stamp};
use crate::storage::log::{Base, CatalogState, ConfState, LogSnapshot};
use crate::types::{GroupId, LogIndex, NodeId, NodeName, Offset, ReplicaId, Term};

#[test]
fn catalog_command() {
    let name = NodeName::new("a").expect("a name");
    let member = Member { id: NodeId(1), name, bind_addr: "a:1".into(), rpc_addr: "a:2".into() };
    let commands = [
        Command::AddNode(member),
        Command::RemoveNode(NodeId(1)),
        Command::CreateLog(NewLog::of_level_1(NodeId(1), LogSettings::default())),
        Command::CreateLog(NewLog {
            origin: Origin::Nodes(vec![NodeId(1), NodeId(2)]),
            ..NewLog::of_level_1(NodeId(1), LogSettings::default())
        }),
        Command::Founded(GroupId(1)),
    ];
    let seeds = commands.iter().map(Command::encode).collect();
    Loop::new("catalog_command", seeds).memory(200).run(|bytes| {
        let Ok(command) = Command::decode(bytes) else { return false };
        assert_eq!(Command::decode(&command.encode()), Ok(command.clone()));
        let mut catalog = Catalog::default();
        catalog.apply(&command, 5);
        let once = catalog.clone();
        catalog.apply(&command, 5);
        assert!(
            catalog == once || matches!(command, Command::RemoveNode(_) | Command::UpdateCluster(..)),
            "applied again it changes nothing"
        );
        true
    });
}

#[test]
fn conf_change() {
    let kinds = [ConfChangeKind::AddVoter, ConfChangeKind::Remove, ConfChangeKind::AddLearner];
    let seeds = kinds.map(|kind| ConfChange { kind, replica: ReplicaId(7) }.encode().to_vec()).into();
    Loop::new("conf_change", seeds).run(|bytes| {
        let Ok(change) = ConfChange::decode(bytes) else { return false };
        assert!(change.encode() == bytes);
        true
    });
}

fn a_snapshot() -> LogSnapshot {
    LogSnapshot {
        base: Base { index: LogIndex(9), term: Term(2), offset: Offset(7), ..Base::default() },
        conf_state: ConfState { voters: vec![ReplicaId(1), ReplicaId(2)], learners: vec![ReplicaId(3)] },
        conf_index: LogIndex(4),
        log_state: LogState { first_offset: Offset(3), last_append_time_us: 4, ..LogState::default() },
        log_state_index: LogIndex(8),
        catalog: Some(CatalogState { index: LogIndex(11), bytes: vec![1, 2, 3].into() }),
    }
}

/// The data of raft's snapshot.
#[test]
fn snapshot_data() {
    Loop::new("snapshot_data", vec![snapshot_to_raft(&a_snapshot()).data.to_vec()]).run(|bytes| {
        let mut snapshot = snapshot_to_raft(&a_snapshot());
        snapshot.data = bytes.to_vec().into();
        let Ok(decoded) = snapshot_from_raft(&snapshot) else { return false };
        assert!(snapshot_to_raft(&decoded) == snapshot);
        true
    });
}

/// Decodes a peer's message from the bytes on the wire to raft's type, and encodes it again.
#[test]
fn raft_message() {
    let stamp = Stamp {
        kind: EntryKind::Records,
        count: 1,
        base_offset: Offset(3),
        append_time_us: 1,
        producer_id: 0,
        sequence: 0,
    };
    let records = [&stamp.encode()[..], b"records"].concat();
    let entry = |index, kind, data: &[u8]| pb::Entry {
        term: 2,
        index,
        kind,
        data: data.to_vec().into(),
        conf_node: 5,
        ..pb::Entry::default()
    };
    let message = |kind: eraftpb::MessageType| {
        let mut message = pb::RaftMessage { group: 1, from: 2, to: 3, term: 4, index: 8, ..pb::RaftMessage::default() };
        message.type_ = kind as u32;
        message
    };
    let mut append = message(eraftpb::MessageType::MsgAppend);
    append.entries = vec![entry(9, 0, &records), entry(10, 1, b""), entry(11, 2, b"")];
    let mut snapshot = eraftpb::Message::default();
    snapshot.set_msg_type(eraftpb::MessageType::MsgSnapshot);
    snapshot.set_snapshot(snapshot_to_raft(&a_snapshot()));
    let messages = [
        append,
        message(eraftpb::MessageType::MsgHeartbeat),
        message(eraftpb::MessageType::MsgRequestVote),
        message_to_pb(GroupId(1), snapshot),
    ];
    let seeds = messages.iter().map(|message| message.write_to_bytes().expect("encoded")).collect();
    Loop::new("raft_message", seeds).memory(400).memory_fixed(PROTOBUF_FIXED_BYTES).run(|bytes| {
        let Ok(message) = pb::RaftMessage::parse_from_bytes(bytes) else { return false };
        let group = GroupId(message.group);
        let Ok(raft) = message_from_pb(message) else { return false };
        let entries = raft.get_entries();
        assert!(entries.windows(2).all(|two| two[0].index + 1 == two[1].index));
        assert!(
            raft.get_msg_type() != eraftpb::MessageType::MsgPropose,
            "messages of a process to itself are rejected"
        );
        let again = message_from_pb(message_to_pb(group, raft.clone())).expect("our own messages are accepted");
        assert!(again == raft, "{again:?}\n{raft:?}");
        true
    });
}
