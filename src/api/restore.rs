//! `FinishRestore`: opens a log whose records were restored from a backup.

use super::change::{Step, change, check_level};
use super::core::{WantedLogId, deleted, missing};
use super::error::{ApiError, Invalid};
use super::logs::info_with_position;
use super::messages::{Request, decode};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::catalog::{Catalog, Command, LogMeta};
use crate::feature_level::Feature;
use crate::pb::v1;
use crate::types::{LogName, Offset};

/// Serves `FinishRestore`. Responds once the log is open on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn finish_restore(
    service: Service,
    call: Call,
    request: Request,
) -> Result<v1::FinishRestoreResponse, ApiError> {
    let request: v1::FinishRestoreRequest = decode(&request, call.package)?;
    let name = call.log_name(&request.log)?;
    if request.log_id.is_empty() {
        return Err(Invalid::NoLogId.into());
    }
    let wanted = WantedLogId::of_text(Some(&request.log_id));
    let core = service.core()?;
    let deadline = proposal_deadline(call.deadline);
    check_level(&service, core, Feature::Restore, Some(deadline)).await?;
    // A log that is being restored takes only records of the backup, so one that ends there has all of them.
    let present = change(&service, core, &call, deadline, |catalog| {
        find(catalog, &name, wanted).map(|meta| Step::Done(meta.clone()))
    })
    .await?;
    if present.is_restoring() {
        let info = info_with_position(&service, core, &call, &present).await?;
        let Some(position) = info.position.as_ref() else { return Err(ApiError::NoLeader) };
        let end = present.restore.map_or(Offset::default(), |restore| restore.end_offset);
        if position.next_offset != end.0 {
            let next_offset = Offset(position.next_offset);
            return Err(ApiError::ExpectedOffset { log: name, expected: end, next_offset });
        }
    }
    let meta = change(&service, core, &call, deadline, |catalog| match find(catalog, &name, wanted)? {
        meta if meta.is_restoring() => Ok(Step::propose(Command::FinishRestore(meta.group))),
        meta => Ok(Step::Done(meta.clone())),
    })
    .await?;
    if present.is_restoring() {
        log::info!("log restored: log={name} log_id={} principal={}", meta.log_id, call.principal());
        service.changed(format!("log {name} was restored by {}", call.principal()));
    }
    let mut response = v1::FinishRestoreResponse::new();
    response.log = Some(info_with_position(&service, core, &call, &meta).await?).into();
    Ok(response)
}

/// Returns a log that is or was restored.
fn find<'a>(catalog: &'a Catalog, name: &LogName, wanted: WantedLogId) -> Result<&'a LogMeta, ApiError> {
    let meta = catalog.log_named(name).ok_or_else(|| missing(catalog, name))?;
    wanted.check_id(name, meta.log_id)?;
    match (meta.deletion, meta.restore) {
        (Some(deletion), _) => Err(deleted(meta, deletion)),
        (None, None) => Err(Invalid::NeverRestored.into()),
        (None, Some(_)) => Ok(meta),
    }
}
