//! Watches the lagging followers: it divides the budget of their nodes, and publishes their progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::catalog::Catalog;
use crate::consensus::catch_up::{Behind, CatchUps};
use crate::consensus::group::bulk;
use crate::consensus::groups::Groups;
use crate::consensus::status::Statuses;
use crate::metrics::{Gauge, Labelled, Registry};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId};

/// Ticks between two observations.
const OBSERVED_TICKS: u64 = 10;

/// The followers of the groups that this node leads.
pub(super) struct Followers {
    catch_ups: CatchUps,
    /// What each lagging follower had acknowledged when it was last observed.
    matched: BTreeMap<(GroupId, ReplicaId), LogIndex>,
    lacking: Labelled<Gauge>,
}

impl Followers {
    /// Registers the metric.
    pub fn new(registry: &Registry) -> Followers {
        let lacking = registry.gauges(
            "catch_up_bytes_left",
            "peer",
            "Bytes of committed entries that followers far behind lack, in all groups that this node leads",
        );
        Followers { catch_ups: CatchUps::default(), matched: BTreeMap::new(), lacking }
    }

    /// Called on each tick.
    pub fn tick(&mut self, tick: u64, now: Instant, groups: &mut Groups, statuses: &Statuses, catalog: &Catalog) {
        share_budgets(groups);
        if tick.is_multiple_of(OBSERVED_TICKS) {
            self.observe(now, groups, statuses, catalog);
        }
    }

    fn observe(&mut self, now: Instant, groups: &Groups, statuses: &Statuses, catalog: &Catalog) {
        let leads = |group: &GroupId| groups.get(group).is_some_and(|replica| replica.group.leads());
        let led = || groups.awake().iter().filter(|group| leads(group));
        let mut matched = BTreeMap::new();
        let mut lacking: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut behind: BTreeMap<GroupId, Vec<(NodeId, Behind)>> = BTreeMap::new();
        for group in led() {
            let replica = &groups[group];
            let commit = replica.group.commit_index();
            for follower in replica.group.facts().progress.iter().filter(|other| other.replica != replica.group.me()) {
                let before = self.matched.get(&(*group, follower.replica)).copied().unwrap_or(follower.matched);
                let lacks = replica.reader.bytes_between(follower.matched, commit);
                let acknowledged = replica.reader.bytes_between(before, follower.matched);
                let node = replica.group.node_of(follower.replica);
                let entries = commit.0.saturating_sub(follower.matched.0);
                if let Some(found) = self.catch_ups.observe(*group, node, entries, lacks, acknowledged, now) {
                    matched.insert((*group, follower.replica), follower.matched);
                    *lacking.entry(node).or_default() += found.bytes;
                    behind.entry(*group).or_default().push((node, found));
                }
            }
        }
        self.matched = matched;
        self.catch_ups.retain(|group| groups.awake().contains(&group) && leads(&group));
        self.lacking.clear();
        for (node, bytes) in lacking {
            let peer = catalog.member(node).map_or_else(|| node.to_string(), |member| member.name.to_string());
            self.lacking.with(&peer).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        statuses.set_behind(behind.into_iter().map(|(group, nodes)| (group, Arc::from(nodes))).collect());
    }
}

/// Divides the messages in flight to each node between the followers there that are bulk.
fn share_budgets(groups: &mut Groups) {
    let mut sharers: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut sharing = Vec::new();
    for group in groups.awake() {
        let Some(replica) = groups.get(group) else { continue };
        let followers = bulk::bulk_followers(&replica.group).map(|id| (*group, id, replica.group.node_of(id)));
        sharing.extend(followers);
    }
    sharing.iter().for_each(|(_, _, node)| *sharers.entry(*node).or_default() += 1);
    for (group, follower, node) in sharing {
        let bulk_followers = sharers.get(&node).copied().unwrap_or_default();
        if let Some(replica) = groups.get_quietly(&group) {
            bulk::share_with(&mut replica.group, follower, bulk_followers);
        }
    }
}
