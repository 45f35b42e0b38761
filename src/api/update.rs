//! `UpdateLog`: changes the settings of a log, by a command of the catalog.

use protobuf::well_known_types::duration::Duration as PbDuration;

use super::core::{WantedLogId, bounds};
use super::error::{ApiError, FailedProposal, Invalid};
use super::logs::{info, log_info, meta};
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::{Command, LogChange, LogMeta};
use crate::consensus::command_proposal;
use crate::consensus::handle::Proposal;
use crate::pb::v1;
use crate::types::{GroupId, Offset};

/// Serves `UpdateLog`. Responds once the change is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn update_log(service: Service, call: Call, request: Request) -> Result<v1::UpdateLogResponse, ApiError> {
    let request: v1::UpdateLogRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    let change = change_of(&request)?;
    let core = service.core()?;
    let log = core.log(&name, &service.timers, call.deadline).await?;
    WantedLogId::of_text(request.log_id.as_deref()).check(&log)?;
    let deadline = proposal_deadline(call.deadline);
    core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, Some(deadline)).await?;
    let present = meta(core, &log)?;
    if !change.is_empty() {
        check(present.clone(), change)?;
    }
    let mut response = v1::UpdateLogResponse::new();
    if request.validate_only {
        response.log = Some(info(&present.changed(change), None)).into();
        return Ok(response);
    }
    let command = Command::ConfigureLog(log.group, change);
    // This node is caught up, so the check is reliable. A command without effect would be an entry that every node keeps forever.
    let is_committed = if core.catalog.get().would_change(&command) != Ok(false) {
        let proposal = Proposal { deadline: Some(deadline), ..command_proposal(&command) };
        let applied = core.propose(call.principal().as_str(), proposal).await.map_err(|error| {
            let bounds = bounds(&log, &log.watermark.get());
            ApiError::from_propose(
                error,
                &FailedProposal { bounds: &bounds, offset: Offset::default(), retry_is_safe: true },
            )
        })?;
        let watermark = &core.catalog_watermark;
        let applied = core.wait_applied(GroupId::CATALOG, applied.index, watermark, &service.timers, deadline);
        applied.await.map_err(|_| ApiError::CommittedNotApplied)?;
        true
    } else {
        false
    };
    let changed = log_info(&service, core, &call, &log).await;
    // No other error may say that nothing was done.
    response.log =
        Some(changed.map_err(|error| if is_committed { ApiError::CommittedNotApplied } else { error })?).into();
    Ok(response)
}

/// Returns the change that a request describes: the fields of `config` in `update_mask`, or without a mask those that are set.
/// A field in the mask that is not set gets its default.
fn change_of(request: &v1::UpdateLogRequest) -> Result<LogChange, Invalid> {
    let config = request.config.get_or_default();
    let retention_ms = || config.retention_age.as_ref().map(ms_of_duration).transpose();
    let mut change = LogChange::default();
    let paths: Vec<&str> = match request.update_mask.as_ref() {
        Some(mask) if !mask.paths.is_empty() => mask.paths.iter().map(String::as_str).collect(),
        Some(_) | None => {
            return Ok(LogChange {
                retention_bytes: config.min_retained_bytes,
                retention_ms: retention_ms()?,
                record_bytes_max: config.max_record_bytes,
                request_bytes_max: config.max_request_bytes,
            });
        }
    };
    for path in paths {
        match path {
            "retention_age" => change.retention_ms = Some(retention_ms()?.unwrap_or(0)),
            "min_retained_bytes" => change.retention_bytes = Some(config.min_retained_bytes.unwrap_or(0)),
            "max_record_bytes" => {
                change.record_bytes_max = Some(config.max_record_bytes.unwrap_or(LogMeta::RECORD_BYTES_MAX));
            }
            "max_request_bytes" => {
                change.request_bytes_max = Some(config.max_request_bytes.unwrap_or(LogMeta::REQUEST_BYTES_MAX));
            }
            other => return Err(Invalid::UpdateMask(other.to_owned())),
        }
    }
    Ok(change)
}

/// The longest duration of protobuf's type: 10,000 years. Clients refuse a longer one.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

/// Converts a retention age. Parts of a millisecond are refused, so that a log has exactly the age that was asked for.
fn ms_of_duration(duration: &PbDuration) -> Result<u64, Invalid> {
    let seconds = u64::try_from(duration.seconds).ok().filter(|seconds| *seconds <= DURATION_SECONDS_MAX);
    let nanos = u64::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000 && nanos % 1_000_000 == 0);
    let ms = seconds.zip(nanos).and_then(|(seconds, nanos)| seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000));
    ms.ok_or_else(|| Invalid::Settings {
        field: "config.retention_age",
        what: "`retention_age` must be a duration from 0 to 10,000 years in whole milliseconds".to_owned(),
    })
}

fn check(meta: LogMeta, change: LogChange) -> Result<(), Invalid> {
    if change.retention_ms.is_some_and(|ms| (1..LogMeta::RETENTION_MS_LEAST).contains(&ms)) {
        return Err(Invalid::Settings {
            field: "config.retention_age",
            what: "`retention_age` must be 0 (keep forever) or at least 1 s".to_owned(),
        });
    }
    let changed = meta.changed(change);
    if !changed.limits_hold() {
        // The message contains both values, because the one that the request does not set may be the one that does not fit.
        return Err(Invalid::Settings {
            field: if change.record_bytes_max.is_some() {
                "config.max_record_bytes"
            } else {
                "config.max_request_bytes"
            },
            what: format!(
                "`max_record_bytes` would be {}, `max_request_bytes` {}: the first must be 1024 to 4128768, the second at least \
                 the first and at most 8323072",
                changed.record_bytes_max, changed.request_bytes_max
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protobuf::MessageField;
    use protobuf::well_known_types::field_mask::FieldMask;

    use super::*;
    use crate::types::NodeId;

    #[test]
    fn a_mask_resets_what_the_settings_do_not_contain() {
        let age = PbDuration { seconds: 2, nanos: 5_000_000, ..PbDuration::default() };
        let config = v1::LogConfig {
            retention_age: MessageField::some(age),
            max_record_bytes: Some(2048),
            ..v1::LogConfig::default()
        };
        let change = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let mask = FieldMask { paths, ..FieldMask::default() };
            change_of(&v1::UpdateLogRequest {
                config: MessageField::some(config.clone()),
                update_mask: MessageField::some(mask),
                ..v1::UpdateLogRequest::default()
            })
        };
        let all = LogChange { retention_ms: Some(2005), record_bytes_max: Some(2048), ..LogChange::default() };
        assert_eq!(change(&[]), Ok(all));
        let age = LogChange { retention_ms: Some(2005), ..LogChange::default() };
        assert_eq!(change(&["retention_age"]), Ok(age));
        let reset = LogChange { retention_bytes: Some(0), request_bytes_max: Some(4 << 20), ..LogChange::default() };
        assert_eq!(change(&["min_retained_bytes", "max_request_bytes"]), Ok(reset));
        assert_eq!(change(&["name"]), Err(Invalid::UpdateMask("name".to_owned())));
    }

    #[test]
    fn refuses_ages_that_can_t_be_kept() {
        for (seconds, nanos, ms) in
            [(0, 0, Some(0)), (1, 1_000_000, Some(1001)), (1, 1, None), (-1, 0, None), (1, -1, None)]
        {
            let age = PbDuration { seconds, nanos, ..PbDuration::default() };
            assert_eq!(ms_of_duration(&age).ok(), ms, "{seconds} s, {nanos} ns");
        }
        let of = |seconds| ms_of_duration(&PbDuration { seconds, ..PbDuration::default() });
        assert_eq!(of(315_576_000_000), Ok(315_576_000_000_000));
        assert!(of(315_576_000_001).is_err() && of(i64::MAX).is_err(), "JSON of such a duration does not exist");
    }

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
        let Err(Invalid::Settings { what, field: "config.max_request_bytes" }) = refused else { panic!("{refused:?}") };
        assert!(what.contains("would be 1048576, `max_request_bytes` 5000"), "{what}");
    }
}
