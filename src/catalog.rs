//! The catalog: group 0's state machine. Which nodes are members at which addresses, which logs exist and how they are kept.
//!
//! Commands are values of records in group 0's log, which is never trimmed and is replayed at each start. Applying is a
//! pure function of the log. `consensus` applies; everybody else reads the newest [`Catalog`] through [`CatalogView`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use protobuf::Message as _;

use crate::pb::catalog as pb;
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

    /// Whether its limits can be met: every client takes its answers, and every peer its entries.
    pub fn limits_hold(&self) -> bool {
        (LogMeta::RECORD_BYTES_LEAST..=LogMeta::RECORD_BYTES_MOST).contains(&self.record_bytes_max)
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

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// [`BadCommand`] for anything else: a newer version's command, or damage.
    pub fn decode(bytes: &[u8]) -> Result<Command, BadCommand> {
        let bad = |e: &dyn fmt::Display| BadCommand(e.to_string());
        let command = pb::Command::parse_from_bytes(bytes).map_err(|e| bad(&e))?;
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

impl Catalog {
    /// Applies a command. A command that does not fit any more (a removed node added again, a name or id taken) changes
    /// nothing: every node decides so alike, and its proposer looks at the state to see what became of it.
    pub fn apply(&mut self, command: Command) {
        match command {
            Command::AddNode(member) => {
                let name_taken = self.members.values().any(|m| m.id != member.id && m.name == member.name);
                if !self.removed.contains(&member.id) && !name_taken {
                    self.members.insert(member.id, member);
                }
            }
            Command::RemoveNode(id) => {
                if self.members.remove(&id).is_some() {
                    self.removed.insert(id);
                }
            }
            Command::CreateLog(log) => {
                let taken = self.logs.values().any(|l| l.name == log.name || l.group == log.group);
                if !taken && log.group != GroupId::CATALOG {
                    self.logs.insert(log.group, LogMeta { founded: false, ..log });
                }
            }
            Command::Founded(group) => {
                if let Some(log) = self.logs.get_mut(&group) {
                    log.founded = true;
                }
            }
            Command::ConfigureLog(group, change) => {
                if let Some(log) = self.logs.get_mut(&group) {
                    let changed = log.clone().changed(change);
                    // Two changes that were right alone may not be together.
                    if changed.limits_hold() {
                        *log = changed;
                    }
                }
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
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it; `consensus` alone does so.
    pub fn publish(&self, catalog: Catalog) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> Member {
        Member {
            id: NodeId(id),
            name: NodeName::new(name).expect("a name"),
            bind_addr: format!("{name}:1"),
            rpc_addr: format!("{name}:2"),
        }
    }

    fn log(group: u64, name: &str) -> LogMeta {
        LogMeta {
            name: LogName::new(name).expect("a name"),
            group: GroupId(group),
            log_id: LogId(9),
            founder: NodeId(1),
            founded: false,
            record_bytes_max: 1 << 20,
            request_bytes_max: 4 << 20,
            retention_bytes: 0,
            retention_ms: 0,
        }
    }

    #[test]
    fn commands_read_what_they_write() {
        let commands = [
            Command::AddNode(member(1, "a")),
            Command::RemoveNode(NodeId(1)),
            Command::CreateLog(log(1, "default")),
            Command::Founded(GroupId(1)),
            Command::ConfigureLog(GroupId(1), LogChange { retention_ms: Some(0), ..LogChange::default() }),
        ];
        for command in commands {
            assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
        assert!(Command::decode(b"").is_err());
        assert!(Command::decode(b"\xff\xff").is_err());
    }

    #[test]
    fn a_removed_id_and_a_taken_name_stay_out() {
        let mut catalog = Catalog::default();
        catalog.apply(Command::AddNode(member(1, "a")));
        catalog.apply(Command::AddNode(member(2, "a")));
        assert_eq!(catalog.member(NodeId(2)), None);
        catalog.apply(Command::RemoveNode(NodeId(1)));
        catalog.apply(Command::AddNode(member(1, "b")));
        assert!(catalog.is_removed(NodeId(1)) && catalog.members().count() == 0);
        catalog.apply(Command::AddNode(member(2, "a")));
        assert_eq!(catalog.member_named(&NodeName::new("a").expect("a name")).map(|m| m.id), Some(NodeId(2)));
    }

    #[test]
    fn a_log_takes_clients_once_founded() {
        let mut catalog = Catalog::default();
        catalog.apply(Command::CreateLog(log(1, "default")));
        catalog.apply(Command::CreateLog(log(2, "default")));
        assert_eq!(catalog.logs().count(), 1);
        assert!(!catalog.log(GroupId(1)).expect("a log").founded);
        catalog.apply(Command::Founded(GroupId(1)));
        assert!(catalog.log(GroupId(1)).expect("a log").founded);
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_limits_that_hold() {
        let mut catalog = Catalog::default();
        catalog.apply(Command::CreateLog(log(1, "default")));
        let mut change = |change| {
            catalog.apply(Command::ConfigureLog(GroupId(1), change));
            catalog.log(GroupId(1)).cloned().expect("a log")
        };
        let kept = change(LogChange { retention_bytes: Some(7), ..LogChange::default() });
        assert_eq!((kept.retention_bytes, kept.retention_ms, kept.record_bytes_max), (7, 0, 1 << 20));
        let smaller =
            change(LogChange { retention_ms: Some(9), request_bytes_max: Some(2 << 20), ..LogChange::default() });
        assert_eq!((smaller.retention_bytes, smaller.retention_ms, smaller.request_bytes_max), (7, 9, 2 << 20));
        for (record, request) in [(None, Some(1000)), (Some(3 << 20), None), (Some(100), None), (None, Some(u32::MAX))]
        {
            let bad = LogChange { record_bytes_max: record, request_bytes_max: request, ..LogChange::default() };
            assert_eq!(change(bad), smaller, "{bad:?}");
        }
        assert_eq!(change(LogChange { retention_bytes: Some(0), ..LogChange::default() }).retention_bytes, 0);
    }
}
