//! The catalog: group 0's state machine. Which nodes are members at which addresses, which logs exist and how they are kept.
//!
//! Commands are values of records in group 0's log, which is never trimmed and is replayed at each start. Applying is a
//! pure function of the log. `consensus` applies; everybody else reads the newest [`Catalog`] through [`CatalogView`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use protobuf::Message as _;

use crate::pb::catalog as pb;
use crate::storage::payload;
use crate::types::{GroupId, LogId, LogName, NodeId, NodeName};

/// A node of the cluster: a committed entry says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id, for good.
    pub id: NodeId,
    /// What its owner calls it.
    pub name: NodeName,
    /// Where peers reach it, `host:port`.
    pub bind_addr: String,
    /// Where clients reach it, `host:port`.
    pub rpc_addr: String,
}

/// A log, as the cluster keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMeta {
    /// Its name.
    pub name: LogName,
    /// Its Raft group.
    pub group: GroupId,
    /// Its id.
    pub log_id: LogId,
    /// The one node that makes the group's first replica.
    pub founder: NodeId,
    /// True once the founder has it on disk: from then on it takes clients, and other nodes may carry it.
    pub founded: bool,
    /// The largest record, bytes.
    pub record_bytes_max: u32,
    /// The largest request, bytes.
    pub request_bytes_max: u32,
    /// When there is more, the oldest records go; 0: never.
    pub retention_bytes: u64,
    /// Records that are older go, milliseconds; 0: never.
    pub retention_ms: u64,
}

/// What is changed of how a log is kept; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogChange {
    /// [`LogMeta::retention_bytes`].
    pub retention_bytes: Option<u64>,
    /// [`LogMeta::retention_ms`].
    pub retention_ms: Option<u64>,
    /// [`LogMeta::record_bytes_max`].
    pub record_bytes_max: Option<u32>,
    /// [`LogMeta::request_bytes_max`].
    pub request_bytes_max: Option<u32>,
}

impl LogChange {
    /// True when it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == LogChange::default()
    }
}

impl LogMeta {
    /// The largest record of a log that nobody set a limit for, bytes.
    pub const RECORD_BYTES_MAX: u32 = 1 << 20;
    /// The largest request of a log that nobody set a limit for, bytes.
    pub const REQUEST_BYTES_MAX: u32 = 4 << 20;

    /// No log has a lower limit for its records, bytes.
    pub const RECORD_BYTES_LEAST: u32 = 1 << 10;
    /// No log has a higher limit for its records, bytes: an answer with one of them is below 4 MiB, which clients take.
    pub const RECORD_BYTES_MOST: u32 = (4 << 20) - (64 << 10);
    /// No log has a higher limit for its requests, bytes: one is an entry, which has at most 8 MiB.
    pub const REQUEST_BYTES_MOST: u32 = (8 << 20) - (64 << 10);

    /// No record takes more in its stored form: an answer with one of them is below 4 MiB, which clients take by default. A record
    /// of the largest limit fits with room for its own fields; one of very many tiny headers does not.
    pub const STORED_RECORD_BYTES_MAX: usize = (4 << 20) - (8 << 10);

    /// The log that every cluster begins with; `None` when the system has no randomness to give.
    pub fn first(founder: NodeId) -> Option<LogMeta> {
        Some(LogMeta {
            name: LogName::new(LogName::DEFAULT).ok()?,
            group: GroupId(1),
            log_id: LogId::random().ok()?,
            founder,
            founded: false,
            record_bytes_max: LogMeta::RECORD_BYTES_MAX,
            request_bytes_max: LogMeta::REQUEST_BYTES_MAX,
            retention_bytes: 0,
            retention_ms: 0,
        })
    }

    /// As it is after a change.
    #[must_use]
    pub fn changed(self, change: LogChange) -> LogMeta {
        LogMeta {
            retention_bytes: change.retention_bytes.unwrap_or(self.retention_bytes),
            retention_ms: change.retention_ms.unwrap_or(self.retention_ms),
            record_bytes_max: change.record_bytes_max.unwrap_or(self.record_bytes_max),
            request_bytes_max: change.request_bytes_max.unwrap_or(self.request_bytes_max),
            ..self
        }
    }

    /// No log keeps its records for a shorter time, milliseconds, unless it keeps them forever: a clock is not exact, and readers
    /// must be able to follow.
    pub const RETENTION_MS_LEAST: u64 = 1000;

    /// Whether its limits can be met: every client takes its answers, and every peer its entries.
    pub fn limits_hold(&self) -> bool {
        !(1..LogMeta::RETENTION_MS_LEAST).contains(&self.retention_ms)
            && (LogMeta::RECORD_BYTES_LEAST..=LogMeta::RECORD_BYTES_MOST).contains(&self.record_bytes_max)
            && (self.record_bytes_max..=LogMeta::REQUEST_BYTES_MOST).contains(&self.request_bytes_max)
    }
}

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Adds a member, or changes the name or addresses of one.
    AddNode(Member),
    /// Removes a member for good.
    RemoveNode(NodeId),
    /// Makes a log.
    CreateLog(LogMeta),
    /// The founder has the group on its disk.
    Founded(GroupId),
    /// Keeps the log of that group in another way from now on.
    ConfigureLog(GroupId, LogChange),
}

/// The value of a record in group 0 is no command that this version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCommand(String);

impl fmt::Display for BadCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a catalog entry that this version does not understand: {}", self.0)
    }
}

impl std::error::Error for BadCommand {}

impl Command {
    /// The bytes of the command, the value of its record.
    pub fn encode(&self) -> Vec<u8> {
        let mut command = pb::Command::new();
        match self {
            Command::AddNode(member) => {
                let add = command.mut_add_node();
                add.node_id = member.id.0;
                add.name = member.name.to_string();
                add.bind_addr.clone_from(&member.bind_addr);
                add.rpc_addr.clone_from(&member.rpc_addr);
            }
            Command::RemoveNode(id) => command.mut_remove_node().node_id = id.0,
            Command::CreateLog(log) => {
                let create = command.mut_create_log();
                create.name = log.name.to_string();
                create.group = log.group.0;
                create.log_id = log.log_id.0;
                create.founder = log.founder.0;
                create.record_bytes_max = log.record_bytes_max;
                create.request_bytes_max = log.request_bytes_max;
                create.retention_bytes = log.retention_bytes;
                create.retention_ms = log.retention_ms;
            }
            Command::Founded(group) => command.mut_founded().group = group.0,
            Command::ConfigureLog(group, change) => {
                let configure = command.mut_configure_log();
                configure.group = group.0;
                configure.retention_bytes = change.retention_bytes;
                configure.retention_ms = change.retention_ms;
                configure.record_bytes_max = change.record_bytes_max;
                configure.request_bytes_max = change.request_bytes_max;
            }
        }
        command.write_to_bytes().unwrap_or_default()
    }

    /// The command in a record of group 0; `None` if it is none that this version knows.
    pub fn of_record(record: &[u8]) -> Option<Command> {
        payload::record_value(record).ok().and_then(|value| Command::decode(value).ok())
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// [`BadCommand`] for anything else: a newer version's command, or damage.
    pub fn decode(bytes: &[u8]) -> Result<Command, BadCommand> {
        let bad = |e: &dyn fmt::Display| BadCommand(e.to_string());
        let command: pb::Command = crate::pb::parse(bytes).map_err(|e| bad(&e))?;
        match command.command {
            Some(pb::command::Command::AddNode(add)) => Ok(Command::AddNode(Member {
                id: NodeId(add.node_id),
                name: NodeName::new(&add.name).map_err(|e| bad(&e))?,
                bind_addr: add.bind_addr,
                rpc_addr: add.rpc_addr,
            })),
            Some(pb::command::Command::RemoveNode(remove)) => Ok(Command::RemoveNode(NodeId(remove.node_id))),
            Some(pb::command::Command::CreateLog(create)) => Ok(Command::CreateLog(LogMeta {
                name: LogName::new(&create.name).map_err(|e| bad(&e))?,
                group: GroupId(create.group),
                log_id: LogId(create.log_id),
                founder: NodeId(create.founder),
                founded: false,
                record_bytes_max: create.record_bytes_max,
                request_bytes_max: create.request_bytes_max,
                retention_bytes: create.retention_bytes,
                retention_ms: create.retention_ms,
            })),
            Some(pb::command::Command::Founded(founded)) => Ok(Command::Founded(GroupId(founded.group))),
            Some(pb::command::Command::ConfigureLog(configure)) => {
                let change = LogChange {
                    retention_bytes: configure.retention_bytes,
                    retention_ms: configure.retention_ms,
                    record_bytes_max: configure.record_bytes_max,
                    request_bytes_max: configure.request_bytes_max,
                };
                Ok(Command::ConfigureLog(GroupId(configure.group), change))
            }
            None => Err(bad(&"an empty or newer command")),
        }
    }
}

/// The state after some prefix of group 0's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    members: BTreeMap<NodeId, Member>,
    removed: BTreeSet<NodeId>,
    logs: BTreeMap<GroupId, LogMeta>,
}

/// Why a command can't apply: with the catalog as it is, every node would ignore its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The node was removed, and an id never comes back.
    NodeRemoved(NodeId),
    /// Another member has the name.
    NameTaken(Member),
    /// It never was a member.
    NoSuchNode(NodeId),
    /// Another log has the name or the group, or the group is the catalog's own.
    LogTaken,
    /// There is no log of that group.
    NoSuchLog(GroupId),
    /// The log's limits would not go together.
    BadLimits(GroupId),
    /// No sound node proposes it: an id of 0, an address of another form, a group beyond [`Catalog::GROUPS_MAX`].
    Impossible,
    /// The cluster has as many members as it takes ([`Catalog::MEMBERS_MAX`]).
    TooManyMembers,
}

/// What a command does to a catalog.
enum Change {
    Member(Member),
    MemberRemoved(NodeId),
    Log(LogMeta),
}

/// Whether this is `host:port`, as a node is dialled. Control characters would reach log lines and terminals.
pub fn is_address(addr: &str) -> bool {
    let parts = addr.rsplit_once(':');
    let plain = addr.len() <= 300 && !addr.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl Catalog {
    /// The maximum number of members. Each of them has connections to all others, and each joins as a learner of every log.
    pub const MEMBERS_MAX: usize = 64;
    /// The largest group id. They count up from 1.
    pub const GROUPS_MAX: u64 = 1 << 32;

    /// Whether an entry with this command would change anything now. Checked before a command is proposed: an entry that changes
    /// nothing would still be synced on every node and kept forever.
    ///
    /// # Errors
    /// [`Conflict`]: it would not change anything, and the catalog is not as the command requests.
    pub fn would_change(&self, command: &Command) -> Result<bool, Conflict> {
        self.change(command).map(|change| change.is_some())
    }

    /// Applies a command. One that does not fit any more (a removed node added again, a name or id taken) changes
    /// nothing: every node decides so alike, and its proposer looks at the state to see what became of it.
    pub fn apply(&mut self, command: Command) {
        match self.change(&command) {
            Ok(Some(Change::Member(member))) => {
                self.members.insert(member.id, member);
            }
            Ok(Some(Change::MemberRemoved(id))) => {
                self.members.remove(&id);
                self.removed.insert(id);
            }
            Ok(Some(Change::Log(log))) => {
                self.logs.insert(log.group, log);
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// What the command would change. Proposing and applying both decide with this function.
    fn change(&self, command: &Command) -> Result<Option<Change>, Conflict> {
        let log_of = |group| self.logs.get(group).ok_or(Conflict::NoSuchLog(*group));
        match command {
            Command::AddNode(member) => {
                if self.removed.contains(&member.id) {
                    return Err(Conflict::NodeRemoved(member.id));
                }
                if let Some(other) = self.members.values().find(|m| m.id != member.id && m.name == member.name) {
                    return Err(Conflict::NameTaken(other.clone()));
                }
                if member.id == NodeId(0) || !is_address(&member.bind_addr) || !is_address(&member.rpc_addr) {
                    return Err(Conflict::Impossible);
                }
                if !self.members.contains_key(&member.id) && self.members.len() >= Catalog::MEMBERS_MAX {
                    return Err(Conflict::TooManyMembers);
                }
                let is_new = self.members.get(&member.id) != Some(member);
                Ok(is_new.then(|| Change::Member(member.clone())))
            }
            Command::RemoveNode(id) if self.removed.contains(id) => Ok(None),
            Command::RemoveNode(id) if self.members.contains_key(id) => Ok(Some(Change::MemberRemoved(*id))),
            Command::RemoveNode(id) => Err(Conflict::NoSuchNode(*id)),
            Command::CreateLog(log) => {
                let taken = self.logs.values().any(|l| l.name == log.name || l.group == log.group);
                if taken || log.group == GroupId::CATALOG {
                    return Err(Conflict::LogTaken);
                }
                if !log.limits_hold() {
                    return Err(Conflict::BadLimits(log.group));
                }
                if log.group.0 > Catalog::GROUPS_MAX {
                    return Err(Conflict::Impossible);
                }
                Ok(Some(Change::Log(LogMeta { founded: false, ..log.clone() })))
            }
            Command::Founded(group) => {
                let log = log_of(group)?;
                Ok((!log.founded).then(|| Change::Log(LogMeta { founded: true, ..log.clone() })))
            }
            Command::ConfigureLog(group, change) => {
                let log = log_of(group)?;
                let changed = log.clone().changed(*change);
                // Two valid changes may be invalid in combination.
                if !changed.limits_hold() {
                    return Err(Conflict::BadLimits(*group));
                }
                Ok((changed != *log).then_some(Change::Log(changed)))
            }
        }
    }

    /// A member by its id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// A member by its name.
    pub fn member_named(&self, name: &NodeName) -> Option<&Member> {
        self.members.values().find(|m| m.name == *name)
    }

    /// Every member, by id: the same order on each node.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// True for an id that was a member and will never be one again.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }

    /// A log by its name.
    pub fn log_named(&self, name: &LogName) -> Option<&LogMeta> {
        self.logs.values().find(|l| l.name == *name)
    }

    /// A log by its group.
    pub fn log(&self, group: GroupId) -> Option<&LogMeta> {
        self.logs.get(&group)
    }

    /// Every log, by group.
    pub fn logs(&self) -> impl Iterator<Item = &LogMeta> {
        self.logs.values()
    }
}

/// The newest catalog that is applied on this node; a clone is the same view.
#[derive(Clone, Debug, Default)]
pub struct CatalogView(Arc<RwLock<Arc<Catalog>>>);

impl CatalogView {
    /// The catalog as it is now.
    pub fn get(&self) -> Arc<Catalog> {
        self.0.read().clone()
    }

    /// Replaces it; `consensus` alone does so.
    pub fn publish(&self, catalog: Catalog) {
        *self.0.write() = Arc::new(catalog);
    }
}

#[cfg(test)]
mod tests;
