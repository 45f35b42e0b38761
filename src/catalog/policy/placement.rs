//! Decides where the replicas of logs are. Used by the catalog's leader.
//!
//! - A new log is placed on the nodes with the fewest replicas. Of these nodes, the one that was the first leader of
//!   the fewest logs leads it at first. Nodes that the leader does not hear from are chosen last.
//! - A log with fewer replicas than its setting gets one on a node that has finished its join.
//! - A log with more replicas than its setting loses the one that was placed last.
//! - A deleted log is purged once its time is over.

use std::collections::BTreeMap;

use crate::catalog::command::Command;
use crate::catalog::meta::{LogMeta, NewLog, Origin};
use crate::catalog::state::{Catalog, NodeLoad};
use crate::types::NodeId;

/// The maximum number of commands that the leader proposes at once.
const COMMANDS_MAX: usize = 64;

/// The nodes that the catalog's leader may place replicas on.
pub struct Candidates<'a, A, J> {
    /// The catalog as applied.
    pub catalog: &'a Catalog,
    /// Returns true for a node that the leader hears from.
    pub is_active: A,
    /// Returns true for a node that has finished its join.
    pub has_joined: J,
}

/// The replicas that were placed by proposals that are not applied yet.
#[derive(Debug, Default)]
pub struct PendingPlacements(BTreeMap<NodeId, NodeLoad>);

impl PendingPlacements {
    /// Called when every proposal is applied.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn load(&self, catalog: &Catalog, node: NodeId) -> NodeLoad {
        let (applied, pending) = (catalog.load_of(node), self.0.get(&node).copied().unwrap_or_default());
        NodeLoad { replicas: applied.replicas + pending.replicas, first: applied.first + pending.first }
    }

    fn add(&mut self, nodes: &[NodeId]) {
        for (i, node) in nodes.iter().enumerate() {
            let load = self.0.entry(*node).or_default();
            load.replicas += 1;
            load.first += usize::from(i == 0);
        }
    }
}

impl<A: Fn(NodeId) -> bool, J: Fn(NodeId) -> bool> Candidates<'_, A, J> {
    /// Returns a request for a new log with nodes for its replicas. The first one leads at first.
    pub fn place(&self, new: NewLog, pending: &mut PendingPlacements) -> NewLog {
        let catalog = self.catalog;
        let replicas = new.settings.effective(&catalog.cluster_settings().log_defaults).replicas as usize;
        let mut nodes: Vec<NodeId> = catalog.members().map(|member| member.id).collect();
        nodes.sort_by_key(|node| {
            let usable = (self.is_active)(*node) && (self.has_joined)(*node);
            (!usable, pending.load(catalog, *node).replicas, pending.load(catalog, *node).first, *node)
        });
        nodes.truncate(replicas.max(1));
        let first = |node: &NodeId| (!(self.is_active)(*node), pending.load(catalog, *node).first, *node);
        if let Some(leads) = (0..nodes.len()).min_by_key(|i| first(&nodes[*i])) {
            nodes.swap(0, leads);
        }
        pending.add(&nodes);
        NewLog { origin: Origin::Nodes(nodes), ..new }
    }

    /// Returns the commands that bring the logs closer to their settings.
    pub fn commands(&self, now_us: u64) -> Vec<Command> {
        let mut pending = PendingPlacements::default();
        let mut logs: Vec<&LogMeta> = self.catalog.logs().collect();
        logs.sort_unstable_by_key(|log| log.group);
        logs.into_iter().filter_map(|log| self.command(log, &mut pending, now_us)).take(COMMANDS_MAX).collect()
    }

    fn command(&self, log: &LogMeta, pending: &mut PendingPlacements, now_us: u64) -> Option<Command> {
        if let Some(deletion) = log.deletion {
            return (deletion.purge_us <= now_us).then_some(Command::PurgeLog(log.group));
        }
        let wanted = self.catalog.settings_of(log).replicas as usize;
        if log.replicas.len() > wanted && (log.settings.replicas.is_some() || !log.is_of_level_1()) {
            // One replica leaves at a time, so that the group always has the replicas that its setting demands.
            let last = log.replicas.last().filter(|_| log.leaving.is_empty())?;
            return Some(Command::RemoveReplica(log.group, last.replica));
        }
        if log.replicas.len() >= wanted {
            return None;
        }
        let free = |node: &NodeId| {
            let hosts = log.placements().any(|placement| placement.node == *node);
            !hosts && (self.is_active)(*node) && (self.has_joined)(*node)
        };
        let members = self.catalog.members().map(|member| member.id);
        let node = members.filter(free).min_by_key(|node| (pending.load(self.catalog, *node), *node))?;
        pending.add(&[node]);
        Some(Command::PlaceReplica(log.group, node))
    }
}
