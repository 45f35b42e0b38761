//! The leaders of groups of which this node has no replica. It has no status of such a group, so it remembers which
//! node has accepted a request, and uses the leader that a node names when it refuses one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::{GroupId, NodeId};

/// The maximum number of remembered leaders. When it is reached, all are forgotten: each is found again with one more
/// request.
const HINTS_MAX: usize = 32_768;

/// The leaders that this node has learned. One may be outdated: that node then refuses the request, and nothing is
/// appended. Clones share the map.
#[derive(Clone, Debug, Default)]
pub struct LeaderHints(Arc<Mutex<HashMap<GroupId, NodeId>>>);

impl LeaderHints {
    /// Returns the leader of a group, as far as this node has learned.
    pub fn get(&self, group: GroupId) -> Option<NodeId> {
        self.0.lock().get(&group).copied()
    }

    /// Remembers the leader of a group.
    pub fn learn(&self, group: GroupId, leader: NodeId) {
        let mut hints = self.0.lock();
        if hints.len() >= HINTS_MAX && !hints.contains_key(&group) {
            hints.clear();
        }
        hints.insert(group, leader);
    }

    /// Forgets that this node leads the group.
    pub fn forget(&self, group: GroupId, node: NodeId) {
        let mut hints = self.0.lock();
        if hints.get(&group) == Some(&node) {
            hints.remove(&group);
        }
    }
}

/// A search for the leader among the nodes that have replicas. Each node is asked at most once.
#[derive(Debug)]
pub struct LeaderSearch {
    next: VecDeque<NodeId>,
    asked: Vec<NodeId>,
}

impl LeaderSearch {
    /// Starts a search that asks the nodes in this order.
    pub fn new(nodes: Vec<NodeId>) -> LeaderSearch {
        LeaderSearch { next: nodes.into(), asked: Vec::new() }
    }

    /// Returns the next node to ask.
    pub fn next_node(&mut self) -> Option<NodeId> {
        loop {
            let node = self.next.pop_front()?;
            if !self.asked.contains(&node) {
                self.asked.push(node);
                return Some(node);
            }
        }
    }

    /// Asks a node next because another one says that it leads. Only nodes with replicas are asked.
    pub fn prefer(&mut self, leader: NodeId) {
        if let Some(at) = self.next.iter().position(|node| *node == leader) {
            self.next.remove(at);
            self.next.push_front(leader);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_follows_leaders_and_asks_each_node_once() {
        let nodes = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let mut search = LeaderSearch::new(nodes(&[1, 2, 3, 1]));
        assert_eq!(search.next_node(), Some(NodeId(1)));
        search.prefer(NodeId(3));
        search.prefer(NodeId(9));
        assert_eq!(search.next_node(), Some(NodeId(3)));
        search.prefer(NodeId(1));
        assert_eq!((search.next_node(), search.next_node()), (Some(NodeId(2)), None));
    }

    #[test]
    fn hints_are_bounded_and_only_a_leader_is_forgotten() {
        let hints = LeaderHints::default();
        for group in 0..=HINTS_MAX as u64 {
            hints.learn(GroupId(group), NodeId(1));
        }
        assert_eq!((hints.get(GroupId(0)), hints.get(GroupId(HINTS_MAX as u64))), (None, Some(NodeId(1))));
        let last = GroupId(HINTS_MAX as u64);
        hints.forget(last, NodeId(2));
        assert_eq!(hints.get(last), Some(NodeId(1)));
        hints.forget(last, NodeId(1));
        assert_eq!(hints.get(last), None);
    }
}
