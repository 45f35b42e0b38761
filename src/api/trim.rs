//! `TrimLog`: makes the oldest records of a log unreadable.

use super::core::{WantedLogId, bounds};
use super::error::{ApiError, FailedProposal};
use super::logs::log_info;
use super::messages::{Request, decode};
use super::relay::Relay;
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::consensus::handle::Proposal;
use crate::pb::v1;
use crate::replication::relay::RelayKind;
use crate::types::Offset;

/// Serves `TrimLog`. Responds once the trim is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn trim_log(service: Service, call: Call, request: Request) -> Result<v1::TrimLogResponse, ApiError> {
    let message = request;
    let request: v1::TrimLogRequest = decode(&message, call.package)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let found = core.find(&name, &service.timers, call.deadline).await?;
    let Some(log) = found.replica.clone() else {
        let relay = Relay::of(&service, core, &call, &found);
        return relay.message(RelayKind::TrimLog, &message).await;
    };
    WantedLogId::of_text(request.log_id.as_deref()).check(&log)?;
    let before = log.watermark.get();
    // Already done: the first offset never decreases. Without this, each repetition would be an entry.
    if Offset(request.first_offset) <= before.first_offset {
        let mut response = v1::TrimLogResponse::new();
        response.log = Some(log_info(&service, core, &call, &log).await?).into();
        return Ok(response);
    }
    let deadline = proposal_deadline(call.deadline);
    let trim = Proposal::trim(log.group, Offset(request.first_offset));
    let proposal = Proposal { deadline: Some(deadline), ..trim };
    let applied = core.propose(call.principal().as_str(), proposal).await.map_err(|error| {
        let bounds = bounds(&log, &log.watermark.get());
        let offset = Offset(request.first_offset);
        let failed = FailedProposal { bounds: &bounds, offset, retry_is_safe: true };
        core.error_of(&log, ApiError::from_propose(error, &failed))
    })?;
    let result = async {
        let after = core.wait_applied(log.group, applied.index, &log.watermark, &service.timers, deadline).await?;
        let mut response = v1::TrimLogResponse::new();
        response.trimmed_records = after.first_offset.0.saturating_sub(before.first_offset.0);
        response.log = Some(log_info(&service, core, &call, &log).await?).into();
        Ok::<_, ApiError>(response)
    };
    // The trim is committed, so it is final. No other error may say that nothing was done.
    result.await.map_err(|_| ApiError::CommittedNotApplied)
}
