//! Applies the catalog, and performs what its policy wants done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::host::{Host, nodes_of};
use crate::catalog::faults::{Fault, broken};
use crate::catalog::policy::facts::{Now, ReplicaFacts, Replicas};
use crate::catalog::policy::hosting::{NewReplica, hosting_step};
use crate::catalog::policy::notice::Notice;
use crate::catalog::policy::rebuilds::may_give_up;
use crate::catalog::policy::requests::{Decision, PeerDecision, decide_for_peer};
use crate::catalog::policy::voters::MembershipChange;
use crate::catalog::policy::{Action, Policy, PolicyTicks};
use crate::catalog::{Applied, Catalog, CatalogView, Command, Member, Touched};
use crate::consensus::damage::ReportedDamage;
use crate::consensus::error::HostError;
use crate::consensus::freshness::Freshness;
use crate::consensus::group::{ELECTION_TICKS, Successor, TICK_MS};
use crate::consensus::groups::Groups;
use crate::consensus::handle::{Appended, ConsensusHandle, Proposal, ProposeError, command_proposal};
use crate::consensus::removals::Removals;
use crate::consensus::replica::CatalogInput;
use crate::consensus::retention::Searches;
use crate::consensus::sinks::Sinks;
use crate::feature_level::{Feature, FeatureRange};
use crate::reply::{ReplySender, reply};
use crate::storage::entry::EntryKind;
use crate::storage::log::CatalogState;
use crate::types::{GroupId, LogId, LogIndex, NodeId, ReplicaId};

/// A snapshot of the catalog is stored after this many commands.
const SNAPSHOT_COMMANDS: u64 = 4096;

/// A joining member that was silent for this many ticks counts as an abandoned join.
pub const SILENT_TICKS_MAX: u32 = (5 * 60 * 1000 / TICK_MS) as u32;

/// The reply to a proposal.
pub type ProposeReply = ReplySender<Result<Appended, ProposeError>>;

/// The catalog of this node, and its policy.
pub struct Governor {
    me: NodeId,
    catalog: Catalog,
    /// The entry of the last command that `catalog` includes.
    applied: LogIndex,
    /// The number of commands since the newest snapshot.
    commands: u64,
    view: CatalogView,
    policy: Policy,
    searches: Searches,
    removals: Removals,
    freshness: Freshness,
    facts: Replicas,
    /// The damaged replicas of other nodes.
    pub reported: ReportedDamage,
    /// The members that send no heartbeats.
    silent: BTreeSet<NodeId>,
}

impl Governor {
    /// Starts with an empty catalog, which the newest snapshot and the replay of group 0 fill. `me` is this node's
    /// entry in the catalog.
    pub fn new(me: Member, view: CatalogView, consensus: ConsensusHandle) -> Governor {
        let ticks = PolicyTicks { round_max: ELECTION_TICKS as u64, silent_max: SILENT_TICKS_MAX };
        let level_max = view.level().range().max();
        Governor {
            me: me.id,
            catalog: Catalog::default(),
            applied: LogIndex(0),
            commands: 0,
            view,
            policy: Policy::new(me, ticks, level_max, || LogId::random().ok()),
            searches: Searches::new(consensus),
            removals: Removals::default(),
            freshness: Freshness::default(),
            facts: Replicas::new(),
            reported: ReportedDamage::default(),
            silent: BTreeSet::new(),
        }
    }

    /// Returns the feature levels that this node supports.
    pub fn supported(&self) -> FeatureRange {
        self.view.level().range()
    }

    /// Returns true if the cluster's feature level allows the feature.
    pub fn allows(&self, feature: Feature) -> bool {
        self.view.level().allows(feature)
    }

    /// Returns the catalog as applied on this node.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Replaces the catalog by that of a snapshot, if the snapshot is newer.
    ///
    /// # Errors
    /// If this version can't decode it.
    pub fn restore(&mut self, snapshot: &CatalogState) -> Result<(), HostError> {
        // A snapshot is never older than what is applied, except if the process ended while one was being installed.
        if snapshot.index > self.applied {
            self.catalog = Catalog::decode(&snapshot.bytes).map_err(HostError::Catalog)?;
            self.applied = snapshot.index;
            self.commands = 0;
        }
        Ok(())
    }

    /// Applies changes of the catalog, and publishes it. Creates and drops the replicas of the changed logs, and opens
    /// the logs for clients. Returns the groups whose replicas were dropped.
    pub fn apply(
        &mut self,
        inputs: Vec<CatalogInput>,
        groups: &mut Groups,
        host: &mut Host,
        sinks: &Sinks,
    ) -> Result<Vec<GroupId>, HostError> {
        let mut touched = BTreeSet::new();
        for input in inputs {
            let now_touched = self.apply_one(input)?;
            match now_touched {
                Touched::NoLog => {}
                Touched::Log(group) => {
                    touched.insert(group);
                }
                Touched::AllLogs => touched.extend(self.all_groups(groups)),
            }
        }
        // First: a stream that ends because its log is removed reads here whether it was deleted.
        self.publish()?;
        self.host(&touched, groups, host, sinks)
    }

    fn apply_one(&mut self, input: CatalogInput) -> Result<Touched, HostError> {
        match input {
            CatalogInput::Snapshot(snapshot) => {
                self.restore(&snapshot)?;
                Ok(Touched::AllLogs)
            }
            // A snapshot may include later commands than the log has at its beginning.
            CatalogInput::Command(command) if command.index <= self.applied => Ok(Touched::NoLog),
            CatalogInput::Command(command) => {
                let decoded = Command::decode(&command.bytes).map_err(HostError::Catalog)?;
                log::debug!("catalog: {decoded:?}");
                self.applied = command.index;
                self.commands += 1;
                if matches!(decoded, Command::DeleteLog(..)) {
                    self.policy.place_soon();
                }
                match self.catalog.apply(&decoded, command.append_time_us) {
                    Applied::Changed(touched) => Ok(touched),
                    Applied::Unchanged => Ok(Touched::NoLog),
                    Applied::Ignored(conflict) => {
                        log::debug!("catalog: the command was ignored: {conflict}");
                        Ok(Touched::NoLog)
                    }
                }
            }
        }
    }

    /// The groups of all logs, and of all replicas.
    fn all_groups(&self, groups: &Groups) -> BTreeSet<GroupId> {
        let hosted = groups.iter().map(|(group, _)| *group).filter(|group| *group != GroupId::CATALOG);
        self.catalog.logs().map(|log| log.group).chain(hosted).collect()
    }

    /// Creates, drops and serves the replicas of all logs, after a start. Returns the groups whose replicas were dropped.
    pub fn host_all(&mut self, groups: &mut Groups, host: &mut Host, sinks: &Sinks) -> Result<Vec<GroupId>, HostError> {
        let all = self.all_groups(groups);
        self.publish()?;
        self.host(&all, groups, host, sinks)
    }

    fn host(
        &mut self,
        touched: &BTreeSet<GroupId>,
        groups: &mut Groups,
        host: &mut Host,
        sinks: &Sinks,
    ) -> Result<Vec<GroupId>, HostError> {
        if let Some(of_catalog) = groups.get_quietly(&GroupId::CATALOG) {
            of_catalog.group.avoid(self.catalog.avoided_nodes().into_iter().map(ReplicaId::of_node).collect());
        }
        let mut dropped = Vec::new();
        let mut created = BTreeMap::<GroupId, NewReplica>::new();
        for group in touched {
            let hosted = host.replica_of(*group);
            let may_create = |replica| host.node_file.may_create(*group, replica);
            let step = hosting_step(&self.catalog, self.me, *group, hosted, may_create);
            if step.drop.is_some() {
                // First: readers that wait for the replica then find that its log was removed.
                host.withdraw(*group);
                host.drop_replica(*group, groups, sinks, self.catalog.log(*group))?;
                self.policy.forget(*group);
                self.removals.forget(*group);
                self.freshness.forget(*group);
                self.facts.remove(group);
                dropped.push(*group);
            }
            created.extend(step.create.map(|new| (*group, new)));
        }
        host.create(&created, groups, sinks)?;
        for group in touched {
            match (self.catalog.log(*group), groups.get_mut(group)) {
                (Some(log), Some(replica)) => {
                    replica.group.nodes_mut().clone_from(&nodes_of(log));
                    replica.group.avoid(self.catalog.avoided_leaders(log));
                    host.serve(&self.catalog, log, replica);
                }
                (Some(log), None) => host.serve_lost(&self.catalog, log),
                (None, None) => host.withdraw(*group),
                // The catalog is being replayed, and does not contain the log yet.
                (None, Some(_)) => {}
            }
        }
        Ok(dropped)
    }

    fn publish(&self) -> Result<(), HostError> {
        let (level, range) = (self.catalog.feature_level(), self.supported());
        // While the catalog is replayed, the level may still be lower than it is: `check_level` checks the other end.
        if level > range.max() {
            return Err(HostError::FeatureLevel { level, range });
        }
        if level > self.view.level().get() {
            log::info!("the cluster is at feature level {level}: nodes that do not support it are refused");
        }
        self.view.publish(self.catalog.clone());
        Ok(())
    }

    /// Returns the snapshot of the catalog that should be stored now, if one is due.
    pub fn due_snapshot(&mut self) -> Option<CatalogState> {
        if self.commands < SNAPSHOT_COMMANDS || !self.view.level().allows(Feature::ManyLogs) {
            return None;
        }
        self.commands = 0;
        Some(self.snapshot())
    }

    /// Returns a snapshot of the catalog.
    pub fn snapshot(&self) -> CatalogState {
        CatalogState { index: self.applied, bytes: self.catalog.encode().into() }
    }

    /// Refuses a cluster at a feature level that this version no longer supports. Only a leader that has applied all
    /// entries knows it; a follower is refused by its leader.
    fn check_level(&self, replicas: &Replicas) -> Result<(), HostError> {
        let (level, range) = (self.catalog.feature_level(), self.supported());
        let knows = replicas.get(&GroupId::CATALOG).is_some_and(|catalog| catalog.leads && catalog.is_idle);
        if knows && !range.contains(level) { Err(HostError::FeatureLevel { level, range }) } else { Ok(()) }
    }

    /// Performs the actions that the policy requests on a tick, for the groups that are due.
    pub fn tick(
        &mut self,
        groups: &mut Groups,
        due: &BTreeSet<GroupId>,
        sinks: &Sinks,
        now: Now,
    ) -> Result<(), HostError> {
        self.check_level(&self.facts)?;
        for action in self.policy.tick(&self.catalog, &self.facts, due, now) {
            match action {
                Action::Propose(command) => self.propose(groups, sinks, &command, now),
                Action::ChangeMembership(group, change) => {
                    if adds(change) && !self.may_add(group, groups, sinks, now) {
                        continue;
                    }
                    if let Some(replica) = groups.get_mut(&group) {
                        replica.group.change_membership(change);
                    }
                }
                Action::HandOver(group) => {
                    if let Some(replica) = groups.get_mut(&group) {
                        replica.group.hand_over(Successor::Any);
                    }
                }
                Action::Drain(group) => {
                    if let Some(replica) = groups.get_mut(&group) {
                        replica.group.hand_over(Successor::NotAvoided);
                    }
                }
                Action::ReportRemoved(group, removed) => {
                    let confirmed = groups
                        .get_mut(&group)
                        .is_some_and(|replica| self.removals.is_confirmed(group, removed, &mut replica.group, now.at));
                    if confirmed {
                        self.propose(groups, sinks, &Command::ReplicaRemoved(group, removed), now);
                    }
                }
                Action::GiveUpDamaged(group, damaged) => {
                    let confirmed = groups
                        .get_mut(&group)
                        .is_some_and(|replica| self.removals.is_confirmed(group, damaged, &mut replica.group, now.at));
                    let of_catalog = self.facts.get(&GroupId::CATALOG).filter(|facts| facts.leads);
                    let checked = of_catalog.is_none_or(|facts| may_give_up(&self.catalog, facts, group, damaged));
                    if confirmed && checked {
                        log::info!("group {group}: replica {damaged} is damaged: asking the catalog to replace it");
                        self.propose(groups, sinks, &Command::RemoveReplica(group, damaged), now);
                    }
                }
                Action::KeepTime { group, local_us, seal } => {
                    // This has no effects on the group.
                    if let Some(replica) = groups.get_quietly(&group) {
                        replica.keep_time(local_us, seal, sinks)?;
                    }
                }
                Action::Trim(group, expired) => {
                    if let Some(replica) = groups.get(&group) {
                        self.searches.start(group, expired, &replica.reader, &sinks.readers);
                    }
                }
                Action::Notice(notice) => log_notice(&notice),
            }
        }
        Ok(())
    }

    /// Returns true if this node's catalog is recent enough to add a replica to a group that it leads. The members of the
    /// catalog's own group are those of the catalog itself.
    fn may_add(&mut self, group: GroupId, groups: &mut Groups, sinks: &Sinks, now: Now) -> bool {
        if group == GroupId::CATALOG || broken(Fault::OutdatedLeaderAdds) {
            return true;
        }
        let (Some(term), Some(catalog)) =
            (groups.get(&group).map(|replica| replica.group.term()), groups.get_mut(&GroupId::CATALOG))
        else {
            return false;
        };
        let (applied, leader) = (catalog.group.visible().applied, catalog.leader_node());
        let me = self.me;
        self.freshness.is_fresh(group, term, applied, leader, |leader| {
            if leader != me {
                return sinks.outbound.read_index(leader, GroupId::CATALOG);
            }
            let (sender, answer) = reply();
            catalog.group.read_index(None, now.at, sender);
            answer
        })
    }

    /// Proposes a command, or sends it to the catalog's leader.
    fn propose(&self, groups: &mut Groups, sinks: &Sinks, command: &Command, now: Now) {
        let leader = groups.get(&GroupId::CATALOG).and_then(|catalog| catalog.status().leader);
        match leader {
            Some(leader) if leader != self.me => sinks.outbound.propose(leader, command_proposal(command)),
            Some(_) | None => propose(groups, command, now.at, now.wall_us, reply().0),
        }
    }

    /// Proposes a requested change of the catalog. A command that would change nothing is not appended: the catalog
    /// already shows the result. `supported` are the feature levels of the node that asks for it.
    pub fn command(
        &mut self,
        groups: &mut Groups,
        command: &Command,
        supported: FeatureRange,
        now: Instant,
        time_us: u64,
        answer: ProposeReply,
    ) {
        if !groups.contains_key(&GroupId::CATALOG) {
            return answer.send(Err(ProposeError::NoSuchGroup));
        }
        // Decided where a raise of the level is decided, too: the caller's check may be older than the raise.
        if let Command::AddNode(member) | Command::ReplaceNode(_, member) = command
            && !supported.contains(self.catalog.feature_level())
        {
            return answer.send(Err(ProposeError::LevelUnsupported { member: member.id }));
        }
        self.observe(groups, [GroupId::CATALOG]);
        match self.policy.decide(&self.catalog, &self.facts, command) {
            Decision::Propose => propose(groups, command, now, time_us, answer),
            Decision::Drop => answer.send(Err(ProposeError::Dropped)),
            Decision::Needed(group) => answer.send(Err(ProposeError::NodeNeeded { group })),
            Decision::Replace(abandoned) => {
                log_notice(&Notice::JoinAbandoned(abandoned));
                let (unread, _) = reply();
                propose(groups, &Command::RemoveNode(abandoned), now, time_us, unread);
                answer.send(Err(ProposeError::Dropped));
            }
        }
    }

    /// Whether this node, if it leads the group, appends a proposal. It may come from a peer, so it was perhaps not
    /// checked before. (`replication/proposal.rs` checks those to logs, on the thread that receives them.) Chooses the
    /// nodes of a new log.
    ///
    /// # Errors
    /// The answer to a proposal that is not appended.
    pub fn check(&mut self, proposal: &mut Proposal, groups: &Groups, sinks: &Sinks) -> Result<(), ProposeError> {
        if proposal.group != GroupId::CATALOG || !groups.contains_key(&GroupId::CATALOG) {
            return Ok(());
        }
        if proposal.kind != EntryKind::Records {
            return Err(ProposeError::Dropped);
        }
        self.observe(groups, [GroupId::CATALOG]);
        let Some(facts) = self.facts.get(&GroupId::CATALOG).filter(|facts| facts.leads) else {
            // The group answers with its leader.
            return Ok(());
        };
        let records = proposal.payload.payload();
        let levels_of = |member| sinks.outbound.levels_of(member);
        match decide_for_peer(&self.catalog, &records, proposal.count, facts, levels_of) {
            PeerDecision::Accept => Ok(()),
            PeerDecision::Place(new) => {
                let command = Command::CreateLog(self.policy.place(&self.catalog, &self.facts, new));
                if self.catalog.would_change(&command) != Ok(true) {
                    return Err(ProposeError::Dropped);
                }
                proposal.payload = command.payload();
                Ok(())
            }
            PeerDecision::Drop => Err(ProposeError::Dropped),
            PeerDecision::LevelUnsupported(member) => Err(ProposeError::LevelUnsupported { member }),
            PeerDecision::MemberSilent(member) => Err(ProposeError::MemberSilent { member }),
            PeerDecision::NodeNeeded(group) => Err(ProposeError::NodeNeeded { group }),
        }
    }

    /// Collects the facts about replicas that the policy needs.
    pub fn observe(&mut self, groups: &Groups, observed: impl IntoIterator<Item = GroupId>) {
        for group in observed {
            if let Some(replica) = groups.get(&group) {
                let is_searched = self.searches.is_running(group);
                let damaged = self.reported.of(group);
                let mut facts = ReplicaFacts { damaged, ..replica.facts(is_searched) };
                if group == GroupId::CATALOG {
                    // Raft notices a lost node later than the heartbeats of nodes do.
                    let silent = |id: ReplicaId| self.silent.contains(&NodeId(id.0));
                    facts.progress.iter_mut().filter(|r| silent(r.replica)).for_each(|r| r.active = false);
                }
                self.facts.insert(group, facts);
            }
        }
    }

    /// Sets the members that are silent.
    pub fn set_silent(&mut self, silent: &BTreeSet<NodeId>) {
        if self.silent != *silent {
            self.silent.clone_from(silent);
        }
    }

    /// The facts about this node's replicas, as last observed.
    pub fn facts(&self) -> &Replicas {
        &self.facts
    }

    /// The facts about this node's replicas, to correct them.
    pub fn facts_mut(&mut self) -> &mut Replicas {
        &mut self.facts
    }

    /// The policy, for tests that need a state which takes long to reach.
    #[cfg(test)]
    pub fn policy(&mut self) -> (&mut Policy, &Catalog) {
        (&mut self.policy, &self.catalog)
    }
}

fn propose(groups: &mut Groups, command: &Command, now: Instant, time_us: u64, reply: ProposeReply) {
    match groups.get_mut(&GroupId::CATALOG) {
        Some(catalog) => catalog.group.propose(command_proposal(command), now, time_us, reply),
        None => reply.send(Err(ProposeError::NoSuchGroup)),
    }
}

fn adds(change: MembershipChange) -> bool {
    match change {
        MembershipChange::AddLearner(_) | MembershipChange::AddVoter(_) => true,
        MembershipChange::Remove(_) => false,
    }
}

fn log_notice(notice: &Notice) {
    log::log!(notice.level(), "{notice}");
}
