//! `RaiseFeatureLevel`: raises the feature level of the cluster, by a command to the catalog.

use std::time::{Duration, Instant};

use super::cluster_settings::cluster;
use super::core::Core;
use super::error::{ApiError, Invalid};
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::Command;
use crate::consensus::command_proposal;
use crate::consensus::handle::{Proposal, ProposeError};
use crate::feature_level::FeatureLevel;
use crate::pb::v1;
use crate::types::{GroupId, NodeId};

/// The time for which the proposal is retried while a temporary condition makes the leader refuse it: an entry that is
/// not applied yet, or a member that has not answered since the leader last asked.
const SETTLE: Duration = Duration::from_secs(3);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `RaiseFeatureLevel`. Responds once the change is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn raise_feature_level(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::RaiseFeatureLevelResponse, ApiError> {
    let request: v1::RaiseFeatureLevelRequest = decode(&request, call.package)?;
    if request.level == 0 {
        return Err(Invalid::FeatureLevel.into());
    }
    let level = FeatureLevel(request.level);
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    let watermark = &core.catalog_watermark;
    let (until, mut previous) = (deadline.min(Instant::now() + SETTLE), None);
    loop {
        core.catch_up(GroupId::CATALOG, watermark, &service.timers, Some(deadline)).await?;
        let now = core.catalog.get().feature_level();
        let previous = *previous.get_or_insert(now);
        if level <= now {
            return Ok(response(core, previous));
        }
        let proposal = Proposal { deadline: Some(deadline), ..command_proposal(&Command::RaiseFeatureLevel(level)) };
        let refused = match core.propose(call.principal().as_str(), proposal).await {
            Ok(appended) => {
                log::info!("feature level {level} was requested by {}", call.principal());
                let applied =
                    core.wait_applied(GroupId::CATALOG, appended.index, watermark, &service.timers, deadline).await;
                applied.map_err(|_| ApiError::CommittedNotApplied)?;
                return Ok(response(core, previous));
            }
            Err(ProposeError::LevelUnsupported { member }) => {
                let why = format!("member {} does not support it", name_of(core, member));
                return Err(ApiError::LevelUnsupported { level, why });
            }
            Err(ProposeError::MemberSilent { member }) => {
                let why = format!("the leader of the catalog does not hear from member {}", name_of(core, member));
                ApiError::LevelUnsupported { level, why }
            }
            Err(ProposeError::Dropped) => ApiError::LeaderChanged,
            Err(error) => return Err(ApiError::from_command(error)),
        };
        let next = Instant::now() + PAUSE;
        if next > until {
            return Err(refused);
        }
        service.timers.at(next).await;
    }
}

fn response(core: &Core, previous: FeatureLevel) -> v1::RaiseFeatureLevelResponse {
    let mut response = v1::RaiseFeatureLevelResponse::new();
    response.cluster = Some(cluster(core)).into();
    response.previous_level = previous.0;
    response
}

fn name_of(core: &Core, member: NodeId) -> String {
    core.catalog.get().member(member).map_or_else(|| member.to_string(), |member| member.name.to_string())
}
