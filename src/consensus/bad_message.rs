//! The error for a peer's message that this node must not process.

use crate::catalog::BadCommand;
use crate::codes::UnknownCode;
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
}
