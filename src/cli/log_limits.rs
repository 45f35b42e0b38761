//! The limits of the log that `seriatim produce` appends to.

use super::dialer::Dialer;
use super::exit::Failure;
use crate::client::Client;
use crate::reason::ErrorReason;

/// The maximum of record bytes in one request. It is large enough to make the cost per message negligible.
const REQUEST_BYTES: usize = 512 * 1024;
/// The default limits of a log. They are used if the client lacks the permission to consume, and so can't read the
/// limits of the log.
const RECORD_BYTES_MAX: u32 = 1 << 20;
const REQUEST_BYTES_MAX: u32 = 4 << 20;

/// What a log accepts.
pub struct Limits {
    /// Its id; `None` if the client may not see it, or the log does not exist yet.
    pub log_id: Option<String>,
    /// The maximum bytes of value, key and headers of one record.
    pub record_bytes: usize,
    /// The maximum bytes of the records in one request.
    pub request_bytes: usize,
}

/// Returns the limits of a log, or those of a log that the first append creates, and the node that has answered.
///
/// # Errors
/// If no node answers in time, or the server refuses it.
pub fn limits(dialer: &Dialer, log: &str) -> Result<(Client, Limits), Failure> {
    let (client, (log_id, record_bytes_max, request_bytes_max)) =
        dialer.ask_until_served(|client| match client.get_log(log) {
            Ok(log) => {
                let config = log.config.unwrap_or_default();
                let (record, request) = (config.max_record_bytes, config.max_request_bytes);
                Ok((Some(log.log_id), record.unwrap_or(RECORD_BYTES_MAX), request.unwrap_or(REQUEST_BYTES_MAX)))
            }
            Err(error) if error.status().is_some_and(|s| s.code == grpcio::RpcStatusCode::PERMISSION_DENIED) => {
                Ok((None, RECORD_BYTES_MAX, REQUEST_BYTES_MAX))
            }
            Err(error) if error.status().is_some_and(|s| s.reason == ErrorReason::NoSuchLog.code()) => {
                of_new_log(client).ok_or(error)
            }
            Err(error) => Err(error),
        })?;
    let limits = Limits {
        log_id,
        record_bytes: (record_bytes_max as usize).min(request_bytes_max as usize),
        request_bytes: REQUEST_BYTES.min(request_bytes_max as usize),
    };
    Ok((client, limits))
}

/// Returns the limits of a log that the first append creates; `None` if the cluster creates none.
fn of_new_log(client: &Client) -> Option<(Option<String>, u32, u32)> {
    let settings = client.get_cluster().ok()?.settings.unwrap_or_default();
    let config = settings.log_defaults.unwrap_or_default();
    let (record, request) = (config.max_record_bytes, config.max_request_bytes);
    let limits = (None, record.unwrap_or(RECORD_BYTES_MAX), request.unwrap_or(REQUEST_BYTES_MAX));
    settings.create_on_append.unwrap_or_default().then_some(limits)
}
