//! `UpgradeCluster`: raises the feature level of the cluster, by a command of the catalog.

use super::core::Core;
use super::error::{ApiError, Invalid};
use super::messages::{Request, decode_change};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::Command;
use crate::consensus::command_proposal;
use crate::consensus::handle::{Proposal, ProposeError};
use crate::feature_level::FeatureLevel;
use crate::pb::admin;
use crate::types::{GroupId, NodeId};

/// Serves `UpgradeCluster`. Responds once the change is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn upgrade_cluster(
    service: Service,
    call: Call,
    request: Request,
) -> Result<admin::UpgradeClusterResponse, ApiError> {
    let request: admin::UpgradeClusterRequest = decode_change(&request)?;
    if request.level == 0 {
        return Err(Invalid::FeatureLevel.into());
    }
    let level = FeatureLevel(request.level);
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, Some(deadline)).await?;
    let previous = core.catalog.get().feature_level();
    if level > previous {
        let proposal = Proposal { deadline: Some(deadline), ..command_proposal(&Command::RaiseFeatureLevel(level)) };
        match core.propose(call.principal().as_str(), proposal).await {
            Ok(appended) => {
                log::info!("feature level {level} was requested by {}", call.principal());
                let watermark = &core.catalog_watermark;
                core.wait_applied(GroupId::CATALOG, appended.index, watermark, &service.timers, deadline).await?;
            }
            Err(ProposeError::LevelUnsupported { member }) => {
                let why = format!("member {} does not support it", name_of(core, member));
                return Err(ApiError::LevelUnsupported { level, why });
            }
            Err(ProposeError::MemberSilent { member }) => {
                let why = format!("the leader of the catalog does not hear from member {}", name_of(core, member));
                return Err(ApiError::LevelUnsupported { level, why });
            }
            Err(error) => return Err(ApiError::from_command(error)),
        }
    }
    let mut response = admin::UpgradeClusterResponse::new();
    (response.level, response.previous) = (core.catalog.get().feature_level().0, previous.0);
    Ok(response)
}

fn name_of(core: &Core, member: NodeId) -> String {
    core.catalog.get().member(member).map_or_else(|| member.to_string(), |member| member.name.to_string())
}
