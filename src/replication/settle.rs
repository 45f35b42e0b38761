//! Determines the outcome of unanswered jobs from the log, after another leader was elected.
//!
//! A proposal is forwarded for one term: either the leader of that term appends it, or no node does. Terms never
//! decrease along a log. So once an entry of a later term is applied here, every entry of the earlier term that is or
//! ever will be committed is applied here as well. A proposal that is not among them was not appended and never will
//! be.

use std::time::{Duration, Instant};

use crate::consensus::handle::GroupStatus;
use crate::replication::node::LocalNode;
use crate::replication::unanswered::UnansweredJobs;
use crate::storage::entry::Entry;
use crate::storage::reader::Access;
use crate::types::{GroupId, LogIndex, NodeId, Term};

/// The longest wait for the first entry of a new term, after an election. Then the outcome is unknown.
const FIRST_ENTRY_MAX: Duration = Duration::from_secs(2);
/// The maximum size of the part of the log that is searched for proposals.
const SEARCH_BYTES_MAX: u64 = 64 << 20;

/// Answers the jobs of `peer` whose outcome is certain because another node leads.
pub(super) fn settle(unanswered: &mut UnansweredJobs, peer: NodeId, node: &LocalNode, now: Instant) {
    for group in unanswered.groups() {
        let Some(status) = node.consensus.get().and_then(|consensus| consensus.status(group)) else { continue };
        if status.leader.is_some_and(|leader| leader != peer) {
            unanswered.fail_reads(group);
            unanswered.limit_wait(group, status.term, now + FIRST_ENTRY_MAX);
        }
        if let Some((low, term)) = unanswered.overtaken(group, status.applied_term) {
            let entries = entries(node, &status, low, term);
            log::info!(
                "group {group}: node {peer} led term {term} and does not answer: the log of term {} shows what was appended",
                status.applied_term
            );
            unanswered.settle(group, status.applied_term, entries.as_deref());
        }
    }
}

/// Returns the applied entries from `low` on, of `term` and later terms. `None` if they can't be read, are too large
/// together, or may differ from those of other replicas.
fn entries(node: &LocalNode, status: &GroupStatus, low: LogIndex, term: Term) -> Option<Vec<Entry>> {
    if status.damage.is_some() {
        return None;
    }
    let log = node.logs.all().into_iter().find(|log| log.group == status.group && log.group != GroupId::CATALOG)?;
    let end = status.applied_index.next();
    let (mut low, mut bytes) = (low, 0);
    let mut all: Vec<Entry> = Vec::new();
    while low < end && all.last().is_none_or(|last| last.term < status.applied_term) {
        let more = log.reader.entries(low, end, SEARCH_BYTES_MAX - bytes, Access::Blocking).ok()?;
        let mut expected = low;
        for entry in &more {
            if entry.index != expected {
                return None;
            }
            expected = expected.next();
        }
        bytes += more.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        if expected == low {
            return None;
        }
        low = expected;
        all.extend(more.into_iter().filter(|entry| entry.term >= term));
        if bytes >= SEARCH_BYTES_MAX {
            return None;
        }
    }
    Some(all)
}
