//! The thread that answers instead of `consensus`, and the leader on another node: they commit, refuse, or do not
//! answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::api::Forward;
use crate::api::forward::RelayAnswers;
use crate::catalog::{CatalogView, Command, Origin};
use crate::consensus::StreamSequences;
use crate::consensus::handle::{Appended, ConsensusMsg, Proposal, ProposeError, ReadIndexError};
use crate::inbox::Inbox;
use crate::logs::{Logs, OpenLog, Removal};
use crate::replication::relay::RelayedRequest;
use crate::reply::{ReplyReceiver, ReplySender, reply};
use crate::storage::entry::{Entry, EntryKind, Stamp};
use crate::storage::log::GroupLog;
use crate::storage::payload::{records, stamp_records};
use crate::types::{GroupId, LogIndex, NodeId, Offset, Term};
use crate::watermark::{HighWatermark, Visible};

pub const TIME_US: u64 = 1_000_000;
pub const ME: NodeId = NodeId(1);
pub const OTHER: NodeId = NodeId(2);

/// The outcome of a proposal, on this node or forwarded.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Committed, and visible immediately.
    Commit,
    /// Committed, but not visible here until [`Node::catch_up`].
    CommitElsewhere,
    /// Rejected with this error.
    Fail(ProposeError),
    /// Never answered, until the node is dropped.
    Silence,
}

/// The state of the group's leader.
pub struct FakeState {
    pub log: GroupLog,
    pub watermark: HighWatermark,
    pub last: LogIndex,
    pub visible: Visible,
    pub fates: VecDeque<Fate>,
    pub fate: Fate,
    pub silent: Vec<ReplySender<Result<Appended, ProposeError>>>,
    /// The principal of each forwarded proposal.
    pub forwarded: Vec<String>,
    /// The leader's state of produce streams.
    pub streams: StreamSequences,
    pub proposed: usize,
    /// Proposals that the leader rejected because an earlier one of their run was not appended.
    pub out_of_sequence: usize,
    pub read_index: Result<(), ReadIndexError>,
    /// First offsets to which the next read indexes trim the log.
    pub trims: VecDeque<Offset>,
    /// The catalog, and its last entry.
    pub catalog: CatalogView,
    pub catalog_watermark: HighWatermark,
    pub last_command: LogIndex,
    pub logs: Logs,
}

#[derive(Clone)]
pub struct FakeConsensus(pub Arc<Mutex<FakeState>>);

impl FakeConsensus {
    pub fn lock(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock()
    }

    pub fn propose(&self, proposal: Proposal, reply: ReplySender<Result<Appended, ProposeError>>) {
        let mut state = self.lock();
        let fate = state.fates.pop_front().unwrap_or(state.fate);
        state.proposed += 1;
        if matches!(fate, Fate::Commit | Fate::CommitElsewhere)
            && let Some(place) = proposal.in_stream
        {
            if !state.streams.take(place, Term(1)) {
                state.out_of_sequence += 1;
                return reply.send(Err(ProposeError::Dropped));
            }
            state.streams.record_appended(place, Term(1));
        }
        match fate {
            Fate::Commit if proposal.group == GroupId::CATALOG => {
                let record = records(&proposal.payload).next().expect("a record").expect("well-formed");
                let committed = state.commit(Command::of_record(record).expect("a command"));
                reply.send(committed);
            }
            Fate::Commit => {
                let appended = state.append(&proposal);
                let visible = state.visible;
                state.watermark.advance(visible);
                reply.send(appended);
            }
            Fate::CommitElsewhere => {
                let appended = state.append(&proposal);
                reply.send(appended);
            }
            Fate::Fail(error) => reply.send(Err(error)),
            Fate::Silence => state.silent.push(reply),
        }
    }
}

impl FakeState {
    /// Applies a command, and opens or removes its log, as every node does. All logs share the records of the first
    /// one.
    pub fn commit(&mut self, mut command: Command) -> Result<Appended, ProposeError> {
        if let Command::CreateLog(new) = &mut command
            && new.origin == Origin::Nodes(Vec::new())
        {
            new.origin = Origin::Nodes(vec![ME]);
        }
        let mut catalog = (*self.catalog.get()).clone();
        if catalog.would_change(&command) != Ok(true) {
            return Err(ProposeError::Dropped);
        }
        catalog.apply(&command, TIME_US);
        self.catalog.publish(catalog.clone());
        for open in self.logs.all().into_iter().chain(self.logs.deleted()) {
            if catalog.log(open.group).is_none() {
                self.logs.remove_group(open.group);
            }
        }
        for log in catalog.logs() {
            match (log.deletion, self.logs.get(&log.name)) {
                (Some(_), Some(_)) => self.logs.remove(&log.name),
                (None, None) if !log.is_on(ME) => {}
                (None, None) => self.logs.insert(OpenLog {
                    restoring_to: None,
                    name: log.name.clone(),
                    group: log.group,
                    log_id: log.log_id,
                    record_bytes_max: 1 << 20,
                    request_bytes_max: 4 << 20,
                    hash_chain: false,
                    tables: crate::log_state::TablesView::default(),
                    watermark: self.watermark.clone(),
                    reader: self.log.reader(),
                    removal: Removal::default(),
                }),
                (Some(_), None) | (None, Some(_)) => {}
            }
        }
        self.last_command = self.last_command.next();
        let (index, offset) = (self.last_command, Offset::default());
        self.catalog_watermark.advance(Visible { applied: index, ..Visible::default() });
        Ok(Appended { offset, count: 1, term: Term(1), index, append_time_us: TIME_US, duplicate: false })
    }

    fn append(&mut self, proposal: &Proposal) -> Result<Appended, ProposeError> {
        let base = self.visible.next_offset;
        if proposal.expected_offset.is_some_and(|expected| expected != base) {
            return Err(ProposeError::ExpectedOffset { next_offset: base });
        }
        let mut payload = proposal.payload.to_vec();
        if proposal.kind == EntryKind::Trim {
            let first = Offset(u64::from_le_bytes(payload[..].try_into().expect("eight bytes")));
            if first > base {
                return Err(ProposeError::PastEnd { next_offset: base });
            }
            self.visible.first_offset = self.visible.first_offset.max(first);
        } else {
            assert_eq!(stamp_records(&mut payload, base, Term(1), TIME_US), Ok(proposal.count));
        }
        self.last = self.last.next();
        let stamp = Stamp {
            kind: proposal.kind,
            count: proposal.count,
            base_offset: base,
            append_time_us: TIME_US,
            producer_id: 0,
            sequence: 0,
        };
        self.log.append(&[Entry::new(self.last, Term(1), stamp, &payload)]).expect("appended");
        self.visible.applied = self.last;
        self.visible.next_offset.0 += u64::from(proposal.count);
        self.visible.last_append_time_us = TIME_US;
        Ok(Appended {
            offset: base,
            count: proposal.count,
            term: Term(1),
            index: self.last,
            append_time_us: TIME_US,
            duplicate: false,
        })
    }
}

impl Forward for FakeConsensus {
    fn propose(
        &self,
        to: NodeId,
        principal: &str,
        proposal: Proposal,
    ) -> ReplyReceiver<Result<Appended, ProposeError>> {
        assert_eq!(to, OTHER);
        let (tx, rx) = reply();
        self.lock().forwarded.push(principal.to_owned());
        FakeConsensus::propose(self, proposal, tx);
        rx
    }

    fn read_index(
        &self,
        to: NodeId,
        _: GroupId,
        _: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        assert_eq!(to, OTHER);
        let (tx, rx) = reply();
        let state = self.lock();
        tx.send(state.read_index.map(|()| state.last));
        rx
    }

    fn relay(&self, to: NodeId, _: &RelayedRequest) -> RelayAnswers {
        panic!("a request is relayed to {to}, and this node has every log")
    }
}

pub fn answer(fake: &FakeConsensus, messages: &Inbox<ConsensusMsg>) {
    for message in messages.iter() {
        match message {
            ConsensusMsg::Propose(proposal, reply) => fake.propose(proposal, reply),
            ConsensusMsg::ReadIndex(group, _, reply) => {
                let mut state = fake.lock();
                let last = if group == GroupId::CATALOG { state.last_command } else { state.last };
                if let Some(first_offset) = state.trims.pop_front() {
                    state.visible.first_offset = first_offset;
                    state.watermark.advance(state.visible);
                }
                reply.send(state.read_index.map(|()| last));
            }
            ConsensusMsg::Stop => return,
            other => panic!("the API sent {other:?}"),
        }
    }
}
