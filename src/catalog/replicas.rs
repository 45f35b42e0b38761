//! Changes of the replicas of logs: which are added, and which are to leave.

use super::conflict::Conflict;
use super::faults::{Fault, broken};
use super::meta::{EffectiveSettings, LogMeta, Placement};
use super::state::{Catalog, Change, Changes, replace_log};
use crate::feature_level::Feature;
use crate::types::{GroupId, NodeId, ReplicaId};

/// Returns a new replica id, and the counter after it. Replicas of level 1 have the ids of nodes, which are random.
pub(super) fn new_replica(catalog: &Catalog, next: ReplicaId) -> (ReplicaId, ReplicaId) {
    let mut id = next;
    let is_node = |id: NodeId| {
        catalog.members.contains_key(&id) || catalog.removed.contains(&id) || catalog.replaced.contains(&id)
    };
    while is_node(NodeId(id.0)) {
        id = ReplicaId(id.0 + 1);
    }
    (id, ReplicaId(id.0 + 1))
}

pub(super) fn place(catalog: &Catalog, group: GroupId, node: NodeId) -> Changes {
    let mut log = log_of(catalog, group)?.clone();
    if log.replicas.len() >= EffectiveSettings::REPLICAS_MOST as usize {
        return Err(Conflict::BadPlacement);
    }
    let (placement, next_replica) = new_placement(catalog, &log, node)?;
    log.replicas.push(placement);
    Ok(Some(Change::SetLog { log, next_replica }))
}

pub(super) fn remove(catalog: &Catalog, group: GroupId, replica: ReplicaId) -> Changes {
    let mut log = log_of(catalog, group)?.clone();
    if log.leaving.iter().any(|placement| placement.replica == replica) {
        return Ok(None);
    }
    let at = log.replicas.iter().position(|placement| placement.replica == replica);
    let at = at.filter(|_| log.replicas.len() > 1).ok_or(Conflict::BadPlacement)?;
    let placement = log.replicas.remove(at);
    log.leaving.push(placement);
    Ok(Some(Change::SetLog { log, next_replica: catalog.next_replica }))
}

pub(super) fn move_to(catalog: &Catalog, group: GroupId, replica: ReplicaId, node: NodeId) -> Changes {
    let mut log = log_of(catalog, group)?.clone();
    let (new, next_replica) = new_placement(catalog, &log, node)?;
    let mut replicas = log.replicas.iter_mut();
    let placement = replicas.find(|placement| placement.replica == replica).ok_or(Conflict::BadPlacement)?;
    log.leaving.push(std::mem::replace(placement, new));
    Ok(Some(Change::SetLog { log, next_replica }))
}

pub(super) fn removed(catalog: &Catalog, group: GroupId, replica: ReplicaId) -> Changes {
    if !log_of(catalog, group)?.leaving.iter().any(|placement| placement.replica == replica) {
        return Ok(None);
    }
    replace_log(catalog, group, |log| log.leaving.retain(|placement| placement.replica != replica))
}

fn log_of(catalog: &Catalog, group: GroupId) -> Result<&LogMeta, Conflict> {
    catalog.log(group).ok_or(Conflict::NoSuchLog(group))
}

/// Returns a new placement on the node, and the counter of replicas after it. A node has at most one replica of a
/// group, so a leaving one must be removed before another is placed.
fn new_placement(catalog: &Catalog, log: &LogMeta, node: NodeId) -> Result<(Placement, ReplicaId), Conflict> {
    let is_allowed = catalog.feature_level() >= Feature::ManyLogs.level();
    if !is_allowed || catalog.member(node).is_none() || log.placements().any(|placement| placement.node == node) {
        return Err(Conflict::BadPlacement);
    }
    let (replica, next) = new_replica(catalog, catalog.next_replica);
    let next = if broken(Fault::ReplicaIdReused) { catalog.next_replica } else { next };
    Ok((Placement { replica, node }, next))
}
