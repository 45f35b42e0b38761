//! One Raft group as a pure machine: requests, messages, ticks and "it is on disk" in, [`Effects`] out.
//!
//! It owns no clock, thread, socket, file or random source beyond what is handed in; `driver.rs` performs the effects, a
//! simulation performs them on a faulty disk and a lossy network. What holds here:
//!
//! - **No message leaves before the term and the vote it was sent under are synced.** raft holds back what a follower or a
//!   candidate says; the messages of a leader whose own term is not on disk yet, which only a sole voter can be, wait here.
//! - **A conf change is applied only once the commit that covers it is synced** (`apply.rs`): voters change at apply, so a
//!   forgotten commit index would forget who the voters are.
//! - raft drops silently, so we ask first: only a leader proposes, a second conf change is not tried, reads wait until an
//!   entry of the leader's term has committed.
//! - A damaged group steps nothing: no votes, no acks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use super::adapter::{Adapter, End};
use super::apply::{Committed, committed_by_conf_changes};
use super::compare::Compared;
use super::effects::Effects;
use super::handle::{GroupStatus, ProposeError, ReadIndexError, Role};
use super::in_flight::{MESSAGE_BYTES, MESSAGES_MAX};
use super::patience::{Leadership, Patience};
use super::pending::{Answer, Pending, Reads, WAIT_MAX};
use super::ready::Persistence;
use super::sequences::StreamSequences;
use super::unreadable::Unreadable;
use super::wire;
use crate::reply::ReplySender;
use crate::storage::entry::Entry;
use crate::storage::log::{Base, HardState, LogState, Recovered};
use crate::types::{GroupId, LogIndex, NodeId, Term};
use crate::watermark::Mark;

/// A tick is the unit of raft's timeouts, milliseconds.
pub const TICK_MS: u64 = 50;
/// An election starts after 12 to 24 ticks without a leader.
pub const ELECTION_TICKS: usize = 12;
const HEARTBEAT_TICKS: usize = 2;
/// How long the proposals of a former leader wait, once it knows its successor, until the successor's entries are applied here and
/// tell what became of them. If that takes longer (a disk that hangs), the outcome is unknown.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// A message whose term is further ahead is not taken. A term is an election: a sound cluster would need a century for as many.
const TERM_JUMP_MAX: u64 = 1 << 32;
/// One that is further ahead than this is taken once in [`TERM_JUMP_TICKS`], as a node that lags needs it once. So no number of
/// messages leads to the largest term in less than ten years.
const TERM_STEP_MAX: u64 = 1 << 10;
const TERM_JUMP_TICKS: usize = 1000 / TICK_MS as usize;
/// Entries that are not committed yet take at most this many bytes; beyond it proposals are refused.
pub(super) const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// How a group is made.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Which group.
    pub id: GroupId,
    /// This node.
    pub me: NodeId,
    /// A fixed election timeout, in ticks: for simulations, as raft's own is random.
    pub election_ticks: Option<usize>,
    /// The two rules above. Off only in the tests that show what each of them is for.
    pub rules: Rules,
}

/// Rules that lose data when they are forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A leader's messages wait until its term is synced.
    pub hold_unsynced_term: bool,
    /// A conf change waits until the commit that covers it is synced.
    pub sync_commit_before_conf_change: bool,
    /// At start, every conf change of the log but the last counts as committed (`committed_by_conf_changes`).
    pub recover_commit_of_conf_changes: bool,
    /// A leader's messages are compared with what is committed here, and acknowledgements with the leader's own log.
    pub compare_with_leader: bool,
    /// Only entries that an append itself shows to be equal are acknowledged.
    pub acknowledge_compared_only: bool,
    /// An acknowledgement is not counted if the digests show that the entries here are others.
    pub count_compared_only: bool,
    /// A rejection because of the log's end waits until that end is committed.
    pub hold_uncommitted_refusals: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            hold_unsynced_term: true,
            sync_commit_before_conf_change: true,
            recover_commit_of_conf_changes: true,
            hold_uncommitted_refusals: true,
            compare_with_leader: true,
            acknowledge_compared_only: true,
            count_compared_only: true,
        }
    }
}

/// One group on this node.
pub struct Group {
    pub(super) config: GroupConfig,
    pub(super) node: RawNode<Adapter>,
    pub(super) mark: Mark,
    pub(super) pending: Pending,
    pub(super) streams: StreamSequences,
    pub(super) catch_up: super::catch_up::CatchUp,
    pub(super) persistence: Persistence,
    patience: Patience,
    pub(super) queue: VecDeque<Committed>,
    pub(super) out: Effects,
    pub(super) damage: Option<String>,
    pub(super) differs: bool,
    pub(super) suspect: Option<LogIndex>,
    pub(super) space: crate::storage::space::Space,
    pub(super) reads: Reads,
    /// Messages that wait for a Ready to be persisted.
    pub(super) held: VecDeque<(u64, Vec<Message>)>,
    /// A leader's messages that wait for its term to be synced.
    pub(super) held_for_term: Vec<Message>,
    /// A snapshot that is being persisted: its Ready and its position.
    pub(super) installing: Option<(u64, Mark)>,
    leading: Option<u64>,
    pub(super) ticks: usize,
    /// The maximum number of messages that are on their way to a follower, and the number of followers that it was set for.
    pub(super) in_flight: (usize, usize),
    pub(super) unreadable: Unreadable,
    pub(super) late: super::late::Late,
    pub(super) own_disk: super::own_disk::OwnDisk,
    pub(super) stalled: Option<(NodeId, LogIndex)>,
    refused: Option<String>,
    /// The tick of the last message that raised the term by more than [`TERM_STEP_MAX`].
    term_jumped: Option<usize>,
    /// The term of the last other leader that was known at a tick.
    successor: u64,
}

impl Group {
    /// From what recovery found: `tail` is every entry behind the applied one, which ends at `start`.
    ///
    /// # Errors
    /// A text that says what about the recovered state is impossible.
    pub fn new(config: GroupConfig, recovered: &Recovered, start: End, tail: &[Entry]) -> Result<Group, String> {
        let tail = tail.iter().map(wire::entry_to_raft).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        let mut recovered = recovered.clone();
        if config.rules.recover_commit_of_conf_changes {
            let proven = committed_by_conf_changes(&tail, &recovered);
            recovered.hard_state.commit = recovered.hard_state.commit.max(proven);
        }
        let adapter = Adapter::new(&recovered, start, tail).map_err(|e| e.to_string())?;
        let raft_config = raft::Config {
            id: config.me.0,
            election_tick: ELECTION_TICKS,
            min_election_tick: config.election_ticks.unwrap_or(0),
            max_election_tick: config.election_ticks.map_or(0, |t| t + 1),
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: recovered.applied.0,
            max_size_per_msg: MESSAGE_BYTES as u64,
            max_inflight_msgs: MESSAGES_MAX,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: 4 << 20,
            ..Default::default()
        };
        let logger = super::raft_log::logger(config.id);
        let mut node = RawNode::new(&raft_config, adapter, &logger).map_err(|e| e.to_string())?;
        let persistence = Persistence { term: recovered.hard_state.term.0, ..Persistence::default() };
        let mark = Mark {
            applied: recovered.applied,
            first_offset: recovered.log_state.first_offset,
            next_offset: start.offset,
            last_append_time_us: start.append_time_us,
        };
        if recovered.conf_state.voters == [config.me] {
            // Nobody else could: don't wait for a timeout.
            node.campaign().map_err(|e| e.to_string())?;
        }
        Ok(Group {
            config,
            node,
            mark,
            pending: Pending::default(),
            streams: StreamSequences::default(),
            catch_up: Default::default(),
            patience: Patience::new(persistence.term),
            persistence,
            queue: VecDeque::new(),
            out: Effects::default(),
            damage: None,
            differs: false,
            suspect: recovered.differing,
            space: Default::default(),
            reads: Reads::default(),
            held: VecDeque::new(),
            held_for_term: Vec::new(),
            installing: None,
            leading: None,
            ticks: 0,
            in_flight: (MESSAGES_MAX, 0),
            unreadable: Unreadable::default(),
            late: Default::default(),
            own_disk: Default::default(),
            stalled: None,
            refused: None,
            term_jumped: None,
            successor: 0,
        })
    }

    /// The hard state as of the last Ready, or of the start.
    pub fn hard_state(&self) -> HardState {
        self.node.store().hard_state()
    }

    /// The log state, and the entry that it is as of.
    pub fn log_state(&self) -> (LogState, LogIndex) {
        let (log_state, as_of) = self.node.store().log_state();
        (*log_state, as_of)
    }

    /// How far the group is applied.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    pub(super) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Sets the election timeout, in ticks, until raft chooses another one.
    #[cfg(test)]
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.node.raft.set_randomized_election_timeout(ticks);
    }

    /// True while this node leads the group.
    pub fn leads(&self) -> bool {
        self.is_leader() && self.damage.is_none()
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.node.raft.leader_id)).filter(|id| id.0 != 0)
    }

    /// True if the group takes no part.
    pub fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// Stops taking part: no votes, no acks, no answers but refusals, until the damage is repaired.
    pub fn set_damaged(&mut self, what: String) {
        log::error!("group {} is damaged and takes no part until repaired: {what}", self.config.id);
        self.damage = Some(what);
        if self.is_leader() {
            // Nobody is to be sent here for the rest of this process's time.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        self.pending.fail_all(&mut self.out.answers);
        self.reads.fail_all(ReadIndexError::Damaged, &mut self.out.answers);
    }

    /// Asks for a position that everything acknowledged before lies below.
    pub fn read_index(
        &mut self,
        deadline: Option<Instant>,
        now: Instant,
        reply: ReplySender<Result<LogIndex, ReadIndexError>>,
    ) {
        if self.damage.is_some() {
            self.out.answers.push(Answer::Read(reply, Err(ReadIndexError::Damaged)));
        } else if !self.is_leader() {
            let leader = self.leader();
            self.out.answers.push(Answer::Read(reply, Err(ReadIndexError::NotLeader { leader })));
        } else {
            self.reads.insert(deadline.unwrap_or(now + WAIT_MAX), reply);
        }
    }

    /// Takes a peer's message. One that this group must not take is dropped, with a log line.
    #[cfg(test)]
    pub fn step(&mut self, message: Message) {
        self.step_with(message, None, Compared::Equal);
    }

    /// Takes a peer's message that came with the last index of the leader's log; `compared` is what it proves about the entries
    /// here.
    pub fn step_with(&mut self, message: Message, claimed_last: Option<LogIndex>, compared: Compared) {
        if self.damage.is_some() {
            return;
        }
        let term = self.node.raft.term;
        let has_jumped = self.term_jumped.is_some_and(|tick| self.ticks < tick + TERM_JUMP_TICKS);
        let jump_max = if has_jumped { TERM_STEP_MAX } else { TERM_JUMP_MAX };
        if message.term > term.saturating_add(jump_max) {
            self.refused = Some(format!("term {}, far beyond term {term} here", message.term));
            return;
        }
        if self.leads_another(&message) {
            self.refused = Some(format!("a leader's message in term {}, which another node leads", message.term));
            return;
        }
        match message.get_msg_type() {
            MessageType::MsgTimeoutNow if !self.may_campaign() => return,
            MessageType::MsgAppend if !self.has_room_for(&message) => return,
            _ => {}
        }
        if self.config.rules.compare_with_leader {
            if let Some(what) = self.contradiction(&message, claimed_last) {
                return self.set_differing(what);
            }
            if self.acknowledges_too_much(&message) {
                let last_index = self.last_index();
                self.refused = Some(format!(
                    "an acknowledgement of entry {}, but the last index here is {last_index}",
                    message.index
                ));
                return;
            }
        }
        self.step_compared(message, compared);
        if self.node.raft.term > term + TERM_STEP_MAX {
            self.term_jumped = Some(self.ticks);
        }
    }

    /// Why the message of the last step was not taken, if it is one that no sound node sends.
    pub fn take_refused(&mut self) -> Option<String> {
        self.refused.take()
    }

    /// Time passed: one tick.
    pub fn tick(&mut self, now: Instant) {
        if !self.is_leader() && self.leader().is_some() && self.successor != self.node.raft.term {
            self.successor = self.node.raft.term;
            self.pending.wait_at_most(now + SETTLE_MAX);
        }
        self.pending.expire(now, &mut self.out.answers);
        self.reads.expire(now, &mut self.out.answers);
        if self.damage.is_some() {
            return;
        }
        self.ticks += 1;
        let waiting = self.persistence.last_needed > self.persistence.synced;
        self.persistence.stalled_ticks = if waiting { self.persistence.stalled_ticks + 1 } else { 0 };
        if self.persistence.stalled_ticks > self.patience.stalled_max() && self.is_leader() && !self.is_sole_voter() {
            log::warn!("group {}: the disk makes no progress, stepping down", self.config.id);
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        if self.ticks.is_multiple_of(2 * ELECTION_TICKS) {
            self.retry_lost_markers();
        }
        self.give_way();
        self.look_at_own_disk();
        self.late.begin_tick(self.node.raft.election_elapsed);
        let unsynced_vote = self.persistence.last_vote > self.persistence.synced;
        let passes = self.patience.tick(self.node.raft.term, self.leadership(), unsynced_vote);
        // A sole voter waits for nobody's vote.
        if (passes || self.is_sole_voter()) && self.may_campaign() {
            self.node.tick();
        }
    }

    fn leadership(&self) -> Leadership {
        if self.is_leader() {
            Leadership::Here { committed: self.node.raft.commit_to_current_term() }
        } else if self.leader().is_some() {
            Leadership::Elsewhere
        } else {
            Leadership::Vacant
        }
    }

    /// raft panics when it campaigns while a snapshot is not persisted, as it looks at entries before that one; and when a
    /// sole voter becomes leader with entries that are not persisted.
    fn may_campaign(&self) -> bool {
        let unpersisted = self.persistence.last_needed > self.persistence.synced;
        self.installing.is_none() && (self.is_leader() || !unpersisted || !self.is_sole_voter())
    }

    fn is_sole_voter(&self) -> bool {
        let voters = self.node.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.config.me.0)
    }

    /// A snapshot whose arrival nobody reported would leave its follower paused for ever.
    fn retry_lost_markers(&mut self) {
        let prs = self.node.raft.prs();
        let paused: Vec<u64> =
            prs.iter().filter(|(_, p)| p.state == ProgressState::Snapshot).map(|(id, _)| *id).collect();
        for id in paused {
            self.node.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// Messages to a peer were lost.
    pub fn unreachable(&mut self, node: NodeId) {
        self.node.report_unreachable(node.0);
        if self.node.raft.prs().get(node.0).is_some_and(|p| p.state == ProgressState::Snapshot) {
            self.node.report_snapshot(node.0, SnapshotStatus::Failure);
        }
    }

    /// What became of a snapshot on its way.
    pub fn marker_sent(&mut self, node: NodeId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(node.0, status);
    }

    /// A `reader` is done with a range; nothing came when it failed, and raft asks again later.
    pub fn fetched(&mut self, low: LogIndex, entries: &[Entry]) {
        let entries: Vec<_> = entries.iter().map_while(|e| wire::entry_to_raft(e).ok()).collect();
        let failed = entries.is_empty();
        let waiting = self.node.mut_store().fetched(low, entries);
        self.bound_in_flight();
        if !failed && self.damage.is_none() {
            waiting.into_iter().for_each(|context| self.node.on_entries_fetched(context));
        }
    }

    /// The next effects to perform, or nothing when there is nothing to do.
    pub fn ready(&mut self) -> Option<Effects> {
        if self.damage.is_none() {
            self.lead_or_follow();
            self.apply();
            if self.damage.is_none() && self.node.has_ready() {
                self.handle_ready();
                self.apply();
            }
            self.out.fetches.extend(self.node.mut_store().take_fetches());
        }
        let out = std::mem::take(&mut self.out);
        (!out.is_empty()).then_some(out)
    }

    /// Starts reads, or ends them when leadership is lost.
    fn lead_or_follow(&mut self) {
        let leading = self.is_leader().then_some(self.node.raft.term);
        if leading != self.leading {
            let leader = self.leader();
            self.reads.fail_all(ReadIndexError::NotLeader { leader }, &mut self.out.answers);
            self.pending.withdraw_refusals(ProposeError::NotLeader { leader }, &mut self.out.answers);
            self.stalled = None;
            self.leading = leading;
            // A new leader's followers begin with raft's own bound.
            self.in_flight = (MESSAGES_MAX, 0);
        }
        if self.is_leader()
            && self.node.raft.commit_to_current_term()
            && let Some(context) = self.reads.start_round()
        {
            self.node.read_index(context);
        }
    }

    /// Fails everything that waits: the node stops.
    pub fn stop(&mut self) {
        self.pending.fail_all(&mut self.out.answers);
        self.reads.fail_all(ReadIndexError::Stopping, &mut self.out.answers);
    }

    /// The front of the log was dropped up to `base`.
    pub fn trimmed(&mut self, base: Base) {
        if base.index > self.node.store().base().index {
            self.node.mut_store().set_base(base);
        }
    }

    /// What this node knows of the group.
    pub fn status(&self) -> GroupStatus {
        let raft = &self.node.raft;
        let (conf, _) = self.node.store().conf();
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
        };
        GroupStatus {
            group: self.config.id,
            role,
            term: Term(raft.term),
            leader: self.leader(),
            last_index: LogIndex(raft.raft_log.last_index()),
            commit_index: LogIndex(raft.raft_log.committed),
            applied_index: self.mark.applied,
            applied_term: Term(raft.raft_log.term(self.mark.applied.0).unwrap_or(0)),
            voters: conf.voters.clone(),
            learners: conf.learners.clone(),
            damage: self.damage.clone().or_else(|| self.suspicion()),
            // Told by the leader of the moment, until this node has it.
            stalled: self.stalled.filter(|(by, index)| self.leader() == Some(*by) && self.mark.applied < *index),
        }
    }
}
