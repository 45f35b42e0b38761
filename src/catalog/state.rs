//! The state machine: the catalog as a pure function of the commands in group 0's log.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Command;
use super::meta::{LogChange, LogMeta, Member, is_address};
use crate::feature_level::FeatureLevel;
use crate::types::{GroupId, LogName, NodeId, NodeName};

/// The state after some prefix of group 0's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    feature_level: FeatureLevel,
    members: BTreeMap<NodeId, Member>,
    removed: BTreeSet<NodeId>,
    logs: BTreeMap<GroupId, LogMeta>,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog {
            feature_level: FeatureLevel::FIRST,
            members: BTreeMap::new(),
            removed: BTreeSet::new(),
            logs: BTreeMap::new(),
        }
    }
}

/// Why a command can't be applied to the current state. Every node ignores its entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The ids of removed nodes are never used again.
    #[error("node {0} was removed")]
    NodeRemoved(NodeId),
    /// Another member has the name.
    #[error("the name {} belongs to member {}", .0.name, .0.id)]
    NameTaken(Member),
    /// The node never was a member.
    #[error("node {0} is not a member")]
    NoSuchNode(NodeId),
    /// Another log has the name or the group, or the group is the catalog's.
    #[error("the name or the group of the log is taken")]
    LogTaken,
    /// No log has this group.
    #[error("no log has group {0}")]
    NoSuchLog(GroupId),
    /// The settings of the log would be out of bounds, alone or in combination.
    #[error("the settings of the log of group {0} are out of bounds")]
    BadLimits(GroupId),
    /// No correct node proposes it: an id of 0, a malformed address, a group above [`Catalog::GROUPS_MAX`].
    #[error("the command contains an invalid id, address or group")]
    Malformed,
    /// The cluster has [`Catalog::MEMBERS_MAX`] members.
    #[error("the cluster already has {} members", Catalog::MEMBERS_MAX)]
    TooManyMembers,
}

/// The result of applying a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The catalog has changed.
    Changed,
    /// The command has no effect, because the catalog already has the requested state.
    Unchanged,
    /// The command does not fit the state and was ignored.
    Ignored(Conflict),
}

/// A change of one item of the state.
enum Change {
    SetMember(Member),
    RemoveMember(NodeId),
    SetLog(LogMeta),
    SetFeatureLevel(FeatureLevel),
}

type Changes = Result<Option<Change>, Conflict>;

impl Catalog {
    /// The maximum number of members. Each one has connections to all others, and joins every log as a learner.
    pub const MEMBERS_MAX: usize = 64;
    /// The largest group id. They count up from 1.
    pub const GROUPS_MAX: u64 = 1 << 32;

    /// Returns whether a command would change anything now. Checked before a command is proposed: an entry without an effect
    /// would still be synced on every node and kept forever.
    ///
    /// # Errors
    /// [`Conflict`] if the command does not fit the state.
    pub fn would_change(&self, command: &Command) -> Result<bool, Conflict> {
        self.change(command).map(|change| change.is_some())
    }

    /// Applies a command. One that no longer fits (its name was taken meanwhile) is ignored. Every node decides that alike; the
    /// proposer reads the outcome from the catalog.
    pub fn apply(&mut self, command: Command) -> Applied {
        match self.change(&command) {
            Ok(None) => return Applied::Unchanged,
            Err(conflict) => return Applied::Ignored(conflict),
            Ok(Some(Change::SetMember(member))) => {
                self.members.insert(member.id, member);
            }
            Ok(Some(Change::RemoveMember(id))) => {
                self.members.remove(&id);
                self.removed.insert(id);
            }
            Ok(Some(Change::SetLog(log))) => {
                self.logs.insert(log.group, log);
            }
            Ok(Some(Change::SetFeatureLevel(level))) => self.feature_level = level,
        }
        self.check_invariants();
        Applied::Changed
    }

    /// Returns what a command would change. Both proposing and applying use this function.
    fn change(&self, command: &Command) -> Changes {
        match command {
            Command::AddNode(member) => self.add_node(member),
            Command::RemoveNode(id) => self.remove_node(*id),
            Command::CreateLog(log) => self.create_log(log),
            Command::Founded(group) => self.founded(*group),
            Command::ConfigureLog(group, change) => self.configure_log(*group, *change),
            // A lower level is not a conflict: two operators may have raised it at the same time.
            Command::RaiseFeatureLevel(level) => {
                Ok((*level > self.feature_level).then_some(Change::SetFeatureLevel(*level)))
            }
        }
    }

    fn add_node(&self, member: &Member) -> Changes {
        if self.removed.contains(&member.id) {
            return Err(Conflict::NodeRemoved(member.id));
        }
        if let Some(other) = self.members.values().find(|m| m.id != member.id && m.name == member.name) {
            return Err(Conflict::NameTaken(other.clone()));
        }
        if member.id == NodeId(0) || !is_address(&member.bind_addr) || !is_address(&member.rpc_addr) {
            return Err(Conflict::Malformed);
        }
        let before = self.members.get(&member.id);
        if before.is_none() && self.members.len() >= Catalog::MEMBERS_MAX {
            return Err(Conflict::TooManyMembers);
        }
        Ok((before != Some(member)).then(|| Change::SetMember(member.clone())))
    }

    fn remove_node(&self, id: NodeId) -> Changes {
        if self.members.contains_key(&id) {
            Ok(Some(Change::RemoveMember(id)))
        } else if self.removed.contains(&id) {
            Ok(None)
        } else {
            Err(Conflict::NoSuchNode(id))
        }
    }

    fn create_log(&self, log: &LogMeta) -> Changes {
        let taken = self.logs.values().any(|l| l.name == log.name || l.group == log.group);
        if taken || log.group == GroupId::CATALOG {
            return Err(Conflict::LogTaken);
        }
        if !log.limits_hold() {
            return Err(Conflict::BadLimits(log.group));
        }
        if log.group.0 > Catalog::GROUPS_MAX {
            return Err(Conflict::Malformed);
        }
        Ok(Some(Change::SetLog(LogMeta { founded: false, ..log.clone() })))
    }

    fn founded(&self, group: GroupId) -> Changes {
        let log = self.logs.get(&group).ok_or(Conflict::NoSuchLog(group))?;
        Ok((!log.founded).then(|| Change::SetLog(LogMeta { founded: true, ..log.clone() })))
    }

    fn configure_log(&self, group: GroupId, change: LogChange) -> Changes {
        let log = self.logs.get(&group).ok_or(Conflict::NoSuchLog(group))?;
        let changed = log.clone().changed(change);
        // Two changes that are valid alone may be invalid in combination.
        if !changed.limits_hold() {
            return Err(Conflict::BadLimits(group));
        }
        Ok((changed != *log).then_some(Change::SetLog(changed)))
    }

    fn check_invariants(&self) {
        assert!(self.members.len() <= Catalog::MEMBERS_MAX, "more members than the catalog accepts");
        assert!(self.removed.iter().all(|id| !self.members.contains_key(id)), "a removed node is a member");
    }

    /// Returns the feature level of the cluster. It never falls.
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// Returns a member by its id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Returns a member by its name.
    pub fn member_named(&self, name: &NodeName) -> Option<&Member> {
        self.members.values().find(|m| m.name == *name)
    }

    /// Iterates over the members, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Returns true for the id of a removed member. Such an id is never used again.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }

    /// Returns a log by its name.
    pub fn log_named(&self, name: &LogName) -> Option<&LogMeta> {
        self.logs.values().find(|l| l.name == *name)
    }

    /// Returns a log by its group.
    pub fn log(&self, group: GroupId) -> Option<&LogMeta> {
        self.logs.get(&group)
    }

    /// Iterates over the logs, ordered by group.
    pub fn logs(&self) -> impl Iterator<Item = &LogMeta> {
        self.logs.values()
    }
}
