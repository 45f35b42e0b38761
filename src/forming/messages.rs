//! What blank nodes send to each other, and what each stores.

use crate::types::{NodeId, NodeName};

/// A node that is not a member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlankNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The advertised address of its peer listener.
    pub addr: String,
    /// Its `bootstrap_expect`.
    pub expect: u32,
    /// A random number of its process.
    pub incarnation: u64,
}

/// A node shows itself to another one. Sent in each round to every address that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormMessage {
    /// The sender.
    pub from: BlankNode,
    /// Set if the receiver is the candidate of the sender.
    pub word: Option<Word>,
}

/// What a node says to its candidate. It is ignored by any other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The sender's pledge belongs to this candidate.
    Pledge {
        /// The candidate.
        to: NodeId,
        /// The candidate's incarnation. Another one must not count the pledge.
        incarnation: u64,
        /// The number of the pledge.
        epoch: u64,
    },
    /// The sender asks the candidate to confirm that the pledge is void.
    Withdraw {
        /// The candidate.
        to: NodeId,
        /// The number of the pledge.
        epoch: u64,
    },
}

/// The answer to a [`FormMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormAnswer {
    /// The node that answers.
    pub from: BlankNode,
    /// Pledges of the caller with this number and lower ones do not count at the node that answers. 0: none was
    /// withdrawn.
    pub void_up_to: u64,
}

/// What a blank node stores about its pledges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredPledge {
    /// The number of its last pledge. 0: it never had one.
    pub epoch: u64,
    /// Where the last pledge is; `None` once the candidate has confirmed the withdrawal.
    pub candidate: Option<Candidate>,
}

/// The node to which a pledge belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: NodeId,
    /// The address at which it was seen when the pledge was made.
    pub addr: String,
    /// True if the pledge is being withdrawn. It is not sent any more.
    pub is_withdrawing: bool,
}
