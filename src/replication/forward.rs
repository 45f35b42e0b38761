//! Work that only another node can do, from the caller to the answer.
//!
//! A [`Forward`] waits in the peer's mailbox and was surely not appended until it is taken from there. Taken, it becomes a
//! [`Job`] on the stream and an entry in [`Unanswered`]; from then on only the peer's answer tells what became of it.
//! Every caller is answered exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::catalog::{Catalog, Command, LogMeta};
use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError, StreamPosition};
use crate::pb::peer::{Job, Outcome};
use crate::replication::outcome::{read_appended, read_read_index};
use crate::reply::ReplySender;
use crate::storage::entry::{Entry, EntryKind};
use crate::storage::payload;
use crate::types::{GroupId, LogIndex, Offset, StreamId, Term};

/// After its deadline a job's answer is awaited this much longer: the leader knows better what became of it than we do.
const GRACE: Duration = Duration::from_millis(250);

/// What is to be done by another node.
#[derive(Debug)]
pub enum Work {
    /// Append an entry.
    Propose(Proposal, ReplySender<Result<Appended, ProposeError>>),
    /// Confirm a position.
    ReadIndex(GroupId, Option<Instant>, ReplySender<Result<LogIndex, ReadIndexError>>),
}

/// Work that was not sent yet.
#[derive(Debug)]
pub struct Forward {
    /// For whom.
    pub principal: String,
    /// What.
    pub work: Work,
}

/// Why work was not sent. It was surely not appended.
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
    /// What it weighs in the mailbox.
    pub fn bytes(&self) -> usize {
        let payload = match &self.work {
            Work::Propose(proposal, _) => proposal.payload.len(),
            Work::ReadIndex(..) => 0,
        };
        payload + self.principal.len() + 64
    }

    /// The group of a proposal.
    pub fn proposes_to(&self) -> Option<GroupId> {
        match &self.work {
            Work::Propose(proposal, _) => Some(proposal.group),
            Work::ReadIndex(..) => None,
        }
    }

    /// True when nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Propose(_, reply) => reply.is_abandoned(),
            Work::ReadIndex(_, _, reply) => reply.is_abandoned(),
        }
    }

    /// The moment after which it must not be proposed any more.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.work {
            Work::Propose(proposal, _) => proposal.deadline,
            Work::ReadIndex(_, deadline, _) => *deadline,
        }
    }

    /// Answers the caller that it was not sent.
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

/// A job's caller.
#[derive(Debug)]
enum Caller {
    Propose(ReplySender<Result<Appended, ProposeError>>, Option<Sent>),
    ReadIndex(GroupId, ReplySender<Result<LogIndex, ReadIndexError>>),
}

impl Caller {
    fn answer(self, outcome: Outcome) {
        match self {
            Caller::Propose(reply, _) => reply.send(read_appended(outcome)),
            Caller::ReadIndex(_, reply) => reply.send(read_read_index(outcome)),
        }
    }

    fn sent(&self) -> Option<&Sent> {
        match self {
            Caller::Propose(_, sent) => sent.as_ref(),
            Caller::ReadIndex(..) => None,
        }
    }

    fn lost(self) {
        match self {
            Caller::Propose(reply, _) => reply.send(Err(ProposeError::OutcomeUnknown)),
            Caller::ReadIndex(_, reply) => reply.send(Err(ReadIndexError::Unconfirmed)),
        }
    }
}

/// A proposal that was sent to a leader which appends it in `term` or never.
#[derive(Debug)]
struct Sent {
    group: GroupId,
    term: Term,
    /// The last entry that was applied here when it was sent: it is a later one.
    after: LogIndex,
    /// Producer id and sequence in the entry's stamp. No other request has the same.
    producer: (u64, u64),
}

impl Sent {
    /// What became of it, if these are all committed entries of its term that it can be.
    fn found_in(&self, entries: &[Entry]) -> Result<Appended, ProposeError> {
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
            }),
        }
    }
}

/// The jobs that were handed to the stream and have no answer, by id.
#[derive(Debug)]
pub struct Unanswered {
    last_id: u64,
    /// Random: with the id it makes the sequence of an unnamed producer's proposal, by which its entry is found. 0: not to be had.
    tags: u64,
    callers: BTreeMap<u64, (Option<Instant>, Caller)>,
}

impl Default for Unanswered {
    fn default() -> Unanswered {
        Unanswered { last_id: 0, tags: StreamId::random().map_or(0, |random| random.0), callers: BTreeMap::new() }
    }
}

impl Unanswered {
    /// How many.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Turns work into a job for the stream, and remembers who waits. `None` if its deadline has passed (then it is
    /// answered) or nobody waits any more.
    ///
    /// `led` is where this node stands in the proposal's group, if the peer leads it and appends in that term only: then the
    /// log here will show what became of the proposal (`settle.rs`).
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
                let unique = propose.sequence != 0 && self.tags != 0;
                let producer = (proposal.producer_id, propose.sequence);
                if let Some(position) = proposal.in_stream {
                    (propose.stream, propose.sequence_in_stream) = (position.stream.0, position.sequence);
                }
                let led = led.filter(|_| unique);
                propose.term = led.map_or(0, |(term, _)| term.0);
                let sent = led.map(|(term, after)| Sent { group: proposal.group, term, after, producer });
                Caller::Propose(reply, sent)
            }
            Work::ReadIndex(group, _, reply) => {
                job.group = group.0;
                job.mut_read_index();
                Caller::ReadIndex(group, reply)
            }
        };
        self.callers.insert(self.last_id, (deadline.map(|d| d + GRACE), caller));
        Some(job)
    }

    /// The peer's answer. False when nobody waits for that id: given up at its deadline, or never sent.
    pub fn answer(&mut self, outcome: Outcome) -> bool {
        match self.callers.remove(&outcome.id) {
            Some((_, caller)) => {
                caller.answer(outcome);
                true
            }
            None => false,
        }
    }

    /// The link is lost, and with it the answers. What the log here may still tell waits for it until then.
    pub fn link_lost(&mut self, until: Instant) {
        for (deadline, _) in self.callers.values_mut().filter(|(_, caller)| caller.sent().is_some()) {
            *deadline = Some(deadline.map_or(until, |deadline| deadline.min(until)));
        }
        let others = self.callers.extract_if(.., |_, (_, caller)| caller.sent().is_none());
        others.for_each(|(_, (_, caller))| caller.lost());
    }

    /// Every answer is unknown: this node stops.
    pub fn lost(&mut self) {
        for (_, (_, caller)) in std::mem::take(&mut self.callers) {
            caller.lost();
        }
    }

    /// The groups of the jobs.
    pub fn groups(&self) -> BTreeSet<GroupId> {
        let group = |caller: &Caller| match caller {
            Caller::Propose(_, sent) => sent.as_ref().map(|sent| sent.group),
            Caller::ReadIndex(group, _) => Some(*group),
        };
        self.callers.values().filter_map(|(_, caller)| group(caller)).collect()
    }

    /// The read indexes of this group are given up: another node leads it. Asking again is safe.
    pub fn give_up_reads(&mut self, group: GroupId) {
        let reads = |caller: &Caller| matches!(caller, Caller::ReadIndex(of, _) if *of == group);
        self.callers.extract_if(.., |_, (_, caller)| reads(caller)).for_each(|(_, (_, caller))| caller.lost());
    }

    /// Of the proposals to this group of a term before `term`: the first entry that one of them can be, and their term.
    pub fn overtaken(&self, group: GroupId, term: Term) -> Option<(LogIndex, Term)> {
        let sent = self.callers.values().filter_map(|(_, caller)| caller.sent());
        let sent = sent.filter(|sent| sent.group == group && sent.term < term);
        sent.map(|sent| (sent.after.next(), sent.term)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
    }

    /// Answers the proposals to this group of a term before `term`. `entries` are all entries of their terms that are or ever
    /// will be committed, from the first one that can be one of them; without them nothing is certain.
    pub fn settle(&mut self, group: GroupId, term: Term, entries: Option<&[Entry]>) {
        let overtaken = |caller: &Caller| caller.sent().is_some_and(|sent| sent.group == group && sent.term < term);
        for (_, (_, caller)) in self.callers.extract_if(.., |_, (_, caller)| overtaken(caller)) {
            if let Caller::Propose(reply, Some(sent)) = caller {
                reply.send(entries.map_or(Err(ProposeError::OutcomeUnknown), |entries| sent.found_in(entries)));
            }
        }
    }

    /// Proposals to this group of a term before `term` wait no longer than this for a certain answer.
    pub fn hurry(&mut self, group: GroupId, term: Term, until: Instant) {
        for (deadline, caller) in self.callers.values_mut() {
            if caller.sent().is_some_and(|sent| sent.group == group && sent.term < term) {
                *deadline = Some(deadline.map_or(until, |deadline| deadline.min(until)));
            }
        }
    }

    /// Gives up what waited past its deadline.
    pub fn expire(&mut self, now: Instant) {
        let passed = |deadline: &Option<Instant>| deadline.is_some_and(|d| d <= now);
        let ids: Vec<u64> = self.callers.iter().filter(|(_, (d, _))| passed(d)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some((_, caller)) = self.callers.remove(&id) {
                caller.lost();
            }
        }
    }
}

/// Reads a job's proposal, on the node that is asked. `None` for what nobody may propose: once committed, an entry that can't
/// be applied would stop its group on every node.
pub fn proposal_of(
    group: u64,
    deadline: Option<Instant>,
    propose: crate::pb::peer::Propose,
    catalog_now: &Catalog,
) -> Option<Proposal> {
    let kind = u8::try_from(propose.kind).ok().and_then(|code| EntryKind::try_from(code).ok())?;
    let catalog = group == GroupId::CATALOG.0;
    let takes = match kind {
        EntryKind::Records if catalog => propose.count > 0 && configures_logs(&propose.payload),
        EntryKind::Records => propose.count > 0 && fits(catalog_now.log(GroupId(group)), &propose.payload),
        // The catalog is never trimmed: a start replays all of it.
        EntryKind::Trim => !catalog && propose.count == 0 && propose.payload.len() == 8,
        EntryKind::Noop | EntryKind::ConfChange => false,
    };
    takes.then(|| Proposal {
        group: GroupId(group),
        kind,
        count: propose.count,
        payload: propose.payload.as_ref().into(),
        expected_offset: propose.expected_offset.map(Offset),
        producer_id: propose.producer_id,
        sequence: propose.sequence,
        in_stream: (propose.stream != 0)
            .then_some(StreamPosition { stream: StreamId(propose.stream), sequence: propose.sequence_in_stream }),
        term: (propose.term != 0).then_some(Term(propose.term)),
        deadline,
    })
}

/// Whether records respect the limits of their log, as far as values go: whoever forwards them may not have checked that. A record in
/// its stored form is one that every client can read.
fn fits(log: Option<&LogMeta>, payload: &[u8]) -> bool {
    let Some(log) = log else { return true };
    let mut sum = 0;
    let record_fits = |record: &[u8]| {
        let value = payload::record_value(record).map_or(usize::MAX, <[u8]>::len);
        sum = value.saturating_add(sum);
        value <= log.record_bytes_max as usize && record.len() <= LogMeta::STORED_RECORD_BYTES_MAX
    };
    payload::records(payload).map(|record| record.unwrap_or_default()).all(record_fits)
        && sum <= log.request_bytes_max as usize
}

/// Whether every record is a change of how a log is kept. No other change of the catalog is forwarded as an entry: the leader
/// proposes those itself. The command of a newer version is surely not appended, so its proposer may ask again when this node is
/// newer, too.
fn configures_logs(records: &[u8]) -> bool {
    let configures = |record: &[u8]| matches!(Command::of_record(record), Ok(Command::ConfigureLog(..)));
    payload::records(records).all(|record| record.is_ok_and(configures))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::command_proposal;
    use crate::pb::peer::Propose;
    use crate::replication::outcome::read_index_outcome;
    use crate::reply::reply;
    use crate::storage::payload::{RecordFields, encode_record};

    #[test]
    fn answers_are_matched_by_id_and_given_once() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
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
        assert_eq!(unanswered.len(), 1, "the leader's word is awaited a little longer");
        unanswered.expire(now + Duration::from_secs(2));
        let answers: Vec<_> = receivers.into_iter().map(|(_, rx)| rx.wait()).collect();
        assert_eq!(answers, [Ok(Err(ReadIndexError::Unconfirmed)), Ok(Ok(LogIndex(2))), Ok(Ok(LogIndex(3)))]);
    }

    #[test]
    fn what_nobody_waits_for_or_is_late_is_not_sent() {
        let now = Instant::now();
        let mut unanswered = Unanswered::default();
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

    /// Once, a peer could have any record appended to the catalog. Applied, what is no command ends every node.
    #[test]
    fn nothing_but_settings_of_logs_goes_to_the_catalog() {
        let propose = |kind: EntryKind, count, payload: &[u8]| Propose {
            kind: u32::from(kind.code()),
            count,
            payload: payload.to_vec().into(),
            ..Propose::default()
        };
        let mut record = Vec::new();
        encode_record(&mut record, &RecordFields { value: b"no command", ..RecordFields::default() });
        let command = |command| command_proposal(&command).payload.payload();
        let founded = command(Command::Founded(GroupId(1)));
        let command = command(Command::ConfigureLog(GroupId(1), crate::catalog::LogChange::default()));
        let both = [&command[..], &record[..]].concat();
        let mut catalog = Catalog::default();
        let first = LogMeta::first(crate::types::NodeId(1)).expect("random");
        catalog.apply(Command::CreateLog(LogMeta { record_bytes_max: 1024, request_bytes_max: 1500, ..first }));
        let taken =
            |group, kind, count, payload: &[u8]| proposal_of(group, None, propose(kind, count, payload), &catalog);

        let proposal = taken(0, EntryKind::Records, 1, &command).expect("a command");
        assert_eq!(proposal.payload.payload(), command);
        assert!(taken(0, EntryKind::Records, 1, &record).is_none());
        assert!(taken(0, EntryKind::Records, 1, &founded).is_none(), "the leader proposes it itself");
        assert!(taken(0, EntryKind::Records, 2, &both).is_none(), "behind a command");
        assert!(taken(0, EntryKind::Records, 1, &command[1..]).is_none(), "no records");
        assert!(taken(0, EntryKind::Trim, 0, &[0; 8]).is_none(), "the catalog is replayed from its beginning");
        assert!(taken(1, EntryKind::Records, 1, &record).is_some());
        assert!(taken(1, EntryKind::Trim, 0, &[0; 8]).is_some());
        let values = |sizes: &[usize]| {
            let mut payload = Vec::new();
            for size in sizes {
                encode_record(&mut payload, &RecordFields { value: &vec![7; *size], ..RecordFields::default() });
            }
            payload
        };
        assert!(taken(1, EntryKind::Records, 2, &values(&[1024, 476])).is_some(), "limits count what clients send");
        assert!(taken(1, EntryKind::Records, 1, &values(&[1025])).is_none(), "larger than record_bytes_max");
        assert!(taken(1, EntryKind::Records, 2, &values(&[1000, 501])).is_none(), "larger than request_bytes_max");
    }
}
