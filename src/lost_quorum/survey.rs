//! What a stopped node has of its cluster: the catalog, and for each log what its replica contains.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::catalog::recovered::free_name;
use crate::catalog::{BadCommand, Catalog, Command, LogMeta, Member};
use crate::consensus::conf_change::{ConfChange, ConfChangeKind};
use crate::feature_level::{FeatureLevel, FeatureRange};
use crate::storage::check_groups;
use crate::storage::disk::Disk;
use crate::storage::entry::EntryKind;
use crate::storage::error::StorageError;
use crate::storage::log::{Base, ConfState};
use crate::storage::node::{DataDir, NodeFile};
use crate::storage::only_voter::{Purpose, ReplicaFacts, StoppedReplica};
use crate::storage::payload;
use crate::storage::replicas::unlist_retired;
use crate::storage::verify::{Finding, Report, Severity, verify_locked};
use crate::types::{ClusterId, GroupId, LogIndex, LogName, NodeId, Offset, ReplicaId};

/// Why a directory can't be recovered.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The directory can't be read, or can't be changed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No node has used the directory.
    #[error("{} is blank: no node has used it", .0.display())]
    Blank(PathBuf),
    /// The node has never been a member of a cluster.
    #[error("{} belongs to a node that is not a member of a cluster: there is nothing to recover", .0.display())]
    NotMember(PathBuf),
    /// The node has no catalog.
    #[error("node {0} has not received the catalog of its cluster yet: recover another node")]
    NoCatalog(NodeId),
    /// The node was removed.
    #[error("node {0} was removed from its cluster: recover another node")]
    Removed(NodeId),
    /// What every node needs is damaged.
    #[error("{} is damaged at {finding}: recover another node, or restore the file", .finding.file.display())]
    Damaged {
        /// The damage.
        finding: Box<Finding>,
    },
    /// The catalog contains a command that this version does not know.
    #[error("the catalog can't be read: {0}")]
    Catalog(#[from] BadCommand),
    /// The cluster is at a feature level that this version does not support.
    #[error("the cluster is at feature level {level}, and this version supports up to {max}: use a newer version")]
    FeatureLevel {
        /// The level of the cluster.
        level: FeatureLevel,
        /// The highest level of this version.
        max: FeatureLevel,
    },
    /// A replica contains a conf change that can't be read.
    #[error("a change of the voters of group {0} can't be read")]
    ConfChange(GroupId),
    /// The system has no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(String),
    /// The operator has not decided about a log.
    #[error("nothing is decided about log {0}")]
    Undecided(LogName),
    /// The directory is not as it was when the plan was made.
    #[error("group {0} has changed in the meantime")]
    Changed(GroupId),
}

/// What a node has.
#[derive(Debug)]
pub struct Survey {
    /// `node.toml`, without replicas that the node had given up.
    pub(crate) node: NodeFile,
    pub(crate) cluster_id: ClusterId,
    /// This node in the catalog.
    pub(crate) me: Member,
    /// With every command that the node has, committed or not.
    pub(crate) catalog: Catalog,
    /// The entry up to which commands are included.
    pub(crate) catalog_index: LogIndex,
    pub(crate) catalog_copy: LogCopy,
    /// By group.
    pub(crate) logs: Vec<LogSurvey>,
    /// What `data verify` finds; `None` if it was not asked.
    pub(crate) report: Option<Report>,
}

/// A log, and what this node has of it.
#[derive(Debug)]
pub(crate) struct LogSurvey {
    pub(crate) group: GroupId,
    pub(crate) name: LogName,
    /// `None` if the node has a replica, but not the command that created the log.
    pub(crate) meta: Option<LogMeta>,
    pub(crate) found: Found,
}

/// What this node has of a log.
#[derive(Debug)]
pub(crate) enum Found {
    /// No replica.
    Nothing,
    /// A replica that has not received anything.
    Blank,
    /// A replica with which the node would not start, and why.
    Refused(String),
    Copy(Box<LogCopy>),
}

/// A replica with which the node would start.
#[derive(Debug)]
pub(crate) struct LogCopy {
    pub(crate) replica: ReplicaId,
    pub(crate) facts: ReplicaFacts,
    /// The offset after the last entry that is known to be committed.
    pub(crate) committed_offset: Offset,
    /// The known conf state, and that after each later conf change in the log.
    pub(crate) confs: Vec<ConfState>,
    /// The conf state before the last change that the first of `confs` includes, or the first one itself if there was no
    /// change. `None` if that change is not in the log any more, or can't be read.
    pub(crate) conf_before: Option<ConfState>,
    /// What `data verify` finds in its files.
    pub(crate) damage: Vec<Finding>,
    /// True if the catalog says that this replica was moved to another node.
    pub(crate) has_left: bool,
}

/// Reads a directory that the caller has locked, and changes nothing. With `reads_all`, every byte is checked.
///
/// # Errors
/// [`RecoverError`], also if the node, its catalog or a file of an unknown group is damaged.
pub fn survey(data_dir: &DataDir, reads_all: bool) -> Result<Survey, RecoverError> {
    let path = data_dir.path();
    data_dir.check()?;
    let mut node = data_dir.load()?.ok_or_else(|| RecoverError::Blank(path.to_owned()))?;
    let cluster_id = node.cluster_id.ok_or_else(|| RecoverError::NotMember(path.to_owned()))?;
    check_groups(data_dir, Some(&node))?;
    unlist_retired(data_dir, &mut node)?;
    let report = reads_all.then(|| verify_locked(data_dir)).transpose()?;
    let mut damage = report.as_ref().map(|report| by_group(data_dir, report)).transpose()?.unwrap_or_default();

    let own = node.own_replica();
    let (catalog, index, catalog_copy) = read_catalog(data_dir, own)?;
    let level = catalog.feature_level();
    if level > FeatureRange::SUPPORTED.max() {
        return Err(RecoverError::FeatureLevel { level, max: FeatureRange::SUPPORTED.max() });
    }
    if catalog.is_removed(node.node_id) {
        return Err(RecoverError::Removed(node.node_id));
    }
    let me = catalog.member(node.node_id).cloned().ok_or(RecoverError::NoCatalog(node.node_id))?;

    let mut metas: BTreeMap<GroupId, Option<LogMeta>> =
        catalog.logs().map(|log| (log.group, Some(log.clone()))).collect();
    for group in node.groups.keys() {
        // The replica of a purged log is dropped by the next start.
        if *group != GroupId::CATALOG && !catalog.is_purged_group(*group) {
            metas.entry(*group).or_insert(None);
        }
    }
    let mut logs = Vec::new();
    for (group, meta) in metas {
        let found = match node.groups.get(&group) {
            Some(replica) => look_at(data_dir, group, *replica, damage.remove(&group).unwrap_or_default())?,
            None => Found::Nothing,
        };
        let found = match (found, &meta) {
            (Found::Copy(copy), Some(log)) => {
                let has_left = log.node_of(copy.replica).is_none();
                Found::Copy(Box::new(LogCopy { has_left, ..*copy }))
            }
            (found, _) => found,
        };
        let name = meta.as_ref().map(|log| log.name.clone()).or_else(|| free_name(&catalog, group));
        logs.extend(name.map(|name| LogSurvey { group, name, meta, found }));
    }
    Ok(Survey { node, cluster_id, me, catalog, catalog_index: index, catalog_copy, logs, report })
}

/// Returns the damage of each log. Damage to anything else is an error.
fn by_group(data_dir: &DataDir, report: &Report) -> Result<BTreeMap<GroupId, Vec<Finding>>, RecoverError> {
    let mut found: BTreeMap<GroupId, Vec<Finding>> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| finding.severity >= Severity::Format) {
        match group_of(data_dir, &finding.file).filter(|group| *group != GroupId::CATALOG) {
            Some(group) => found.entry(group).or_default().push(finding.clone()),
            None => return Err(RecoverError::Damaged { finding: Box::new(finding.clone()) }),
        }
    }
    Ok(found)
}

/// The group to whose directory a path belongs.
fn group_of(data_dir: &DataDir, path: &Path) -> Option<GroupId> {
    let name = path.strip_prefix(data_dir.groups_dir()).ok()?.components().next()?;
    name.as_os_str().to_str()?.parse().ok().map(GroupId)
}

/// Returns the catalog of a stopped node, with every command that the node has, committed or not.
///
/// # Errors
/// [`RecoverError`] if the directory or the catalog can't be read.
pub fn catalog_of(disk: &Disk, path: &Path) -> Result<Catalog, RecoverError> {
    let data_dir = DataDir::look(disk, path)?;
    let node = data_dir.check().and_then(|()| data_dir.load())?;
    let node = node.ok_or_else(|| RecoverError::Blank(path.to_owned()))?;
    Ok(read_catalog(&data_dir, ReplicaId::of_node(node.node_id))?.0)
}

/// Reads the catalog: its snapshot, and all commands after it.
///
/// Those after the commit index may have been acknowledged, too. If the snapshot is ahead of the commit index, they may
/// be of a leader that was replaced: then they were perhaps never acknowledged, and those that do not fit have no effect.
fn read_catalog(data_dir: &DataDir, own: ReplicaId) -> Result<(Catalog, LogIndex, LogCopy), RecoverError> {
    let (disk, group) = (data_dir.disk(), GroupId::CATALOG);
    let replica = StoppedReplica::read(disk, &data_dir.groups_dir(), group, Purpose::Look)?;
    let facts = replica.facts()?;
    if facts.is_blank() {
        return Err(RecoverError::NoCatalog(NodeId(own.0)));
    }
    let snapshot = data_dir.load_catalog()?;
    data_dir.check_catalog(snapshot.as_ref(), &facts.base)?;
    let included = snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.index);
    let mut catalog = match &snapshot {
        Some(snapshot) => Catalog::decode(&snapshot.bytes)?,
        None => Catalog::default(),
    };
    replica.visit(disk, included, |kind, header, records| -> Result<(), RecoverError> {
        if kind == EntryKind::Records {
            for record in payload::records(records) {
                let command = Command::of_record(record.map_err(StorageError::from)?)?;
                catalog.apply(&command, header.append_time_us);
            }
        }
        Ok(())
    })?;
    let index = included.max(facts.last.index);
    Ok((catalog, index, copy_of(data_dir, group, own, &replica, facts, Vec::new())?))
}

fn look_at(
    data_dir: &DataDir,
    group: GroupId,
    replica: ReplicaId,
    damage: Vec<Finding>,
) -> Result<Found, RecoverError> {
    let refused = |error: StorageError| match error {
        StorageError::Damaged { file, position, what } => {
            Ok(Found::Refused(format!("{} is damaged at byte {position}: {what}", file.display())))
        }
        error if error.is_damage() || error.is_unreadable() => Ok(Found::Refused(error.to_string())),
        error => Err(error.into()),
    };
    let stopped = match StoppedReplica::read(data_dir.disk(), &data_dir.groups_dir(), group, Purpose::Look) {
        Ok(stopped) => stopped,
        Err(error) => return refused(error),
    };
    let facts = match stopped.facts() {
        Ok(facts) if facts.is_blank() => return Ok(Found::Blank),
        Ok(facts) => facts,
        Err(error) => return refused(error),
    };
    match copy_of(data_dir, group, replica, &stopped, facts, damage) {
        Ok(copy) => Ok(Found::Copy(Box::new(copy))),
        Err(RecoverError::Storage(error)) => refused(error),
        Err(error) => Err(error),
    }
}

fn copy_of(
    data_dir: &DataDir,
    group: GroupId,
    replica: ReplicaId,
    stopped: &StoppedReplica,
    facts: ReplicaFacts,
    damage: Vec<Finding>,
) -> Result<LogCopy, RecoverError> {
    let committed_offset = stopped.offset_after(data_dir.disk(), facts.committed)?;
    let mut confs = vec![facts.conf_state.clone()];
    // A start reads these entries, too: if one of them can't be read, the node does not start.
    stopped.visit(data_dir.disk(), facts.applied, |kind, header, change| -> Result<(), RecoverError> {
        if kind == EntryKind::ConfChange && header.index > facts.conf_index {
            let change = ConfChange::decode(change).map_err(|_| RecoverError::ConfChange(group))?;
            let next = after(&confs[confs.len() - 1], change);
            confs.push(next);
        }
        Ok(())
    })?;
    let mut last_change = None;
    let scanned =
        stopped.visit(data_dir.disk(), facts.base.index, |kind, header, change| -> Result<(), RecoverError> {
            if kind == EntryKind::ConfChange && header.index <= facts.conf_index {
                last_change = Some(ConfChange::decode(change).map_err(|_| RecoverError::ConfChange(group))?);
            }
            Ok(())
        });
    let conf_before = match (scanned, last_change) {
        (Ok(()), Some(change)) => Some(before(&confs[0], change)),
        (Ok(()), None) if facts.base.index <= Base::FIRST => Some(confs[0].clone()),
        // Whatever the change was: two voters need both, and no other one can have been the sole voter before.
        _ if confs[0].voters == [replica] => Some(confs[0].clone()),
        (Ok(()), None) | (Err(_), _) => None,
    };
    Ok(LogCopy { replica, facts, committed_offset, confs, conf_before, damage, has_left: false })
}

/// The conf state before a change. A replica that was removed counts as a voter, which it may have been.
fn before(conf: &ConfState, change: ConfChange) -> ConfState {
    let without = |ids: &[ReplicaId]| ids.iter().copied().filter(|id| *id != change.replica).collect::<Vec<_>>();
    let (mut voters, mut learners) = (conf.voters.clone(), conf.learners.clone());
    match change.kind {
        ConfChangeKind::AddVoter => voters = without(&voters),
        ConfChangeKind::AddLearner => learners = without(&learners),
        ConfChangeKind::Remove => voters.push(change.replica),
    }
    ConfState { voters, learners }
}

/// The conf state after a change.
fn after(conf: &ConfState, change: ConfChange) -> ConfState {
    let without = |ids: &[ReplicaId]| ids.iter().copied().filter(|id| *id != change.replica).collect::<Vec<_>>();
    let (mut voters, mut learners) = (without(&conf.voters), without(&conf.learners));
    match change.kind {
        ConfChangeKind::AddVoter => voters.push(change.replica),
        ConfChangeKind::AddLearner => learners.push(change.replica),
        ConfChangeKind::Remove => {}
    }
    ConfState { voters, learners }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader counts the voters of before a change until it has applied the change.
    #[test]
    fn the_conf_state_before_a_change_has_all_its_voters() {
        let ids = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect::<Vec<_>>();
        let conf = ConfState { voters: ids(&[1, 2, 3]), learners: ids(&[4]) };
        for (kind, replica, expected) in [
            (ConfChangeKind::Remove, 2, [1, 2, 3]),
            (ConfChangeKind::AddVoter, 4, [1, 2, 3]),
            (ConfChangeKind::AddLearner, 5, [1, 2, 3]),
        ] {
            let change = ConfChange { kind, replica: ReplicaId(replica) };
            let mut voters = before(&after(&conf, change), change).voters;
            voters.sort_unstable();
            assert_eq!(voters, ids(&expected), "{change:?}");
        }
    }
}
