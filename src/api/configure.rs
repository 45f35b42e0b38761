//! `ConfigureLog`: changes the settings of a log, by a command of the catalog.

use super::core::{Core, bounds, check_log_id};
use super::error::{ApiError, FailedProposal, Invalid};
use super::messages::{Request, decode_change};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::{Command, LogChange, LogMeta};
use crate::consensus::command_proposal;
use crate::consensus::handle::Proposal;
use crate::logs::OpenLog;
use crate::pb::admin;
use crate::types::{GroupId, Offset};

/// Serves `ConfigureLog`. Responds once the change is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn configure_log(
    service: Service,
    call: Call,
    request: Request,
) -> Result<admin::ConfigureLogResponse, ApiError> {
    let request: admin::ConfigureLogRequest = decode_change(&request)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let log = core.log(&name, &service.timers, call.deadline).await?;
    check_log_id(&log, request.log_id)?;
    let change = LogChange {
        retention_bytes: request.retention_bytes,
        retention_ms: request.retention_ms,
        record_bytes_max: request.record_bytes_max,
        request_bytes_max: request.request_bytes_max,
    };
    let deadline = proposal_deadline(call.deadline);
    core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, Some(deadline)).await?;
    if !change.is_empty() {
        check(meta(core, &log)?, change)?;
    }
    let command = Command::ConfigureLog(log.group, change);
    // This node is caught up, so the check is reliable. A command without effect would be an entry that every node keeps forever.
    if core.catalog.get().would_change(&command) != Ok(false) {
        let proposal = Proposal { deadline: Some(deadline), ..command_proposal(&command) };
        let applied = core.propose(call.principal().as_str(), proposal).await.map_err(|error| {
            let bounds = bounds(&log, &log.watermark.get());
            ApiError::from_propose(
                error,
                &FailedProposal { bounds: &bounds, offset: Offset::default(), producer_id: 0 },
            )
        })?;
        core.wait_applied(GroupId::CATALOG, applied.index, &core.catalog_watermark, &service.timers, deadline).await?;
    }
    let mut response = admin::ConfigureLogResponse::new();
    response.settings = Some(settings(&meta(core, &log)?)).into();
    Ok(response)
}

fn meta(core: &Core, log: &OpenLog) -> Result<LogMeta, ApiError> {
    core.catalog.get().log(log.group).cloned().ok_or_else(|| ApiError::NoSuchLog(log.name.clone()))
}

fn check(meta: LogMeta, change: LogChange) -> Result<(), Invalid> {
    if change.retention_ms.is_some_and(|ms| (1..LogMeta::RETENTION_MS_LEAST).contains(&ms)) {
        return Err(Invalid::Settings("`retention_ms` must be 0 (keep forever) or at least 1000".to_owned()));
    }
    let changed = meta.changed(change);
    if !changed.limits_hold() {
        // The message contains both values, because the one that the request does not set may be the one that does not fit.
        return Err(Invalid::Settings(format!(
            "`record_bytes_max` would be {}, `request_bytes_max` {}: the first must be 1024 to 4128768, the second at least \
             the first and at most 8323072",
            changed.record_bytes_max, changed.request_bytes_max
        )));
    }
    Ok(())
}

/// Returns the settings of a log as a message.
pub fn settings(meta: &LogMeta) -> admin::LogSettings {
    let mut settings = admin::LogSettings::new();
    settings.retention_bytes = meta.retention_bytes;
    settings.retention_ms = meta.retention_ms;
    settings.record_bytes_max = meta.record_bytes_max;
    settings.request_bytes_max = meta.request_bytes_max;
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    #[test]
    fn rejects_settings_out_of_bounds() {
        let meta = LogMeta::first(NodeId(1)).expect("a log");
        let change = LogChange::default();
        for ms in [0, 1000, u64::MAX] {
            assert_eq!(check(meta.clone(), LogChange { retention_ms: Some(ms), ..change }), Ok(()));
        }
        assert!(check(meta.clone(), LogChange { retention_ms: Some(999), ..change }).is_err());
        for (record, request, holds) in [
            (1024, 1024, true),
            (4_128_768, 8_323_072, true),
            (1023, 4096, false),
            (4_128_769, 8_323_072, false),
            (4096, 4095, false),
            (1024, 8_323_073, false),
        ] {
            let change = LogChange { record_bytes_max: Some(record), request_bytes_max: Some(request), ..change };
            assert_eq!(check(meta.clone(), change).is_ok(), holds, "{change:?}");
        }
        let refused = check(meta, LogChange { request_bytes_max: Some(5000), ..change });
        let Err(Invalid::Settings(what)) = refused else { panic!("{refused:?}") };
        assert!(what.contains("would be 1048576, `request_bytes_max` 5000"), "{what}");
    }
}
