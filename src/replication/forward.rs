//! Work for another node, before it is sent.
//!
//! A [`Forward`] waits in the peer's mailbox. Until it is taken from there, it was certainly not appended. Its caller
//! is answered exactly once: in this file if the work is not sent, by `unanswered.rs` if it is.

use std::time::Instant;

use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::reply::ReplySender;
use crate::types::{GroupId, LogIndex};

/// Work for another node.
#[derive(Debug)]
pub enum Work {
    /// Append an entry to a log.
    Propose(Proposal, ReplySender<Result<Appended, ProposeError>>),
    /// Confirm the position up to which a read is current.
    ReadIndex(GroupId, Option<Instant>, ReplySender<Result<LogIndex, ReadIndexError>>),
}

/// Work that is not sent yet.
#[derive(Debug)]
pub struct Forward {
    /// The principal of the client's request.
    pub principal: String,
    /// The work, with the reply to its caller.
    pub work: Work,
}

/// Why work was not sent. It was certainly not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The peer can't be reached.
    Unreachable,
    /// The mailbox is full.
    QueueFull,
    /// Its deadline passed while it waited.
    DeadlinePassed,
    /// This node is stopping.
    Stopping,
}

impl Forward {
    /// Returns its size in the mailbox's budget.
    pub fn bytes(&self) -> usize {
        let payload = match &self.work {
            Work::Propose(proposal, _) => proposal.payload.len(),
            Work::ReadIndex(..) => 0,
        };
        payload + self.principal.len() + 64
    }

    /// Returns the group, if the work is a proposal.
    pub fn proposes_to(&self) -> Option<GroupId> {
        match &self.work {
            Work::Propose(proposal, _) => Some(proposal.group),
            Work::ReadIndex(..) => None,
        }
    }

    /// Returns true if the caller no longer waits for the answer.
    pub fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Propose(_, reply) => reply.is_abandoned(),
            Work::ReadIndex(_, _, reply) => reply.is_abandoned(),
        }
    }

    /// Returns the time after which it must not be proposed.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.work {
            Work::Propose(proposal, _) => proposal.deadline,
            Work::ReadIndex(_, deadline, _) => *deadline,
        }
    }

    /// Tells the caller that the work was not sent.
    pub fn refuse(self, why: NotSent) {
        match self.work {
            Work::Propose(_, reply) => reply.send(Err(match why {
                NotSent::Unreachable => ProposeError::Dropped,
                NotSent::QueueFull => ProposeError::QueueFull,
                NotSent::DeadlinePassed => ProposeError::DeadlinePassed,
                NotSent::Stopping => ProposeError::Stopping,
            })),
            Work::ReadIndex(_, _, reply) => reply.send(Err(match why {
                NotSent::Unreachable | NotSent::DeadlinePassed => ReadIndexError::Unconfirmed,
                NotSent::QueueFull => ReadIndexError::QueueFull,
                NotSent::Stopping => ReadIndexError::Stopping,
            })),
        }
    }
}
