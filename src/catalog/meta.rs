//! The content of the catalog: members, and logs with their limits.

use crate::types::{GroupId, LogId, LogName, NodeId, NodeName};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The id never changes, and is not reused after the member is removed.
    pub id: NodeId,
    /// Chosen by the operator. No two members have the same name.
    pub name: NodeName,
    /// The address for peers, `host:port`.
    pub bind_addr: String,
    /// The address for clients, `host:port`.
    pub rpc_addr: String,
}

/// A log and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMeta {
    /// The name by which clients address it.
    pub name: LogName,
    /// The Raft group that replicates it.
    pub group: GroupId,
    /// Distinguishes the log from an earlier or later one of the same name.
    pub log_id: LogId,
    /// The node that creates the group's first replica.
    pub founder: NodeId,
    /// True once that replica is on the founder's disk. From then on clients can use the log, and other nodes create
    /// replicas.
    pub founded: bool,
    /// The maximum size of a record in bytes.
    pub record_bytes_max: u32,
    /// The maximum size of a request in bytes.
    pub request_bytes_max: u32,
    /// The oldest records are removed while the log is larger than this; 0 means no limit.
    pub retention_bytes: u64,
    /// Records older than this are removed, in milliseconds; 0 means no limit.
    pub retention_ms: u64,
}

/// A change of a log's settings. `None` keeps the current value.
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
    /// Returns true if it changes no setting.
    pub fn is_empty(&self) -> bool {
        *self == LogChange::default()
    }
}

impl LogMeta {
    /// The default of `record_bytes_max`.
    pub const RECORD_BYTES_MAX: u32 = 1 << 20;
    /// The default of `request_bytes_max`.
    pub const REQUEST_BYTES_MAX: u32 = 4 << 20;

    /// The lower bound of `record_bytes_max`.
    pub const RECORD_BYTES_LEAST: u32 = 1 << 10;
    /// The upper bound of `record_bytes_max`. A response with one such record stays below 4 MiB, gRPC's default limit
    /// for clients.
    pub const RECORD_BYTES_MOST: u32 = (4 << 20) - (64 << 10);
    /// The upper bound of `request_bytes_max`. A request becomes one entry, and an entry is at most 8 MiB.
    pub const REQUEST_BYTES_MOST: u32 = (8 << 20) - (64 << 10);

    /// The maximum size of a record in its stored form, for the same reason. It leaves room for the fields of a
    /// record with the largest value, but not for very many tiny headers.
    pub const STORED_RECORD_BYTES_MAX: usize = (4 << 20) - (8 << 10);

    /// The lower bound of `retention_ms`, unless it is 0. Clocks are not exact, and readers need some time to read a
    /// record.
    pub const RETENTION_MS_LEAST: u64 = 1000;

    /// Returns the initial log of a cluster, or `None` if the system can't provide random bytes for its id.
    pub fn first(founder: NodeId) -> Option<LogMeta> {
        LogMeta::first_with_id(founder, LogId::random().ok()?)
    }

    pub(super) fn first_with_id(founder: NodeId, log_id: LogId) -> Option<LogMeta> {
        Some(LogMeta {
            name: LogName::new(LogName::DEFAULT).ok()?,
            group: GroupId(1),
            log_id,
            founder,
            founded: false,
            record_bytes_max: LogMeta::RECORD_BYTES_MAX,
            request_bytes_max: LogMeta::REQUEST_BYTES_MAX,
            retention_bytes: 0,
            retention_ms: 0,
        })
    }

    /// Returns the log with a change of its settings.
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

    /// Returns true if the settings are within their bounds, so that every client accepts the responses, and every
    /// peer accepts the entries.
    pub fn limits_hold(&self) -> bool {
        !(1..LogMeta::RETENTION_MS_LEAST).contains(&self.retention_ms)
            && (LogMeta::RECORD_BYTES_LEAST..=LogMeta::RECORD_BYTES_MOST).contains(&self.record_bytes_max)
            && (self.record_bytes_max..=LogMeta::REQUEST_BYTES_MOST).contains(&self.request_bytes_max)
    }
}

/// Returns true for a valid `host:port`. Control characters are rejected, because addresses are printed in log lines
/// and on terminals.
pub fn is_address(addr: &str) -> bool {
    let parts = addr.rsplit_once(':');
    let plain = addr.len() <= 300 && !addr.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}
