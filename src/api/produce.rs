//! `Produce`: appends one entry, and responds once it is committed.

use std::time::Instant;

use super::access::Right;
use super::append_request::AppendRequest;
use super::chain::{check_receipts, receipt_of};
use super::core::{Core, FoundLog};
use super::create::create_for_append;
use super::error::{ApiError, FailedProposal};
use super::messages::{ProduceReply, Request};
use super::service::{Call, Service};
use crate::consensus::handle::{Proposal, ProposeError};
use crate::security::acl::Action;
use crate::types::{LogName, Offset};

/// Serves `Produce`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn produce(service: Service, call: Call, request: Request) -> Result<ProduceReply, ApiError> {
    let append = AppendRequest::decode(&request.0, call.package)?;
    drop(request);
    check_rights(&call, &append)?;
    let core = service.core()?;
    core.check_rival()?;
    let log = open_for_append(&service, core, &call, &append).await?;
    let wants_receipt = append.wants_receipt;
    if wants_receipt {
        check_receipts(&service, &log, true)?;
    }
    let proposal = append.for_log(&log, core.catalog.level(), call.deadline)?;
    let sent = SentProposal::new(&proposal);
    match core.propose(call.principal().as_str(), proposal).await {
        Ok(appended) => {
            service.metrics.appended(&appended, sent.bytes, sent.at);
            let receipt = match wants_receipt {
                true => receipt_of(&service, core, &call, &log, appended.offset).await,
                false => None,
            };
            Ok(ProduceReply { package: call.package, appended, log_id: log.log_id, receipt })
        }
        Err(error) => {
            let error = propose_error(error, &sent, &log);
            Err(core.append_error(&log, error, &service.timers, call.deadline).await)
        }
    }
}

/// Checks the rights of an append. Records of a backup also need `admin`: they get the append times of the request.
///
/// # Errors
/// [`ApiError::NoIdentity`], [`ApiError::NotAllowed`].
pub fn check_rights(call: &Call, append: &AppendRequest) -> Result<(), ApiError> {
    call.check_log(&append.log)?;
    if append.restores() { call.client()?.check_log(Right::Log(&[Action::Admin]), &append.log) } else { Ok(()) }
}

/// Returns the log of an append. If it does not exist, and the cluster creates logs on append, creates it. The caller
/// has checked that the client may append.
///
/// # Errors
/// Those of [`Core::find`] and of [`create_for_append`].
pub async fn open_for_append(
    service: &Service,
    core: &Core,
    call: &Call,
    append: &AppendRequest,
) -> Result<FoundLog, ApiError> {
    match append.restores() {
        true => core.find_any(&append.log, &service.timers, call.deadline).await,
        false => find_or_create(service, core, call, &append.log, append.requires_id()).await,
    }
}

/// Returns the log of a request that appends, or is about to. `requires_id`: it applies to a log with a certain id only.
///
/// # Errors
/// Those of [`Core::find`] and of [`create_for_append`].
pub async fn find_or_create(
    service: &Service,
    core: &Core,
    call: &Call,
    log: &LogName,
    requires_id: bool,
) -> Result<FoundLog, ApiError> {
    match core.find(log, &service.timers, call.deadline).await {
        // A log with the id that the request requires does not exist.
        Err(ApiError::NoSuchLog(name)) if requires_id => Err(ApiError::NoSuchLog(name)),
        Err(ApiError::NoSuchLog(name)) if core.catalog.get().cluster_settings().create_on_append => {
            create_for_append(service, core, call, &name).await
        }
        other => other,
    }
}

/// The values of a proposal that are needed when its answer arrives.
pub struct SentProposal {
    /// The size of its payload.
    pub bytes: usize,
    /// When it was proposed.
    pub at: Instant,
    expected_offset: Option<Offset>,
    producer_id: u64,
}

impl SentProposal {
    /// Keeps the values of a proposal that is about to be proposed.
    pub fn new(proposal: &Proposal) -> SentProposal {
        let Proposal { expected_offset, producer_id, .. } = *proposal;
        SentProposal { bytes: proposal.payload.len(), at: Instant::now(), expected_offset, producer_id }
    }
}

/// Returns the error of a request that was not appended, or whose outcome is unknown.
pub fn propose_error(error: ProposeError, sent: &SentProposal, log: &FoundLog) -> ApiError {
    let bounds = log.bounds();
    let offset = sent.expected_offset.unwrap_or_default();
    ApiError::from_propose(error, &FailedProposal { bounds: &bounds, offset, retry_is_safe: sent.producer_id != 0 })
}
