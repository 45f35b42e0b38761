//! Handling of raft's Readies: entries and hard state are written, messages wait until they may be sent.
//!
//! A follower's promises (votes, acknowledgements) wait until the Ready that they belong to is synced. Messages that promise
//! nothing (heartbeat responses, rejections, pre-vote requests) wait only until their term is synced, so that a node with a
//! slow disk does not look dead.

use std::collections::VecDeque;

use raft::eraftpb::{Message, MessageType};

use super::effects::Write;
use super::group::Group;
use super::wire;
use crate::storage::log::LogSnapshot;
use crate::types::{GroupId, LogIndex};
use crate::watermark::Mark;

/// True for messages that only say "alive, in this term" or reject something: they stay valid whatever else than the term a
/// crash loses.
fn promises_nothing(message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgHeartbeatResponse | MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => {
            true
        }
        MessageType::MsgAppendResponse | MessageType::MsgRequestVoteResponse => message.reject,
        _ => false,
    }
}

/// What a Ready needs before it counts as persisted.
#[derive(Debug, Default)]
pub(super) struct Persistence {
    /// The newest Ready.
    pub last: u64,
    /// The newest Ready that must be synced.
    pub last_needed: u64,
    /// The newest Ready that set the term or the vote.
    pub last_vote: u64,
    /// The log-writer has synced everything up to this Ready.
    pub synced: u64,
    /// The terms that Readies set (number, term), until they are synced.
    pub terms: VecDeque<(u64, u64)>,
    /// The newest synced term.
    pub term: u64,
    /// Ticks since the log-writer made progress while something waited for it.
    pub stalled_ticks: usize,
}

impl Group {
    /// Everything up to this Ready is synced.
    pub fn persisted(&mut self, ready: u64) {
        if self.damage.is_some() {
            return;
        }
        self.persistence.synced = self.persistence.synced.max(ready);
        self.persistence.stalled_ticks = 0;
        self.settle();
    }

    /// Sends the messages that waited for persisted Readies. A Ready that needs no sync counts as persisted once all earlier
    /// ones are.
    fn settle(&mut self) {
        let p = &mut self.persistence;
        let done = if p.last_needed <= p.synced { p.last } else { p.synced };
        self.node.on_persist_ready(done);
        while let Some((ready, term)) = p.terms.front().copied().filter(|(ready, _)| *ready <= done) {
            p.term = term;
            p.terms.pop_front();
            log::trace!("term {term} persisted with Ready {ready}");
        }
        while self.held.front().is_some_and(|(ready, _)| *ready <= done) {
            self.out.messages.extend(self.held.pop_front().map(|(_, m)| m).unwrap_or_default());
        }
        let term = p.term;
        self.out.messages.extend(self.held_for_term.extract_if(.., |m| m.term <= term));
        if let Some((_, mark)) = self.installing.take_if(|(ready, _)| *ready <= done) {
            self.node.advance_apply_to(mark.applied.0);
            self.mark = mark;
            self.out.mark = Some(mark);
        }
    }

    pub(super) fn handle_ready(&mut self) {
        let mut ready = self.node.ready();
        let number = ready.number();
        let mut write = Write::default();
        if let Some(hard_state) = ready.hs() {
            if hard_state.term > self.persistence.terms.back().map_or(self.persistence.term, |t| t.1) {
                self.persistence.terms.push_back((number, hard_state.term));
            }
            let store = self.node.mut_store();
            let before = store.hard_state();
            store.set_hard_state(hard_state.clone());
            let after = store.hard_state();
            if (before.term, before.vote) != (after.term, after.vote) {
                self.persistence.last_vote = number;
            }
            write.hard_state = Some(after);
        }
        if !ready.snapshot().is_empty() {
            match wire::snapshot_from_raft(ready.snapshot()) {
                Ok(snapshot) => self.install(number, snapshot, &mut write),
                Err(error) => return self.set_damaged(error.to_string()),
            }
        }
        if let Err(error) = self.append(ready.take_entries(), &mut write) {
            return self.set_damaged(error);
        }
        self.bound_in_flight();
        for read in ready.take_read_states() {
            let index = LogIndex(read.index);
            for refusal in self.reads.confirmed(&read.request_ctx, index, &mut self.out.answers) {
                self.pending.refuse(refusal, self.mark.applied, &mut self.out.answers);
            }
        }
        let committed = ready.take_committed_entries();
        self.persistence.last = number;
        if ready.must_sync() {
            self.persistence.last_needed = number;
            self.out.sync = Some(number);
        }
        self.hold_or_send(number, ready.take_messages(), ready.take_persisted_messages());
        if write != Write::default() {
            self.out.write = Some(write);
        }
        self.node.advance_append_async(ready);
        self.enqueue(number, committed);
        if self.persistence.last_needed <= self.persistence.synced {
            self.settle();
        }
    }

    fn hold_or_send(&mut self, number: u64, messages: Vec<Message>, after_persisting: Vec<Message>) {
        for message in messages {
            if message.term > self.persistence.term && self.config.rules.hold_unsynced_term {
                self.held_for_term.push(message);
            } else {
                self.out.messages.push(message);
            }
        }
        let term_synced = self.node.raft.term <= self.persistence.term;
        let (at_once, held): (Vec<_>, Vec<_>) =
            after_persisting.into_iter().partition(|m| term_synced && promises_nothing(m));
        self.out.messages.extend(at_once);
        if !held.is_empty() {
            self.held.push_back((number, held));
        }
    }

    /// Installs a snapshot: the log begins anew after it.
    fn install(&mut self, number: u64, snapshot: LogSnapshot, write: &mut Write) {
        let (id, index, (first, next)) =
            (self.config.id, snapshot.base.index, (self.mark.first_offset, self.mark.next_offset));
        if id != GroupId::CATALOG && first < next {
            log::warn!(
                "group {id}: snapshot installed: records {first} to {} are dropped here: the log of the leader, node {}, begins \
                 at offset {} (after entry {index})",
                next.0 - 1,
                self.leader().map_or_else(|| "unknown".to_owned(), |leader| leader.to_string()),
                snapshot.base.offset
            );
        } else {
            log::info!("group {id}: snapshot installed: the log begins after entry {index}");
        }
        self.queue.clear();
        self.pending.skipped(snapshot.base.index, &mut self.out.answers);
        self.node.mut_store().install(&snapshot);
        let mark = Mark {
            applied: snapshot.base.index,
            first_offset: snapshot.log_state.first_offset.max(self.mark.first_offset),
            next_offset: snapshot.base.offset.max(self.mark.next_offset),
            last_append_time_us: snapshot.log_state.last_append_time_us,
        };
        self.installing = Some((number, mark));
        write.snapshot = Some(snapshot);
    }

    /// Checks new entries, keeps them in memory, and adds them to what is written.
    fn append(&mut self, entries: Vec<raft::eraftpb::Entry>, write: &mut Write) -> Result<(), String> {
        let store = self.node.mut_store();
        if let Some(first) = entries.first().map(|e| LogIndex(e.index)).filter(|i| *i <= store.last_end().index) {
            store.truncate_suffix(first);
            write.truncate_from = Some(first);
        }
        for entry in entries {
            let before = store.last_end();
            let stored = wire::entry_to_storage(&entry, before.offset);
            let stamp = stored.stamp().map_err(|e| format!("entry {}: {e}", entry.index))?;
            if stamp.base_offset != before.offset {
                let (index, base) = (entry.index, stamp.base_offset);
                return Err(format!(
                    "entry {index} begins at offset {base}, but the entry before it ends at {}",
                    before.offset
                ));
            }
            let end = store.end_of(&entry, before).map_err(|e| e.to_string())?;
            write.entries.push(stored);
            store.push(entry, end);
        }
        Ok(())
    }
}
