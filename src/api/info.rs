//! `GetServers` and `GetLog`: the members of the cluster, and the bounds of a log.

use super::core::Core;
use super::error::ApiError;
use super::messages::{Request, decode};
use super::read::append_time_us;
use super::service::{Call, Service};
use crate::consensus::handle::GroupStatus;
use crate::pb::log::{GetLogRequest, GetLogResponse, GetServersRequest, GetServersResponse, Server};

/// Serves `GetServers`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_servers(service: Service, call: Call, request: Request) -> Result<GetServersResponse, ApiError> {
    let request: GetServersRequest = decode(&request)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    // Without a replica of the log, this node does not know the leader, but it knows the members.
    let group = match core.log(&name, &service.timers, call.deadline).await {
        Ok(log) => Some(log.group),
        Err(ApiError::Joining(_)) => core.catalog.get().log_named(&name).map(|log| log.group),
        Err(error) => return Err(error),
    };
    let status = group.and_then(|group| core.consensus.status(group));
    Ok(servers(core, status.as_deref()))
}

fn servers(core: &Core, status: Option<&GroupStatus>) -> GetServersResponse {
    let mut response = GetServersResponse::new();
    response.cluster_id = core.cluster_id.to_string();
    response.term = status.map_or(0, |status| status.term.0);
    for member in core.catalog.get().members() {
        let mut server = Server::new();
        server.id = member.name.to_string();
        server.rpc_addr.clone_from(&member.rpc_addr);
        server.is_leader = status.is_some_and(|status| status.leader == Some(member.id));
        server.node_id = member.id.0;
        server.is_voter = status.is_some_and(|status| status.voters.contains(&member.id));
        response.servers.push(server);
    }
    response
}

/// Serves `GetLog`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_log(service: Service, call: Call, request: Request) -> Result<GetLogResponse, ApiError> {
    let request: GetLogRequest = decode(&request)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let log = core.log(&name, &service.timers, call.deadline).await?;
    let mut visible = core.catch_up(log.group, &log.watermark, &service.timers, call.deadline).await?;
    let first_append_time_us = loop {
        match append_time_us(core, &log, &visible).await {
            // Trimmed since the watermark was read. The watermark advances before the files are removed.
            Err(ApiError::OffsetTrimmed(..)) if log.watermark.get().first_offset > visible.first_offset => {
                visible = log.watermark.get();
            }
            found => break found?.unwrap_or_default(),
        }
    };
    let mut response = GetLogResponse::new();
    response.log = log.name.to_string();
    response.log_id = log.log_id.0;
    response.first_offset = visible.first_offset.0;
    response.next_offset = visible.next_offset.0;
    if visible.first_offset < visible.next_offset {
        response.first_append_time_us = first_append_time_us;
        response.last_append_time_us = visible.last_append_time_us;
    }
    response.record_bytes_max = log.record_bytes_max;
    response.request_bytes_max = log.request_bytes_max;
    response.stored_bytes = log.reader.stored_bytes();
    Ok(response)
}
