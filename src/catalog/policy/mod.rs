//! The policy: decides what this node does to bring the cluster to the state that the catalog describes.
//!
//! It is a pure state machine: its inputs are the catalog, facts about this node's replicas ([`facts`]) and the time;
//! its outputs are actions. It performs no I/O and reads no clock, so scripts can test it (`catalog/tests/scripts/`).
//! `consensus` collects the facts and performs the actions.
//!
//! - [`hosting`]: of which logs this node has a replica.
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
pub mod notice;
pub mod requests;
pub mod retention;
pub mod voters;

use std::collections::BTreeMap;

use self::facts::{Now, ReplicaFacts, Replicas};
use self::joins::{Joins, VotersOfGroups};
use self::notice::Notice;
use self::requests::Decision;
use self::retention::{Expired, Retention};
use self::voters::{GroupVoters, MembershipChange, Step, Target};
use super::command::Command;
use super::meta::{LogMeta, Member};
use super::state::Catalog;
use crate::storage::log::SealAge;
use crate::types::{GroupId, LogId, NodeId};

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
    /// Propose a command to the catalog, which this node leads.
    Propose(Command),
    /// Propose a change of the membership of a group, which this node leads.
    ChangeMembership(GroupId, MembershipChange),
    /// Hand over leadership of a group.
    HandOver(GroupId),
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
    new_log_id: fn() -> Option<LogId>,
    voters: BTreeMap<GroupId, GroupVoters>,
    joins: Joins,
    retention: Retention,
}

impl Policy {
    /// Creates a policy. `me` is this node's entry in the catalog. `new_log_id` returns a random id, or `None` if the
    /// system can't provide random bytes.
    pub fn new(me: Member, ticks: PolicyTicks, new_log_id: fn() -> Option<LogId>) -> Policy {
        Policy {
            me,
            ticks,
            new_log_id,
            voters: BTreeMap::new(),
            joins: Joins::default(),
            retention: Retention::default(),
        }
    }

    /// Decides what to do on a tick.
    pub fn tick(&mut self, catalog: &Catalog, replicas: &Replicas, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        let of_catalog = replicas.get(&GroupId::CATALOG).filter(|replica| replica.leads);
        let voters = of_catalog.map(|_| VotersOfGroups::of(catalog, replicas));
        let unfinished = voters.as_ref().map(|voters| voters.unfinished(catalog)).unwrap_or_default();
        self.joins.update(&unfinished);
        let members: Vec<NodeId> = catalog.members().map(|m| m.id).collect();
        let mut catalog_step = None;
        for (group, replica) in replicas {
            let log = catalog.log(*group);
            if log.is_some_and(|log| !log.founded) {
                continue;
            }
            let target = Target {
                members: &members,
                removed: |node| catalog.is_removed(node),
                may_vote: |node| {
                    *group != GroupId::CATALOG || voters.as_ref().is_none_or(|voters| voters.votes_in_known_logs(node))
                },
            };
            let step = self.move_voters(*group, replica, &target, now.tick, &mut actions);
            if *group == GroupId::CATALOG {
                catalog_step = step;
            }
            if let Some(log) = log {
                self.keep_log(log, replica, now, &mut actions);
            }
        }
        // If a membership change of the catalog is proposed on this tick, its entry is not applied yet.
        if of_catalog.is_some_and(|replica| replica.is_idle) && catalog_step.is_none() {
            actions.extend(self.wanted_command(catalog, replicas).map(Action::Propose));
        }
        actions
    }

    fn move_voters(
        &mut self,
        group: GroupId,
        replica: &ReplicaFacts,
        target: &Target<'_, impl Fn(NodeId) -> bool, impl Fn(NodeId) -> bool>,
        tick: u64,
        actions: &mut Vec<Action>,
    ) -> Option<Step> {
        if !replica.leads {
            self.voters.remove(&group);
            return None;
        }
        let voters = self.voters.entry(group).or_default();
        let (step, slow) = voters.next_step(self.me.id, replica, target, tick, self.ticks.round_max);
        let notice = |(node, rounds)| Action::Notice(Notice::SlowLearner { group, node, rounds });
        actions.extend(slow.into_iter().map(notice));
        actions.extend(step.map(|step| match step {
            Step::Change(change) => Action::ChangeMembership(group, change),
            Step::HandOver => Action::HandOver(group),
        }));
        step
    }

    fn keep_log(&mut self, log: &LogMeta, replica: &ReplicaFacts, now: Now, actions: &mut Vec<Action>) {
        let step = self.retention.update(log, replica, now);
        actions.extend(step.notice.map(Action::Notice));
        actions.push(Action::KeepTime { group: log.group, local_us: step.local_us, seal: step.seal });
        actions.extend(step.expired.map(|expired| Action::Trim(log.group, expired)));
    }

    /// Decides about a command that was requested on this node.
    pub fn decide(&self, catalog: &Catalog, replicas: &Replicas, command: &Command) -> Decision {
        let Some(replica) = replicas.get(&GroupId::CATALOG) else { return Decision::Propose };
        let join = || {
            let unfinished = VotersOfGroups::of(catalog, replicas).unfinished(catalog);
            self.joins.decide(&unfinished, self.ticks.silent_max)
        };
        requests::decide(catalog, replica, command, join)
    }

    /// Returns the command that this node should propose next, if any: to add itself as a member with its addresses,
    /// to report that it has founded a log, or to create the first log. A command that the state refuses (a name that
    /// another member has) is never returned, because it would be proposed again on every tick, forever. `membership`
    /// handles that case.
    fn wanted_command(&self, catalog: &Catalog, replicas: &Replicas) -> Option<Command> {
        let join = std::iter::once_with(|| Command::AddNode(self.me.clone()));
        let founds = |log: &&LogMeta| log.founder == self.me.id && replicas.contains_key(&log.group);
        let founded = catalog.logs().filter(founds).map(|log| Command::Founded(log.group));
        let first_log = || LogMeta::first_with_id(self.me.id, (self.new_log_id)()?);
        let first = std::iter::once_with(|| catalog.logs().next().is_none().then(first_log).flatten());
        join.chain(founded)
            .chain(first.flatten().map(Command::CreateLog))
            .find(|command| catalog.would_change(command) == Ok(true))
    }
}
