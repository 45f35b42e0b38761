//! `GetCluster` and `WhoAmI`: the identities of the cluster and of the caller.

use super::core::Core;
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

/// Returns the cluster as a message.
pub fn cluster(core: &Core) -> v1::Cluster {
    let mut cluster = v1::Cluster::new();
    cluster.name.clone_from(&core.me.cluster_name);
    cluster.cluster_id = core.cluster_id.to_string();
    cluster.feature_level = core.catalog.get().feature_level().0;
    cluster
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
