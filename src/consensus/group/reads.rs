//! Requests that wait for a majority to confirm the leader: reads, and rejections that only a confirmed leader may
//! send.

use std::time::Instant;

use super::pending::{Answer, HeldRefusal, ReadReply};
use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::types::LogIndex;

enum ReadWaiter {
    Read(ReadReply),
    Refusal(HeldRefusal),
}

struct WaitingRead {
    waiter: ReadWaiter,
    deadline: Instant,
    /// The round of heartbeats that must confirm it; `None` until a round has started.
    round: Option<u64>,
}

impl WaitingRead {
    fn fail(self, error: ReadIndexError) -> Answer {
        match self.waiter {
            ReadWaiter::Read(reply) => Answer::Read(reply, Err(error)),
            ReadWaiter::Refusal(refusal) => refusal.answer(match error {
                ReadIndexError::NotLeader { leader } => ProposeError::NotLeader { leader },
                ReadIndexError::Unconfirmed => ProposeError::DeadlinePassed,
                ReadIndexError::QueueFull => ProposeError::QueueFull,
                ReadIndexError::NoSuchGroup => ProposeError::NoSuchGroup,
                ReadIndexError::Damaged => ProposeError::Damaged,
                ReadIndexError::Stopping => ProposeError::Stopping,
            }),
        }
    }
}

/// The waiting requests of a group. All requests that wait when a round starts share that round.
#[derive(Default)]
pub struct LeaderReads {
    waiting: Vec<WaitingRead>,
    rounds: u64,
}

impl LeaderReads {
    /// Returns true if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn insert(&mut self, deadline: Instant, reply: ReadReply) {
        self.waiting.push(WaitingRead { waiter: ReadWaiter::Read(reply), deadline, round: None });
    }

    /// Adds a rejection that is valid only if this node is still the leader.
    pub fn confirm_first(&mut self, refusal: HeldRefusal) {
        self.waiting.push(WaitingRead {
            deadline: refusal.deadline,
            waiter: ReadWaiter::Refusal(refusal),
            round: None,
        });
    }

    /// Starts a round if a request waits for one, and returns the round's context.
    pub fn start_round(&mut self) -> Option<Vec<u8>> {
        if self.waiting.iter().all(|r| r.round.is_some()) {
            return None;
        }
        self.rounds += 1;
        for read in self.waiting.iter_mut().filter(|r| r.round.is_none()) {
            read.round = Some(self.rounds);
        }
        Some(self.rounds.to_le_bytes().to_vec())
    }

    /// Called when a majority has confirmed the round of `context`, and thus every earlier round. Answers the reads
    /// with `index`, and returns the confirmed rejections.
    #[must_use]
    pub fn confirmed(&mut self, context: &[u8], index: LogIndex, out: &mut Vec<Answer>) -> Vec<HeldRefusal> {
        let mut refusals = Vec::new();
        let Ok(round) = context.try_into().map(u64::from_le_bytes) else { return refusals };
        for read in self.waiting.extract_if(.., |r| r.round.is_some_and(|own| own <= round)) {
            match read.waiter {
                ReadWaiter::Read(reply) => out.push(Answer::Read(reply, Ok(index))),
                ReadWaiter::Refusal(refusal) => refusals.push(refusal),
            }
        }
        refusals
    }

    /// Answers the requests whose deadline has passed.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Answer>) {
        let expired = self.waiting.extract_if(.., |r| r.deadline <= now);
        out.extend(expired.map(|r| r.fail(ReadIndexError::Unconfirmed)));
    }

    /// Answers all requests with `error`.
    pub fn fail_all(&mut self, error: ReadIndexError, out: &mut Vec<Answer>) {
        out.extend(self.waiting.drain(..).map(|r| r.fail(error)));
    }
}
