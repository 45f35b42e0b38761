//! Replicas compared: what a leader says of its log, and what a follower finds in its own.
//!
//! raft compares the term of one entry with each append, and trusts that everything before it is the same. It is not when a
//! disk has lost or changed what was synced. A follower that goes on then acknowledges entries that it never compared, and
//! two nodes answer differently for the same offset. So, before raft sees a leader's message:
//!
//! - entries of an append that are here with the same term must be the same ones, where they are in memory;
//! - the entries of an append that are committed here must have the same terms, and so must the one before them, or the one that
//!   a marker is of;
//! - a leader has every entry that was committed in earlier terms, so its log must not end before the last such entry here;
//! - the running digests at the same committed index must be equal ([`crate::storage::digest`]).
//!
//! Messages come late, twice, and several between two Readies: what raft has taken is compared, and not what the store has of it.
//!
//! A replica that differs is damaged and takes no part, and its status names where it begins to differ. Which of the two is
//! right, this node cannot tell; a majority that agrees goes on.

use raft::eraftpb::{Entry, Message, MessageType};

use super::apply::is_conf_change;
use super::group::Group;
use crate::storage::digest::Digest;
use crate::storage::log::Base;
use crate::types::{LogIndex, NodeId, Offset, Term};

/// Where a leader's log stands at a committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The entry.
    pub index: LogIndex,
    /// The offset after it.
    pub offset: Offset,
    /// The running digest up to and including it.
    pub digest: Digest,
}

impl From<&Base> for Checkpoint {
    fn from(at: &Base) -> Checkpoint {
        Checkpoint { index: at.index, offset: at.offset, digest: at.digest }
    }
}

/// What a leader says of its log beside raft's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its last entry when the message was made, or a later one.
    pub last_index: LogIndex,
    /// Of committed entries, ascending. Only with heartbeats.
    pub checkpoints: Vec<Checkpoint>,
    /// The first entry that the follower lacks and the leader can't read from its disk.
    pub unreadable: Option<LogIndex>,
}

/// The part of a log within which two replicas begin to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The node that this one was compared with.
    pub with: NodeId,
    /// The last entry that is known to be equal, and the offset after it.
    pub equal: (LogIndex, Offset),
    /// The first one by which they are known to differ, and the offset after it.
    pub differs: (LogIndex, Offset),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (with, first, last) = (self.with, self.equal.0.next(), self.differs.0);
        write!(f, "this replica differs from the one of node {with}: ")?;
        if self.differs.1 > self.equal.1 {
            write!(f, "the first difference is among records {} to {} ", self.equal.1, self.differs.1.0 - 1)?;
        }
        write!(f, "(entries {first} to {last})")
    }
}

/// What comparing with leaders has shown so far.
#[derive(Debug, Default)]
pub struct Comparison {
    equal: (LogIndex, Offset),
    /// Where the replicas differ, once they are known to.
    pub difference: Option<Difference>,
}

impl Comparison {
    /// Takes one checkpoint of a leader and this node's digest at the same committed entry. True when this tells more of a
    /// difference than was known.
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
    /// What of a leader's message cannot be, given what is committed here. `claimed_last` is the leader's last entry.
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
                "node {leader}, the leader, says that entry {commit} was acknowledged here, the last one is {last_index}"
            ));
        }
        // What was committed in an earlier term, every leader has. (Of its own term, an old message may know less.)
        let earlier = self.last_before_term(Term(message.term)).min(LogIndex(committed));
        if let Some(last) = claimed_last.filter(|last| *last < earlier) {
            return Some(format!(
                "this replica differs from the one of node {leader}, the leader: entry {earlier} is committed here, \
                 its log ends with entry {last}"
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
                "this replica differs from the one of node {leader}, the leader: entry {index} is committed here with \
                 term {ours}, there it has term {term}"
            ))
        })
    }

    /// An entry of an append that has the index and the term of one here, and is another one. A leader gives each index once in a
    /// term; one whose disk was put back may lead twice in one, as it and who voted for it then do not know the first time.
    fn other_content(&self, message: &Message) -> Option<u64> {
        let log = &self.node.raft.raft_log;
        let here = |index: u64| match index.checked_sub(log.unstable.offset) {
            Some(at) => log.unstable_entries().get(usize::try_from(at).ok()?),
            None => self.node.store().cached(LogIndex(index)),
        };
        // raft's own form of a conf change is only with who proposed it.
        let content = |e: &Entry| if is_conf_change(e) { e.context.clone() } else { e.data.clone() };
        let differs = |theirs: &&Entry| {
            here(theirs.index).is_some_and(|ours| ours.term == theirs.term && content(ours) != content(theirs))
        };
        message.entries.iter().take_while(|e| e.index <= log.last_index()).find(differs).map(|e| e.index)
    }

    /// The last entry of a term before this one, as raft has the log. What raft has taken reaches the store with the next Ready:
    /// until then the store may have entries that are cut off, and not those that stand in their place.
    fn last_before_term(&self, term: Term) -> LogIndex {
        let log = &self.node.raft.raft_log;
        let new = log.unstable_entries();
        if let Some(last) = new.partition_point(|e| e.term < term.0).checked_sub(1) {
            return LogIndex(new[last].index);
        }
        match log.unstable_snapshot().as_ref().map(|marker| marker.get_metadata()) {
            Some(marker) if marker.term < term.0 => LogIndex(marker.index),
            // What is before it, nobody here knows.
            Some(_) => LogIndex(0),
            None => self.node.store().last_before_term(term).min(LogIndex(log.unstable.offset.saturating_sub(1))),
        }
    }

    /// True if the entry at `index` is of this term, as raft has the log. If so, all before it are what they were when it was
    /// stored.
    pub fn holds(&self, index: LogIndex, term: Term) -> bool {
        let log = &self.node.raft.raft_log;
        index.0 + 1 >= log.first_index() && log.term(index.0).is_ok_and(|of| of == term.0)
    }

    /// Steps a message whose contradictions were looked for. raft acknowledges everything that is committed here when an append
    /// or a marker begins before it, compared or not; this acknowledges what the message itself shows to be the same.
    pub(super) fn step_compared(&mut self, message: Message) {
        let compared = match message.get_msg_type() {
            MessageType::MsgSnapshot => message.get_snapshot().get_metadata().index,
            _ => message.index.saturating_add(message.entries.len() as u64),
        };
        let shows = matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgSnapshot);
        let caps = shows && self.config.rules.acknowledge_compared_only;
        let said = self.node.raft.msgs.len();
        if let Err(error) = self.node.step(message) {
            log::debug!("group {}: a message was not taken: {error}", self.config.id);
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

    /// The last committed entry that this node knows of.
    pub fn commit_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// The last entry, stored or not.
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
        assert!(!comparison.take(NodeId(2), at(45, 2), Digest(2)), "another node's replica says nothing of this one's");
        let found = comparison.difference.expect("they differ");
        assert_eq!((found.equal.0, found.differs.0), (LogIndex(40), LogIndex(50)));
        assert_eq!(
            found.to_string(),
            "this replica differs from the one of node 0000000000000001: the first difference is among records 400 to 499 \
             (entries 41 to 50)"
        );
    }
}
