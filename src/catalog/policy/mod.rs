//! The policy: decides what this node does to bring the cluster to the state that the catalog describes.
//!
//! It is a pure state machine: its inputs are the catalog, facts about this node's replicas ([`facts`]) and the time;
//! its outputs are actions. It performs no I/O and reads no clock, so scripts can test it (`catalog/tests/scripts/`).
//! `consensus` collects the facts and performs the actions.
//!
//! - [`hosting`]: which replicas this node creates and drops.
//! - [`placement`]: on which nodes the replicas of logs are; [`moves`]: which of them move to other nodes.
//! - [`rebuilds`]: which damaged replicas are given up.
//! - [`voters`]: the next step of a group's membership; [`catch_up`]: which learners may become voters.
//! - [`joins`]: whether another node may join.
//! - [`requests`]: which changes of the catalog are proposed.
//! - [`retention`]: what is trimmed; [`ages`]: how old records are.
//!
//! A proposal may be lost when leadership changes, so every decision is repeated on each tick and depends on the
//! facts alone. The policy's own state consists only of durations: how long a node has been silent, how long a round
//! takes, how old records are.

pub mod ages;
pub mod catch_up;
pub mod facts;
pub mod hosting;
pub mod joins;
pub mod moves;
pub mod notice;
pub mod placement;
pub mod rebuilds;
pub mod requests;
pub mod retention;
pub mod voters;

use std::collections::{BTreeMap, BTreeSet};

use self::facts::{Now, ReplicaFacts, Replicas};
use self::joins::{Joins, Verdict, VotersOfGroups, VotesInLogs};
use self::notice::Notice;
use self::placement::{Candidates, PendingPlacements};
use self::requests::Decision;
use self::retention::{Expired, Retention};
use self::voters::{CATALOG_VOTERS_MAX, GroupVoters, MembershipChange, Step, Target};
use super::command::Command;
use super::faults::{Fault, broken};
use super::meta::{LogMeta, LogSettings, Member, NewLog, Origin};
use super::state::Catalog;
use crate::feature_level::{Feature, FeatureLevel};
use crate::storage::log::SealAge;
use crate::types::{GroupId, LogId, LogName, NodeId, ReplicaId};

/// The catalog's leader checks the placement of the logs once in this many ticks.
const PLACEMENT_TICKS: u64 = 20;
/// Up to this many logs, the votes are collected on each tick.
const FEW_LOGS: usize = 64;

/// Durations in ticks.
#[derive(Clone, Copy, Debug)]
pub struct PolicyTicks {
    /// A learner has caught up if a round takes less than this: an election timeout.
    pub round_max: u64,
    /// A joining member that was silent for this long has abandoned its join.
    pub silent_max: u32,
}

/// What `consensus` should do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Propose a command to the catalog.
    Propose(Command),
    /// Propose a change of the membership of a group, which this node leads.
    ChangeMembership(GroupId, MembershipChange),
    /// Hand over leadership of a group, from which this replica is removed next.
    HandOver(GroupId),
    /// Hand over leadership of a group to a node that is neither drained nor leaving, if there is one.
    Drain(GroupId),
    /// Propose to the catalog that the group has removed a replica, but only if a majority confirms that this node
    /// still leads the group.
    ReportRemoved(GroupId, ReplicaId),
    /// Propose to the catalog that the group removes a damaged replica, but only if a majority confirms that this node
    /// still leads the group.
    GiveUpDamaged(GroupId, ReplicaId),
    /// Set the clock of a group's log, for the header of its next segment, and seal its newest segment if it is old
    /// enough.
    KeepTime {
        /// The group of the log.
        group: GroupId,
        /// The time of the log's clock, microseconds.
        local_us: u64,
        /// The age at which the newest segment is sealed; `None` if it must not be sealed.
        seal: Option<SealAge>,
    },
    /// Find the first record of the group's log to keep, and propose a trim up to it.
    Trim(GroupId, Expired),
    /// Write a log line.
    Notice(Notice),
}

/// The policy of one node.
pub struct Policy {
    me: Member,
    ticks: PolicyTicks,
    /// The highest feature level that this node supports.
    level_max: FeatureLevel,
    new_log_id: fn() -> Option<LogId>,
    voters: BTreeMap<GroupId, GroupVoters>,
    joins: Joins,
    retention: Retention,
    pending: PendingPlacements,
    /// The tick from which on placements are checked, once the catalog is idle.
    next_placement: u64,
    /// The votes in all logs, and the tick at which they were collected.
    votes: (u64, VotesInLogs),
}

impl Policy {
    /// Creates a policy. `me` is this node's entry in the catalog, and `level_max` the highest feature level that it
    /// supports. `new_log_id` returns a random id, or `None` if the system can't provide random bytes.
    pub fn new(me: Member, ticks: PolicyTicks, level_max: FeatureLevel, new_log_id: fn() -> Option<LogId>) -> Policy {
        Policy {
            me,
            ticks,
            level_max,
            new_log_id,
            voters: BTreeMap::new(),
            joins: Joins::default(),
            retention: Retention::default(),
            pending: PendingPlacements::default(),
            next_placement: 0,
            votes: Default::default(),
        }
    }

    /// Decides what to do on a tick. Only the groups in `due` are considered: those that are not quiet on each tick,
    /// and all others about once a second.
    pub fn tick(&mut self, catalog: &Catalog, replicas: &Replicas, due: &BTreeSet<GroupId>, now: Now) -> Vec<Action> {
        let of_catalog = replicas.get(&GroupId::CATALOG).filter(|replica| replica.leads);
        if of_catalog.is_some() {
            self.update_votes(catalog, replicas, now.tick);
        }
        let votes = std::mem::take(&mut self.votes);
        let actions = self.actions(catalog, replicas, of_catalog, &votes.1, due, now);
        self.votes = votes;
        actions
    }

    /// Collects the votes in all logs: on each tick if there are few logs, otherwise once a second.
    fn update_votes(&mut self, catalog: &Catalog, replicas: &Replicas, tick: u64) {
        let (collected, _) = self.votes;
        if catalog.log_count() <= FEW_LOGS || tick < collected || tick >= collected + PLACEMENT_TICKS {
            self.votes = (tick, VotesInLogs::of(catalog, replicas));
        }
    }

    fn actions(
        &mut self,
        catalog: &Catalog,
        replicas: &Replicas,
        of_catalog: Option<&ReplicaFacts>,
        votes: &VotesInLogs,
        due: &BTreeSet<GroupId>,
        now: Now,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let voters = of_catalog.map(|_| VotersOfGroups::of(replicas, votes));
        let unfinished = voters.as_ref().map(|voters| voters.unfinished(catalog)).unwrap_or_default();
        self.joins.update(&unfinished);
        let mut catalog_step = None;
        let retired = moves::retired(catalog);
        let is_replaced = |node| catalog.replaced().any(|replaced| replaced == node);
        let is_drained = catalog.plan(self.me.id).avoids_leading();
        for (group, replica) in due.iter().filter_map(|group| replicas.get_key_value(group)) {
            match catalog.log(*group) {
                Some(log) => {
                    let members: Vec<ReplicaId> = log.replicas.iter().map(|placement| placement.replica).collect();
                    // A leader with an older catalog may have added to the group again a replica that was given up.
                    let is_leaving = |id| log.leaving.iter().any(|placement| placement.replica == id);
                    let leaves = |id| is_leaving(id) || catalog.has_left(log, id);
                    let target = Target { members: &members, removed: leaves, may_vote: |_| true };
                    self.move_voters(catalog, *group, replica, &target, now.tick, &mut actions);
                    self.report_removed(catalog, log, replica, &mut actions);
                    if catalog.feature_level() >= Feature::ManyLogs.level() {
                        let damaged = rebuilds::damaged_replica(log, replica, replicas);
                        actions.extend(damaged.map(|damaged| Action::GiveUpDamaged(*group, damaged)));
                    }
                    self.keep_log(catalog, log, replica, now, &mut actions);
                }
                None if *group == GroupId::CATALOG => {
                    let stay = catalog.members().map(|m| m.id).filter(|node| !retired.contains(node));
                    let members: Vec<ReplicaId> = stay.map(ReplicaId::of_node).collect();
                    let has_room = replica.voters.len() < CATALOG_VOTERS_MAX || broken(Fault::LearnersVote);
                    let target = Target {
                        members: &members,
                        removed: |id: ReplicaId| {
                            let node = NodeId(id.0);
                            catalog.is_removed(node) || is_replaced(node) || retired.contains(&node)
                        },
                        may_vote: |id: ReplicaId| {
                            let votes = |voters: &VotersOfGroups<'_>| voters.votes_in_known_logs(NodeId(id.0));
                            has_room && voters.as_ref().is_none_or(votes)
                        },
                    };
                    catalog_step = self.move_voters(catalog, *group, replica, &target, now.tick, &mut actions);
                }
                None => {}
            }
            if is_drained && replica.leads && !replica.is_changing {
                actions.push(Action::Drain(*group));
            }
        }
        let Some(of_catalog) = of_catalog.filter(|replica| replica.is_idle) else { return actions };
        self.pending.clear();
        // If a membership change of the catalog is proposed on this tick, its entry is not applied yet.
        if catalog_step.is_some() {
            return actions;
        }
        if let Some(command) = self.wanted_command(catalog) {
            actions.push(Action::Propose(command));
        } else if now.tick >= self.next_placement
            && catalog.feature_level() >= Feature::ManyLogs.level()
            && let Some(voters) = &voters
        {
            self.next_placement = now.tick + PLACEMENT_TICKS;
            let is_in_catalog = |node| of_catalog.progress.iter().any(|r| r.replica == ReplicaId::of_node(node));
            let gone = retired.into_iter().filter(|node| !is_in_catalog(*node)).map(Command::RemoveNode);
            let commands = self.candidates(catalog, of_catalog, voters, |c| c.commands(now.wall_us));
            actions.extend(gone.chain(commands).map(Action::Propose));
        }
        actions
    }

    fn candidates<T>(
        &self,
        catalog: &Catalog,
        of_catalog: &ReplicaFacts,
        voters: &VotersOfGroups<'_>,
        use_them: impl FnOnce(&Candidates<'_, &dyn Fn(NodeId) -> bool, &dyn Fn(NodeId) -> bool>) -> T,
    ) -> T {
        let me = self.me.id;
        let is_active = |node| {
            let id = ReplicaId::of_node(node);
            node == me || of_catalog.progress.iter().any(|r| r.replica == id && r.active)
        };
        let has_joined = |node| voters.has_joined(node);
        use_them(&Candidates { catalog, is_active: &is_active, has_joined: &has_joined })
    }

    /// Chooses the nodes of a new log. Called on the catalog's leader.
    pub fn place(&mut self, catalog: &Catalog, replicas: &Replicas, new: NewLog) -> NewLog {
        let Some(of_catalog) = replicas.get(&GroupId::CATALOG) else { return new };
        let votes = self.votes.1.clone();
        let voters = VotersOfGroups::of(replicas, &votes);
        let mut pending = std::mem::take(&mut self.pending);
        let placed = self.candidates(catalog, of_catalog, &voters, |c| c.place(new, &mut pending));
        self.pending = pending;
        placed
    }

    fn move_voters(
        &mut self,
        catalog: &Catalog,
        group: GroupId,
        replica: &ReplicaFacts,
        target: &Target<'_, impl Fn(ReplicaId) -> bool, impl Fn(ReplicaId) -> bool>,
        tick: u64,
        actions: &mut Vec<Action>,
    ) -> Option<Step> {
        if !replica.leads {
            self.voters.remove(&group);
            return None;
        }
        let voters = self.voters.entry(group).or_default();
        let (step, slow) = voters.next_step(replica.replica, replica, target, tick, self.ticks.round_max);
        let node = |id: ReplicaId| catalog.log(group).map_or(Some(NodeId(id.0)), |log| log.node_of(id));
        let notice = |(id, rounds)| Some(Action::Notice(Notice::SlowLearner { group, node: node(id)?, rounds }));
        actions.extend(slow.into_iter().filter_map(notice));
        actions.extend(step.map(|step| match step {
            Step::Change(change) => Action::ChangeMembership(group, change),
            Step::HandOver => Action::HandOver(group),
        }));
        step
    }

    /// The leader of a group reports the replicas that it has removed, so that their nodes drop them. It must be
    /// confirmed after it knows that they should leave: another leader may have replaced it and added one of them.
    fn report_removed(&self, catalog: &Catalog, log: &LogMeta, replica: &ReplicaFacts, actions: &mut Vec<Action>) {
        // Nodes of level 1 do not know the command: there, the catalog keeps listing the replicas of removed nodes.
        if catalog.feature_level() < Feature::ManyLogs.level() {
            return;
        }
        // Under load some entry is always not applied yet, but none of them is a conf change.
        if !replica.leads || replica.is_changing {
            return;
        }
        let is_in_group = |id| replica.progress.iter().any(|r| r.replica == id);
        let removed = log.leaving.iter().filter(|placement| !is_in_group(placement.replica));
        actions.extend(removed.map(|placement| Action::ReportRemoved(log.group, placement.replica)));
    }

    fn keep_log(
        &mut self,
        catalog: &Catalog,
        log: &LogMeta,
        replica: &ReplicaFacts,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let step = self.retention.update(log, &catalog.settings_of(log), replica, now);
        actions.extend(step.notice.map(Action::Notice));
        actions.push(Action::KeepTime { group: log.group, local_us: step.local_us, seal: step.seal });
        // The entry of a trim has the present time, and the records that are restored after it could not have an earlier
        // one.
        let expired = step.expired.filter(|_| !log.is_restoring());
        actions.extend(expired.map(|expired| Action::Trim(log.group, expired)));
    }

    /// Checks the placement of the logs on the next tick. Called after a log was deleted: perhaps it is to be purged at
    /// once.
    pub fn place_soon(&mut self) {
        self.next_placement = 0;
    }

    /// Forgets a group that this node no longer has a replica of.
    pub fn forget(&mut self, group: GroupId) {
        self.voters.remove(&group);
        self.retention.forget(group);
    }

    /// Decides about a command that was requested on this node.
    pub fn decide(&self, catalog: &Catalog, replicas: &Replicas, command: &Command) -> Decision {
        let Some(replica) = replicas.get(&GroupId::CATALOG) else { return Decision::Propose };
        let join = || {
            // A new cluster has its feature level and its first log before other nodes join.
            if !catalog.had_logs() {
                return Verdict::Wait;
            }
            let votes = VotesInLogs::of(catalog, replicas);
            let unfinished = VotersOfGroups::of(replicas, &votes).unfinished(catalog);
            self.joins.decide(&unfinished, self.ticks.silent_max)
        };
        requests::decide(catalog, replicas, replica, command, join)
    }

    /// Returns the command that this node should propose next, if any: to add itself as a member with its addresses, or
    /// what a new cluster needs: the highest feature level, and the first log. A command that the state refuses (a name
    /// that another member has) is never returned, because it would be proposed again on every tick, forever.
    /// `membership` handles that case.
    fn wanted_command(&self, catalog: &Catalog) -> Option<Command> {
        let join = std::iter::once_with(|| Command::AddNode(self.me.clone()));
        let is_new = !catalog.had_logs();
        let is_alone = catalog.members().count() == 1;
        let level = (is_new && is_alone).then_some(Command::RaiseFeatureLevel(self.level_max));
        let first = std::iter::once_with(|| is_new.then(|| self.first_log()).flatten());
        join.chain(level)
            .chain(first.flatten().map(Command::CreateLog))
            .find(|command| catalog.would_change(command) == Ok(true))
    }

    fn first_log(&self) -> Option<NewLog> {
        let origin = match self.level_max >= Feature::ManyLogs.level() {
            true => Origin::Nodes(vec![self.me.id]),
            false => Origin::Founder(GroupId(1), self.me.id),
        };
        let name = LogName::new(LogName::DEFAULT).ok()?;
        Some(NewLog { name, log_id: (self.new_log_id)()?, origin, settings: LogSettings::default(), restore: None })
    }
}
