//! (being written)
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::error::StorageError;
use crate::types::{ClusterId, GroupId, NodeId, NodeName};
/// What `node.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// The node's id.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: NodeName,
    /// Its cluster; `None` until it is admitted or founds one.
    pub cluster_id: Option<ClusterId>,
    /// The groups that it carries.
    pub groups: Vec<GroupId>,
}
/// A data directory, locked.
pub struct DataDir;
impl DataDir {
    /// Opens and locks.
    pub fn open(_disk: &Disk, _path: &Path) -> Result<DataDir, StorageError> {
        todo!()
    }
    /// Where the groups are.
    pub fn groups_dir(&self) -> PathBuf {
        todo!()
    }
    /// Reads `node.toml`.
    pub fn load(&self) -> Result<Option<NodeFile>, StorageError> {
        todo!()
    }
    /// Replaces `node.toml`.
    pub fn store(&self, _node: &NodeFile) -> Result<(), StorageError> {
        todo!()
    }
}
