//! Comparison of a follower's log with what its leader says of the leader's log.
//!
//! raft compares the term of one entry with each append, and trusts that all earlier entries are equal. They are not if a
//! disk has lost or changed synced data. A follower that continues then acknowledges entries that it never compared, and
//! two nodes return different records for the same offset. So this is checked before raft sees a leader's message:
//!
//! - entries of an append that are here with the same term must be the same ones, where they are in memory;
//! - the entries of an append that are committed here must have the same terms, and so must the one before them, or the one that
//!   a marker is of;
//! - a leader has every entry that was committed in earlier terms, so its log must not end before the last such entry here;
//! - the running digests at the same committed index must be equal ([`crate::storage::digest`]).
//!
//! Messages arrive late, twice, and several of them between two Readies. So what raft has taken is compared, not what the store
//! contains of it.
//!
//! A replica that differs is damaged and takes no part, and its status names where it begins to differ. This node cannot
//! tell which of the two is right; a majority that agrees continues.

use raft::eraftpb::{Entry, Message, MessageType};

use super::apply::is_conf_change;
use super::group::Group;
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

/// What a leader says of its log in addition to raft's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The last index of its log when the message was created, or a later one.
    pub last_index: LogIndex,
    /// Of committed entries, ascending. Only with heartbeats.
    pub checkpoints: Vec<Checkpoint>,
    /// The first entry that the follower lacks and the leader can't read from its disk.
    pub unreadable: Option<LogIndex>,
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
    equal: (LogIndex, Offset),
    /// Where the replicas differ, once they are known to.
    pub difference: Option<Difference>,
}

impl Comparison {
    /// Compares one checkpoint of a leader with this node's digest at the same committed entry. True if this reveals a
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

impl Group {
    /// How a leader's message contradicts what is committed here, if it does. `claimed_last` is the leader's last index.
    pub(super) fn contradiction(&self, message: &Message, claimed_last: Option<LogIndex>) -> Option<String> {
        let from_leader = matches!(
            message.get_msg_type(),
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
        );
        if !from_leader || message.term < self.node.raft.term {
            return None;
        }
        let (leader, log) = (NodeId(message.from), &self.node.raft.raft_log);
        let (committed, last_index) = (log.committed, log.last_index());
        if message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > last_index {
            // A leader never sends a commit beyond what we acknowledged: entries were lost here.
            let commit = message.commit;
            return Some(format!(
                "the leader, node {leader}, says that entry {commit} was acknowledged here, but the last index is {last_index}"
            ));
        }
        // A leader has every entry that was committed in an earlier term. (An old message may claim less of its own term.)
        let earlier = self.last_before_term(Term(message.term)).min(LogIndex(committed));
        if let Some(last) = claimed_last.filter(|last| *last < earlier) {
            return Some(format!(
                "this replica differs from that of node {leader}, the leader: entry {earlier} is committed here, but \
                 the leader's log ends with entry {last}"
            ));
        }
        if let Some(index) = self.other_content(message) {
            return Some(format!(
                "this replica differs from the one of node {leader}, the leader: entry {index} is another one of the same \
                 term there"
            ));
        }
        let marker = message.get_snapshot().get_metadata();
        let before = match message.get_msg_type() {
            MessageType::MsgAppend => (message.index, message.log_term),
            MessageType::MsgSnapshot => (marker.index, marker.term),
            _ => return None,
        };
        let entries = message.entries.iter().map(|e| (e.index, e.term));
        let here = std::iter::once(before).chain(entries).take_while(|(index, _)| *index <= committed);
        // Of what is before its first entry raft knows no term, and says 0. It begins behind a marker as soon as it has taken one.
        let base = log.first_index() - 1;
        here.into_iter().find_map(|(index, term)| {
            let ours = log.term(index).ok().filter(|ours| *ours != term && index >= base)?;
            Some(format!(
                "this replica differs from that of node {leader}, the leader: entry {index} is committed here with term \
                 {ours}, but has term {term} there"
            ))
        })
    }

    /// The index of an entry of an append that has the index and the term of an entry here and other content. A leader assigns
    /// each index once in a term. A node whose disk was restored may lead twice in one term, as neither it nor its voters remember
    /// the first time.
    fn other_content(&self, message: &Message) -> Option<u64> {
        let log = &self.node.raft.raft_log;
        let here = |index: u64| match index.checked_sub(log.unstable.offset) {
            Some(at) => log.unstable_entries().get(usize::try_from(at).ok()?),
            None => self.node.store().cached(LogIndex(index)),
        };
        // Only the proposer has raft's own encoding of a conf change.
        let content = |e: &Entry| if is_conf_change(e) { e.context.clone() } else { e.data.clone() };
        let differs = |theirs: &&Entry| {
            here(theirs.index).is_some_and(|ours| ours.term == theirs.term && content(ours) != content(theirs))
        };
        message.entries.iter().take_while(|e| e.index <= log.last_index()).find(differs).map(|e| e.index)
    }

    /// The last entry of a term before this one in raft's log. What raft has taken reaches the store with the next Ready. Until
    /// then the store may contain entries that are cut off, and lack those that replace them.
    fn last_before_term(&self, term: Term) -> LogIndex {
        let log = &self.node.raft.raft_log;
        let new = log.unstable_entries();
        if let Some(last) = new.partition_point(|e| e.term < term.0).checked_sub(1) {
            return LogIndex(new[last].index);
        }
        match log.unstable_snapshot().as_ref().map(|marker| marker.get_metadata()) {
            Some(marker) if marker.term < term.0 => LogIndex(marker.index),
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
    /// acknowledges everything up to the commit index, compared or not. This acknowledges only what the message itself shows to
    /// be the same.
    pub(super) fn step_compared(&mut self, message: Message) {
        let compared = match message.get_msg_type() {
            MessageType::MsgSnapshot => message.get_snapshot().get_metadata().index,
            _ => message.index.saturating_add(message.entries.len() as u64),
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
