//! `Produce`: one request, one entry, one answer once it is committed.

use std::time::Instant;

use super::batch::Batch;
use super::core::bounds;
use super::errors::{ApiError, Asked};
use super::methods::Request;
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::consensus::handle::{Appended, Proposal, ProposeError, StreamPosition};
use crate::logs::OpenLog;
use crate::pb::log::ProduceResponse;
use crate::security::acl::Action;
use crate::storage::entry::EntryKind;
use crate::types::Offset;

/// Serves one `Produce`.
///
/// # Errors
/// The status table's.
pub async fn produce(service: Service, call: Call, request: Request) -> Result<ProduceResponse, ApiError> {
    let caller = call.caller()?;
    let batch = Batch::decode(&request.0)?;
    drop(request);
    caller.check(&batch.log, Action::Produce)?;
    let core = service.core()?;
    core.check_rival()?;
    let log = core.log(&batch.log, &service.timers, call.deadline).await?;
    batch.check(&log)?;
    let (proposal, sent) = proposal(batch, &log, None, call.deadline);
    match core.propose(caller.principal().as_str(), proposal).await {
        Ok(appended) => Ok(response(&appended, &log)),
        Err(error) => Err(propose_error(error, &sent, &log)),
    }
}

/// What is remembered of a request while its answer is awaited. Its bytes go on, without a copy that stays.
pub struct Sent {
    /// Bytes of its payload.
    pub bytes: usize,
    expected_offset: Option<Offset>,
    producer_id: u64,
}

/// What consensus takes of a request.
pub fn proposal(
    batch: Batch,
    log: &OpenLog,
    in_stream: Option<StreamPosition>,
    deadline: Option<Instant>,
) -> (Proposal, Sent) {
    let Batch { expected_offset, producer_id, .. } = batch;
    let sent = Sent { bytes: batch.payload.len(), expected_offset, producer_id };
    let proposal = Proposal {
        group: log.group,
        kind: EntryKind::Records,
        count: batch.count,
        payload: batch.payload,
        expected_offset,
        producer_id,
        sequence: batch.sequence,
        in_stream,
        term: None,
        deadline: Some(proposal_deadline(deadline)),
    };
    (proposal, sent)
}

/// The answer to a request that was appended.
pub fn response(appended: &Appended, log: &OpenLog) -> ProduceResponse {
    let mut response = ProduceResponse::new();
    response.offset = appended.offset.0;
    response.count = appended.count;
    response.term = appended.term.0;
    response.append_time_us = appended.append_time_us;
    response.log_id = log.log_id.0;
    response
}

/// Why a request was not appended, or is not known to be.
pub fn propose_error(error: ProposeError, sent: &Sent, log: &OpenLog) -> ApiError {
    let bounds = bounds(log, &log.watermark.get());
    let asked =
        Asked { bounds: &bounds, offset: sent.expected_offset.unwrap_or_default(), producer_id: sent.producer_id };
    ApiError::from_propose(error, &asked)
}
