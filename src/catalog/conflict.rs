//! Why a command can't be applied to the current state.

use super::meta::Member;
use crate::types::{GroupId, LogId, LogName, NodeId};

/// The maximum number of members. Each one has connections to all others.
pub const MEMBERS_MAX: usize = 64;
/// The maximum number of logs, including deleted ones. A snapshot with this many logs, long names and all replicas
/// stays below the 16 MiB of a message between peers.
pub const LOGS_MAX: usize = 12_000;

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
    /// Another log has the group, or the group is the catalog's.
    #[error("the group of the log is taken")]
    LogTaken,
    /// A log has the name, deleted or not.
    #[error("the name belongs to the log of group {0}")]
    NameOfLogTaken(GroupId),
    /// A log has the id, or had it before it was purged.
    #[error("the id {0} belongs to another log, or to one that was purged")]
    LogIdTaken(LogId),
    /// No log has this group.
    #[error("no log has group {0}")]
    NoSuchLog(GroupId),
    /// The log is deleted.
    #[error("the log of group {0} is deleted")]
    Deleted(GroupId),
    /// The log is not deleted, so it can't be purged.
    #[error("the log of group {0} is not deleted")]
    NotDeleted(GroupId),
    /// The log is not restored from a backup.
    #[error("the log of group {0} is not restored from a backup")]
    NotRestored(GroupId),
    /// The settings were changed meanwhile.
    #[error("the settings have revision {0}")]
    OtherRevision(u64),
    /// The settings of the log would be out of bounds, alone or in combination.
    #[error("the settings of the log of group {0} are out of bounds")]
    BadLimits(GroupId),
    /// The defaults would be out of bounds, or the settings of this log in combination with them.
    #[error("the defaults of logs are out of bounds")]
    BadDefaults(Option<LogName>),
    /// The nodes of the replicas are unknown, or the node has a replica already, or the replica is unknown.
    #[error("a replica can't be placed or removed")]
    BadPlacement,
    /// A command that no correct node proposes: with an id of 0, a malformed address, or a group above the maximum.
    #[error("the command contains an invalid id, address or group")]
    Malformed,
    /// The plan of the node was changed meanwhile.
    #[error("node {0} has another plan")]
    OtherPlan(NodeId),
    /// The node is leaving the cluster, or replicas are moving to it.
    #[error("node {0} is leaving, or its replicas are moving to the node")]
    NodeLeaves(NodeId),
    /// No other node would stay.
    #[error("node {0} is the last one that stays")]
    LastNode(NodeId),
    /// The cluster has [`MEMBERS_MAX`] members.
    #[error("the cluster already has {} members", MEMBERS_MAX)]
    TooManyMembers,
    /// The cluster has [`LOGS_MAX`] logs.
    #[error("the cluster already has {} logs", LOGS_MAX)]
    TooManyLogs,
}
