//! The answer of one member to `GetNode`.

use std::time::{Duration, SystemTime};

use crate::cli::units;
use crate::client::metrics::number;
use crate::metrics::CERTIFICATE_EXPIRES;
use crate::pb::v1::Server;
use crate::pb::v1::{CatchUp, DamagedRange, DiskState, GetNodeResponse, GroupStatus, Role};

use crate::security::tls::EXPIRES_SOON;

/// The catalog, where statuses contain the name of a log.
pub(super) const CATALOG: &str = "";

/// A member, with its answer or the reason why it is missing.
pub struct Answer {
    pub server: Server,
    pub node: Result<GetNodeResponse, String>,
    /// Another node answered at the member's address.
    pub replaced: bool,
}

impl Answer {
    /// Creates the answer of a member. If another node answers at the member's address, its answer is discarded, as
    /// it does not describe the member.
    pub fn new(server: Server, answer: Result<GetNodeResponse, String>) -> Answer {
        let other = answer.as_ref().ok().filter(|node| node.node_id != server.node_id);
        match other.map(|node| format!("another node answers there: {} ({})", node.name, node.node_id)) {
            Some(other) => Answer { server, node: Err(other), replaced: true },
            None => Answer { server, node: answer, replaced: false },
        }
    }

    /// Returns the status of the member's replica of a group.
    /// The name is empty for the catalog.
    pub fn group(&self, log: &str) -> Option<&GroupStatus> {
        self.node.as_ref().ok()?.groups.iter().find(|group| group.log == log)
    }

    /// Returns whether the node leads a log of this name; `None`: any log.
    pub fn leads(&self, log: Option<&str>) -> bool {
        let mut groups = self.node.iter().flat_map(|node| &node.groups);
        groups.any(|group| {
            let is_wanted = log.map_or(group.log != CATALOG, |log| group.log == log);
            is_wanted && group.role.enum_value() == Ok(Role::ROLE_LEADER)
        })
    }

    /// Returns the state of the node's disk, if it is known.
    pub fn disk(&self) -> Option<DiskState> {
        self.node.as_ref().ok().map(|node| node.disk.get_or_default().state.enum_value_or_default())
    }

    /// Returns whether a replica of the node takes no part in its group.
    pub fn takes_no_part(&self) -> bool {
        let mut groups = self.node.iter().flat_map(|node| &node.groups);
        groups.any(|group| !group.damage.is_empty())
    }

    pub fn is_damaged(&self) -> bool {
        let groups = self.node.iter().flat_map(|node| &node.groups);
        groups.into_iter().any(|group| !group.damage.is_empty() || !group.damaged_ranges.is_empty())
    }
}

/// Returns the damaged ranges of a node's replica of the catalog.
pub(super) fn catalog_ranges(node: &GetNodeResponse) -> impl Iterator<Item = &DamagedRange> {
    node.groups.iter().filter(|group| group.log == CATALOG).flat_map(|group| &group.damaged_ranges)
}

/// Returns a note if one of the node's certificates expires soon, by the clock of this machine.
pub(super) fn certificate(node: &GetNodeResponse) -> String {
    let expires = node.metrics.iter().find(|metric| metric.name == CERTIFICATE_EXPIRES).and_then(number);
    let expires = expires.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    match expires.map(|expires| Duration::from_secs(expires).saturating_sub(now)) {
        Some(left) if left < EXPIRES_SOON => format!("a certificate expires in {}", units::rough(left)),
        Some(_) | None => String::new(),
    }
}

/// Returns the name of a replica's role.
pub fn role(group: &GroupStatus) -> &'static str {
    match group.role.enum_value_or_default() {
        Role::ROLE_UNSPECIFIED => "unknown",
        Role::ROLE_FOLLOWER => "follower",
        Role::ROLE_CANDIDATE => "candidate",
        Role::ROLE_LEADER => "leader",
        Role::ROLE_LEARNER => "learner",
    }
}

/// Returns what a node's replica of a log lacks, if it lags far. Only the log's leader knows.
pub fn catch_up<'a>(answers: &'a [Answer], log: &str, node_id: &str) -> Option<&'a CatchUp> {
    let groups = answers.iter().filter_map(|answer| answer.group(log));
    let newest =
        groups.filter(|group| group.role.enum_value() == Ok(Role::ROLE_LEADER)).max_by_key(|group| group.term)?;
    newest.replicas.iter().find(|replica| replica.node_id == node_id)?.catch_up.as_ref()
}
