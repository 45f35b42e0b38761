//! Read-only queries of the catalog.

use std::collections::BTreeSet;

use super::meta::{ClusterSettings, EffectiveSettings, LogMeta, Member, Placement};
use super::plans::{Destination, Plan};
use super::state::{Catalog, NodeLoad};
use crate::feature_level::FeatureLevel;
use crate::types::{GroupId, LogId, LogName, NodeId, NodeName, ReplicaId};

impl Catalog {
    /// Returns the feature level of the cluster. It never falls.
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// Returns a member by its id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Returns a member by its name.
    pub fn member_named(&self, name: &NodeName) -> Option<&Member> {
        self.members.values().find(|m| m.name == *name)
    }

    /// Iterates over the members, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Returns true for the id of a removed member. Such an id is never used again.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }

    /// Returns a log by its name, deleted or not.
    pub fn log_named(&self, name: &LogName) -> Option<&LogMeta> {
        self.names.get(name).and_then(|group| self.log(*group))
    }

    /// Returns a log by its group, deleted or not.
    pub fn log(&self, group: GroupId) -> Option<&LogMeta> {
        self.logs.get(&group).map(|log| &**log)
    }

    /// Iterates over the logs, deleted or not, in no useful order.
    pub fn logs(&self) -> impl Iterator<Item = &LogMeta> {
        self.logs.iter().map(|(_, log)| &**log)
    }

    /// The number of logs, deleted or not.
    pub fn log_count(&self) -> usize {
        self.logs.len()
    }

    /// Returns the settings that apply to a log.
    pub fn settings_of(&self, log: &LogMeta) -> EffectiveSettings {
        log.settings.effective(&self.settings.log_defaults)
    }

    /// Returns the settings of the cluster.
    pub fn cluster_settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Increases by 1 with each change of the cluster's settings.
    pub fn settings_revision(&self) -> u64 {
        self.settings_revision
    }

    /// Returns true for the id of a log that was purged. Such an id is never used again.
    pub fn is_purged(&self, log_id: LogId) -> bool {
        self.ids.get(&log_id).is_some_and(Option::is_none)
    }

    /// Returns true for the id of a log, deleted, purged or neither.
    pub fn was_used(&self, log_id: LogId) -> bool {
        self.ids.get(&log_id).is_some()
    }

    /// Returns true if the group belonged to a log that was purged.
    pub fn is_purged_group(&self, group: GroupId) -> bool {
        group != GroupId::CATALOG && group < self.next_group && self.log(group).is_none()
    }

    /// Returns true if the cluster ever had a log.
    pub fn had_logs(&self) -> bool {
        self.next_group > GroupId(1)
    }

    /// Returns true if a replica with this id was placed already, in any log. Not for replicas of level 1.
    pub fn was_placed(&self, replica: ReplicaId) -> bool {
        replica < self.next_replica
    }

    /// Returns true if the replica was given up: it was placed, and is not in the log's placements any more. Not for
    /// replicas of level 1.
    pub fn has_left(&self, log: &LogMeta, replica: ReplicaId) -> bool {
        log.node_of(replica).is_none() && self.was_placed(replica)
    }

    /// Returns the plan of a member.
    pub fn plan(&self, node: NodeId) -> Plan {
        self.plans.get(&node).copied().unwrap_or_default()
    }

    /// Iterates over the members that are leaving, with the destinations of their replicas.
    pub fn leaving_nodes(&self) -> impl Iterator<Item = (NodeId, Destination)> {
        self.plans.iter().filter_map(|(node, plan)| Some((*node, plan.leaves?)))
    }

    /// Returns true while replicas move until every node has about the same number.
    pub fn is_balancing(&self) -> bool {
        self.balancing
    }

    /// Returns the replicas of a log that should not lead it: they are to leave, or their nodes are.
    pub fn avoided_leaders(&self, log: &LogMeta) -> BTreeSet<ReplicaId> {
        let avoided = |placement: &&Placement| self.plan(placement.node).avoids_leading();
        log.leaving.iter().chain(log.replicas.iter().filter(avoided)).map(|placement| placement.replica).collect()
    }

    /// Returns the members that should not lead the catalog's group.
    pub fn avoided_nodes(&self) -> BTreeSet<NodeId> {
        self.plans.iter().filter(|(_, plan)| plan.avoids_leading()).map(|(node, _)| *node).collect()
    }

    /// Returns how many replicas a node has.
    pub fn load_of(&self, node: NodeId) -> NodeLoad {
        self.loads.get(&node).copied().unwrap_or_default()
    }
}
