//! Compares this replica with its leader's by digests: creates the claims that are sent, compares received claims,
//! and stores a difference.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Mutex, MutexGuard};
use raft::eraftpb::{Message, MessageType};

use crate::consensus::claim::{Checkpoint, Claim};
use crate::consensus::compare::{Compared, Comparison};
use crate::consensus::group::Group;
use crate::consensus::sinks::Sinks;
use crate::storage::log::{Base, GroupLog};
use crate::storage::reader::GroupReader;
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};

/// The comparison of one replica with its leader's.
pub struct Comparing {
    id: GroupId,
    log: Arc<Mutex<GroupLog>>,
    reader: GroupReader,
    comparison: Comparison,
    /// Ends of leaders' logs at entries that raft has, but that are not written yet. They are compared after the next
    /// write.
    unwritten: Vec<(NodeId, Base)>,
    /// True once the difference was stored, or is being stored, in the manifest.
    difference_stored: bool,
    heartbeats: u64,
    lookup: Lookup,
}

/// The lookup of a digest that is not in memory: the digest at an older entry that is not a checkpoint. A reader
/// thread computes it.
struct Lookup {
    wanted: Option<LogIndex>,
    running: bool,
    /// The result of the last lookup. Its second part is `None` if the entry can't be read.
    found: Option<Found>,
    done: (Sender<Found>, Receiver<Found>),
}

type Found = (LogIndex, Option<Base>);

impl Default for Lookup {
    fn default() -> Lookup {
        // One lookup runs at a time. The next one starts after the result was received.
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

impl Comparing {
    /// Creates the state before the first comparison.
    pub fn new(id: GroupId, log: Arc<Mutex<GroupLog>>, reader: GroupReader) -> Comparing {
        Comparing {
            id,
            log,
            reader,
            comparison: Comparison::default(),
            unwritten: Vec::new(),
            difference_stored: false,
            heartbeats: 0,
            lookup: Lookup::default(),
        }
    }

    fn log(&self) -> MutexGuard<'_, GroupLog> {
        self.log.lock()
    }

    /// Stores that this replica differs. After a restart it will serve no record until it is compared again.
    pub fn store_difference(&mut self, group: &Group, sinks: &Sinks) {
        if !std::mem::replace(&mut self.difference_stored, true) && self.id != GroupId::CATALOG {
            let found = self.comparison.difference.map_or(LogIndex(0), |difference| difference.differs.0);
            self.log().set_differing(Some(found.max(group.commit_index())));
            sinks.writer.sync(self.id, 0);
        }
    }

    /// Stores that this replica equals the leader's again.
    pub fn clear_suspicion(&mut self, group: &mut Group, sinks: &Sinks) {
        log::info!("group {}: this replica is equal to the leader's again", self.id);
        group.clear_suspicion();
        self.log().set_differing(None);
        sinks.writer.sync(self.id, 0);
    }

    /// Compares this node's entries with the entries that a leader's append contains or follows, or with its snapshot.
    pub fn compare_entries(&mut self, group: &mut Group, message: &Message, before: Option<&Checkpoint>) -> Compared {
        let Some(theirs) = group.leader_end(message, before) else { return Compared::Unknown };
        let leader = group.node_of(ReplicaId(message.from));
        if !group.is_stored(theirs.index) {
            self.unwritten.push((leader, theirs));
            return Compared::Equal;
        }
        let ours = self.end_at(theirs.index);
        self.compare_ends(group, leader, &theirs, ours)
    }

    fn compare_ends(&mut self, group: &mut Group, leader: NodeId, theirs: &Base, ours: Option<Base>) -> Compared {
        let Some(ours) = ours.filter(|ours| ours.term == theirs.term) else { return Compared::Unknown };
        if self.comparison.compare(leader, Checkpoint::from(theirs), ours.digest) {
            self.report_difference(group);
        }
        Compared::Equal
    }

    /// Compares the entries that could not be compared before they were written. Returns false if this replica differs.
    pub fn compare_written(&mut self, group: &mut Group) -> bool {
        for (leader, theirs) in std::mem::take(&mut self.unwritten) {
            // If the entry was replaced meanwhile, the message that replaced it is compared by its own digest.
            let ours = self.log().known_at(theirs.index);
            self.compare_ends(group, leader, &theirs, ours);
        }
        !group.differs()
    }

    fn report_difference(&self, group: &mut Group) {
        if let Some(difference) = self.comparison.difference {
            group.set_differing(difference.to_string());
        }
    }

    /// Returns the claim to send with a leader's message or an acknowledgement. `None` for a leader's message if this
    /// node no longer leads the message's term, because its log may have been truncated.
    pub fn claim_with(&mut self, group: &Group, message: &Message) -> Option<Claim> {
        if message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject {
            let before = self.log().known_at(LogIndex(message.index)).as_ref().map(Checkpoint::from);
            return before.map(|before| Claim { before: Some(before), ..Claim::default() });
        }
        let heartbeat = message.get_msg_type() == MessageType::MsgHeartbeat;
        let of_leader = heartbeat || message.get_msg_type() == MessageType::MsgAppend;
        if !of_leader || !group.leads() || message.term != group.term().0 {
            return None;
        }
        let unreadable = group.unreadable_for(ReplicaId(message.to));
        let (checkpoints, before) = if heartbeat {
            (self.claimed_checkpoints(group), None)
        } else {
            let before = self.log().known_at(LogIndex(message.index)).filter(|at| at.term.0 == message.log_term);
            (Vec::new(), before.as_ref().map(Checkpoint::from))
        };
        Some(Claim { last_index: group.last_index(), checkpoints, unreadable, before })
    }

    /// Returns the newest committed checkpoint, and the end of the log if it is committed. Every 61st time, returns
    /// all checkpoints, to narrow down a difference. This function is called for each peer in turn, so the period is
    /// a prime number: each peer gets its share of the complete lists.
    fn claimed_checkpoints(&mut self, group: &Group) -> Vec<Checkpoint> {
        const ALL_AFTER_HEARTBEATS: u64 = 61;
        self.heartbeats += 1;
        let committed = group.commit_index();
        let log = self.log();
        let known = log.checkpoints();
        let known = &known[..known.partition_point(|at| at.index <= committed)];
        let all = self.heartbeats.is_multiple_of(ALL_AFTER_HEARTBEATS);
        let first = if all { 0 } else { known.len().saturating_sub(1) };
        let last = log.last();
        let end =
            Some(&last).filter(|last| last.index <= committed && known.last().is_none_or(|at| at.index < last.index));
        known[first..].iter().chain(end).map(Checkpoint::from).collect()
    }

    /// Compares the committed log with a leader's checkpoints.
    pub fn compare(&mut self, group: &mut Group, leader: ReplicaId, claim: &Claim) {
        group.set_stalled(claim.unreadable.map(|index| (leader, index)));
        let (committed, leader) = (group.commit_index(), group.node_of(leader));
        let mut news = false;
        for theirs in claim.checkpoints.iter().filter(|at| at.index <= committed) {
            // The stored log may still contain entries that raft has truncated since the last Ready.
            if let Some(ours) = self.end_at(theirs.index).filter(|ours| group.has_entry(ours.index, ours.term)) {
                news |= self.comparison.compare(leader, *theirs, ours.digest);
            }
        }
        if let Some(end) = claim.checkpoints.last().filter(|end| end.index <= committed) {
            self.want_digest(group, end.index);
        }
        if news {
            self.report_difference(group);
        }
    }

    /// Returns the end of this node's log as of an entry, if its digest is known.
    fn end_at(&mut self, index: LogIndex) -> Option<Base> {
        self.lookup.take_found();
        self.log().known_at(index).or_else(|| self.lookup.found.filter(|found| found.0 == index)?.1)
    }

    /// Requests the lookup of the digest at a committed entry, if it is unknown. The result is used when the leader
    /// sends its digest at this entry again.
    fn want_digest(&mut self, group: &Group, index: LogIndex) {
        let known = self.end_at(index).is_some() || self.lookup.found.is_some_and(|found| found.0 == index);
        if index <= group.commit_index() && !known {
            self.lookup.wanted = Some(index);
        }
    }

    /// Starts the requested lookup, if none is running.
    pub fn look_up_digest(&mut self, sinks: &Sinks) {
        let Some(index) = self.lookup.wanted.take().filter(|_| !self.lookup.running) else {
            return;
        };
        let near = self.log().checkpoint_before(index);
        let (reader, done) = (self.reader.clone(), self.lookup.done.0.clone());
        let job = Box::new(move || {
            // The send fails if the replica was dropped meanwhile.
            done.send((index, reader.end_at(index, near).ok())).ok();
        });
        self.lookup.running = sinks.readers.run_own(job).is_ok();
    }

    /// Returns true if the replica was suspect, and is now known to equal the leader's replica or those of a majority.
    pub fn is_proven_equal(&self, group: &Group) -> bool {
        // The entry at which it differed may not have been committed, and may have been truncated since.
        let (equal, commit) = (self.comparison.equal.0, group.commit_index());
        group.suspect().is_some_and(|index| equal >= index.min(commit) || group.leads_a_majority())
    }
}
