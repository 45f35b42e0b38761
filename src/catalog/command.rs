//! The commands of the catalog and their encoding (`proto/seriatim/catalog/v1/catalog.proto`).
//!
//! A command is the value of one record in group 0. Those that are not in a snapshot yet are replayed at each start, so
//! a command that some version has written must keep its meaning. A command or a field of a newer version is an error
//! that names it. A node that skipped it would have another catalog than the others, and nobody would notice.

pub(super) mod messages;
mod proposers;

use protobuf::{Message as _, SpecialFields};

use super::meta::{ClusterSettings, LogSettings, Member, NewLog};
use super::plans::Plan;
use crate::feature_level::FeatureLevel;
use crate::pb::catalog as pb;
use crate::storage::entry::Unstamped;
use crate::storage::payload::{self, RecordFields, encode_record};
use crate::types::{BadName, GroupId, NodeId, ReplicaId};

/// The record of a catalog entry can't be applied by this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// The command is of a newer version.
    #[error("catalog command {number} is unknown to this version, which knows {}", Command::NAMES.join(", "))]
    UnknownCommand {
        /// The number of its field in `Command`.
        number: u32,
    },
    /// The command has a field of a newer version.
    #[error("field {number} of the catalog command {command} is unknown to this version")]
    UnknownField {
        /// The name of the command.
        command: &'static str,
        /// The number of the field.
        number: u32,
    },
    /// The bytes contain no command.
    #[error("the catalog command is empty")]
    Empty,
    /// The bytes are not a message, or a field has an impossible value.
    #[error("the catalog command is malformed: {0}")]
    Malformed(String),
}

impl From<BadName> for BadCommand {
    fn from(error: BadName) -> BadCommand {
        BadCommand::Malformed(error.to_string())
    }
}

/// Declares the commands: the enum, its encoder and its decoder. Each variant has the name of its message in
/// `catalog.proto`, for which `store` and `load` convert the fields.
macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident($($field:ident: $type:ty),+),)+) => {
        /// A change of the catalog.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Command {
            $($(#[$doc])* $name($($type),+),)+
        }

        impl Command {
            /// The names of all commands.
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// Returns the value of the command's record.
            pub fn encode(&self) -> Vec<u8> {
                let command = match self {
                    $(Command::$name($($field),+) => pb::command::Command::$name(pb::$name::store($($field),+)),)+
                };
                let message = pb::Command { command: Some(command), ..pb::Command::default() };
                message.write_to_bytes().unwrap_or_default()
            }

            /// Decodes the output of [`Command::encode`].
            ///
            /// # Errors
            /// [`BadCommand`] for anything else.
            pub fn decode(bytes: &[u8]) -> Result<Command, BadCommand> {
                let message: pb::Command =
                    crate::pb::parse(bytes).map_err(|error| BadCommand::Malformed(error.to_string()))?;
                if let Some(number) = unknown_field(&message.special_fields) {
                    return Err(BadCommand::UnknownCommand { number });
                }
                match message.command {
                    $(Some(pb::command::Command::$name(message)) => {
                        match unknown_field(&message.special_fields) {
                            Some(number) => Err(BadCommand::UnknownField { command: stringify!($name), number }),
                            None => message.load(),
                        }
                    })+
                    None => Err(BadCommand::Empty),
                }
            }
        }
    };
}

commands! {
    /// Adds a member, or changes the name or the addresses of one.
    AddNode(member: Member),
    /// Removes a member. Its id is never used again.
    RemoveNode(id: NodeId),
    /// Creates a log and its first replicas.
    CreateLog(log: NewLog),
    /// Without effect. Clusters of feature level 1 have it in their logs.
    Founded(group: GroupId),
    /// Changes those settings of the group's log that are set. For clusters of feature level 1, which know only the
    /// limits and the retention.
    ConfigureLog(group: GroupId, change: LogSettings),
    /// Raises the feature level of the cluster, permanently.
    RaiseFeatureLevel(level: FeatureLevel),
    /// Replaces the settings of the group's log, if it has this revision.
    UpdateLog(group: GroupId, settings: LogSettings, expected_revision: u64),
    /// Deletes the group's log, to be purged after this many milliseconds, if it has this revision.
    DeleteLog(group: GroupId, purge_after_ms: Option<u64>, expected_revision: Option<u64>),
    /// Reverts the deletion of the group's log.
    UndeleteLog(group: GroupId),
    /// Removes the group's log, which is deleted, for good.
    PurgeLog(group: GroupId),
    /// Adds a replica of the group's log on this node.
    PlaceReplica(group: GroupId, node: NodeId),
    /// Asks the group to remove this replica.
    RemoveReplica(group: GroupId, replica: ReplicaId),
    /// Records that the group has removed this replica.
    ReplicaRemoved(group: GroupId, replica: ReplicaId),
    /// Replaces the settings of the cluster, if they have this revision.
    UpdateCluster(settings: ClusterSettings, expected_revision: u64),
    /// Replaces the plan of a member, if it is the expected one.
    PlanNode(id: NodeId, plan: Plan, expected: Plan),
    /// Replaces a member by a new one, which gets a replica of each log that the other one had.
    ReplaceNode(id: NodeId, by: Member),
    /// Asks the group to replace this replica by a new one on the node.
    MoveReplica(group: GroupId, replica: ReplicaId, node: NodeId),
    /// Starts or ends moving replicas until every node has about the same number.
    SetBalancing(balancing: bool),
    /// Opens the group's log, of whose backup every record was restored.
    FinishRestore(group: GroupId),
}

/// Returns the number of a field that this version does not know.
pub(super) fn unknown_field(fields: &SpecialFields) -> Option<u32> {
    fields.unknown_fields().iter().next().map(|(number, _)| number)
}

/// Decodes the settings within a command.
pub(super) fn load_settings(command: &'static str, settings: pb::LogSettings) -> Result<LogSettings, BadCommand> {
    let of_labels = settings.labels.iter().find_map(|label| unknown_field(&label.special_fields));
    match unknown_field(&settings.special_fields).or(of_labels) {
        Some(number) => Err(BadCommand::UnknownField { command, number }),
        None => Ok(LogSettings::load(settings)),
    }
}

impl Command {
    /// Decodes the command in a record of group 0.
    ///
    /// # Errors
    /// [`BadCommand`], also if the record itself is malformed.
    pub fn of_record(record: &[u8]) -> Result<Command, BadCommand> {
        let value = payload::record_value(record).map_err(|error| BadCommand::Malformed(error.to_string()))?;
        Command::decode(value)
    }

    /// Returns the payload of the command's entry: one record, whose value is the command.
    pub fn payload(&self) -> Unstamped {
        let value = self.encode();
        let mut payload = Unstamped::room(value.len() + 64);
        encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
        Unstamped::new(payload)
    }
}
