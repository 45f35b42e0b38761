//! What asking for admission can come to.

use std::fmt;

use crate::catalog::Member;
use crate::types::ClusterId;

/// This node is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The cluster's id, to be stored.
    pub cluster_id: ClusterId,
    /// Every member as of the admission, this node among them.
    pub members: Vec<Member>,
}

/// A cluster that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub cluster_id: ClusterId,
    /// Where it answered.
    pub addr: String,
    /// Its members.
    pub members: Vec<Member>,
}

/// Why this node is not admitted and never will be as it is. What passes by itself (nobody answers, no leader) is not
/// here: membership goes on asking and says in the log what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// Another member has this node's name.
    NameTaken(String),
    /// This node was removed from the cluster.
    Removed(String),
    /// The cluster speaks another version of the peers' protocol.
    ProtocolVersion(String),
    /// The node stopped while it was waiting.
    Stopped,
}

impl fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdmissionError::NameTaken(text) | AdmissionError::Removed(text) | AdmissionError::ProtocolVersion(text) => {
                f.write_str(text)
            }
            AdmissionError::Stopped => f.write_str("stopped while waiting to be admitted"),
        }
    }
}

impl std::error::Error for AdmissionError {}
