//! `GetCluster` and `WhoAmI`: the identities of the cluster and of the caller.

use super::cluster_settings::cluster;
use super::error::ApiError;
use super::messages::{Request, decode};
use super::service::{Call, Service};
use crate::pb::v1;

/// Serves `GetCluster`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_cluster(service: Service, call: Call, request: Request) -> Result<v1::GetClusterResponse, ApiError> {
    let _: v1::GetClusterRequest = decode(&request, call.package)?;
    let mut response = v1::GetClusterResponse::new();
    response.cluster = Some(cluster(service.core()?)).into();
    Ok(response)
}

/// Serves `WhoAmI`, also on a node that is not a member of a cluster yet.
///
/// # Errors
/// Those of [`super::status`].
pub async fn who_am_i(_: Service, call: Call, request: Request) -> Result<v1::WhoAmIResponse, ApiError> {
    let _: v1::WhoAmIRequest = decode(&request, call.package)?;
    let client = call.client()?;
    let mut response = v1::WhoAmIResponse::new();
    response.principal = client.principal().to_string();
    for (log, action) in client.permissions() {
        let mut permission = v1::Permission::new();
        (permission.log, permission.action) = (log, action.to_string());
        response.permissions.push(permission);
    }
    Ok(response)
}
