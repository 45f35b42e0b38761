//! Changes of the catalog by requests: proposes commands until the catalog of this node is as a request wants it.
//!
//! A command that no longer fits, because another request was faster, is ignored by every node alike. So the outcome is
//! read from the catalog, and the request is decided again.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::core::Core;
use super::error::{ApiError, Invalid, NeededBy};
use super::service::{Call, Service};
use crate::catalog::{Catalog, Command, Conflict, NewLog, Origin};
use crate::consensus::command_proposal;
use crate::consensus::handle::{Proposal, ProposeError};
use crate::feature_level::Feature;
use crate::types::GroupId;

/// The pause before a command that the leader did not accept is decided again.
const PAUSE: Duration = Duration::from_millis(50);

/// The next step of a request, decided from the catalog.
pub enum Step<T> {
    /// The catalog is as the request wants it.
    Done(T),
    /// This command makes it so.
    Propose(Box<Command>),
}

impl<T> Step<T> {
    /// The step that proposes this command.
    pub fn propose(command: Command) -> Step<T> {
        Step::Propose(Box::new(command))
    }
}

/// Proposes what `decide` returns, until it is done. `decide` gets the catalog of this node, after a read index.
///
/// # Errors
/// Those of `decide` and of the proposal. If the answer to a proposal is lost, the same request again is done once.
pub async fn change<T>(
    service: &Service,
    core: &Core,
    call: &Call,
    deadline: Instant,
    mut decide: impl FnMut(&Catalog) -> Result<Step<T>, ApiError>,
) -> Result<T, ApiError> {
    let (watermark, timers) = (&core.catalog_watermark, &service.timers);
    let mut is_caught_up = false;
    loop {
        if !is_caught_up {
            core.catch_up(GroupId::CATALOG, watermark, timers, Some(deadline)).await?;
        }
        let catalog = core.catalog.get();
        let command = match decide(&catalog)? {
            Step::Done(value) => return Ok(value),
            Step::Propose(command) => command,
        };
        // Without this check, a command that every node ignores would be proposed for ever.
        match catalog.would_change(&placed(core, &command)) {
            Ok(true) => {}
            Ok(false) => return Err(ApiError::Internal("a request needs a command that changes nothing")),
            Err(conflict) => return Err(of_conflict(conflict)),
        }
        let proposal = Proposal { deadline: Some(deadline), ..command_proposal(&command) };
        match core.propose(call.principal().as_str(), proposal).await {
            Ok(appended) => {
                let applied = core.wait_applied(GroupId::CATALOG, appended.index, watermark, timers, deadline).await;
                // It may have been ignored.
                applied.map_err(|_| ApiError::OutcomeUnknown { retry_is_safe: true })?;
                is_caught_up = true;
            }
            // The leader has another catalog than this node had, or it changed.
            Err(ProposeError::Dropped) => {
                let next = Instant::now() + PAUSE;
                if next >= deadline {
                    return Err(ApiError::LeaderChanged);
                }
                timers.at(next).await;
                is_caught_up = false;
            }
            Err(ProposeError::NodeNeeded { group }) => {
                let log = catalog.log(group).map(|log| log.name.clone());
                return Err(ApiError::NodeNeeded { by: log.map_or(NeededBy::Catalog, NeededBy::Log) });
            }
            Err(error) => return Err(ApiError::from_command(error)),
        }
    }
}

/// Returns the command, for a new log with this node as a stand-in for the nodes that the catalog's leader chooses
/// later: a command without nodes does not fit any catalog.
fn placed<'a>(core: &Core, command: &'a Command) -> Cow<'a, Command> {
    match command {
        Command::CreateLog(new) if new.origin == Origin::Nodes(Vec::new()) => {
            let origin = Origin::Nodes(vec![core.me.node_id]);
            Cow::Owned(Command::CreateLog(NewLog { origin, ..new.clone() }))
        }
        other => Cow::Borrowed(other),
    }
}

/// Checks that the cluster may use a feature. A level that is too low is an answer only once this node has caught up with
/// the catalog.
///
/// # Errors
/// [`ApiError::LevelTooLow`], or if this node can't catch up with the catalog.
pub async fn check_level(
    service: &Service,
    core: &Core,
    feature: Feature,
    deadline: Option<Instant>,
) -> Result<(), ApiError> {
    let is_allowed = || core.catalog.level().allows(feature);
    if !is_allowed() {
        core.catch_up(GroupId::CATALOG, &core.catalog_watermark, &service.timers, deadline).await?;
    }
    if is_allowed() { Ok(()) } else { Err(ApiError::LevelTooLow(feature.level())) }
}

/// Returns the error of a command that does not fit the catalog. The request was checked before, so most conflicts are
/// bugs.
fn of_conflict(conflict: Conflict) -> ApiError {
    let settings = |field: &str, what: String| Invalid::Settings { field: field.to_owned(), what }.into();
    match conflict {
        Conflict::LogIdTaken(_) => Invalid::LogIdUsed.into(),
        Conflict::TooManyLogs => ApiError::TooManyLogs { max: Catalog::LOGS_MAX },
        Conflict::BadLimits(_) => settings(
            "config.labels",
            format!("the labels of all logs would exceed {} bytes, the limit of a cluster", Catalog::LABEL_BYTES_MAX),
        ),
        Conflict::BadDefaults(Some(log)) => settings(
            "settings.log_defaults",
            format!("the settings of log {log} would be out of bounds with these defaults: change them first"),
        ),
        Conflict::BadDefaults(None) => {
            settings("settings.log_defaults", "the defaults would be out of bounds".to_owned())
        }
        Conflict::NoSuchNode(node) => ApiError::NoSuchNode { node: node.to_string() },
        Conflict::NodeLeaves(node) => ApiError::NodeLeaves { node },
        Conflict::LastNode(_) => ApiError::NodeNeeded { by: NeededBy::Cluster },
        Conflict::NodeRemoved(_)
        | Conflict::NameTaken(_)
        | Conflict::LogTaken
        | Conflict::NameOfLogTaken(_)
        | Conflict::NoSuchLog(_)
        | Conflict::Deleted(_)
        | Conflict::NotDeleted(_)
        | Conflict::NotRestored(_)
        | Conflict::OtherRevision(_)
        | Conflict::BadPlacement
        | Conflict::OtherPlan(_)
        | Conflict::Malformed
        | Conflict::TooManyMembers => {
            log::error!("a command of a request does not fit the catalog: conflict={conflict}");
            ApiError::Internal("a request was accepted that the catalog can't apply")
        }
    }
}
