//! The commands of the catalog and their encoding (`proto/seriatim/catalog/v1/catalog.proto`).
//!
//! A command is the value of one record in group 0. The log of group 0 is never trimmed and is replayed at each start, so a
//! command that some version has written must keep its meaning. A command or a field of a newer version is an error that
//! names it. A node that skipped it would have another catalog than the others, and nobody would notice.

use protobuf::{Message as _, SpecialFields};

use super::meta::{LogChange, LogMeta, Member};
use crate::feature_level::FeatureLevel;
use crate::pb::catalog as pb;
use crate::storage::entry::Unstamped;
use crate::storage::payload::{self, RecordFields, encode_record};
use crate::types::{BadName, GroupId, LogId, LogName, NodeId, NodeName};

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

/// Declares the commands: the enum, its encoder and its decoder. Each variant has the name of its message in `catalog.proto`,
/// for which `store` and `load` convert the fields.
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
    /// Creates a log. Its founder then creates the first replica.
    CreateLog(log: LogMeta),
    /// Records that the group's first replica is on the founder's disk.
    Founded(group: GroupId),
    /// Changes the settings of the group's log.
    ConfigureLog(group: GroupId, change: LogChange),
    /// Raises the feature level of the cluster, permanently.
    RaiseFeatureLevel(level: FeatureLevel),
}

fn unknown_field(fields: &SpecialFields) -> Option<u32> {
    fields.unknown_fields().iter().next().map(|(number, _)| number)
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

impl pb::AddNode {
    fn store(member: &Member) -> pb::AddNode {
        pb::AddNode {
            node_id: member.id.0,
            name: member.name.to_string(),
            bind_addr: member.bind_addr.clone(),
            rpc_addr: member.rpc_addr.clone(),
            ..pb::AddNode::default()
        }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::AddNode(Member {
            id: NodeId(self.node_id),
            name: NodeName::new(&self.name)?,
            bind_addr: self.bind_addr,
            rpc_addr: self.rpc_addr,
        }))
    }
}

impl pb::RemoveNode {
    fn store(id: &NodeId) -> pb::RemoveNode {
        pb::RemoveNode { node_id: id.0, ..pb::RemoveNode::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::RemoveNode(NodeId(self.node_id)))
    }
}

impl pb::CreateLog {
    fn store(log: &LogMeta) -> pb::CreateLog {
        pb::CreateLog {
            name: log.name.to_string(),
            group: log.group.0,
            log_id: log.log_id.0,
            founder: log.founder.0,
            record_bytes_max: log.record_bytes_max,
            request_bytes_max: log.request_bytes_max,
            retention_bytes: log.retention_bytes,
            retention_ms: log.retention_ms,
            ..pb::CreateLog::default()
        }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::CreateLog(LogMeta {
            name: LogName::new(&self.name)?,
            group: GroupId(self.group),
            log_id: LogId(self.log_id),
            founder: NodeId(self.founder),
            founded: false,
            record_bytes_max: self.record_bytes_max,
            request_bytes_max: self.request_bytes_max,
            retention_bytes: self.retention_bytes,
            retention_ms: self.retention_ms,
        }))
    }
}

impl pb::RaiseFeatureLevel {
    fn store(level: &FeatureLevel) -> pb::RaiseFeatureLevel {
        pb::RaiseFeatureLevel { level: level.0, ..pb::RaiseFeatureLevel::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::RaiseFeatureLevel(FeatureLevel(self.level)))
    }
}

impl pb::Founded {
    fn store(group: &GroupId) -> pb::Founded {
        pb::Founded { group: group.0, ..pb::Founded::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::Founded(GroupId(self.group)))
    }
}

impl pb::ConfigureLog {
    fn store(group: &GroupId, change: &LogChange) -> pb::ConfigureLog {
        pb::ConfigureLog {
            group: group.0,
            retention_bytes: change.retention_bytes,
            retention_ms: change.retention_ms,
            record_bytes_max: change.record_bytes_max,
            request_bytes_max: change.request_bytes_max,
            ..pb::ConfigureLog::default()
        }
    }

    fn load(self) -> Result<Command, BadCommand> {
        let change = LogChange {
            retention_bytes: self.retention_bytes,
            retention_ms: self.retention_ms,
            record_bytes_max: self.record_bytes_max,
            request_bytes_max: self.request_bytes_max,
        };
        Ok(Command::ConfigureLog(GroupId(self.group), change))
    }
}
