//! This node's replicas that could not be opened because their files are damaged.
//!
//! Such a replica takes no part in its group: it is not started, so it sends no vote and no acknowledgement, and nothing
//! in its files is changed. The node serves everything else, and relays requests for the log to other nodes. The leader
//! of the group has the replica replaced by a new one, with another id. The damaged files are kept until the new replica
//! is whole.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::catalog::Catalog;
use crate::consensus::error::HostError;
use crate::consensus::groups::Groups;
use crate::consensus::handle::ProposeError;
use crate::storage::node::DataDir;
use crate::storage::readable::ReadableLog;
use crate::storage::replicas::aside_dirs;
use crate::storage::space::SpaceState;
use crate::types::{GroupId, NodeId, ReplicaId};
use crate::writer::WriterHandle;

/// The files of at most this many damaged replicas are kept.
const ASIDE_MAX: usize = 8;

/// The replicas that could not be opened, and the directories of those that were given up.
#[derive(Default)]
pub struct LostReplicas {
    replicas: BTreeMap<GroupId, (ReplicaId, Option<ReadableLog>)>,
    aside: BTreeMap<(GroupId, ReplicaId), PathBuf>,
}

impl LostReplicas {
    /// Reads which directories are left from earlier replicas.
    ///
    /// # Errors
    /// If the directory of the groups can't be read.
    pub fn new(data_dir: &DataDir) -> Result<LostReplicas, HostError> {
        Ok(LostReplicas { replicas: BTreeMap::new(), aside: aside_dirs(data_dir)? })
    }

    /// Records that the replica of a group could not be opened, and what can still be read of it.
    pub fn insert(&mut self, group: GroupId, replica: ReplicaId, readable: Option<ReadableLog>) {
        self.replicas.insert(group, (replica, readable));
    }

    /// Returns what can be read of a replica that could not be opened.
    pub fn readable(&self, group: GroupId) -> Option<&ReadableLog> {
        self.replicas.get(&group)?.1.as_ref()
    }

    /// Returns the answer to a proposal for a group of which this node has no replica that takes part.
    pub fn refusal(&self, group: GroupId) -> ProposeError {
        if self.contains(group) { ProposeError::NotLeader { leader: None } } else { ProposeError::NoSuchGroup }
    }

    /// Returns the replica of a group, if it could not be opened.
    pub fn get(&self, group: GroupId) -> Option<ReplicaId> {
        self.replicas.get(&group).map(|(replica, _)| *replica)
    }

    /// Iterates over the replicas that could not be opened.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, ReplicaId)> {
        self.replicas.iter().map(|(group, (replica, _))| (*group, *replica))
    }

    /// Returns true if the replica of the group could not be opened.
    pub fn contains(&self, group: GroupId) -> bool {
        self.replicas.contains_key(&group)
    }

    /// Called when this node has dropped its replica of a group.
    ///
    /// # Errors
    /// If the directory of the groups can't be read.
    pub fn dropped(&mut self, data_dir: &DataDir, group: GroupId, writer: &WriterHandle) -> Result<(), HostError> {
        self.replicas.remove(&group);
        let aside = aside_dirs(data_dir)?;
        for ((group, replica), path) in aside.iter().filter(|(id, _)| !self.aside.contains_key(id)) {
            log::warn!("group {group}: the files of the damaged replica {replica} are kept in {}", path.display());
        }
        self.aside = aside;
        while self.aside.len() > ASIDE_MAX
            && let Some(oldest) = self.aside.keys().min_by_key(|(_, replica)| *replica).copied()
        {
            self.delete(oldest, writer);
        }
        Ok(())
    }

    /// Deletes the files of damaged replicas whose successors are whole, or all of them if the disk is almost full.
    pub fn delete_replaced(
        &mut self,
        groups: &Groups,
        catalog: &Catalog,
        me: NodeId,
        space: SpaceState,
        writer: &WriterHandle,
    ) {
        let is_replaced = |group: GroupId| match (groups.get(&group), catalog.log(group)) {
            (Some(replica), _) => replica.group.votes(replica.group.me()) && !replica.group.is_damaged(),
            (None, None) => catalog.is_purged_group(group),
            (None, Some(log)) => !log.is_on(me) && log.replicas.len() >= catalog.settings_of(log).replicas as usize,
        };
        let is_over = |(group, _): &&(GroupId, ReplicaId)| {
            space != SpaceState::Enough || !self.replicas.contains_key(group) && is_replaced(*group)
        };
        let over: Vec<_> = self.aside.keys().filter(is_over).copied().collect();
        over.into_iter().for_each(|id| self.delete(id, writer));
    }

    fn delete(&mut self, id: (GroupId, ReplicaId), writer: &WriterHandle) {
        if let Some(path) = self.aside.remove(&id) {
            log::info!("group {}: deleting {}", id.0, path.display());
            writer.remove_directory(path);
        }
    }
}
