//! Lets groups be quiet, wakes them, and spreads leadership. `heartbeats.rs` decides which groups a silent or restarted
//! node concerns; here its decisions are performed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use raft::eraftpb::MessageType;

use super::campaigns::{Campaigns, Loss};
use crate::catalog::faults::{Fault, broken};
use crate::catalog::policy::facts::Replicas;
use crate::consensus::driver::lost::LostReplicas;
use crate::consensus::error::HostError;
use crate::consensus::group::quiet;
use crate::consensus::groups::Groups;
use crate::consensus::heartbeats::{Heartbeat, Heartbeats, Quiet, QuietDigest, SILENT_TICKS, Wake};
use crate::consensus::replica::Replica;
use crate::consensus::sinks::Sinks;
use crate::pb::peer::{DamagedReplica, NodeHeartbeat, RaftMessage};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Term};

/// A group is quiet after this many ticks without an entry or a request.
const REST_TICKS: u64 = 20;
/// The same for the catalog. Its changes often follow one another within seconds, and while it is quiet, its leader
/// checks only once a second whether the next one is due.
const CATALOG_REST_TICKS: u64 = 100;
/// The balance of leadership is checked once in this many ticks.
const BALANCE_TICKS: u64 = 20;
/// The maximum number of groups that are handed over after a check.
const HANDOVERS_MAX: usize = 4;
/// A node whose disk is full hands over groups once in this many ticks.
const FULL_DISK_TICKS: u64 = 4;
/// At most this many each time.
const FULL_DISK_HANDOVERS_MAX: usize = 16;
/// At most this many groups are woken in one tick because of a node's heartbeats, or their absence. If a node that leads
/// thousands of groups is lost, all of them need an election, whose votes are synced. At once they would keep every node
/// so busy that its heartbeats are late, and it would be taken for silent, too.
const WAKES_MAX: usize = 32;
/// Leadership is handed over once the imbalance has lasted for this many checks.
const IMBALANCE_CHECKS: u32 = 5;

/// A leader's announcement that its group is quiet.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    leader: ReplicaId,
    term: Term,
    commit: LogIndex,
}

/// Why a group is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The heartbeats of a node, or their absence.
    Heartbeats,
    /// The node, which may lead the group, has restarted.
    Restarted(NodeId),
}

/// The quiet groups of this node.
pub struct QuietGroups {
    heartbeats: Heartbeats,
    /// Groups that may be quiet soon: the last index, and the tick since which nothing has changed.
    resting: BTreeMap<GroupId, (LogIndex, u64)>,
    /// Announcements to obey after the effects of the heartbeats that contain them are performed.
    announced: Vec<(GroupId, NodeId, Announced)>,
    /// Groups to wake in this tick and the next ones.
    waking: BTreeMap<GroupId, Cause>,
    /// Of the groups whose leaders are lost.
    campaigns: Campaigns,
    /// The disk of this node is full.
    is_full: bool,
    /// The number of groups that may still be woken in this tick.
    wakes_left: usize,
    /// The number of logs that this node leads, as of the last check.
    led_groups: u64,
    imbalanced: u32,
    has_peers: bool,
}

impl QuietGroups {
    /// `incarnation` differs from those of earlier starts of this node.
    pub fn new(incarnation: u64) -> QuietGroups {
        QuietGroups {
            heartbeats: Heartbeats::new(incarnation),
            resting: BTreeMap::new(),
            announced: Vec::new(),
            waking: BTreeMap::new(),
            campaigns: Campaigns::default(),
            is_full: false,
            wakes_left: WAKES_MAX,
            led_groups: 0,
            imbalanced: 0,
            has_peers: false,
        }
    }

    /// Returns a replica that a request or a message is for, after it was woken.
    pub fn wake<'a>(&mut self, group: GroupId, groups: &'a mut Groups) -> Option<&'a mut Replica> {
        self.resting.remove(&group);
        let cause = self.waking.remove(&group);
        let was_quiet = self.heartbeats.end_quiet(group);
        if was_quiet {
            groups.set_awake(group, true);
        }
        let replica = groups.get_mut(&group)?;
        if was_quiet || cause.is_some() {
            match self.lost_leader(replica, cause) {
                Some((node, loss)) => self.campaigns.add(group, &mut replica.group, node, loss, !self.is_full),
                None if was_quiet => quiet::wake(&mut replica.group),
                None => {}
            }
        }
        Some(replica)
    }

    /// Returns the node of a group's leader, if the node is lost.
    fn lost_leader(&self, replica: &Replica, cause: Option<Cause>) -> Option<(NodeId, Loss)> {
        let leader = replica.leader_node().filter(|_| !replica.group.leads())?;
        if cause == Some(Cause::Restarted(leader)) {
            Some((leader, Loss::Restarted))
        } else if self.heartbeats.is_gone(leader) {
            Some((leader, Loss::Gone))
        } else {
            self.heartbeats.has_become_silent(leader).then_some((leader, Loss::Silent))
        }
    }

    /// Handles the report that the process of a node has ended.
    pub fn lose(&mut self, node: NodeId, groups: &mut Groups) {
        let wake = self.heartbeats.lose(node, |group| is_on(groups, group, node));
        self.perform(wake, groups);
    }

    /// Returns when [`QuietGroups::campaign`] is due.
    pub fn next_campaign(&self) -> Option<Instant> {
        self.campaigns.next()
    }

    /// Starts the campaigns that are due, of groups whose leaders are lost.
    pub fn campaign(&mut self, groups: &mut Groups, now: Instant) {
        let heartbeats = &self.heartbeats;
        self.campaigns.run(groups, now, |node| heartbeats.has_become_silent(node));
    }

    /// Returns the announcement in a heartbeat, if it contains one.
    pub fn announced(message: &RaftMessage) -> Option<Announced> {
        let leader = ReplicaId(message.from);
        message.quiet.then_some(Announced { leader, term: Term(message.term), commit: LogIndex(message.commit) })
    }

    /// Returns false for the responses to a leader's last heartbeat before its group was quiet.
    pub fn wakes(message: &RaftMessage, replica: &Replica) -> bool {
        let is_response = message.type_ == MessageType::MsgHeartbeatResponse as u32
            || message.type_ == MessageType::MsgAppendResponse as u32 && !message.reject;
        !(message.quiet || is_response && message.term == replica.group.term().0)
    }

    /// Returns true if the group is quiet.
    #[cfg(test)]
    pub fn is_quiet(&self, group: GroupId) -> bool {
        self.heartbeats.is_quiet(group)
    }

    /// Records an announcement of a node.
    pub fn follow(&mut self, group: GroupId, from: NodeId, announced: Announced) {
        self.announced.push((group, from, announced));
    }

    /// Obeys the announcements, after the effects of their heartbeats.
    pub fn obey(&mut self, groups: &mut Groups, lost: &LostReplicas) {
        for (group, from, announced) in std::mem::take(&mut self.announced) {
            let Announced { leader, term, commit } = announced;
            let Some(replica) = groups.get(&group) else {
                if lost.contains(group) {
                    self.heartbeats.begin_quiet(group, Quiet::Follows(term, from));
                }
                continue;
            };
            // A damaged replica takes no part, so it need not be at rest. If it were not quiet, its node and that of the
            // leader would wake each other's groups again and again.
            let may_follow = || replica.is_written() && quiet::may_follow(&replica.group, leader, term, commit);
            if replica.group.is_damaged() || may_follow() {
                self.heartbeats.begin_quiet(group, Quiet::Follows(term, from));
                end_activity(group, groups);
            }
        }
    }

    /// Handles a heartbeat of a node.
    pub fn receive(&mut self, from: NodeId, heartbeat: &NodeHeartbeat, tick: u64, groups: &mut Groups) {
        let quiet = QuietDigest { groups: heartbeat.quiet_groups, digest: heartbeat.quiet_digest };
        let followed = QuietDigest { groups: heartbeat.followed_groups, digest: heartbeat.followed_digest };
        let NodeHeartbeat { incarnation, led_groups, disk_full, .. } = *heartbeat;
        let heartbeat = Heartbeat { incarnation, quiet, followed, led_groups, disk_full };
        let wake = self.heartbeats.receive(from, heartbeat, tick, |group| is_on(groups, group, from));
        self.perform(wake, groups);
    }

    fn perform(&mut self, wake: Wake, groups: &mut Groups) {
        let mut due: BTreeMap<GroupId, Cause> =
            wake.groups.into_iter().map(|group| (group, Cause::Heartbeats)).collect();
        if let Some(silent) = wake.silent {
            due.extend(awake_groups_of(silent, groups).map(|group| (group, Cause::Heartbeats)));
        }
        if let Some(restarted) = wake.restarted {
            let cause = Cause::Restarted(restarted);
            due.values_mut().for_each(|of| *of = cause);
            due.extend(awake_groups_of(restarted, groups).map(|group| (group, cause)));
        }
        for (group, cause) in due {
            let of = self.waking.entry(group).or_insert(cause);
            *of = cause.max(*of);
        }
        self.wake_some(groups);
    }

    fn wake_some(&mut self, groups: &mut Groups) {
        while self.wakes_left > 0
            && let Some((group, cause)) = self.waking.first_key_value().map(|(group, cause)| (*group, *cause))
        {
            let is_lost = || groups.get(&group).is_some_and(|replica| self.lost_leader(replica, Some(cause)).is_some());
            if self.heartbeats.is_quiet(group) || is_lost() {
                self.wakes_left -= 1;
                // This removes it.
                self.wake(group, groups);
            } else {
                self.waking.remove(&group);
            }
        }
    }

    /// Sends heartbeats to the other members, if they are due.
    pub fn send_heartbeats(&mut self, tick: u64, others: &[NodeId], damaged: &[DamagedReplica], sinks: &Sinks) {
        self.has_peers = !others.is_empty();
        if self.heartbeats.take_due(tick) {
            for node in others.iter().copied() {
                let heartbeat = self.heartbeats.heartbeat_to(node, self.led_groups, self.is_full);
                let Heartbeat { incarnation, quiet, followed, led_groups, disk_full } = heartbeat;
                let heartbeat = NodeHeartbeat {
                    incarnation,
                    quiet_groups: quiet.groups,
                    quiet_digest: quiet.digest,
                    led_groups,
                    followed_groups: followed.groups,
                    followed_digest: followed.digest,
                    disk_full,
                    damaged: damaged.to_vec(),
                    ..NodeHeartbeat::default()
                };
                let message = RaftMessage { node_heartbeat: Some(heartbeat).into(), ..RaftMessage::default() };
                sinks.outbound.send(node, message);
            }
        }
    }

    /// Wakes the groups of nodes that have become silent.
    pub fn tick(&mut self, tick: u64, groups: &mut Groups) {
        self.wakes_left = WAKES_MAX;
        self.wake_some(groups);
        for wake in self.heartbeats.tick(tick, |group, node| is_on(groups, group, node)) {
            self.perform(wake, groups);
        }
    }

    /// Records whether the disk of this node is full. If it is, hands over groups to nodes that have room: a full leader
    /// refuses appends. If all disks are full, no other leader is better.
    pub fn set_full(&mut self, is_full: bool, tick: u64, groups: &mut Groups) {
        self.is_full = is_full;
        if !is_full || !tick.is_multiple_of(FULL_DISK_TICKS) || broken(Fault::FullDiskLeads) {
            return;
        }
        let led = groups.iter().filter(|(_, replica)| replica.group.leads());
        let roomy = |replica: &Replica| {
            let nodes = replica.successors().filter(|node| !self.heartbeats.is_silent(*node));
            let nodes = nodes.filter(|node| !self.heartbeats.is_full(*node));
            nodes.min_by_key(|node| self.heartbeats.led_groups(*node))
        };
        let next: Vec<(GroupId, NodeId)> = led.filter_map(|(group, replica)| Some((*group, roomy(replica)?))).collect();
        for (group, node) in next.into_iter().take(FULL_DISK_HANDOVERS_MAX) {
            if let Some(replica) = self.wake(group, groups)
                && quiet::hand_over_to(&mut replica.group, node)
            {
                log::warn!("group {group}: this disk is full: handing leadership to node {node}, which has room");
            }
        }
    }

    /// Returns the nodes that are silent: those that were heard before, and the members that have never been heard since
    /// this node was started, after an election timeout.
    pub fn silent(&self, tick: u64, members: impl Iterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let mut silent = self.heartbeats.silent();
        if tick > SILENT_TICKS {
            silent.extend(members.filter(|node| self.heartbeats.is_silent(*node)));
        }
        silent
    }

    /// Called if this node's ticks are late.
    pub fn ticks_are_late(&mut self, tick: u64) {
        self.heartbeats.ticks_are_late(tick);
    }

    /// Returns true if this node is the only member, and leads all groups that are not quiet.
    pub fn is_alone(&self, groups: &Groups) -> bool {
        let leads_alone = |group| groups.get(group).is_none_or(|replica| replica.group.leads_alone());
        !self.has_peers && groups.awake().iter().all(leads_alone)
    }

    /// Returns the number of ticks until the next one that must be on time: 1 unless all groups are quiet.
    pub fn ticks_to_next(&self, tick: u64, groups: &Groups) -> u32 {
        let is_calm = self.has_peers && groups.awake().is_empty() && self.waking.is_empty() && !self.is_full;
        let ticks = if is_calm { self.heartbeats.next_due(tick) - tick } else { 1 };
        u32::try_from(ticks).unwrap_or(1)
    }

    /// Makes groups quiet that this node leads and in which nothing has changed for a while.
    ///
    /// # Errors
    /// If a log can't be written.
    pub fn let_rest(
        &mut self,
        awake: &BTreeSet<GroupId>,
        tick: u64,
        groups: &mut Groups,
        sinks: &Sinks,
    ) -> Result<(), HostError> {
        for group in awake {
            let Some(replica) = groups.get(group) else { continue };
            let heartbeats = &self.heartbeats;
            let Some(followers) = quiet::followers(&replica.group, |node| heartbeats.is_silent(node)) else {
                self.resting.remove(group);
                continue;
            };
            let (last, term) = (replica.group.last_index(), replica.group.term());
            let (index, since) = self.resting.entry(*group).or_insert((last, tick));
            if *index != last {
                (*index, *since) = (last, tick);
            }
            let rest = if *group == GroupId::CATALOG { CATALOG_REST_TICKS } else { REST_TICKS };
            if tick - *since < rest {
                continue;
            }
            self.resting.remove(group);
            if let Some(replica) = groups.get_quietly(group) {
                replica.announce_quiet(sinks)?;
            }
            self.heartbeats.begin_quiet(*group, Quiet::Leads(term, followers));
            end_activity(*group, groups);
        }
        Ok(())
    }

    /// The leader of a quiet group gets no messages of its followers: they count as active if their nodes are.
    pub fn correct_activity(&self, groups: &Groups, due: &BTreeSet<GroupId>, facts: &mut Replicas) {
        for group in due.iter().filter(|group| self.heartbeats.is_quiet(**group)) {
            let (Some(replica), Some(facts)) = (groups.get(group), facts.get_mut(group)) else { continue };
            for progress in &mut facts.progress {
                let node = replica.group.node_of(progress.replica);
                progress.active = progress.replica == facts.replica || !self.heartbeats.is_silent(node);
            }
        }
    }

    /// Hands over the leadership of one group if this node has led at least two groups more than another voter of it,
    /// for several checks in a row.
    pub fn balance(&mut self, tick: u64, groups: &mut Groups) {
        if !tick.is_multiple_of(BALANCE_TICKS) {
            return;
        }
        let led = groups.iter().filter(|(group, replica)| **group != GroupId::CATALOG && replica.group.leads());
        let led: Vec<GroupId> = led.map(|(group, _)| *group).collect();
        self.led_groups = led.len() as u64;
        let less_loaded = |group: &GroupId| {
            let replica = groups.get(group)?;
            // Such a node would hand it over again.
            let has_room = |node: &NodeId| self.is_full || !self.heartbeats.is_full(*node);
            let loads = replica.successors().filter(has_room);
            let loads = loads.filter_map(|node| Some((self.heartbeats.led_groups(node)?, node)));
            let (load, node) = loads.min()?;
            (load + 2 <= self.led_groups).then_some((load, *group, node))
        };
        let mut candidates: Vec<(u64, GroupId, NodeId)> = led.iter().filter_map(less_loaded).collect();
        candidates.sort_unstable();
        let Some((least, ..)) = candidates.first().copied() else {
            self.imbalanced = 0;
            return;
        };
        self.imbalanced += 1;
        if self.imbalanced <= IMBALANCE_CHECKS {
            return;
        }
        // The others may hand over groups to the same node at the same time.
        let surplus = usize::try_from((self.led_groups - least) / 4).unwrap_or(usize::MAX).max(1);
        for (_, group, node) in candidates.into_iter().take(surplus.min(HANDOVERS_MAX)) {
            if let Some(replica) = self.wake(group, groups) {
                log::info!("group {group}: handing leadership to node {node}, which leads fewer groups");
                quiet::hand_over_to(&mut replica.group, node);
            }
        }
    }

    /// Forgets groups that this node no longer has replicas of.
    pub fn forget(&mut self, dropped: &[GroupId]) {
        for group in dropped {
            self.heartbeats.end_quiet(*group);
            self.resting.remove(group);
            self.waking.remove(group);
        }
    }

    /// Wakes a group if its term or its leader differs from those when it became quiet.
    pub fn recheck(&mut self, group: GroupId, groups: &mut Groups) {
        let Some(replica) = groups.get(&group) else { return };
        let holds = self.heartbeats.holds(group, replica.group.term(), replica.group.leads());
        if self.heartbeats.is_quiet(group) && !holds && !replica.group.is_damaged() {
            self.wake(group, groups);
        }
    }
}

/// Ends the ticks of a group that is quiet now, and frees the memory that only an active group needs.
fn end_activity(group: GroupId, groups: &mut Groups) {
    groups.set_awake(group, false);
    if let Some(replica) = groups.get_quietly(&group) {
        quiet::bound_cache(&mut replica.group, 0);
    }
}

/// The groups that are not quiet and that the node leads.
fn awake_groups_of(node: NodeId, groups: &Groups) -> impl Iterator<Item = GroupId> {
    let is_led = move |group: &&GroupId| groups.get(group).and_then(Replica::leader_node) == Some(node);
    groups.awake().iter().filter(is_led).copied()
}

fn is_on(groups: &Groups, group: GroupId, node: NodeId) -> bool {
    groups.get(&group).is_some_and(|replica| replica.group.nodes().nodes().any(|of| of == node))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With 10,000 logs, one late heartbeat caused elections without end: all groups campaigned at once, and the votes of
    /// one election kept every node busy until the next one.
    #[test]
    fn the_groups_of_a_silent_node_are_woken_a_few_at_a_time() {
        let (mut quiet, mut groups) = (QuietGroups::new(1), Groups::default());
        let all: BTreeSet<GroupId> = (1..=100).map(GroupId).collect();
        for group in &all {
            quiet.heartbeats.begin_quiet(*group, Quiet::Follows(Term(1), NodeId(2)));
        }
        quiet.perform(Wake { groups: all.clone(), silent: Some(NodeId(2)), restarted: None }, &mut groups);
        let still = |quiet: &QuietGroups| all.iter().filter(|group| quiet.heartbeats.is_quiet(**group)).count();
        assert_eq!(still(&quiet), 100 - WAKES_MAX);
        quiet.perform(Wake { groups: all.clone(), silent: None, restarted: None }, &mut groups);
        assert_eq!(still(&quiet), 100 - WAKES_MAX, "no more in this tick");
        quiet.forget(&[GroupId(100)]);
        for tick in 1..=4 {
            quiet.wakes_left = WAKES_MAX;
            quiet.wake_some(&mut groups);
            assert_eq!(still(&quiet), 99_usize.saturating_sub((tick + 1) * WAKES_MAX), "tick {tick}");
        }
    }
}
