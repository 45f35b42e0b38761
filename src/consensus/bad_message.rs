//! The error for a peer's message that this node must not process.

use crate::catalog::BadCommand;
use crate::codes::UnknownCode;
use crate::feature_level::{FeatureLevel, FeatureRange};
use crate::log_state::BadLogState;

/// Why a peer's message is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// No version sends it.
    #[error("{0}")]
    Malformed(&'static str),
    /// A newer version may send it.
    #[error(transparent)]
    Unknown(#[from] UnknownCode<u32>),
    /// This version can't decode the log state of a snapshot.
    #[error(transparent)]
    LogState(#[from] BadLogState),
    /// An entry of the catalog that this version can't apply.
    #[error("{0}; if a newer version runs there, start it here too")]
    Command(#[from] BadCommand),
    /// A raise of the feature level beyond what this version supports.
    #[error(
        "the cluster is raised to feature level {level}, and this node supports {supported}: start a newer version"
    )]
    FeatureLevel {
        /// The new level.
        level: FeatureLevel,
        /// The levels of this version.
        supported: FeatureRange,
    },
}
