//! `GetLog` and `ListLogs`: logs, their settings and their records.

use std::sync::Arc;
use std::time::Duration;

use protobuf::MessageField;

use super::core::{Core, WantedLogId};
use super::error::{ApiError, Invalid};
use super::messages::{Request, decode};
use super::read::append_time_us;
use super::service::{Call, Service};
use crate::catalog::LogMeta;
use crate::logs::OpenLog;
use crate::pb::{log, v1};
use crate::security::acl::Action;
use crate::types::LogName;
use crate::watermark::Visible;

/// The largest page of a list, and the default.
const PAGE_MAX: usize = 1000;

/// The actions that let a client see a log.
pub const SEES: &[Action] = &[Action::Consume, Action::Produce, Action::Admin];

/// The records of a log: its bounds, and when the first and the last one were appended; 0 if there are none.
struct Position {
    visible: Visible,
    first_append_time_us: u64,
    last_append_time_us: u64,
}

/// Serves `GetLog` of `log.v1`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_log_log_v1(service: Service, call: Call, request: Request) -> Result<log::GetLogResponse, ApiError> {
    let request: log::GetLogRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let log = core.log(&name, &service.timers, call.deadline).await?;
    let position = position(&service, core, &call, &log).await?;
    let mut response = log::GetLogResponse::new();
    response.log = log.name.to_string();
    response.log_id = log.log_id.0;
    response.first_offset = position.visible.first_offset.0;
    response.next_offset = position.visible.next_offset.0;
    response.first_append_time_us = position.first_append_time_us;
    response.last_append_time_us = position.last_append_time_us;
    response.record_bytes_max = log.record_bytes_max;
    response.request_bytes_max = log.request_bytes_max;
    response.stored_bytes = log.reader.stored_bytes();
    Ok(response)
}

/// Serves `GetLog` of `seriatim.v1`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_log(service: Service, call: Call, request: Request) -> Result<v1::GetLogResponse, ApiError> {
    let request: v1::GetLogRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let log = core.log(&name, &service.timers, call.deadline).await?;
    WantedLogId::of_text(request.log_id.as_deref()).check(&log)?;
    let mut response = v1::GetLogResponse::new();
    response.log = Some(log_info(&service, core, &call, &log).await?).into();
    Ok(response)
}

/// Serves `ListLogs`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn list_logs(service: Service, call: Call, request: Request) -> Result<v1::ListLogsResponse, ApiError> {
    let request: v1::ListLogsRequest = decode(&request, call.package)?;
    let size = match usize::try_from(request.page_size) {
        Ok(0) => PAGE_MAX,
        Ok(size) => size.min(PAGE_MAX),
        Err(_) => return Err(Invalid::PageSize.into()),
    };
    // A page token is the last name of the page before.
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(LogName::new(token).map_err(|_| Invalid::PageToken)?),
    };
    let client = call.client()?;
    let catalog = service.core()?.catalog.get();
    let mut logs: Vec<&LogMeta> = catalog
        .logs()
        .filter(|log| log.name.as_str().starts_with(&request.prefix) && client.allows_one_of(SEES, &log.name))
        .filter(|log| after.as_ref().is_none_or(|after| log.name > *after))
        .collect();
    logs.sort_by(|a, b| a.name.cmp(&b.name));
    let mut response = v1::ListLogsResponse::new();
    if logs.len() > size {
        logs.truncate(size);
        response.next_page_token = logs.last().map(|log| log.name.to_string()).unwrap_or_default();
    }
    response.logs = logs.into_iter().map(|log| info(log, None)).collect();
    Ok(response)
}

/// Returns a log with everything that was acknowledged before the call.
///
/// # Errors
/// Those of [`super::status`].
pub async fn log_info(
    service: &Service,
    core: &Core,
    call: &Call,
    log: &Arc<OpenLog>,
) -> Result<v1::LogInfo, ApiError> {
    let Position { visible, first_append_time_us, last_append_time_us } = position(service, core, call, log).await?;
    let position = v1::LogPosition {
        first_offset: visible.first_offset.0,
        next_offset: visible.next_offset.0,
        first_append_time_us,
        last_append_time_us,
        stored_bytes: log.reader.stored_bytes(),
        ..v1::LogPosition::default()
    };
    Ok(info(&meta(core, log)?, Some(position)))
}

/// Returns the entry of a log in the catalog.
///
/// # Errors
/// NO_SUCH_LOG.
pub fn meta(core: &Core, log: &OpenLog) -> Result<LogMeta, ApiError> {
    core.catalog.get().log(log.group).cloned().ok_or_else(|| ApiError::NoSuchLog(log.name.clone()))
}

/// Returns a log as a message.
pub fn info(meta: &LogMeta, position: Option<v1::LogPosition>) -> v1::LogInfo {
    v1::LogInfo {
        name: meta.name.to_string(),
        log_id: meta.log_id.to_string(),
        config: MessageField::some(config(meta)),
        position: position.into(),
        ..v1::LogInfo::default()
    }
}

/// Returns the settings of a log as a message.
pub fn config(meta: &LogMeta) -> v1::LogConfig {
    v1::LogConfig {
        retention_age: MessageField::some(Duration::from_millis(meta.retention_ms).into()),
        min_retained_bytes: Some(meta.retention_bytes),
        max_record_bytes: Some(meta.record_bytes_max),
        max_request_bytes: Some(meta.request_bytes_max),
        ..v1::LogConfig::default()
    }
}

async fn position(service: &Service, core: &Core, call: &Call, log: &Arc<OpenLog>) -> Result<Position, ApiError> {
    let mut visible = core.catch_up(log.group, &log.watermark, &service.timers, call.deadline).await?;
    let first_append_time_us = loop {
        match append_time_us(core, log, &visible).await {
            // Trimmed since the watermark was read. The watermark advances before the files are removed.
            Err(ApiError::OffsetTrimmed(..)) if log.watermark.get().first_offset > visible.first_offset => {
                visible = log.watermark.get();
            }
            found => break found?.unwrap_or_default(),
        }
    };
    let is_empty = visible.first_offset >= visible.next_offset;
    Ok(Position {
        visible,
        first_append_time_us: if is_empty { 0 } else { first_append_time_us },
        last_append_time_us: if is_empty { 0 } else { visible.last_append_time_us },
    })
}
