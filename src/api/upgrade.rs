//! `UpgradeCluster`: raises the feature level of the cluster, by a command of the catalog.

use super::core::Core;
use super::error::ApiError;
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::Command;
use crate::consensus::command_proposal;
use crate::consensus::handle::{Proposal, ProposeError};
use crate::feature_level::FeatureLevel;
use crate::pb::admin;
use crate::types::{GroupId, NodeId};

/// Serves `UpgradeCluster`: answered once it is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn upgrade_cluster(
    service: Service,
    call: Call,
    request: Request,
) -> Result<admin::UpgradeClusterResponse, ApiError> {
    let request: admin::UpgradeClusterRequest = decode(&request)?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, Some(deadline)).await?;
    let previous = core.catalog.get().feature_level();
    let level = match request.level {
        0 => core.catalog.level().range().max().max(previous),
        level => FeatureLevel(level),
    };
    if level > previous {
        let range = core.catalog.level().range();
        if !range.contains(level) {
            return Err(ApiError::LevelUnsupported { level, why: format!("this node supports {range}") });
        }
        let proposal = Proposal { deadline: Some(deadline), ..command_proposal(&Command::RaiseFeatureLevel(level)) };
        match core.propose(call.principal().as_str(), proposal).await {
            Ok(appended) => {
                let watermark = &core.catalog_watermark;
                core.applied(GroupId::CATALOG, appended.index, watermark, &service.timers, deadline).await?;
            }
            Err(ProposeError::LevelUnsupported { member }) => return Err(unsupported(core, level, member)),
            Err(error) => return Err(ApiError::from_command(error)),
        }
    }
    let mut response = admin::UpgradeClusterResponse::new();
    (response.level, response.previous) = (core.catalog.get().feature_level().0, previous.0);
    Ok(response)
}

fn unsupported(core: &Core, level: FeatureLevel, member: NodeId) -> ApiError {
    let name = core.catalog.get().member(member).map_or_else(|| member.to_string(), |member| member.name.to_string());
    let why = format!(
        "member {name} does not support it, or the leader of the catalog has not heard from it since the leader started"
    );
    ApiError::LevelUnsupported { level, why }
}
