//! Tracks which of raft's Readies are on disk, and holds the messages that wait for one of them.
//!
//! - A follower's promises (votes, acknowledgements) wait until their Ready is synced.
//! - Messages that promise nothing (heartbeat responses, rejections, pre-vote requests) wait only until their term is
//!   synced, so that a node with a slow disk does not look dead.
//! - A leader's messages wait until its term is synced. Only a sole voter can lead in a term that is not synced yet.

use std::collections::VecDeque;

use raft::eraftpb::{Message, MessageType};

/// The state of one group's Readies.
#[derive(Debug)]
pub struct Persistence {
    last: u64,
    /// The newest Ready that requires a sync.
    last_needed: u64,
    /// The newest Ready that set the term or the vote.
    last_vote: u64,
    /// The log-writer has synced everything up to this Ready.
    synced: u64,
    /// The terms that Readies set (number, term), until they are synced.
    terms: VecDeque<(u64, u64)>,
    /// The newest synced term.
    term: u64,
    /// The number of ticks without progress of the log-writer, while a Ready waited for it.
    stalled_ticks: usize,
    /// Messages that wait for a Ready to be persisted.
    held: VecDeque<(u64, Vec<Message>)>,
    /// A leader's messages that wait for its term to be synced.
    held_for_term: Vec<Message>,
    /// [`super::settings::Rules::hold_unsynced_term`].
    holds_unsynced_term: bool,
}

/// The result of [`Persistence::settle`].
pub struct Persisted {
    /// Everything up to this Ready is persisted.
    pub ready: u64,
    /// The messages that waited for it and can be sent now.
    pub messages: Vec<Message>,
}

impl Persistence {
    /// The state at a start. `term` is the term on disk.
    pub fn new(term: u64, holds_unsynced_term: bool) -> Persistence {
        Persistence {
            last: 0,
            last_needed: 0,
            last_vote: 0,
            synced: 0,
            terms: VecDeque::new(),
            term,
            stalled_ticks: 0,
            held: VecDeque::new(),
            held_for_term: Vec::new(),
            holds_unsynced_term,
        }
    }

    /// Records that a Ready sets this term.
    pub fn sets_term(&mut self, ready: u64, term: u64) {
        if term > self.terms.back().map_or(self.term, |t| t.1) {
            self.terms.push_back((ready, term));
        }
    }

    /// Records that a Ready sets the term or the vote.
    pub fn sets_vote(&mut self, ready: u64) {
        self.last_vote = ready;
    }

    /// Records a new Ready. `term` is raft's current term. Returns the messages that may be sent before the Ready is
    /// persisted.
    pub fn begin(
        &mut self,
        ready: u64,
        must_sync: bool,
        term: u64,
        messages: Vec<Message>,
        after_persisting: Vec<Message>,
    ) -> Vec<Message> {
        self.last = ready;
        if must_sync {
            self.last_needed = ready;
        }
        let mut at_once = Vec::new();
        for message in messages {
            if message.term > self.term && self.holds_unsynced_term {
                self.held_for_term.push(message);
            } else {
                at_once.push(message);
            }
        }
        let term_synced = term <= self.term;
        let (promising_nothing, held): (Vec<_>, Vec<_>) =
            after_persisting.into_iter().partition(|m| term_synced && promises_nothing(m));
        at_once.extend(promising_nothing);
        if !held.is_empty() {
            self.held.push_back((ready, held));
        }
        at_once
    }

    /// Records that the log-writer has synced everything up to this Ready.
    pub fn synced(&mut self, ready: u64) {
        self.synced = self.synced.max(ready);
        self.stalled_ticks = 0;
    }

    /// Returns what is persisted now. A Ready that requires no sync is persisted once all earlier ones are.
    pub fn settle(&mut self) -> Persisted {
        let done = if self.waits() { self.synced } else { self.last };
        while let Some((ready, term)) = self.terms.front().copied().filter(|(ready, _)| *ready <= done) {
            self.term = term;
            self.terms.pop_front();
            log::trace!("term {term} persisted with Ready {ready}");
        }
        let mut messages = Vec::new();
        while self.held.front().is_some_and(|(ready, _)| *ready <= done) {
            messages.extend(self.held.pop_front().map(|(_, m)| m).unwrap_or_default());
        }
        let term = self.term;
        messages.extend(self.held_for_term.extract_if(.., |m| m.term <= term));
        Persisted { ready: done, messages }
    }

    /// Called on each tick. Returns the number of ticks without progress of the log-writer, while a Ready waited for
    /// it.
    pub fn tick(&mut self) -> usize {
        self.stalled_ticks = if self.waits() { self.stalled_ticks + 1 } else { 0 };
        self.stalled_ticks
    }

    /// Returns true if a Ready waits to be synced.
    pub fn waits(&self) -> bool {
        self.last_needed > self.synced
    }

    /// Returns true if the term or the vote waits to be synced.
    pub fn vote_waits(&self) -> bool {
        self.last_vote > self.synced
    }

    /// Returns true if this Ready is synced.
    pub fn covers(&self, ready: u64) -> bool {
        self.synced >= ready
    }
}

/// Returns true for messages that only say "alive, in this term", or that reject something. As long as the term is
/// synced, a crash can't invalidate them.
fn promises_nothing(message: &Message) -> bool {
    match message.get_msg_type() {
        MessageType::MsgHeartbeatResponse | MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => {
            true
        }
        MessageType::MsgAppendResponse | MessageType::MsgRequestVoteResponse => message.reject,
        _ => false,
    }
}
