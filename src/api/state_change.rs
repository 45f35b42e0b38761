//! Changes of the producers and the cursors of a log.

use std::sync::Arc;
use std::time::Instant;

use super::change::check_level;
use super::core::{Core, FoundLog, WantedLogId, bounds};
use super::error::{ApiError, FailedProposal, Invalid};
use super::service::{Call, Service};
use crate::consensus::handle::{Proposal, ProposeError};
use crate::feature_level::Feature;
use crate::log_state::{StateCommand, StateRefusal};
use crate::logs::OpenLog;
use crate::types::Offset;

/// The maximum size of `owner`.
pub const OWNER_BYTES_MAX: usize = 255;

/// Finds the log of a request about its producers or cursors, and checks its id. Also checks that the cluster has both: an
/// older node would not know the kind of a relayed request.
///
/// # Errors
/// Those of [`Core::find`], a log with another id, or a feature level that is too low.
pub async fn find(service: &Service, call: &Call, log: &str, log_id: Option<&str>) -> Result<FoundLog, ApiError> {
    let name = call.log_name(log)?;
    let core = service.core()?;
    let found = core.find(&name, &service.timers, call.deadline).await?;
    WantedLogId::of_text(log_id).check_id(&found.name, found.log_id)?;
    check_level(service, core, Feature::Producers, call.deadline).await?;
    Ok(found)
}

/// Commits a change of the producers or the cursors of a log, and waits until it is applied on this node.
///
/// # Errors
/// [`ApiError::State`] if it does not fit, and those of a proposal. The same change again has no further effect.
pub async fn change(
    service: &Service,
    core: &Core,
    call: &Call,
    log: &Arc<OpenLog>,
    command: &StateCommand,
    deadline: Instant,
) -> Result<(), ApiError> {
    core.check_rival()?;
    let proposal = Proposal { deadline: Some(deadline), ..Proposal::state(log.group, command) };
    match core.propose(call.principal().as_str(), proposal).await {
        Ok(appended) => {
            let applied = core.wait_applied(log.group, appended.index, &log.watermark, &service.timers, deadline).await;
            applied.map_err(|_| ApiError::CommittedNotApplied)?;
        }
        // Somebody has done it before, perhaps this request.
        Err(ProposeError::State(StateRefusal::Unchanged(_))) => caught_up(service, core, call, log).await?,
        Err(error) => {
            let bounds = bounds(log, &log.watermark.get());
            let failed = FailedProposal { bounds: &bounds, offset: Offset::default(), retry_is_safe: true };
            return Err(core.error_of(log, ApiError::from_propose(error, &failed)));
        }
    }
    Ok(())
}

/// Waits until this node has applied everything that was acknowledged before.
///
/// # Errors
/// Those of [`Core::catch_up`].
pub async fn caught_up(service: &Service, core: &Core, call: &Call, log: &Arc<OpenLog>) -> Result<(), ApiError> {
    let caught_up = core.catch_up(log.group, &log.watermark, &service.timers, call.deadline).await;
    caught_up.map(drop).map_err(|error| core.error_of(log, error))
}

/// Checks the text that a process says about itself.
///
/// # Errors
/// [`Invalid::Owner`].
pub fn check_owner(owner: &str) -> Result<(), Invalid> {
    if owner.len() > OWNER_BYTES_MAX { Err(Invalid::Owner) } else { Ok(()) }
}
