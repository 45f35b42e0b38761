//! Changes the directory according to a plan.

use std::collections::BTreeMap;

use super::plan::{Fate, Plan};
use super::survey::{Found, RecoverError, Survey};
use crate::catalog::recovered::{KeptLog, recovered};
use crate::storage::log::CatalogState;
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::only_voter::{Purpose, ReplicaFacts, StoppedReplica};
use crate::storage::recovery_file::{Change, RecoveryFile};
use crate::storage::roll_forward::{self, files_in, keep_copies};
use crate::types::{ClusterId, GroupId, LogId, ReplicaId};

/// What the caller passes in, so that the result depends on nothing else.
pub struct Inputs<'a> {
    /// The id of the new cluster.
    pub cluster_id: ClusterId,
    /// Returns a new id for a log.
    pub new_log_id: &'a mut dyn FnMut() -> Result<LogId, String>,
    /// The current time, Unix microseconds.
    pub now_us: u64,
}

/// Performs a plan without questions. The directory is locked, and has not changed since the survey. A crash leaves it
/// either as it was, or in a state in which only [`finish`] accepts it.
///
/// # Errors
/// [`RecoverError`].
pub fn perform(data_dir: &DataDir, survey: &Survey, plan: &Plan, inputs: Inputs<'_>) -> Result<(), RecoverError> {
    let Inputs { cluster_id, new_log_id, now_us } = inputs;
    let disk = data_dir.disk();
    let mut kept = BTreeMap::new();
    let (mut renames, mut changes, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    let mut node = NodeFile { cluster_id: Some(cluster_id), ..survey.node.clone() };
    for (log, fate) in survey.logs.iter().zip(&plan.fates) {
        let group = log.group;
        let new_id = match fate {
            Fate::Same | Fate::Dropped => None,
            Fate::NewId => Some(new_log_id().map_err(RecoverError::Random)?),
            Fate::Undecided(_) => return Err(RecoverError::Undecided(log.name.clone())),
        };
        match &log.found {
            Found::Copy(copy) if *fate != Fate::Dropped => {
                kept.insert(group, KeptLog { replica: copy.replica, new_id });
                let replica = reread(data_dir, group, &copy.facts)?;
                changes.extend(replica.continued(disk, copy.replica)?);
                copies.push(format!("groups/{group}/manifest"));
            }
            Found::Copy(_) | Found::Nothing | Found::Blank | Found::Refused(_) => {
                if node.groups.contains_key(&group) {
                    node.remove(group);
                    let to = format!("groups/{group}.replaced-{}", survey.cluster_id);
                    renames.push(Change::Rename { name: format!("groups/{group}"), to });
                }
            }
        }
    }
    let catalog = recovered(&survey.catalog, survey.node.node_id, &kept, node.next_replica, now_us);
    let snapshot = CatalogState { index: survey.catalog_index, bytes: catalog.encode().into() };
    let own: ReplicaId = node.own_replica();
    let of_catalog = reread(data_dir, GroupId::CATALOG, &survey.catalog_copy.facts)?;
    changes.extend(of_catalog.begun_anew(disk, own, survey.catalog_index)?);
    changes.push(roll_forward::store_catalog(&snapshot));
    changes.push(roll_forward::store_node_file(&node));
    copies.extend(["node.toml", "catalog"].map(str::to_owned));
    copies.extend(files_in(data_dir, "groups/0")?);

    keep_copies(data_dir, &kept_dir(survey), &copies)?;
    renames.extend(changes);
    let recovery = RecoveryFile { cluster_id, changes: renames };
    roll_forward::decide(data_dir, &recovery)?;
    Ok(roll_forward::roll_forward(data_dir, &recovery)?)
}

/// The directory inside the data directory with copies of what is replaced.
#[must_use]
pub fn kept_dir(survey: &Survey) -> String {
    format!("replaced-{}", survey.cluster_id)
}

/// Returns the new cluster of a recovery that was interrupted, if there is one.
///
/// # Errors
/// [`RecoverError`].
pub fn unfinished(data_dir: &DataDir) -> Result<Option<ClusterId>, RecoverError> {
    Ok(roll_forward::decided(data_dir)?.map(|recovery| recovery.cluster_id))
}

/// Finishes a recovery that was interrupted, if there is one.
///
/// # Errors
/// [`RecoverError`].
pub fn finish(data_dir: &DataDir) -> Result<(), RecoverError> {
    match roll_forward::decided(data_dir)? {
        Some(recovery) => Ok(roll_forward::roll_forward(data_dir, &recovery)?),
        None => Ok(()),
    }
}

/// Reads a replica again and syncs what it consists of: it may contain bytes that were never synced.
fn reread(data_dir: &DataDir, group: GroupId, facts: &ReplicaFacts) -> Result<StoppedReplica, RecoverError> {
    let replica = StoppedReplica::read(data_dir.disk(), &data_dir.groups_dir(), group, Purpose::Recover)?;
    if replica.facts()? != *facts {
        return Err(RecoverError::Changed(group));
    }
    Ok(replica)
}
