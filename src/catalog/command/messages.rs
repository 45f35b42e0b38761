//! The messages of the commands, and of the parts that snapshots also contain.

use super::{BadCommand, Command, load_settings, unknown_field};
use crate::catalog::meta::{ClusterSettings, LogSettings, Member, NewLog, Origin, Restore};
use crate::catalog::plans::{Destination, Plan};
use crate::feature_level::FeatureLevel;
use crate::pb::catalog as pb;
use crate::types::{GroupId, LogId, LogName, NodeId, NodeName, Offset, ReplicaId};

impl pb::AddNode {
    pub(super) fn store(member: &Member) -> pb::AddNode {
        pb::AddNode {
            node_id: member.id.0,
            name: member.name.to_string(),
            bind_addr: member.bind_addr.clone(),
            rpc_addr: member.rpc_addr.clone(),
            ..pb::AddNode::default()
        }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
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
    pub(super) fn store(id: &NodeId) -> pb::RemoveNode {
        pb::RemoveNode { node_id: id.0, ..pb::RemoveNode::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::RemoveNode(NodeId(self.node_id)))
    }
}

impl pb::CreateLog {
    pub(super) fn store(log: &NewLog) -> pb::CreateLog {
        let message = pb::CreateLog {
            name: log.name.to_string(),
            log_id: log.log_id.0,
            restore: log.restore.as_ref().map(store_restore).into(),
            ..pb::CreateLog::default()
        };
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

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        let name = LogName::new(&self.name)?;
        let log_id = LogId(self.log_id);
        let restore = self.restore.into_option().map(|restore| load_restore("CreateLog", restore)).transpose()?;
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
        Ok(Command::CreateLog(NewLog { name, log_id, origin, settings, restore }))
    }
}

impl pb::RaiseFeatureLevel {
    pub(super) fn store(level: &FeatureLevel) -> pb::RaiseFeatureLevel {
        pb::RaiseFeatureLevel { level: level.0, ..pb::RaiseFeatureLevel::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::RaiseFeatureLevel(FeatureLevel(self.level)))
    }
}

impl pb::Founded {
    pub(super) fn store(group: &GroupId) -> pb::Founded {
        pb::Founded { group: group.0, ..pb::Founded::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::Founded(GroupId(self.group)))
    }
}

impl pb::ConfigureLog {
    pub(super) fn store(group: &GroupId, change: &LogSettings) -> pb::ConfigureLog {
        pb::ConfigureLog {
            group: group.0,
            retention_bytes: change.retention_bytes,
            retention_ms: change.retention_ms,
            record_bytes_max: change.record_bytes_max,
            request_bytes_max: change.request_bytes_max,
            ..pb::ConfigureLog::default()
        }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
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
    pub(super) fn store(group: &GroupId, settings: &LogSettings, expected_revision: &u64) -> pb::UpdateLog {
        pb::UpdateLog {
            group: group.0,
            settings: Some(settings.store()).into(),
            expected_revision: *expected_revision,
            ..pb::UpdateLog::default()
        }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        let settings = load_settings("UpdateLog", self.settings.unwrap_or_default())?;
        Ok(Command::UpdateLog(GroupId(self.group), settings, self.expected_revision))
    }
}

impl pb::DeleteLog {
    pub(super) fn store(
        group: &GroupId,
        purge_after_ms: &Option<u64>,
        expected_revision: &Option<u64>,
    ) -> pb::DeleteLog {
        pb::DeleteLog {
            group: group.0,
            purge_after_ms: *purge_after_ms,
            expected_revision: *expected_revision,
            ..pb::DeleteLog::default()
        }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::DeleteLog(GroupId(self.group), self.purge_after_ms, self.expected_revision))
    }
}

impl pb::UndeleteLog {
    pub(super) fn store(group: &GroupId) -> pb::UndeleteLog {
        pb::UndeleteLog { group: group.0, ..pb::UndeleteLog::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::UndeleteLog(GroupId(self.group)))
    }
}

impl pb::PurgeLog {
    pub(super) fn store(group: &GroupId) -> pb::PurgeLog {
        pb::PurgeLog { group: group.0, ..pb::PurgeLog::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::PurgeLog(GroupId(self.group)))
    }
}

impl pb::PlaceReplica {
    pub(super) fn store(group: &GroupId, node: &NodeId) -> pb::PlaceReplica {
        pb::PlaceReplica { group: group.0, node_id: node.0, ..pb::PlaceReplica::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::PlaceReplica(GroupId(self.group), NodeId(self.node_id)))
    }
}

impl pb::RemoveReplica {
    pub(super) fn store(group: &GroupId, replica: &ReplicaId) -> pb::RemoveReplica {
        pb::RemoveReplica { group: group.0, replica_id: replica.0, ..pb::RemoveReplica::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::RemoveReplica(GroupId(self.group), ReplicaId(self.replica_id)))
    }
}

impl pb::ReplicaRemoved {
    pub(super) fn store(group: &GroupId, replica: &ReplicaId) -> pb::ReplicaRemoved {
        pb::ReplicaRemoved { group: group.0, replica_id: replica.0, ..pb::ReplicaRemoved::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::ReplicaRemoved(GroupId(self.group), ReplicaId(self.replica_id)))
    }
}

impl pb::UpdateCluster {
    pub(super) fn store(settings: &ClusterSettings, expected_revision: &u64) -> pb::UpdateCluster {
        pb::UpdateCluster {
            settings: Some(store_cluster_settings(settings)).into(),
            expected_revision: *expected_revision,
            ..pb::UpdateCluster::default()
        }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        let settings = load_cluster_settings("UpdateCluster", self.settings.unwrap_or_default())?;
        Ok(Command::UpdateCluster(settings, self.expected_revision))
    }
}

impl pb::PlanNode {
    pub(super) fn store(id: &NodeId, plan: &Plan, expected: &Plan) -> pb::PlanNode {
        let (plan, expected) = (Some(store_plan(plan)).into(), Some(store_plan(expected)).into());
        pb::PlanNode { node_id: id.0, plan, expected, ..pb::PlanNode::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        let load = |plan: protobuf::MessageField<pb::NodePlan>| load_plan("PlanNode", plan.unwrap_or_default());
        Ok(Command::PlanNode(NodeId(self.node_id), load(self.plan)?, load(self.expected)?))
    }
}

impl pb::ReplaceNode {
    pub(super) fn store(id: &NodeId, by: &Member) -> pb::ReplaceNode {
        let by = Some(pb::AddNode::store(by)).into();
        pb::ReplaceNode { node_id: id.0, by, ..pb::ReplaceNode::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        let by = self.by.unwrap_or_default();
        if let Some(number) = unknown_field(&by.special_fields) {
            return Err(BadCommand::UnknownField { command: "ReplaceNode", number });
        }
        Ok(Command::ReplaceNode(NodeId(self.node_id), by.member()?))
    }
}

impl pb::MoveReplica {
    pub(super) fn store(group: &GroupId, replica: &ReplicaId, node: &NodeId) -> pb::MoveReplica {
        pb::MoveReplica { group: group.0, replica_id: replica.0, node_id: node.0, ..pb::MoveReplica::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::MoveReplica(GroupId(self.group), ReplicaId(self.replica_id), NodeId(self.node_id)))
    }
}

impl pb::SetBalancing {
    pub(super) fn store(balancing: &bool) -> pb::SetBalancing {
        pb::SetBalancing { balancing: *balancing, ..pb::SetBalancing::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::SetBalancing(self.balancing))
    }
}

impl pb::FinishRestore {
    pub(super) fn store(group: &GroupId) -> pb::FinishRestore {
        pb::FinishRestore { group: group.0, ..pb::FinishRestore::default() }
    }

    pub(super) fn load(self) -> Result<Command, BadCommand> {
        Ok(Command::FinishRestore(GroupId(self.group)))
    }
}

pub fn store_plan(plan: &Plan) -> pb::NodePlan {
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

pub fn load_plan(command: &'static str, plan: pb::NodePlan) -> Result<Plan, BadCommand> {
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

pub fn store_restore(restore: &Restore) -> pb::Restore {
    pb::Restore {
        source_log_id: restore.source_log_id.0,
        first_offset: restore.first_offset.0,
        end_offset: restore.end_offset.0,
        digest: restore.digest.to_vec().into(),
        complete: restore.is_complete,
        ..pb::Restore::default()
    }
}

pub fn load_restore(command: &'static str, restore: pb::Restore) -> Result<Restore, BadCommand> {
    if let Some(number) = unknown_field(&restore.special_fields) {
        return Err(BadCommand::UnknownField { command, number });
    }
    let digest = <[u8; 32]>::try_from(&restore.digest[..]);
    let (first_offset, end_offset) = (Offset(restore.first_offset), Offset(restore.end_offset));
    if end_offset > Offset::MAX || first_offset > end_offset {
        return Err(BadCommand::Malformed("a backup that ends before it begins".to_owned()));
    }
    Ok(Restore {
        source_log_id: LogId(restore.source_log_id),
        first_offset,
        end_offset,
        digest: digest.map_err(|_| BadCommand::Malformed("a digest that does not have 32 bytes".to_owned()))?,
        is_complete: restore.complete,
    })
}

pub fn store_cluster_settings(settings: &ClusterSettings) -> pb::ClusterSettings {
    pb::ClusterSettings {
        log_defaults: Some(settings.log_defaults.store()).into(),
        create_on_append: settings.create_on_append,
        deleted_log_retention_ms: settings.deleted_log_retention_ms,
        auto_replace_wiped: settings.auto_replace_wiped,
        ..pb::ClusterSettings::default()
    }
}

pub fn load_cluster_settings(
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
