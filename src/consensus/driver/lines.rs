//! The log lines about this node's groups: recovery and leadership.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::{Catalog, Member};
use crate::clock;
use crate::consensus::groups::Groups;
use crate::consensus::leadership::{Heard, LeadershipLines};
use crate::consensus::status::GroupStatus;
use crate::types::{GroupId, NodeId, ReplicaId};

/// When each peer was last heard, and what was logged about each group's leadership.
#[derive(Debug, Default)]
pub struct GroupLines {
    heard: Heard,
    leaders: BTreeMap<GroupId, LeadershipLines>,
}

impl GroupLines {
    /// Records that a node sent a raft message. Only members and nodes in the catalog's conf state are remembered: the
    /// number of other ids is not bounded, because each node chooses its own.
    pub fn record_heard(&mut self, from: NodeId, groups: &Groups, catalog: &Catalog) {
        let of_catalog =
            || groups.get(&GroupId::CATALOG).is_some_and(|c| c.group.conf_contains(ReplicaId::of_node(from)));
        if catalog.member(from).is_some() || of_catalog() {
            self.heard.insert(from, clock::now());
        }
    }

    /// Logs the changes of leadership. Called on each tick.
    pub fn log_leaders(&mut self, statuses: &[Arc<GroupStatus>], catalog: &Catalog, me: &Member, now: Instant) {
        for status in statuses {
            let group = label(status.group, catalog);
            let name = |node| match catalog.member(node) {
                Some(member) => member.name.to_string(),
                // A founder is not in the catalog yet.
                None if node == me.id => me.name.to_string(),
                None => node.to_string(),
            };
            let lines = self.leaders.entry(status.group).or_default();
            if let Some((level, text)) = lines.due_line(&group, status, me.id, &self.heard, name, now) {
                log::log!(level, "{text}");
            }
        }
    }
}

/// Logs the position of each group after recovery.
pub fn log_recovery(groups: &Groups, catalog: &Catalog, took: Duration) {
    for (id, replica) in groups.iter().filter(|(_, replica)| !replica.group.is_blank()) {
        let status = replica.status();
        log::info!(
            "{}: recovered last_index={} commit_index={} term={}",
            label(*id, catalog),
            status.last_index,
            status.commit_index,
            status.term
        );
    }
    log::info!("recovery ended after {} ms", took.as_millis());
}

/// Returns the name of a group in log lines. The name of a log may be unknown until the catalog is replayed.
fn label(group: GroupId, catalog: &Catalog) -> String {
    match catalog.log(group) {
        Some(log) => format!("log {} (group {group})", log.name),
        None if group == GroupId::CATALOG => format!("catalog (group {group})"),
        None => format!("group {group}"),
    }
}
