//! `GetServers`: the members of the cluster, and the leader of a log.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::select;

use super::core::Core;
use super::error::ApiError;
use super::messages::{Request, decode};
use super::service::{Call, Service};
use crate::catalog::Member;
use crate::consensus::handle::GroupStatus;
use crate::pb::{log, v1};
use crate::types::{GroupId, LogName, NodeId};

/// The maximum wait for the leader of a log of which this node has no replica.
const LEADER_MAX: Duration = Duration::from_secs(1);

/// Serves `GetServers` of `log.v1`. A name in the request needs no permission, and an empty one means the default log.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_servers_log_v1(
    service: Service,
    call: Call,
    request: Request,
) -> Result<log::GetServersResponse, ApiError> {
    let request: log::GetServersRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let named = Some(named_log(&service, core, &call, &name).await?);
    let mut response = log::GetServersResponse::new();
    response.cluster_id = core.cluster_id.to_string();
    response.term = term(named.as_ref());
    for ServerFacts { name, rpc_addr, node_id, is_leader, is_voter, is_replica: _ } in servers(core, named.as_ref()) {
        let mut server = log::Server::new();
        (server.id, server.rpc_addr, server.node_id) = (name, rpc_addr, node_id.0);
        (server.is_leader, server.is_voter) = (is_leader, is_voter);
        response.servers.push(server);
    }
    Ok(response)
}

/// Serves `GetServers` of `seriatim.v1`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_servers(service: Service, call: Call, request: Request) -> Result<v1::GetServersResponse, ApiError> {
    let request: v1::GetServersRequest = decode(&request, call.package)?;
    let name = match request.log.as_str() {
        "" => None,
        name => Some(call.log_name(name)?),
    };
    let core = service.core()?;
    let named = match &name {
        Some(name) => Some(named_log(&service, core, &call, name).await?),
        None => None,
    };
    let mut response = v1::GetServersResponse::new();
    response.cluster_id = core.cluster_id.to_string();
    response.term = term(named.as_ref());
    response.feature_level = core.catalog.get().feature_level().0;
    response.version = env!("CARGO_PKG_VERSION").to_owned();
    for ServerFacts { name, rpc_addr, node_id, is_leader, is_voter, is_replica } in servers(core, named.as_ref()) {
        let mut server = v1::Server::new();
        (server.id, server.rpc_addr, server.node_id) = (name, rpc_addr, node_id.to_string());
        (server.is_leader, server.is_voter, server.is_replica) = (is_leader, is_voter, is_replica);
        response.servers.push(server);
    }
    Ok(response)
}

/// What this node knows about the log of a request.
#[derive(Default)]
struct NamedLog {
    /// The nodes that should have a replica.
    nodes: Vec<NodeId>,
    /// `None` without a replica on this node.
    status: Option<Arc<GroupStatus>>,
    /// As far as this node knows.
    leader: Option<NodeId>,
}

async fn named_log(service: &Service, core: &Core, call: &Call, name: &LogName) -> Result<NamedLog, ApiError> {
    let group = match core.find_any(name, &service.timers, call.deadline).await {
        Ok(found) => Some(found.group),
        // This node knows the members although it does not serve the log yet.
        Err(ApiError::Joining(_)) => core.catalog.get().log_named(name).map(|log| log.group),
        Err(error) => return Err(error),
    };
    // Without a replica here, the leader that this node has used last may have been replaced.
    let has_to_ask = |group: &GroupId| core.consensus.status(*group).is_none();
    if let Some(group) = group.filter(has_to_ask) {
        // Without an answer, the leader is not known.
        let until = Instant::now() + LEADER_MAX;
        let until = call.deadline.map_or(until, |deadline| until.min(deadline));
        let leader = pin!(core.find_leader(group, until));
        let _ = select(leader, service.timers.at(until)).await;
    }
    let catalog = core.catalog.get();
    let Some(meta) = group.and_then(|group| catalog.log(group)) else { return Ok(NamedLog::default()) };
    let nodes = meta.placements().map(|placement| placement.node).collect();
    Ok(NamedLog { nodes, status: core.consensus.status(meta.group), leader: core.known_leader(meta.group) })
}

fn term(named: Option<&NamedLog>) -> u64 {
    named.and_then(|named| named.status.as_ref()).map_or(0, |status| status.term.0)
}

/// A member, and its part in a log.
struct ServerFacts {
    name: String,
    rpc_addr: String,
    node_id: NodeId,
    is_leader: bool,
    is_voter: bool,
    is_replica: bool,
}

fn servers(core: &Core, named: Option<&NamedLog>) -> Vec<ServerFacts> {
    let status = named.and_then(|named| named.status.as_ref());
    let facts = |member: &Member| {
        let is_replica = named.is_some_and(|named| named.nodes.contains(&member.id));
        ServerFacts {
            name: member.name.to_string(),
            rpc_addr: member.rpc_addr.clone(),
            node_id: member.id,
            is_leader: named.is_some_and(|named| named.leader == Some(member.id)),
            // Without a replica, this node knows only where the replicas should be.
            is_voter: status.map_or(is_replica, |status| status.voters.contains(&member.id)),
            is_replica,
        }
    };
    core.catalog.get().members().map(facts).collect()
}
