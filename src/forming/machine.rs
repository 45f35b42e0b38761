//! The decisions of a blank node: to which node it pledges, and when it founds the cluster.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::faults::{Fault, broken};
use super::messages::{BlankNode, Candidate, FormAnswer, FormMessage, StoredPledge, Word};
use crate::types::NodeId;

/// A node that was not heard for this time does not count, and neither does its pledge. Several rounds, also if some
/// addresses do not answer.
pub const SEEN_FOR: Duration = Duration::from_secs(10);
/// The maximum number of other blank nodes that are remembered. Further ones are ignored until some are not heard any
/// more.
pub const SEEN_MAX: usize = 64;
/// The maximum number of nodes whose withdrawals are remembered. A withdrawal of another node is not confirmed.
const VOID_MAX: usize = 1024;

/// What the node has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Store this, sync it, and then call [`Forming::stored`].
    Store(StoredPledge),
    /// Found the cluster, unless one exists already. From now on no withdrawal is confirmed, until
    /// [`Forming::reopen`].
    Found,
}

/// What the log and clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormingStatus {
    /// `bootstrap_expect`.
    pub expect: u32,
    /// The blank nodes that count, without this one.
    pub others: Vec<BlankNode>,
    /// A blank node that does not count: with another `bootstrap_expect`, or with this node's name or address.
    pub mismatch: Option<BlankNode>,
    /// Where this node's pledge is.
    pub candidate: Option<Candidate>,
    /// True if this is the candidate.
    pub is_candidate: bool,
    /// True if the candidate was heard lately.
    pub candidate_seen: bool,
    /// The pledges that this node has as a candidate, its own included.
    pub pledges: usize,
    /// The pledges that it needs.
    pub needed: usize,
}

struct Seen {
    node: BlankNode,
    at: Instant,
}

struct Received {
    epoch: u64,
    at: Instant,
}

/// The state of one blank node.
pub struct Forming {
    me: BlankNode,
    stored: StoredPledge,
    /// True while a decision is being stored. Nothing is said to a candidate meanwhile.
    is_storing: bool,
    /// What the candidate last said about this node's pledges, since the last decision was stored.
    void_here: u64,
    seen: BTreeMap<NodeId, Seen>,
    mismatch: Option<Seen>,
    /// As a candidate: the pledges of other nodes, received by this process.
    pledges: BTreeMap<NodeId, Received>,
    /// As a candidate: pledges of a node with this number and lower ones are void.
    void: BTreeMap<NodeId, u64>,
    is_founding: bool,
}

impl Forming {
    /// Starts with what was stored. `me.incarnation` must be a new random number.
    pub fn new(me: BlankNode, stored: StoredPledge) -> Forming {
        let stored = if broken(Fault::PledgeForgotten) { StoredPledge::default() } else { stored };
        Forming {
            me,
            stored,
            is_storing: false,
            void_here: 0,
            seen: BTreeMap::new(),
            mismatch: None,
            pledges: BTreeMap::new(),
            void: BTreeMap::new(),
            is_founding: false,
        }
    }

    /// Returns the message to the node at an address.
    pub fn message_to(&self, addr: &str) -> FormMessage {
        FormMessage { from: self.me.clone(), word: self.word_to(addr) }
    }

    fn word_to(&self, addr: &str) -> Option<Word> {
        let candidate = self.stored.candidate.as_ref()?;
        let seen = self.seen.get(&candidate.id);
        let is_there = seen.map_or(&candidate.addr, |seen| &seen.node.addr) == addr;
        if self.is_storing && !broken(Fault::ToldBeforeStored) || candidate.id == self.me.id || !is_there {
            return None;
        }
        let (to, epoch) = (candidate.id, self.stored.epoch);
        match candidate.is_withdrawing {
            true => Some(Word::Withdraw { to, epoch }),
            false => seen.map(|seen| Word::Pledge { to, incarnation: seen.node.incarnation, epoch }),
        }
    }

    /// Returns the addresses to ask besides those that discovery knows: the other blank nodes, and the candidate.
    pub fn addresses(&self) -> Vec<String> {
        let seen = self.seen.values().map(|seen| seen.node.addr.clone());
        let candidate = self.stored.candidate.iter().filter(|candidate| candidate.id != self.me.id);
        let mut all: Vec<String> = seen.chain(candidate.map(|candidate| candidate.addr.clone())).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Handles the message of another node, and returns the answer. Nothing has to be stored before it is sent.
    pub fn receive(&mut self, message: FormMessage, now: Instant) -> FormAnswer {
        let from = message.from.id;
        let counts = self.note_seen(message.from, now);
        match message.word {
            Some(Word::Pledge { to, incarnation, epoch }) if counts && to == self.me.id => {
                let is_current = incarnation == self.me.incarnation || broken(Fault::OldIncarnationCounted);
                if is_current && (epoch > self.void_of(from) || broken(Fault::VoidCounted)) {
                    self.pledges.insert(from, Received { epoch, at: now });
                }
            }
            Some(Word::Withdraw { to, epoch }) if to == self.me.id => self.release(from, epoch),
            Some(Word::Pledge { .. } | Word::Withdraw { .. }) | None => {}
        }
        FormAnswer { from: self.me.clone(), void_up_to: self.void_of(from) }
    }

    fn release(&mut self, from: NodeId, epoch: u64) {
        let is_known = self.void.contains_key(&from);
        let keeps = self.is_founding && !broken(Fault::ReleasedByFounder);
        if keeps || (!is_known && self.void.len() >= VOID_MAX) {
            return;
        }
        let void = self.void.entry(from).or_default();
        *void = epoch.max(*void);
        if self.pledges.get(&from).is_some_and(|pledge| pledge.epoch <= epoch) {
            self.pledges.remove(&from);
        }
    }

    fn void_of(&self, node: NodeId) -> u64 {
        self.void.get(&node).copied().unwrap_or_default()
    }

    /// Handles the answer of another node.
    pub fn answered(&mut self, answer: FormAnswer, now: Instant) {
        if self.stored.candidate.as_ref().is_some_and(|candidate| candidate.id == answer.from.id) && !self.is_storing {
            self.void_here = answer.void_up_to;
        }
        self.note_seen(answer.from, now);
    }

    /// Remembers a node. Returns whether it counts. Two nodes can't have the same address or name, so a node that was
    /// seen with one of them before does not exist any more, or is misconfigured. A peer certificate is for one name,
    /// so no peer can count twice.
    fn note_seen(&mut self, node: BlankNode, now: Instant) -> bool {
        if node.id == self.me.id {
            return false;
        }
        if node.expect != self.me.expect || node.addr == self.me.addr || node.name == self.me.name {
            self.mismatch = Some(Seen { node, at: now });
            return false;
        }
        let pledges = &mut self.pledges;
        self.seen.retain(|id, seen| {
            let is_other = seen.node.addr != node.addr && seen.node.name != node.name;
            let stays = *id == node.id || (is_other && now < seen.at + SEEN_FOR);
            if !stays {
                pledges.remove(id);
            }
            stays
        });
        let has_room = self.seen.len() < SEEN_MAX || self.seen.contains_key(&node.id);
        if has_room {
            self.seen.insert(node.id, Seen { node, at: now });
        }
        has_room
    }

    /// Decides what to do. Called after each round of messages.
    pub fn decide(&mut self, now: Instant) -> Step {
        if self.is_founding {
            return Step::Found;
        }
        if self.is_storing {
            return Step::Wait;
        }
        let lowest = self.lowest(now);
        let me = self.me.id;
        let epoch = self.stored.epoch;
        let Some(candidate) = &self.stored.candidate else {
            return lowest.map_or(Step::Wait, |lowest| self.pledge_to(lowest, epoch + 1));
        };
        let is_own = candidate.id == me || broken(Fault::OwnPledgeIgnored);
        if is_own && self.pledges_at(now) >= self.needed(now) {
            self.is_founding = true;
            return Step::Found;
        }
        let is_void = self.void_here >= epoch;
        let others = lowest.filter(|(id, _)| *id != candidate.id);
        match (candidate.is_withdrawing, others) {
            (true, _) if is_void => self.store(StoredPledge { epoch, candidate: None }),
            (true, _) => Step::Wait,
            // The pledge was never stored here: an operator has removed the file of an earlier one.
            (false, _) if is_void => {
                let same = (candidate.id, candidate.addr.clone());
                self.pledge_to(same, self.void_here + 1)
            }
            // A node needs no confirmation of its own.
            (false, Some(lowest)) if candidate.id == me || broken(Fault::MovedUnconfirmed) => {
                self.pledge_to(lowest, epoch + 1)
            }
            (false, Some(_)) => {
                let candidate = Candidate { is_withdrawing: true, ..candidate.clone() };
                let withdrawal = StoredPledge { epoch, candidate: Some(candidate) };
                if broken(Fault::WithdrawalNotStored) {
                    self.stored = withdrawal;
                    return Step::Wait;
                }
                self.store(withdrawal)
            }
            (false, None) => Step::Wait,
        }
    }

    fn pledge_to(&mut self, (id, addr): (NodeId, String), epoch: u64) -> Step {
        self.store(StoredPledge { epoch, candidate: Some(Candidate { id, addr, is_withdrawing: false }) })
    }

    fn store(&mut self, decision: StoredPledge) -> Step {
        self.is_storing = true;
        if broken(Fault::ToldBeforeStored) {
            self.stored = decision.clone();
        }
        Step::Store(decision)
    }

    /// The decision is on the disk.
    pub fn stored(&mut self, decision: StoredPledge) {
        self.stored = decision;
        self.is_storing = false;
        self.void_here = 0;
    }

    /// Returns whether this node still has the pledges to found the cluster. Called immediately before it does.
    pub fn may_found(&self, now: Instant) -> bool {
        self.is_founding && self.pledges_at(now) >= self.needed(now)
    }

    /// The cluster is not founded yet: withdrawals are confirmed again.
    pub fn reopen(&mut self) {
        self.is_founding = false;
    }

    /// The nodes that were heard lately, without this one.
    fn others(&self, now: Instant) -> impl Iterator<Item = &BlankNode> {
        self.seen.values().filter(move |seen| now < seen.at + SEEN_FOR).map(|seen| &seen.node)
    }

    /// The node with the lowest id, if enough nodes are there.
    fn lowest(&self, now: Instant) -> Option<(NodeId, String)> {
        if self.others(now).count() + 1 < self.expect() {
            return None;
        }
        self.others(now).chain([&self.me]).min_by_key(|node| node.id).map(|node| (node.id, node.addr.clone()))
    }

    fn expect(&self) -> usize {
        usize::try_from(self.me.expect).unwrap_or(usize::MAX)
    }

    /// Returns the number of pledges that this node has, its own included.
    fn pledges_at(&self, now: Instant) -> usize {
        let candidate = self.stored.candidate.as_ref();
        let is_own = candidate.is_some_and(|candidate| candidate.id == self.me.id) && !self.is_storing;
        let is_current = |pledge: &&Received| now < pledge.at + SEEN_FOR;
        let own = usize::from(is_own || broken(Fault::OwnPledgeIgnored));
        own + self.pledges.values().filter(is_current).count()
    }

    /// The number of pledges with which this node founds the cluster: N; if more nodes than expected are there, at
    /// least a majority of them.
    fn needed(&self, now: Instant) -> usize {
        let majority = self.others(now).count().div_ceil(2) + 1;
        let needed = self.expect().max(majority);
        if broken(Fault::OnePledgeLess) { needed - 1 } else { needed }
    }

    /// Returns what the log and clients are told.
    pub fn status(&self, now: Instant) -> FormingStatus {
        let candidate = self.stored.candidate.clone();
        let is_seen = |candidate: &Candidate| self.others(now).any(|node| node.id == candidate.id);
        FormingStatus {
            expect: self.me.expect,
            others: self.others(now).cloned().collect(),
            mismatch: self.mismatch.as_ref().filter(|seen| now < seen.at + SEEN_FOR).map(|seen| seen.node.clone()),
            is_candidate: candidate.as_ref().is_some_and(|candidate| candidate.id == self.me.id),
            candidate_seen: candidate.as_ref().is_some_and(is_seen),
            candidate,
            pledges: self.pledges_at(now),
            needed: self.needed(now),
        }
    }
}
