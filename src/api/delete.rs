//! `DeleteLog` and `UndeleteLog`.

use std::time::{Duration, Instant};

use futures::future::select;

use super::change::{Step, change, check_level};
use super::core::{Core, WantedLogId, missing};
use super::create::wait_active;
use super::error::{ApiError, Invalid};
use super::log_settings::ms_of_duration;
use super::logs::{check_revision, info, info_with_position};
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::{Catalog, Command, LogMeta};
use crate::clock::wall_us;
use crate::feature_level::Feature;
use crate::pb::v1;
use crate::types::LogName;
use crate::watermark::Until;

/// The maximum wait for the purge of a log that is deleted for good.
const PURGE_MAX: Duration = Duration::from_secs(2);

/// Serves `DeleteLog`. Responds once the deletion is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn delete_log(service: Service, call: Call, request: Request) -> Result<v1::DeleteLogResponse, ApiError> {
    let request: v1::DeleteLogRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    let log_id = wanted_id(&request.log_id)?;
    let purge_after_ms = request.purge_after.as_ref().map(|after| {
        ms_of_duration(after).ok_or_else(|| Invalid::Settings {
            field: "purge_after".to_owned(),
            what: "`purge_after` must be a duration from 0 to 10,000 years in whole milliseconds".to_owned(),
        })
    });
    let (purge_after_ms, expected_revision) = (purge_after_ms.transpose()?, request.expected_revision);
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    check_level(&service, core, Feature::ManyLogs, Some(deadline)).await?;
    let mut is_proposed = false;
    let deleted = change(&service, core, &call, deadline, |catalog| {
        let meta = match find(catalog, &name, log_id)? {
            Found::Purged => return Ok(Step::Done(None)),
            Found::Log(meta) => meta,
        };
        match meta.deletion {
            None => {
                check_revision(Some(&name), meta.revision, expected_revision)?;
                is_proposed = true;
                Ok(Step::propose(Command::DeleteLog(meta.group, purge_after_ms, Some(meta.revision))))
            }
            // The purge time can only become earlier. Proposed once, because the clocks of two nodes differ.
            Some(deletion) if !is_proposed && is_earlier(purge_after_ms, deletion.purge_us) => {
                is_proposed = true;
                Ok(Step::propose(Command::DeleteLog(meta.group, purge_after_ms, None)))
            }
            Some(_) => Ok(Step::Done(Some(meta.clone()))),
        }
    })
    .await?;
    let deleted = match deleted {
        Some(meta) if purge_after_ms == Some(0) || is_for_good(&meta) => {
            wait_purged(&service, core, meta, deadline).await
        }
        other => other,
    };
    if is_proposed {
        let principal = call.principal();
        log::info!("log deleted: log={name} log_id={} principal={principal}", request.log_id);
        service.changed(format!("log {name} was deleted by {principal}"));
    }
    let mut response = v1::DeleteLogResponse::new();
    response.log = Some(match deleted {
        Some(meta) => info(&core.catalog.get(), &meta, v1::LogState::LOG_STATE_DELETED, None),
        None => v1::LogInfo {
            name: name.to_string(),
            log_id: request.log_id,
            state: v1::LogState::LOG_STATE_DELETED.into(),
            ..v1::LogInfo::default()
        },
    })
    .into();
    Ok(response)
}

/// Serves `UndeleteLog`. Responds once the log takes appends, or after a few seconds.
///
/// # Errors
/// Those of [`super::status`].
pub async fn undelete_log(service: Service, call: Call, request: Request) -> Result<v1::UndeleteLogResponse, ApiError> {
    let request: v1::UndeleteLogRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    let log_id = wanted_id(&request.log_id)?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    check_level(&service, core, Feature::ManyLogs, Some(deadline)).await?;
    let mut is_proposed = false;
    let meta = change(&service, core, &call, deadline, |catalog| match find(catalog, &name, log_id)? {
        Found::Purged => Err(ApiError::NoSuchLog(name.clone())),
        Found::Log(meta) if meta.deletion.is_none() => Ok(Step::Done(meta.clone())),
        // It is purged at any moment.
        Found::Log(meta) if is_for_good(meta) => Err(ApiError::NoSuchLog(name.clone())),
        Found::Log(meta) => {
            is_proposed = true;
            Ok(Step::propose(Command::UndeleteLog(meta.group)))
        }
    })
    .await?;
    if is_proposed {
        log::info!("log undeleted: log={name} log_id={} principal={}", request.log_id, call.principal());
        service.changed(format!("log {name} was undeleted by {}", call.principal()));
    }
    wait_active(&service, core, &meta, deadline).await;
    let mut response = v1::UndeleteLogResponse::new();
    response.log = Some(info_with_position(&service, core, &call, &meta).await?).into();
    Ok(response)
}

/// Waits for the purge of a log that was deleted for good, but not for ever. Returns the log if it is not purged yet.
async fn wait_purged(service: &Service, core: &Core, meta: LogMeta, deadline: Instant) -> Option<LogMeta> {
    let until = deadline.min(Instant::now() + PURGE_MAX);
    loop {
        let next = Until::Applied(core.catalog_watermark.get().applied.next());
        let present = core.catalog.get().log(meta.group).cloned();
        if present.is_none() || Instant::now() >= until {
            return present;
        }
        let _ = select(core.catalog_watermark.wait(next, &service.timers), service.timers.at(until)).await;
    }
}

/// Returns true for a log that was deleted without a time in which it can be undeleted.
fn is_for_good(meta: &LogMeta) -> bool {
    meta.deletion.is_some_and(|deletion| deletion.purge_us <= deletion.deleted_us)
}

enum Found<'a> {
    Log(&'a LogMeta),
    /// The log with that id is gone.
    Purged,
}

/// Returns the log with the name and the id, deleted or not.
fn find<'a>(catalog: &'a Catalog, name: &LogName, wanted: WantedLogId) -> Result<Found<'a>, ApiError> {
    let is_purged = matches!(wanted, WantedLogId::Exactly(id) if catalog.is_purged(id));
    match catalog.log_named(name) {
        Some(meta) if wanted == WantedLogId::Exactly(meta.log_id) => Ok(Found::Log(meta)),
        Some(_) | None if is_purged => Ok(Found::Purged),
        Some(meta) => Err(ApiError::LogIdMismatch { log: name.clone(), log_id: meta.log_id }),
        None => Err(missing(catalog, name)),
    }
}

fn wanted_id(text: &str) -> Result<WantedLogId, Invalid> {
    if text.is_empty() { Err(Invalid::NoLogId) } else { Ok(WantedLogId::of_text(Some(text))) }
}

/// Returns whether a log that would be purged after that time would be purged earlier.
fn is_earlier(purge_after_ms: Option<u64>, purge_us: u64) -> bool {
    purge_after_ms.is_some_and(|ms| wall_us().saturating_add(ms.saturating_mul(1000)) < purge_us)
}
