//! Checks of a peer's message before raft processes it.
//!
//! For each append, raft compares the term of one entry and trusts that all earlier entries are equal. This does not
//! hold if a disk has lost or changed synced data. The follower would then acknowledge entries that it never
//! compared, and two nodes would return different records for the same offset. So a leader's message is checked
//! first:
//!
//! - **Terms.** Entries of an append that are committed on this node must have the same terms here. So must the entry
//!   that the append follows, and the last entry of a snapshot.
//! - **Completeness.** A leader has every entry that was committed in earlier terms. So its log must not end before
//!   the last such entry of this node.
//! - **Digests of committed entries.** The running digests at the same committed index must be equal
//!   ([`crate::storage::digest`]).
//! - **Digests of appended entries.** An append carries the leader's digest at the entry that it follows. That digest
//!   is continued over the entries of the append that this node already has, and must then equal the digest here.
//!   (Two entries with the same index and term may differ if a node whose disk was restored leads the same term
//!   twice.) Without this proof, only entries that are committed at the leader are acknowledged.
//!
//! Messages can arrive late or twice, and several of them can arrive between two Readies. So the checks use raft's
//! log, not the store, which may lag behind it. The digest of an entry that is not in the store yet is compared after
//! the write, and before the entry is acknowledged.
//!
//! A replica that differs is damaged: it takes no part, and its status names where the difference begins. This node
//! can't tell which of the two replicas is correct. A majority that agrees continues.

use raft::eraftpb::{Message, MessageType};

use super::node::RaftNode;
use super::settings::ELECTION_TICKS;
use crate::catalog::faults::{Fault, broken};
use crate::consensus::claim::{Checkpoint, Claim};
use crate::consensus::compare::Compared;
use crate::consensus::wire;
use crate::storage::digest::Digest;
use crate::storage::log::Base;
use crate::types::{LogIndex, ReplicaId, Term};

/// Why a peer's message is rejected. No correct node sends such messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStep {
    /// [`TermJumps`] rejects it.
    #[error("term {0}, far beyond term {1} here")]
    FarTerm(u64, Term),
    /// Another node already leads the term, and a term has one leader.
    #[error("a leader's message in term {0}, which another node leads")]
    OtherLeader(u64),
    /// Counting it would commit entries that are on no disk.
    #[error("an acknowledgement of entry {0}, but the last index here is {1}")]
    AcknowledgesTooMuch(u64, LogIndex),
}

/// Returns true if only a leader sends such a message, and the sender is not the leader of the message's term. A term
/// has one leader, but raft would follow any node that claims to be it.
///
/// If the known leader has been silent for the longest election timeout, another one is accepted. Otherwise a
/// learner, which never campaigns, would follow a wrong leader forever.
pub fn leads_another(node: &RaftNode, message: &Message) -> bool {
    let from_leader = match message.get_msg_type() {
        MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => true,
        // Also rejected if no leader is known, because it makes this node campaign.
        MessageType::MsgTimeoutNow => return node.leader() != Some(ReplicaId(message.from)),
        _ => false,
    };
    from_leader
        && message.term == node.raft.term
        && node.raft.election_elapsed < 2 * ELECTION_TICKS
        && node.leader().is_some_and(|leader| leader.0 != message.from)
}

/// Returns true for a candidate's request.
fn asks_for_vote(message: &Message) -> bool {
    matches!(message.get_msg_type(), MessageType::MsgRequestPreVote | MessageType::MsgRequestVote)
}

/// Returns how a leader's message contradicts the committed entries of this node, if it does. `claimed_last` is the
/// last index that the leader claims.
pub fn contradiction(node: &RaftNode, message: &Message, claimed_last: Option<LogIndex>) -> Option<String> {
    let from_leader =
        matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
    if !from_leader || message.term < node.raft.term {
        return None;
    }
    let lost = || lost_acknowledged(node, message);
    let missing = || missing_at_leader(node, message, claimed_last);
    lost().or_else(missing).or_else(|| other_term(node, message))
}

/// Checks a heartbeat's commit index. It never exceeds what this node has acknowledged, unless this node has lost
/// entries.
fn lost_acknowledged(node: &RaftNode, message: &Message) -> Option<String> {
    let (leader, commit, last_index) = (node.node_text(ReplicaId(message.from)), message.commit, node.last_index());
    let lost = message.get_msg_type() == MessageType::MsgHeartbeat && commit > last_index.0;
    lost.then(|| {
        format!(
            "the leader, node {leader}, says that entry {commit} was acknowledged here, but the last index is {last_index}"
        )
    })
}

/// Checks that the leader has every entry that was committed in an earlier term. (Of its own term, a delayed message
/// may claim fewer entries than were committed since.)
fn missing_at_leader(node: &RaftNode, message: &Message, claimed_last: Option<LogIndex>) -> Option<String> {
    let earlier = node.last_before_term(Term(message.term)).min(node.commit_index());
    let last = claimed_last.filter(|last| *last < earlier)?;
    Some(format!(
        "this replica differs from that of node {}, the leader: entry {earlier} is committed here, but the leader's log \
         ends with entry {last}",
        node.node_text(ReplicaId(message.from))
    ))
}

/// Checks that entries which are committed here have the same term at the leader.
fn other_term(node: &RaftNode, message: &Message) -> Option<String> {
    let log = &node.raft.raft_log;
    let snapshot = message.get_snapshot().get_metadata();
    let before = match message.get_msg_type() {
        MessageType::MsgAppend => (message.index, message.log_term),
        MessageType::MsgSnapshot => (snapshot.index, snapshot.term),
        _ => return None,
    };
    let entries = message.entries.iter().map(|e| (e.index, e.term));
    let present = std::iter::once(before).chain(entries).take_while(|(index, _)| *index <= log.committed);
    // raft returns term 0 for entries before its first one. Once raft has accepted a snapshot, its log begins after
    // the snapshot.
    let base = log.first_index() - 1;
    present.into_iter().find_map(|(index, term)| {
        let ours = log.term(index).ok().filter(|ours| *ours != term && index >= base)?;
        Some(format!(
            "this replica differs from that of node {}, the leader: entry {index} is committed here with term {ours}, but \
             has term {term} there",
            node.node_text(ReplicaId(message.from))
        ))
    })
}

/// Returns the position and digest of the leader's log at the last entry of the message that raft already has here
/// (same index and term). This can be an entry of an append, the entry that the append follows, or the last entry of
/// a snapshot. raft keeps its own entries up to there, so the leader's digest must equal the digest here.
///
/// `None` if raft does not have the entry that the message follows, or if the leader did not send its digest.
pub fn leader_end(node: &RaftNode, message: &Message, before: Option<&Checkpoint>) -> Option<Base> {
    let start = match message.get_msg_type() {
        MessageType::MsgAppend => {
            let before = before.filter(|before| before.index.0 == message.index)?;
            let term = Term(message.log_term);
            Base { index: before.index, term, offset: before.offset, digest: before.digest }
        }
        MessageType::MsgSnapshot => wire::snapshot_from_raft(message.get_snapshot()).ok()?.base,
        _ => return None,
    };
    let mut end = Some(start).filter(|start| node.has_entry(start.index, start.term))?;
    for entry in message.entries.iter().take_while(|e| node.has_entry(LogIndex(e.index), Term(e.term))) {
        end = end.then(&wire::entry_to_storage(entry, end.offset)).ok()?;
    }
    Some(end)
}

/// Steps a message that passed the checks. If an append or a snapshot begins before the commit index, raft
/// acknowledges all entries up to the commit index, even those that were not compared. This function lowers the
/// acknowledged index to the last entry that the message proves to be equal. If it proves nothing, only entries that
/// are committed at the leader are acknowledged, which no longer affects the commit index. If `caps` is false, raft's
/// answer is not changed.
pub fn step_compared(node: &mut RaftNode, message: Message, compared: Compared, caps: bool) {
    let end = match message.get_msg_type() {
        MessageType::MsgSnapshot => message.get_snapshot().get_metadata().index,
        _ => message.index.saturating_add(message.entries.len() as u64),
    };
    let compared = match compared {
        Compared::Unknown if message.get_msg_type() == MessageType::MsgAppend => end.min(message.commit),
        Compared::Unknown | Compared::Equal => end,
    };
    let shows = matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgSnapshot);
    let caps = shows && caps;
    let queued = node.raft.msgs.len();
    if broken(Fault::DeposedByRumour) && asks_for_vote(&message) && !node.is_leader() {
        node.step_down();
    }
    if let Err(error) = node.step(message) {
        log::debug!("group {}: raft ignored a message: {error}", node.group());
    }
    let new = node.raft.msgs.get_mut(queued..).unwrap_or_default();
    for answer in new.iter_mut().filter(|m| caps && m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject) {
        answer.index = answer.index.min(compared);
    }
}

/// Returns true for an acknowledgement of entries that this leader does not have. Counting it would commit entries
/// that are on no other disk.
pub fn acknowledges_too_much(node: &RaftNode, message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgAppendResponse
        && !message.reject
        && node.is_leader()
        && message.term == node.raft.term
        && message.index > node.raft.raft_log.last_index()
}

/// Returns true for an acknowledgement of entries that differ from those here, according to their digest. This
/// happens if a leader's disk was restored and it leads the same term again while an old acknowledgement is in
/// flight. `digest_at` returns the digest here.
pub fn acknowledges_others(
    node: &RaftNode,
    message: &Message,
    claim: Option<&Claim>,
    digest_at: impl FnOnce(LogIndex) -> Option<Digest>,
) -> bool {
    let acknowledges = message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject;
    let counts = acknowledges && node.is_leader() && message.term == node.raft.term;
    let theirs = claim.and_then(|claim| claim.before).filter(|at| counts && at.index.0 == message.index);
    theirs.is_some_and(|theirs| digest_at(theirs.index).is_some_and(|ours| ours != theirs.digest))
}
