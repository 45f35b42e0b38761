//! Tests of a follower that compares itself with its leader, when messages arrive late or twice, or several arrive
//! before one of them is written.

use std::time::Instant;

use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};

use super::disk::{Change, Disk};
use super::sim::World;
use crate::consensus::compare::Compared;
use crate::consensus::conf_change::{ConfChange, ConfChangeKind};
use crate::consensus::group::{Group, GroupConfig, Rules};
use crate::consensus::handle::Role;
use crate::consensus::wire;
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::log::{Base, ConfState, Genesis, LogSnapshot};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, Term};

pub fn message(kind: MessageType, from: u64, term: u64) -> Message {
    let mut message = Message { from, to: 2, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

/// A snapshot for node 2, one of three voters.
pub fn snapshot(from: u64, term: u64, index: u64, index_term: u64) -> Message {
    let mut message = message(MessageType::MsgSnapshot, from, term);
    message.set_snapshot(wire::snapshot_to_raft(&LogSnapshot {
        base: Base { index: LogIndex(index), term: Term(index_term), offset: Offset(0), ..Base::default() },
        conf_state: ConfState { voters: (1..=3).map(ReplicaId).collect(), learners: Vec::new() },
        conf_index: LogIndex(index),
        log_state_index: LogIndex(index),
        ..LogSnapshot::default()
    }));
    message
}

/// Returns an append of empty entries of the leader's term, up to `last`.
pub fn append(from: u64, term: u64, before: (u64, u64), last: u64, commit: u64) -> Message {
    let mut append = message(MessageType::MsgAppend, from, term);
    (append.index, append.log_term, append.commit) = (before.0, before.1, commit);
    let entry = |index| RaftEntry { index, term, ..RaftEntry::default() };
    append.set_entries((before.0 + 1..=last).map(entry).collect());
    append
}

/// The entries that the follower already has equal the leader's.
const EQUAL: Compared = Compared::Equal;

struct Follower {
    group: Group,
    disk: Disk,
}

impl Follower {
    fn new() -> Follower {
        let disk = Disk::new(Genesis::Blank);
        let config = GroupConfig {
            id: GroupId(1),
            me: ReplicaId(2),
            leads_at_first: false,
            election_ticks: Some(12),
            rules: Rules::default(),
        };
        Follower { group: disk.open(ReplicaId(2), &config), disk }
    }

    /// Steps a message that must not be rejected.
    #[track_caller]
    fn step(&mut self, message: Message, claimed_last: Option<LogIndex>, compared: Compared) {
        assert_eq!(self.group.step_with(message, claimed_last, compared), Ok(()));
    }

    /// Performs the writes. Returns the messages, and true if there were any effects.
    fn write(&mut self) -> (Vec<Message>, bool) {
        let (mut said, mut busy) = (Vec::new(), false);
        while let Some(effects) = self.group.ready() {
            busy = true;
            effects.write.into_iter().for_each(|write| self.disk.make(Change::Write(write)));
            effects.sync.into_iter().for_each(|ready| self.disk.want(ready));
            said.extend(effects.messages);
        }
        (said, busy)
    }

    /// Writes and syncs until no effects are left. Returns the messages.
    fn perform(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let (more, busy) = self.write();
            messages.extend(more);
            if !busy {
                return messages;
            }
            self.group.persisted(self.disk.sync());
        }
    }

    fn damage(&self) -> Option<String> {
        self.group.status().damage
    }
}

/// A leader's connection is lost and replaced, so a snapshot may arrive before an append that was sent earlier, on
/// the old connection. Once raft has accepted a snapshot, it returns term 0 for all entries before it, even while the
/// store still contains the old log. This was mistaken for a different entry, and a correct node was reported as
/// damaged.
#[test]
fn a_late_append_before_a_snapshot_is_not_a_difference() {
    let mut follower = Follower::new();
    follower.step(snapshot(1, 2, 1, 1), None, EQUAL);
    follower.step(append(1, 2, (1, 1), 9, 9), Some(LogIndex(9)), EQUAL);
    follower.perform();
    follower.step(snapshot(1, 2, 50, 2), None, EQUAL);
    follower.step(append(1, 2, (9, 2), 12, 11), Some(LogIndex(12)), EQUAL);
    follower.perform();
    assert_eq!(follower.damage(), None);
    assert_eq!(follower.group.status().applied_index, LogIndex(50));
}

/// A message of another node made this node follow it, in a term that already had a leader, and its entries were
/// accepted.
#[test]
fn a_term_has_one_leader() {
    let mut follower = Follower::new();
    follower.step(snapshot(1, 2, 1, 1), None, EQUAL);
    follower.step(append(1, 2, (1, 1), 9, 9), Some(LogIndex(9)), EQUAL);
    follower.perform();
    let before = follower.group.status();
    let forged = [
        append(3, 2, (9, 2), 12, 12),
        message(MessageType::MsgHeartbeat, 3, 2),
        snapshot(3, 2, 1_000_000, 2),
        message(MessageType::MsgTimeoutNow, 3, 2),
    ];
    for message in forged {
        assert!(follower.group.step_with(message.clone(), None, EQUAL).is_err(), "{message:?}");
        follower.perform();
        assert_eq!(follower.group.status(), before, "{message:?}");
    }
    // The next term may have another one.
    follower.step(append(3, 3, (9, 2), 12, 12), Some(LogIndex(12)), EQUAL);
    follower.perform();
    assert_eq!(follower.group.status().applied_index, LogIndex(12));
}

/// A snapshot for node 2, a learner of two voters.
fn learners_snapshot() -> Message {
    let mut message = snapshot(1, 2, 1, 1);
    let mut begin = wire::snapshot_from_raft(message.get_snapshot()).expect("a snapshot");
    begin.conf_state = ConfState { voters: vec![ReplicaId(1), ReplicaId(3)], learners: vec![ReplicaId(2)] };
    message.set_snapshot(wire::snapshot_to_raft(&begin));
    message
}

/// A learner never campaigns, so nothing resets its known leader. After one message of another node in the leader's
/// term, it rejected the real leader for the rest of that term.
#[test]
fn a_learner_accepts_the_leader_again_when_the_other_node_is_silent() {
    let mut follower = Follower::new();
    follower.step(learners_snapshot(), None, EQUAL);
    follower.perform();
    assert_eq!(follower.group.status().role, Role::Learner);
    follower.step(message(MessageType::MsgHeartbeat, 3, 3), None, EQUAL);
    follower.perform();
    let mut refused = 0;
    for _ in 0..1000 {
        follower.group.tick(Instant::now());
        let step = follower.group.step_with(append(1, 3, (1, 1), 9, 9), Some(LogIndex(9)), EQUAL);
        refused += usize::from(step.is_err());
        follower.perform();
    }
    let status = follower.group.status();
    assert_eq!(
        (status.leader, status.applied_index),
        (Some(ReplicaId(1)), LogIndex(9)),
        "{refused} of 1000 were refused"
    );
    assert!(refused < 30, "{refused} were refused");
}

/// Two appends arrive before a write. The first one truncates entries of an older leader. The second one, which was
/// sent earlier, arrives before the store is truncated. The entries to truncate were treated as committed in an
/// earlier term.
#[test]
fn an_entry_that_will_be_truncated_is_not_a_difference() {
    let mut follower = Follower::new();
    follower.step(snapshot(1, 2, 1, 1), None, EQUAL);
    follower.step(append(1, 2, (1, 1), 9, 4), Some(LogIndex(9)), EQUAL);
    follower.perform();
    follower.step(append(3, 3, (4, 2), 9, 9), Some(LogIndex(9)), EQUAL);
    follower.step(append(3, 3, (4, 2), 6, 4), Some(LogIndex(6)), EQUAL);
    follower.perform();
    assert_eq!(follower.damage(), None);
    assert_eq!(follower.group.status().applied_index, LogIndex(9));
}

/// A committed entry of an earlier term that the leader's log lacks is detected, even while the store does not
/// contain it yet.
#[test]
fn an_entry_that_the_leader_lacks_is_a_difference_before_it_is_written() {
    for performs in [true, false] {
        let mut follower = Follower::new();
        follower.step(snapshot(1, 2, 1, 1), None, EQUAL);
        follower.step(append(1, 2, (1, 1), 9, 9), Some(LogIndex(9)), EQUAL);
        if performs {
            follower.perform();
        }
        follower.step(message(MessageType::MsgHeartbeat, 3, 3), Some(LogIndex(7)), EQUAL);
        assert!(follower.damage().is_some_and(|damage| damage.contains("entry 9 is committed here")), "{performs}");
    }
}

/// raft acknowledges an append if this node has entries with the same indexes and terms. If nothing proves that the
/// contents are equal, only entries that are committed at the leader are acknowledged, which has no further effect
/// there.
#[test]
fn an_append_that_is_not_compared_acknowledges_only_what_the_leader_has_committed() {
    for (compared, acknowledged) in [(Compared::Equal, 9), (Compared::Unknown, 5)] {
        let mut follower = Follower::new();
        follower.step(snapshot(1, 2, 1, 1), None, EQUAL);
        follower.perform();
        follower.step(append(1, 2, (1, 1), 9, 5), None, compared);
        let messages = follower.perform();
        let highest =
            messages.iter().filter(|m| m.get_msg_type() == MessageType::MsgAppendResponse).map(|m| m.index).max();
        assert_eq!(highest, Some(acknowledged));
    }
}

/// raft answers a snapshot below its commit index with its commit index. The leader then counted entries that were
/// never compared. And a snapshot whose last entry differed from the one here was not reported as a difference.
#[test]
fn a_snapshot_is_compared_and_acknowledges_only_itself() {
    let follower = || {
        let mut follower = Follower::new();
        follower.step(snapshot(1, 2, 1, 1), None, EQUAL);
        follower.step(append(1, 2, (1, 1), 9, 9), Some(LogIndex(9)), EQUAL);
        follower.perform();
        follower
    };
    let mut sound = follower();
    sound.step(snapshot(3, 3, 5, 2), None, EQUAL);
    let acknowledged: Vec<u64> = sound
        .perform()
        .iter()
        .filter(|m| m.get_msg_type() == MessageType::MsgAppendResponse)
        .map(|m| m.index)
        .collect();
    assert_eq!((acknowledged, sound.damage()), (vec![5], None));
    let mut differing = follower();
    differing.step(snapshot(3, 3, 5, 3), None, EQUAL);
    assert!(differing.damage().is_some_and(|damage| damage.contains("entry 5 is committed here")));
}

/// A conf change, which waits for a sync, is followed by a bad entry, which can't be applied, and a valid one. The
/// bad entry makes the group damaged. If the group had other work at that moment, it continued and made the valid
/// entry visible.
#[test]
fn nothing_is_applied_after_an_entry_that_cannot_be() {
    for busy in [false, true] {
        let mut follower = Follower::new();
        follower.step(snapshot(1, 2, 1, 1), None, EQUAL);
        follower.perform();
        let mut bad = append(1, 2, (1, 1), 4, 4);
        let change = ConfChange { kind: ConfChangeKind::AddLearner, replica: ReplicaId(9) };
        bad.entries[0].set_entry_type(EntryType::EntryConfChange);
        bad.entries[0].context = change.encode().to_vec().into();
        let stamp = Stamp {
            kind: EntryKind::Trim,
            count: 0,
            base_offset: Offset(0),
            append_time_us: 1,
            producer_id: 0,
            sequence: 0,
        };
        bad.entries[1].data = Entry::new(LogIndex(3), Term(2), stamp, b"no offset").data;
        follower.step(bad, None, EQUAL);
        // The entries are written, then committed. The conf change waits until the commit index is synced, too.
        follower.write();
        follower.group.persisted(follower.disk.sync());
        follower.write();
        assert_eq!((follower.damage(), follower.group.visible().applied), (None, LogIndex(1)), "the conf change waits");
        follower.group.persisted(follower.disk.sync());
        if busy {
            follower.step(message(MessageType::MsgHeartbeat, 1, 2), None, EQUAL);
        }
        let messages = follower.perform();
        assert!(follower.damage().is_some_and(|damage| damage.contains("entry 3 can't be applied")));
        assert_eq!(follower.group.visible().applied, LogIndex(2));
        assert!(messages.iter().all(|m| m.get_msg_type() != MessageType::MsgHeartbeatResponse), "it takes no part");
    }
}

/// A leader that became damaged stayed leader in raft's state. Its status still named it as the leader, so clients
/// were directed to it.
#[test]
fn a_damaged_leader_does_not_report_itself_as_leader() {
    let mut world = World::new(5, 3, Rules::default());
    assert!(world.settle(2000));
    let leader = world.leader().expect("a leader");
    let group = world.nodes[leader].group.as_mut().expect("running");
    group.set_damaged("an entry can't be applied".to_owned());
    let status = group.status();
    assert_eq!((status.role, status.leader), (Role::Follower, None));
}
