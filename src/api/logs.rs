//! `GetLog` and `ListLogs`: logs, their settings and their records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use protobuf::{Message as _, MessageField};

use super::core::{Core, WantedLogId};
use super::error::{ApiError, Invalid};
use super::log_settings::{config, own_config};
use super::messages::{Request, decode};
use super::read::append_time_us;
use super::relay::Relay;
use super::service::{Call, Service};
use super::timestamp::timestamp_of_us;
use crate::catalog::meta::Restore;
use crate::catalog::{Catalog, LogMeta};
use crate::logs::OpenLog;
use crate::pb::{log, v1};
use crate::replication::relay::RelayKind;
use crate::security::acl::Action;
use crate::types::{LogIndex, LogName};
use crate::watermark::Visible;

/// The largest page of a list, and the default.
const PAGE_MAX: usize = 1000;

/// The maximum wait for the position of a log in a list, or after a change that is committed.
const POSITION_MAX: Duration = Duration::from_secs(2);

/// The number of logs of a list whose positions are determined at the same time.
const POSITIONS_AT_ONCE: usize = 64;

/// The index before the first entry.
const BASE_INDEX: LogIndex = LogIndex(1);

/// The actions that let a client see a log.
pub const SEES: &[Action] = &[Action::Consume, Action::Produce, Action::Commit, Action::Admin];

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
    let message = request;
    let request: log::GetLogRequest = decode(&message, call.package)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let found = core.find(&name, &service.timers, call.deadline).await?;
    let Some(log) = found.replica.clone() else {
        let relay = Relay::of(&service, core, &call, &found);
        return relay.message(RelayKind::GetLog, &message).await;
    };
    let position = position(&service, core, &log, call.deadline).await?;
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
    let message = request;
    let request: v1::GetLogRequest = decode(&message, call.package)?;
    let name = call.log_name(&request.log)?;
    let wanted = WantedLogId::of_text(request.log_id.as_deref());
    let core = service.core()?;
    let mut response = v1::GetLogResponse::new();
    response.log = Some(match core.find_any(&name, &service.timers, call.deadline).await {
        Ok(found) => {
            wanted.check_id(&found.name, found.log_id)?;
            let Some(log) = &found.replica else {
                let relay = Relay::of(&service, core, &call, &found);
                return relay.message(RelayKind::GetLog, &message).await;
            };
            match log_info(&service, core, &call, log).await {
                Ok(info) => info,
                Err(error) => without_position(core, &name, error)?,
            }
        }
        Err(ApiError::LogDeleted { log, log_id, purge_us }) => {
            wanted.check_id(&log, log_id)?;
            without_position(core, &name, ApiError::LogDeleted { log, log_id, purge_us })?
        }
        Err(error) => return Err(error),
    })
    .into();
    Ok(response)
}

/// Returns a log without its position, if it is deleted or its first leader has not committed an entry yet.
fn without_position(core: &Core, name: &LogName, error: ApiError) -> Result<v1::LogInfo, ApiError> {
    let catalog = core.catalog.get();
    let Some(meta) = catalog.log_named(name) else { return Err(error) };
    match state_of(core, meta) {
        state @ (v1::LogState::LOG_STATE_DELETED | v1::LogState::LOG_STATE_CREATING) => {
            Ok(info(&catalog, meta, state, None))
        }
        v1::LogState::LOG_STATE_ACTIVE | v1::LogState::LOG_STATE_RESTORING | v1::LogState::LOG_STATE_UNSPECIFIED => {
            Err(error)
        }
    }
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
    let core = service.core()?;
    let catalog = core.catalog.get();
    let mut logs: Vec<&LogMeta> = catalog
        .logs()
        .filter(|log| request.show_deleted || log.deletion.is_none())
        .filter(|log| log.name.as_str().starts_with(&request.prefix) && client.allows_one_of(SEES, &log.name))
        .filter(|log| after.as_ref().is_none_or(|after| log.name > *after))
        .collect();
    logs.sort_by(|a, b| a.name.cmp(&b.name));
    let mut response = v1::ListLogsResponse::new();
    if logs.len() > size {
        logs.truncate(size);
        response.next_page_token = logs.last().map(|log| log.name.to_string()).unwrap_or_default();
    }
    if !request.with_position {
        response.logs = logs.into_iter().map(|log| info(&catalog, log, state_of(core, log), None)).collect();
        return Ok(response);
    }
    for chunk in logs.chunks(POSITIONS_AT_ONCE) {
        let infos = chunk.iter().map(|log| info_with_position(&service, core, &call, log));
        // A log that is purged meanwhile is left out.
        response.logs.extend(join_all(infos).await.into_iter().filter_map(Result::ok));
    }
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
    let position = position_message(service, core, log, call.deadline).await?;
    let catalog = core.catalog.get();
    let meta = catalog.log(log.group).ok_or_else(|| ApiError::NoSuchLog(log.name.clone()))?;
    Ok(info(&catalog, meta, v1::LogState::LOG_STATE_ACTIVE, Some(position)))
}

/// Returns a log after a change, with its position if a leader confirms it soon.
///
/// # Errors
/// NO_SUCH_LOG if the log is gone.
pub async fn info_with_position(
    service: &Service,
    core: &Core,
    call: &Call,
    meta: &LogMeta,
) -> Result<v1::LogInfo, ApiError> {
    let until = call.deadline.map_or(Instant::now() + POSITION_MAX, |end| end.min(Instant::now() + POSITION_MAX));
    let position = match core.logs.get(&meta.name).filter(|log| log.group == meta.group) {
        Some(log) => position_message(service, core, &log, Some(until)).await.ok(),
        None => position_elsewhere(service, core, call, meta, until).await,
    };
    let catalog = core.catalog.get();
    let meta = catalog.log(meta.group).ok_or_else(|| ApiError::NoSuchLog(meta.name.clone()))?;
    let state = if position.is_some() { v1::LogState::LOG_STATE_ACTIVE } else { state_of(core, meta) };
    Ok(info(&catalog, meta, state, position))
}

/// Asks a node with a replica for the position of a log, if this node has none.
async fn position_elsewhere(
    service: &Service,
    core: &Core,
    call: &Call,
    meta: &LogMeta,
    until: Instant,
) -> Option<v1::LogPosition> {
    let found = core.find_any(&meta.name, &service.timers, Some(until)).await.ok()?;
    if found.replica.is_some() || found.group != meta.group {
        return None;
    }
    let request = v1::GetLogRequest {
        log: meta.name.to_string(),
        log_id: Some(meta.log_id.to_string()),
        ..v1::GetLogRequest::default()
    };
    let relay = Relay { deadline: Some(until), ..Relay::of(service, core, call, &found) };
    let message = Request(request.write_to_bytes().ok()?);
    let response: v1::GetLogResponse = relay.message(RelayKind::GetLog, &message).await.ok()?;
    response.log.into_option()?.position.into_option()
}

/// Returns the state of a log, as far as this node knows without asking its leader.
fn state_of(core: &Core, meta: &LogMeta) -> v1::LogState {
    if meta.deletion.is_some() {
        return v1::LogState::LOG_STATE_DELETED;
    }
    // The first leader commits an entry of its own.
    match core.consensus.status(meta.group) {
        Some(status) if status.commit_index <= BASE_INDEX => v1::LogState::LOG_STATE_CREATING,
        Some(_) | None => v1::LogState::LOG_STATE_ACTIVE,
    }
}

/// Returns a log as a message.
pub fn info(catalog: &Catalog, meta: &LogMeta, state: v1::LogState, position: Option<v1::LogPosition>) -> v1::LogInfo {
    let deletion = meta.deletion;
    let state = match state {
        _ if deletion.is_some() => v1::LogState::LOG_STATE_DELETED,
        v1::LogState::LOG_STATE_ACTIVE if meta.is_restoring() => v1::LogState::LOG_STATE_RESTORING,
        state => state,
    };
    v1::LogInfo {
        name: meta.name.to_string(),
        log_id: meta.log_id.to_string(),
        config: MessageField::some(config(&meta.settings, &catalog.cluster_settings().log_defaults)),
        position: position.into(),
        state: state.into(),
        revision: meta.revision,
        create_time: (meta.created_us > 0).then(|| timestamp_of_us(meta.created_us)).into(),
        delete_time: deletion.map(|deletion| timestamp_of_us(deletion.deleted_us)).into(),
        purge_time: deletion.map(|deletion| timestamp_of_us(deletion.purge_us)).into(),
        own_config: MessageField::some(own_config(&meta.settings)),
        restore: meta.restore.as_ref().map(restore_message).into(),
        ..v1::LogInfo::default()
    }
}

fn restore_message(restore: &Restore) -> v1::Restore {
    v1::Restore {
        source_log_id: restore.source_log_id.to_string(),
        first_offset: restore.first_offset.0,
        end_offset: restore.end_offset.0,
        digest: restore.digest.to_vec().into(),
        ..v1::Restore::default()
    }
}

/// Checks the revision of a log, or without a name that of the cluster.
///
/// # Errors
/// [`ApiError::RevisionMismatch`].
pub fn check_revision(log: Option<&LogName>, revision: u64, expected: Option<u64>) -> Result<(), ApiError> {
    match expected {
        Some(expected) if expected != revision => Err(ApiError::RevisionMismatch { log: log.cloned(), revision }),
        Some(_) | None => Ok(()),
    }
}

/// Checks the revision of something that is already as the request wants it. The same request may have been sent
/// before, so the revision after the expected one is accepted, too.
///
/// # Errors
/// [`ApiError::RevisionMismatch`].
pub fn check_done(log: Option<&LogName>, revision: u64, expected: Option<u64>) -> Result<(), ApiError> {
    if expected.is_some_and(|expected| revision == expected.saturating_add(1)) {
        return Ok(());
    }
    check_revision(log, revision, expected)
}

async fn position_message(
    service: &Service,
    core: &Core,
    log: &Arc<OpenLog>,
    deadline: Option<Instant>,
) -> Result<v1::LogPosition, ApiError> {
    let Position { visible, first_append_time_us, last_append_time_us } =
        position(service, core, log, deadline).await?;
    Ok(v1::LogPosition {
        first_offset: visible.first_offset.0,
        next_offset: visible.next_offset.0,
        first_append_time_us,
        last_append_time_us,
        stored_bytes: log.reader.stored_bytes(),
        ..v1::LogPosition::default()
    })
}

async fn position(
    service: &Service,
    core: &Core,
    log: &Arc<OpenLog>,
    deadline: Option<Instant>,
) -> Result<Position, ApiError> {
    let visible = core.catch_up(log.group, &log.watermark, &service.timers, deadline).await;
    let mut visible = visible.map_err(|error| core.error_of(log, error))?;
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
