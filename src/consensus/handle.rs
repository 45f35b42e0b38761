//! The interface of the `consensus` thread: the messages of its inbox, and the answers.
//!
//! The inbox is bounded: requests are refused when it is full ([`ProposeError::QueueFull`]). Messages from peers have a
//! separate queue (`peer_inbox.rs`), and are dropped if they exceed its budget (raft sends again). Requests are answered by
//! one-shot replies.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::TrySendError;

use super::peer_inbox::PeerInbox;
use super::status::Statuses;
pub use super::status::{GroupStatus, Role};
use crate::catalog::Command;
use crate::clock::PeerClocks;
use crate::doorbell::Doorbell;
use crate::inbox::Outbox;
use crate::log_state::encode_trim;
use crate::pb::peer::RaftMessage;
use crate::reply::{ReplyReceiver, ReplySender, reply};
use crate::storage::entry::{EntryKind, Unstamped};
use crate::types::{GroupId, LogIndex, NodeId, Offset, StreamId, Term};

/// The inbox of `consensus` holds this many messages. When it is full, produce requests are refused. Its bytes are
/// those of the clients' requests in flight (`bytes_max`), and 16 MiB for each peer that forwards.
pub const INBOX_MESSAGES_MAX: usize = 4096;

/// The place of a proposal in a run of its stream: it is appended only after the previous one (`sequences.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The run's id. A new run begins when all earlier requests of the stream are answered.
    pub stream: StreamId,
    /// The position in its run, from 0, without gaps.
    pub sequence: u64,
}

/// One entry for a log: records of a client, or a trim. Its offsets and times are stamped when it is appended.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The group of the log.
    pub group: GroupId,
    /// [`EntryKind::Records`] or [`EntryKind::Trim`]; others are consensus's own.
    pub kind: EntryKind,
    /// The number of records in the payload; 0 for a trim.
    pub count: u32,
    /// The payload in its canonical form (`storage/format/payload.rs`), unstamped; for a trim eight bytes, little-endian: the first offset to keep.
    pub payload: Unstamped,
    /// Append only if this is the log's next offset.
    pub expected_offset: Option<Offset>,
    /// 0 without a producer.
    pub producer_id: u64,
    /// With a producer id: from 1.
    pub sequence: u64,
    /// `None` if it does not depend on another proposal.
    pub in_stream: Option<StreamPosition>,
    /// Append it in this term only. A forwarding node sets it, so that entries of a later term can't contain the proposal.
    pub term: Option<Term>,
    /// After this moment it is not proposed any more; once proposed the answer is "outcome unknown".
    pub deadline: Option<Instant>,
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
            in_stream: None,
            term: None,
            deadline: None,
        }
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

/// The place of an appended proposal. It is committed and visible on this node.
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
    /// The leader is handing over, or another leader's entry has taken its place, or the previous request of its stream was not
    /// appended.
    Dropped,
    /// It may have been appended, or not.
    OutcomeUnknown,
    /// The deadline passed before it was proposed.
    DeadlinePassed,
    /// `expected_offset` is not the log's next offset.
    ExpectedOffset {
        /// The next offset of the log.
        next_offset: Offset,
    },
    /// A trim beyond the end.
    PastEnd {
        /// The next offset of the log.
        next_offset: Offset,
    },
    /// This member of the cluster is not known to support the proposed feature level.
    LevelUnsupported {
        /// The first one that the leader found.
        member: NodeId,
    },
    /// This node does not carry the group.
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
    /// This node does not carry the group.
    NoSuchGroup,
    /// The group is damaged on this node.
    Damaged,
    /// The node is stopping.
    Stopping,
}

/// The inbox of the `consensus` thread.
#[derive(Debug)]
pub enum ConsensusMsg {
    /// A proposal of this node's clients or of a peer.
    Propose(Proposal, ReplySender<Result<Appended, ProposeError>>),
    /// A change of the catalog. Proposed by its leader, else refused.
    Command(Command, ReplySender<Result<Appended, ProposeError>>),
    /// A request for a linearizable position.
    ReadIndex(GroupId, Option<Instant>, ReplySender<Result<LogIndex, ReadIndexError>>),
    /// Messages to a peer were lost.
    Unreachable(NodeId),
    /// A snapshot was handed to the network for a peer (`true`), or was lost.
    SnapshotSent(GroupId, NodeId, bool),
    /// Hand over leadership of every group that this node leads. Answered when it leads none, or no other node can lead.
    HandOver(ReplySender<()>),
    /// Fail what is pending and end.
    Stop,
}

impl ConsensusMsg {
    /// The bytes of the records in it.
    pub fn bytes(&self) -> usize {
        match self {
            ConsensusMsg::Propose(proposal, _) => proposal.payload.len(),
            ConsensusMsg::Command(..)
            | ConsensusMsg::ReadIndex(..)
            | ConsensusMsg::Unreachable(_)
            | ConsensusMsg::SnapshotSent(..)
            | ConsensusMsg::HandOver(_)
            | ConsensusMsg::Stop => 0,
        }
    }
}

/// The sending side of the inbox; a clone sends to the same thread.
#[derive(Clone, Debug)]
pub struct ConsensusHandle {
    inbox: Outbox<ConsensusMsg>,
    peers: Arc<PeerInbox>,
    bell: Doorbell,
    statuses: Arc<Statuses>,
    peer_clocks: PeerClocks,
}

impl ConsensusHandle {
    /// A handle to the thread that reads this inbox.
    pub fn new(inbox: Outbox<ConsensusMsg>, bell: Doorbell, statuses: Arc<Statuses>) -> ConsensusHandle {
        ConsensusHandle { inbox, peers: Arc::default(), bell, statuses, peer_clocks: PeerClocks::default() }
    }

    /// Proposes an entry. It is answered once it is committed and visible here, or known not to be.
    pub fn propose(&self, proposal: Proposal) -> ReplyReceiver<Result<Appended, ProposeError>> {
        let (tx, rx) = reply();
        self.request(ConsensusMsg::Propose(proposal, tx));
        rx
    }

    /// Proposes a change of the catalog, as [`ConsensusHandle::propose`] does for a log. One that would change nothing is
    /// answered [`ProposeError::Dropped`].
    pub fn command(&self, command: Command) -> ReplyReceiver<Result<Appended, ProposeError>> {
        let (tx, rx) = reply();
        self.request(ConsensusMsg::Command(command, tx));
        rx
    }

    /// Asks the group's leader, if it is this node, for a position. Once that position is applied on a node, everything that was
    /// acknowledged before this call is visible there.
    pub fn read_index(
        &self,
        group: GroupId,
        deadline: Option<Instant>,
    ) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        let (tx, rx) = reply();
        self.request(ConsensusMsg::ReadIndex(group, deadline, tx));
        rx
    }

    /// The clocks that peers sent with their messages.
    pub fn peer_clocks(&self) -> &PeerClocks {
        &self.peer_clocks
    }

    /// Hands over messages from a peer. Those over the budget are dropped: raft sends again.
    pub fn peer(&self, from: NodeId, messages: Vec<RaftMessage>) {
        self.peers.put(from, messages);
        self.bell.ring();
    }

    /// The queue of peers' messages.
    pub(crate) fn peer_inbox(&self) -> Arc<PeerInbox> {
        self.peers.clone()
    }

    /// The number of peers' messages dropped since the process started, because their queue was full.
    pub fn peer_messages_dropped(&self) -> u64 {
        self.peers.dropped()
    }

    /// Messages to `node` were lost.
    pub fn unreachable(&self, node: NodeId) {
        self.tell(ConsensusMsg::Unreachable(node));
    }

    /// A snapshot for `node` was handed to the network, or lost.
    pub fn snapshot_sent(&self, group: GroupId, node: NodeId, arrived: bool) {
        self.tell(ConsensusMsg::SnapshotSent(group, node, arrived));
    }

    /// Starts handing leadership over; answered when that is done or impossible, or the thread has failed.
    pub fn hand_over(&self) -> ReplyReceiver<()> {
        let (tx, rx) = reply();
        self.inbox.send(ConsensusMsg::HandOver(tx));
        self.bell.ring();
        rx
    }

    /// Tells the thread to fail what is pending and to end.
    pub fn stop(&self) {
        self.inbox.send(ConsensusMsg::Stop);
        self.bell.ring();
    }

    /// What this node knows of a group it carries.
    pub fn status(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        self.statuses.get(group)
    }

    /// What this node knows of all groups that it carries, by id.
    pub fn all_statuses(&self) -> Vec<Arc<GroupStatus>> {
        self.statuses.all()
    }

    /// Sends what may be dropped when the inbox is full.
    fn tell(&self, message: ConsensusMsg) {
        let _ = self.inbox.try_send(message);
        self.bell.ring();
    }

    /// Sends a request that may be refused; a refusal is answered at once.
    fn request(&self, message: ConsensusMsg) {
        let (message, full) = match self.inbox.try_send(message) {
            Ok(()) => return self.bell.ring(),
            Err(TrySendError::Full(m)) => (m, true),
            Err(TrySendError::Disconnected(m)) => (m, false),
        };
        let propose = if full { ProposeError::QueueFull } else { ProposeError::Stopping };
        let read = if full { ReadIndexError::QueueFull } else { ReadIndexError::Stopping };
        match message {
            ConsensusMsg::Propose(_, reply) | ConsensusMsg::Command(_, reply) => reply.send(Err(propose)),
            ConsensusMsg::ReadIndex(_, _, reply) => reply.send(Err(read)),
            _ => {}
        }
    }
}
