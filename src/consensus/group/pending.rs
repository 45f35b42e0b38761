//! Requests that wait for entries: proposals until their entry is applied, and rejections because of the log's end until that
//! end is committed. And the answers to them and to reads.
//!
//! A proposal is remembered by (term, index). When that very entry is applied it is answered; when another takes its
//! place, or one of a later term an earlier place, it is known not to be appended; when none of these is seen before its
//! deadline, the outcome is unknown. Each is answered exactly once. Bounded by the uncommitted bytes that raft takes, by the inbox, and by the limit of open calls.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::consensus::handle::{Appended, ProposeError, ReadIndexError};
use crate::reply::ReplySender;
use crate::types::{LogIndex, Term};

/// A request without a deadline is given up after this time.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

type AppendReply = ReplySender<Result<Appended, ProposeError>>;
pub type ReadReply = ReplySender<Result<LogIndex, ReadIndexError>>;

/// An answer on its way. The driver sends it once the writes and the watermark it speaks of are done.
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

/// A rejection of a proposal that is valid only if the leader's last entry, at the time of the rejection, is committed:
/// otherwise a leader that was cut off could report the offset of records that another leader has replaced.
#[derive(Debug)]
pub struct HeldRefusal {
    /// What is wrong with the proposal.
    pub error: ProposeError,
    /// The leader's last index at that time.
    pub last_index: LogIndex,
    /// The term of that entry.
    pub last_term: Term,
    /// At the deadline the answer is that nothing was proposed.
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

/// The proposals of a group that are not answered yet.
#[derive(Default)]
pub struct Pending {
    by_index: BTreeMap<LogIndex, PendingProposal>,
    refusals: BTreeMap<LogIndex, Vec<HeldRefusal>>,
    /// The term of the last applied entry.
    applied_term: Term,
}

impl Pending {
    /// Remembers a proposal that raft took.
    pub fn insert(&mut self, appended: Appended, deadline: Instant, reply: AppendReply, out: &mut Vec<Answer>) {
        let proposed = PendingProposal { appended, deadline, reply };
        if let Some(replaced) = self.by_index.insert(appended.index, proposed) {
            // An entry of a newer term has this index now: the old one has left the leader's log.
            out.push(Answer::Append(replaced.reply, Err(ProposeError::OutcomeUnknown)));
        }
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

    /// Answers held rejections with `error`, because it is not known any more whether they are valid: in either case the
    /// proposals were not appended.
    pub fn withdraw_refusals(&mut self, error: ProposeError, out: &mut Vec<Answer>) {
        out.extend(std::mem::take(&mut self.refusals).into_values().flatten().map(|r| r.answer(error)));
    }

    /// The entry at `index` of `term` is applied.
    pub fn applied(&mut self, index: LogIndex, term: Term, out: &mut Vec<Answer>) {
        for refusal in self.refusals.remove(&index).into_iter().flatten() {
            let error = if refusal.last_term == term { refusal.error } else { ProposeError::Dropped };
            out.push(refusal.answer(error));
        }
        if let Some(proposed) = self.by_index.remove(&index) {
            let result =
                if proposed.appended.term == term { Ok(proposed.appended) } else { Err(ProposeError::Dropped) };
            out.push(Answer::Append(proposed.reply, result));
        }
        self.overtaken(index, term, out);
    }

    /// Entries of an earlier term never follow one of `term` at `index`: what waits there was not appended.
    fn overtaken(&mut self, index: LogIndex, term: Term, out: &mut Vec<Answer>) {
        if std::mem::replace(&mut self.applied_term, term) >= term {
            return;
        }
        for (at, proposed) in self.by_index.extract_if(.., |_, proposed| proposed.appended.term < term) {
            let error = if at > index { ProposeError::Dropped } else { ProposeError::OutcomeUnknown };
            out.push(Answer::Append(proposed.reply, Err(error)));
        }
    }

    /// A snapshot skipped everything up to `index`: nobody here will see those entries.
    pub fn skipped(&mut self, index: LogIndex, out: &mut Vec<Answer>) {
        let rest = self.by_index.split_off(&index.next());
        let skipped = std::mem::replace(&mut self.by_index, rest);
        self.withdraw_refusals(ProposeError::Dropped, out);
        out.extend(skipped.into_values().map(|p| Answer::Append(p.reply, Err(ProposeError::OutcomeUnknown))));
    }

    /// Shortens the deadlines of proposals to `until`.
    pub fn wait_at_most(&mut self, until: Instant) {
        self.by_index.values_mut().for_each(|proposed| proposed.deadline = proposed.deadline.min(until));
    }

    /// Answers what has waited too long.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Answer>) {
        let expired = self.by_index.extract_if(.., |_, p| p.deadline <= now);
        out.extend(expired.map(|(_, p)| Answer::Append(p.reply, Err(ProposeError::OutcomeUnknown))));
        for refusals in self.refusals.values_mut() {
            let expired = refusals.extract_if(.., |r| r.deadline <= now);
            out.extend(expired.map(|r| r.answer(ProposeError::DeadlinePassed)));
        }
        self.refusals.retain(|_, refusals| !refusals.is_empty());
    }

    /// Answers everything; the outcome of proposals is unknown.
    pub fn fail_all(&mut self, out: &mut Vec<Answer>) {
        self.withdraw_refusals(ProposeError::Dropped, out);
        let all = std::mem::take(&mut self.by_index);
        out.extend(all.into_values().map(|p| Answer::Append(p.reply, Err(ProposeError::OutcomeUnknown))));
    }
}
