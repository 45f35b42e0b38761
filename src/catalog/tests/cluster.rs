//! A simulated cluster without raft, disks and threads: nodes with their policies, and groups whose entries commit at
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::log::ModelLog;
use crate::catalog::policy::facts::{Now, ReplicaFacts, ReplicaProgress, Replicas};
use crate::catalog::policy::hosting::wanted_replicas;
use crate::catalog::policy::requests::Decision;
use crate::catalog::policy::voters::MembershipChange;
use crate::catalog::policy::{Action, Policy, PolicyTicks};
use crate::catalog::{Applied, Catalog, Command, Member};
use crate::storage::log::Genesis;
use crate::types::{GroupId, LogId, LogIndex, NodeId, NodeName, Term};

const TICK: Duration = Duration::from_millis(50);
/// 12 ticks and 5 minutes, as in the program.
const TICKS: PolicyTicks = PolicyTicks { round_max: 12, silent_max: 6000 };
/// The wall clock at the start.
const START_US: u64 = 1_800_000_000_000_000;

struct Node {
    me: Member,
    policy: Policy,
}

/// A group as all its replicas know it.
#[derive(Default)]
pub struct Group {
    pub leader: Option<NodeId>,
    pub term: u64,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// The nodes that have a replica. One that is neither a voter nor a learner is blank.
    pub hosts: BTreeSet<NodeId>,
    pub damaged: BTreeSet<NodeId>,
    /// A conf change is under way.
    pub changing: bool,
    /// Entries of the leader are not applied yet.
    pub busy: bool,
    pub last: u64,
    pub matched: BTreeMap<NodeId, u64>,
    pub log: ModelLog,
}

pub struct Cluster {
    pub catalog: Catalog,
    pub groups: BTreeMap<GroupId, Group>,
    pub silent: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, Node>,
    tick: u64,
    started: Instant,
    passed: Duration,
    /// By how much the wall clock is ahead of the true time.
    ahead_us: i64,
}

pub fn member(id: u64, name: &str) -> Member {
    Member {
        id: NodeId(id),
        name: NodeName::new(name).expect("a name"),
        bind_addr: format!("{name}:1"),
        rpc_addr: format!("{name}:2"),
    }
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            catalog: Catalog::default(),
            groups: BTreeMap::new(),
            silent: BTreeSet::new(),
            nodes: BTreeMap::new(),
            tick: 0,
            started: Instant::now(),
            passed: Duration::ZERO,
            ahead_us: 0,
        }
    }
}

impl Cluster {
    /// Starts or restarts a node. A restart resets its policy.
    pub fn start(&mut self, id: u64, name: &str) {
        let me = member(id, name);
        let policy = Policy::new(me.clone(), TICKS, || Some(LogId(7)));
        self.nodes.insert(me.id, Node { me, policy });
    }

    pub fn wall_us(&self) -> u64 {
        (START_US + self.passed.as_micros() as u64).saturating_add_signed(self.ahead_us)
    }

    /// Makes the wall clock jump.
    pub fn jump(&mut self, by_us: i64) {
        self.ahead_us += by_us;
    }

    /// Advances the time without ticks, as if every node were down.
    pub fn pass(&mut self, time: Duration) {
        self.passed += time;
    }

    /// Ticks every node. With `lost`, the actions are not performed.
    pub fn tick(&mut self, lost: bool) -> String {
        self.tick += 1;
        self.passed += TICK;
        let mut out = String::new();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let now = Now { tick: self.tick, at: self.started + self.passed, wall_us: self.wall_us() };
            let facts = self.facts(id);
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let actions = node.policy.tick(&self.catalog, &facts, now);
            for action in actions {
                self.perform(id, action, lost, &mut out);
            }
        }
        out
    }

    /// Requests a change of the catalog on a node.
    pub fn request(&mut self, id: u64, command: Command) -> String {
        let id = NodeId(id);
        let facts = self.facts(id);
        let decision = self.nodes[&id].policy.decide(&self.catalog, &facts, &command);
        let leads = facts.get(&GroupId::CATALOG).is_some_and(|replica| replica.leads);
        match decision {
            Decision::Propose if leads => format!("proposed: {}", self.apply(command)),
            Decision::Propose => "not the leader\n".to_owned(),
            Decision::Drop => "dropped\n".to_owned(),
            Decision::Replace(node) => {
                let removed = self.apply(Command::RemoveNode(node));
                format!("dropped, and node {} is removed: {removed}", node.0)
            }
        }
    }

    /// Applies a committed command on all nodes.
    pub fn apply(&mut self, command: Command) -> String {
        let would_change = self.catalog.would_change(&command);
        let before = self.catalog.clone();
        let applied = self.catalog.apply(command);
        assert_eq!(
            applied == Applied::Changed,
            would_change == Ok(true),
            "proposing and applying make the same decision"
        );
        assert_eq!(applied == Applied::Changed, self.catalog != before);
        let mut out = match applied {
            Applied::Changed => "changed\n".to_owned(),
            Applied::Unchanged => "unchanged\n".to_owned(),
            Applied::Ignored(conflict) => format!("ignored: {conflict}\n"),
        };
        for id in self.nodes.keys() {
            if self.catalog.member(*id).is_some() {
                self.groups.entry(GroupId::CATALOG).or_default().hosts.insert(*id);
            }
            let hosts = |group| self.groups.get(&group).is_some_and(|g| g.hosts.contains(id));
            let created = wanted_replicas(&self.catalog, *id, hosts)
                .filter_map(|wanted| Some((wanted.log.group, wanted.create?)));
            for (group, genesis) in created.collect::<Vec<_>>() {
                let state = self.groups.entry(group).or_default();
                state.hosts.insert(*id);
                match genesis {
                    Genesis::Founder(_) => {
                        state.found(*id);
                        writeln!(out, "  node {} creates group {group} as its founder", id.0).expect("written");
                    }
                    Genesis::Blank => {
                        writeln!(out, "  node {} creates a blank replica of group {group}", id.0).expect("written");
                    }
                }
            }
        }
        out
    }

    fn facts(&self, id: NodeId) -> Replicas {
        let replicas = self.groups.iter().filter(|(_, group)| group.hosts.contains(&id));
        replicas.map(|(group, state)| (*group, state.facts(id, &self.silent))).collect()
    }

    fn perform(&mut self, id: NodeId, action: Action, lost: bool, out: &mut String) {
        let name = self.nodes[&id].me.name.clone();
        let mut say =
            |text: String| write!(out, "{name}: {text}{}", if lost { " (lost)\n" } else { "\n" }).expect("written");
        match action {
            Action::Propose(command) => {
                say(format!("propose {}", show(&command)));
                if !lost {
                    out.push_str(&self.apply(command));
                }
            }
            Action::ChangeMembership(group, change) => {
                say(match change {
                    MembershipChange::AddLearner(node) => format!("group {group}: add learner {}", node.0),
                    MembershipChange::AddVoter(node) => format!("group {group}: add voter {}", node.0),
                    MembershipChange::Remove(node) => format!("group {group}: remove {}", node.0),
                });
                if let Some(group) = self.groups.get_mut(&group).filter(|_| !lost) {
                    group.change(change);
                }
            }
            Action::HandOver(group) => {
                say(format!("group {group}: hand over leadership"));
                let silent = &self.silent;
                if let Some(group) = self.groups.get_mut(&group).filter(|_| !lost) {
                    let next = group.voters.iter().find(|node| **node != id && !silent.contains(node)).copied();
                    group.elect(next);
                }
            }
            Action::KeepTime { group, local_us, seal } => {
                let log = &mut self.groups.get_mut(&group).expect("a group").log;
                if log.keep_time(local_us, seal) {
                    say(format!("group {group}: seal the segment up to offset {}", log.next()));
                }
            }
            Action::Trim(group, expired) => {
                let log = &mut self.groups.get_mut(&group).expect("a group").log;
                let first = if expired.is_possible(log) { expired.first_to_keep(log) } else { None };
                if let Some(first) = first {
                    say(format!("group {group}: trim to offset {first}"));
                    log.trim(first);
                }
            }
            Action::Notice(notice) => say(format!("{}: {notice}", notice.level())),
        }
    }
}

impl Group {
    pub fn found(&mut self, founder: NodeId) {
        self.hosts.insert(founder);
        self.voters.insert(founder);
        self.last = 2;
        self.elect(Some(founder));
    }

    pub fn elect(&mut self, leader: Option<NodeId>) {
        self.leader = leader;
        self.term += 1;
    }

    fn change(&mut self, change: MembershipChange) {
        self.last += 1;
        match change {
            MembershipChange::AddLearner(node) => {
                self.learners.insert(node);
            }
            MembershipChange::AddVoter(node) => {
                self.learners.remove(&node);
                self.voters.insert(node);
            }
            MembershipChange::Remove(node) => {
                self.learners.remove(&node);
                self.voters.remove(&node);
                self.matched.remove(&node);
            }
        }
    }

    fn facts(&self, id: NodeId, silent: &BTreeSet<NodeId>) -> ReplicaFacts {
        let leads = self.leader == Some(id);
        let progress = |node: &NodeId| ReplicaProgress {
            node: *node,
            voter: self.voters.contains(node),
            matched: LogIndex(if *node == id { self.last } else { self.matched.get(node).copied().unwrap_or(0) }),
            active: *node == id || !silent.contains(node),
        };
        let is_blank = !self.voters.contains(&id) && !self.learners.contains(&id);
        ReplicaFacts {
            leads,
            is_damaged: self.damaged.contains(&id),
            is_idle: !self.busy,
            is_changing: self.changing,
            term: Term(self.term),
            last_index: LogIndex(self.last),
            voters: if is_blank { Vec::new() } else { self.voters.iter().copied().collect() },
            progress: if leads { self.voters.union(&self.learners).map(progress).collect() } else { Vec::new() },
            visible: self.log.visible(),
            begun_us: self.log.begun_us(),
            is_searched: false,
        }
    }
}

/// A command as scripts print it.
pub fn show(command: &Command) -> String {
    match command {
        Command::AddNode(m) => format!("AddNode {} {} {} {}", m.id.0, m.name, m.bind_addr, m.rpc_addr),
        Command::RemoveNode(id) => format!("RemoveNode {}", id.0),
        Command::CreateLog(log) => format!("CreateLog {} {} founder={}", log.group, log.name, log.founder.0),
        Command::Founded(group) => format!("Founded {group}"),
        Command::ConfigureLog(group, change) => format!("ConfigureLog {group} {change:?}"),
        Command::RaiseFeatureLevel(level) => format!("RaiseFeatureLevel {level}"),
    }
}
