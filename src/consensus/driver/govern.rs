//! What this node initiates as the leader of the catalog or of a group: members, logs, retention.

use std::time::Instant;

use super::{Driver, HostError, Replica, command_proposal};
use crate::catalog::{Command, LogMeta};
use crate::consensus::handle::{Appended, ProposeError};
use crate::consensus::joins::{Unfinished, Verdict};
use crate::reply::ReplySender;
use crate::types::{GroupId, NodeId};

impl Driver {
    /// As the leader of the catalog or of a group, brings the cluster one step closer to what the catalog says.
    pub(super) fn govern(&mut self, now: Instant, time_us: u64) -> Result<(), HostError> {
        if self.handing_over.is_some() {
            return Ok(());
        }
        let unfinished = if self.leads_catalog() { self.unfinished() } else { Vec::new() };
        self.joins.look(&unfinished);
        let members: Vec<NodeId> = self.catalog.members().map(|m| m.id).collect();
        // In the catalog a node votes last, so a join that is abandoned while it copies a log leaves no voter behind.
        let logs = self.catalog.logs().filter(|log| log.founded && self.leads_catalog());
        let replicas = logs.filter_map(|log| self.groups.get(&log.group));
        let known = replicas.filter(|replica| !replica.group.is_damaged() && !replica.group.is_blank());
        let voters_of_logs: Vec<Vec<NodeId>> = known.map(|replica| replica.group.status().voters).collect();
        for (id, replica) in &mut self.groups {
            let wanted = match self.catalog.log(*id) {
                Some(log) if !log.founded => continue,
                Some(_) | None => &members,
            };
            let may_vote = |node| *id != GroupId::CATALOG || voters_of_logs.iter().all(|voters| voters.contains(&node));
            replica.group.reconcile(wanted, |node| self.catalog.is_removed(node), may_vote);
            if let Some(log) = self.catalog.log(*id)
                && let Some(age) = self.retention.look(log, replica, &self.sinks.readers, now, time_us)
            {
                replica.end_old_segment(age, &self.sinks)?;
            }
        }
        let Some(command) = self.wanted_command() else { return Ok(()) };
        if let Some(catalog) = self.groups.get_mut(&GroupId::CATALOG).filter(|c| c.group.leads() && c.group.is_idle()) {
            let (reply, _nobody_waits) = crate::reply::reply();
            catalog.group.propose(command_proposal(&command), now, time_us, reply);
        }
        Ok(())
    }

    /// A command that this node wants applied to the catalog: itself as a member at its addresses, a first log, or that a log
    /// that it was to found exists. Never a command that can't apply (a name that another member has): it would be proposed again
    /// at every tick, forever. `membership` handles that case.
    fn wanted_command(&self) -> Option<Command> {
        let me = std::iter::once_with(|| Command::AddNode(self.me.clone()));
        let founds = |log: &&LogMeta| log.founder == self.me.id && self.groups.contains_key(&log.group);
        let founded = self.catalog.logs().filter(founds).map(|log| Command::Founded(log.group));
        let none = self.catalog.logs().next().is_none();
        let first = std::iter::once_with(|| none.then(|| LogMeta::first(self.me.id)).flatten());
        me.chain(founded)
            .chain(first.flatten().map(Command::CreateLog))
            .find(|command| self.catalog.would_change(command) == Ok(true))
    }

    /// Proposes a requested change of the catalog. A command that would change nothing is not appended: the catalog already shows
    /// its proposer the result.
    pub(super) fn command(
        &mut self,
        command: &Command,
        now: Instant,
        time_us: u64,
        reply: ReplySender<Result<Appended, ProposeError>>,
    ) {
        let Some(replica) = self.groups.get(&GroupId::CATALOG) else {
            return reply.send(Err(ProposeError::NoSuchGroup));
        };
        let (leads, idle) = (replica.group.leads(), replica.group.is_idle());
        let new = matches!(command, Command::AddNode(member) if self.catalog.member(member.id).is_none());
        if leads && new {
            match self.joins.decide(&self.unfinished()) {
                // An entry that is not applied yet may add another node.
                Verdict::Admit if idle => {}
                Verdict::Replace(abandoned) if idle => {
                    log::warn!(
                        "removing node {abandoned}: it has not finished its join and is silent, and another node asks to join"
                    );
                    let (removal, _nobody_waits) = crate::reply::reply();
                    self.command(&Command::RemoveNode(abandoned), now, time_us, removal);
                    return reply.send(Err(ProposeError::Dropped));
                }
                Verdict::Admit | Verdict::Replace(_) | Verdict::Wait => {
                    return reply.send(Err(ProposeError::Dropped));
                }
            }
        }
        if leads && idle && self.catalog.would_change(command) != Ok(true) {
            return reply.send(Err(ProposeError::Dropped));
        }
        if let Some(replica) = self.groups.get_mut(&GroupId::CATALOG) {
            replica.group.propose(command_proposal(command), now, time_us, reply);
        }
    }

    fn leads_catalog(&self) -> bool {
        self.groups.get(&GroupId::CATALOG).is_some_and(|replica| replica.group.leads())
    }

    /// The members that do not vote in every group yet. What is damaged here says nothing about others.
    pub(super) fn unfinished(&self) -> Vec<Unfinished> {
        let founded = self.catalog.logs().filter(|log| log.founded).map(|log| log.group);
        let groups: Vec<Option<&Replica>> =
            founded.chain([GroupId::CATALOG]).map(|group| self.groups.get(&group)).collect();
        let sound = || groups.iter().filter(|replica| replica.is_none_or(|h| !h.group.is_damaged()));
        let votes = |replica: &Option<&Replica>, node| replica.is_some_and(|h| h.group.votes(node));
        let active = |node| self.groups.get(&GroupId::CATALOG).is_some_and(|h| h.group.hears(node));
        let nodes = self.catalog.members().map(|m| m.id).filter(|node| !sound().all(|replica| votes(replica, *node)));
        let unfinished =
            |node| Unfinished { node, votes: groups.iter().any(|replica| votes(replica, node)), active: active(node) };
        nodes.map(unfinished).collect()
    }
}
