//! What is checked of a peer's message before raft sees it.
//!
//! raft compares the term of one entry with each append, and trusts that all earlier entries are equal. They are not if a
//! disk has lost or changed synced data. A follower that continues then acknowledges entries that it never compared, and
//! two nodes return different records for the same offset. So this is checked before raft sees a leader's message:
//!
//! - the entries of an append that are committed here must have the same terms, and so must the one before them, or the one that
//!   a snapshot is of;
//! - a leader has every entry that was committed in earlier terms, so its log must not end before the last such entry here;
//! - the running digests at the same committed index must be equal ([`crate::storage::digest`]);
//! - an append comes with the leader's digest at the entry that it follows. That digest, continued over the entries of the append
//!   that are already here, must be equal to the digest here: two entries with the same index and term may differ if a node
//!   whose disk was restored leads the same term twice. Without this proof only what is committed at the leader is acknowledged.
//!
//! Messages arrive late, twice, and several of them between two Readies. So what raft has taken is compared, not what the store
//! contains of it. A digest of an entry that is not in the store yet is compared after the write, before any acknowledgement of it.
//!
//! A replica that differs is damaged and takes no part, and its status names where it begins to differ. This node cannot
//! tell which of the two is right; a majority that agrees continues.

use raft::eraftpb::{Message, MessageType};

use super::node::RaftNode;
use super::settings::ELECTION_TICKS;
use crate::consensus::claim::{Checkpoint, Claim};
use crate::consensus::compare::Compared;
use crate::consensus::wire;
use crate::storage::digest::Digest;
use crate::storage::log::Base;
use crate::types::{LogIndex, NodeId, Term};

/// True for a message that only a leader sends, from another node than the leader of its term. A term has one leader; raft would
/// follow any node that claims to be it. A leader that has been silent for the longest election timeout is not protected: a learner never
/// campaigns, so nothing else would make it forget a wrong one.
pub fn leads_another(node: &RaftNode, message: &Message) -> bool {
    let from_leader = match message.get_msg_type() {
        MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => true,
        // Also if no leader is known: it would make this node campaign.
        MessageType::MsgTimeoutNow => return node.leader() != Some(NodeId(message.from)),
        _ => false,
    };
    from_leader
        && message.term == node.raft.term
        && node.raft.election_elapsed < 2 * ELECTION_TICKS
        && node.leader().is_some_and(|leader| leader.0 != message.from)
}

/// How a leader's message contradicts what is committed here, if it does. `claimed_last` is the leader's last index.
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

/// A leader's heartbeat never contains a commit index beyond what this node has acknowledged: entries were lost here.
fn lost_acknowledged(node: &RaftNode, message: &Message) -> Option<String> {
    let (leader, commit, last_index) = (NodeId(message.from), message.commit, node.last_index());
    let lost = message.get_msg_type() == MessageType::MsgHeartbeat && commit > last_index.0;
    lost.then(|| {
        format!(
            "the leader, node {leader}, says that entry {commit} was acknowledged here, but the last index is {last_index}"
        )
    })
}

/// A leader has every entry that was committed in an earlier term. (An old message may claim less of its own term.)
fn missing_at_leader(node: &RaftNode, message: &Message, claimed_last: Option<LogIndex>) -> Option<String> {
    let earlier = node.last_before_term(Term(message.term)).min(node.commit_index());
    let last = claimed_last.filter(|last| *last < earlier)?;
    Some(format!(
        "this replica differs from that of node {}, the leader: entry {earlier} is committed here, but the leader's log \
         ends with entry {last}",
        NodeId(message.from)
    ))
}

/// An entry that is committed here has the same term at every leader.
fn other_term(node: &RaftNode, message: &Message) -> Option<String> {
    let log = &node.raft.raft_log;
    let snapshot = message.get_snapshot().get_metadata();
    let before = match message.get_msg_type() {
        MessageType::MsgAppend => (message.index, message.log_term),
        MessageType::MsgSnapshot => (snapshot.index, snapshot.term),
        _ => return None,
    };
    let entries = message.entries.iter().map(|e| (e.index, e.term));
    let here = std::iter::once(before).chain(entries).take_while(|(index, _)| *index <= log.committed);
    // raft returns term 0 for entries before its first one. Its log begins after a snapshot as soon as it has taken one.
    let base = log.first_index() - 1;
    here.into_iter().find_map(|(index, term)| {
        let ours = log.term(index).ok().filter(|ours| *ours != term && index >= base)?;
        Some(format!(
            "this replica differs from that of node {}, the leader: entry {index} is committed here with term {ours}, but \
             has term {term} there",
            NodeId(message.from)
        ))
    })
}

/// The end of the leader's log as of the last entry of an append that raft already has here (same index and term), or of the
/// one that the append follows; of a snapshot, as of its last entry. raft keeps its own entries then, so the leader's digest
/// must be equal to the digest here. `None` if raft does not have the entry that the message follows, or the leader did not
/// send its digest.
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
    let mut end = Some(start).filter(|start| node.holds(start.index, start.term))?;
    for entry in message.entries.iter().take_while(|e| node.holds(LogIndex(e.index), Term(e.term))) {
        end = end.then(&wire::entry_to_storage(entry, end.offset)).ok()?;
    }
    Some(end)
}

/// Steps a message that contradicts nothing here. For an append or a snapshot that begins before the commit index, raft
/// acknowledges everything up to the commit index, compared or not. This acknowledges only what the message itself proves to
/// be the same. If it proves nothing, only what is committed at the leader: that needs no more acknowledgements. Without
/// `caps` raft's answer stays as it is.
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
    let said = node.raft.msgs.len();
    if let Err(error) = node.step(message) {
        log::debug!("group {}: raft ignored a message: {error}", node.group());
    }
    let new = node.raft.msgs.get_mut(said..).unwrap_or_default();
    for answer in new.iter_mut().filter(|m| caps && m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject) {
        answer.index = answer.index.min(compared);
    }
}

/// True for an acknowledgement of entries that this leader does not have. Counting it would commit entries that are on no
/// other disk.
pub fn acknowledges_too_much(node: &RaftNode, message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgAppendResponse
        && !message.reject
        && node.is_leader()
        && message.term == node.raft.term
        && message.index > node.raft.raft_log.last_index()
}

/// True for an acknowledgement of entries that are others here, as their digest says: a leader whose disk was restored may lead
/// the same term again while it is on its way. `digest_at` returns the digest here.
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
