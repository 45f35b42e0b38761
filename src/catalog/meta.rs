//! The content of the catalog: members, logs with their replicas and settings, and the settings of the cluster.

use std::collections::BTreeMap;

use crate::pb::catalog as pb;
use crate::types::{GroupId, LogId, LogName, NodeId, NodeName, Offset, ReplicaId};

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

/// A replica of a log on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Never used for another placement.
    pub replica: ReplicaId,
    /// The node that has the replica.
    pub node: NodeId,
}

/// When a log was deleted, and when it is purged. Unix microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was deleted.
    pub deleted_us: u64,
    /// When its files are removed for good. Until then the log can be undeleted.
    pub purge_us: u64,
}

/// A log, its replicas and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMeta {
    /// The name by which clients address it.
    pub name: LogName,
    /// The Raft group that replicates it.
    pub group: GroupId,
    /// Distinguishes the log from an earlier or later one of the same name.
    pub log_id: LogId,
    /// The first voters of the group. Each of these replicas is created with all of them as its conf state.
    pub first: Vec<Placement>,
    /// The replicas that the log should have.
    pub replicas: Vec<Placement>,
    /// Replicas that should leave the group. Their nodes keep them until the group's leader has removed them.
    pub leaving: Vec<Placement>,
    /// The settings that differ from the cluster's defaults.
    pub settings: LogSettings,
    /// Increases by 1 with each change of the settings or of `deletion`.
    pub revision: u64,
    /// When it was created, Unix microseconds; 0 for logs of clusters from before feature level 2.
    pub created_us: u64,
    /// Set while the log is deleted and not purged yet.
    pub deletion: Option<Deletion>,
    /// Set for a log that is or was restored from a backup.
    pub restore: Option<Restore>,
}

/// What a log is restored from: the backup of another log, or of this one before it was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The id of the log that the backup was made of.
    pub source_log_id: LogId,
    /// The offset of the first record of the backup, at which the log begins.
    pub first_offset: Offset,
    /// The offset after the last record of the backup.
    pub end_offset: Offset,
    /// Identifies the backup: SHA-256 of its files.
    pub digest: [u8; 32],
    /// Until then, only records of the backup are appended, and nothing is read.
    pub is_complete: bool,
}

impl Restore {
    /// Returns whether both describe the same backup.
    pub fn is_of_same_backup(&self, other: &Restore) -> bool {
        Restore { is_complete: other.is_complete, ..*self } == *other
    }
}

/// A request for a new log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLog {
    /// The name by which clients address it.
    pub name: LogName,
    /// A new id.
    pub log_id: LogId,
    /// Where its first replicas are.
    pub origin: Origin,
    /// The settings that differ from the cluster's defaults.
    pub settings: LogSettings,
    /// The backup that it is restored from.
    pub restore: Option<Restore>,
}

/// Where the first replicas of a new log are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// As in clusters before feature level 2: the first voter is on the founder, and every member gets a replica.
    Founder(GroupId, NodeId),
    /// One on each of these nodes. The catalog's leader chooses them for a request without nodes.
    Nodes(Vec<NodeId>),
}

/// Declares the settings of a log: name, type and built-in default of each.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)+) => {
        /// The settings of a log, or the defaults of a cluster. `None` means the cluster's default, or the built-in
        /// one.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct LogSettings {
            $($(#[$doc])* pub $name: Option<$type>,)+
            /// Names and values that the operators of the cluster choose.
            pub labels: BTreeMap<String, String>,
        }

        /// The settings that apply to a log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct EffectiveSettings {
            $($(#[$doc])* pub $name: $type,)+
        }

        impl Default for EffectiveSettings {
            fn default() -> EffectiveSettings {
                EffectiveSettings { $($name: $default,)+ }
            }
        }

        impl LogSettings {
            /// Returns the settings that apply if the cluster has these defaults.
            pub fn effective(&self, defaults: &LogSettings) -> EffectiveSettings {
                EffectiveSettings { $($name: self.$name.or(defaults.$name).unwrap_or($default),)+ }
            }

            /// Returns these settings, replaced by those that are set in `change`. Labels with other names stay.
            #[must_use]
            pub fn changed(&self, change: &LogSettings) -> LogSettings {
                let mut labels = self.labels.clone();
                labels.extend(change.labels.clone());
                LogSettings { $($name: change.$name.or(self.$name),)+ labels }
            }

            pub(super) fn store(&self) -> pb::LogSettings {
                pb::LogSettings {
                    $($name: self.$name,)+
                    labels: self.labels.iter().map(store_label).collect(),
                    ..pb::LogSettings::default()
                }
            }

            pub(super) fn load(stored: pb::LogSettings) -> LogSettings {
                LogSettings { $($name: stored.$name,)+ labels: stored.labels.into_iter().map(|l| (l.name, l.value)).collect() }
            }
        }
    };
}

settings! {
    /// The oldest records are removed while the log is larger than this, in bytes; 0 means no limit.
    retention_bytes: u64 = 0,
    /// Records older than this are removed, in milliseconds; 0 means no limit.
    retention_ms: u64 = 0,
    /// The maximum size of a record in bytes.
    record_bytes_max: u32 = 1 << 20,
    /// The maximum size of a request in bytes.
    request_bytes_max: u32 = 4 << 20,
    /// The number of replicas. A smaller cluster has fewer.
    replicas: u32 = 3,
    /// Whether each entry contains the hash of all records before it. Does not change after the log is created.
    hash_chain: bool = false,
}

fn store_label((name, value): (&String, &String)) -> pb::Label {
    pb::Label { name: name.clone(), value: value.clone(), ..pb::Label::default() }
}

/// The settings of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The defaults of the logs' settings. They have no labels.
    pub log_defaults: LogSettings,
    /// True if a produce request to a log that does not exist creates it.
    pub create_on_append: bool,
    /// How long a deleted log can be undeleted, in milliseconds; `None` means
    /// [`ClusterSettings::DELETED_LOG_RETENTION_MS`].
    pub deleted_log_retention_ms: Option<u64>,
    /// True if a node without data that has the name and the address of a member replaces it, if that member is silent.
    pub auto_replace_wiped: bool,
}

impl ClusterSettings {
    /// The default of `deleted_log_retention_ms`: 7 days.
    pub const DELETED_LOG_RETENTION_MS: u64 = 7 * 24 * 3600 * 1000;

    /// How long a deleted log can be undeleted, in milliseconds.
    pub fn deleted_log_retention_ms(&self) -> u64 {
        self.deleted_log_retention_ms.unwrap_or(ClusterSettings::DELETED_LOG_RETENTION_MS)
    }
}

impl LogSettings {
    /// The maximum number of labels.
    pub const LABELS_MAX: usize = 16;
    /// The maximum length of a label's name and of its value, in bytes.
    pub const LABEL_BYTES_MAX: usize = 63;

    /// Returns true if the labels are within their bounds.
    pub fn labels_hold(&self) -> bool {
        let short = |text: &String| text.len() <= LogSettings::LABEL_BYTES_MAX && !text.chars().any(char::is_control);
        self.labels.len() <= LogSettings::LABELS_MAX
            && self.labels.iter().all(|(name, value)| !name.is_empty() && short(name) && short(value))
    }
}

impl EffectiveSettings {
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

    /// The upper bound of `replicas`. More would make each append slower without a benefit: seven survive the loss of
    /// three.
    pub const REPLICAS_MOST: u32 = 7;

    /// Returns true if the settings are within their bounds, so that every client accepts the responses, and every
    /// peer accepts the entries.
    pub fn limits_hold(&self) -> bool {
        !(1..EffectiveSettings::RETENTION_MS_LEAST).contains(&self.retention_ms)
            && (EffectiveSettings::RECORD_BYTES_LEAST..=EffectiveSettings::RECORD_BYTES_MOST)
                .contains(&self.record_bytes_max)
            && (self.record_bytes_max..=EffectiveSettings::REQUEST_BYTES_MOST).contains(&self.request_bytes_max)
            && (1..=EffectiveSettings::REPLICAS_MOST).contains(&self.replicas)
    }
}

impl LogMeta {
    /// Returns every replica that is or may be in the group.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.replicas.iter().chain(&self.leaving)
    }

    /// Returns the node of a replica that is or may be in the group.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.placements().find(|placement| placement.replica == replica).map(|placement| placement.node)
    }

    /// Returns true if the node has a replica that should stay.
    pub fn is_on(&self, node: NodeId) -> bool {
        self.replicas.iter().any(|placement| placement.node == node)
    }

    /// Returns true until all records of the backup are restored.
    pub fn is_restoring(&self) -> bool {
        self.restoring_to().is_some()
    }

    /// Returns the end of the backup, until all records of it are restored.
    pub fn restoring_to(&self) -> Option<Offset> {
        self.restore.filter(|restore| !restore.is_complete).map(|restore| restore.end_offset)
    }

    /// Returns the offset of the first record that the log ever had.
    pub fn begins_at(&self) -> Offset {
        self.restore.map_or(Offset::default(), |restore| restore.first_offset)
    }

    /// Returns true for a log that a cluster of feature level 1 created. Its first replicas have the ids of their
    /// nodes.
    pub fn is_of_level_1(&self) -> bool {
        self.created_us == 0
    }
}

#[cfg(test)]
impl NewLog {
    /// The first log of a cluster of feature level 1, with these settings.
    pub fn of_level_1(founder: NodeId, settings: LogSettings) -> NewLog {
        let name = LogName::new(LogName::DEFAULT).expect("a name");
        NewLog { name, log_id: LogId(7), origin: Origin::Founder(GroupId(1), founder), settings, restore: None }
    }
}

#[cfg(test)]
impl LogMeta {
    /// The log of group 1, without replicas.
    pub fn of_group_1() -> LogMeta {
        LogMeta {
            name: LogName::new(LogName::DEFAULT).expect("a name"),
            group: GroupId(1),
            log_id: LogId(7),
            first: Vec::new(),
            replicas: Vec::new(),
            leaving: Vec::new(),
            settings: LogSettings::default(),
            revision: 1,
            created_us: 1,
            deletion: None,
            restore: None,
        }
    }
}

/// Returns true for a valid `host:port`. Control characters are rejected, because addresses are printed in log lines
/// and on terminals.
pub fn is_address(addr: &str) -> bool {
    let parts = addr.rsplit_once(':');
    let plain = addr.len() <= 300 && !addr.chars().any(|c| c.is_control() || c.is_whitespace());
    plain && parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}
