//! `UpdateLog`: changes the settings of a log, by a command of the catalog.

use super::change::{Step, change};
use super::core::{WantedLogId, deleted, missing};
use super::error::{ApiError, Invalid};
use super::log_settings::{HASH_CHAIN_IS_FIXED, Place, changed, check, check_nodes};
use super::logs::{check_done, check_revision, info, info_with_position};
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::{Catalog, Command, LogMeta, LogSettings};
use crate::feature_level::Feature;
use crate::pb::v1;
use crate::types::{GroupId, LogName};

/// Serves `UpdateLog`. Responds once the change is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn update_log(service: Service, call: Call, request: Request) -> Result<v1::UpdateLogResponse, ApiError> {
    let request: v1::UpdateLogRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    // Also refuses a bad request that changes nothing.
    changed(&LogSettings::default(), request.config.get_or_default(), &paths(&request), Place::CONFIG)?;
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    let mut response = v1::UpdateLogResponse::new();
    if request.validate_only {
        core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, Some(deadline)).await?;
        let catalog = core.catalog.get();
        let meta = match decide(&catalog, &name, &request)? {
            Step::Done(meta) => meta,
            Step::Propose(_) => {
                let present = find(&catalog, &name, &request)?;
                LogMeta { settings: wanted(present, &request)?, ..present.clone() }
            }
        };
        response.log = Some(info(&catalog, &meta, v1::LogState::LOG_STATE_ACTIVE, None)).into();
        return Ok(response);
    }
    let meta = change(&service, core, &call, deadline, |catalog| decide(catalog, &name, &request)).await?;
    response.log = Some(info_with_position(&service, core, &call, &meta).await?).into();
    Ok(response)
}

fn paths(request: &v1::UpdateLogRequest) -> Vec<&str> {
    request.update_mask.paths.iter().map(String::as_str).collect()
}

fn wanted(present: &LogMeta, request: &v1::UpdateLogRequest) -> Result<LogSettings, Invalid> {
    changed(&present.settings, request.config.get_or_default(), &paths(request), Place::CONFIG)
}

fn find<'a>(catalog: &'a Catalog, name: &LogName, request: &v1::UpdateLogRequest) -> Result<&'a LogMeta, ApiError> {
    let meta = catalog.log_named(name).ok_or_else(|| missing(catalog, name))?;
    WantedLogId::of_text(request.log_id.as_deref()).check_id(name, meta.log_id)?;
    match meta.deletion {
        Some(deletion) => Err(deleted(meta, deletion)),
        None => Ok(meta),
    }
}

/// Decides what the request needs.
fn decide(catalog: &Catalog, name: &LogName, request: &v1::UpdateLogRequest) -> Result<Step<LogMeta>, ApiError> {
    // True if the cluster's level allows the command that replaces all settings.
    let named = catalog.feature_level() >= Feature::ManyLogs.level();
    let meta = find(catalog, name, request)?;
    let settings = wanted(meta, request)?;
    let defaults = &catalog.cluster_settings().log_defaults;
    let (present, new) = (meta.settings.effective(defaults), settings.effective(defaults));
    if settings == meta.settings || !named && present == new && settings.labels == meta.settings.labels {
        check_done(Some(name), meta.revision, request.expected_revision)?;
        return Ok(Step::Done(meta.clone()));
    }
    check_revision(Some(name), meta.revision, request.expected_revision)?;
    check(&settings, defaults, Place::CONFIG)?;
    if present.hash_chain != new.hash_chain {
        return Err(Place::CONFIG.invalid("hash_chain", HASH_CHAIN_IS_FIXED).into());
    }
    if present.replicas != new.replicas {
        check_nodes(&settings, catalog.members().count(), Place::CONFIG)?;
    }
    if named {
        return Ok(Step::propose(Command::UpdateLog(meta.group, settings, meta.revision)));
    }
    if settings.labels != meta.settings.labels || present.replicas != new.replicas {
        return Err(ApiError::LevelTooLow(Feature::ManyLogs.level()));
    }
    // Members of the first level know only this command, and it can't reset a setting.
    let limits = LogSettings {
        retention_bytes: Some(new.retention_bytes),
        retention_ms: Some(new.retention_ms),
        record_bytes_max: Some(new.record_bytes_max),
        request_bytes_max: Some(new.request_bytes_max),
        ..LogSettings::default()
    };
    Ok(Step::propose(Command::ConfigureLog(meta.group, limits)))
}
