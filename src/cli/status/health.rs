//! What the members' answers mean: for each group its voters, which of them are alive, and what one more failure would do.

use std::collections::{BTreeMap, BTreeSet};

use super::Line;
use crate::cli::exit::Exit;
use crate::pb::admin::{DiskState, GroupStatus, Role};

/// One group: the catalog or a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupHealth {
    pub group: u64,
    /// None: the catalog.
    pub log: Option<String>,
    /// By name.
    pub voters: Vec<Voter>,
    pub learners: Vec<String>,
    pub leader: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voter {
    pub name: String,
    /// Why it does not count as alive.
    pub missing: Option<Missing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missing {
    Silent,
    /// Another node answers at its address.
    Replaced,
    /// It recovers, say.
    NotReady,
    NoReplica,
    Damaged,
    Stalled,
    /// It asks for votes while another node leads.
    CutOff,
}

impl Missing {
    /// Of one voter.
    pub fn one(self) -> &'static str {
        match self {
            Missing::Silent => "does not answer",
            Missing::Replaced => "does not answer: another node is at its address",
            Missing::NotReady => "takes no calls yet",
            Missing::NoReplica => "has no replica",
            Missing::Damaged => "is damaged",
            Missing::Stalled => "is stalled",
            Missing::CutOff => "does not hear the leader",
        }
    }

    fn several(self) -> &'static str {
        match self {
            Missing::Silent => "do not answer",
            Missing::Replaced => "do not answer: other nodes are at their addresses",
            Missing::NotReady => "take no calls yet",
            Missing::NoReplica => "have no replica",
            Missing::Damaged => "are damaged",
            Missing::Stalled => "are stalled",
            Missing::CutOff => "do not hear the leader",
        }
    }
}

/// What is wrong with a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub kind: Kind,
    /// None: the catalog, or no single log.
    pub log: Option<String>,
    pub nodes: Vec<String>,
    pub message: String,
}

/// The most serious first: the exit code is the first finding's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Damage,
    NoMajority,
    NoLeader,
    AppendsRefused,
    Joining,
    VoterMissing,
    MemberMissing,
}

impl Kind {
    pub fn exit(self) -> Exit {
        match self {
            Kind::Damage => Exit::BadData,
            Kind::NoMajority | Kind::NoLeader => Exit::NoMajority,
            Kind::AppendsRefused | Kind::Joining => Exit::Unavailable,
            Kind::VoterMissing | Kind::MemberMissing => Exit::Degraded,
        }
    }

    /// As it is in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Damage => "damage",
            Kind::NoMajority => "no_majority",
            Kind::NoLeader => "no_leader",
            Kind::AppendsRefused => "appends_refused",
            Kind::Joining => "joining",
            Kind::VoterMissing => "voter_missing",
            Kind::MemberMissing => "member_missing",
        }
    }

    pub fn next_step(self) -> &'static str {
        match self {
            Kind::Damage => {
                "the table names what is wrong. Check the disk, and restart the node: a replica that differs may be equal again. If it \
                 is not, and a majority of the other nodes have the log, stop the node, move its data directory away and let it join as a \
                 new node with another name"
            }
            Kind::NoMajority => {
                "start the nodes that do not answer, with their data directories; the table says what is wrong with the others"
            }
            Kind::NoLeader => "an election takes a second or two: ask again",
            Kind::AppendsRefused => "the table says why; the node's log has the next step",
            Kind::Joining => "",
            Kind::VoterMissing | Kind::MemberMissing => {
                "if it does not answer, start it again with its data directory: a new node at its address does not replace it; the \
                 table says what else is wrong"
            }
        }
    }
}

impl GroupHealth {
    pub fn title(&self) -> String {
        self.log.as_ref().map_or_else(|| "the catalog".to_owned(), |log| format!("log {log}"))
    }

    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    pub fn alive(&self) -> usize {
        self.voters.iter().filter(|voter| voter.missing.is_none()).count()
    }

    /// How many of those that are alive may fail before there is no majority; none: there is no majority now.
    pub fn may_fail(&self) -> Option<usize> {
        self.alive().checked_sub(self.majority())
    }

    pub fn missing(&self) -> impl Iterator<Item = (&Voter, Missing)> {
        self.voters.iter().filter_map(|voter| Some((voter, voter.missing?)))
    }

    pub fn is_well(&self) -> bool {
        self.missing().next().is_none() && self.leader.is_some()
    }

    /// A cluster of one or two voters that are all alive is as it was set up: that none may fail is no finding.
    fn finding(&self) -> Option<Finding> {
        let title = self.title();
        let missing: Vec<(&Voter, Missing)> = self.missing().collect();
        let (kind, message) = match (self.may_fail(), missing.is_empty()) {
            (None, _) => (Kind::NoMajority, format!("no majority for {title}: {}", who(&missing))),
            (Some(_), _) if self.leader.is_none() => (Kind::NoLeader, format!("no node leads {title}")),
            (Some(_), true) => return None,
            (Some(0), false) => (Kind::VoterMissing, format!("one more failure stops {title}: {}", who(&missing))),
            (Some(n), false) => {
                let (alive, voters) = (self.alive(), self.voters.len());
                let left = format!("{alive} of {voters} voters are alive, {n} may fail");
                (Kind::VoterMissing, format!("{title} lacks a voter: {}; {left}", who(&missing)))
            }
        };
        let nodes = missing.into_iter().map(|(voter, _)| voter.name.clone()).collect();
        Some(Finding { kind, log: self.log.clone(), nodes, message })
    }
}

/// "B and C do not answer; D is damaged".
fn who(missing: &[(&Voter, Missing)]) -> String {
    let mut by_reason: BTreeMap<Missing, Vec<&str>> = BTreeMap::new();
    for (voter, why) in missing {
        by_reason.entry(*why).or_default().push(&voter.name);
    }
    if by_reason.is_empty() {
        return "no voter is known".to_owned();
    }
    let parts = by_reason.into_iter().map(|(why, names)| match names.as_slice() {
        [one] => format!("{one} {}", why.one()),
        [most @ .., last] => format!("{} and {last} {}", most.join(", "), why.several()),
        [] => String::new(),
    });
    parts.collect::<Vec<_>>().join("; ")
}

impl Finding {
    /// A node that takes no calls yet.
    pub fn joining(addr: &str, waiting_for: &str) -> Finding {
        let message = format!("{addr} takes no calls yet: {waiting_for}");
        Finding { kind: Kind::Joining, log: None, nodes: Vec::new(), message }
    }
}

/// The catalog and every log that an answer names, and the log that was asked for. Voters are those of the newest conf state that
/// a node knows.
pub(super) fn groups(lines: &[Line], log: &str) -> Vec<GroupHealth> {
    let mut newest: BTreeMap<u64, &GroupStatus> = BTreeMap::new();
    for status in lines.iter().filter_map(|line| line.node.as_ref().ok()).flat_map(|node| &node.groups) {
        // A replica that is being made has no conf state yet.
        if status.voters.is_empty() {
            continue;
        }
        let known = newest.entry(status.group).or_insert(status);
        let age = |status: &GroupStatus| (status.commit_index, status.term);
        if age(status) > age(known) {
            *known = status;
        }
    }
    let mut groups: Vec<GroupHealth> = newest.into_values().map(|status| group(lines, status)).collect();
    if !groups.iter().any(|group| group.log.as_deref() == Some(log)) {
        groups.push(by_members(lines, log));
    }
    groups
}

fn group(lines: &[Line], newest: &GroupStatus) -> GroupHealth {
    let by_id: BTreeMap<u64, &Line> = lines.iter().map(|line| (line.server.node_id, line)).collect();
    let name = |id: &u64| by_id.get(id).map_or_else(|| format!("node {id:016x}"), |line| line.server.id.clone());
    // One that was cut off may go on leading, in an older term.
    let terms = lines.iter().filter_map(|line| {
        let status = line.status(newest.group)?;
        let leads = status.role.enum_value() == Ok(Role::ROLE_LEADER);
        leads.then_some((status.term, line))
    });
    let leader = terms.max_by_key(|(term, _)| *term);
    let mut voters: Vec<Voter> = newest
        .voters
        .iter()
        .map(|id| {
            let missing =
                by_id.get(id).map_or(Some(Missing::Silent), |line| missing(line, newest.group, leader.is_some()));
            Voter { name: name(id), missing }
        })
        .collect();
    voters.sort_by(|a, b| a.name.cmp(&b.name));
    GroupHealth {
        group: newest.group,
        log: (newest.group != 0).then(|| newest.log.clone()),
        voters,
        learners: newest.learners.iter().map(name).collect(),
        leader: leader.map(|(_, line)| line.server.id.clone()),
    }
}

/// `is_led`: some node leads the group. Without a leader every voter is a candidate now and then.
fn missing(line: &Line, group: u64, is_led: bool) -> Option<Missing> {
    match (&line.node, line.status(group)) {
        (Err(_), _) if line.replaced => Some(Missing::Replaced),
        (Err(_), _) => Some(Missing::Silent),
        (Ok(node), None) if !node.waiting_for.is_empty() => Some(Missing::NotReady),
        (Ok(_), None) => Some(Missing::NoReplica),
        (Ok(_), Some(status)) if !status.damage.is_empty() => Some(Missing::Damaged),
        (Ok(_), Some(status)) if !status.stalled.is_empty() => Some(Missing::Stalled),
        (Ok(_), Some(status)) if is_led && status.role.enum_value() == Ok(Role::ROLE_CANDIDATE) => {
            Some(Missing::CutOff)
        }
        (Ok(_), Some(_)) => None,
    }
}

/// Where no answer has the log: what the node said that named the members.
fn by_members(lines: &[Line], log: &str) -> GroupHealth {
    let silent = |line: &Line| Some(if line.node.is_ok() { Missing::NoReplica } else { Missing::Silent });
    let voters = lines.iter().filter(|line| line.server.is_voter);
    GroupHealth {
        group: 0,
        log: Some(log.to_owned()),
        voters: voters.map(|line| Voter { name: line.server.id.clone(), missing: silent(line) }).collect(),
        learners: Vec::new(),
        leader: None,
    }
}

/// All that is wrong, the most serious first.
pub(super) fn findings(lines: &[Line], groups: &[GroupHealth], log: &str) -> Vec<Finding> {
    let names = |wanted: &dyn Fn(&Line) -> bool| -> Vec<String> {
        lines.iter().filter(|line| wanted(line)).map(|line| line.server.id.clone()).collect()
    };
    let mut findings: Vec<Finding> = groups.iter().filter_map(GroupHealth::finding).collect();
    let mut add = |kind, log: Option<&str>, nodes: Vec<String>, what: &str| {
        if !nodes.is_empty() {
            let message = format!("{what} {}", nodes.join(", "));
            findings.push(Finding { kind, log: log.map(str::to_owned), nodes, message });
        }
    };
    add(Kind::Damage, None, names(&Line::is_damaged), "data is damaged on");
    let rival = |line: &Line| line.node.as_ref().is_ok_and(|node| !node.another_cluster.is_empty());
    add(Kind::AppendsRefused, None, names(&rival), "appends are refused, as another cluster of this name answers, by");
    let full = |line: &Line| {
        let state = line.node.as_ref().map(|node| node.disk.get_or_default().state.enum_value_or_default());
        let leads = line.group(log).is_some_and(|group| group.role.enum_value() == Ok(Role::ROLE_LEADER));
        leads && state == Ok(DiskState::DISK_STATE_FULL)
    };
    add(Kind::AppendsRefused, Some(log), names(&full), "appends are refused, as the disk is full, by the leader");
    let voters: BTreeSet<&str> =
        groups.iter().flat_map(|group| group.missing()).map(|(v, _)| v.name.as_str()).collect();
    let silent = |line: &Line| line.node.is_err() && !voters.contains(line.server.id.as_str());
    add(Kind::MemberMissing, None, names(&silent), "no answer from");
    findings.sort_by_key(|finding| finding.kind);
    findings
}
