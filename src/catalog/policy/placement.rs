//! Decides where the replicas of logs are. Used by the catalog's leader.
//!
//! - A new log is placed on the nodes with the fewest replicas. Of these nodes, the one that was the first leader of
//!   the fewest logs leads it at first. Nodes that the leader does not hear from are chosen last.
//! - A log with fewer replicas than its setting gets one on a node that has finished its join.
//! - A log with more replicas than its setting loses one: on a node that leaves, or else the one that was placed last.
//! - Nodes that leave the cluster get no replicas. Drained nodes lead no new log if another node can.
//! - A deleted log is purged once its time is over.

use std::collections::BTreeMap;

use crate::catalog::command::Command;
use crate::catalog::meta::{LogMeta, NewLog, Origin, Placement};
use crate::catalog::state::{Catalog, NodeLoad};
use crate::types::NodeId;

/// The maximum number of logs with a replica that moves. Each copies a log.
pub const MOVES_MAX: usize = 16;

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

/// The replicas that were placed by proposals that are not applied yet, and the number that leaves each node.
#[derive(Debug, Default)]
pub struct PendingPlacements(BTreeMap<NodeId, NodeLoad>, BTreeMap<NodeId, usize>);

impl PendingPlacements {
    /// Called when every proposal is applied.
    pub fn clear(&mut self) {
        self.0.clear();
        self.1.clear();
    }

    pub(super) fn load(&self, catalog: &Catalog, node: NodeId) -> NodeLoad {
        let (applied, pending) = (catalog.load_of(node), self.0.get(&node).copied().unwrap_or_default());
        let lost = self.1.get(&node).copied().unwrap_or(0);
        let replicas = (applied.replicas + pending.replicas).saturating_sub(lost);
        NodeLoad { replicas, first: applied.first + pending.first }
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        *self.1.entry(node).or_default() += 1;
    }

    pub(super) fn add(&mut self, nodes: &[NodeId]) {
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
        if nodes.iter().any(|node| self.stays(*node)) {
            nodes.retain(|node| self.stays(*node));
        }
        nodes.sort_by_key(|node| {
            let usable = (self.is_active)(*node) && (self.has_joined)(*node);
            (!usable, pending.load(catalog, *node).replicas, pending.load(catalog, *node).first, *node)
        });
        nodes.truncate(replicas.max(1));
        let first = |node: &NodeId| {
            let avoided = catalog.plan(*node).avoids_leading();
            (!(self.is_active)(*node), avoided, pending.load(catalog, *node).first, *node)
        };
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
        let mut moves = logs.iter().filter(|log| self.moves(log)).count();
        let command = |log: &&LogMeta| self.command(log, &mut moves, &mut pending, now_us);
        let commands: Vec<Command> = logs.iter().filter_map(command).take(COMMANDS_MAX).collect();
        match commands.is_empty() && self.catalog.is_balancing() {
            true => self.balance(&logs, moves, &mut pending),
            false => commands,
        }
    }

    /// Returns true if a replica of the log is on its way to another node.
    fn moves(&self, log: &LogMeta) -> bool {
        let is_member = |placement: &Placement| self.catalog.member(placement.node).is_some();
        log.deletion.is_none() && log.leaving.iter().any(is_member)
    }

    fn next_move_away(&self, log: &LogMeta, moves: &mut usize, pending: &mut PendingPlacements) -> Option<Command> {
        let command = if *moves < MOVES_MAX { self.move_away(log, pending) } else { None };
        *moves += usize::from(command.is_some());
        command
    }

    fn command(
        &self,
        log: &LogMeta,
        moves: &mut usize,
        pending: &mut PendingPlacements,
        now_us: u64,
    ) -> Option<Command> {
        if let Some(deletion) = log.deletion {
            if deletion.purge_us <= now_us {
                return Some(Command::PurgeLog(log.group));
            }
            // Its replicas move like others: it may be undeleted, and its nodes may leave before it is purged.
            return self.next_move_away(log, moves, pending);
        }
        let wanted = self.catalog.settings_of(log).replicas as usize;
        if log.replicas.len() > wanted && (log.settings.replicas.is_some() || !log.is_of_level_1()) {
            // One replica leaves at a time, so that the group always has the replicas that its setting demands.
            let leaves = log.replicas.iter().find(|placement| !self.stays(placement.node));
            let last = leaves.or(log.replicas.last()).filter(|_| log.leaving.is_empty())?;
            return Some(Command::RemoveReplica(log.group, last.replica));
        }
        if let Some(command) = self.next_move_away(log, moves, pending) {
            return Some(command);
        }
        if log.replicas.len() >= wanted {
            return None;
        }
        let free = |node: &NodeId| {
            let hosts = log.placements().any(|placement| placement.node == *node);
            !hosts && self.stays(*node) && (self.is_active)(*node) && (self.has_joined)(*node)
        };
        let members = self.catalog.members().map(|member| member.id);
        let node = members.filter(free).min_by_key(|node| (pending.load(self.catalog, *node), *node))?;
        pending.add(&[node]);
        Some(Command::PlaceReplica(log.group, node))
    }
}
