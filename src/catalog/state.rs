//! The state of the catalog, and questions about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::conflict::{self, Conflict};
use super::meta::{ClusterSettings, EffectiveSettings, LogMeta, LogSettings, Member, Placement};
use super::plans::{Destination, Plan};
use crate::bucket_map::BucketMap;
use crate::feature_level::FeatureLevel;
use crate::types::{GroupId, LogId, LogName, NodeId, NodeName, ReplicaId};

/// The state after some prefix of group 0's log. Clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    pub(super) feature_level: FeatureLevel,
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) removed: Arc<BTreeSet<NodeId>>,
    pub(super) logs: BucketMap<GroupId, Arc<LogMeta>>,
    pub(super) names: BucketMap<LogName, GroupId>,
    /// The logs by their ids; `None` for those in `purged`.
    pub(super) ids: BucketMap<LogId, Option<GroupId>>,
    /// The number of logs, and of replicas, that were ever created.
    pub(super) next_group: GroupId,
    pub(super) next_replica: ReplicaId,
    /// The ids of purged logs, the newest last.
    pub(super) purged: Arc<VecDeque<LogId>>,
    pub(super) settings: Arc<ClusterSettings>,
    pub(super) settings_revision: u64,
    pub(super) loads: BTreeMap<NodeId, NodeLoad>,
    pub(super) label_bytes: usize,
    /// Only plans that are not empty.
    pub(super) plans: BTreeMap<NodeId, Plan>,
    pub(super) balancing: bool,
    /// Former members whose replicas have not left all their groups yet.
    pub(super) replaced: BTreeSet<NodeId>,
}

/// How many replicas a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeLoad {
    /// All replicas that should stay.
    pub replicas: usize,
    /// Those that led their logs at first.
    pub first: usize,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog {
            feature_level: FeatureLevel::FIRST,
            members: BTreeMap::new(),
            removed: Arc::default(),
            logs: BucketMap::default(),
            names: BucketMap::default(),
            ids: BucketMap::default(),
            next_group: GroupId(1),
            next_replica: ReplicaId(1),
            purged: Arc::default(),
            settings: Arc::default(),
            settings_revision: 1,
            loads: BTreeMap::new(),
            label_bytes: 0,
            plans: BTreeMap::new(),
            balancing: false,
            replaced: BTreeSet::new(),
        }
    }
}

/// The result of applying a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The catalog has changed.
    Changed(Touched),
    /// The command has no effect, because the catalog already has the requested state.
    Unchanged,
    /// The command does not fit the state and was ignored.
    Ignored(Conflict),
}

/// The logs that a command has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// None.
    NoLog,
    /// The log of this group.
    Log(GroupId),
    /// Perhaps all of them.
    AllLogs,
}

/// A change of the state.
pub(super) enum Change {
    SetMember(Member),
    RemoveMember(NodeId),
    ReplaceMember(NodeId, Member),
    SetPlan(NodeId, Plan),
    SetBalancing(bool),
    /// Sets a log. The counter of replicas is at least `next_replica` then.
    SetLog {
        log: LogMeta,
        next_replica: ReplicaId,
    },
    PurgeLog(GroupId),
    SetFeatureLevel(FeatureLevel),
    SetClusterSettings(ClusterSettings),
}

pub(super) type Changes = Result<Option<Change>, Conflict>;

impl Catalog {
    /// See [`conflict::MEMBERS_MAX`].
    pub const MEMBERS_MAX: usize = conflict::MEMBERS_MAX;
    /// The largest group id. They count up from 1.
    pub const GROUPS_MAX: u64 = 1 << 32;
    /// See [`conflict::LOGS_MAX`].
    pub const LOGS_MAX: usize = conflict::LOGS_MAX;
    /// The maximum size of all labels of all logs in bytes, so that a snapshot of the catalog fits into a message.
    pub const LABEL_BYTES_MAX: usize = 4 << 20;
    /// The ids of this many purged logs are remembered.
    pub const PURGED_MAX: usize = 100_000;

    pub(super) fn set_log(&mut self, log: LogMeta) {
        if let Some(before) = self.logs.get(&log.group).cloned() {
            self.count(&before, -1);
        }
        self.count(&log, 1);
        self.names.insert(log.name.clone(), log.group);
        self.ids.insert(log.log_id, Some(log.group));
        self.logs.insert(log.group, Arc::new(log));
    }

    pub(super) fn add_purged(&mut self, log_id: LogId) {
        self.ids.insert(log_id, None);
        let purged = Arc::make_mut(&mut self.purged);
        purged.push_back(log_id);
        if purged.len() > Catalog::PURGED_MAX
            && let Some(oldest) = purged.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn count(&mut self, log: &LogMeta, by: isize) {
        for (i, placement) in log.replicas.iter().enumerate() {
            let load = self.loads.entry(placement.node).or_default();
            load.replicas = load.replicas.saturating_add_signed(by);
            if i == 0 {
                load.first = load.first.saturating_add_signed(by);
            }
            if *load == NodeLoad::default() {
                self.loads.remove(&placement.node);
            }
        }
        self.label_bytes = self.label_bytes.saturating_add_signed(by * label_bytes(&log.settings).cast_signed());
    }

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

    /// Iterates over the former members that were replaced and whose replicas have not left all their groups yet.
    pub fn replaced(&self) -> impl Iterator<Item = NodeId> {
        self.replaced.iter().copied()
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

/// Replaces a log without making a new revision.
pub(super) fn replace_log(catalog: &Catalog, group: GroupId, change: impl FnOnce(&mut LogMeta)) -> Changes {
    let before = catalog.log(group).ok_or(Conflict::NoSuchLog(group))?;
    let mut log = before.clone();
    change(&mut log);
    let next_replica = catalog.next_replica;
    Ok((log != *before).then_some(Change::SetLog { log, next_replica }))
}

pub(super) fn label_bytes(settings: &LogSettings) -> usize {
    settings.labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}
