//! Checks of what is stored: `data verify` and `data dump` of a stopped node, and the scrub of a running one. Nothing
//! is changed.
//!
//! [`verify`] determines what a start would find, and whether every byte is what was written. It uses recovery's rules:
//! the same durable position, the same chain, the same distinction between a torn tail, which a start cuts off, and
//! damage, which it refuses. It also reads what a start does not read: every frame of every segment, the stamps of
//! every record, and the indexes. Recovery stops at the first damage; this reports all of it, and each damaged byte
//! range once. It takes the lock of the directory if the lock file exists, so that no node runs at the same time.
//!
//! - `report.rs`, `finding.rs`: what is reported.
//! - `files.rs` reads the manifest and the headers, as far as they can be used.
//! - `segment.rs` checks the frames of one segment.
//! - `gaps.rs` names the segments that are missing or can't be used.
//! - `group.rs` checks one group with them.
//! - [`dump`] prints the records of a stopped node's log.
//! - [`scrub`] periodically checks the synced frames of a running node's logs.

pub mod dump;
mod files;
mod finding;
mod gaps;
mod group;
mod report;
pub mod scrub;
mod segment;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use self::finding::{Finding, Severity, Unreadable};
use self::group::GroupCheck;
pub use self::report::{GroupReport, Report};
use self::segment::NoSink;
use crate::storage::error::StorageError;
use crate::storage::format::manifest::{MANIFEST, MANIFEST_BYTES_MAX, Manifest};
use crate::storage::format::recovery_file::RECOVERY_FILE;
use crate::storage::io::disk::Access;
use crate::storage::io::disk::Disk;
use crate::storage::io::group_files::{aside_dir, aside_of, group_dir, group_of, retired_dir, retired_of};
use crate::storage::io::node::DataDir;
use crate::storage::recover::roll_forward::decided;
use crate::storage::recover::unlisted::holds;
use crate::types::{GroupId, ReplicaId};

/// Checks a data directory.
///
/// # Errors
/// [`StorageError::InUse`], [`StorageError::ForeignDirectory`], or if the directory does not exist.
pub fn verify(disk: &Disk, path: &Path) -> Result<Report, StorageError> {
    verify_locked(&DataDir::look(disk, path)?)
}

/// Checks a data directory that the caller has locked.
///
/// # Errors
/// As [`verify`].
pub(crate) fn verify_locked(data_dir: &DataDir) -> Result<Report, StorageError> {
    let (disk, path) = (data_dir.disk(), data_dir.path());
    let mut report =
        Report { data_dir: path.to_owned(), node: None, groups: Vec::new(), findings: Vec::new(), more: 0 };
    if decided(data_dir).map_or(true, |decided| decided.is_some()) {
        let what = "a recovery of the directory was interrupted: `seriatim recover --apply` finishes it";
        report.add(Finding::new(Severity::Damage, &path.join(RECOVERY_FILE), 0, what));
    }
    match data_dir.check().and_then(|()| data_dir.load()) {
        Ok(node) => report.node = node,
        Err(error) => report.add_error(error)?,
    }
    // A member does not read its pledge.
    if report.node.as_ref().is_some_and(|node| node.cluster_id.is_none())
        && let Err(error) = data_dir.load_pledge()
    {
        report.add_error(error)?;
    }
    let groups_dir = data_dir.groups_dir();
    let names = match disk.list(&groups_dir) {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => {
            report.add_error(error)?;
            Vec::new()
        }
    };
    let there: BTreeSet<GroupId> = names.iter().filter_map(|name| group_of(name)).collect();
    let listed: BTreeSet<GroupId> = match &report.node {
        Some(node) => node.groups.keys().copied().collect(),
        None => there.clone(),
    };
    let retired: BTreeMap<GroupId, ReplicaId> = names.iter().filter_map(|name| retired_of(name)).collect();
    let aside: BTreeSet<(GroupId, ReplicaId)> = names.iter().filter_map(|name| aside_of(name)).collect();
    for group in &listed {
        let replica = report.node.as_ref().and_then(|node| node.groups.get(group));
        let is_aside = replica.is_some_and(|replica| aside.contains(&(*group, *replica)));
        if !there.contains(group) && replica.is_some() && (replica == retired.get(group) || is_aside) {
            let what = "this replica was given up before a crash: the next start removes it from node.toml";
            report.add(Finding::new(Severity::Note, &group_dir(&groups_dir, *group), 0, what));
            continue;
        }
        GroupCheck { disk, report: &mut report, group: *group, sink: &mut NoSink }
            .run(group_dir(&groups_dir, *group))?;
    }
    for group in there.difference(&listed) {
        let dir = group_dir(&groups_dir, *group);
        let (severity, what) = match holds(disk, &groups_dir, *group) {
            Ok(Some(what)) => {
                GroupCheck { disk, report: &mut report, group: *group, sink: &mut NoSink }.run(dir.clone())?;
                (Severity::Damage, format!("node.toml is an older copy: it does not list this group, but {what}"))
            }
            Err(error) if error.is_config() => {
                GroupCheck { disk, report: &mut report, group: *group, sink: &mut NoSink }.run(dir.clone())?;
                let what = "this group is not listed in node.toml, and only another version of the program can read it";
                (Severity::Format, what.to_owned())
            }
            Err(error) => return Err(error),
            Ok(None) => {
                let what = "this group is not listed in node.toml: it was created and never used; the node uses it, or creates it again";
                (Severity::Note, what.to_owned())
            }
        };
        report.add(Finding::new(severity, &dir, 0, what));
    }
    for (group, replica) in retired {
        let what = "a replica that this node gave up: the node deletes it after its next start";
        report.add(Finding::new(Severity::Note, &retired_dir(&groups_dir, group, replica), 0, what));
    }
    for (group, replica) in aside {
        let what = "a damaged replica that this node gave up: the node deletes it once its new replica is whole";
        report.add(Finding::new(Severity::Note, &aside_dir(&groups_dir, group, replica), 0, what));
    }
    check_catalog(data_dir, &mut report)?;
    Ok(report)
}

/// Checks the snapshot of the catalog, and that the catalog's log continues it.
fn check_catalog(data_dir: &DataDir, report: &mut Report) -> Result<(), StorageError> {
    let manifest = group_dir(&data_dir.groups_dir(), GroupId::CATALOG).join(MANIFEST);
    let loaded = data_dir.load_catalog().and_then(|catalog| {
        // What is wrong with the manifest is a finding of its own.
        let manifest = data_dir.disk().load(&manifest, MANIFEST_BYTES_MAX, Access::Blocking, Manifest::decode);
        let base = manifest.ok().flatten().map(|manifest| manifest.base);
        base.map_or(Ok(()), |base| data_dir.check_catalog(catalog.as_ref(), &base))
    });
    loaded.or_else(|error| report.add_error(error))
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod hidden;
#[cfg(test)]
mod newer;
#[cfg(test)]
mod state_files;
#[cfg(test)]
mod tests;
