//! One Raft group as a pure machine: requests, messages, ticks and "it is on disk" in, [`Effects`] out.
//!
//! It owns no clock, thread, socket, file or random source beyond what is handed in; `driver.rs` performs the effects, a
//! simulation performs them on a faulty disk and a lossy network.
//!
//! ```text
//!  step ─▶ checks, term_jumps ─▶ node (raft, adapter) ─▶ ready ─▶ persistence ─▶ messages
//!  propose ─▶ propose, sequences ──▲     ▲                 ├─▶ apply ─▶ visible, conf state, commands, trims
//!  read_index ─▶ reads ────────────┘     │                 └─▶ pending, reads ─▶ answers
//!  tick ─▶ patience, late, own_disk, unreadable
//! ```
//!
//! - `node` is raft with the questions that the others ask it, `adapter` the log as raft sees it, `settings` the rules.
//! - Each other part owns its state, takes what it needs to know, and returns what follows. Only [`Group`] knows them all.
//!
//! What holds here:
//!
//! - **No message leaves before the term and the vote it was sent under are synced** (`persistence.rs`).
//! - **A conf change is applied only once the commit that covers it is synced** (`apply.rs`).
//! - raft drops silently, so the group asks first: only a leader proposes, a second conf change is not tried, reads wait until an
//!   entry of the leader's term has committed.
//! - A damaged group steps nothing: no votes, no acknowledgements.

mod adapter;
mod apply;
mod checks;
mod effects;
mod health;
mod in_flight;
mod late;
mod node;
mod own_disk;
mod patience;
mod pending;
mod persistence;
mod propose;
mod raft_logger;
mod reads;
mod ready;
mod sequences;
mod settings;
mod term_jumps;
mod unreadable;
mod view;

use std::time::{Duration, Instant};

use raft::SnapshotStatus;
use raft::eraftpb::{Message, MessageType};

use self::apply::Applier;
use self::health::Health;
use self::in_flight::AppendsInFlight;
use self::late::LateTicks;
use self::node::RaftNode;
use self::own_disk::OwnDisk;
use self::patience::{ElectionPatience, Leadership};
use self::pending::{HeldRefusal, Pending, WAIT_MAX};
use self::persistence::Persistence;
use self::propose::{Proposer, Rejected};
use self::reads::LeaderReads;
use self::term_jumps::TermJumps;
use self::unreadable::UnreadableEntries;

pub use self::adapter::{EntryEnd, FETCH_BYTES, FetchRange};
pub use self::effects::{Effects, LogWrite};
pub use self::pending::Answer;
#[cfg(test)]
pub use self::sequences::StreamSequences;
pub use self::settings::{ELECTION_TICKS, GroupConfig, Rules, TICK_MS};
use super::claim::{Checkpoint, Claim};
use super::compare::Compared;
use super::conf_change::{ConfChange, ConfChangeKind};
use super::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use super::wire;
use crate::catalog::policy::voters::MembershipChange;
use crate::log_state::Applied;
use crate::reply::ReplySender;
use crate::storage::digest::Digest;
use crate::storage::entry::Entry;
use crate::storage::log::{Base, Recovered};
use crate::storage::space::Space;
use crate::types::{LogIndex, NodeId, Term};

/// How long the proposals of a former leader wait, once it knows its successor, until the successor's entries are applied here and
/// show which of them were appended. If that takes longer (a disk that hangs), the outcome is unknown.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// One group on this node.
pub struct Group {
    config: GroupConfig,
    pub(super) node: RaftNode,
    health: Health,
    applier: Applier,
    persistence: Persistence,
    proposer: Proposer,
    pending: Pending,
    reads: LeaderReads,
    patience: ElectionPatience,
    late: LateTicks,
    term_jumps: TermJumps,
    own_disk: OwnDisk,
    unreadable: UnreadableEntries,
    in_flight: AppendsInFlight,
    out: Effects,
    ticks: usize,
    /// The term that this node led at the last Ready.
    leading: Option<u64>,
    /// The term of the last other leader that was known at a tick.
    successor: u64,
    /// An entry that this node lacks, and the leader says that it can't read.
    stalled: Option<(NodeId, LogIndex)>,
}

/// Why a peer's message is not taken: no sound node sends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStep {
    /// [`TermJumps`] refuses it.
    #[error("term {0}, far beyond term {1} here")]
    FarTerm(u64, Term),
    /// A term has one leader.
    #[error("a leader's message in term {0}, which another node leads")]
    OtherLeader(u64),
    /// Counting it would commit entries that are on no disk.
    #[error("an acknowledgement of entry {0}, but the last index here is {1}")]
    AcknowledgesTooMuch(u64, LogIndex),
}

impl Group {
    /// From what recovery found: `tail` is every entry after the applied one, which ends at `start`.
    ///
    /// # Errors
    /// A text that says what about the recovered state is impossible.
    pub fn new(config: GroupConfig, recovered: &Recovered, start: EntryEnd, tail: &[Entry]) -> Result<Group, String> {
        let node = RaftNode::new(&config, recovered.clone(), start, tail)?;
        let term = recovered.hard_state.term.0;
        let applied = Applied::new(recovered.applied, start.offset, recovered.log_state, recovered.log_state_index);
        Ok(Group {
            node,
            health: Health::new(config.id, recovered.differing),
            applier: Applier::new(applied),
            persistence: Persistence::new(term, config.rules.hold_unsynced_term),
            proposer: Proposer::default(),
            pending: Pending::default(),
            reads: LeaderReads::default(),
            patience: ElectionPatience::new(term),
            late: LateTicks::default(),
            term_jumps: TermJumps::default(),
            own_disk: OwnDisk::default(),
            unreadable: UnreadableEntries::default(),
            in_flight: AppendsInFlight::default(),
            out: Effects::default(),
            config,
            ticks: 0,
            leading: None,
            successor: 0,
            stalled: None,
        })
    }

    /// Counts what is appended against the space of this disk; without it the space is unlimited.
    pub fn set_space(&mut self, space: Space) {
        self.proposer.set_space(space);
    }

    // Requests.

    /// Proposes an entry; the answer is one of the effects, now or later. `time_us` is the clock, Unix microseconds.
    pub fn propose(
        &mut self,
        proposal: Proposal,
        now: Instant,
        time_us: u64,
        reply: ReplySender<Result<Appended, ProposeError>>,
    ) {
        let deadline = proposal.deadline.unwrap_or(now + WAIT_MAX);
        let proposed = if self.health.is_damaged() {
            Err(ProposeError::Damaged.into())
        } else {
            self.proposer.propose(&mut self.node, proposal, now, time_us)
        };
        match proposed {
            Ok(appended) => self.pending.insert(appended, deadline, reply, &mut self.out.answers),
            Err(Rejected::AtOnce(error)) => self.out.answers.push(Answer::Append(reply, Err(error))),
            Err(Rejected::ByLogEnd { error, .. }) if !self.config.rules.hold_uncommitted_refusals => {
                self.out.answers.push(Answer::Append(reply, Err(error)));
            }
            Err(Rejected::ByLogEnd { error, beyond }) => {
                let last_term = Term(self.node.raft.raft_log.last_term());
                let refusal = HeldRefusal { error, last_index: self.node.last_index(), last_term, deadline, reply };
                if beyond {
                    self.reads.confirm_first(refusal);
                } else {
                    self.pending.refuse(refusal, self.applier.index(), &mut self.out.answers);
                }
            }
        }
    }

    /// Asks for a position that everything acknowledged before lies below.
    pub fn read_index(
        &mut self,
        deadline: Option<Instant>,
        now: Instant,
        reply: ReplySender<Result<LogIndex, ReadIndexError>>,
    ) {
        if self.health.is_damaged() {
            self.out.answers.push(Answer::Read(reply, Err(ReadIndexError::Damaged)));
        } else if !self.node.is_leader() {
            let leader = self.node.leader();
            self.out.answers.push(Answer::Read(reply, Err(ReadIndexError::NotLeader { leader })));
        } else {
            self.reads.insert(deadline.unwrap_or(now + WAIT_MAX), reply);
        }
    }

    // Messages of peers.

    /// Takes a peer's message.
    #[cfg(test)]
    pub fn step(&mut self, message: Message) {
        if let Err(bad) = self.step_with(message, None, Compared::Equal) {
            log::debug!("a message is refused: {bad}");
        }
    }

    /// Takes a peer's message that came with the last index of the leader's log; `compared` is what it proves about the entries
    /// here.
    ///
    /// # Errors
    /// [`BadStep`]; the message is dropped.
    pub fn step_with(
        &mut self,
        message: Message,
        claimed_last: Option<LogIndex>,
        compared: Compared,
    ) -> Result<(), BadStep> {
        if self.health.is_damaged() {
            return Ok(());
        }
        let term = self.node.raft.term;
        if !self.term_jumps.admits(message.term, term, self.ticks) {
            return Err(BadStep::FarTerm(message.term, Term(term)));
        }
        if checks::leads_another(&self.node, &message) {
            return Err(BadStep::OtherLeader(message.term));
        }
        match message.get_msg_type() {
            MessageType::MsgTimeoutNow if !self.may_campaign() => return Ok(()),
            MessageType::MsgAppend if !self.proposer.has_room_for(&message, self.config.id) => return Ok(()),
            _ => {}
        }
        if self.config.rules.compare_with_leader {
            if let Some(what) = checks::contradiction(&self.node, &message, claimed_last) {
                self.set_differing(what);
                return Ok(());
            }
            if checks::acknowledges_too_much(&self.node, &message) {
                return Err(BadStep::AcknowledgesTooMuch(message.index, self.node.last_index()));
            }
        }
        checks::step_compared(&mut self.node, message, compared, self.config.rules.acknowledge_compared_only);
        self.term_jumps.raised(term, self.node.raft.term, self.ticks);
        Ok(())
    }

    /// True if replicas are compared.
    pub fn compares(&self) -> bool {
        self.config.rules.compare_with_leader
    }

    /// See [`checks::leads_another`].
    pub fn leads_another(&self, message: &Message) -> bool {
        checks::leads_another(&self.node, message)
    }

    /// See [`checks::leader_end`].
    pub fn leader_end(&self, message: &Message, before: Option<&Checkpoint>) -> Option<Base> {
        checks::leader_end(&self.node, message, before)
    }

    /// See [`checks::acknowledges_others`].
    pub fn acknowledges_others(
        &self,
        message: &Message,
        claim: Option<&Claim>,
        digest_at: impl FnOnce(LogIndex) -> Option<Digest>,
    ) -> bool {
        self.config.rules.count_compared_only && checks::acknowledges_others(&self.node, message, claim, digest_at)
    }

    // Time.

    /// One tick.
    pub fn tick(&mut self, now: Instant) {
        if !self.node.is_leader() && self.node.leader().is_some() && self.successor != self.node.raft.term {
            self.successor = self.node.raft.term;
            self.pending.wait_at_most(now + SETTLE_MAX);
        }
        self.pending.expire(now, &mut self.out.answers);
        self.reads.expire(now, &mut self.out.answers);
        if self.health.is_damaged() {
            return;
        }
        self.ticks += 1;
        let stalled_ticks = self.persistence.tick();
        if stalled_ticks > self.patience.stalled_max() && self.node.is_leader() && !self.node.is_sole_voter() {
            log::warn!("group {}: the disk makes no progress, stepping down", self.config.id);
            self.node.step_down();
        }
        if self.ticks.is_multiple_of(2 * ELECTION_TICKS) {
            self.node.retry_lost_snapshots();
        }
        if self.leads()
            && let Some(next) = self.unreadable.tick(&self.node, self.ticks)
        {
            self.node.transfer_leader(next.0);
        }
        if self.own_disk.tick(&self.node, self.leads(), self.ticks) && self.hand_over() {
            self.own_disk.hands_over(self.ticks);
        }
        self.late.begin_tick(self.node.raft.election_elapsed);
        let passes = self.patience.tick(self.node.raft.term, self.leadership(), self.persistence.vote_waits());
        // A sole voter waits for nobody's vote.
        if (passes || self.node.is_sole_voter()) && self.may_campaign() {
            self.node.tick();
        }
    }

    /// The next tick comes late.
    pub fn was_late(&mut self) {
        let waits_for_others = self.node.is_leader() || self.node.leader().is_some();
        if waits_for_others && self.late.was_late() {
            self.node.raft.election_elapsed = 0;
        }
    }

    fn leadership(&self) -> Leadership {
        if self.node.is_leader() {
            Leadership::Here { committed: self.node.raft.commit_to_current_term() }
        } else if self.node.leader().is_some() {
            Leadership::Elsewhere
        } else {
            Leadership::Vacant
        }
    }

    /// raft panics when it campaigns while a snapshot is not persisted, as it looks at entries before that one; and when a
    /// sole voter becomes leader with entries that are not persisted.
    fn may_campaign(&self) -> bool {
        let may_lead = self.node.is_leader() || !self.persistence.waits() || !self.node.is_sole_voter();
        !self.applier.is_installing() && may_lead
    }

    // What the disk and the network report.

    /// Messages to a peer were lost.
    pub fn unreachable(&mut self, node: NodeId) {
        self.node.unreachable(node);
    }

    /// A snapshot has reached the network, or was lost.
    pub fn snapshot_sent(&mut self, node: NodeId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(node.0, status);
    }

    /// A `reader` has read a range. `entries` is empty if it failed; raft asks again later.
    pub fn fetched(&mut self, low: LogIndex, entries: &[Entry]) {
        let entries: Vec<_> = entries.iter().map_while(|e| wire::entry_to_raft(e).ok()).collect();
        let failed = entries.is_empty();
        let waiting = self.node.mut_store().fetched(low, entries);
        self.bound_in_flight();
        if !failed && !self.health.is_damaged() {
            waiting.into_iter().for_each(|context| self.node.on_entries_fetched(context));
        }
    }

    /// Records that an entry that a follower lacks can't be read here. True if that was not known.
    pub fn set_unreadable(&mut self, index: LogIndex) -> bool {
        self.unreadable.insert(index)
    }

    /// The first entry that `follower` lacks and this leader can't read.
    pub fn unreadable_for(&self, follower: NodeId) -> Option<LogIndex> {
        self.unreadable.first_for(&self.node, follower)
    }

    /// Records the entry that the leader says it can't send to this node.
    pub fn set_stalled(&mut self, by: Option<(NodeId, LogIndex)>) {
        self.stalled = by;
    }

    /// The front of the log was dropped up to `base`.
    pub fn trimmed(&mut self, base: Base) {
        if base.index > self.node.store().base().index {
            self.node.mut_store().set_base(base);
        }
    }

    /// Called whenever entries that may be sent are in memory.
    fn bound_in_flight(&mut self) {
        if !self.node.is_leader() {
            return;
        }
        let members: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
        if let Some(messages) = self.in_flight.bound(self.node.store().largest_bytes(), members.len()) {
            members.into_iter().for_each(|id| self.node.raft.adjust_max_inflight_msgs(id, messages));
        }
    }

    // Membership and leadership.

    /// Proposes a change of the membership, as the leader.
    pub fn change_membership(&mut self, change: MembershipChange) {
        self.node.propose_change(match change {
            MembershipChange::AddLearner(node) => ConfChange { kind: ConfChangeKind::AddLearner, node },
            MembershipChange::AddVoter(node) => ConfChange { kind: ConfChangeKind::AddVoter, node },
            MembershipChange::Remove(node) => ConfChange { kind: ConfChangeKind::Remove, node },
        });
    }

    /// As the leader, hands leadership to the voter that is nearest; false if there is none.
    pub fn hand_over(&mut self) -> bool {
        match self.node.other_voters().max_by_key(|r| r.matched) {
            Some(next) if self.leads() => {
                self.node.transfer_leader(next.node.0);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Stops taking part: no votes, no acknowledgements, no answers but refusals, until the damage is repaired.
    pub fn set_damaged(&mut self, what: String) {
        self.health.set_damaged(what);
        self.retire();
    }

    /// Stops taking part, because another replica has other entries below the commit index. No record may be served any more.
    pub fn set_differing(&mut self, what: String) {
        if self.health.set_differing(what) {
            self.retire();
        }
    }

    fn retire(&mut self) {
        if self.node.is_leader() {
            // No client is to be sent here for the rest of this process's time.
            self.node.step_down();
        }
        self.pending.fail_all(&mut self.out.answers);
        self.reads.fail_all(ReadIndexError::Damaged, &mut self.out.answers);
    }

    /// The replica is equal to the leader's, or to those of a majority, at the entry that was suspect.
    pub fn clear_suspicion(&mut self) {
        self.health.clear_suspicion();
    }

    /// Fails everything that waits: the node stops.
    pub fn stop(&mut self) {
        self.pending.fail_all(&mut self.out.answers);
        self.reads.fail_all(ReadIndexError::Stopping, &mut self.out.answers);
    }
}
