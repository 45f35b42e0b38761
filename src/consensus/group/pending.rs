//! Requests that wait for entries, and the type of their answers. A proposal waits until its entry is applied. A
//! rejection that depends on the end of the log waits until that end is committed.
//!
//! A proposal is identified by the term and the index of its entry. It is answered exactly once:
//!
//! - with success, when its entry is applied;
//! - with "not appended", when an entry of another term is applied at its index, or an entry of a later term at a
//!   lower index;
//! - with "outcome unknown", when neither happens before its deadline.
//!
//! The number of waiting requests is bounded by raft's limit on uncommitted bytes, by the inbox, and by the limit on
//! open calls.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::consensus::faults::{Fault, broken};
use crate::consensus::handle::{Appended, ProposeError, ReadIndexError};
use crate::reply::ReplySender;
use crate::types::{LogIndex, Term};

/// A request without a deadline fails after this time.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

pub type AppendReply = ReplySender<Result<Appended, ProposeError>>;
pub type ReadReply = ReplySender<Result<LogIndex, ReadIndexError>>;

/// An answer to a request. The executor sends it after it has performed the writes and advanced the watermark that
/// the answer depends on.
#[derive(Debug)]
pub enum Answer {
    Append(AppendReply, Result<Appended, ProposeError>),
    Read(ReadReply, Result<LogIndex, ReadIndexError>),
}

impl Answer {
    pub fn send(self) {
        match self {
            Answer::Append(reply, result) => reply.send(result),
            Answer::Read(reply, result) => reply.send(result),
        }
    }
}

struct PendingProposal {
    appended: Appended,
    deadline: Instant,
    reply: AppendReply,
}

impl PendingProposal {
    fn answer(self, result: Result<(), ProposeError>) -> Answer {
        Answer::Append(self.reply, result.map(|()| self.appended))
    }
}

/// The rejection of a proposal that did not match the end of the log. It is valid only if the entry that was last at
/// that time is committed. Otherwise a partitioned leader could report a next offset whose records another leader has
/// replaced.
#[derive(Debug)]
pub struct HeldRefusal {
    /// Why the proposal is rejected.
    pub error: ProposeError,
    /// The leader's last index at that time.
    pub last_index: LogIndex,
    /// The term of that entry.
    pub last_term: Term,
    /// When it passes, the answer is [`ProposeError::DeadlinePassed`]: nothing was proposed.
    pub deadline: Instant,
    /// Where the answer is sent.
    pub reply: AppendReply,
}

impl HeldRefusal {
    /// Answers the proposal with `error`.
    pub fn answer(self, error: ProposeError) -> Answer {
        Answer::Append(self.reply, Err(error))
    }
}

/// The answer to a proposal that was perhaps appended.
fn unknown() -> ProposeError {
    if broken(Fault::UnknownTakenForRefused) { ProposeError::Dropped } else { ProposeError::OutcomeUnknown }
}

/// The unanswered proposals of a group.
#[derive(Default)]
pub struct Pending {
    by_index: BTreeMap<LogIndex, PendingProposal>,
    refusals: BTreeMap<LogIndex, Vec<HeldRefusal>>,
    /// Retries of proposals whose entries are not applied yet.
    retries: BTreeMap<LogIndex, Vec<PendingProposal>>,
    /// The term of the last applied entry.
    applied_term: Term,
}

impl Pending {
    /// Returns true if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.by_index.is_empty() && self.refusals.is_empty() && self.retries.is_empty()
    }

    /// Returns the number of proposals that wait for their entries.
    pub fn unanswered(&self) -> usize {
        self.by_index.len()
    }

    /// Adds a proposal that raft has accepted.
    pub fn insert(&mut self, appended: Appended, deadline: Instant, reply: AppendReply, out: &mut Vec<Answer>) {
        let proposed = PendingProposal { appended, deadline, reply };
        if let Some(replaced) = self.by_index.insert(appended.index, proposed) {
            // The entry of a newer term replaces the older entry at this index, which was truncated.
            out.push(Answer::Append(replaced.reply, Err(unknown())));
        }
    }

    /// Adds a retry of a proposal whose entry this leader has appended before. It is answered as the first one.
    pub fn join(
        &mut self,
        appended: Appended,
        applied: LogIndex,
        deadline: Instant,
        reply: AppendReply,
        out: &mut Vec<Answer>,
    ) {
        let retry = PendingProposal { appended, deadline, reply };
        if appended.index <= applied {
            out.push(retry.answer(Ok(())));
        } else {
            self.retries.entry(appended.index).or_default().push(retry);
        }
    }

    /// Removes the proposals and the retries for which `is_over` returns true, with the index of their entries.
    fn take_if(
        &mut self,
        is_over: impl Fn(LogIndex, &PendingProposal) -> bool,
    ) -> impl Iterator<Item = (LogIndex, PendingProposal)> {
        let mut over: Vec<_> = self.by_index.extract_if(.., |at, proposed| is_over(*at, proposed)).collect();
        for (at, retries) in &mut self.retries {
            over.extend(retries.extract_if(.., |retry| is_over(*at, retry)).map(|retry| (*at, retry)));
        }
        self.retries.retain(|_, retries| !retries.is_empty());
        over.into_iter()
    }

    /// Holds a rejection until the entry that it depends on is applied.
    pub fn refuse(&mut self, refusal: HeldRefusal, applied: LogIndex, out: &mut Vec<Answer>) {
        if refusal.last_index <= applied {
            let error = refusal.error;
            out.push(refusal.answer(error));
        } else {
            self.refusals.entry(refusal.last_index).or_default().push(refusal);
        }
    }

    /// Answers held rejections with `error`, because this node can no longer learn whether they are valid. The
    /// proposals were not appended in any case.
    pub fn withdraw_refusals(&mut self, error: ProposeError, out: &mut Vec<Answer>) {
        out.extend(std::mem::take(&mut self.refusals).into_values().flatten().map(|r| r.answer(error)));
    }

    /// Answers the requests that waited for the entry at `index`, which is applied now.
    pub fn applied(&mut self, index: LogIndex, term: Term, out: &mut Vec<Answer>) {
        for refusal in self.refusals.remove(&index).into_iter().flatten() {
            let error = if refusal.last_term == term { refusal.error } else { ProposeError::Dropped };
            out.push(refusal.answer(error));
        }
        let retries = self.retries.remove(&index).into_iter().flatten();
        for proposed in self.by_index.remove(&index).into_iter().chain(retries) {
            let is_there = proposed.appended.term == term || broken(Fault::AnsweredByIndex);
            out.push(proposed.answer(if is_there { Ok(()) } else { Err(ProposeError::Dropped) }));
        }
        self.overtaken(index, term, out);
    }

    /// Answers the proposals of earlier terms, when the first entry of a new term is applied. Terms never decrease
    /// within a log, so above `index` no entry of an earlier term can follow.
    fn overtaken(&mut self, index: LogIndex, term: Term, out: &mut Vec<Answer>) {
        if std::mem::replace(&mut self.applied_term, term) >= term {
            return;
        }
        for (at, proposed) in self.take_if(|_, proposed| proposed.appended.term < term) {
            let error = if at > index { ProposeError::Dropped } else { ProposeError::OutcomeUnknown };
            out.push(proposed.answer(Err(error)));
        }
    }

    /// Called when a snapshot has replaced the entries up to `index`. This node will not see them, so the outcome of
    /// their proposals is unknown.
    pub fn skipped(&mut self, index: LogIndex, out: &mut Vec<Answer>) {
        self.withdraw_refusals(ProposeError::Dropped, out);
        let skipped = self.take_if(|at, _| at <= index);
        out.extend(skipped.map(|(_, proposed)| proposed.answer(Err(unknown()))));
    }

    /// Limits the deadlines of all proposals to `until`.
    pub fn wait_at_most(&mut self, until: Instant) {
        let retries = self.retries.values_mut().flatten();
        for proposed in self.by_index.values_mut().chain(retries) {
            proposed.deadline = proposed.deadline.min(until);
        }
    }

    /// Answers the requests whose deadline has passed.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Answer>) {
        let expired = self.take_if(|_, proposed| proposed.deadline <= now);
        out.extend(expired.map(|(_, proposed)| proposed.answer(Err(unknown()))));
        for refusals in self.refusals.values_mut() {
            let expired = refusals.extract_if(.., |r| r.deadline <= now);
            out.extend(expired.map(|r| r.answer(ProposeError::DeadlinePassed)));
        }
        self.refusals.retain(|_, refusals| !refusals.is_empty());
    }

    /// Answers all requests. The outcome of the proposals is unknown.
    pub fn fail_all(&mut self, out: &mut Vec<Answer>) {
        self.withdraw_refusals(ProposeError::Dropped, out);
        let all = self.take_if(|_, _| true);
        out.extend(all.map(|(_, proposed)| proposed.answer(Err(unknown()))));
    }
}
