//! `ReadChain`, and the receipts of `Produce`: the hash chain of a log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use protobuf::{Message as _, MessageField};

use super::core::{Core, FoundLog, WantedLogId, bounds};
use super::error::ApiError;
use super::messages::{Request, decode};
use super::read::read_links;
use super::relay::Relay;
use super::service::{Call, Service};
use crate::clock::wall_us;
use crate::logs::OpenLog;
use crate::pb::v1;
use crate::replication::relay::RelayKind;
use crate::storage::reader::Link;
use crate::types::Offset;

/// The maximum number of links in a response, and the default.
const LINKS_MAX: u32 = 1000;

/// The maximum wait for the receipt of records that are acknowledged.
const RECEIPT_MAX: Duration = Duration::from_secs(1);

/// A response ends after this many bytes of records were hashed.
const HASHED_BYTES_MAX: usize = 16 << 20;

/// The permit for the read of one link.
const READ_BYTES: usize = 64 << 10;

/// Serves `ReadChain`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn read_chain(service: Service, call: Call, request: Request) -> Result<v1::ReadChainResponse, ApiError> {
    let message = request;
    let request: v1::ReadChainRequest = decode(&message, call.package)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let found = core.find(&name, &service.timers, call.deadline).await?;
    WantedLogId::of_text(request.log_id.as_deref()).check_id(&found.name, found.log_id)?;
    check_receipts(&service, &found, request.receipt)?;
    chain(&service, core, &call, &found, &request, &message).await
}

/// Checks that a log has a hash chain and, if a receipt is wanted, that this node can sign it.
///
/// # Errors
/// [`ApiError::NoHashChain`], [`ApiError::ReceiptsUnavailable`].
pub fn check_receipts(service: &Service, log: &FoundLog, wants_receipt: bool) -> Result<(), ApiError> {
    if !log.hash_chain {
        return Err(ApiError::NoHashChain(log.name.clone()));
    }
    if wants_receipt && !service.signer.has_key() { Err(ApiError::ReceiptsUnavailable) } else { Ok(()) }
}

/// Returns the receipt of records that were appended. `None` if this node could not read them in time.
pub async fn receipt_of(
    service: &Service,
    core: &Core,
    call: &Call,
    log: &FoundLog,
    offset: Offset,
) -> Option<v1::Receipt> {
    let request = v1::ReadChainRequest {
        log: log.name.to_string(),
        offset: offset.0,
        max_links: 1,
        log_id: Some(log.log_id.to_string()),
        receipt: true,
        ..v1::ReadChainRequest::default()
    };
    let message = Request(request.write_to_bytes().ok()?);
    // The records are acknowledged: their answer must not be lost because the receipt takes too long.
    let left = call.deadline.map_or(RECEIPT_MAX, |deadline| deadline.saturating_duration_since(Instant::now()) / 2);
    let over = service.timers.at(Instant::now() + left.min(RECEIPT_MAX));
    let receipt = Box::pin(chain(service, core, call, log, &request, &message));
    let response = match select(receipt, over).await {
        Either::Left((response, _)) => response,
        Either::Right(_) => Err(ApiError::DeadlinePassed),
    };
    match response {
        Ok(response) => response.receipt.into_option(),
        Err(error) => {
            log::info!("no receipt for record {offset} of log {}: {error}", log.name);
            None
        }
    }
}

async fn chain(
    service: &Service,
    core: &Core,
    call: &Call,
    found: &FoundLog,
    request: &v1::ReadChainRequest,
    message: &Request,
) -> Result<v1::ReadChainResponse, ApiError> {
    let Some(log) = found.replica.clone() else {
        return Relay::of(service, core, call, found).message(RelayKind::ReadChain, message).await;
    };
    let read = read_here(service, core, call, request, &log).await;
    read.map_err(|error| core.error_of(&log, error))
}

/// Reads from this node's replica.
async fn read_here(
    service: &Service,
    core: &Core,
    call: &Call,
    request: &v1::ReadChainRequest,
    log: &Arc<OpenLog>,
) -> Result<v1::ReadChainResponse, ApiError> {
    let deadline = call.deadline;
    let offset = Offset(request.offset);
    let mut visible = log.watermark.get();
    if offset >= visible.next_offset {
        visible = core.catch_up(log.group, &log.watermark, &service.timers, deadline).await?;
    }
    if offset >= visible.next_offset {
        return Err(ApiError::OffsetPastEnd(bounds(log, &visible), offset));
    }
    if offset < visible.first_offset {
        return Err(ApiError::OffsetTrimmed(bounds(log, &visible), offset));
    }
    let links_max = if request.max_links == 0 { LINKS_MAX } else { request.max_links.min(LINKS_MAX) };
    // The records are hashed and not held, but they are read as those of a `Consume`. The first entry is read whatever the
    // permit, so one link needs a small one: many requests for receipts must not take what other readers need.
    let wanted = if links_max == 1 { READ_BYTES } else { HASHED_BYTES_MAX };
    let permit = service.limits.read(&call.principal(), wanted)?;
    let links = read_links(core, log, &visible, offset, links_max as usize, permit.bytes()).await?;
    drop(permit);
    let last = links.last().ok_or(ApiError::Internal("a read of the hash chain has returned nothing"))?;
    let receipt = if request.receipt { Some(sign(service, core, log, last)?) } else { None };
    Ok(v1::ReadChainResponse {
        log_id: log.log_id.to_string(),
        resume_offset: last.end().0,
        first_offset: visible.first_offset.0,
        next_offset: visible.next_offset.0,
        receipt: receipt.into(),
        links: links.iter().map(message_of).collect(),
        ..v1::ReadChainResponse::default()
    })
}

fn message_of(link: &Link) -> v1::ChainLink {
    v1::ChainLink {
        offset: link.offset.0,
        count: link.count,
        term: link.term.0,
        append_time_us: link.append_time_us,
        content_hash: link.content.0.to_vec().into(),
        previous_chain_hash: link.chain.before.0.to_vec().into(),
        chain_hash: link.chain.after.0.to_vec().into(),
        ..v1::ChainLink::default()
    }
}

/// Signs the receipt of an entry.
fn sign(service: &Service, core: &Core, log: &OpenLog, link: &Link) -> Result<v1::Receipt, ApiError> {
    if !link.chain.fits(link.end().0, link.content) {
        let what = "the hash chain is not that of the records".to_owned();
        return Err(ApiError::Damaged { log: log.name.clone(), offset: link.offset, resume: Some(link.end()), what });
    }
    let statement = v1::ReceiptStatement {
        cluster_name: core.me.cluster_name.clone(),
        cluster_id: core.cluster_id.to_string(),
        log: log.name.to_string(),
        log_id: log.log_id.to_string(),
        link: MessageField::some(message_of(link)),
        node_name: core.me.node_name.to_string(),
        signed_time_us: wall_us(),
        ..v1::ReceiptStatement::default()
    };
    let statement = statement.write_to_bytes().map_err(|_| ApiError::Internal("a receipt can't be encoded"))?;
    let signed = service.signer.sign(&statement).map_err(|error| {
        log::error!("a receipt can't be signed with the peer key: {error}");
        ApiError::Internal("a receipt can't be signed with the peer key of this node")
    })?;
    let signed = signed.ok_or(ApiError::ReceiptsUnavailable)?;
    Ok(v1::Receipt {
        statement: statement.into(),
        signature: signed.signature.into(),
        certificates: signed.certificates.into_iter().map(Into::into).collect(),
        ..v1::Receipt::default()
    })
}
