//! Handles the messages of peers, and the reports about them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Driver;
use super::admission::check_replicas;
use super::quiet::QuietGroups;
use crate::consensus::group::Successor;
use crate::consensus::peer_inbox::is_ordered;
use crate::feature_level::Feature;
use crate::pb::peer::RaftMessage;
use crate::types::{GroupId, NodeId, ReplicaId};

impl Driver {
    /// Steps a peer's message. A message for a group of which this node has no replica is kept for a moment: the
    /// catalog may place one here. If it does not, raft sends the message again.
    pub(super) fn step(&mut self, from: NodeId, mut message: RaftMessage) {
        let catalog = self.governor.catalog();
        if let Some(heartbeat) = message.node_heartbeat.take() {
            // Each peer chooses its own id, so the number of other ids is not bounded.
            if catalog.member(from).is_some() {
                self.governor.reported.receive(from, &heartbeat);
                self.quiet.receive(from, &heartbeat, self.ticks, &mut self.groups);
                self.send_heartbeats();
            }
            return;
        }
        let replica = self.groups.get(&GroupId(message.group)).map(|replica| &replica.group);
        match check_replicas(from, &message, replica, catalog, self.me.id) {
            Ok(true) => {}
            Ok(false) => return log::debug!("a late message of group {} is dropped", message.group),
            Err(what) => return self.admission.log_dropped(from, &what),
        }
        if !self.admission.admits(from, &message, &self.groups, catalog) {
            return;
        }
        self.lines.record_heard(from, &self.groups, catalog);
        let Some(message) = self.take_repair(from, message) else { return };
        if self.drops_message(from, &message) {
            return;
        }
        let group = GroupId(message.group);
        let Some(replica) = self.groups.get(&group) else {
            return self.early.keep(from, message);
        };
        if is_ordered(&message) && replica.group.is_behind_with_syncs() {
            return self.peers.count_dropped();
        }
        let announced = QuietGroups::announced(&message);
        let woken = match QuietGroups::wakes(&message, replica) {
            true => self.quiet.wake(group, &mut self.groups),
            false => self.groups.get_mut(&group),
        };
        let Some(replica) = woken else { return };
        replica.group.nodes_mut().learn(ReplicaId(message.from), from);
        if let Err(what) = replica.step(message, self.governor.supported()) {
            self.admission.log_dropped(from, &format!("group {group}: {what}"));
        } else if let Some(announced) = announced {
            self.quiet.follow(group, from, announced);
        }
    }

    /// Sends heartbeats to the other members, if they are due.
    pub(super) fn send_heartbeats(&mut self) {
        if self.governor.allows(Feature::ManyLogs) {
            let others = self.governor.catalog().members().map(|member| member.id).filter(|node| *node != self.me.id);
            self.quiet.send_heartbeats(self.ticks, &others.collect::<Vec<_>>(), &self.damaged, &self.sinks);
        }
    }

    /// Called if ticks were missed: the process was suspended, or starved.
    pub(super) fn ticks_are_late(&mut self) {
        self.quiet.ticks_are_late(self.ticks);
        for group in self.groups.awake().clone() {
            if let Some(replica) = self.groups.get_mut(&group) {
                replica.group.tick_is_late();
            }
        }
    }

    /// Hands over leadership of every group, because the node stops.
    pub(super) fn hand_over_all(&mut self) {
        let led = self.groups.iter().filter(|(_, replica)| replica.group.leads());
        for group in led.map(|(group, _)| *group).collect::<Vec<_>>() {
            if let Some(replica) = self.quiet.wake(group, &mut self.groups) {
                replica.group.hand_over(Successor::Any);
            }
        }
    }

    /// Returns the members that are silent.
    pub(super) fn silent(&self) -> BTreeSet<NodeId> {
        let others = self.governor.catalog().members().map(|member| member.id).filter(|node| *node != self.me.id);
        self.quiet.silent(self.ticks, others)
    }

    /// Tells other threads which members are silent.
    pub(super) fn publish_silent(&mut self) {
        let silent = self.silent();
        self.governor.set_silent(&silent);
        self.statuses.set_silent(silent);
    }

    /// Handles the report that messages of these groups to a node were lost.
    pub(super) fn messages_are_lost(&mut self, node: NodeId, groups: BTreeSet<GroupId>) {
        for group in groups {
            if let Some(replica) = self.groups.get_mut(&group) {
                replica.group.unreachable(node);
            }
        }
    }

    /// Handles the report that a snapshot was handed to the network, or was lost.
    pub(super) fn snapshot_sent(&mut self, group: GroupId, node: NodeId, arrived: bool) {
        if let Some(replica) = self.groups.get_mut(&group) {
            replica.group.snapshot_sent(node, arrived);
        }
    }

    /// Handles the reports that processes of nodes have ended. Without heartbeats of nodes, none would be heard again.
    pub(super) fn lose_nodes(&mut self) {
        for node in self.peers.take_gone() {
            if self.governor.allows(Feature::ManyLogs) && self.governor.catalog().member(node).is_some() {
                let leads = self.groups.iter().filter(|(_, replica)| replica.leader_node() == Some(node)).count();
                log::info!("the process of node {node} has ended: connections are refused; it led {leads} groups here");
                self.quiet.lose(node, &mut self.groups);
                self.publish_silent();
            }
        }
    }

    /// Returns the clocks of voters only: one faulty host could send the clocks of any number of other ids.
    pub(super) fn clocks_of_voters(&self, now: Instant) -> Vec<(NodeId, u64)> {
        let catalog = self.groups.get(&GroupId::CATALOG);
        let mut clocks = self.peer_clocks.now(now);
        let votes = |node: &NodeId| catalog.is_some_and(|catalog| catalog.group.votes(ReplicaId::of_node(*node)));
        clocks.retain(|(node, _)| votes(node));
        clocks
    }
}
