//! The interface of the `consensus` thread: the messages of its inbox, and their answers.
//!
//! The inbox is bounded. When it is full, requests are refused ([`ProposeError::QueueFull`]). Messages from peers
//! have a separate queue (`peer_inbox.rs`); those over its budget are dropped, and raft sends them again. Requests
//! are answered through one-shot replies.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::TrySendError;

pub use super::catch_up::Behind;
use super::peer_inbox::PeerInbox;
use super::status::Statuses;
pub use super::status::{GroupStatus, Role};
use super::wake::{ConsensusWaker, SMALL_BYTES_MAX, Work};
use crate::catalog::Command;
use crate::clock::PeerClocks;
use crate::feature_level::FeatureRange;
use crate::inbox::Outbox;
use crate::log_state::{StateCommand, StateRefusal, encode_trim};
use crate::pb::peer::RaftMessage;
use crate::reply::{ReplyReceiver, ReplySender, reply};
use crate::storage::entry::{EntryKind, Unstamped};
use crate::types::{GroupId, LogIndex, NodeId, Offset, StreamId, Term};

/// The number of messages that the inbox holds. When it is full, requests are refused. The bytes in it are bounded by
/// the clients' requests in flight (`bytes_max`) and by 16 MiB for each peer that forwards requests.
pub const INBOX_MESSAGES_MAX: usize = 4096;

/// The position of a proposal in a run of its stream. It is appended only after the previous one (`sequences.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The run's id. A new run begins when all earlier requests of the stream are answered.
    pub stream: StreamId,
    /// The position in its run, from 0, without gaps.
    pub sequence: u64,
}

/// One entry for a log: records of a client, or a trim. The leader stamps its offsets and times when it appends the
/// entry.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The group of the log.
    pub group: GroupId,
    /// [`EntryKind::Records`], [`EntryKind::Trim`] or [`EntryKind::State`]. Only consensus itself creates entries of other kinds.
    pub kind: EntryKind,
    /// The number of records in the payload; 0 for a trim.
    pub count: u32,
    /// The payload in its canonical form (`storage/format/payload.rs`), unstamped; for a trim eight bytes,
    /// little-endian: the first offset to keep.
    pub payload: Unstamped,
    /// Append only if this is the log's next offset.
    pub expected_offset: Option<Offset>,
    /// The producer's id; 0 without a producer.
    pub producer_id: u64,
    /// With a producer id: the producer's sequence, starting at 1.
    pub sequence: u64,
    /// With a producer id: the epoch in which the producer sends it.
    pub producer_epoch: u32,
    /// The append time of the records, if they are restored from a backup. `None`: the leader's clock.
    pub restored_append_time_us: Option<u64>,
    /// The position in a stream; `None` if the proposal does not depend on another one.
    pub in_stream: Option<StreamPosition>,
    /// Append only in this term. A forwarding node sets it, so that the proposal can't become an entry of a later term.
    pub term: Option<Term>,
    /// After this time the proposal is refused, or, if it was already proposed, answered with "outcome unknown".
    pub deadline: Option<Instant>,
}

/// Returns whether the records that begin at an expected offset are all below `end`.
pub fn ends_by(expected_offset: Option<Offset>, count: u32, end: Offset) -> bool {
    expected_offset.and_then(|first| first.plus(u64::from(count))).is_some_and(|next| next <= end)
}

impl Proposal {
    /// A proposal without conditions: at any offset, without a producer, a stream or a deadline.
    pub fn new(group: GroupId, kind: EntryKind, count: u32, payload: Unstamped) -> Proposal {
        Proposal {
            group,
            kind,
            count,
            payload,
            expected_offset: None,
            producer_id: 0,
            sequence: 0,
            producer_epoch: 0,
            restored_append_time_us: None,
            in_stream: None,
            term: None,
            deadline: None,
        }
    }

    /// Returns whether its records are expected to be below this offset.
    pub fn ends_by(&self, end: Offset) -> bool {
        ends_by(self.expected_offset, self.count, end)
    }

    /// A change of the producers or the cursors of a log.
    pub fn state(group: GroupId, command: &StateCommand) -> Proposal {
        Proposal::new(group, EntryKind::State, 0, command.encode().as_slice().into())
    }

    /// A trim: `first_offset` is the first offset to keep.
    pub fn trim(group: GroupId, first_offset: Offset) -> Proposal {
        Proposal::new(group, EntryKind::Trim, 0, encode_trim(first_offset).as_slice().into())
    }
}

/// Returns the proposal of a catalog entry with this command.
pub fn command_proposal(command: &Command) -> Proposal {
    Proposal::new(GroupId::CATALOG, EntryKind::Records, 1, command.payload())
}

/// The position of an appended proposal. Its entry is committed and visible on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset.
    pub offset: Offset,
    /// The number of records.
    pub count: u32,
    /// The term of its entry.
    pub term: Term,
    /// The index of its entry.
    pub index: LogIndex,
    /// The leader's clock, Unix microseconds.
    pub append_time_us: u64,
    /// True if an earlier request with the same sequence was appended, and this is the answer to it.
    pub duplicate: bool,
}

/// Why a proposal was not appended. All but `OutcomeUnknown` say that it was **not** appended and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// This node does not lead the group; the leader, if one is known.
    NotLeader {
        /// As far as this node knows.
        leader: Option<NodeId>,
    },
    /// The inbox, or the budget of uncommitted bytes, is full.
    QueueFull,
    /// The leader's disk is full.
    DiskFull,
    /// The entry is larger than the format allows.
    TooLarge,
    /// The leader is handing over leadership, another leader's entry has replaced the proposal, or the previous
    /// proposal of its stream was not appended.
    Dropped,
    /// It is not known whether the proposal was or will be appended.
    OutcomeUnknown,
    /// The deadline passed before it was proposed.
    DeadlinePassed,
    /// `expected_offset` is not the log's next offset.
    ExpectedOffset {
        /// The next offset of the log.
        next_offset: Offset,
    },
    /// A trim beyond the end of the log.
    PastEnd {
        /// The next offset of the log.
        next_offset: Offset,
    },
    /// The proposal does not fit the producers or the cursors of the log.
    State(StateRefusal),
    /// This member of the cluster does not support the proposed feature level.
    LevelUnsupported {
        /// The first one that the leader found.
        member: NodeId,
    },
    /// The leader does not hear from this member, so it does not know which feature levels the member supports now.
    MemberSilent {
        /// The first one that the leader found.
        member: NodeId,
    },
    /// A node that is to leave the cluster is needed: this group could not commit without it.
    NodeNeeded {
        /// The first one that the leader found.
        group: GroupId,
    },
    /// This node has no replica of the group.
    NoSuchGroup,
    /// The group is damaged on this node.
    Damaged,
    /// The node is stopping.
    Stopping,
}

/// Why a read index is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadIndexError {
    /// This node does not lead the group; the leader, if one is known.
    NotLeader {
        /// As far as this node knows.
        leader: Option<NodeId>,
    },
    /// Leadership was lost, or the deadline passed, before a majority confirmed it.
    Unconfirmed,
    /// The inbox is full.
    QueueFull,
    /// This node has no replica of the group.
    NoSuchGroup,
    /// The group is damaged on this node.
    Damaged,
    /// The node is stopping.
    Stopping,
}

/// The inbox of the `consensus` thread.
#[derive(Debug)]
pub enum ConsensusMsg {
    /// A proposal from a client of this node, or forwarded by a peer.
    Propose(Proposal, ReplySender<Result<Appended, ProposeError>>),
    /// A change of the catalog. Refused unless this node leads the catalog.
    Command(Command, FeatureRange, ReplySender<Result<Appended, ProposeError>>),
    /// A request for a linearizable position.
    ReadIndex(GroupId, Option<Instant>, ReplySender<Result<LogIndex, ReadIndexError>>),
    /// Messages to a peer were lost.
    Unreachable(NodeId),
    /// An append of a group to a node was dropped before it was sent.
    AppendDropped(GroupId, NodeId),
    /// A snapshot was handed to the network for a peer (`true`), or was lost.
    SnapshotSent(GroupId, NodeId, bool),
    /// Hand over leadership of every group that this node leads. Answered when it leads none, or no other node can
    /// lead.
    HandOver(ReplySender<()>),
    /// Hand over leadership of a group to the replica on a node, or to any that should lead. Answered at once with whether
    /// it has begun.
    Transfer(GroupId, Option<NodeId>, ReplySender<Result<(), TransferError>>),
    /// Fails all pending requests and ends the thread.
    Stop,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// This node does not lead the group.
    NotLeader {
        /// The node that leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The node has no replica that votes and was heard recently, or no other node has one.
    NoSuccessor,
    /// The queue is full.
    QueueFull,
    /// This node is stopping.
    Stopping,
}

impl ConsensusMsg {
    /// Returns true for requests that take little time. Those of the catalog may create replicas.
    pub(super) fn is_small(&self) -> bool {
        match self {
            ConsensusMsg::Propose(proposal, _) => {
                proposal.group != GroupId::CATALOG && proposal.payload.len() <= SMALL_BYTES_MAX
            }
            ConsensusMsg::ReadIndex(..) => true,
            _ => false,
        }
    }

    /// Returns the size of the records in the message.
    pub fn bytes(&self) -> usize {
        match self {
            ConsensusMsg::Propose(proposal, _) => proposal.payload.len(),
            ConsensusMsg::Command(..)
            | ConsensusMsg::ReadIndex(..)
            | ConsensusMsg::Unreachable(_)
            | ConsensusMsg::AppendDropped(..)
            | ConsensusMsg::SnapshotSent(..)
            | ConsensusMsg::HandOver(_)
            | ConsensusMsg::Transfer(..)
            | ConsensusMsg::Stop => 0,
        }
    }
}

/// The sending side of the inbox. Clones send to the same thread.
#[derive(Clone, Debug)]
pub struct ConsensusHandle {
    inbox: Outbox<ConsensusMsg>,
    peers: Arc<PeerInbox>,
    waker: ConsensusWaker,
    statuses: Arc<Statuses>,
    peer_clocks: PeerClocks,
}

impl ConsensusHandle {
    /// Creates a handle to the thread that reads this inbox.
    pub fn new(inbox: Outbox<ConsensusMsg>, waker: ConsensusWaker, statuses: Arc<Statuses>) -> ConsensusHandle {
        ConsensusHandle { inbox, peers: Arc::default(), waker, statuses, peer_clocks: PeerClocks::default() }
    }

    /// Proposes an entry. The answer is sent once the entry is committed and visible here, or known not to be appended.
    pub fn propose(&self, proposal: Proposal) -> ReplyReceiver<Result<Appended, ProposeError>> {
        let (tx, rx) = reply();
        self.request(ConsensusMsg::Propose(proposal, tx));
        rx
    }

    /// Proposes a change of the catalog, as [`ConsensusHandle::propose`] does for a log. A command that would change
    /// nothing fails with [`ProposeError::Dropped`]. `supported` are the feature levels of the node that asks for it.
    pub fn command(&self, command: Command, supported: FeatureRange) -> ReplyReceiver<Result<Appended, ProposeError>> {
        let (tx, rx) = reply();
        self.request(ConsensusMsg::Command(command, supported, tx));
        rx
    }

    /// Requests a read index, if this node leads the group. A node that has applied this index shows everything that
    /// was acknowledged before this call.
    pub fn read_index(
        &self,
        group: GroupId,
        deadline: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        let (tx, rx) = reply();
        self.request(ConsensusMsg::ReadIndex(group, deadline, tx));
        rx
    }

    /// Returns the clocks that peers sent with their messages.
    pub fn peer_clocks(&self) -> &PeerClocks {
        &self.peer_clocks
    }

    /// Queues messages from a peer. Messages over the budget are dropped, and raft sends them again.
    pub fn peer(&self, from: NodeId, messages: Vec<RaftMessage>) {
        self.peers.put(from, messages);
        self.waker.run_or_wake(Work::Messages);
    }

    /// Waits until there is room for the bulk messages of a peer.
    pub async fn bulk_room(&self) {
        std::future::poll_fn(|cx| self.peers.poll_bulk_room(cx)).await;
    }

    /// Returns the queue of peers' messages.
    pub(crate) fn peer_inbox(&self) -> Arc<PeerInbox> {
        self.peers.clone()
    }

    /// Returns the number of peers' messages that were dropped since the process started, because their queue was full.
    pub fn peer_messages_dropped(&self) -> u64 {
        self.peers.dropped()
    }

    /// Reports that the process of `node` has ended, after all of its messages were queued. The report is never
    /// dropped.
    pub fn gone(&self, node: NodeId) {
        self.peers.put_gone(node);
        self.waker.wake();
    }

    /// Reports that messages to `node` were lost.
    pub fn unreachable(&self, node: NodeId) {
        self.tell(ConsensusMsg::Unreachable(node));
    }

    /// Reports that an append of `group` to `node` was dropped before it was sent.
    pub fn append_dropped(&self, group: GroupId, node: NodeId) {
        self.tell(ConsensusMsg::AppendDropped(group, node));
    }

    /// Reports that a snapshot for `node` was handed to the network, or was lost.
    pub fn snapshot_sent(&self, group: GroupId, node: NodeId, arrived: bool) {
        self.tell(ConsensusMsg::SnapshotSent(group, node, arrived));
    }

    /// Starts to hand over leadership of all groups. The answer is sent when this is done or impossible, or if the
    /// thread has failed.
    pub fn hand_over(&self) -> ReplyReceiver<()> {
        let (tx, rx) = reply();
        self.inbox.send(ConsensusMsg::HandOver(tx));
        self.waker.wake_for_request();
        rx
    }

    /// Starts to hand over leadership of a group, to a node or to any that should lead.
    pub fn transfer(&self, group: GroupId, to: Option<NodeId>) -> ReplyReceiver<Result<(), TransferError>> {
        let (tx, rx) = reply();
        self.request(ConsensusMsg::Transfer(group, to, tx));
        rx
    }

    /// Tells the thread to fail what is pending and to end.
    pub fn stop(&self) {
        self.inbox.send(ConsensusMsg::Stop);
        self.waker.wake_for_request();
    }

    /// Returns the damage of this node's replica of a group, if it could not be opened.
    pub fn lost(&self, group: GroupId) -> Option<Arc<str>> {
        self.statuses.lost(group)
    }

    /// Returns the status of a group of which this node has a replica that could be opened.
    pub fn status(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        self.statuses.get(group)
    }

    /// Returns true for a node that has sent no heartbeat for an election timeout.
    pub fn is_silent(&self, node: NodeId) -> bool {
        self.statuses.is_silent(node)
    }

    /// Returns what a group's lagging followers lack, if this node leads the group.
    pub fn behind(&self, group: GroupId) -> Option<Arc<[(NodeId, Behind)]>> {
        self.statuses.behind(group)
    }

    /// Returns the status of every group of which this node has a replica, ordered by id.
    pub fn all_statuses(&self) -> Vec<Arc<GroupStatus>> {
        self.statuses.all()
    }

    /// Sends a message that may be dropped when the inbox is full.
    fn tell(&self, message: ConsensusMsg) {
        let _ = self.inbox.try_send(message);
        self.waker.wake_for_request();
    }

    /// Sends a request. If the inbox is full or closed, the request is refused at once.
    fn request(&self, message: ConsensusMsg) {
        let is_small = message.is_small();
        let (message, full) = match self.inbox.try_send(message) {
            Ok(()) if is_small => return self.waker.run_or_wake_or_gather(self.inbox.len()),
            Ok(()) => return self.waker.wake_for_request(),
            Err(TrySendError::Full(m)) => (m, true),
            Err(TrySendError::Disconnected(m)) => (m, false),
        };
        let propose = if full { ProposeError::QueueFull } else { ProposeError::Stopping };
        let read = if full { ReadIndexError::QueueFull } else { ReadIndexError::Stopping };
        match message {
            ConsensusMsg::Propose(_, reply) | ConsensusMsg::Command(_, _, reply) => reply.send(Err(propose)),
            ConsensusMsg::ReadIndex(_, _, reply) => reply.send(Err(read)),
            ConsensusMsg::Transfer(_, _, reply) => {
                reply.send(Err(if full { TransferError::QueueFull } else { TransferError::Stopping }));
            }
            _ => {}
        }
    }
}
