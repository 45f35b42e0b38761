//! The limits of the log that `seriatim produce` appends to.

use std::time::{Duration, Instant};

use crossbeam_channel::after;

use super::exit::Failure;
use crate::client::{Client, ClientError, Retry};
use crate::reason::ErrorReason;

/// The maximum of record bytes in one request. It is large enough to make the cost per message negligible.
const REQUEST_BYTES: usize = 512 * 1024;
/// The default limits of a log. They are used if the client lacks the permission to consume, and so can't read the
/// limits of the log.
const RECORD_BYTES_MAX: u32 = 1 << 20;
const REQUEST_BYTES_MAX: u32 = 4 << 20;

/// The pause between two requests for the limits of a log, while a node can't answer temporarily.
const RETRY: Duration = Duration::from_millis(200);

/// What a log accepts.
pub struct Limits {
    /// Its id; `None` if the client may not see it, or the log does not exist yet.
    pub log_id: Option<String>,
    /// The maximum bytes of value, key and headers of one record.
    pub record_bytes: usize,
    /// The maximum bytes of the records in one request.
    pub request_bytes: usize,
}

/// Returns the limits of a log, or those of a log that the first append creates.
///
/// # Errors
/// If the node does not answer in time, or refuses it.
pub fn limits(client: &Client, log: &str, timeout: Duration) -> Result<Limits, Failure> {
    let begin = Instant::now();
    let (log_id, record_bytes_max, request_bytes_max) = loop {
        match client.get_log(log) {
            Ok(log) => {
                let config = log.config.unwrap_or_default();
                let (record, request) = (config.max_record_bytes, config.max_request_bytes);
                break (Some(log.log_id), record.unwrap_or(RECORD_BYTES_MAX), request.unwrap_or(REQUEST_BYTES_MAX));
            }
            Err(error) if error.status().is_some_and(|s| s.code == grpcio::RpcStatusCode::PERMISSION_DENIED) => {
                break (None, RECORD_BYTES_MAX, REQUEST_BYTES_MAX);
            }
            Err(error) if error.status().is_some_and(|s| s.reason == ErrorReason::NoSuchLog.code()) => {
                break of_new_log(client).ok_or_else(|| Failure::of_call(client.addr(), &error))?;
            }
            // Temporary, for example an election, or a node that is joining.
            Err(error) if is_temporary(&error) && begin.elapsed() < timeout => {
                log::info!("{}: {error}; trying again", client.addr());
                // Clients are not notified of a new leader.
                let _ = after(RETRY).recv();
            }
            Err(error) => return Err(Failure::of_call(client.addr(), &error)),
        }
    };
    Ok(Limits {
        log_id,
        record_bytes: (record_bytes_max as usize).min(request_bytes_max as usize),
        request_bytes: REQUEST_BYTES.min(request_bytes_max as usize),
    })
}

/// Returns the limits of a log that the first append creates; `None` if the cluster creates none.
fn of_new_log(client: &Client) -> Option<(Option<String>, u32, u32)> {
    let settings = client.get_cluster().ok()?.settings.unwrap_or_default();
    let config = settings.log_defaults.unwrap_or_default();
    let (record, request) = (config.max_record_bytes, config.max_request_bytes);
    let limits = (None, record.unwrap_or(RECORD_BYTES_MAX), request.unwrap_or(REQUEST_BYTES_MAX));
    settings.create_on_append.unwrap_or_default().then_some(limits)
}

/// Returns true if the node itself reported a temporary failure. A broken connection does not count.
fn is_temporary(error: &ClientError) -> bool {
    error.is_answer() && matches!(error.retry(), Retry::Same | Retry::Elsewhere)
}
