//! Comparison of a follower's log with what its leader says of the leader's log.
//!
//! raft compares the term of one entry with each append, and trusts that all earlier entries are equal. They are not if a
//! disk has lost or changed synced data. A follower that continues then acknowledges entries that it never compared, and
//! two nodes return different records for the same offset. So this is checked before raft sees a leader's message:
//!
//! - the entries of an append that are committed here must have the same terms, and so must the one before them, or the one that
//!   a snapshot is of;
//! - a leader has every entry that was committed in earlier terms, so its log must not end before the last such entry here;
//! - the running digests at the same committed index must be equal ([`crate::storage::digest`]);
//! - an append comes with the leader's digest at the entry that it follows. That digest, continued over the entries of the append
//!   that are already here, must be equal to the digest here: two entries with the same index and term may differ if a node
//!   whose disk was restored leads the same term twice. Without this proof only what is committed at the leader is acknowledged.
//!
//! Messages arrive late, twice, and several of them between two Readies. So what raft has taken is compared, not what the store
//! contains of it. A digest of an entry that is not in the store yet is compared after the write, before any acknowledgement of it.
//!
//! A replica that differs is damaged and takes no part, and its status names where it begins to differ. This node cannot
//! tell which of the two is right; a majority that agrees continues.

use raft::eraftpb::{Message, MessageType};

use super::group::{ELECTION_TICKS, Group};
use super::wire;
use crate::storage::digest::Digest;
use crate::storage::log::Base;
use crate::types::{LogIndex, NodeId, Offset, Term};

/// The offset and the running digest of a leader's log at a committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The index of the entry.
    pub index: LogIndex,
    /// The next offset after it.
    pub offset: Offset,
    /// The running digest up to and including it.
    pub digest: Digest,
}

impl From<&Base> for Checkpoint {
    fn from(at: &Base) -> Checkpoint {
        Checkpoint { index: at.index, offset: at.offset, digest: at.digest }
    }
}

/// What a node says of its log in addition to raft's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The last index of its log when the message was created, or a later one.
    pub last_index: LogIndex,
    /// Of committed entries, ascending. Only with heartbeats.
    pub checkpoints: Vec<Checkpoint>,
    /// The first entry that the follower lacks and the leader can't read from its disk.
    pub unreadable: Option<LogIndex>,
    /// Of the entry that an append follows, committed or not. A follower sends it with an acknowledgement, of the last entry that it
    /// acknowledges.
    pub before: Option<Checkpoint>,
}

/// The range of a log in which two replicas begin to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The node that this one was compared with.
    pub with: NodeId,
    /// The last entry that is known to be equal, and the next offset after it.
    pub equal: (LogIndex, Offset),
    /// The first entry by which they are known to differ, and the next offset after it.
    pub differs: (LogIndex, Offset),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (with, first, last) = (self.with, self.equal.0.next(), self.differs.0);
        write!(f, "this replica differs from that of node {with}: ")?;
        if self.differs.1 > self.equal.1 {
            write!(f, "the first difference is among records {} to {} ", self.equal.1, self.differs.1.0 - 1)?;
        }
        write!(f, "(entries {first} to {last})")
    }
}

/// The result of the comparisons with leaders so far.
#[derive(Debug, Default)]
pub struct Comparison {
    /// The last entry that was found to be equal, and the next offset after it.
    pub equal: (LogIndex, Offset),
    /// Where the replicas differ, once they are known to.
    pub difference: Option<Difference>,
}

impl Comparison {
    /// Compares one checkpoint of a leader with this node's digest at the same entry. True if this reveals a
    /// difference, or narrows a known one.
    pub fn take(&mut self, leader: NodeId, theirs: Checkpoint, ours: Digest) -> bool {
        let at = (theirs.index, theirs.offset);
        let equal = theirs.digest == ours;
        match &mut self.difference {
            None if equal => {
                self.equal = self.equal.max(at);
                false
            }
            None => {
                let equal = if self.equal < at { self.equal } else { Default::default() };
                self.difference = Some(Difference { with: leader, equal, differs: at });
                true
            }
            Some(known) if known.with != leader => false,
            Some(known) => {
                let before = *known;
                if equal && at < known.differs {
                    known.equal = known.equal.max(at);
                } else if !equal && at > known.equal {
                    known.differs = known.differs.min(at);
                }
                *known != before
            }
        }
    }
}

/// What a leader's message proves about the entries that are already here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Up to the last one that the message contains or follows, they are the leader's.
    Equal,
    /// Nothing: a digest is missing here or there.
    Unknown,
}

impl Group {
    /// True if replicas are compared.
    pub fn compares(&self) -> bool {
        self.config.rules.compare_with_leader
    }

    /// True if this replica is known to differ from another one.
    pub fn differs(&self) -> bool {
        self.differs
    }

    /// Stops taking part, because another replica has other entries below the commit index. No record may be served any more.
    pub fn set_differing(&mut self, what: String) {
        if std::mem::replace(&mut self.differs, true) {
            // The range in which the difference begins has become smaller.
            log::info!("group {}: {what}", self.config.id);
            self.damage = Some(what);
        } else {
            self.set_damaged(what);
        }
    }

    /// The replica differed from a leader's at this entry or an earlier one when it was last compared, before the last restart,
    /// and has not been compared there since. It takes part, but no record may be served.
    pub fn suspect(&self) -> Option<LogIndex> {
        self.suspect
    }

    /// The replica is equal to the leader's, or to those of a majority, at the entry that was suspect.
    pub fn clear_suspicion(&mut self) {
        self.suspect = None;
    }

    /// True if this node leads and a majority has acknowledged an entry of its term: their replicas are equal to this one.
    pub fn leads_a_majority(&self) -> bool {
        self.leads() && self.node.raft.commit_to_current_term()
    }

    /// What the status says of a suspect replica.
    pub(super) fn suspicion(&self) -> Option<String> {
        let index = self.suspect?;
        Some(format!(
            "this replica differed from the leader's at entry {index} or before when it was last compared: no record is served until \
             it is compared again"
        ))
    }

    /// True for a message that only a leader sends, from another node than the leader of its term. A term has one leader; raft would
    /// follow whoever says so. A leader that has been silent for the longest election timeout is not protected: a learner never
    /// campaigns, so nothing else would make it forget a wrong one.
    pub(super) fn leads_another(&self, message: &Message) -> bool {
        let from_leader = match message.get_msg_type() {
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => true,
            // Also if no leader is known: it would make this node campaign.
            MessageType::MsgTimeoutNow => return self.leader() != Some(NodeId(message.from)),
            _ => false,
        };
        from_leader
            && message.term == self.node.raft.term
            && self.node.raft.election_elapsed < 2 * ELECTION_TICKS
            && self.leader().is_some_and(|leader| leader.0 != message.from)
    }

    /// How a leader's message contradicts what is committed here, if it does. `claimed_last` is the leader's last index.
    pub(super) fn contradiction(&self, message: &Message, claimed_last: Option<LogIndex>) -> Option<String> {
        let from_leader = matches!(
            message.get_msg_type(),
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        if !from_leader || message.term < self.node.raft.term {
            return None;
        }
        let lost = || self.lost_acknowledged(message);
        let missing = || self.missing_at_leader(message, claimed_last);
        lost().or_else(missing).or_else(|| self.other_term(message))
    }

    /// A leader's heartbeat never contains a commit index beyond what this node has acknowledged: entries were lost here.
    fn lost_acknowledged(&self, message: &Message) -> Option<String> {
        let (leader, commit, last_index) = (NodeId(message.from), message.commit, self.last_index());
        let lost = message.get_msg_type() == MessageType::MsgHeartbeat && commit > last_index.0;
        lost.then(|| {
            format!(
                "the leader, node {leader}, says that entry {commit} was acknowledged here, but the last index is {last_index}"
            )
        })
    }

    /// A leader has every entry that was committed in an earlier term. (An old message may claim less of its own term.)
    fn missing_at_leader(&self, message: &Message, claimed_last: Option<LogIndex>) -> Option<String> {
        let earlier = self.last_before_term(Term(message.term)).min(self.commit_index());
        let last = claimed_last.filter(|last| *last < earlier)?;
        Some(format!(
            "this replica differs from that of node {}, the leader: entry {earlier} is committed here, but the leader's log \
             ends with entry {last}",
            NodeId(message.from)
        ))
    }

    /// An entry that is committed here has the same term at every leader.
    fn other_term(&self, message: &Message) -> Option<String> {
        let log = &self.node.raft.raft_log;
        let snapshot = message.get_snapshot().get_metadata();
        let before = match message.get_msg_type() {
            MessageType::MsgAppend => (message.index, message.log_term),
            MessageType::MsgSnapshot => (snapshot.index, snapshot.term),
            _ => return None,
        };
        let entries = message.entries.iter().map(|e| (e.index, e.term));
        let here = std::iter::once(before).chain(entries).take_while(|(index, _)| *index <= log.committed);
        // Of what is before its first entry raft knows no term, and says 0. It begins behind a snapshot as soon as it has taken one.
        let base = log.first_index() - 1;
        here.into_iter().find_map(|(index, term)| {
            let ours = log.term(index).ok().filter(|ours| *ours != term && index >= base)?;
            Some(format!(
                "this replica differs from that of node {}, the leader: entry {index} is committed here with term {ours}, but \
                 has term {term} there",
                NodeId(message.from)
            ))
        })
    }

    /// The end of the leader's log as of the last entry of an append that raft already has here (same index and term), or of the
    /// one that the append follows; of a snapshot, as of its last entry. raft keeps its own entries then, so the leader's digest
    /// must be equal to the digest here. `None` if raft does not have the entry that the message follows, or the leader did not
    /// send its digest.
    pub(super) fn leader_end(&self, message: &Message, before: Option<&Checkpoint>) -> Option<Base> {
        let start = match message.get_msg_type() {
            MessageType::MsgAppend => {
                let before = before.filter(|before| before.index.0 == message.index)?;
                let term = Term(message.log_term);
                Base { index: before.index, term, offset: before.offset, digest: before.digest }
            }
            MessageType::MsgSnapshot => wire::snapshot_from_raft(message.get_snapshot()).ok()?.base,
            _ => return None,
        };
        let mut end = Some(start).filter(|start| self.holds(start.index, start.term))?;
        for entry in message.entries.iter().take_while(|e| self.holds(LogIndex(e.index), Term(e.term))) {
            end = end.then(&wire::entry_to_storage(entry, end.offset)).ok()?;
        }
        Some(end)
    }

    /// True if the store has this entry as raft has it, and no write of it is due.
    pub(super) fn is_stored(&self, index: LogIndex) -> bool {
        let unstable = &self.node.raft.raft_log.unstable;
        index.0 < unstable.offset && unstable.snapshot.is_none()
    }

    /// The last entry of a term before this one in raft's log. What raft has taken reaches the store with the next Ready. Until
    /// then the store may contain entries that are cut off, and lack those that replace them.
    fn last_before_term(&self, term: Term) -> LogIndex {
        let log = &self.node.raft.raft_log;
        let new = log.unstable_entries();
        if let Some(last) = new.partition_point(|e| e.term < term.0).checked_sub(1) {
            return LogIndex(new[last].index);
        }
        match log.unstable_snapshot().as_ref().map(|snapshot| snapshot.get_metadata()) {
            Some(snapshot) if snapshot.term < term.0 => LogIndex(snapshot.index),
            // Nothing is known of the entries before it.
            Some(_) => LogIndex(0),
            None => self.node.store().last_before_term(term).min(LogIndex(log.unstable.offset.saturating_sub(1))),
        }
    }

    /// True if raft's log has an entry of this term at `index`. Then all entries before it are those that the store contains.
    pub fn holds(&self, index: LogIndex, term: Term) -> bool {
        let log = &self.node.raft.raft_log;
        index.0 + 1 >= log.first_index() && log.term(index.0).is_ok_and(|of| of == term.0)
    }

    /// Steps a message that contradicts nothing here. For an append or a snapshot that begins before the commit index, raft
    /// acknowledges everything up to the commit index, compared or not. This acknowledges only what the message itself proves to
    /// be the same. If it proves nothing, only what is committed at the leader: that needs no more acknowledgements.
    pub(super) fn step_compared(&mut self, message: Message, compared: Compared) {
        let end = match message.get_msg_type() {
            MessageType::MsgSnapshot => message.get_snapshot().get_metadata().index,
            _ => message.index.saturating_add(message.entries.len() as u64),
        };
        let compared = match compared {
            Compared::Unknown if message.get_msg_type() == MessageType::MsgAppend => end.min(message.commit),
            Compared::Unknown | Compared::Equal => end,
        };
        let shows = matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgSnapshot);
        let caps = shows && self.config.rules.acknowledge_compared_only;
        let said = self.node.raft.msgs.len();
        if let Err(error) = self.node.step(message) {
            log::debug!("group {}: raft ignored a message: {error}", self.config.id);
        }
        let new = self.node.raft.msgs.get_mut(said..).unwrap_or_default();
        for answer in new.iter_mut().filter(|m| caps && m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject)
        {
            answer.index = answer.index.min(compared);
        }
    }

    /// True for an acknowledgement of entries that this leader does not have. Counting it would commit entries that are on no
    /// other disk.
    pub(super) fn acknowledges_too_much(&self, message: &Message) -> bool {
        message.get_msg_type() == MessageType::MsgAppendResponse
            && !message.reject
            && self.is_leader()
            && message.term == self.node.raft.term
            && message.index > self.node.raft.raft_log.last_index()
    }

    /// True for an acknowledgement of entries that are others here, as their digest says: a leader whose disk was restored may lead
    /// the same term again while it is on its way. `digest_at` returns the digest here.
    pub(super) fn acknowledges_others(
        &self,
        message: &Message,
        claim: Option<&Claim>,
        digest_at: impl FnOnce(LogIndex) -> Option<Digest>,
    ) -> bool {
        let acknowledges = message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject;
        let counts = acknowledges
            && self.config.rules.count_compared_only
            && self.is_leader()
            && message.term == self.node.raft.term;
        let theirs = claim.and_then(|claim| claim.before).filter(|at| counts && at.index.0 == message.index);
        theirs.is_some_and(|theirs| digest_at(theirs.index).is_some_and(|ours| ours != theirs.digest))
    }

    /// The commit index, as far as this node knows.
    pub fn commit_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// The last index, stored or not.
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// The newest term that this node knows of.
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, digest: u64) -> Checkpoint {
        Checkpoint { index: LogIndex(index), offset: Offset(10 * index), digest: Digest(digest) }
    }

    #[test]
    fn narrows_a_difference_down() {
        let mut comparison = Comparison::default();
        let leader = NodeId(1);
        assert!(!comparison.take(leader, at(10, 1), Digest(1)) && comparison.difference.is_none());
        assert!(comparison.take(leader, at(90, 2), Digest(3)));
        assert!(comparison.take(leader, at(50, 2), Digest(3)));
        assert!(comparison.take(leader, at(40, 2), Digest(2)));
        assert!(!comparison.take(leader, at(20, 2), Digest(2)), "known");
        assert!(
            !comparison.take(NodeId(2), at(45, 2), Digest(2)),
            "another node's replica proves nothing about this one"
        );
        let found = comparison.difference.expect("they differ");
        assert_eq!((found.equal.0, found.differs.0), (LogIndex(40), LogIndex(50)));
        assert_eq!(
            found.to_string(),
            "this replica differs from that of node 0000000000000001: the first difference is among records 400 to 499 \
             (entries 41 to 50)"
        );
    }
}
