//! `ListNodes`, and the calls that drain, remove and replace nodes: they set the plan of a node in the catalog, whose
//! leader carries it out.

use std::time::{Duration, Instant};

use super::change::{Step, change, check_level};
use super::core::Core;
use super::error::ApiError;
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::{Catalog, Command, Destination, LogMeta, Member, Plan};
use crate::consensus::handle::TransferError;
use crate::feature_level::Feature;
use crate::pb::v1;
use crate::types::{GroupId, NodeId};

/// The pause between two looks for the next leader.
const PAUSE: Duration = Duration::from_millis(5);

/// Serves `ListNodes`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn list_nodes(service: Service, call: Call, request: Request) -> Result<v1::ListNodesResponse, ApiError> {
    let _: v1::ListNodesRequest = decode(&request, call.package)?;
    let core = service.core()?;
    let deadline = Some(proposal_deadline(call.deadline));
    core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, deadline).await?;
    let catalog = core.catalog.get();
    let mut response = v1::ListNodesResponse::new();
    response.nodes = catalog.members().map(|member| describe(core, &catalog, member)).collect();
    response.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    response.balancing = catalog.is_balancing();
    Ok(response)
}

/// Serves `DrainNode`. Responds once the plan is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn drain_node(service: Service, call: Call, request: Request) -> Result<v1::DrainNodeResponse, ApiError> {
    let request: v1::DrainNodeRequest = decode(&request, call.package)?;
    let mut response = v1::DrainNodeResponse::new();
    let drained = |plan| Plan { drained: true, ..plan };
    response.node = set_plan(&service, &call, &request.node_id, "drained", drained).await?.into();
    Ok(response)
}

/// Serves `UndrainNode`. Responds once the plan is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn undrain_node(service: Service, call: Call, request: Request) -> Result<v1::UndrainNodeResponse, ApiError> {
    let request: v1::UndrainNodeRequest = decode(&request, call.package)?;
    let mut response = v1::UndrainNodeResponse::new();
    response.node = set_plan(&service, &call, &request.node_id, "undrained", |_| Plan::default()).await?.into();
    Ok(response)
}

/// Serves `RemoveNode`. Responds once the plan is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn remove_node(service: Service, call: Call, request: Request) -> Result<v1::RemoveNodeResponse, ApiError> {
    let request: v1::RemoveNodeRequest = decode(&request, call.package)?;
    let mut response = v1::RemoveNodeResponse::new();
    let leaves = |plan| Plan { leaves: Some(Destination::AnyNode), ..plan };
    response.node = set_plan(&service, &call, &request.node_id, "to be removed", leaves).await?.into();
    Ok(response)
}

/// Serves `ReplaceNode`. Responds once the plan is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn replace_node(service: Service, call: Call, request: Request) -> Result<v1::ReplaceNodeResponse, ApiError> {
    let request: v1::ReplaceNodeRequest = decode(&request, call.package)?;
    let mut response = v1::ReplaceNodeResponse::new();
    let node = match request.by_node_id.is_empty() {
        true => {
            let allowed = |plan| Plan { may_be_replaced: true, ..plan };
            set_plan(&service, &call, &request.node_id, "replaceable", allowed).await?
        }
        false => {
            let by = node_id(&request.by_node_id)?;
            let leaves = |plan| Plan { leaves: Some(Destination::Node(by)), ..plan };
            set_plan(&service, &call, &request.node_id, "to be replaced", leaves).await?
        }
    };
    response.node = node.into();
    Ok(response)
}

/// Serves `BalanceCluster`. Responds once it is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn balance_cluster(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::BalanceClusterResponse, ApiError> {
    let request: v1::BalanceClusterRequest = decode(&request, call.package)?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    check_level(&service, core, Feature::Membership, Some(deadline)).await?;
    let mut is_proposed = false;
    change(&service, core, &call, deadline, |catalog| {
        // The leader may have ended the balancing since.
        if is_proposed || catalog.is_balancing() != request.stop {
            return Ok(Step::Done(()));
        }
        is_proposed = true;
        Ok(Step::propose(Command::SetBalancing(!request.stop)))
    })
    .await?;
    let mut response = v1::BalanceClusterResponse::new();
    response.balancing = core.catalog.get().is_balancing();
    Ok(response)
}

/// Serves `TransferLeadership`. Responds once another node leads.
///
/// # Errors
/// Those of [`super::status`].
pub async fn transfer_leadership(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::TransferLeadershipResponse, ApiError> {
    let request: v1::TransferLeadershipRequest = decode(&request, call.package)?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    let (group, log) = match request.log.is_empty() {
        true => (GroupId::CATALOG, None),
        false => {
            let found = core.find_any(&call.log_name(&request.log)?, &service.timers, Some(deadline)).await?;
            (found.group, Some(found.name))
        }
    };
    let to = match request.to_node_id.is_empty() {
        true => None,
        false => Some(node_id(&request.to_node_id)?),
    };
    let leader = || core.consensus.status(group).and_then(|status| status.leader);
    if to != Some(core.me.node_id) || leader() != to {
        core.consensus.transfer(group, to).await.unwrap_or(Err(TransferError::Stopping)).map_err(
            |error| match error {
                TransferError::NotLeader { leader: None } => ApiError::NoLeader,
                TransferError::NotLeader { leader: Some(_) } => ApiError::LeaderChanged,
                TransferError::NoSuccessor => ApiError::NoSuccessor { log: log.clone() },
                TransferError::QueueFull => ApiError::QueueFull,
                TransferError::Stopping => ApiError::Stopping,
            },
        )?;
    }
    let mut response = v1::TransferLeadershipResponse::new();
    loop {
        if let Some(now) = leader().filter(|now| to == Some(*now) || *now != core.me.node_id) {
            if to.is_some_and(|to| to != now) {
                // Another node was elected.
                return Err(ApiError::LeaderChanged);
            }
            log::info!("leadership was handed over: group={group} to={now} principal={}", call.principal());
            service.changed(format!("{} has handed leadership of a log over", call.principal()));
            response.leader_node_id = now.to_string();
            return Ok(response);
        }
        let next = Instant::now() + PAUSE;
        if next >= deadline {
            return Err(ApiError::NoSuccessor { log });
        }
        service.timers.at(next).await;
    }
}

/// Changes the plan of a member. Returns the member; `None` if it is removed already.
async fn set_plan(
    service: &Service,
    call: &Call,
    id: &str,
    what: &str,
    planned: impl Fn(Plan) -> Plan,
) -> Result<Option<v1::Node>, ApiError> {
    let id = node_id(id)?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    check_level(service, core, Feature::Membership, Some(deadline)).await?;
    let mut is_proposed = false;
    change(service, core, call, deadline, |catalog| {
        if catalog.is_removed(id) {
            return Ok(Step::Done(()));
        }
        if catalog.member(id).is_none() {
            return Err(ApiError::NoSuchNode { node: id.to_string() });
        }
        let present = catalog.plan(id);
        let plan = planned(present);
        if plan == present {
            return Ok(Step::Done(()));
        }
        is_proposed = true;
        Ok(Step::propose(Command::PlanNode(id, plan, present)))
    })
    .await?;
    if is_proposed {
        log::info!("node is {what}: node={id} principal={}", call.principal());
        service.changed(format!("node {id} is {what}, by {}", call.principal()));
    }
    let catalog = core.catalog.get();
    Ok(catalog.member(id).map(|member| describe(core, &catalog, member)))
}

fn node_id(text: &str) -> Result<NodeId, ApiError> {
    text.parse().map_err(|_| ApiError::NoSuchNode { node: text.to_owned() })
}

/// Returns what the catalog and the heartbeats say about a member.
pub fn describe(core: &Core, catalog: &Catalog, member: &Member) -> v1::Node {
    let plan = catalog.plan(member.id);
    let has_replica = |log: &&LogMeta| log.placements().any(|placement| placement.node == member.id);
    let mut logs: Vec<&LogMeta> = catalog.logs().filter(has_replica).collect();
    logs.sort_by(|a, b| a.name.cmp(&b.name));
    let joins = core.consensus.status(GroupId::CATALOG).is_some_and(|status| {
        !status.voters.is_empty() && !status.voters.contains(&member.id) && !status.learners.contains(&member.id)
    });
    let state = match plan {
        Plan { leaves: Some(_), .. } => v1::NodeState::NODE_STATE_REMOVING,
        Plan { drained: true, .. } => v1::NodeState::NODE_STATE_DRAINED,
        _ if joins => v1::NodeState::NODE_STATE_JOINING,
        _ => v1::NodeState::NODE_STATE_ACTIVE,
    };
    let count = u32::try_from(logs.len()).unwrap_or(u32::MAX);
    let leaves = plan.leaves.is_some();
    v1::Node {
        node_id: member.id.to_string(),
        name: member.name.to_string(),
        peer_addr: member.bind_addr.clone(),
        client_addr: member.rpc_addr.clone(),
        state: state.into(),
        is_heard: member.id == core.me.node_id || !core.consensus.is_silent(member.id),
        replicas: count,
        logs_to_move: if leaves { count } else { 0 },
        waits_for: if leaves { waits_for(core, catalog, &plan, &logs) } else { String::new() },
        replaced_by: match plan.leaves {
            Some(Destination::Node(to)) => to.to_string(),
            Some(Destination::AnyNode) | None => String::new(),
        },
        may_be_replaced: plan.may_be_replaced,
        ..v1::Node::default()
    }
}

/// What the removal of a node waits for. `logs` are those with a replica on it.
fn waits_for(core: &Core, catalog: &Catalog, plan: &Plan, logs: &[&LogMeta]) -> String {
    let name = |node: NodeId| catalog.member(node).map_or_else(|| node.to_string(), |member| member.name.to_string());
    if let Some(Destination::Node(to)) = plan.leaves
        && core.consensus.is_silent(to)
    {
        return format!("node {} does not answer", name(to));
    }
    let Some(log) = logs.first() else { return "the catalog".to_owned() };
    // Those with a replica, and those that could get one.
    let members = catalog.members().map(|member| member.id);
    let silent: Vec<String> = members.filter(|node| core.consensus.is_silent(*node)).map(name).collect();
    match silent.is_empty() {
        true => format!("log {}", log.name),
        false => format!("log {}, while nodes do not answer: {}", log.name, silent.join(", ")),
    }
}
