//! raft's node of one group, and the queries that the other parts of the group need.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use raft::eraftpb::Entry as RaftEntry;
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use super::adapter::{Adapter, EntryEnd};
use super::in_flight::{MESSAGE_BYTES, MESSAGES_MAX};
use super::nodes::ReplicaNodes;
use super::raft_logger;
use super::settings::{ELECTION_TICKS, GroupConfig, HEARTBEAT_TICKS, UNCOMMITTED_BYTES_MAX};
use crate::catalog::policy::facts::ReplicaProgress;
use crate::consensus::conf_change::ConfChange;
use crate::consensus::handle::Role;
use crate::consensus::wire::{self, is_conf_change};
use crate::random;
use crate::storage::entry::Entry;
use crate::storage::log::Recovered;
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Term};

/// raft draws its election timeouts below this number, from a source of its own. Practically all of them are therefore
/// too long to be used, and [`RaftNode::draw_election_timeout`] replaces them.
const UNDRAWN_TICKS: usize = 1 << 48;

/// A wrapper of raft's node. It derefs to raft's own type, so that raft's methods keep their names.
pub struct RaftNode {
    raw: RawNode<Adapter>,
    group: GroupId,
    me: ReplicaId,
    /// The nodes of the replicas.
    pub nodes: ReplicaNodes,
    /// The replicas that should not lead.
    pub avoided: BTreeSet<ReplicaId>,
    heard: Heard,
}

/// When a leader last heard its replicas. Raft's own flags are reset once in each election timeout, and would show all
/// replicas as silent until their next answers.
#[derive(Debug, Default)]
struct Heard {
    term: u64,
    tick: usize,
    at: BTreeMap<u64, usize>,
}

impl Deref for RaftNode {
    type Target = RawNode<Adapter>;

    fn deref(&self) -> &RawNode<Adapter> {
        &self.raw
    }
}

impl DerefMut for RaftNode {
    fn deref_mut(&mut self) -> &mut RawNode<Adapter> {
        &mut self.raw
    }
}

impl RaftNode {
    /// Creates the node from the recovered state. `tail` contains every entry after the applied one, and `start` is
    /// the end of the applied entry.
    ///
    /// # Errors
    /// A text that describes an inconsistency of the recovered state.
    pub fn new(
        config: &GroupConfig,
        mut recovered: Recovered,
        start: EntryEnd,
        tail: &[Entry],
    ) -> Result<RaftNode, String> {
        let tail = tail.iter().map(wire::entry_to_raft).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        if config.rules.recover_commit_of_conf_changes {
            let proven = committed_by_conf_changes(&tail, &recovered);
            recovered.hard_state.commit = recovered.hard_state.commit.max(proven);
        }
        let adapter = Adapter::new(&recovered, start, tail).map_err(|e| e.to_string())?;
        let raft_config = raft::Config {
            id: config.me.0,
            election_tick: ELECTION_TICKS,
            min_election_tick: config.election_ticks.unwrap_or(0),
            max_election_tick: config.election_ticks.map_or(UNDRAWN_TICKS, |t| t + 1),
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: recovered.applied.0,
            max_size_per_msg: MESSAGE_BYTES as u64,
            max_inflight_msgs: MESSAGES_MAX,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: 4 << 20,
            // `commit_notices.rs` does it. The nodes act on the entries of the catalog when they are applied.
            skip_bcast_commit: config.id != GroupId::CATALOG,
            ..Default::default()
        };
        let logger = raft_logger::logger(config.id);
        let mut raw = RawNode::new(&raft_config, adapter, &logger).map_err(|e| e.to_string())?;
        if recovered.conf_state.voters == [config.me] {
            // No other node can lead, so waiting for an election timeout is unnecessary.
            raw.campaign().map_err(|e| e.to_string())?;
        }
        if config.leads_at_first && recovered.conf_state.voters != [config.me] {
            lead_at_first(&mut raw);
        }
        // The catalog lists the replicas of other groups.
        let nodes = match config.id {
            GroupId::CATALOG => ReplicaNodes::SameIds,
            _ => ReplicaNodes::Listed(BTreeMap::new()),
        };
        Ok(RaftNode { raw, group: config.id, me: config.me, nodes, avoided: BTreeSet::new(), heard: Heard::default() })
    }

    /// Chooses a random election timeout if raft has begun a new one. Called before each tick.
    pub fn draw_election_timeout(&mut self) {
        if self.raw.raft.randomized_election_timeout() >= 2 * ELECTION_TICKS {
            self.raw.raft.set_randomized_election_timeout(ELECTION_TICKS + random::below(ELECTION_TICKS));
        }
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    pub fn me(&self) -> ReplicaId {
        self.me
    }

    pub fn is_leader(&self) -> bool {
        self.raft.state == StateRole::Leader
    }

    /// Returns the leader of the current term, as far as this node knows.
    pub fn leader(&self) -> Option<ReplicaId> {
        Some(ReplicaId(self.raft.leader_id)).filter(|id| id.0 != 0)
    }

    /// Returns the node of that leader.
    pub fn leader_node(&self) -> Option<NodeId> {
        self.leader().and_then(|leader| self.nodes.node_of(leader))
    }

    /// Returns the node of a replica, or the replica if its node is not known, as text for log lines and errors.
    pub fn node_text(&self, replica: ReplicaId) -> String {
        self.nodes.node_of(replica).map_or_else(|| format!("of replica {replica}"), |node| node.to_string())
    }

    pub fn role(&self) -> Role {
        match self.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
        }
    }

    /// Returns the newest term that this node knows of.
    pub fn term(&self) -> Term {
        Term(self.raft.term)
    }

    /// Returns the commit index, as far as this node knows.
    pub fn commit_index(&self) -> LogIndex {
        LogIndex(self.raft.raft_log.committed)
    }

    /// Returns the last index of raft's log, stored or not.
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.raft.raft_log.last_index())
    }

    /// Becomes a follower without a leader, in the same term.
    pub fn step_down(&mut self) {
        let term = self.raft.term;
        self.raft.become_follower(term, raft::INVALID_ID);
    }

    /// Returns the term of an entry, if it is not before the base.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.raft.raft_log.term(index.0).ok().map(Term)
    }

    /// Returns the voters, ordered by id.
    pub fn voters(&self) -> Vec<ReplicaId> {
        let mut voters: Vec<ReplicaId> = self.raft.prs().conf().voters().ids().iter().map(ReplicaId).collect();
        voters.sort_unstable();
        voters
    }

    pub fn is_sole_voter(&self) -> bool {
        let voters = self.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.me.0)
    }

    /// Notes which replicas were heard since the last tick. Called before each tick of raft.
    pub fn note_heard(&mut self) {
        let tick = self.heard.tick + 1;
        let term = if self.is_leader() { self.raft.term } else { 0 };
        if term != self.heard.term {
            self.heard = Heard { term, ..Heard::default() };
        }
        self.heard.tick = tick;
        if term != 0 {
            let heard = self.raw.raft.prs().iter().filter(|(_, progress)| progress.recent_active);
            self.heard.at.extend(heard.map(|(id, _)| (*id, tick)));
        }
    }

    /// Returns true for a replica that was heard within an election timeout.
    fn was_heard(&self, id: u64) -> bool {
        self.heard.term == self.raft.term
            && self.heard.at.get(&id).is_some_and(|at| self.heard.tick - at <= ELECTION_TICKS)
    }

    /// Returns the progress of all voters and learners, ordered by id. Only meaningful on the leader.
    pub fn replicas(&self) -> Vec<ReplicaProgress> {
        let prs = self.raft.prs();
        let voters = prs.conf().voters().ids();
        let replica = |(id, progress): (&u64, &raft::Progress)| ReplicaProgress {
            replica: ReplicaId(*id),
            voter: voters.contains(*id),
            matched: LogIndex(progress.matched),
            active: progress.recent_active || *id == self.me.0 || self.was_heard(*id),
        };
        let mut replicas: Vec<ReplicaProgress> = prs.iter().map(replica).collect();
        replicas.sort_unstable_by_key(|r| r.replica);
        replicas
    }

    /// Returns the other voters that were heard recently and should lead.
    pub fn successors(&self) -> impl Iterator<Item = ReplicaProgress> {
        self.other_voters().filter(|r| !self.avoided.contains(&r.replica))
    }

    /// Returns the other voters that were heard recently.
    pub fn other_voters(&self) -> impl Iterator<Item = ReplicaProgress> {
        let me = self.me;
        self.replicas().into_iter().filter(move |r| r.voter && r.active && r.replica != me)
    }

    pub fn propose_change(&mut self, change: ConfChange) {
        match self.raw.propose_conf_change(change.encode().to_vec(), change.to_raft()) {
            Ok(()) => log::info!("group {}: proposed {:?} of replica {}", self.group, change.kind, change.replica),
            Err(error) => log::debug!("group {}: a conf change was not taken: {error}", self.group),
        }
    }

    /// Reports all pending snapshots as failed. If the report of a snapshot were lost, raft would pause its follower
    /// forever.
    pub fn retry_lost_snapshots(&mut self) {
        let paused: Vec<u64> =
            self.raft.prs().iter().filter(|(_, p)| p.state == ProgressState::Snapshot).map(|(id, _)| *id).collect();
        for id in paused {
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// Reports that messages to a replica were lost.
    pub fn unreachable(&mut self, replica: ReplicaId) {
        self.raw.report_unreachable(replica.0);
        if self.raft.prs().get(replica.0).is_some_and(|p| p.state == ProgressState::Snapshot) {
            self.raw.report_snapshot(replica.0, SnapshotStatus::Failure);
        }
    }

    /// Returns the end of raft's last entry, stored or not. The records of the next entry start there. `None` if the
    /// last entry has no valid stamp.
    pub fn log_end(&self) -> Option<EntryEnd> {
        let unstable = self.raft.raft_log.unstable_entries();
        let store = self.store();
        let end = match unstable.first() {
            Some(first) => store.end_at(LogIndex(first.index - 1)).unwrap_or(store.last_end()),
            None => store.last_end(),
        };
        // Entries without a stamp contain no records, so the last entry with a stamp determines the end. It is nearly
        // always the last entry.
        match unstable.iter().rev().find(|e| !e.data.is_empty() && e.context.is_empty()) {
            Some(entry) => store.end_of(entry, end).ok(),
            None => Some(end),
        }
    }

    /// Returns true if raft's log contains an entry of this term at `index`. If so, the store's entries before it are
    /// raft's.
    pub fn has_entry(&self, index: LogIndex, term: Term) -> bool {
        let log = &self.raft.raft_log;
        index.0 + 1 >= log.first_index() && log.term(index.0).is_ok_and(|of| of == term.0)
    }

    /// Returns true if the store contains raft's entry at this index, so that no write of it is due.
    pub fn is_stored(&self, index: LogIndex) -> bool {
        let unstable = &self.raft.raft_log.unstable;
        index.0 < unstable.offset && unstable.snapshot.is_none()
    }

    /// Returns the last entry in raft's log whose term is lower than `term`. raft's log is used because the store
    /// lags behind it until the next Ready: it may still contain entries that raft has truncated, and lack their
    /// replacements.
    pub fn last_before_term(&self, term: Term) -> LogIndex {
        let log = &self.raft.raft_log;
        let new = log.unstable_entries();
        if let Some(last) = new.partition_point(|e| e.term < term.0).checked_sub(1) {
            return LogIndex(new[last].index);
        }
        match log.unstable_snapshot().as_ref().map(|snapshot| snapshot.get_metadata()) {
            Some(snapshot) if snapshot.term < term.0 => LogIndex(snapshot.index),
            // Nothing is known of the entries before the snapshot.
            Some(_) => LogIndex(0),
            None => self.store().last_before_term(term).min(LogIndex(log.unstable.offset.saturating_sub(1))),
        }
    }
}

/// Makes a replica that was just created the leader, in the term of the genesis. No replica can vote in that term: all
/// first replicas begin in it, and a candidate requests votes in the next one. raft refuses to make a leader of a
/// follower, and a pre-candidate keeps the term.
fn lead_at_first(raw: &mut RawNode<Adapter>) {
    raw.raft.become_pre_candidate();
    raw.raft.become_leader();
    raw.raft.bcast_append();
}

/// The highest commit index that the recovered log proves, independent of the recovered hard state.
///
/// A Ready's entries are written before its hard state, so a crash can leave the entries without their commit index.
/// With an older commit index, the node would not know a conf change that a majority has already applied, and could
/// be elected by a majority of the old voters. Two facts imply a lower bound:
/// - a leader proposes a conf change only after it has applied the previous one (raft's `pending_conf_index`), so
///   every conf change in the log except the last is committed;
/// - the conf state was produced by a committed entry. The log contains this entry, unless the log restarted after a
///   snapshot and has not reached the entry yet.
fn committed_by_conf_changes(tail: &[RaftEntry], recovered: &Recovered) -> LogIndex {
    let last_but_one = tail.iter().rev().filter(|e| is_conf_change(e)).nth(1).map_or(0, |e| e.index);
    LogIndex(last_but_one).max(recovered.conf_index.min(recovered.last_index))
}
