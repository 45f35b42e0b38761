//! The errors that stop consensus or prevent its start.

use crate::catalog::BadCommand;
use crate::feature_level::{FeatureLevel, FeatureRange};
use crate::storage::log::StorageError;
use crate::storage::reader::ReadError;
use crate::types::GroupId;

/// A group can't be opened, or its log can't be written.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The log or the data directory can't be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An entry that is needed for the start can't be read.
    #[error("group {0}: the entries that were not applied yet can't be read: {1}")]
    Read(GroupId, ReadError),
    /// The recovered state is impossible.
    #[error("group {0}: {1}")]
    State(GroupId, String),
    /// The catalog contains a command that this version can't apply.
    #[error("{0}; start a newer version of the program")]
    Catalog(#[source] BadCommand),
    /// The cluster uses a feature level that this version does not support.
    #[error("the cluster is at feature level {level}, and this version supports {range}; start {} version of the program", if *.level > .range.max() { "a newer" } else { "an older" })]
    FeatureLevel {
        /// The level of the cluster.
        level: FeatureLevel,
        /// The levels of this version.
        range: FeatureRange,
    },
    /// A turn of the driver has panicked on another thread, which has reported it.
    #[error("consensus has panicked on another thread")]
    Panicked,
    /// The consensus thread can't be created.
    #[error("can't create the consensus thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl HostError {
    /// Returns true if a restart of the same version can't help.
    pub fn is_config(&self) -> bool {
        match self {
            HostError::Storage(error) => error.is_config(),
            HostError::Catalog(_) | HostError::FeatureLevel { .. } | HostError::Read(_, ReadError::NewerFrame(_)) => {
                true
            }
            HostError::Read(..) | HostError::State(..) | HostError::Panicked | HostError::Thread(_) => false,
        }
    }

    /// Returns true if only the files of one replica are damaged, or can't be read.
    pub fn is_damage_of_replica(&self) -> bool {
        let is_unreadable = match self {
            HostError::Storage(error) => error.is_unreadable(),
            HostError::Read(_, error) => matches!(error, ReadError::Io(_)),
            HostError::State(..)
            | HostError::Catalog(_)
            | HostError::FeatureLevel { .. }
            | HostError::Panicked
            | HostError::Thread(_) => false,
        };
        self.is_damage() || is_unreadable
    }

    /// Returns what is damaged, without the next step.
    pub fn damage(&self) -> String {
        match self {
            HostError::Storage(error) => error.damage(),
            HostError::Read(_, error) => format!("the entries that were not applied yet can't be read: {error}"),
            HostError::State(_, what) => what.clone(),
            HostError::Catalog(_) | HostError::FeatureLevel { .. } | HostError::Panicked | HostError::Thread(_) => {
                self.to_string()
            }
        }
    }

    /// Returns true if the disk does not contain what was written to it.
    pub fn is_damage(&self) -> bool {
        match self {
            HostError::Storage(error) => error.is_damage(),
            HostError::Read(_, ReadError::Damaged(_)) | HostError::State(..) => true,
            HostError::Read(
                _,
                ReadError::NotCached
                | ReadError::Trimmed { .. }
                | ReadError::NewerFrame(_)
                | ReadError::Io(_)
                | ReadError::Shortage(_)
                | ReadError::Gone,
            )
            | HostError::Catalog(_)
            | HostError::FeatureLevel { .. }
            | HostError::Panicked
            | HostError::Thread(_) => false,
        }
    }
}
