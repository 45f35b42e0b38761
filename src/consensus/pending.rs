//! Who waits for an answer of a group: proposals until their entry is applied, reads until a majority confirmed the leader.
//!
//! A proposal is remembered by (term, index). When that very entry is applied it is answered; when another takes its
//! place, it is known not to be appended; when neither is seen before its deadline, the outcome is unknown. Each is
//! answered exactly once. Bounded by the uncommitted bytes that raft takes and by the inbox.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::handle::{Appended, ProposeError, ReadIndexError};
use crate::reply::ReplySender;
use crate::types::{LogIndex, Term};

/// A request without a deadline is given up after this time.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

type AppendReply = ReplySender<Result<Appended, ProposeError>>;
type ReadReply = ReplySender<Result<LogIndex, ReadIndexError>>;

/// An answer on its way. The driver sends it once the writes and the watermark it speaks of are done.
#[derive(Debug)]
pub enum Answer {
    /// To a proposal.
    Append(AppendReply, Result<Appended, ProposeError>),
    /// To a read index.
    Read(ReadReply, Result<LogIndex, ReadIndexError>),
}

impl Answer {
    /// Answers.
    pub fn send(self) {
        match self {
            Answer::Append(reply, result) => reply.send(result),
            Answer::Read(reply, result) => reply.send(result),
        }
    }
}

struct Proposed {
    appended: Appended,
    deadline: Instant,
    reply: AppendReply,
}

/// The proposals of a group that are not answered yet.
#[derive(Default)]
pub struct Pending {
    by_index: BTreeMap<LogIndex, Proposed>,
}

impl Pending {
    /// Remembers a proposal that raft took.
    pub fn insert(&mut self, appended: Appended, deadline: Instant, reply: AppendReply, out: &mut Vec<Answer>) {
        let proposed = Proposed { appended, deadline, reply };
        if let Some(replaced) = self.by_index.insert(appended.index, proposed) {
            // A newer term's entry stands where this one stood: the old one is gone from the leader's log.
            out.push(Answer::Append(replaced.reply, Err(ProposeError::OutcomeUnknown)));
        }
    }

    /// The entry at `index` of `term` is applied.
    pub fn applied(&mut self, index: LogIndex, term: Term, out: &mut Vec<Answer>) {
        if let Some(proposed) = self.by_index.remove(&index) {
            let result =
                if proposed.appended.term == term { Ok(proposed.appended) } else { Err(ProposeError::Dropped) };
            out.push(Answer::Append(proposed.reply, result));
        }
    }

    /// A marker skipped everything up to `index`: nobody here will see those entries.
    pub fn skipped(&mut self, index: LogIndex, out: &mut Vec<Answer>) {
        let rest = self.by_index.split_off(&index.next());
        let skipped = std::mem::replace(&mut self.by_index, rest);
        out.extend(skipped.into_values().map(|p| Answer::Append(p.reply, Err(ProposeError::OutcomeUnknown))));
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Answer>) {
        let expired = self.by_index.extract_if(.., |_, p| p.deadline <= now);
        out.extend(expired.map(|(_, p)| Answer::Append(p.reply, Err(ProposeError::OutcomeUnknown))));
    }

    /// Gives up everything.
    pub fn fail_all(&mut self, out: &mut Vec<Answer>) {
        let all = std::mem::take(&mut self.by_index);
        out.extend(all.into_values().map(|p| Answer::Append(p.reply, Err(ProposeError::OutcomeUnknown))));
    }
}

struct Read {
    reply: ReadReply,
    deadline: Instant,
    /// The round of heartbeats that must confirm it; none is under way yet.
    round: Option<u64>,
}

/// The reads of a leader that are not confirmed yet. All that wait when a round starts share it.
#[derive(Default)]
pub struct Reads {
    waiting: Vec<Read>,
    rounds: u64,
}

impl Reads {
    /// Remembers a read.
    pub fn insert(&mut self, deadline: Instant, reply: ReadReply) {
        self.waiting.push(Read { reply, deadline, round: None });
    }

    /// The context of a new round, if somebody waits for one.
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

    /// A majority confirmed the round of `context`, and with it every earlier one, at `index`.
    pub fn confirmed(&mut self, context: &[u8], index: LogIndex, out: &mut Vec<Answer>) {
        let Ok(round) = context.try_into().map(u64::from_le_bytes) else { return };
        let confirmed = self.waiting.extract_if(.., |r| r.round.is_some_and(|own| own <= round));
        out.extend(confirmed.map(|r| Answer::Read(r.reply, Ok(index))));
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Answer>) {
        let expired = self.waiting.extract_if(.., |r| r.deadline <= now);
        out.extend(expired.map(|r| Answer::Read(r.reply, Err(ReadIndexError::Unconfirmed))));
    }

    /// Gives up everything.
    pub fn fail_all(&mut self, error: ReadIndexError, out: &mut Vec<Answer>) {
        out.extend(self.waiting.drain(..).map(|r| Answer::Read(r.reply, Err(error))));
    }
}
