//! The commands of the catalog and their encoding (`proto/seriatim/catalog/v1/catalog.proto`).
//!
//! A command is the value of one record in group 0. Those that are not in a snapshot yet are replayed at each start, so
//! a command that some version has written must keep its meaning. A command or a field of a newer version is an error
//! that names it. A node that skipped it would have another catalog than the others, and nobody would notice.

mod proposers;

use protobuf::{Message as _, SpecialFields};

use super::meta::{ClusterSettings, LogSettings, Member, NewLog, Origin};
use super::plans::{Destination, Plan};
use crate::feature_level::FeatureLevel;
use crate::pb::catalog as pb;
use crate::storage::entry::Unstamped;
use crate::storage::payload::{self, RecordFields, encode_record};
use crate::types::{BadName, GroupId, LogId, LogName, NodeId, NodeName, ReplicaId};

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
        Ok(Command::AddNode(self.member()?))
    }

    fn member(self) -> Result<Member, BadCommand> {
        Ok(Member {
            id: NodeId(self.node_id),
            name: NodeName::new(&self.name)?,
            bind_addr: self.bind_addr,
            rpc_addr: self.rpc_addr,
        })
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
    fn store(log: &NewLog) -> pb::CreateLog {
        let message = pb::CreateLog { name: log.name.to_string(), log_id: log.log_id.0, ..pb::CreateLog::default() };
        match &log.origin {
            Origin::Founder(group, founder) => {
                let limits = log.settings.effective(&LogSettings::default());
                pb::CreateLog {
                    group: group.0,
                    founder: founder.0,
                    record_bytes_max: limits.record_bytes_max,
                    request_bytes_max: limits.request_bytes_max,
                    retention_bytes: limits.retention_bytes,
                    retention_ms: limits.retention_ms,
                    ..message
                }
            }
            Origin::Nodes(nodes) => pb::CreateLog {
                nodes: nodes.iter().map(|node| pb::FirstNode { node_id: node.0, ..pb::FirstNode::default() }).collect(),
                settings: Some(log.settings.store()).into(),
                ..message
            },
        }
    }

    fn load(self) -> Result<Command, BadCommand> {
        let name = LogName::new(&self.name)?;
        let log_id = LogId(self.log_id);
        let (origin, settings) = match self.settings.into_option() {
            Some(settings) => {
                if let Some(number) = self.nodes.iter().find_map(|node| unknown_field(&node.special_fields)) {
                    return Err(BadCommand::UnknownField { command: "CreateLog", number });
                }
                let nodes = self.nodes.into_iter().map(|node| NodeId(node.node_id)).collect();
                (Origin::Nodes(nodes), load_settings("CreateLog", settings)?)
            }
            None => {
                let settings = LogSettings {
                    record_bytes_max: Some(self.record_bytes_max),
                    request_bytes_max: Some(self.request_bytes_max),
                    retention_bytes: Some(self.retention_bytes),
                    retention_ms: Some(self.retention_ms),
                    ..LogSettings::default()
                };
                (Origin::Founder(GroupId(self.group), NodeId(self.founder)), settings)
            }
        };
        Ok(Command::CreateLog(NewLog { name, log_id, origin, settings }))
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
    fn store(group: &GroupId, change: &LogSettings) -> pb::ConfigureLog {
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
        let change = LogSettings {
            retention_bytes: self.retention_bytes,
            retention_ms: self.retention_ms,
            record_bytes_max: self.record_bytes_max,
            request_bytes_max: self.request_bytes_max,
            ..LogSettings::default()
        };
        Ok(Command::ConfigureLog(GroupId(self.group), change))
    }
}

impl pb::UpdateLog {
    fn store(group: &GroupId, settings: &LogSettings, expected_revision: &u64) -> pb::UpdateLog {
        pb::UpdateLog {
            group: group.0,
            settings: Some(settings.store()).into(),
            expected_revision: *expected_revision,
            ..pb::UpdateLog::default()
        }
    }

    fn load(self) -> Result<Command, BadCommand> {
        let settings = load_settings("UpdateLog", self.settings.unwrap_or_default())?;
        Ok(Command::UpdateLog(GroupId(self.group), settings, self.expected_revision))
    }
}

impl pb::DeleteLog {
    fn store(group: &GroupId, purge_after_ms: &Option<u64>, expected_revision: &Option<u64>) -> pb::DeleteLog {
        pb::DeleteLog {
            group: group.0,
            purge_after_ms: *purge_after_ms,
            expected_revision: *expected_revision,
            ..pb::DeleteLog::default()
        }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::DeleteLog(GroupId(self.group), self.purge_after_ms, self.expected_revision))
    }
}

impl pb::UndeleteLog {
    fn store(group: &GroupId) -> pb::UndeleteLog {
        pb::UndeleteLog { group: group.0, ..pb::UndeleteLog::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::UndeleteLog(GroupId(self.group)))
    }
}

impl pb::PurgeLog {
    fn store(group: &GroupId) -> pb::PurgeLog {
        pb::PurgeLog { group: group.0, ..pb::PurgeLog::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::PurgeLog(GroupId(self.group)))
    }
}

impl pb::PlaceReplica {
    fn store(group: &GroupId, node: &NodeId) -> pb::PlaceReplica {
        pb::PlaceReplica { group: group.0, node_id: node.0, ..pb::PlaceReplica::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::PlaceReplica(GroupId(self.group), NodeId(self.node_id)))
    }
}

impl pb::RemoveReplica {
    fn store(group: &GroupId, replica: &ReplicaId) -> pb::RemoveReplica {
        pb::RemoveReplica { group: group.0, replica_id: replica.0, ..pb::RemoveReplica::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::RemoveReplica(GroupId(self.group), ReplicaId(self.replica_id)))
    }
}

impl pb::ReplicaRemoved {
    fn store(group: &GroupId, replica: &ReplicaId) -> pb::ReplicaRemoved {
        pb::ReplicaRemoved { group: group.0, replica_id: replica.0, ..pb::ReplicaRemoved::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::ReplicaRemoved(GroupId(self.group), ReplicaId(self.replica_id)))
    }
}

impl pb::UpdateCluster {
    fn store(settings: &ClusterSettings, expected_revision: &u64) -> pb::UpdateCluster {
        pb::UpdateCluster {
            settings: Some(store_cluster_settings(settings)).into(),
            expected_revision: *expected_revision,
            ..pb::UpdateCluster::default()
        }
    }

    fn load(self) -> Result<Command, BadCommand> {
        let settings = load_cluster_settings("UpdateCluster", self.settings.unwrap_or_default())?;
        Ok(Command::UpdateCluster(settings, self.expected_revision))
    }
}

impl pb::PlanNode {
    fn store(id: &NodeId, plan: &Plan, expected: &Plan) -> pb::PlanNode {
        let (plan, expected) = (Some(store_plan(plan)).into(), Some(store_plan(expected)).into());
        pb::PlanNode { node_id: id.0, plan, expected, ..pb::PlanNode::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        let load = |plan: protobuf::MessageField<pb::NodePlan>| load_plan("PlanNode", plan.unwrap_or_default());
        Ok(Command::PlanNode(NodeId(self.node_id), load(self.plan)?, load(self.expected)?))
    }
}

impl pb::ReplaceNode {
    fn store(id: &NodeId, by: &Member) -> pb::ReplaceNode {
        let by = Some(pb::AddNode::store(by)).into();
        pb::ReplaceNode { node_id: id.0, by, ..pb::ReplaceNode::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        let by = self.by.unwrap_or_default();
        if let Some(number) = unknown_field(&by.special_fields) {
            return Err(BadCommand::UnknownField { command: "ReplaceNode", number });
        }
        Ok(Command::ReplaceNode(NodeId(self.node_id), by.member()?))
    }
}

impl pb::MoveReplica {
    fn store(group: &GroupId, replica: &ReplicaId, node: &NodeId) -> pb::MoveReplica {
        pb::MoveReplica { group: group.0, replica_id: replica.0, node_id: node.0, ..pb::MoveReplica::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::MoveReplica(GroupId(self.group), ReplicaId(self.replica_id), NodeId(self.node_id)))
    }
}

impl pb::SetBalancing {
    fn store(balancing: &bool) -> pb::SetBalancing {
        pb::SetBalancing { balancing: *balancing, ..pb::SetBalancing::default() }
    }

    fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::SetBalancing(self.balancing))
    }
}

pub(super) fn store_plan(plan: &Plan) -> pb::NodePlan {
    pb::NodePlan {
        drained: plan.drained,
        leaves: plan.leaves.is_some(),
        moves_to: match plan.leaves {
            Some(Destination::Node(node)) => node.0,
            Some(Destination::AnyNode) | None => 0,
        },
        may_be_replaced: plan.may_be_replaced,
        ..pb::NodePlan::default()
    }
}

pub(super) fn load_plan(command: &'static str, plan: pb::NodePlan) -> Result<Plan, BadCommand> {
    if let Some(number) = unknown_field(&plan.special_fields) {
        return Err(BadCommand::UnknownField { command, number });
    }
    let leaves = match (plan.leaves, plan.moves_to) {
        (false, 0) => None,
        (true, 0) => Some(Destination::AnyNode),
        (true, node) => Some(Destination::Node(NodeId(node))),
        (false, _) => return Err(BadCommand::Malformed("a destination for a node that does not leave".to_owned())),
    };
    Ok(Plan { drained: plan.drained, leaves, may_be_replaced: plan.may_be_replaced })
}

pub(super) fn store_cluster_settings(settings: &ClusterSettings) -> pb::ClusterSettings {
    pb::ClusterSettings {
        log_defaults: Some(settings.log_defaults.store()).into(),
        create_on_append: settings.create_on_append,
        deleted_log_retention_ms: settings.deleted_log_retention_ms,
        auto_replace_wiped: settings.auto_replace_wiped,
        ..pb::ClusterSettings::default()
    }
}

pub(super) fn load_cluster_settings(
    command: &'static str,
    settings: pb::ClusterSettings,
) -> Result<ClusterSettings, BadCommand> {
    if let Some(number) = unknown_field(&settings.special_fields) {
        return Err(BadCommand::UnknownField { command, number });
    }
    Ok(ClusterSettings {
        log_defaults: load_settings(command, settings.log_defaults.unwrap_or_default())?,
        create_on_append: settings.create_on_append,
        deleted_log_retention_ms: settings.deleted_log_retention_ms,
        auto_replace_wiped: settings.auto_replace_wiped,
    })
}
