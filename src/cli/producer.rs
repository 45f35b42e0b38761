//! The producer of `seriatim produce`: the log appends its requests once, however often they are sent.

use super::dialer::{Dialer, Unanswered};
use super::exit::{Exit, Failure};
use crate::pb::v1::{InitProducerRequest, Producer};
use crate::reason::ErrorReason;
use crate::types::StreamId;

/// Registers a producer for this process, or takes over the one with that name. `None`: the cluster has no producers yet,
/// and the user names none.
///
/// # Errors
/// If no node answers, or the server refuses it.
pub fn init_producer(
    name: Option<&str>,
    dialer: &Dialer,
    log: &str,
    log_id: Option<String>,
) -> Result<Option<Producer>, Failure> {
    let instance = new_instance()?;
    let request = InitProducerRequest {
        log: log.to_owned(),
        log_id,
        producer: name.unwrap_or_default().to_owned(),
        instance,
        owner: owner("produce"),
        ..InitProducerRequest::default()
    };
    match dialer.ask_until_served(|client| client.init_producer(&request)) {
        Ok((_, producer)) => Ok(Some(producer)),
        Err(unanswered) if name.is_none() && has_no_such_feature(&unanswered) => Ok(None),
        Err(unanswered) => Err(unanswered.into()),
    }
}

/// Returns true if a node, or the cluster, is too old for the request.
pub fn has_no_such_feature(unanswered: &Unanswered) -> bool {
    unanswered.statuses().any(|(_, status)| {
        let reason = status.reason.as_str();
        reason == ErrorReason::FeatureLevelTooLow.code() || status.code == grpcio::RpcStatusCode::UNIMPLEMENTED
    })
}

/// Draws the number by which a log tells this process from others.
///
/// # Errors
/// If the system returns no random number.
pub fn new_instance() -> Result<u64, Failure> {
    let random = StreamId::random().map_err(|e| Failure::new(Exit::Failed, format!("no random number: {e}"), ""))?;
    Ok(random.0)
}

/// What other people see of this process.
pub fn owner(command: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("seriatim {command}, process {} on {}", std::process::id(), host.trim()).chars().take(200).collect()
}
