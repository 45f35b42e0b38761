//! The language of the scripts in `scripts/`: commands for a simulated cluster, and the printed effects of its groups.
//!
//! Nodes are numbered from 1. A command in parentheses prints nothing. Each effect, each change of a node's role, and
//! each answer is printed as a line. An answer is printed with the name of its request.

use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use goldenscript::Context;
use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};

use super::disk::Disk;
use super::show;
use super::sim::{Answer, World, answered};
use crate::consensus::conf_change::{ConfChange, ConfChangeKind};
use crate::consensus::group::{Group, Rules};
use crate::consensus::handle::{Proposal, StreamPosition};
use crate::consensus::wire;
use crate::storage::entry::EntryKind;
use crate::storage::log::{Base, ConfState, Genesis, LogSnapshot};
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, LogIndex, Offset, ReplicaId, StreamId, Term};

#[test]
fn scripts() {
    crate::golden::run_scripts::<Script>("consensus/tests/scripts");
}

/// A line of a script.
#[derive(goldenscript::Command)]
pub enum Line {
    /// Creates a cluster. The first node founds the group; all nodes should replicate it.
    Cluster {
        nodes: u64,
        #[arg(key)]
        seed: Option<u64>,
        /// A rule to disable.
        #[arg(key)]
        without: Option<String>,
        /// Each message arrives once, in order.
        #[arg(key, optional)]
        reliable: bool,
    },
    /// Restarts a node with the log that this founder has created, and with these voters.
    Restart {
        node: u64,
        #[arg(key)]
        founder: u64,
        #[arg(key)]
        voters: Nodes,
    },
    /// Sets the nodes that should replicate the group.
    Want {
        nodes: Vec<u64>,
    },
    /// Removes all faults and runs until all nodes vote and have applied the same entries. Prints their states.
    Settle {
        rounds: Option<usize>,
    },
    /// Runs a round: these nodes (by default all) tick and sync, and all messages in flight are delivered.
    Round {
        #[arg(key)]
        times: Option<usize>,
        #[arg(key)]
        nodes: Option<Nodes>,
    },
    /// Runs rounds until a node has the entry after which another node's log begins.
    RoundsUntilSnapshot {
        node: u64,
        of: u64,
        #[arg(key)]
        nodes: Nodes,
    },
    Tick {
        node: u64,
        times: Option<usize>,
    },
    Sync {
        node: u64,
    },
    /// Delivers the oldest message, or this many.
    Deliver {
        messages: Option<usize>,
    },
    /// Drops all messages in flight.
    Lose,
    Crash {
        node: u64,
        /// The number of unsynced changes that reach the disk.
        #[arg(key)]
        kept: Option<usize>,
    },
    Start {
        node: u64,
    },
    Isolate {
        node: u64,
    },
    /// Ticks an isolated leader until it steps down, without printing its messages. One of its ticks is late, or all
    /// are.
    Reign {
        node: u64,
        #[arg(key)]
        late_at: Option<usize>,
        #[arg(key, optional)]
        late: bool,
    },
    Status {
        node: Option<u64>,
    },
    /// Prints the hard state and the log of a node, as its process reads them.
    Disk {
        node: u64,
    },

    /// Prints the voters in raft's own state.
    RaftVoters {
        node: u64,
    },

    /// A client proposes one record.
    Propose {
        node: u64,
        name: String,
        #[arg(key)]
        expect: Option<u64>,
        /// The deadline in seconds from now.
        #[arg(key)]
        within: Option<i64>,
        #[arg(key)]
        term: Option<u64>,
        /// A stream's run and the sequence in it.
        #[arg(key)]
        stream: Option<Pair>,
    },
    Trim {
        node: u64,
        name: String,
        first: u64,
    },

    // Messages of peers, as this node receives them.
    Append {
        node: u64,
        from: u64,
        #[arg(key)]
        term: u64,
        #[arg(key)]
        after: Pair,
        #[arg(key)]
        commit: u64,
        /// A conf change that adds this learner, in the only entry.
        #[arg(key)]
        learner: Option<u64>,
    },
    Heartbeat {
        node: u64,
        from: u64,
        #[arg(key)]
        term: u64,
        #[arg(key)]
        commit: u64,
    },
    /// A forced vote, as after a handover of leadership.
    RequestVote {
        node: u64,
        from: u64,
        #[arg(key)]
        term: u64,
    },
    TimeoutNow {
        node: u64,
        from: u64,
        #[arg(key)]
        term: u64,
    },
    Snapshot {
        node: u64,
        from: u64,
        #[arg(key)]
        term: u64,
        #[arg(key)]
        base: Pair,
        #[arg(key)]
        conf_index: u64,
        #[arg(key)]
        voters: Nodes,
    },
}

/// Two numbers like `7/1`.
pub struct Pair(u64, u64);

impl FromStr for Pair {
    type Err = Box<dyn Error>;

    fn from_str(text: &str) -> Result<Pair, Self::Err> {
        let (one, other) = text.split_once('/').ok_or("not two numbers")?;
        Ok(Pair(one.parse()?, other.parse()?))
    }
}

/// Numbers of nodes like `1,2,3`.
pub struct Nodes(Vec<ReplicaId>);

impl FromStr for Nodes {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Nodes, Self::Err> {
        text.split(',').map(|id| id.parse().map(ReplicaId)).collect::<Result<_, _>>().map(Nodes)
    }
}

pub struct Script {
    world: World,
    asked: Vec<(String, Answer)>,
}

impl Default for Script {
    fn default() -> Script {
        Script { world: World::new(1, 1, Rules::default()), asked: Vec::new() }
    }
}

fn without(rule: Option<&str>) -> Result<Rules, Box<dyn Error>> {
    let mut rules = Rules::default();
    match rule {
        None => {}
        Some("hold_unsynced_term") => rules.hold_unsynced_term = false,
        Some("sync_commit_before_conf_change") => rules.sync_commit_before_conf_change = false,
        Some(other) => return Err(format!("{other} is not a rule").into()),
    }
    Ok(rules)
}

fn message(kind: MessageType, node: u64, from: u64, term: u64) -> Message {
    let mut message = Message { from, to: node, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn record() -> Proposal {
    let mut payload = Vec::new();
    encode_record(&mut payload, &RecordFields { value: b"a", ..RecordFields::default() });
    Proposal::new(GroupId(1), EntryKind::Records, 1, payload.as_slice().into())
}

impl Script {
    fn at(&self, node: u64) -> Result<usize, Box<dyn Error>> {
        let at = (node as usize).checked_sub(1).filter(|at| *at < self.world.nodes.len());
        at.ok_or_else(|| format!("there are {} nodes", self.world.nodes.len()).into())
    }

    fn group(&mut self, node: u64) -> Result<&mut Group, Box<dyn Error>> {
        let at = self.at(node)?;
        self.world.nodes[at].group.as_mut().ok_or_else(|| format!("n{node} is down").into())
    }

    fn status(&mut self, node: u64) -> String {
        let status = self.group(node).map_or_else(|down| down.to_string(), |group| show::status(group));
        format!("n{node} {status}")
    }

    fn statuses(&mut self) -> Vec<String> {
        (1..=self.world.nodes.len() as u64).map(|node| self.status(node)).collect()
    }

    fn round(&mut self, nodes: Option<&Nodes>) -> Result<(), Box<dyn Error>> {
        let all: Vec<u64> = match nodes {
            Some(nodes) => nodes.0.iter().map(|id| id.0).collect(),
            None => (1..=self.world.nodes.len() as u64).collect(),
        };
        for node in all {
            let at = self.at(node)?;
            self.world.tick(at);
            self.world.sync(at);
        }
        (0..self.world.network.len()).for_each(|_| self.world.deliver());
        Ok(())
    }

    fn step(&mut self, node: u64, message: Message) -> Result<(), Box<dyn Error>> {
        let message = wire::message_from_pb(wire::message_to_pb(GroupId(1), message))?;
        self.group(node)?.step(message);
        let at = self.at(node)?;
        self.world.perform(at);
        Ok(())
    }

    fn ask(&mut self, node: u64, name: &str, proposal: Proposal) -> Result<(), Box<dyn Error>> {
        self.group(node)?;
        let at = self.at(node)?;
        let answer = self.world.ask(at, proposal);
        self.asked.push((name.to_owned(), answer));
        Ok(())
    }

    /// Returns the number of ticks until an isolated leader steps down, at most 200.
    fn reign(&mut self, node: u64, late: impl Fn(usize) -> bool) -> Result<usize, Box<dyn Error>> {
        let at = self.at(node)?;
        for tick in 0..200 {
            if late(tick) {
                self.group(node)?.tick_is_late();
            }
            self.world.tick(at);
            self.world.network.clear();
            if self.world.leader() != Some(at) {
                return Ok(tick);
            }
        }
        Ok(200)
    }

    /// Returns the events since the last line of the script.
    fn news(&mut self) -> Vec<String> {
        let mut lines = self.world.take_trace();
        self.asked.retain_mut(|(name, answer)| match answered(answer) {
            Some(answer) => {
                lines.push(format!("{name}: {}", show::answer(&answer)));
                false
            }
            None => true,
        });
        lines
    }

    fn peers_message(&mut self, line: &Line) -> Result<(), Box<dyn Error>> {
        match line {
            Line::Append { node, from, term, after, commit, learner } => {
                let mut append = message(MessageType::MsgAppend, *node, *from, *term);
                (append.index, append.log_term, append.commit) = (after.0, after.1, *commit);
                if let Some(learner) = learner {
                    let mut entry = RaftEntry { term: *term, index: after.0 + 1, ..RaftEntry::default() };
                    entry.set_entry_type(EntryType::EntryConfChange);
                    let change = ConfChange { kind: ConfChangeKind::AddLearner, replica: ReplicaId(*learner) };
                    entry.context = change.encode().to_vec().into();
                    append.set_entries(vec![entry].into());
                }
                self.step(*node, append)
            }
            Line::Heartbeat { node, from, term, commit } => {
                let mut heartbeat = message(MessageType::MsgHeartbeat, *node, *from, *term);
                heartbeat.commit = *commit;
                self.step(*node, heartbeat)
            }
            Line::RequestVote { node, from, term } => {
                let mut vote = message(MessageType::MsgRequestVote, *node, *from, *term);
                vote.context = "CampaignTransfer".into();
                self.step(*node, vote)
            }
            Line::TimeoutNow { node, from, term } => {
                self.step(*node, message(MessageType::MsgTimeoutNow, *node, *from, *term))
            }
            Line::Snapshot { node, from, term, base, conf_index, voters } => {
                let mut snapshot = message(MessageType::MsgSnapshot, *node, *from, *term);
                snapshot.set_snapshot(wire::snapshot_to_raft(&LogSnapshot {
                    base: Base { index: LogIndex(base.0), term: Term(base.1), ..Base::default() },
                    conf_state: ConfState { voters: voters.0.clone(), learners: Vec::new() },
                    conf_index: LogIndex(*conf_index),
                    log_state_index: LogIndex(base.0),
                    ..LogSnapshot::default()
                }));
                self.step(*node, snapshot)
            }
            _ => Err("not a message".into()),
        }
    }
}

impl goldenscript::Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _context: &Context) -> Result<String, Box<dyn Error>> {
        let mut notices = Vec::new();
        match line {
            Line::Cluster { nodes, seed, without: rule, reliable } => {
                self.asked.clear();
                self.world = World::new(seed.unwrap_or(1), *nodes, without(rule.as_deref())?);
                self.world.reliable = *reliable;
                self.world.keep_trace();
            }
            Line::Restart { node, founder, voters } => {
                let at = self.at(*node)?;
                let mut disk = Disk::new(Genesis::founder(ReplicaId(*founder)));
                disk.files.conf_state.voters = voters.0.clone();
                self.world.nodes[at].disk = disk;
                self.world.start(at);
            }
            Line::Want { nodes } => self.world.wanted = nodes.iter().copied().map(ReplicaId).collect(),
            Line::Settle { rounds } => {
                let settled = self.world.settle(rounds.unwrap_or(2000));
                self.world.take_trace();
                notices.extend((!settled).then(|| "they do not agree".to_owned()));
                notices.extend(self.statuses());
            }
            Line::Round { times, nodes } => {
                for _ in 0..times.unwrap_or(1) {
                    self.round(nodes.as_ref())?;
                }
            }
            Line::RoundsUntilSnapshot { node, of, nodes } => {
                let (at, of) = (self.at(*node)?, self.at(*of)?);
                let mut rounds = 0;
                while self.world.nodes[at].disk.files.base != self.world.nodes[of].disk.files.base {
                    rounds += 1;
                    if rounds > 200 {
                        return Err("no snapshot in 200 rounds".into());
                    }
                    self.round(Some(nodes))?;
                }
            }
            Line::Tick { node, times } => {
                let at = self.at(*node)?;
                (0..times.unwrap_or(1)).for_each(|_| self.world.tick(at));
            }
            Line::Sync { node } => {
                let at = self.at(*node)?;
                self.world.sync(at);
            }
            Line::Deliver { messages } => (0..messages.unwrap_or(1)).for_each(|_| self.world.deliver()),
            Line::Lose => self.world.network.clear(),
            Line::Crash { node, kept } => {
                let at = self.at(*node)?;
                self.world.crash_keeping(at, kept.unwrap_or(0));
            }
            Line::Start { node } => {
                let at = self.at(*node)?;
                self.world.start(at);
            }
            Line::Isolate { node } => {
                let others = (1..=self.world.nodes.len() as u64).filter(|other| other != node);
                self.world.cut.extend(others.flat_map(|other| [(*node, other), (other, *node)]));
            }
            Line::Reign { node, late_at, late } => {
                let ticks = self.reign(*node, |tick| *late || Some(tick) == *late_at)?;
                let lines = self.world.take_trace();
                notices.extend(lines.into_iter().filter(|line| !line.contains(" -> ")));
                notices.push(format!("n{node} leads for {ticks} more ticks"));
            }
            Line::Status { node: Some(node) } => notices.push(self.status(*node)),
            Line::Status { node: None } => notices.extend(self.statuses()),
            Line::Disk { node } => {
                let files = &self.world.nodes[self.at(*node)?].disk.files;
                let (hard, base) = (files.hard_state, files.base);
                notices.push(format!("n{node} term={} commit={} base={}", hard.term, hard.commit, base.index));
                notices.extend(files.entries.iter().map(show::entry));
            }
            Line::RaftVoters { node } => {
                let conf = wire::conf_from_raft(&self.group(*node)?.node.raft.prs().conf().to_conf_state());
                notices.push(format!("n{node} {:?}", conf.voters.iter().map(|voter| voter.0).collect::<Vec<_>>()));
            }
            Line::Propose { node, name, expect, within, term, stream } => {
                let deadline = within.map(|seconds| {
                    let (now, span) = (self.world.now(), Duration::from_secs(seconds.unsigned_abs()));
                    if seconds < 0 { now - span } else { now + span }
                });
                let proposal = Proposal {
                    expected_offset: expect.map(Offset),
                    deadline,
                    term: term.map(Term),
                    in_stream: stream
                        .as_ref()
                        .map(|Pair(run, sequence)| StreamPosition { stream: StreamId(*run), sequence: *sequence }),
                    ..record()
                };
                self.ask(*node, name, proposal)?;
            }
            Line::Trim { node, name, first } => {
                self.ask(*node, name, Proposal::trim(GroupId(1), Offset(*first)))?;
            }
            Line::Append { .. }
            | Line::Heartbeat { .. }
            | Line::RequestVote { .. }
            | Line::TimeoutNow { .. }
            | Line::Snapshot { .. } => self.peers_message(line)?,
        }
        let mut lines = self.news();
        lines.extend(notices);
        Ok(lines.join("\n"))
    }
}
