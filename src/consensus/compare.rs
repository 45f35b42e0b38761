//! The result of comparing a replica with its leaders' replicas by digests. `group/checks.rs` explains why they are
//! compared.

use super::claim::Checkpoint;
use crate::storage::digest::Digest;
use crate::types::{LogIndex, NodeId, Offset};

/// The range of a log that contains the first difference between two replicas.
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
    /// Where the replicas differ; `None` until a difference is found.
    pub difference: Option<Difference>,
}

impl Comparison {
    /// Compares a leader's checkpoint with this node's digest at the same entry. Returns true if this reveals a
    /// difference, or narrows a known one down.
    pub fn compare(&mut self, leader: NodeId, theirs: Checkpoint, ours: Digest) -> bool {
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

/// What a leader's message proves about the entries that this node already has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// They equal the leader's, up to the last entry that the message contains or follows.
    Equal,
    /// Nothing: one of the two digests is missing.
    Unknown,
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
        assert!(!comparison.compare(leader, at(10, 1), Digest(1)) && comparison.difference.is_none());
        assert!(comparison.compare(leader, at(90, 2), Digest(3)));
        assert!(comparison.compare(leader, at(50, 2), Digest(3)));
        assert!(comparison.compare(leader, at(40, 2), Digest(2)));
        assert!(!comparison.compare(leader, at(20, 2), Digest(2)), "does not narrow the range");
        assert!(
            !comparison.compare(NodeId(2), at(45, 2), Digest(2)),
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
