//! Changes of members and their plans: the checks, and what the changes do.

use std::sync::Arc;

use super::conflict::{Conflict, MEMBERS_MAX};
use super::meta::{LogMeta, Member, Placement, is_address};
use super::plans::{Destination, Plan};
use super::replicas::new_replica;
use super::state::{Catalog, Change, Changes};
use crate::types::{NodeId, ReplicaId};

/// Checks that a node may be a member. `replaces` is the member that it replaces.
pub(super) fn check_member(catalog: &Catalog, member: &Member, replaces: Option<NodeId>) -> Result<(), Conflict> {
    if catalog.removed.contains(&member.id) || catalog.replaced.contains(&member.id) {
        return Err(Conflict::NodeRemoved(member.id));
    }
    let is_other = |m: &&Member| m.id != member.id && Some(m.id) != replaces;
    if let Some(other) = catalog.members.values().filter(is_other).find(|m| m.name == member.name) {
        return Err(Conflict::NameTaken(other.clone()));
    }
    if member.id == NodeId(0) || !is_address(&member.bind_addr) || !is_address(&member.rpc_addr) {
        return Err(Conflict::Malformed);
    }
    let is_new = !catalog.members.contains_key(&member.id);
    if is_new && replaces.is_none() && catalog.members.len() >= MEMBERS_MAX {
        return Err(Conflict::TooManyMembers);
    }
    Ok(())
}

pub(super) fn add(catalog: &Catalog, member: &Member) -> Changes {
    check_member(catalog, member, None)?;
    Ok((catalog.members.get(&member.id) != Some(member)).then(|| Change::SetMember(member.clone())))
}

pub(super) fn remove(catalog: &Catalog, id: NodeId) -> Changes {
    if catalog.members.contains_key(&id) || catalog.replaced.contains(&id) {
        Ok(Some(Change::RemoveMember(id)))
    } else if catalog.removed.contains(&id) {
        Ok(None)
    } else {
        Err(Conflict::NoSuchNode(id))
    }
}

pub(super) fn replace(catalog: &Catalog, old: NodeId, by: &Member) -> Changes {
    if !catalog.members.contains_key(&old) {
        return Err(Conflict::NoSuchNode(old));
    }
    check_member(catalog, by, Some(old))?;
    if catalog.members.contains_key(&by.id) {
        return Err(Conflict::Malformed);
    }
    Ok(Some(Change::ReplaceMember(old, by.clone())))
}

pub(super) fn plan(catalog: &Catalog, id: NodeId, plan: &Plan, expected: &Plan) -> Changes {
    if !catalog.members.contains_key(&id) {
        return Err(Conflict::NoSuchNode(id));
    }
    let present = catalog.plan(id);
    if present == *plan {
        return Ok(None);
    }
    if present != *expected {
        return Err(Conflict::OtherPlan(id));
    }
    if present.leaves != plan.leaves {
        check_leaves(catalog, id, plan)?;
    }
    Ok(Some(Change::SetPlan(id, *plan)))
}

fn check_leaves(catalog: &Catalog, id: NodeId, plan: &Plan) -> Result<(), Conflict> {
    let Some(destination) = plan.leaves else { return Ok(()) };
    let stays = |node: NodeId| node != id && catalog.plan(node).leaves.is_none();
    match destination {
        Destination::Node(to) if catalog.member(to).is_none() => return Err(Conflict::NoSuchNode(to)),
        Destination::Node(to) if !stays(to) => return Err(Conflict::NodeLeaves(to)),
        Destination::Node(_) | Destination::AnyNode => {}
    }
    if !catalog.members().any(|member| stays(member.id)) {
        return Err(Conflict::LastNode(id));
    }
    // The replicas of another node move to this one.
    let to_me = |plan: &Plan| plan.leaves == Some(Destination::Node(id));
    match catalog.plans.iter().find(|(_, plan)| to_me(plan)) {
        Some((other, _)) => Err(Conflict::NodeLeaves(*other)),
        None => Ok(()),
    }
}

pub(super) fn set_plan(catalog: &mut Catalog, id: NodeId, plan: Plan) {
    match plan == Plan::default() {
        true => catalog.plans.remove(&id),
        false => catalog.plans.insert(id, plan),
    };
}

/// Removes a member. Its replicas leave their logs.
pub(super) fn remove_member(catalog: &mut Catalog, id: NodeId) {
    forget(catalog, id);
    catalog.replaced.remove(&id);
    Arc::make_mut(&mut catalog.removed).insert(id);
    for mut log in logs_on(catalog, id) {
        let (left, kept) = log.replicas.iter().partition(|placement| placement.node == id);
        log.replicas = kept;
        log.leaving.extend::<Vec<Placement>>(left);
        catalog.set_log(log);
    }
    for plan in catalog.plans.values_mut().filter(|plan| plan.leaves == Some(Destination::Node(id))) {
        plan.leaves = Some(Destination::AnyNode);
    }
}

/// Replaces a member by a new one, which gets a replica of each log that the other one had. The votes of the old one count
/// until its replicas have left their groups, so its id is refused only then: it may be needed after all.
pub(super) fn replace_member(catalog: &mut Catalog, old: NodeId, by: Member) {
    let node = by.id;
    forget(catalog, old);
    catalog.replaced.insert(old);
    catalog.members.insert(node, by);
    for mut log in logs_on(catalog, old) {
        let (replica, next_replica) = new_replica(catalog, catalog.next_replica);
        catalog.next_replica = next_replica;
        for placement in log.replicas.iter_mut().filter(|placement| placement.node == old) {
            log.leaving.push(std::mem::replace(placement, Placement { replica, node }));
        }
        catalog.set_log(log);
    }
    for plan in catalog.plans.values_mut().filter(|plan| plan.leaves == Some(Destination::Node(old))) {
        plan.leaves = Some(Destination::Node(node));
    }
}

fn forget(catalog: &mut Catalog, id: NodeId) {
    catalog.members.remove(&id);
    catalog.plans.remove(&id);
}

/// At feature level 1, a new member gets a replica of every log.
pub(super) fn place_everywhere(catalog: &mut Catalog, node: NodeId) {
    let placement = Placement { replica: ReplicaId::of_node(node), node };
    let missing = |log: &&Arc<LogMeta>| !log.is_on(node);
    let logs: Vec<LogMeta> = catalog.logs.iter().map(|(_, log)| log).filter(missing).map(|l| (**l).clone()).collect();
    for mut log in logs {
        log.replicas.push(placement);
        catalog.set_log(log);
    }
}

/// In the order of their groups, so that every node chooses the same ids for new replicas.
fn logs_on(catalog: &Catalog, node: NodeId) -> Vec<LogMeta> {
    let mut logs: Vec<LogMeta> = catalog.logs().filter(|log| log.is_on(node)).cloned().collect();
    logs.sort_unstable_by_key(|log| log.group);
    logs
}
