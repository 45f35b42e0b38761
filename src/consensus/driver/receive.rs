//! Handles the messages of peers.

use super::Driver;
use super::admission::check_replicas;
use super::quiet::QuietGroups;
use crate::consensus::peer_inbox::is_ordered;
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
                self.quiet.receive(from, &heartbeat, self.ticks, &mut self.groups);
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
}
