//! `CreateLog`, and the creation of a log by the first append to it.

use std::time::{Duration, Instant};

use futures::future::select;

use super::change::{Step, change, check_level};
use super::core::{Core, FoundLog, deleted};
use super::error::{ApiError, Invalid};
use super::log_settings::{Place, check, check_nodes, config, own_config, settings_of};
use super::logs::info_with_position;
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::meta::Restore;
use crate::catalog::{Catalog, Command, LogMeta, LogSettings, NewLog, Origin};
use crate::feature_level::Feature;
use crate::pb::v1;
use crate::storage::log::Base;
use crate::types::{GroupId, LogId, LogName, Offset};
use crate::watermark::Until;

/// The maximum offset at which a backup ends. It leaves as many offsets for the records that are appended later.
const RESTORED_MAX: Offset = Offset(Offset::MAX.0 / 2);

/// The maximum wait for a leader of a new log.
const ACTIVE_MAX: Duration = Duration::from_secs(5);

/// The pause between two searches for the leader of a new log on other nodes.
const PAUSE: Duration = Duration::from_millis(10);

/// Serves `CreateLog`. Responds once the log takes appends, or after five seconds.
///
/// # Errors
/// Those of [`super::status`].
pub async fn create_log(service: Service, call: Call, request: Request) -> Result<v1::CreateLogResponse, ApiError> {
    let request: v1::CreateLogRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    let chosen = request.log_id.as_deref().map(chosen_id).transpose()?;
    let settings = settings_of(request.config.get_or_default(), Place::CONFIG)?;
    let restore = request.restore.as_ref().map(restore_of).transpose()?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    let feature = match (settings.hash_chain, &restore) {
        (Some(_), _) => Feature::HashChain,
        (None, Some(_)) => Feature::Restore,
        (None, None) => Feature::ManyLogs,
    };
    check_level(&service, core, feature, Some(deadline)).await?;
    let new = WantedLog { name, chosen, settings, restore };
    let mut response = v1::CreateLogResponse::new();
    if request.validate_only {
        core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, Some(deadline)).await?;
        response.log = Some(match decide(&core.catalog.get(), &new, chosen)? {
            Some(meta) => info_with_position(&service, core, &call, &meta).await?,
            None => v1::LogInfo {
                name: new.name.to_string(),
                log_id: chosen.map(|id| id.to_string()).unwrap_or_default(),
                config: Some(config(&new.settings, &core.catalog.get().cluster_settings().log_defaults)).into(),
                own_config: Some(own_config(&new.settings)).into(),
                ..v1::LogInfo::default()
            },
        })
        .into();
        return Ok(response);
    }
    let meta = create(&service, core, &call, &new, deadline).await?;
    wait_active(&service, core, &meta, deadline).await;
    response.log = Some(info_with_position(&service, core, &call, &meta).await?).into();
    Ok(response)
}

/// Creates the log that an append names, and waits until it takes appends. The caller has checked that the client may
/// append.
///
/// # Errors
/// If the log can't be created, or this node does not serve it in time.
pub async fn create_for_append(
    service: &Service,
    core: &Core,
    call: &Call,
    name: &LogName,
) -> Result<FoundLog, ApiError> {
    let deadline = proposal_deadline(call.deadline);
    let new = WantedLog { name: name.clone(), chosen: None, settings: LogSettings::default(), restore: None };
    let created = create(service, core, call, &new, deadline).await;
    match created {
        Ok(meta) => wait_active(service, core, &meta, deadline).await,
        // Another append has created it meanwhile.
        Err(ApiError::LogExists { .. }) => {}
        Err(error) => return Err(error),
    }
    core.find(name, &service.timers, call.deadline).await
}

/// The log that a request creates.
struct WantedLog {
    name: LogName,
    /// The id, if the client has chosen one.
    chosen: Option<LogId>,
    settings: LogSettings,
    restore: Option<Restore>,
}

/// Commits the creation of a log, and returns its entry in the catalog.
async fn create(
    service: &Service,
    core: &Core,
    call: &Call,
    new: &WantedLog,
    deadline: Instant,
) -> Result<LogMeta, ApiError> {
    let WantedLog { name, chosen, settings, restore } = new;
    let random = LogId::random().map_err(|_| ApiError::Internal("the system returned no random number"))?;
    let log_id = chosen.unwrap_or(random);
    let mut is_proposed = false;
    let meta = change(service, core, call, deadline, |catalog| {
        // With a random id, the log can only be found after this request has proposed it.
        let own = if chosen.is_some() || is_proposed { Some(log_id) } else { None };
        if let Some(meta) = decide(catalog, new, own)? {
            return Ok(Step::Done(meta));
        }
        is_proposed = true;
        let (origin, settings) = (Origin::Nodes(Vec::new()), settings.clone());
        Ok(Step::propose(Command::CreateLog(NewLog {
            name: name.clone(),
            log_id,
            origin,
            settings,
            restore: *restore,
        })))
    })
    .await?;
    if is_proposed {
        log::info!("log created: log={name} log_id={log_id} principal={}", call.principal());
        service.changed(format!("log {name} was created by {}", call.principal()));
    }
    Ok(meta)
}

/// Returns the log if it was created with the given id. `None`: it can be created.
fn decide(catalog: &Catalog, new: &WantedLog, own: Option<LogId>) -> Result<Option<LogMeta>, ApiError> {
    let WantedLog { name, chosen: _, settings, restore } = new;
    match catalog.log_named(name) {
        Some(meta) => match meta.deletion {
            Some(deletion) => return Err(deleted(meta, deletion)),
            None if own == Some(meta.log_id) && is_of(restore.as_ref(), meta) => return Ok(Some(meta.clone())),
            None => return Err(ApiError::LogExists { log: name.clone(), log_id: meta.log_id }),
        },
        None if own.is_some_and(|id| catalog.was_used(id)) => return Err(Invalid::LogIdUsed.into()),
        None => {}
    }
    check(settings, &catalog.cluster_settings().log_defaults, Place::CONFIG)?;
    check_nodes(settings, catalog.members().count(), Place::CONFIG)?;
    Ok(None)
}

/// Returns whether a log was created from this backup, or from none.
fn is_of(restore: Option<&Restore>, meta: &LogMeta) -> bool {
    match (restore, &meta.restore) {
        (None, None) => true,
        (Some(wanted), Some(present)) => wanted.is_of_same_backup(present),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn restore_of(restore: &v1::Restore) -> Result<Restore, Invalid> {
    let source_log_id: LogId = restore.source_log_id.parse().map_err(|_| Invalid::Restore)?;
    let digest = <[u8; 32]>::try_from(&restore.digest[..]).map_err(|_| Invalid::Restore)?;
    let (first_offset, end_offset) = (Offset(restore.first_offset), Offset(restore.end_offset));
    if first_offset > end_offset || end_offset > RESTORED_MAX {
        return Err(Invalid::Restore);
    }
    Ok(Restore { source_log_id, first_offset, end_offset, digest, is_complete: false })
}

fn chosen_id(text: &str) -> Result<LogId, Invalid> {
    let id: LogId = text.parse().map_err(|_| Invalid::LogId)?;
    if id != LogId(0) && id.to_string() == text { Ok(id) } else { Err(Invalid::LogId) }
}

/// Waits until a leader of the log has committed its first entry, but not for ever. If this node has a replica, it has
/// applied that entry.
pub async fn wait_active(service: &Service, core: &Core, meta: &LogMeta, deadline: Instant) {
    let timers = &service.timers;
    let until = deadline.min(Instant::now() + ACTIVE_MAX);
    // This node has applied the creation, so it serves the log if it has a replica.
    if let Some(log) = core.logs.get(&meta.name).filter(|log| log.log_id == meta.log_id) {
        let first_entry = Until::Applied(Base::FIRST.next());
        let _ = select(log.watermark.wait(first_entry, timers), timers.at(until)).await;
        return;
    }
    // The nodes with replicas may not have applied the creation yet.
    while core.find_leader(meta.group, until).await.is_err() && Instant::now() < until {
        timers.at(Instant::now() + PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_chosen_in_the_form_that_responses_contain() {
        assert_eq!(chosen_id("00000000000000ff"), Ok(LogId(255)));
        for bad in ["", "0000000000000000", "ff", "00000000000000FF", "+0000000000000ff", "x"] {
            assert_eq!(chosen_id(bad), Err(Invalid::LogId), "{bad}");
        }
    }
}
