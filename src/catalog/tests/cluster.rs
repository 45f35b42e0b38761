//! A simulated cluster without raft, disks and threads: nodes with their policies, and groups whose entries commit at
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::log::ModelLog;
use crate::catalog::policy::facts::{Now, ReplicaFacts, ReplicaProgress, Replicas};
use crate::catalog::policy::hosting::hosting_step;
use crate::catalog::policy::requests::Decision;
use crate::catalog::policy::voters::MembershipChange;
use crate::catalog::policy::{Action, Policy, PolicyTicks};
use crate::catalog::{Applied, Catalog, Command, Destination, Member, NewLog, Origin, Plan};
use crate::feature_level::FeatureLevel;
use crate::storage::log::Genesis;
use crate::types::{GroupId, LogId, LogIndex, NodeId, NodeName, Offset, ReplicaId, Term};

const TICK: Duration = Duration::from_millis(50);
/// 12 ticks and 5 minutes, as in the program.
const TICKS: PolicyTicks = PolicyTicks { round_max: 12, silent_max: 6000 };
/// The wall clock at the start.
const START_US: u64 = 1_800_000_000_000_000;

struct Node {
    me: Member,
    policy: Policy,
    /// Every replica with a lower id was created before.
    next_replica: ReplicaId,
}

/// A group as all its replicas know it.
#[derive(Default)]
pub struct Group {
    pub leader: Option<NodeId>,
    pub term: u64,
    pub voters: BTreeSet<ReplicaId>,
    pub learners: BTreeSet<ReplicaId>,
    /// The nodes that have a replica. One that is neither a voter nor a learner is blank.
    pub hosts: BTreeMap<NodeId, ReplicaId>,
    pub damaged: BTreeSet<NodeId>,
    /// A conf change is under way.
    pub changing: bool,
    /// Entries of the leader are not applied yet.
    pub busy: bool,
    pub last: u64,
    pub matched: BTreeMap<ReplicaId, u64>,
    pub log: ModelLog,
}

pub struct Cluster {
    pub catalog: Catalog,
    pub groups: BTreeMap<GroupId, Group>,
    pub silent: BTreeSet<NodeId>,
    pub level_max: FeatureLevel,
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
            level_max: FeatureLevel(2),
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
        let policy = Policy::new(me.clone(), TICKS, self.level_max, || Some(LogId(7)));
        let next_replica = self.nodes.get(&me.id).map_or(ReplicaId(0), |node| node.next_replica);
        self.nodes.insert(me.id, Node { me, policy, next_replica });
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
            let due = facts.keys().copied().collect();
            let actions = node.policy.tick(&self.catalog, &facts, &due, now);
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
            Decision::Needed(group) => format!("refused: group {group} needs the node\n"),
            Decision::Replace(node) => {
                let removed = self.apply(Command::RemoveNode(node));
                format!("dropped, and node {} is removed: {removed}", node.0)
            }
        }
    }

    /// Chooses the nodes of a new log, as the catalog's leader does.
    pub fn place(&mut self, new: NewLog) -> Command {
        let leader = self.groups.get(&GroupId::CATALOG).and_then(|group| group.leader).unwrap_or(NodeId(1));
        let facts = self.facts(leader);
        let node = self.nodes.get_mut(&leader).expect("the leader");
        Command::CreateLog(node.policy.place(&self.catalog, &facts, new))
    }

    /// Applies a committed command on all nodes.
    pub fn apply(&mut self, command: Command) -> String {
        let would_change = self.catalog.would_change(&command);
        let before = self.catalog.clone();
        let wall_us = self.wall_us();
        let applied = self.catalog.apply(&command, wall_us);
        let changed = matches!(applied, Applied::Changed(_));
        assert_eq!(changed, would_change == Ok(true), "proposing and applying make the same decision");
        assert_eq!(changed, self.catalog != before);
        assert_eq!(Catalog::decode(&self.catalog.encode()).as_ref(), Ok(&self.catalog));
        let mut out = match applied {
            Applied::Changed(_) => "changed\n".to_owned(),
            Applied::Unchanged => "unchanged\n".to_owned(),
            Applied::Ignored(conflict) => format!("ignored: {conflict}\n"),
        };
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.catalog.member(id).is_some() {
                let hosts = &mut self.groups.entry(GroupId::CATALOG).or_default().hosts;
                hosts.insert(id, ReplicaId::of_node(id));
            }
            let logs: BTreeSet<GroupId> = self.catalog.logs().map(|log| log.group).collect();
            let groups = self.groups.keys().copied().filter(|group| *group != GroupId::CATALOG);
            for group in logs.into_iter().chain(groups).collect::<BTreeSet<_>>() {
                self.host(id, group, &mut out);
            }
        }
        out
    }

    /// Creates and drops the replicas of a node.
    fn host(&mut self, id: NodeId, group: GroupId, out: &mut String) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let hosted = self.groups.get(&group).and_then(|state| state.hosts.get(&id).copied());
        let may_create = |replica| replica == ReplicaId::of_node(id) || replica >= node.next_replica;
        let step = hosting_step(&self.catalog, id, group, hosted, may_create);
        let state = self.groups.entry(group).or_default();
        if let Some(dropped) = step.drop {
            state.hosts.remove(&id);
            writeln!(out, "  node {} drops replica {dropped} of group {group}", id.0).expect("written");
        }
        let Some(new) = step.create else { return };
        state.hosts.insert(id, new.replica);
        if new.replica != ReplicaId::of_node(id) {
            node.next_replica = ReplicaId(new.replica.0 + 1);
        }
        let what = match &new.genesis {
            Genesis::Voters(voters, first_offset) => {
                state.voters.extend(voters);
                state.last = 2;
                if voters.len() == 1 || new.leads {
                    state.elect(Some(id));
                }
                let begins = match first_offset {
                    Offset(0) => String::new(),
                    first_offset => format!(" from offset {first_offset}"),
                };
                format!("replica {} of group {group} with voters {}{begins}", new.replica, ids(voters))
            }
            Genesis::Blank => format!("the blank replica {} of group {group}", new.replica),
        };
        let leads = if new.leads { ", which leads" } else { "" };
        writeln!(out, "  node {} creates {what}{leads}", id.0).expect("written");
    }

    fn facts(&self, id: NodeId) -> Replicas {
        let replicas = self.groups.iter().filter(|(_, group)| group.hosts.contains_key(&id));
        replicas.map(|(group, state)| (*group, state.facts(id, &self.silent))).collect()
    }

    /// The other nodes that may lead the group next.
    fn successors(&self, group: GroupId, leader: NodeId) -> Vec<NodeId> {
        let state = &self.groups[&group];
        let votes = |(node, replica): &(&NodeId, &ReplicaId)| {
            state.voters.contains(replica) && **node != leader && !self.silent.contains(node)
        };
        state.hosts.iter().filter(votes).map(|(node, _)| *node).collect()
    }

    fn perform(&mut self, id: NodeId, action: Action, lost: bool, out: &mut String) {
        let name = self.nodes[&id].me.name.clone();
        let mut say =
            |text: String| write!(out, "{name}: {text}{}", if lost { " (lost)\n" } else { "\n" }).expect("written");
        let action = match action {
            Action::ReportRemoved(group, replica) => Action::Propose(Command::ReplicaRemoved(group, replica)),
            Action::GiveUpDamaged(group, replica) => Action::Propose(Command::RemoveReplica(group, replica)),
            other => other,
        };
        match action {
            Action::ReportRemoved(..) | Action::GiveUpDamaged(..) => {}
            Action::Propose(command) => {
                say(format!("propose {}", show(&command)));
                if !lost {
                    out.push_str(&self.apply(command));
                }
            }
            Action::ChangeMembership(group, change) => {
                say(match change {
                    MembershipChange::AddLearner(replica) => format!("group {group}: add learner {replica}"),
                    MembershipChange::AddVoter(replica) => format!("group {group}: add voter {replica}"),
                    MembershipChange::Remove(replica) => format!("group {group}: remove {replica}"),
                });
                if let Some(group) = self.groups.get_mut(&group).filter(|_| !lost) {
                    group.change(change);
                }
            }
            Action::HandOver(group) => {
                say(format!("group {group}: hand over leadership"));
                if !lost {
                    let next = self.successors(group, id).first().copied();
                    self.groups.get_mut(&group).expect("a group").elect(next);
                }
            }
            Action::Drain(group) => {
                let avoids = |node: &NodeId| self.catalog.plan(*node).avoids_leading();
                if let Some(next) = self.successors(group, id).into_iter().find(|node| !avoids(node)) {
                    say(format!("group {group}: hand over leadership to node {}", next.0));
                    self.groups.get_mut(&group).expect("a group").elect(Some(next));
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
        self.hosts.insert(founder, ReplicaId::of_node(founder));
        self.voters.insert(ReplicaId::of_node(founder));
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
            MembershipChange::AddLearner(replica) => {
                self.learners.insert(replica);
            }
            MembershipChange::AddVoter(replica) => {
                self.learners.remove(&replica);
                self.voters.insert(replica);
            }
            MembershipChange::Remove(replica) => {
                self.learners.remove(&replica);
                self.voters.remove(&replica);
                self.matched.remove(&replica);
            }
        }
    }

    fn facts(&self, id: NodeId, silent: &BTreeSet<NodeId>) -> ReplicaFacts {
        let leads = self.leader == Some(id);
        let me = self.hosts.get(&id).copied().unwrap_or_default();
        let is_silent = |replica: &ReplicaId| {
            let hosts = self.hosts.iter().find(|(_, hosted)| *hosted == replica).map(|(node, _)| *node);
            silent.contains(&hosts.unwrap_or(NodeId(replica.0)))
        };
        let progress = |replica: &ReplicaId| ReplicaProgress {
            replica: *replica,
            voter: self.voters.contains(replica),
            matched: LogIndex(if *replica == me { self.last } else { self.matched.get(replica).copied().unwrap_or(0) }),
            active: *replica == me || !is_silent(replica),
        };
        let is_blank = !self.voters.contains(&me) && !self.learners.contains(&me);
        ReplicaFacts {
            replica: me,
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
            damaged: Vec::new(),
        }
    }
}

pub fn show_plan(plan: &Plan) -> String {
    let leaves = match plan.leaves {
        Some(Destination::AnyNode) => Some("leaves".to_owned()),
        Some(Destination::Node(to)) => Some(format!("leaves to {}", to.0)),
        None => None,
    };
    let drained = plan.drained.then(|| "drained".to_owned());
    let replaceable = plan.may_be_replaced.then(|| "replaceable".to_owned());
    [drained, leaves, replaceable].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn ids(replicas: &[ReplicaId]) -> String {
    replicas.iter().map(ReplicaId::to_string).collect::<Vec<_>>().join(",")
}

/// A command as scripts print it.
pub fn show(command: &Command) -> String {
    match command {
        Command::AddNode(m) => format!("AddNode {} {} {} {}", m.id.0, m.name, m.bind_addr, m.rpc_addr),
        Command::RemoveNode(id) => format!("RemoveNode {}", id.0),
        Command::CreateLog(log) => match &log.origin {
            Origin::Founder(group, founder) => format!("CreateLog {group} {} founder={}", log.name, founder.0),
            Origin::Nodes(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
                format!("CreateLog {} nodes={}", log.name, nodes.join(","))
            }
        },
        Command::Founded(group) => format!("Founded {group}"),
        Command::ConfigureLog(group, change) => format!("ConfigureLog {group} {change:?}"),
        Command::RaiseFeatureLevel(level) => format!("RaiseFeatureLevel {level}"),
        Command::UpdateLog(group, settings, revision) => format!("UpdateLog {group} {settings:?} revision={revision}"),
        Command::DeleteLog(group, after, revision) => format!("DeleteLog {group} {after:?} {revision:?}"),
        Command::UndeleteLog(group) => format!("UndeleteLog {group}"),
        Command::FinishRestore(group) => format!("FinishRestore {group}"),
        Command::PurgeLog(group) => format!("PurgeLog {group}"),
        Command::PlaceReplica(group, node) => format!("PlaceReplica {group} {}", node.0),
        Command::RemoveReplica(group, replica) => format!("RemoveReplica {group} {replica}"),
        Command::ReplicaRemoved(group, replica) => format!("ReplicaRemoved {group} {replica}"),
        Command::PlanNode(id, plan, _) => format!("PlanNode {} {}", id.0, show_plan(plan)),
        Command::ReplaceNode(id, by) => format!("ReplaceNode {} by {} {}", id.0, by.id.0, by.name),
        Command::MoveReplica(group, replica, node) => format!("MoveReplica {group} {replica} to {}", node.0),
        Command::SetBalancing(balancing) => format!("SetBalancing {balancing}"),
        Command::UpdateCluster(settings, revision) => format!("UpdateCluster {settings:?} revision={revision}"),
    }
}
