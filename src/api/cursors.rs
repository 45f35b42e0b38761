//! The cursors of a log: named positions of readers.

use std::sync::Arc;

use super::core::bounds;
use super::error::{ApiError, Invalid};
use super::messages::{Request, decode};
use super::read::{position_at, refused};
use super::read_request::{StartAt, cursor_name, start_at};
use super::relay::Relay;
use super::router::proposal_deadline;
use super::service::{Call, Service};
use super::state_change::{caught_up, change, check_owner, find};
use crate::log_state::cursors::{AcquireCursor, CommitCursor, Cursor, DeleteCursor, METADATA_BYTES_MAX};
use crate::log_state::{StateCommand, StateRefusal};
use crate::logs::OpenLog;
use crate::pb::v1;
use crate::replication::relay::RelayKind;
use crate::security::acl::Action;
use crate::types::Offset;
use crate::watermark::Visible;

/// The actions that allow to see the cursors of a log.
pub const SEES_CURSORS: &[Action] = &[Action::Consume, Action::Commit, Action::Admin];

/// Serves `AcquireCursor`. Responds once this node has applied it.
///
/// # Errors
/// Those of [`super::status`].
pub async fn acquire_cursor(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::AcquireCursorResponse, ApiError> {
    let message = request;
    let request: v1::AcquireCursorRequest = decode(&message, call.package)?;
    let name = cursor_name(&request.cursor)?;
    if request.instance == 0 {
        return Err(Invalid::NoInstance.into());
    }
    check_owner(&request.owner)?;
    let start = start_at(request.start, request.offset, request.start_time_us);
    if request.start.enum_value() == Ok(v1::Start::START_CURSOR) {
        return Err(Invalid::CursorStart.into());
    }
    let found = find(&service, &call, &request.log, request.log_id.as_deref()).await?;
    let core = service.core()?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::AcquireCursor, &message).await;
    };
    let next_offset = match start_of(&service, &call, &log, start).await {
        Err(error @ (ApiError::OffsetTrimmed(..) | ApiError::OffsetPastEnd(..))) => {
            caught_up(&service, core, &call, &log).await?;
            // The start is that of a new cursor only.
            log.tables.get().cursors.get(&name).map(|cursor| cursor.next_offset).ok_or(error)?
        }
        start => start?,
    };
    let acquire = AcquireCursor {
        name: name.clone(),
        instance: request.instance,
        expected_epoch: request.expected_epoch,
        next_offset,
        owner: request.owner,
    };
    let deadline = proposal_deadline(call.deadline);
    change(&service, core, &call, &log, &StateCommand::AcquireCursor(acquire), deadline).await?;
    let tables = log.tables.get();
    let cursor = match tables.cursors.get(&name) {
        Some(cursor) if cursor.instance == request.instance => cursor,
        // Another process has acquired or deleted it in the meantime.
        Some(cursor) => return Err(refused(&log, StateRefusal::CursorFenced(cursor.epoch))),
        None => return Err(refused(&log, StateRefusal::NoSuchCursor(0))),
    };
    let mut response = v1::AcquireCursorResponse::new();
    response.cursor = Some(to_message(&log, cursor, &log.watermark.get())).into();
    Ok(response)
}

/// Serves `CommitCursor`. Responds once this node has applied it.
///
/// # Errors
/// Those of [`super::status`].
pub async fn commit_cursor(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::CommitCursorResponse, ApiError> {
    let message = request;
    let request: v1::CommitCursorRequest = decode(&message, call.package)?;
    let name = cursor_name(&request.cursor)?;
    if request.metadata.len() > METADATA_BYTES_MAX {
        return Err(Invalid::Metadata.into());
    }
    let next_offset = Offset(request.next_offset);
    if next_offset > Offset::MAX {
        return Err(Invalid::NextOffset(next_offset).into());
    }
    let found = find(&service, &call, &request.log, request.log_id.as_deref()).await?;
    let core = service.core()?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::CommitCursor, &message).await;
    };
    check_reached(&service, &call, &log, next_offset).await?;
    let commit = CommitCursor {
        name: name.clone(),
        next_offset,
        epoch: request.epoch,
        expected_revision: request.expected_revision,
        allow_rewind: request.allow_rewind,
        metadata: request.metadata.to_vec(),
    };
    let deadline = proposal_deadline(call.deadline);
    change(&service, core, &call, &log, &StateCommand::CommitCursor(commit), deadline).await?;
    let tables = log.tables.get();
    // It is done. If the cursor was deleted since, the same request again says so.
    let cursor = tables.cursors.get(&name).ok_or(ApiError::CommittedNotApplied)?;
    let mut response = v1::CommitCursorResponse::new();
    response.cursor = Some(to_message(&log, cursor, &log.watermark.get())).into();
    Ok(response)
}

/// Serves `GetCursor`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_cursor(service: Service, call: Call, request: Request) -> Result<v1::GetCursorResponse, ApiError> {
    let message = request;
    let request: v1::GetCursorRequest = decode(&message, call.package)?;
    let name = cursor_name(&request.cursor)?;
    let found = find(&service, &call, &request.log, None).await?;
    let core = service.core()?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::GetCursor, &message).await;
    };
    caught_up(&service, core, &call, &log).await?;
    let tables = log.tables.get();
    let cursor = tables.cursors.get(&name).ok_or_else(|| refused(&log, StateRefusal::NoSuchCursor(0)))?;
    let mut response = v1::GetCursorResponse::new();
    response.cursor = Some(to_message(&log, cursor, &log.watermark.get())).into();
    Ok(response)
}

/// Serves `ListCursors`.
///
/// # Errors
/// Those of [`super::status`].
pub async fn list_cursors(service: Service, call: Call, request: Request) -> Result<v1::ListCursorsResponse, ApiError> {
    let message = request;
    let request: v1::ListCursorsRequest = decode(&message, call.package)?;
    let found = find(&service, &call, &request.log, None).await?;
    let core = service.core()?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::ListCursors, &message).await;
    };
    caught_up(&service, core, &call, &log).await?;
    let (tables, visible) = (log.tables.get(), log.watermark.get());
    let mut cursors: Vec<&Cursor> = tables.cursors.iter().collect();
    cursors.sort_by(|a, b| a.name.cmp(&b.name));
    let without_metadata = |cursor| v1::Cursor { metadata: Vec::new().into(), ..to_message(&log, cursor, &visible) };
    let mut response = v1::ListCursorsResponse::new();
    response.cursors = cursors.into_iter().map(without_metadata).collect();
    Ok(response)
}

/// Serves `DeleteCursor`. Responds once this node has applied it.
///
/// # Errors
/// Those of [`super::status`].
pub async fn delete_cursor(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::DeleteCursorResponse, ApiError> {
    let message = request;
    let request: v1::DeleteCursorRequest = decode(&message, call.package)?;
    let name = cursor_name(&request.cursor)?;
    let found = find(&service, &call, &request.log, request.log_id.as_deref()).await?;
    let core = service.core()?;
    let Some(log) = found.replica.clone() else {
        return Relay::of(&service, core, &call, &found).message(RelayKind::DeleteCursor, &message).await;
    };
    let delete = DeleteCursor { name, epoch: request.epoch, expected_revision: request.expected_revision };
    let deadline = proposal_deadline(call.deadline);
    change(&service, core, &call, &log, &StateCommand::DeleteCursor(delete), deadline).await?;
    Ok(v1::DeleteCursorResponse::new())
}

/// Returns the position of a new cursor.
async fn start_of(service: &Service, call: &Call, log: &Arc<OpenLog>, start: StartAt) -> Result<Offset, ApiError> {
    let core = service.core()?;
    let mut position = position_at(core, Arc::clone(log), start, &service.timers, call.deadline).await?;
    let visible = log.watermark.get();
    if position.offset < visible.first_offset {
        position.skip_trimmed(&visible, visible.first_offset)?;
    }
    check_reached(service, call, log, position.offset).await?;
    Ok(position.offset)
}

/// Checks that the log reaches up to a position. This node may lag, so it catches up first.
async fn check_reached(service: &Service, call: &Call, log: &Arc<OpenLog>, position: Offset) -> Result<(), ApiError> {
    if position > log.watermark.get().next_offset {
        caught_up(service, service.core()?, call, log).await?;
        let visible = log.watermark.get();
        if position > visible.next_offset {
            return Err(ApiError::OffsetPastEnd(bounds(log, &visible), position));
        }
    }
    Ok(())
}

fn to_message(log: &OpenLog, cursor: &Cursor, visible: &Visible) -> v1::Cursor {
    v1::Cursor {
        log: log.name.to_string(),
        log_id: log.log_id.to_string(),
        cursor: cursor.name.to_string(),
        next_offset: cursor.next_offset.0,
        epoch: cursor.epoch,
        revision: cursor.revision,
        owner: cursor.owner.clone(),
        metadata: cursor.metadata.clone().into(),
        commit_time_us: cursor.commit_time_us,
        lag: cursor.lag(visible.first_offset, visible.next_offset),
        trimmed: cursor.trimmed(visible.first_offset),
        ..v1::Cursor::default()
    }
}
