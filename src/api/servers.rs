//! `GetServers`: the members of the cluster, and the leader of a log.

use std::sync::Arc;

use super::core::Core;
use super::error::ApiError;
use super::messages::{Request, decode};
use super::service::{Call, Service};
use crate::catalog::Member;
use crate::consensus::handle::GroupStatus;
use crate::pb::{log, v1};
use crate::types::{LogName, NodeId};

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
    let status = status(&service, core, &call, &name).await?;
    let mut response = log::GetServersResponse::new();
    response.cluster_id = core.cluster_id.to_string();
    response.term = status.as_ref().map_or(0, |status| status.term.0);
    for ServerFacts { name, rpc_addr, node_id, is_leader, is_voter } in servers(core, status.as_deref()) {
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
    let status = match &name {
        Some(name) => status(&service, core, &call, name).await?,
        None => None,
    };
    let mut response = v1::GetServersResponse::new();
    response.cluster_id = core.cluster_id.to_string();
    response.term = status.as_ref().map_or(0, |status| status.term.0);
    response.feature_level = core.catalog.get().feature_level().0;
    response.version = env!("CARGO_PKG_VERSION").to_owned();
    for ServerFacts { name, rpc_addr, node_id, is_leader, is_voter } in servers(core, status.as_deref()) {
        let mut server = v1::Server::new();
        (server.id, server.rpc_addr, server.node_id) = (name, rpc_addr, node_id.to_string());
        (server.is_leader, server.is_voter) = (is_leader, is_voter);
        response.servers.push(server);
    }
    Ok(response)
}

/// Returns the status of a log's group on this node, if it has one.
async fn status(
    service: &Service,
    core: &Core,
    call: &Call,
    name: &LogName,
) -> Result<Option<Arc<GroupStatus>>, ApiError> {
    // Without a replica of the log, this node does not know the leader, but it knows the members.
    let group = match core.log(name, &service.timers, call.deadline).await {
        Ok(log) => Some(log.group),
        Err(ApiError::Joining(_)) => core.catalog.get().log_named(name).map(|log| log.group),
        Err(error) => return Err(error),
    };
    Ok(group.and_then(|group| core.consensus.status(group)))
}

/// A member, and its part in a log.
struct ServerFacts {
    name: String,
    rpc_addr: String,
    node_id: NodeId,
    is_leader: bool,
    is_voter: bool,
}

fn servers(core: &Core, status: Option<&GroupStatus>) -> Vec<ServerFacts> {
    let facts = |member: &Member| ServerFacts {
        name: member.name.to_string(),
        rpc_addr: member.rpc_addr.clone(),
        node_id: member.id,
        is_leader: status.is_some_and(|status| status.leader == Some(member.id)),
        is_voter: status.is_some_and(|status| status.voters.contains(&member.id)),
    };
    core.catalog.get().members().map(facts).collect()
}
