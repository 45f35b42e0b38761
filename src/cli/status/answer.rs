//! The answer of one member.

use crate::pb::admin::{DamagedRange, GetNodeResponse, GroupStatus, Role};
use crate::pb::log::Server;

/// A member, and its answer or the reason why there is none.
pub(super) struct Answer {
    pub server: Server,
    pub node: Result<GetNodeResponse, String>,
    /// Another node answered at the member's address.
    pub replaced: bool,
}

impl Answer {
    /// If another node answers at the address of a member, its answer says nothing about that member.
    pub fn new(server: Server, answer: Result<GetNodeResponse, String>) -> Answer {
        let other = answer.as_ref().ok().filter(|node| node.node_id != server.node_id);
        match other.map(|node| format!("another node answers there: {}", node.name)) {
            Some(other) => Answer { server, node: Err(other), replaced: true },
            None => Answer { server, node: answer, replaced: false },
        }
    }

    /// Its replica of a group.
    pub fn status(&self, group: u64) -> Option<&GroupStatus> {
        self.node.as_ref().ok()?.groups.iter().find(|status| status.group == group)
    }

    /// Its replica of a log.
    pub fn group(&self, log: &str) -> Option<&GroupStatus> {
        self.node.as_ref().ok()?.groups.iter().find(|group| group.group != 0 && group.log == log)
    }

    pub fn is_damaged(&self) -> bool {
        let groups = self.node.iter().flat_map(|node| &node.groups);
        groups.into_iter().any(|group| !group.damage.is_empty() || !group.damaged_ranges.is_empty())
    }
}

/// Damaged ranges of a node's replica of the catalog.
pub(super) fn catalog_ranges(node: &GetNodeResponse) -> impl Iterator<Item = &DamagedRange> {
    node.groups.iter().filter(|group| group.group == 0).flat_map(|group| &group.damaged_ranges)
}

/// The name of a replica's role.
pub(super) fn role(group: &GroupStatus) -> &'static str {
    match group.role.enum_value_or_default() {
        Role::ROLE_UNKNOWN => "unknown",
        Role::ROLE_FOLLOWER => "follower",
        Role::ROLE_CANDIDATE => "candidate",
        Role::ROLE_LEADER => "leader",
        Role::ROLE_LEARNER => "learner",
    }
}
