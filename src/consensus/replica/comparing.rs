//! Comparing this replica with its leader's, by digests: what is sent, what is compared, and what follows from a difference.

use crossbeam_channel::{Receiver, Sender, bounded};
use raft::eraftpb::{Message, MessageType};

use super::{Replica, Sinks};
use crate::consensus::claim::{Checkpoint, Claim};
use crate::consensus::compare::{Compared, Comparison};
use crate::storage::log::Base;
use crate::types::{GroupId, LogIndex, NodeId};

/// What a replica remembers of comparisons.
#[derive(Default)]
pub(super) struct Comparing {
    comparison: Comparison,
    /// The ends of leaders' logs at entries that raft has and the store has not. Compared after the next write.
    unwritten: Vec<(NodeId, Base)>,
    /// The log state says, or is about to say, that this replica differs.
    difference_stored: bool,
    heartbeats: u64,
    lookup: Lookup,
}

/// A digest that is read from the disk: that of an older entry which is not a checkpoint.
struct Lookup {
    wanted: Option<LogIndex>,
    running: bool,
    /// The last one that was looked up, and its result; `None` if it can't be read.
    found: Option<Found>,
    done: (Sender<Found>, Receiver<Found>),
}

type Found = (LogIndex, Option<Base>);

impl Default for Lookup {
    fn default() -> Lookup {
        // One lookup runs at a time, and the next begins after its result was taken.
        Lookup { wanted: None, running: false, found: None, done: bounded(1) }
    }
}

impl Lookup {
    fn take_found(&mut self) {
        if let Ok(found) = self.done.1.try_recv() {
            self.running = false;
            self.found = Some(found);
        }
    }
}

impl Replica {
    /// Stores that this replica differs, so that it serves no record after a restart either, until it is compared again.
    pub(super) fn store_difference(&mut self, sinks: &Sinks) {
        if !std::mem::replace(&mut self.comparing.difference_stored, true) && self.id != GroupId::CATALOG {
            let found = self.comparing.comparison.difference.map_or(LogIndex(0), |difference| difference.differs.0);
            self.log().set_differing(Some(found.max(self.group.commit_index())));
            sinks.writer.sync(self.id, 0);
        }
    }

    pub(super) fn clear_suspicion(&mut self, sinks: &Sinks) {
        log::info!("group {}: this replica is equal to the leader's again", self.id);
        self.group.clear_suspicion();
        self.log().set_differing(None);
        sinks.writer.sync(self.id, 0);
        self.watermark.restore();
    }

    /// Compares the entries here with those that a leader's append contains or follows, or with its snapshot.
    pub(super) fn compare_entries(&mut self, message: &Message, before: Option<&Checkpoint>) -> Compared {
        let Some(theirs) = self.group.leader_end(message, before) else { return Compared::Unknown };
        let leader = NodeId(message.from);
        if !self.group.is_stored(theirs.index) {
            self.comparing.unwritten.push((leader, theirs));
            return Compared::Equal;
        }
        let ours = self.end_at(theirs.index);
        self.compare_ends(leader, &theirs, ours)
    }

    fn compare_ends(&mut self, leader: NodeId, theirs: &Base, ours: Option<Base>) -> Compared {
        let Some(ours) = ours.filter(|ours| ours.term == theirs.term) else { return Compared::Unknown };
        if self.comparing.comparison.take(leader, Checkpoint::from(theirs), ours.digest) {
            self.tell_difference();
        }
        Compared::Equal
    }

    /// Compares what could not be compared before it was written. False if this replica differs.
    pub(super) fn compare_written(&mut self) -> bool {
        for (leader, theirs) in std::mem::take(&mut self.comparing.unwritten) {
            // It may have been replaced since: then another message, with its own digest, did that.
            let ours = self.log().known_at(theirs.index);
            self.compare_ends(leader, &theirs, ours);
        }
        !self.group.differs()
    }

    fn tell_difference(&mut self) {
        if let Some(difference) = self.comparing.comparison.difference {
            self.group.set_differing(difference.to_string());
        }
    }

    /// The claim that is sent with a leader's message or with an acknowledgement. `None` for a leader's message if this node no
    /// longer leads its term: its log may have been truncated since.
    pub(super) fn claim_with(&mut self, message: &Message) -> Option<Claim> {
        if message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject {
            let before = self.log().known_at(LogIndex(message.index)).as_ref().map(Checkpoint::from);
            return before.map(|before| Claim { before: Some(before), ..Claim::default() });
        }
        let heartbeat = message.get_msg_type() == MessageType::MsgHeartbeat;
        let of_leader = heartbeat || message.get_msg_type() == MessageType::MsgAppend;
        if !of_leader || !self.group.leads() || message.term != self.group.term().0 {
            return None;
        }
        let unreadable = self.group.unreadable_for(NodeId(message.to));
        let (checkpoints, before) = if heartbeat {
            (self.claimed_checkpoints(), None)
        } else {
            let before = self.log().known_at(LogIndex(message.index)).filter(|at| at.term.0 == message.log_term);
            (Vec::new(), before.as_ref().map(Checkpoint::from))
        };
        Some(Claim { last_index: self.group.last_index(), checkpoints, unreadable, before })
    }

    /// The newest committed checkpoint, and the end of the log if it is committed; periodically all checkpoints, to narrow down
    /// a difference. The period is a prime number of heartbeats, so that every peer receives all of them at some time.
    fn claimed_checkpoints(&mut self) -> Vec<Checkpoint> {
        const ALL_AFTER_HEARTBEATS: u64 = 61;
        self.comparing.heartbeats += 1;
        let committed = self.group.commit_index();
        let log = self.log();
        let known = log.checkpoints();
        let known = &known[..known.partition_point(|at| at.index <= committed)];
        let all = self.comparing.heartbeats.is_multiple_of(ALL_AFTER_HEARTBEATS);
        let first = if all { 0 } else { known.len().saturating_sub(1) };
        let last = log.last();
        let end =
            Some(&last).filter(|last| last.index <= committed && known.last().is_none_or(|at| at.index < last.index));
        known[first..].iter().chain(end).map(Checkpoint::from).collect()
    }

    /// Compares the committed log with a leader's checkpoints.
    pub(super) fn compare(&mut self, leader: NodeId, claim: &Claim) {
        self.group.set_stalled(claim.unreadable.map(|index| (leader, index)));
        let committed = self.group.commit_index();
        let mut news = false;
        for theirs in claim.checkpoints.iter().filter(|at| at.index <= committed) {
            // The log may still hold what raft has cut off since the last Ready.
            if let Some(ours) = self.end_at(theirs.index).filter(|ours| self.group.holds(ours.index, ours.term)) {
                news |= self.comparing.comparison.take(leader, *theirs, ours.digest);
            }
        }
        if let Some(end) = claim.checkpoints.last().filter(|end| end.index <= committed) {
            self.want_digest(end.index);
        }
        if news {
            self.tell_difference();
        }
    }

    /// The end of this node's log as of an entry, if its digest is known.
    fn end_at(&mut self, index: LogIndex) -> Option<Base> {
        self.comparing.lookup.take_found();
        self.log().known_at(index).or_else(|| self.comparing.lookup.found.filter(|found| found.0 == index)?.1)
    }

    /// Has the digest at a committed entry read from the disk, if it is not known. The leader sends its own there again.
    fn want_digest(&mut self, index: LogIndex) {
        let known = self.end_at(index).is_some() || self.comparing.lookup.found.is_some_and(|found| found.0 == index);
        if index <= self.group.commit_index() && !known {
            self.comparing.lookup.wanted = Some(index);
        }
    }

    pub(super) fn look_up_digest(&mut self, sinks: &Sinks) {
        let Some(index) = self.comparing.lookup.wanted.take().filter(|_| !self.comparing.lookup.running) else {
            return;
        };
        let near = self.log().checkpoint_before(index);
        let (reader, done) = (self.reader.clone(), self.comparing.lookup.done.0.clone());
        let job = Box::new(move || {
            // Nobody waits for it if the replica is dropped.
            done.send((index, reader.end_at(index, near).ok())).ok();
        });
        self.comparing.lookup.running = sinks.readers.run_own(job).is_ok();
    }

    /// True if the replica was suspect, and is known to be equal to the leader's, or to those of a majority.
    pub(super) fn is_proven_equal(&self) -> bool {
        // The entry by which it differed may never have been committed, and may be cut off by now.
        let (equal, commit) = (self.comparing.comparison.equal.0, self.group.commit_index());
        self.group.suspect().is_some_and(|index| equal >= index.min(commit) || self.group.leads_a_majority())
    }
}
