//! Tests of work that one node forwards to another.

use std::time::{Duration, Instant};

use super::{LONG, Setup, TestNode, pair};
use crate::consensus::handle::{
    Appended, ConsensusMsg, GroupStatus, Proposal, ProposeError, ReadIndexError, StreamPosition,
};
use crate::logs::{OpenLog, Removal};
use crate::replication::wait::block_until;
use crate::reply::{ReplyReceiver, ReplySender};
use crate::storage::disk::Disk;
use crate::storage::entry::{Entry, EntryKind, Stamp, Unstamped};
use crate::storage::log::{Genesis, GroupLog, LogOptions};
use crate::storage::payload::{RecordFields, encode_record, stamp_records};
use crate::types::{GroupId, LogIndex, LogName, NodeId, Offset, StreamId, Term};
use crate::watermark::HighWatermark;

const IN_STREAM: StreamPosition = StreamPosition { stream: StreamId(6), sequence: 7 };

fn proposal(text: &str) -> Proposal {
    Proposal {
        group: GroupId(1),
        kind: EntryKind::Records,
        count: 1,
        payload: text.as_bytes().into(),
        expected_offset: Some(Offset(0)),
        producer_id: 4,
        producer_epoch: 0,
        sequence: 5,
        restored_append_time_us: Some(9),
        in_stream: Some(IN_STREAM),
        term: None,
        deadline: Some(Instant::now() + LONG),
    }
}

fn appended(offset: u64) -> Appended {
    Appended {
        offset: Offset(offset),
        count: 1,
        term: Term(2),
        index: LogIndex(offset + 2),
        append_time_us: 9,
        duplicate: false,
    }
}

fn wait<T>(reply: ReplyReceiver<T>) -> T {
    block_until(reply, Instant::now() + LONG).expect("an answer in time").expect("an answer")
}

fn proposed(node: &TestNode) -> (Proposal, ReplySender<Result<Appended, ProposeError>>) {
    loop {
        match node.next() {
            ConsensusMsg::Propose(proposal, reply) => return (proposal, reply),
            ConsensusMsg::Unreachable(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn answers_find_their_callers_in_any_order() {
    let (a, b) = pair();
    let replies: Vec<_> =
        ["x", "y", "z"].map(|text| a.peers.handle().propose(b.id, "root", proposal(text))).into_iter().collect();
    let index = a.peers.handle().read_index(b.id, GroupId(0), None);
    let mut waiting = Vec::new();
    for text in ["x", "y", "z"] {
        let (proposal, reply) = proposed(&b);
        assert_eq!(&proposal.payload[..], text.as_bytes(), "in the order in which they were forwarded");
        assert_eq!((proposal.producer_id, proposal.sequence, proposal.expected_offset), (4, 5, Some(Offset(0))));
        assert_eq!(proposal.in_stream, Some(IN_STREAM));
        assert!(proposal.deadline.is_some_and(|d| d > Instant::now()));
        waiting.push(reply);
    }
    let ConsensusMsg::ReadIndex(GroupId(0), None, reply) = b.next() else { panic!("a read index") };
    reply.send(Ok(LogIndex(8)));
    assert_eq!(wait(index), Ok(LogIndex(8)));
    for (offset, reply) in waiting.into_iter().enumerate().rev() {
        reply.send(Ok(appended(offset as u64)));
    }
    let answers: Vec<_> = replies.into_iter().map(wait).collect();
    assert_eq!(answers, [Ok(appended(0)), Ok(appended(1)), Ok(appended(2))]);
}

#[test]
fn thousands_at_once_are_batched_and_all_answered() {
    let (a, b) = pair();
    let replies: Vec<_> = (0..3000).map(|_| a.peers.handle().propose(b.id, "root", proposal("x"))).collect();
    let answering = std::thread::spawn(move || {
        for offset in 0..3000 {
            proposed(&b).1.send(Ok(appended(offset)));
        }
        b
    });
    for (offset, reply) in replies.into_iter().enumerate() {
        assert_eq!(wait(reply), Ok(appended(offset as u64)));
    }
    answering.join().expect("no panic");
}

#[test]
fn a_refusal_of_the_leader_means_not_appended() {
    let (a, b) = pair();
    for (theirs, ours) in [
        (ProposeError::NotLeader { leader: Some(NodeId(9)) }, ProposeError::NotLeader { leader: Some(NodeId(9)) }),
        (ProposeError::NotLeader { leader: None }, ProposeError::NotLeader { leader: None }),
        (ProposeError::Stopping, ProposeError::Dropped),
        (ProposeError::QueueFull, ProposeError::QueueFull),
        (
            ProposeError::ExpectedOffset { next_offset: Offset(6) },
            ProposeError::ExpectedOffset { next_offset: Offset(6) },
        ),
        (ProposeError::OutcomeUnknown, ProposeError::OutcomeUnknown),
    ] {
        let reply = a.peers.handle().propose(b.id, "root", proposal("x"));
        proposed(&b).1.send(Err(theirs));
        assert_eq!(wait(reply), Err(ours));
    }
    let reply = a.peers.handle().propose(b.id, "root", proposal("x"));
    drop(proposed(&b));
    assert_eq!(wait(reply), Err(ProposeError::OutcomeUnknown), "a dropped reply says nothing");
    let reply = a.peers.handle().read_index(b.id, GroupId(1), None);
    let ConsensusMsg::ReadIndex(_, _, theirs) = b.next() else { panic!("a read index") };
    theirs.send(Err(ReadIndexError::NotLeader { leader: Some(NodeId(9)) }));
    assert_eq!(wait(reply), Err(ReadIndexError::NotLeader { leader: Some(NodeId(9)) }));
}

/// While another cluster of the same name answered, a leader refused the appends of its own clients, but still
/// accepted those that followers forwarded.
#[test]
fn a_leader_with_a_rival_cluster_refuses_forwarded_appends() {
    let (a, b) = pair();
    let taken = a.peers.handle().propose(b.id, "root", proposal("x"));
    proposed(&b).1.send(Ok(appended(0)));
    assert_eq!(wait(taken), Ok(appended(0)));
    assert!(b.peers.handle().set_rival(Some("another cluster".to_owned())));
    assert_eq!(wait(a.peers.handle().propose(b.id, "root", proposal("y"))), Err(ProposeError::Dropped));
    assert!(b.peers.handle().set_rival(None));
    let taken = a.peers.handle().propose(b.id, "root", proposal("z"));
    proposed(&b).1.send(Ok(appended(1)));
    assert_eq!(wait(taken), Ok(appended(1)));
}

#[test]
fn a_link_that_is_lost_after_sending_leaves_the_outcome_unknown() {
    let (a, mut b) = pair();
    let reply = a.peers.handle().propose(b.id, "root", proposal("x"));
    let index = a.peers.handle().read_index(b.id, GroupId(1), None);
    let _unanswered = proposed(&b);
    b.stop_listening();
    assert_eq!(wait(reply), Err(ProposeError::OutcomeUnknown));
    assert_eq!(wait(index), Err(ReadIndexError::Unconfirmed));
}

#[test]
fn work_that_was_not_sent_was_not_appended() {
    let (a, mut b) = pair();
    b.stop_listening();
    assert_eq!(wait(a.peers.handle().propose(b.id, "root", proposal("x"))), Err(ProposeError::Dropped));
    assert_eq!(wait(a.peers.handle().propose(NodeId(9), "root", proposal("x"))), Err(ProposeError::Dropped));
    // A node that is not admitted yet refuses every job.
    let c = Setup { is_member: false, ..Setup::node(3) }.start();
    a.knows(&[c.member()]);
    assert_eq!(wait(a.peers.handle().propose(c.id, "root", proposal("x"))), Err(ProposeError::Dropped));
    assert_eq!(wait(a.peers.handle().read_index(c.id, GroupId(1), None)), Err(ReadIndexError::Unconfirmed));
    assert!(c.is_quiet());
}

#[test]
fn a_deadline_ends_the_wait() {
    let (a, b) = pair();
    let late = Proposal { deadline: Some(Instant::now()), ..proposal("late") };
    assert_eq!(wait(a.peers.handle().propose(b.id, "root", late)), Err(ProposeError::DeadlinePassed));
    let soon = Proposal { deadline: Some(Instant::now() + Duration::from_millis(300)), ..proposal("soon") };
    let reply = a.peers.handle().propose(b.id, "root", soon);
    let _unanswered = proposed(&b);
    assert_eq!(wait(reply), Err(ProposeError::OutcomeUnknown));
}

#[test]
fn stopping_answers_every_caller() {
    let (a, b) = pair();
    let sent = a.peers.handle().propose(b.id, "root", proposal("x"));
    let _unanswered = proposed(&b);
    a.peers.stop();
    assert_eq!(wait(sent), Err(ProposeError::OutcomeUnknown));
    assert_eq!(wait(a.peers.handle().propose(b.id, "root", proposal("x"))), Err(ProposeError::Stopping));
}

/// Creates a log in a directory, with entries of these terms, values and producers. An empty value stands for a no-op.
fn log_of(dir: &std::path::Path, entries: &[(u64, &str, (u64, u64))]) -> (OpenLog, LogIndex) {
    let (disk, options) = (Disk::real(), LogOptions::default());
    GroupLog::create(&disk, dir, GroupId(1), &options, Genesis::founder(crate::types::ReplicaId(1))).expect("made");
    let (mut log, recovered) = GroupLog::open(&disk, dir, GroupId(1), &options).expect("opened");
    let (mut index, mut offset) = (recovered.last_index, recovered.next_offset);
    let mut written = Vec::new();
    for (term, value, (producer_id, sequence)) in entries {
        index = index.next();
        let mut payload = if value.is_empty() { Vec::new() } else { encoded(value).to_vec() };
        let kind = if value.is_empty() { EntryKind::Noop } else { EntryKind::Records };
        let stamp = Stamp {
            kind,
            count: u32::from(!value.is_empty()),
            base_offset: offset,
            append_time_us: 9,
            producer_id: *producer_id,
            sequence: *sequence,
        };
        stamp_records(&mut payload, offset, Term(*term), 9).expect("records");
        offset = Offset(offset.0 + u64::from(stamp.count));
        written.push(Entry::new(index, Term(*term), stamp, &payload));
    }
    log.append_ready(&written, None).expect("written");
    let open = OpenLog {
        restoring_to: None,
        name: LogName::new("").expect("a name"),
        group: GroupId(1),
        log_id: crate::types::LogId(1),
        record_bytes_max: 1 << 20,
        request_bytes_max: 1 << 20,
        hash_chain: false,
        tables: crate::log_state::TablesView::default(),
        watermark: HighWatermark::default(),
        reader: log.reader(),
        removal: Removal::default(),
    };
    (open, index)
}

fn encoded(value: &str) -> Unstamped {
    let mut payload = Vec::new();
    encode_record(&mut payload, &RecordFields { value: value.as_bytes(), ..RecordFields::default() });
    payload.as_slice().into()
}

/// A follower had forwarded proposals to a leader that was then paused or partitioned, or whose disk hung. They were
/// answered after 15 to 30 s with an unknown outcome, long after another node had become leader.
#[test]
fn the_log_of_the_next_leader_shows_the_outcome_of_a_proposal() {
    let (a, b) = pair();
    let (dir, blank) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (_, before) = log_of(blank.path(), &[]);
    let status = |term: u64, leader: NodeId, applied: LogIndex| {
        let (term, leader) = (Term(term), Some(leader));
        GroupStatus {
            group: GroupId(1),
            term,
            leader,
            applied_index: applied,
            applied_term: term,
            ..Default::default()
        }
    };
    a.statuses.publish(status(2, b.id, before));
    let forward = |value, (producer_id, sequence)| {
        let proposal = Proposal { payload: encoded(value), producer_id, sequence, ..proposal("") };
        a.peers.handle().propose(b.id, "root", proposal)
    };
    let named = (4, 5);
    let replies =
        [("named", named), ("same", (0, 0)), ("same", (0, 0)), ("late", (4, 6))].map(|(v, of)| forward(v, of));
    let unanswered: Vec<_> = replies.iter().map(|_| proposed(&b)).collect();
    assert!(unanswered.iter().all(|(proposal, _)| proposal.term == Some(Term(2))));
    let read = a.peers.handle().read_index(b.id, GroupId(1), None);
    let _unanswered_read = b.next();
    // The first of two equal requests is in the log. An entry with the right number and a later term is another
    // request.
    let tagged = (unanswered[1].0.producer_id, unanswered[1].0.sequence);
    let entries = [(2, "named", named), (2, "same", tagged), (2, "same", (0, 0)), (3, "", (0, 0)), (3, "late", (4, 6))];
    let (log, last) = log_of(dir.path(), &entries);
    a.logs.insert(log);
    let begin = Instant::now();
    a.statuses.publish(status(3, NodeId(3), last));
    let answers: Vec<_> = replies.into_iter().map(wait).collect();
    let appended = |offset: u64| {
        let index = LogIndex(before.0 + 1 + offset);
        Ok(Appended { offset: Offset(offset), count: 1, term: Term(2), index, append_time_us: 9, duplicate: false })
    };
    let not = Err(ProposeError::Dropped);
    // Another attempt of the producer may have appended the entry, or an earlier one.
    let unknown = Err(ProposeError::OutcomeUnknown);
    assert_eq!(answers, [unknown, appended(1), not, unknown]);
    assert_eq!(wait(read), Err(ReadIndexError::Unconfirmed));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // While this node has no entry of the new term, the outcome is unknown, but the wait is short.
    a.statuses.publish(status(3, b.id, last));
    let reply = forward("next", (0, 0));
    let _unanswered = proposed(&b);
    a.statuses.publish(GroupStatus { applied_term: Term(3), ..status(4, NodeId(3), last) });
    assert_eq!(wait(reply), Err(ProposeError::OutcomeUnknown));
    assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
}
