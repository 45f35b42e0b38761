//! Jobs that were sent to a peer and are not answered yet.
//!
//! Work that is taken from the mailbox becomes a [`Job`] on the stream and an entry in [`UnansweredJobs`]. From then
//! on its outcome is known only from the peer's answer, or from the log of a later term (`settle.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::consensus::handle::{Appended, ProposeError, ReadIndexError};
use crate::pb::peer::{Job, Outcome};
use crate::replication::forward::{Forward, NotSent, Work};
use crate::replication::outcome::{read_appended, read_read_index};
use crate::reply::ReplySender;
use crate::storage::entry::{Entry, EntryKind};
use crate::types::{GroupId, LogIndex, StreamId, Term};

/// The wait for a job's answer after its deadline: the leader knows the outcome, and its answer may be in flight.
const GRACE: Duration = Duration::from_millis(250);

#[derive(Debug)]
enum JobCaller {
    Propose(ReplySender<Result<Appended, ProposeError>>, Option<SentProposal>),
    ReadIndex(GroupId, ReplySender<Result<LogIndex, ReadIndexError>>),
}

impl JobCaller {
    fn answer(self, outcome: Outcome) {
        match self {
            JobCaller::Propose(reply, _) => reply.send(read_appended(outcome)),
            JobCaller::ReadIndex(_, reply) => reply.send(read_read_index(outcome)),
        }
    }

    fn sent(&self) -> Option<&SentProposal> {
        match self {
            JobCaller::Propose(_, sent) => sent.as_ref(),
            JobCaller::ReadIndex(..) => None,
        }
    }

    fn fail(self) {
        match self {
            JobCaller::Propose(reply, _) => reply.send(Err(ProposeError::OutcomeUnknown)),
            JobCaller::ReadIndex(_, reply) => reply.send(Err(ReadIndexError::Unconfirmed)),
        }
    }
}

/// A proposal that was sent to a leader for one term: it is appended in `term` or never.
#[derive(Debug)]
struct SentProposal {
    group: GroupId,
    term: Term,
    /// The last entry that was applied here when the proposal was sent. The proposal's entry has a higher index.
    after: LogIndex,
    /// The producer id and sequence in the entry's stamp, which identify the proposal uniquely.
    producer: (u64, u64),
    kind: EntryKind,
}

impl SentProposal {
    /// Returns its outcome. `entries` must contain all committed entries of its term above `after`.
    fn found_in(&self, entries: &[Entry]) -> Result<Appended, ProposeError> {
        // The stamp of a producer's request is that of each attempt to send it, perhaps by a process that was replaced. Its
        // entry may also be older than this attempt. A retry finds the truth.
        // Commands of several requests share an entry, whose stamp is that of none of them. They, too, can be sent again.
        if self.producer.0 != 0 || self.kind == EntryKind::State {
            return Err(ProposeError::OutcomeUnknown);
        }
        let stamps = entries.iter().filter(|entry| entry.index > self.after && entry.term == self.term);
        let mut found = stamps.filter_map(|entry| Some((entry, entry.stamp().ok()?)));
        match found.find(|(_, stamp)| (stamp.producer_id, stamp.sequence) == self.producer) {
            None => Err(ProposeError::Dropped),
            Some((entry, stamp)) => Ok(Appended {
                offset: stamp.base_offset,
                count: stamp.count,
                term: entry.term,
                index: entry.index,
                append_time_us: stamp.append_time_us,
                duplicate: false,
            }),
        }
    }
}

/// The unanswered jobs, by id.
#[derive(Debug)]
pub struct UnansweredJobs {
    last_id: u64,
    /// A random number. Added to a job's id, it is the sequence of a proposal without a producer, so that the
    /// proposal's entry can be found. 0 if the system can't provide random bytes.
    tags: u64,
    callers: BTreeMap<u64, (Option<Instant>, JobCaller)>,
}

impl Default for UnansweredJobs {
    fn default() -> UnansweredJobs {
        UnansweredJobs { last_id: 0, tags: StreamId::random().map_or(0, |random| random.0), callers: BTreeMap::new() }
    }
}

impl UnansweredJobs {
    /// The number of jobs.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Turns work into a job for the stream, and keeps its caller. Returns `None` if the deadline has passed (the
    /// caller is then answered), or if the caller no longer waits.
    ///
    /// `led` is set if the peer checks the term of a proposal: the term in which it leads the proposal's group, and
    /// this node's applied index. The log of this node will then show the outcome (`settle.rs`).
    pub fn job(&mut self, forward: Forward, led: Option<(Term, LogIndex)>, now: Instant) -> Option<Job> {
        if forward.is_abandoned() {
            return None;
        }
        let deadline = forward.deadline();
        if deadline.is_some_and(|d| d <= now) {
            forward.refuse(NotSent::DeadlinePassed);
            return None;
        }
        self.last_id += 1;
        let mut job = Job { id: self.last_id, principal: forward.principal, ..Job::default() };
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(now).as_millis().clamp(1, u128::from(u32::MAX));
            job.deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
        }
        let caller = match forward.work {
            Work::Propose(proposal, reply) => {
                job.group = proposal.group.0;
                let propose = job.mut_propose();
                propose.kind = u32::from(proposal.kind.code());
                propose.count = proposal.count;
                propose.payload = proposal.payload.payload();
                propose.expected_offset = proposal.expected_offset.map(|o| o.0);
                propose.producer_id = proposal.producer_id;
                propose.sequence = match proposal.producer_id {
                    0 => self.tags.wrapping_add(self.last_id),
                    _ => proposal.sequence,
                };
                propose.producer_epoch = proposal.producer_epoch;
                propose.restored_append_time_us = proposal.restored_append_time_us;
                let unique = propose.sequence != 0 && self.tags != 0;
                let producer = (proposal.producer_id, propose.sequence);
                if let Some(position) = proposal.in_stream {
                    (propose.stream, propose.sequence_in_stream) = (position.stream.0, position.sequence);
                }
                let led = led.filter(|_| unique);
                propose.term = led.map_or(0, |(term, _)| term.0);
                let (group, kind) = (proposal.group, proposal.kind);
                let sent = led.map(|(term, after)| SentProposal { group, term, after, producer, kind });
                JobCaller::Propose(reply, sent)
            }
            Work::ReadIndex(group, _, reply) => {
                job.group = group.0;
                job.mut_read_index();
                JobCaller::ReadIndex(group, reply)
            }
        };
        self.callers.insert(self.last_id, (deadline.map(|d| d + GRACE), caller));
        Some(job)
    }

    /// Passes on the peer's answer. Returns false if no caller waits for that id: the job was given up at its
    /// deadline, or was never sent.
    pub fn answer(&mut self, outcome: Outcome) -> bool {
        match self.callers.remove(&outcome.id) {
            Some((_, caller)) => {
                caller.answer(outcome);
                true
            }
            None => false,
        }
    }

    /// Called when the link, and with it all answers, is lost. Proposals whose outcome the log may show wait until
    /// `until`; the outcome of all other jobs is unknown.
    pub fn link_lost(&mut self, until: Instant) {
        for (deadline, _) in self.callers.values_mut().filter(|(_, caller)| caller.sent().is_some()) {
            *deadline = Some(deadline.map_or(until, |deadline| deadline.min(until)));
        }
        let others = self.callers.extract_if(.., |_, (_, caller)| caller.sent().is_none());
        others.for_each(|(_, (_, caller))| caller.fail());
    }

    /// Answers every caller with "outcome unknown", because this node is stopping.
    pub fn fail_all(&mut self) {
        for (_, (_, caller)) in std::mem::take(&mut self.callers) {
            caller.fail();
        }
    }

    /// Returns the groups of the jobs.
    pub fn groups(&self) -> BTreeSet<GroupId> {
        let group = |caller: &JobCaller| match caller {
            JobCaller::Propose(_, sent) => sent.as_ref().map(|sent| sent.group),
            JobCaller::ReadIndex(group, _) => Some(*group),
        };
        self.callers.values().filter_map(|(_, caller)| group(caller)).collect()
    }

    /// Fails the read indexes of this group, because another node leads it. A retry is safe.
    pub fn fail_reads(&mut self, group: GroupId) {
        let reads = |caller: &JobCaller| matches!(caller, JobCaller::ReadIndex(of, _) if *of == group);
        self.callers.extract_if(.., |_, (_, caller)| reads(caller)).for_each(|(_, (_, caller))| caller.fail());
    }

    /// Returns, for this group's proposals of terms before `term`, the lowest index that one of their entries can
    /// have, and their lowest term.
    pub fn overtaken(&self, group: GroupId, term: Term) -> Option<(LogIndex, Term)> {
        let sent = self.callers.values().filter_map(|(_, caller)| caller.sent());
        let sent = sent.filter(|sent| sent.group == group && sent.term < term);
        sent.map(|sent| (sent.after.next(), sent.term)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
    }

    /// Answers this group's proposals of terms before `term`. `entries` contains all entries of these terms that are
    /// or ever will be committed, from the index of [`UnansweredJobs::overtaken`] on. If it is `None`, the outcome is
    /// unknown.
    pub fn settle(&mut self, group: GroupId, term: Term, entries: Option<&[Entry]>) {
        let overtaken = |caller: &JobCaller| caller.sent().is_some_and(|sent| sent.group == group && sent.term < term);
        for (_, (_, caller)) in self.callers.extract_if(.., |_, (_, caller)| overtaken(caller)) {
            if let JobCaller::Propose(reply, Some(sent)) = caller {
                reply.send(entries.map_or(Err(ProposeError::OutcomeUnknown), |entries| sent.found_in(entries)));
            }
        }
    }

    /// Limits how long this group's proposals of terms before `term` wait for their outcome.
    pub fn limit_wait(&mut self, group: GroupId, term: Term, until: Instant) {
        for (deadline, caller) in self.callers.values_mut() {
            if caller.sent().is_some_and(|sent| sent.group == group && sent.term < term) {
                *deadline = Some(deadline.map_or(until, |deadline| deadline.min(until)));
            }
        }
    }

    /// Fails the jobs whose deadline has passed.
    pub fn expire(&mut self, now: Instant) {
        let passed = |deadline: &Option<Instant>| deadline.is_some_and(|d| d <= now);
        let ids: Vec<u64> = self.callers.iter().filter(|(_, (d, _))| passed(d)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some((_, caller)) = self.callers.remove(&id) {
                caller.fail();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::handle::Proposal;
    use crate::replication::outcome::read_index_outcome;
    use crate::reply::reply;

    #[test]
    fn answers_are_matched_by_id_and_sent_once() {
        let now = Instant::now();
        let mut unanswered = UnansweredJobs::default();
        let mut receivers = Vec::new();
        for _ in 0..3 {
            let (tx, rx) = reply();
            let work = Work::ReadIndex(GroupId(1), Some(now + Duration::from_millis(1500)), tx);
            let job = unanswered.job(Forward { principal: "root".to_owned(), work }, None, now).expect("a job");
            assert_eq!(job.deadline_ms, 1500);
            receivers.push((job.id, rx));
        }
        let (second, third) = (receivers[1].0, receivers[2].0);
        assert!(unanswered.answer(read_index_outcome(third, Ok(LogIndex(3)))));
        assert!(unanswered.answer(read_index_outcome(second, Ok(LogIndex(2)))));
        assert!(!unanswered.answer(read_index_outcome(second, Ok(LogIndex(9)))));
        unanswered.expire(now + Duration::from_millis(1600));
        assert_eq!(unanswered.len(), 1, "the leader's answer is awaited a little longer");
        unanswered.expire(now + Duration::from_secs(2));
        let answers: Vec<_> = receivers.into_iter().map(|(_, rx)| rx.wait()).collect();
        assert_eq!(answers, [Ok(Err(ReadIndexError::Unconfirmed)), Ok(Ok(LogIndex(2))), Ok(Ok(LogIndex(3)))]);
    }

    /// A commit of a cursor whose leader died was answered "not appended", although its successor had it.
    #[test]
    fn the_log_does_not_show_what_became_of_a_command() {
        let (now, mut unanswered) = (Instant::now(), UnansweredJobs::default());
        let command = Proposal::new(GroupId(1), EntryKind::State, 0, [0].as_slice().into());
        let (tx, rx) = reply();
        let forward = Forward { principal: String::new(), work: Work::Propose(command, tx) };
        unanswered.job(forward, Some((Term(2), LogIndex(5))), now).expect("a job");
        unanswered.settle(GroupId(1), Term(3), Some(&[]));
        assert_eq!(rx.wait(), Ok(Err(ProposeError::OutcomeUnknown)));
    }

    #[test]
    fn abandoned_and_late_work_is_not_sent() {
        let now = Instant::now();
        let mut unanswered = UnansweredJobs::default();
        let (tx, rx) = reply();
        drop(rx);
        let forward = Forward { principal: String::new(), work: Work::ReadIndex(GroupId(1), None, tx) };
        assert_eq!(unanswered.job(forward, None, now), None);
        let (tx, rx) = reply();
        let forward = Forward { principal: String::new(), work: Work::ReadIndex(GroupId(1), Some(now), tx) };
        assert_eq!(unanswered.job(forward, None, now), None);
        assert_eq!(rx.wait(), Ok(Err(ReadIndexError::Unconfirmed)));
        assert_eq!(unanswered.len(), 0);
    }
}
