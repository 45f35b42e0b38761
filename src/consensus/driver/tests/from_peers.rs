//! Tests of which messages and proposals of peers are accepted.

use super::*;
use crate::consensus::command_proposal;
use crate::storage::payload::{RecordFields, encode_record};

/// The founder's replica of the first log. The id 1 is that of the node.
const MINE: ReplicaId = ReplicaId(2);
/// A replica on the other node. The founder's catalog does not list it yet.
const THEIRS: ReplicaId = ReplicaId(1000);

fn heartbeat(from: u64, term: u64) -> RaftMessage {
    let mut message = raft::eraftpb::Message { from, to: MINE.0, term, ..Default::default() };
    message.set_msg_type(raft::eraftpb::MessageType::MsgHeartbeat);
    crate::consensus::wire::message_to_pb(GroupId(1), message)
}

/// A peer with an unknown id sent a heartbeat of a high term, or a snapshot. The node followed it and dropped its
/// records.
#[test]
fn a_stranger_is_not_followed_and_replaces_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let status = |founder: &Founder| founder.driver.groups[&GroupId(1)].group.status();
    let before = status(&founder);
    let stranger = NodeId(4242);
    founder.driver.step(stranger, heartbeat(stranger.0, before.term.0 + 1));
    let mut snapshot = crate::consensus::tests::compared::snapshot(stranger.0, before.term.0 + 1, 1_000_000, 1);
    snapshot.to = MINE.0;
    founder.driver.step(stranger, crate::consensus::wire::message_to_pb(GroupId(1), snapshot));
    founder.driver.perform().expect("performed");
    assert_eq!(status(&founder), before);
    // A member is not followed either, if its term is further ahead than elections can have raised it.
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    let before = status(&founder);
    founder.driver.step(OTHER, heartbeat(THEIRS.0, 1 << 40));
    founder.driver.perform().expect("performed");
    assert_eq!(status(&founder).term, before.term);
    // A term that is one election ahead is accepted.
    founder.driver.step(OTHER, heartbeat(THEIRS.0, before.term.0 + 1));
    founder.driver.perform().expect("performed");
    assert_eq!(status(&founder).leader, Some(THEIRS));
}

/// Each message of a member could raise the term by 2^32. So 2^29 messages, sent within an hour, reached the largest
/// term, after which no node could be elected any more.
#[test]
fn terms_do_not_jump_again_and_again() {
    const JUMP: u64 = 1 << 32;

    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    let term = |founder: &Founder| founder.driver.groups[&GroupId(1)].group.term().0;
    let (before, begun) = (term(&founder), Instant::now());
    for _ in 0..100_000 {
        let next = term(&founder) + JUMP;
        founder.driver.step(OTHER, heartbeat(THEIRS.0, next));
    }
    println!("from term {before} to {} in {:?}", term(&founder), begun.elapsed());
    assert_eq!(term(&founder), before + JUMP, "a node that lags may need one jump");
    let next = term(&founder) + 1;
    founder.driver.step(OTHER, heartbeat(THEIRS.0, next));
    founder.driver.perform().expect("performed");
    assert_eq!(term(&founder), next, "an election");
    (0..30).for_each(|_| founder.driver.tick().expect("a tick"));
    let later = term(&founder) + JUMP;
    founder.driver.step(OTHER, heartbeat(THEIRS.0, later));
    assert_eq!(term(&founder), later, "another jump, a second later");
}

/// A claim was compared before the check that its sender leads. One message of a follower with a different digest
/// marked the leader's own replica as damaged.
#[test]
fn a_claim_of_a_node_that_does_not_lead_is_not_compared() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    founder.settle();
    let group = |founder: &Founder| founder.driver.groups[&GroupId(1)].group.status();
    let (term, index) = (group(&founder).term, group(&founder).commit_index);
    let checkpoint = crate::pb::peer::Checkpoint { index: index.0, digest: 4711, ..Default::default() };
    let claim = crate::pb::peer::LogClaim { last_index: index.0, checkpoints: vec![checkpoint], ..Default::default() };
    let message = RaftMessage { claim: Some(claim).into(), ..heartbeat(THEIRS.0, term.0) };
    founder.driver.step(OTHER, message);
    founder.driver.perform().expect("performed");
    assert_eq!(group(&founder).damage, None);
    assert!(founder.driver.groups[&GroupId(1)].group.leads());
}

/// A founder receives an append of one entry from the other member, the leader of the next term. Nothing may be
/// written.
fn after_an_append_of(entry: impl FnOnce(u64, u64) -> raft::eraftpb::Entry) -> Founder {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    founder.settle();
    let before = founder.driver.groups[&GroupId(1)].group.status();
    let (term, index) = (before.term.0 + 1, before.last_index.0);
    let log_term = before.applied_term.0;
    let entry = raft::eraftpb::Entry { index: index + 1, ..entry(log_term, term) };
    let mut append = raft::eraftpb::Message { from: THEIRS.0, to: MINE.0, term, index, log_term, ..Default::default() };
    append.set_msg_type(raft::eraftpb::MessageType::MsgAppend);
    append.set_entries(vec![entry].into());
    founder.driver.step(OTHER, crate::consensus::wire::message_to_pb(GroupId(1), append));
    founder.settle();
    let after = founder.driver.groups[&GroupId(1)].group.status();
    assert_eq!((after.last_index, after.damage), (before.last_index, None), "nothing was written");
    founder
}

/// Once, the receiver panicked at once.
#[test]
fn an_entry_of_an_older_term_than_the_one_before_is_not_written() {
    after_an_append_of(|log_term, _| raft::eraftpb::Entry { term: log_term - 1, ..Default::default() });
}

/// The receiver panicked when it next became leader: the term of its first entry was older than that of the entry
/// before, which stayed in its log.
#[test]
fn an_entry_of_a_newer_term_than_its_leader_is_not_written() {
    after_an_append_of(|_, term| raft::eraftpb::Entry { term: term + 1000, ..Default::default() });
}

/// Once, the receiver panicked at once.
#[test]
fn an_entry_that_is_too_large_is_not_written() {
    use crate::storage::entry::{ENTRY_BYTES_MAX, Stamp};
    use crate::types::{Offset, Term};

    after_an_append_of(|_, term| {
        let mut payload = Vec::new();
        let value = vec![7; ENTRY_BYTES_MAX];
        encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
        let stamp = Stamp {
            kind: EntryKind::Records,
            count: 1,
            base_offset: Offset(0),
            append_time_us: 5,
            producer_id: 0,
            sequence: 0,
        };
        let mut data = Unstamped::from(payload.as_slice()).stamp(&stamp);
        crate::storage::payload::stamp_records(&mut data[Stamp::BYTES..], Offset(0), Term(term), 5).expect("stamped");
        raft::eraftpb::Entry { term, data: data.into(), ..Default::default() }
    });
}

/// A record with a command and a header, which every node would keep forever.
fn with_a_header(command: &Command) -> Proposal {
    let mut payload = Vec::new();
    let headers: &[(&str, &[u8])] = &[("a", b"b")];
    encode_record(&mut payload, &RecordFields { value: &command.encode(), headers, ..RecordFields::default() });
    Proposal::new(GroupId::CATALOG, EntryKind::Records, 1, payload.as_slice().into())
}

/// A learner that had just been added sent a snapshot, and every record was lost.
#[test]
fn accepts_a_snapshot_from_voters_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    founder.settle();
    let before = [0, 1].map(|group| founder.driver.groups[&GroupId(group)].group.status());
    for (group, from, to) in [(GroupId(1), THEIRS.0, MINE.0), (GroupId::CATALOG, OTHER.0, ME.0)] {
        let mut snapshot = crate::consensus::tests::compared::snapshot(from, before[0].term.0 + 9, 1_000_000, 1);
        snapshot.to = to;
        founder.driver.step(OTHER, crate::consensus::wire::message_to_pb(group, snapshot));
        founder.driver.perform().expect("performed");
    }
    assert_eq!([0, 1].map(|group| founder.driver.groups[&GroupId(group)].group.status()), before);
}

/// Nodes that were not members claimed the year 292,000, and records got that timestamp.
#[test]
fn clocks_of_nodes_that_do_not_vote_do_not_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let now = Instant::now();
    (10..20).for_each(|node| founder.driver.peer_clocks.record(NodeId(node), 1 << 60, now));
    founder.driver.tick().expect("a tick");
    assert!(founder.driver.clock.now(wall_us(), Instant::now()) < 1 << 60);
    founder.driver.peer_clocks.record(ME, 7, now);
    assert_eq!(founder.driver.clocks_of_voters(now), [(ME, 7)]);
}

/// Each message of a faulty member was logged: 10,000 lines for 10,000 messages.
#[test]
fn refused_messages_of_a_member_write_few_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    founder.command(Command::AddNode(member(OTHER, "n2"))).expect("a new member");
    let term = founder.driver.groups[&GroupId(1)].group.status().term;
    (0..10_000).for_each(|_| founder.driver.step(OTHER, heartbeat(THEIRS.0, term.0 + (1 << 40))));
    assert_eq!(founder.driver.admission.dropped_lines(OTHER), u64::from(crate::line_limit::LINES_MAX));
}

/// A peer that forwards to the leader bypasses the checks of the API. `AddNode` with id 0 was proposed again on every
/// tick, and limits of 0 were stored forever.
#[test]
fn accepts_only_valid_changes_of_a_log_from_peers() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut founder = Founder::start(dir.path(), "n1");
    founder.settle();
    let mut propose = |proposal: Proposal| founder.propose(proposal).map(|_| ());
    let configure = |change| command_proposal(&Command::ConfigureLog(GroupId(1), change));
    let longer = crate::catalog::LogSettings { retention_ms: Some(9000), ..Default::default() };
    let short = crate::catalog::LogSettings { retention_ms: Some(1), ..Default::default() };
    let none = crate::catalog::LogSettings { record_bytes_max: Some(0), ..Default::default() };
    let first = crate::catalog::NewLog::of_level_1(ME, Default::default());
    let refused = [
        configure(none),
        configure(short),
        with_a_header(&Command::ConfigureLog(GroupId(1), longer.clone())),
        configure(crate::catalog::LogSettings::default()),
        command_proposal(&Command::AddNode(member(OTHER, "n2"))),
        command_proposal(&Command::AddNode(member(NodeId(0), "n3"))),
        command_proposal(&Command::RemoveNode(ME)),
        command_proposal(&Command::CreateLog(first)),
        Proposal { kind: EntryKind::Trim, count: 0, ..configure(longer.clone()) },
    ];
    for proposal in refused {
        assert_eq!(propose(proposal), Err(ProposeError::Dropped));
    }
    assert_eq!(propose(configure(longer)), Ok(()));
}
