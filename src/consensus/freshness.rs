//! Whether a leader may add replicas to its group: its node's catalog must be at least as new as its election.
//!
//! An earlier leader of the group may have removed a replica that the catalog of this node still lists, and the replica's
//! node may have dropped it since. If this leader added it again, a majority could depend on entries that are dropped a
//! moment later. A replica is removed only after the catalog lists it as leaving. So a catalog that includes everything
//! that was committed when this leader was elected lists no replica that an earlier leader has removed.

use std::collections::BTreeMap;

use futures::FutureExt as _;

use super::handle::ReadIndexError;
use crate::reply::ReplyReceiver;
use crate::types::{GroupId, LogIndex, NodeId, Term};

/// The answer of the catalog's leader: the index that this node must have applied.
pub type CatalogIndex = ReplyReceiver<Result<LogIndex, ReadIndexError>>;

enum Step {
    /// This node was asked as the catalog's leader.
    Asked(NodeId, CatalogIndex),
    Known(LogIndex),
}

/// What is known about the catalog since the last election of each group that this node leads.
#[derive(Default)]
pub struct Freshness(BTreeMap<GroupId, (Term, Step)>);

impl Freshness {
    /// Returns true if this node's catalog, applied up to `applied`, includes what was committed before the leader of the
    /// group was elected in this term. Otherwise asks the catalog's leader for its index. Called again on later ticks. The
    /// answer of a leader that was replaced is not awaited: its node may be cut off, so that it takes as long as the
    /// connection.
    pub fn is_fresh(
        &mut self,
        group: GroupId,
        term: Term,
        applied: LogIndex,
        leader: Option<NodeId>,
        ask: impl FnOnce(NodeId) -> CatalogIndex,
    ) -> bool {
        if let Some((known, step)) = self.0.get_mut(&group)
            && *known == term
        {
            if let Step::Asked(asked, answer) = step {
                match answer.now_or_never() {
                    None if leader.is_none_or(|leader| leader == *asked) => return false,
                    Some(Ok(Ok(index))) => *step = Step::Known(index),
                    None | Some(Ok(Err(_)) | Err(_)) => _ = self.0.remove(&group),
                }
            }
            if let Some((_, Step::Known(index))) = self.0.get(&group) {
                return *index <= applied;
            }
        }
        if let Some(leader) = leader {
            self.0.insert(group, (term, Step::Asked(leader, ask(leader))));
        }
        false
    }

    /// Forgets a group that this node no longer has a replica of.
    pub fn forget(&mut self, group: GroupId) {
        self.0.remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::reply;

    #[test]
    fn a_leader_asks_once_in_each_term_and_waits_until_the_index_is_applied() {
        let mut freshness = Freshness::default();
        let (group, mut asked) = (GroupId(1), Vec::new());
        let mut is_fresh = |term: u64, applied: u64, asked: &mut Vec<_>| {
            freshness.is_fresh(group, Term(term), LogIndex(applied), Some(NodeId(1)), |_| {
                let (sender, answer) = reply();
                asked.push(sender);
                answer
            })
        };
        assert!(!is_fresh(3, 10, &mut asked) && !is_fresh(3, 10, &mut asked));
        assert_eq!(asked.len(), 1, "the answer is awaited");
        asked.remove(0).send(Ok(LogIndex(12)));
        assert!(!is_fresh(3, 11, &mut asked));
        assert!(is_fresh(3, 12, &mut asked) && is_fresh(3, 13, &mut asked));
        assert!(!is_fresh(5, 13, &mut asked), "another term begins anew");
        asked.remove(0).send(Err(ReadIndexError::Unconfirmed));
        assert!(!is_fresh(5, 13, &mut asked));
        drop(asked.remove(0));
        assert!(!is_fresh(5, 13, &mut asked));
        asked.remove(0).send(Ok(LogIndex(13)));
        assert!(is_fresh(5, 13, &mut asked));
        assert!(
            !Freshness::default().is_fresh(group, Term(1), LogIndex(9), None, |_| reply().1),
            "no leader of the catalog is known"
        );
    }

    /// A log got no new replica until the connection to a former leader of the catalog ended, whose host was cut off.
    #[test]
    fn a_new_leader_of_the_catalog_is_asked_at_once() {
        let mut freshness = Freshness::default();
        let mut asked = Vec::new();
        let mut is_fresh = |leader: Option<u64>, asked: &mut Vec<_>| {
            freshness.is_fresh(GroupId(1), Term(3), LogIndex(10), leader.map(NodeId), |leader| {
                let (sender, answer) = reply();
                asked.push((leader, sender));
                answer
            })
        };
        assert!(!is_fresh(Some(1), &mut asked) && !is_fresh(None, &mut asked) && !is_fresh(Some(1), &mut asked));
        assert_eq!(asked.len(), 1);
        assert!(!is_fresh(Some(2), &mut asked) && !is_fresh(Some(2), &mut asked));
        let (leader, sender) = asked.pop().expect("asked");
        assert_eq!((leader, asked.len()), (NodeId(2), 1));
        sender.send(Ok(LogIndex(9)));
        assert!(is_fresh(Some(2), &mut asked));
    }
}
