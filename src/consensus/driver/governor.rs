//! Applies the catalog, and performs what its policy wants done.

use std::time::Instant;

use bytes::Bytes;

use super::host::Host;
use crate::catalog::policy::facts::{Now, Replicas};
use crate::catalog::policy::hosting::wanted_replicas;
use crate::catalog::policy::notice::Notice;
use crate::catalog::policy::requests::{Decision, PeerDecision, decide_for_peer};
use crate::catalog::policy::{Action, Policy, PolicyTicks};
use crate::catalog::{Applied, Catalog, CatalogView, Command, Member};
use crate::consensus::error::HostError;
use crate::consensus::group::{ELECTION_TICKS, TICK_MS};
use crate::consensus::handle::{Appended, ConsensusHandle, Proposal, ProposeError, command_proposal};
use crate::consensus::replica::{Groups, Replica};
use crate::consensus::retention::Searches;
use crate::consensus::sinks::Sinks;
use crate::feature_level::FeatureRange;
use crate::reply::{ReplySender, reply};
use crate::storage::entry::EntryKind;
use crate::types::{GroupId, LogId};

/// A joining member that was silent for this many ticks counts as an abandoned join.
pub const SILENT_TICKS_MAX: u32 = (5 * 60 * 1000 / TICK_MS) as u32;

/// The reply to a proposal.
pub type ProposeReply = ReplySender<Result<Appended, ProposeError>>;

/// The catalog of this node, and its policy.
pub struct Governor {
    catalog: Catalog,
    view: CatalogView,
    policy: Policy,
    searches: Searches,
}

impl Governor {
    /// Starts with an empty catalog, which the replay of group 0 fills. `me` is this node's entry in the catalog.
    pub fn new(me: Member, view: CatalogView, consensus: ConsensusHandle) -> Governor {
        let ticks = PolicyTicks { round_max: ELECTION_TICKS as u64, silent_max: SILENT_TICKS_MAX };
        Governor {
            catalog: Catalog::default(),
            view,
            policy: Policy::new(me, ticks, || LogId::random().ok()),
            searches: Searches::new(consensus),
        }
    }

    /// Returns the feature levels that this node supports.
    pub fn supported(&self) -> FeatureRange {
        self.view.level().range()
    }

    /// Returns the catalog as applied on this node.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Applies commands, creates the replicas that this node should host, opens their logs for clients, and publishes the
    /// catalog.
    pub fn apply(
        &mut self,
        commands: &[Bytes],
        groups: &mut Groups,
        host: &mut Host,
        sinks: &Sinks,
    ) -> Result<(), HostError> {
        for bytes in commands {
            let command = Command::decode(bytes).map_err(HostError::Catalog)?;
            log::debug!("catalog: {command:?}");
            if let Applied::Ignored(conflict) = self.catalog.apply(command) {
                log::debug!("catalog: the command was ignored: {conflict}");
            }
        }
        for wanted in wanted_replicas(&self.catalog, host.me, |group| groups.contains_key(&group)).collect::<Vec<_>>() {
            if let Some(genesis) = wanted.create {
                host.create(wanted.log.group, genesis, groups, sinks)?;
            }
            if let Some(replica) = groups.get(&wanted.log.group).filter(|_| wanted.serves) {
                host.serve(wanted.log, replica);
            }
        }
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

    /// Refuses a cluster at a feature level that this version no longer supports. Only a leader that has applied all
    /// entries knows it; a follower is refused by its leader.
    fn check_level(&self, replicas: &Replicas) -> Result<(), HostError> {
        let (level, range) = (self.catalog.feature_level(), self.supported());
        let knows = replicas.get(&GroupId::CATALOG).is_some_and(|catalog| catalog.leads && catalog.is_idle);
        if knows && !range.contains(level) { Err(HostError::FeatureLevel { level, range }) } else { Ok(()) }
    }

    /// Performs the actions that the policy requests on a tick.
    pub fn tick(&mut self, groups: &mut Groups, replicas: &Replicas, sinks: &Sinks, now: Now) -> Result<(), HostError> {
        self.check_level(replicas)?;
        for action in self.policy.tick(&self.catalog, replicas, now) {
            match action {
                Action::Propose(command) => {
                    let (unread, _) = reply();
                    propose(groups, &command, now.at, now.wall_us, unread);
                }
                Action::ChangeMembership(group, change) => {
                    groups.entry(group).and_modify(|replica| replica.group.change_membership(change));
                }
                Action::HandOver(group) => {
                    groups.entry(group).and_modify(|replica| {
                        replica.group.hand_over();
                    });
                }
                Action::KeepTime { group, local_us, seal } => {
                    if let Some(replica) = groups.get(&group) {
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

    /// Proposes a requested change of the catalog. A command that would change nothing is not appended: the catalog already
    /// shows the result. `supported` are the feature levels of the node that asks for it.
    pub fn command(
        &self,
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
        if let Command::AddNode(member) = command
            && !supported.contains(self.catalog.feature_level())
        {
            return answer.send(Err(ProposeError::LevelUnsupported { member: member.id }));
        }
        match self.policy.decide(&self.catalog, &self.facts(groups), command) {
            Decision::Propose => propose(groups, command, now, time_us, answer),
            Decision::Drop => answer.send(Err(ProposeError::Dropped)),
            Decision::Replace(abandoned) => {
                log_notice(&Notice::JoinAbandoned(abandoned));
                let (unread, _) = reply();
                propose(groups, &Command::RemoveNode(abandoned), now, time_us, unread);
                answer.send(Err(ProposeError::Dropped));
            }
        }
    }

    /// Whether this node, if it leads the group, appends a proposal. It may come from a peer, so it was perhaps not checked
    /// before. (`replication/proposal.rs` checks those to logs, on the thread that receives them.)
    ///
    /// # Errors
    /// The answer to a proposal that is not appended.
    pub fn check(&self, proposal: &Proposal, groups: &Groups, sinks: &Sinks) -> Result<(), ProposeError> {
        let Some(catalog) = groups.get(&proposal.group).filter(|_| proposal.group == GroupId::CATALOG) else {
            return Ok(());
        };
        if proposal.kind != EntryKind::Records {
            return Err(ProposeError::Dropped);
        }
        let facts = catalog.facts(false);
        if !facts.leads {
            // The group answers with its leader.
            return Ok(());
        }
        let records = proposal.payload.payload();
        let levels_of = |member| sinks.outbound.levels_of(member);
        match decide_for_peer(&self.catalog, &records, proposal.count, &facts, levels_of) {
            PeerDecision::Accept => Ok(()),
            PeerDecision::Drop => Err(ProposeError::Dropped),
            PeerDecision::LevelUnsupported(member) => Err(ProposeError::LevelUnsupported { member }),
            PeerDecision::MemberSilent(member) => Err(ProposeError::MemberSilent { member }),
        }
    }

    /// Returns the facts that the policy needs about all replicas.
    pub fn facts(&self, groups: &Groups) -> Replicas {
        let facts = |(group, replica): (&GroupId, &Replica)| {
            let is_searched = self.searches.is_running(*group);
            (*group, replica.facts(is_searched))
        };
        groups.iter().map(facts).collect()
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

fn log_notice(notice: &Notice) {
    log::log!(notice.level(), "{notice}");
}
