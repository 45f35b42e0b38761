//! The producer of `seriatim produce`: the log appends its requests once, however often they are sent.

use std::time::{Duration, Instant};

use crossbeam_channel::after;

use super::dialer::Dialer;
use super::exit::{Exit, Failure};
use crate::client::Retry;
use crate::pb::v1::{InitProducerRequest, Producer};
use crate::reason::ErrorReason;
use crate::types::StreamId;

/// The pause before a registration that failed for a temporary reason is tried again.
const RETRY: Duration = Duration::from_millis(200);

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
    let instance = StreamId::random().map_err(|e| Failure::new(Exit::Failed, format!("no random number: {e}"), ""))?;
    let request = InitProducerRequest {
        log: log.to_owned(),
        log_id,
        producer: name.unwrap_or_default().to_owned(),
        instance: instance.0,
        owner: owner(),
        ..InitProducerRequest::default()
    };
    let begin = Instant::now();
    loop {
        let unanswered = match dialer.ask(|client| client.init_producer(&request)) {
            Ok((_, producer)) => return Ok(Some(producer)),
            Err(unanswered) => unanswered,
        };
        // For example an election. The same request again has no further effect.
        let is_temporary =
            unanswered.statuses().any(|(_, status)| matches!(status.retry(), Retry::Same | Retry::Elsewhere));
        if is_temporary && begin.elapsed() < dialer.timeout {
            // Clients are not notified of a new leader.
            let _ = after(RETRY).recv();
            continue;
        }
        let too_old = unanswered.statuses().any(|(_, status)| {
            let reason = status.reason.as_str();
            reason == ErrorReason::FeatureLevelTooLow.code() || status.code == grpcio::RpcStatusCode::UNIMPLEMENTED
        });
        return if too_old && name.is_none() { Ok(None) } else { Err(unanswered.into()) };
    }
}

/// What other people see of this process.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("seriatim produce, process {} on {}", std::process::id(), host.trim()).chars().take(200).collect()
}
