//! One Raft group as a pure state machine. Its inputs are requests, messages, ticks and reports of durable Readies;
//! its outputs are [`Effects`].
//!
//! It owns no clock, thread, socket, file or source of randomness. `driver.rs` performs the effects; a simulation
//! performs them on a faulty disk and a lossy network.
//!
//! ```text
//!  step ─▶ checks, term_jumps ─▶ node (raft, adapter) ─▶ ready ─▶ persistence ─▶ messages
//!  propose ─▶ propose, sequences ──▲     ▲                 ├─▶ apply ─▶ visible, conf state, commands, trims
//!  read_index ─▶ reads ────────────┘     │                 └─▶ pending, reads ─▶ answers
//!  tick ─▶ election_backoff, late, own_disk, unreadable
//! ```
//!
//! - `node` wraps raft and adds the queries that the other parts need. `adapter` is raft's view of the log.
//!   `settings` contains the configuration and the safety rules.
//! - Every other part owns its state, gets its inputs as parameters, and returns results. Only [`Group`] knows all
//!   parts.
//!
//! Invariants:
//!
//! - **No message is sent before the term and the vote that it depends on are synced** (`persistence.rs`).
//! - **A conf change is applied only once a commit index that covers it is synced** (`apply.rs`).
//! - raft silently drops requests that it can't handle, so the group checks first: only a leader proposes, only one
//!   conf change is pending, and reads wait until an entry of the leader's term is committed.
//! - A damaged group ignores all messages: it sends no votes and no acknowledgements.

mod adapter;
mod apply;
pub mod bulk;
mod checks;
mod commit_notices;
mod effects;
mod election_backoff;
mod full_window;
mod gathered;
mod health;
mod in_flight;
mod lanes;
mod late;
mod node;
mod nodes;
mod own_disk;
mod pending;
mod persistence;
mod propose;
pub mod quiet;
mod raft_logger;
mod reads;
mod ready;
pub mod repairing;
mod sequences;
mod settings;
mod term_jumps;
mod unreadable;
mod view;

use std::time::{Duration, Instant};

use raft::eraftpb::{Message, MessageType};

use self::apply::Applier;
use self::commit_notices::CommitNotices;
use self::election_backoff::{ElectionBackoff, Leadership};
use self::gathered::{COMMAND_BYTES_MAX, Gathered, GatheredRequest};
use self::health::Health;
use self::in_flight::AppendsInFlight;
use self::lanes::Lanes;
use self::late::LateTicks;
use self::node::RaftNode;
use self::own_disk::OwnDisk;
use self::pending::{HeldRefusal, Pending, WAIT_MAX};
use self::persistence::Persistence;
use self::propose::{Proposer, Rejected};
use self::reads::LeaderReads;
use self::term_jumps::TermJumps;
use self::unreadable::UnreadableEntries;

pub use self::adapter::{EntryEnd, FETCH_BYTES, FetchRange, cache_bytes_max};
pub use self::checks::BadStep;
pub use self::effects::{CommittedCommand, Effects, LogWrite};
pub use self::nodes::ReplicaNodes;
pub use self::pending::Answer;
#[cfg(test)]
pub use self::sequences::StreamSequences;
pub use self::settings::{ELECTION_TICKS, GroupConfig, Rules, Successor, TICK_MS};
use super::claim::{Checkpoint, Claim};
use super::compare::Compared;
use super::conf_change::{ConfChange, ConfChangeKind};
use super::faults::{Fault, broken};
use super::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::catalog::policy::voters::MembershipChange;
use crate::log_state::Applied;
use crate::reply::ReplySender;
use crate::storage::digest::Digest;
use crate::storage::entry::{Entry, EntryKind};
use crate::storage::log::{Base, Recovered};
use crate::storage::space::Space;
use crate::types::{LogIndex, NodeId, ReplicaId, Term};

/// How long a former leader's pending proposals wait after it has learned of its successor. Once the successor's
/// entries are applied here, they show which proposals were appended. If that takes longer (a hung disk), the outcome
/// is unknown.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// One group on this node.
pub struct Group {
    config: GroupConfig,
    pub(super) node: RaftNode,
    health: Health,
    applier: Applier,
    persistence: Persistence,
    proposer: Proposer,
    gathered: Gathered,
    pending: Pending,
    reads: LeaderReads,
    backoff: ElectionBackoff,
    late: LateTicks,
    term_jumps: TermJumps,
    own_disk: OwnDisk,
    unreadable: UnreadableEntries,
    in_flight: AppendsInFlight,
    lanes: Lanes,
    commit_notices: CommitNotices,
    out: Effects,
    ticks: usize,
    /// The term that this node led when [`Group::ready`] was last called.
    leading: Option<u64>,
    /// The term of the last other leader that was known at a tick.
    successor: u64,
    /// The leader, and the entry that this node lacks and that leader can't read.
    stalled: Option<(ReplicaId, LogIndex)>,
}

impl Group {
    /// Creates a group from its recovered state. `tail` contains every entry after the applied one, and `start` is
    /// the end of the applied entry.
    ///
    /// # Errors
    /// A text that describes an inconsistency of the recovered state.
    pub fn new(config: GroupConfig, recovered: &Recovered, start: EntryEnd, tail: &[Entry]) -> Result<Group, String> {
        let node = RaftNode::new(&config, recovered.clone(), start, tail)?;
        let term = recovered.hard_state.term.0;
        let applied =
            Applied::new(recovered.applied, start.offset, recovered.log_state.clone(), recovered.log_state_index);
        Ok(Group {
            node,
            health: Health::new(config.id, recovered.differing),
            applier: Applier::new(applied),
            persistence: Persistence::new(term, config.rules.hold_unsynced_term),
            proposer: Proposer::default(),
            gathered: Gathered::default(),
            pending: Pending::default(),
            reads: LeaderReads::default(),
            backoff: ElectionBackoff::new(term),
            late: LateTicks::default(),
            term_jumps: TermJumps::default(),
            own_disk: OwnDisk::default(),
            unreadable: UnreadableEntries::default(),
            in_flight: AppendsInFlight::default(),
            lanes: Lanes::default(),
            commit_notices: CommitNotices::default(),
            out: Effects::default(),
            config,
            ticks: 0,
            leading: None,
            successor: 0,
            stalled: None,
        })
    }

    /// Sets the free space of the disk, against which appended bytes are counted. By default it is unlimited.
    pub fn set_space(&mut self, space: Space) {
        self.proposer.set_space(space);
    }

    // Requests.

    /// Proposes an entry. The answer is one of the effects, now or later. `time_us` is the current time, Unix
    /// microseconds.
    pub fn propose(
        &mut self,
        proposal: Proposal,
        now: Instant,
        time_us: u64,
        reply: ReplySender<Result<Appended, ProposeError>>,
    ) {
        if proposal.kind == EntryKind::State && proposal.payload.len() > COMMAND_BYTES_MAX {
            // Of a faulty peer.
            self.out.answers.push(Answer::Append(reply, Err(ProposeError::TooLarge)));
            return;
        }
        if proposal.kind == EntryKind::State {
            if self.gathered.insert(GatheredRequest { proposal, now, time_us, reply }) {
                self.propose_gathered();
            }
            return;
        }
        // They arrived before.
        self.propose_gathered();
        let deadline = proposal.deadline.unwrap_or(now + WAIT_MAX);
        let proposed = if self.health.is_damaged() && !self.health.is_repairing() {
            Err(ProposeError::Damaged.into())
        } else {
            self.proposer.propose(&mut self.node, self.applier.tables(), proposal, now, time_us)
        };
        self.settle_proposal(proposed, deadline, reply);
    }

    /// Proposes the gathered commands as one entry.
    fn propose_gathered(&mut self) {
        let requests = self.gathered.take();
        if requests.is_empty() {
            return;
        }
        let proposed = if self.health.is_damaged() && !self.health.is_repairing() {
            requests.iter().map(|_| Err(ProposeError::Damaged.into())).collect()
        } else {
            self.proposer.propose_gathered(&mut self.node, self.applier.tables(), &requests)
        };
        let mut is_first = true;
        for (request, proposed) in requests.into_iter().zip(proposed) {
            let GatheredRequest { proposal, now, time_us: _, reply } = request;
            let deadline = proposal.deadline.unwrap_or(now + WAIT_MAX);
            match proposed {
                // The others wait for the same entry.
                Ok(appended) if !std::mem::take(&mut is_first) => {
                    let applied = self.applier.index();
                    self.pending.join(appended, applied, deadline, reply, &mut self.out.answers);
                }
                proposed => self.settle_proposal(proposed, deadline, reply),
            }
        }
    }

    /// Answers a proposal, or lets it wait for its answer.
    fn settle_proposal(
        &mut self,
        proposed: Result<Appended, Rejected>,
        deadline: Instant,
        reply: ReplySender<Result<Appended, ProposeError>>,
    ) {
        match proposed {
            Ok(appended) if appended.duplicate => {
                let applied = self.applier.index();
                self.pending.join(appended, applied, deadline, reply, &mut self.out.answers);
            }
            Ok(appended) if broken(Fault::AnsweredWhenAppended) => {
                self.out.answers.push(Answer::Append(reply, Ok(appended)));
            }
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

    /// Requests a read index: everything that was acknowledged before this call is at or below it.
    pub fn read_index(
        &mut self,
        deadline: Option<Instant>,
        now: Instant,
        reply: ReplySender<Result<LogIndex, ReadIndexError>>,
    ) {
        if self.health.is_damaged() && !self.health.is_repairing() {
            self.out.answers.push(Answer::Read(reply, Err(ReadIndexError::Damaged)));
        } else if !self.node.is_leader() {
            let leader = self.node.leader_node();
            self.out.answers.push(Answer::Read(reply, Err(ReadIndexError::NotLeader { leader })));
        } else if broken(Fault::ReadIndexUnconfirmed) {
            self.out.answers.push(Answer::Read(reply, Ok(self.node.commit_index())));
        } else {
            self.reads.insert(deadline.unwrap_or(now + WAIT_MAX), reply);
        }
    }

    // Messages of peers.

    /// Steps a peer's message.
    #[cfg(test)]
    pub fn step(&mut self, message: Message) {
        if let Err(bad) = self.step_with(message, None, Compared::Equal) {
            log::debug!("a message is refused: {bad}");
        }
    }

    /// Steps a peer's message. `claimed_last` is the leader's last index, if it was sent. `compared` is what the
    /// message proves about the entries here.
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
        let (from, caps) = (ReplicaId(message.from), self.config.rules.acknowledge_compared_only);
        match message.get_msg_type() {
            MessageType::MsgHeartbeatResponse => {
                let step = |node: &mut RaftNode| checks::step_compared(node, message, compared, caps);
                full_window::step_response(&mut self.node, &mut self.lanes, from, step);
            }
            _ => checks::step_compared(&mut self.node, message, compared, caps),
        }
        self.term_jumps.record_raise(term, self.node.raft.term, self.ticks);
        Ok(())
    }

    /// Returns true if replicas are compared; false only in tests.
    pub fn compares(&self) -> bool {
        self.config.rules.compare_with_leader
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

    /// Advances the time by one tick.
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
        if stalled_ticks > self.backoff.stalled_max() && self.node.is_leader() && !self.node.is_sole_voter() {
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
        if self.own_disk.tick(&self.node, self.leads(), self.ticks) && self.hand_over(Successor::NotAvoided) {
            self.own_disk.hands_over(self.ticks);
        }
        self.late.begin_tick(self.node.raft.election_elapsed);
        self.node.note_heard();
        let passes = self.backoff.tick(self.node.raft.term, self.leadership(), self.persistence.vote_waits());
        // A sole voter needs no other votes, so it does not wait.
        if (passes || self.node.is_sole_voter()) && self.may_campaign() {
            self.node.draw_election_timeout();
            self.node.tick();
        }
    }

    /// Called if the next tick is late.
    pub fn tick_is_late(&mut self) {
        let waits_for_others = self.node.is_leader() || self.node.leader().is_some();
        if waits_for_others && self.late.try_restart() {
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

    /// Returns true if raft may campaign. raft panics in two cases: if it campaigns while a snapshot is not persisted
    /// (it reads entries before the snapshot), and if a sole voter becomes leader while it has entries that are not
    /// persisted.
    fn may_campaign(&self) -> bool {
        let may_lead = self.node.is_leader() || !self.persistence.waits() || !self.node.is_sole_voter();
        !self.applier.is_installing() && may_lead
    }

    // Replicas.

    /// The nodes of the replicas, to set or to extend them.
    pub fn nodes_mut(&mut self) -> &mut ReplicaNodes {
        &mut self.node.nodes
    }

    /// Returns the node of a replica; 0 if it is not known.
    pub fn node_of(&self, replica: ReplicaId) -> NodeId {
        self.node.nodes.node_of(replica).unwrap_or_default()
    }

    /// The nodes of the replicas, as far as this node knows.
    pub fn nodes(&self) -> &ReplicaNodes {
        &self.node.nodes
    }

    // Membership and leadership.

    /// Proposes a change of the membership, as the leader.
    pub fn change_membership(&mut self, change: MembershipChange) {
        self.node.propose_change(match change {
            MembershipChange::AddLearner(replica) => ConfChange { kind: ConfChangeKind::AddLearner, replica },
            MembershipChange::AddVoter(replica) => ConfChange { kind: ConfChangeKind::AddVoter, replica },
            MembershipChange::Remove(replica) => ConfChange { kind: ConfChangeKind::Remove, replica },
        });
    }

    /// Stops taking part until the damage is repaired: the replica sends no votes and no acknowledgements, and
    /// refuses all requests.
    pub fn set_damaged(&mut self, what: String) {
        self.health.set_damaged(what);
        self.retire();
    }

    /// Stops taking part, because this replica differs from another one below the commit index. Its records must no
    /// longer be served.
    pub fn set_differing(&mut self, what: String) {
        if self.health.set_differing(what) {
            self.retire();
        }
    }

    fn retire(&mut self) {
        if self.node.is_leader() {
            // Clients must not be directed to this node until it is restarted.
            self.node.step_down();
        }
        self.fail_gathered(ProposeError::Damaged);
        self.pending.fail_all(&mut self.out.answers);
        self.reads.fail_all(ReadIndexError::Damaged, &mut self.out.answers);
    }

    fn fail_gathered(&mut self, error: ProposeError) {
        let failed = |request: GatheredRequest| Answer::Append(request.reply, Err(error));
        self.out.answers.extend(self.gathered.take().into_iter().map(failed));
    }

    /// Records that the replica equals the leader's, or those of a majority, at the entry where it was suspect.
    pub fn clear_suspicion(&mut self) {
        self.health.clear_suspicion();
    }

    /// Fails all waiting requests, because the node is stopping.
    pub fn stop(&mut self) {
        self.fail_gathered(ProposeError::Stopping);
        self.pending.fail_all(&mut self.out.answers);
        self.reads.fail_all(ReadIndexError::Stopping, &mut self.out.answers);
    }
}
