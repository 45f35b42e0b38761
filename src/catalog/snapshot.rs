//! The catalog as bytes (`CatalogState` in `proto/seriatim/catalog/v1/catalog.proto`): what a snapshot of group 0
//! contains, so that group 0's log can be trimmed up to it.

use std::sync::Arc;

use protobuf::Message as _;

use super::command::messages::{
    load_cluster_settings, load_plan, load_restore, store_cluster_settings, store_plan, store_restore,
};
use super::command::{BadCommand, load_settings, unknown_field};
use super::meta::{Deletion, LogMeta, Member, Placement, is_address};
use super::plans::Plan;
use super::state::Catalog;
use crate::feature_level::FeatureLevel;
use crate::pb::catalog as pb;
use crate::types::{GroupId, LogId, LogName, NodeId, NodeName, ReplicaId};

const STATE: &str = "CatalogState";

fn malformed(what: &str) -> BadCommand {
    BadCommand::Malformed(what.to_owned())
}

fn store_placements(placements: &[Placement]) -> Vec<pb::Placement> {
    let store = |placement: &Placement| pb::Placement {
        replica_id: placement.replica.0,
        node_id: placement.node.0,
        ..pb::Placement::default()
    };
    placements.iter().map(store).collect()
}

fn load_placements(placements: Vec<pb::Placement>) -> Vec<Placement> {
    let load = |placement: pb::Placement| Placement {
        replica: ReplicaId(placement.replica_id),
        node: NodeId(placement.node_id),
    };
    placements.into_iter().map(load).collect()
}

fn store_log(log: &LogMeta) -> pb::LogState {
    let deletion = log.deletion.map(|deletion| pb::Deletion {
        deleted_us: deletion.deleted_us,
        purge_us: deletion.purge_us,
        ..pb::Deletion::default()
    });
    pb::LogState {
        group: log.group.0,
        name: log.name.to_string(),
        log_id: log.log_id.0,
        first: store_placements(&log.first),
        replicas: store_placements(&log.replicas),
        leaving: store_placements(&log.leaving),
        settings: Some(log.settings.store()).into(),
        revision: log.revision,
        created_us: log.created_us,
        deletion: deletion.into(),
        restore: log.restore.as_ref().map(store_restore).into(),
        ..pb::LogState::default()
    }
}

fn store_planned((node, plan): (&NodeId, &Plan)) -> pb::PlannedNode {
    pb::PlannedNode { node_id: node.0, plan: Some(store_plan(plan)).into(), ..pb::PlannedNode::default() }
}

fn load_log(log: pb::LogState) -> Result<LogMeta, BadCommand> {
    let deletion = log.deletion.into_option();
    let restore = log.restore.into_option().map(|restore| load_restore(STATE, restore)).transpose()?;
    Ok(LogMeta {
        name: LogName::new(&log.name)?,
        group: GroupId(log.group),
        log_id: LogId(log.log_id),
        first: load_placements(log.first),
        replicas: load_placements(log.replicas),
        leaving: load_placements(log.leaving),
        settings: load_settings(STATE, log.settings.unwrap_or_default())?,
        revision: log.revision,
        created_us: log.created_us,
        deletion: deletion.map(|deletion| Deletion { deleted_us: deletion.deleted_us, purge_us: deletion.purge_us }),
        restore,
    })
}

impl Catalog {
    /// Returns the whole state as bytes. Equal states have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let member = |member: &Member| pb::AddNode {
            node_id: member.id.0,
            name: member.name.to_string(),
            bind_addr: member.bind_addr.clone(),
            rpc_addr: member.rpc_addr.clone(),
            ..pb::AddNode::default()
        };
        let mut logs: Vec<&LogMeta> = self.logs().collect();
        logs.sort_unstable_by_key(|log| log.group);
        let message = pb::CatalogState {
            feature_level: self.feature_level.0,
            members: self.members.values().map(member).collect(),
            removed_nodes: self.removed.iter().map(|id| id.0).collect(),
            logs: logs.into_iter().map(store_log).collect(),
            next_group: self.next_group.0,
            next_replica: self.next_replica.0,
            purged_logs: self.purged.iter().map(|id| id.0).collect(),
            settings: Some(store_cluster_settings(&self.settings)).into(),
            settings_revision: self.settings_revision,
            plans: self.plans.iter().map(store_planned).collect(),
            balancing: self.balancing,
            replaced_nodes: self.replaced.iter().map(|id| id.0).collect(),
            ..pb::CatalogState::default()
        };
        message.write_to_bytes().unwrap_or_default()
    }

    /// Decodes the output of [`Catalog::encode`].
    ///
    /// # Errors
    /// [`BadCommand`] for anything else, and for a field of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Catalog, BadCommand> {
        let state: pb::CatalogState =
            crate::pb::parse(bytes).map_err(|error| BadCommand::Malformed(error.to_string()))?;
        if let Some(number) = unknown_field(&state.special_fields) {
            return Err(BadCommand::UnknownField { command: STATE, number });
        }
        for log in &state.logs {
            let placements = log.first.iter().chain(&log.replicas).chain(&log.leaving);
            let parts = placements.map(|p| &p.special_fields).chain(log.deletion.as_ref().map(|d| &d.special_fields));
            if let Some(number) = parts.chain([&log.special_fields]).find_map(unknown_field) {
                return Err(BadCommand::UnknownField { command: STATE, number });
            }
        }
        if let Some(number) = state.members.iter().find_map(|member| unknown_field(&member.special_fields)) {
            return Err(BadCommand::UnknownField { command: STATE, number });
        }
        let mut catalog = Catalog {
            feature_level: FeatureLevel(state.feature_level),
            removed: Arc::new(state.removed_nodes.into_iter().map(NodeId).collect()),
            next_group: GroupId(state.next_group),
            next_replica: ReplicaId(state.next_replica),
            settings: Arc::new(load_cluster_settings(STATE, state.settings.unwrap_or_default())?),
            settings_revision: state.settings_revision,
            balancing: state.balancing,
            replaced: state.replaced_nodes.into_iter().map(NodeId).collect(),
            ..Catalog::default()
        };
        for member in state.members {
            let id = NodeId(member.node_id);
            if !is_address(&member.bind_addr)
                || !is_address(&member.rpc_addr)
                || catalog.is_removed(id)
                || catalog.replaced.contains(&id)
            {
                return Err(malformed("a member with a malformed address, or one that was removed"));
            }
            let name = NodeName::new(&member.name)?;
            let member = Member { id, name, bind_addr: member.bind_addr, rpc_addr: member.rpc_addr };
            catalog.members.insert(id, member);
        }
        for planned in state.plans {
            let id = NodeId(planned.node_id);
            if let Some(number) = unknown_field(&planned.special_fields) {
                return Err(BadCommand::UnknownField { command: STATE, number });
            }
            let plan = load_plan(STATE, planned.plan.unwrap_or_default())?;
            if !catalog.members.contains_key(&id) || plan == Plan::default() {
                return Err(malformed("a plan without content, or of a node that is not a member"));
            }
            catalog.plans.insert(id, plan);
        }
        for log_id in state.purged_logs.into_iter().map(LogId) {
            if catalog.was_used(log_id) {
                return Err(malformed("two purged logs with the same id"));
            }
            catalog.add_purged(log_id);
        }
        for log in state.logs {
            let log = load_log(log)?;
            let taken = catalog.log(log.group).is_some()
                || catalog.log_named(&log.name).is_some()
                || catalog.was_used(log.log_id);
            if taken || log.group == GroupId::CATALOG || log.group >= catalog.next_group {
                return Err(malformed("two logs with the same name, group or id, or a group that was never created"));
            }
            catalog.set_log(log);
        }
        if catalog.members.len() > Catalog::MEMBERS_MAX {
            return Err(malformed("more members than a catalog accepts"));
        }
        Ok(catalog)
    }
}
