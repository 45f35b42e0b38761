//! Proposals: the checks before raft gets an entry, and the stamp that the leader writes into it.
//!
//! An entry's base offset is the end of raft's last entry, stored or not; no separate counter exists. A rejection
//! that depends on this end is sent only after the end is committed: until then another leader may replace it.

use std::sync::Arc;
use std::time::Instant;

use raft::eraftpb::Message;

use super::gathered::GatheredRequest;
use super::node::RaftNode;
use super::sequences::StreamSequences;
use super::settings::UNCOMMITTED_BYTES_MAX;
use crate::consensus::faults;
use crate::consensus::handle::{Appended, Proposal, ProposeError};
use crate::hash_chain::{ChainHash, ContentHash, EntryChain};
use crate::log_state::faults::{Fault, broken};
use crate::log_state::producers::{Answer, ProducerRequest};
use crate::log_state::{StateCommand, StateRefusal, Tables};
use crate::storage::entry::{ENTRY_BYTES_MAX, EntryKind, Stamp, Unstamped};
use crate::storage::frame::frame_bytes;
use crate::storage::payload::stamp_records;
use crate::storage::space::Space;
use crate::types::{GroupId, LogIndex, Offset, ProducerId, Term};

/// Why a proposal is rejected.
pub enum Rejected {
    /// The reason does not depend on the content of the log.
    AtOnce(ProposeError),
    /// The log does not end where the request expects. The rejection is valid once the last entry is committed. If
    /// the request expects a later end (`beyond`), a majority must also confirm this leader after the check, because
    /// a newer leader may have more entries.
    ByLogEnd {
        error: ProposeError,
        /// The request expects a later end.
        beyond: bool,
    },
}

impl From<ProposeError> for Rejected {
    fn from(error: ProposeError) -> Rejected {
        Rejected::AtOnce(error)
    }
}

impl From<StateRefusal> for Rejected {
    fn from(refusal: StateRefusal) -> Rejected {
        // A newer leader may have other producers and cursors.
        Rejected::ByLogEnd { error: ProposeError::State(refusal), beyond: true }
    }
}

/// What is applied on the leader.
#[derive(Clone, Copy)]
pub struct AppliedTables<'a> {
    /// The last applied entry.
    pub index: LogIndex,
    /// The producers and the cursors after it.
    pub tables: &'a Arc<Tables>,
}

/// The producers and the cursors after the last entry of the leader, which may not be committed yet. Only the leader of
/// the term appends entries, so none of them is replaced as long as it leads.
struct LeaderTables {
    term: Term,
    tables: Arc<Tables>,
}

/// The state that a leader keeps between proposals.
#[derive(Default)]
pub struct Proposer {
    streams: StreamSequences,
    space: Space,
    tables: Option<LeaderTables>,
}

impl Proposer {
    /// Sets the free space of the disk, against which appended bytes are counted. By default it is unlimited.
    pub fn set_space(&mut self, space: Space) {
        self.space = space;
    }

    /// Returns true if the disk has space for a leader's entries. Otherwise the append is dropped, as if the network
    /// had lost it: the leader continues without this node, and resends until the entries fit. The catalog's entries
    /// always pass: they are few and small, and this node needs them to know its logs and members.
    pub fn has_room_for(&self, append: &Message, group: GroupId) -> bool {
        if append.entries.is_empty() || group == GroupId::CATALOG {
            return true;
        }
        let bytes = append.entries.iter().map(|e| frame_bytes(e.data.len().max(e.context.len())) as u64).sum();
        let fits = self.space.promise_to_leader(bytes);
        if !fits {
            log::debug!("group {group}: the disk is full: {bytes} bytes of entries from the leader are dropped");
        }
        fits
    }

    /// Passes a proposal to raft. `time_us` is the current time, Unix microseconds.
    ///
    /// # Errors
    /// [`Rejected`] if the proposal was not appended.
    pub fn propose(
        &mut self,
        node: &mut RaftNode,
        applied: AppliedTables<'_>,
        proposal: Proposal,
        now: Instant,
        time_us: u64,
    ) -> Result<Appended, Rejected> {
        let (group, term) = (node.group(), node.term());
        self.check_leads(node, &proposal)?;
        if proposal.in_stream.is_some_and(|position| !self.streams.take(position, term)) {
            return Err(ProposeError::Dropped.into());
        }
        if proposal.deadline.is_some_and(|d| d <= now) && !faults::broken(faults::Fault::DeadlineIgnored) {
            return Err(ProposeError::DeadlinePassed.into());
        }
        let chain_bytes = if proposal.kind == EntryKind::ChainedRecords { EntryChain::BYTES } else { 0 };
        if Stamp::BYTES + proposal.payload.len() + chain_bytes > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge.into());
        }
        let end = node.log_end().ok_or(ProposeError::Damaged)?;
        let producer = Some(ProducerId(proposal.producer_id)).filter(|id| id.0 != 0 && group != GroupId::CATALOG);
        let has_records = proposal.kind.payload().has_records();
        let producer = producer.filter(|_| has_records);
        if let Some(id) = producer {
            let request = ProducerRequest { id, epoch: proposal.producer_epoch, sequence: proposal.sequence };
            if let Some(answer) = self.tables(node, applied)?.producers.check(request, proposal.count)? {
                if let Some(position) = proposal.in_stream {
                    self.streams.record_appended(position, term);
                }
                return Ok(answered_before(&answer));
            }
        }
        let is_other =
            |expected: &Offset| *expected != end.offset && !faults::broken(faults::Fault::ExpectedOffsetIgnored);
        if let Some(expected) = proposal.expected_offset.filter(is_other) {
            let error = ProposeError::ExpectedOffset { next_offset: end.offset };
            return Err(Rejected::ByLogEnd { error, beyond: expected > end.offset });
        }
        let is_bounded = proposal.kind == EntryKind::Trim && !faults::broken(faults::Fault::TrimBeyondEnd);
        if is_bounded && trim_to(&proposal)? > end.offset {
            return Err(Rejected::ByLogEnd { error: ProposeError::PastEnd { next_offset: end.offset }, beyond: true });
        }
        // Trims and the catalog's entries are accepted even if the disk is full: a trim frees space, and the catalog
        // is small.
        if has_records
            && group != GroupId::CATALOG
            && !self.space.promise(frame_bytes(proposal.payload.len() + chain_bytes) as u64)
        {
            return Err(ProposeError::DiskFull.into());
        }
        let chain = match proposal.kind {
            EntryKind::ChainedRecords => Some(self.tables(node, applied)?.chain.unwrap_or_default()),
            EntryKind::Records | EntryKind::Noop | EntryKind::ConfChange | EntryKind::Trim | EntryKind::State => None,
        };
        let appended = Appended {
            offset: end.offset,
            count: proposal.count,
            term,
            index: LogIndex(node.last_index().0 + 1),
            append_time_us: proposal.restored_append_time_us.unwrap_or(time_us).max(end.append_time_us),
            duplicate: false,
        };
        let position = proposal.in_stream;
        let sequence = proposal.sequence;
        let (data, chain) = stamped(proposal, &appended, chain)?;
        node.propose(Vec::new(), data).map_err(|e| raft_refusal(node, &e))?;
        if let Some(position) = position {
            self.streams.record_appended(position, term);
        }
        if let Some(LeaderTables { tables, .. }) = &mut self.tables {
            if let Some(id) = producer {
                Arc::make_mut(tables).producers.appended(id, sequence, answer_of(&appended));
            }
            if chain.is_some() {
                Arc::make_mut(tables).chain = chain;
            }
        }
        Ok(appended)
    }

    /// Returns the producers and the cursors after the last entry.
    ///
    /// # Errors
    /// [`ProposeError::Dropped`] until this leader has applied its first entry, and so all entries of earlier terms.
    fn tables(&mut self, node: &RaftNode, applied: AppliedTables<'_>) -> Result<&Arc<Tables>, ProposeError> {
        let term = node.term();
        let is_current = self.tables.as_ref().is_some_and(|tables| tables.term == term || broken(Fault::NotRolledBack));
        let has_all = applied.index == node.last_index();
        if !is_current || has_all && !broken(Fault::LostAtFailOver) {
            if node.term_at(applied.index) != Some(term) {
                return Err(ProposeError::Dropped);
            }
            // Shared with the applied state, so that the tables are not in memory twice.
            let lost = broken(Fault::LostAtFailOver) && !is_current;
            let tables = if lost { Arc::default() } else { Arc::clone(applied.tables) };
            self.tables = Some(LeaderTables { term, tables });
        }
        self.tables.as_ref().map(|tables| &tables.tables).ok_or(ProposeError::Dropped)
    }

    /// Checks that this node leads, in the term of the proposal.
    fn check_leads(&mut self, node: &RaftNode, proposal: &Proposal) -> Result<(), ProposeError> {
        if !node.is_leader() {
            self.tables = None;
        }
        if !node.is_leader() || proposal.term.is_some_and(|wanted| wanted != node.term()) {
            return Err(ProposeError::NotLeader { leader: node.leader_node() });
        }
        Ok(())
    }

    /// Passes the gathered commands to raft, as one entry. Returns what became of each request, in the same order.
    pub fn propose_gathered(
        &mut self,
        node: &mut RaftNode,
        applied: AppliedTables<'_>,
        requests: &[GatheredRequest],
    ) -> Vec<Result<Appended, Rejected>> {
        let mut payload = Unstamped::room(requests.iter().map(|request| request.proposal.payload.len()).sum());
        let index = LogIndex(node.last_index().0 + 1);
        let time_us = node.log_end().map_or(0, |end| end.append_time_us);
        let time_us = requests.iter().map(|request| request.time_us).fold(time_us, u64::max);
        let mut after = None;
        let mut checked = Vec::with_capacity(requests.len());
        for request in requests {
            let mut check = || {
                self.check_leads(node, &request.proposal)?;
                if request.proposal.deadline.is_some_and(|deadline| deadline <= request.now) {
                    return Err(ProposeError::DeadlinePassed.into());
                }
                let commands = decode_commands(&request.proposal)?;
                let tables = match &mut after {
                    Some(tables) => tables,
                    none => none.insert(Arc::clone(self.tables(node, applied)?)),
                };
                for command in &commands {
                    if !tables.would_change(command)? {
                        return Err(Rejected::from(StateRefusal::Unchanged(0)));
                    }
                }
                commands.iter().for_each(|command| Arc::make_mut(tables).apply(command, index, time_us));
                Ok(())
            };
            let result = check();
            if result.is_ok() {
                payload.extend_from_slice(&request.proposal.payload);
            }
            checked.push(result);
        }
        let Some(after) = after.filter(|_| checked.iter().any(Result::is_ok)) else {
            return checked.into_iter().filter_map(Result::err).map(Err).collect();
        };
        let appended = self.append_commands(node, after, Unstamped::new(payload), time_us);
        let result = |checked: Result<(), Rejected>| match (checked, appended) {
            (Ok(()), Ok(appended)) => Ok(appended),
            // Also a refusal, because it may be due to a command that was not appended.
            (Ok(()) | Err(Rejected::ByLogEnd { .. }), Err(error)) => Err(error.into()),
            (Err(rejected), _) => Err(rejected),
        };
        checked.into_iter().map(result).collect()
    }

    /// Appends an entry with commands that were checked. `after` are the tables after it.
    fn append_commands(
        &mut self,
        node: &mut RaftNode,
        after: Arc<Tables>,
        payload: Unstamped,
        time_us: u64,
    ) -> Result<Appended, ProposeError> {
        let end = node.log_end().ok_or(ProposeError::Damaged)?;
        let appended = Appended {
            offset: end.offset,
            count: 0,
            term: node.term(),
            index: LogIndex(node.last_index().0 + 1),
            append_time_us: time_us,
            duplicate: false,
        };
        if !self.space.promise(frame_bytes(payload.len()) as u64) {
            return Err(ProposeError::DiskFull);
        }
        let proposal = Proposal::new(node.group(), EntryKind::State, 0, payload);
        let (data, _) = stamped(proposal, &appended, None)?;
        node.propose(Vec::new(), data).map_err(|error| raft_refusal(node, &error))?;
        self.tables = Some(LeaderTables { term: appended.term, tables: after });
        Ok(appended)
    }
}

/// Decodes the commands of a proposal.
fn decode_commands(proposal: &Proposal) -> Result<Vec<StateCommand>, ProposeError> {
    StateCommand::decode_all(&proposal.payload).map_err(|bad| {
        log::error!("a proposal that can't be appended: {bad}");
        ProposeError::Dropped
    })
}

/// Returns the answer to a request that was appended before.
fn answered_before(answer: &Answer) -> Appended {
    let Answer { offset, count, term, index, append_time_us } = *answer;
    Appended { offset, count, term, index, append_time_us, duplicate: true }
}

fn answer_of(appended: &Appended) -> Answer {
    let Appended { offset, count, term, index, append_time_us, duplicate: _ } = *appended;
    Answer { offset, count, term, index, append_time_us }
}

fn raft_refusal(node: &RaftNode, error: &raft::Error) -> ProposeError {
    let full = node.raft.uncommitted_size() as u64 > UNCOMMITTED_BYTES_MAX / 2;
    match error {
        raft::Error::ProposalDropped if full && node.raft.lead_transferee.is_none() => ProposeError::QueueFull,
        _ => ProposeError::Dropped,
    }
}

/// Returns the first offset that a trim keeps.
fn trim_to(proposal: &Proposal) -> Result<Offset, ProposeError> {
    proposal.payload.first_chunk().map(|bytes| Offset(u64::from_le_bytes(*bytes))).ok_or_else(|| {
        log::error!("a proposal of a trim without its offset");
        ProposeError::Dropped
    })
}

/// Returns the entry's data: the stamp, and the records with their offsets, term and time. `chain` is the hash chain
/// before chained records; the one after them is part of the data, and returned too.
fn stamped(
    proposal: Proposal,
    appended: &Appended,
    chain: Option<ChainHash>,
) -> Result<(Vec<u8>, Option<ChainHash>), ProposeError> {
    let stamp = Stamp {
        kind: proposal.kind,
        count: proposal.count,
        base_offset: appended.offset,
        append_time_us: appended.append_time_us,
        producer_id: proposal.producer_id,
        sequence: proposal.sequence,
    };
    let mut data = proposal.payload.stamp(&stamp);
    if proposal.kind.payload().has_records() {
        let records = &mut data[Stamp::BYTES..];
        let count = stamp_records(records, appended.offset, appended.term, appended.append_time_us);
        match count {
            Ok(count) if count == proposal.count => {}
            Ok(count) => {
                log::error!("a proposal of {} records whose payload holds {count}", proposal.count);
                return Err(ProposeError::Dropped);
            }
            Err(bad) => {
                log::error!("a proposal that cannot be appended at offset {}: {bad}", appended.offset);
                return Err(ProposeError::Dropped);
            }
        }
    }
    let chain = chain.map(|chain| {
        let end_offset = appended.offset.0.saturating_add(u64::from(appended.count));
        EntryChain::of(chain, end_offset, ContentHash::of(&data[Stamp::BYTES..]))
    });
    data.extend(chain.iter().flat_map(EntryChain::encode));
    Ok((data, chain.map(|chain| chain.after)))
}
