//! Derives the health of each group from the members' answers: its voters, which of them are alive, and how many may
//! fail.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{Answer, CATALOG, certificate};
use super::finding::{ClusterFinding, FindingKind};
use crate::pb::v1::{DiskState, GroupStatus, LogInfo, LogState, Replica, Role};

/// The next step if a replica takes no part.
const AFTER_EXCLUSION: &str = "the table names what is wrong. Check the disk. A damaged replica is repaired or replaced automatically, if \
                               a majority of the log's replicas is intact. One that differs from its leader is not: restart its \
                               node. If it still differs, stop the node, move its data directory away, start the node again, and \
                               run `seriatim node replace NODE`";
/// The next step if only some records can't be read from a node.
const AFTER_DISK_DAMAGE: &str = "check the disk of the node. The table names the records that can't be read from it: read them from \
                                 another node. The node repairs them automatically, if another node has them";

/// The health of one group: the catalog or a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupHealth {
    /// `None` for the catalog.
    pub log: Option<String>,
    pub voters: Vec<Voter>,
    pub learners: Vec<String>,
    pub leader: Option<String>,
    /// The number of voters that the log's settings ask for, as far as there are nodes; 0: not known.
    pub wanted: usize,
    /// False if no node that answers has a replica of it.
    pub is_reported: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voter {
    pub name: String,
    /// Why the voter does not count as alive; `None` if it does.
    pub missing: Option<Missing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missing {
    Silent,
    /// Another node answers at its address.
    Replaced,
    /// It is starting, for example in recovery.
    NotReady,
    NoReplica,
    Damaged,
    Stalled,
    /// It is a candidate while another node leads.
    CutOff,
}

impl Missing {
    /// Returns the end of a sentence about one voter.
    pub fn one(self) -> &'static str {
        match self {
            Missing::Silent => "does not answer",
            Missing::Replaced => "does not answer: another node is at its address",
            Missing::NotReady => "is not ready yet",
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
            Missing::NotReady => "are not ready yet",
            Missing::NoReplica => "have no replica",
            Missing::Damaged => "are damaged",
            Missing::Stalled => "are stalled",
            Missing::CutOff => "do not hear the leader",
        }
    }
}

impl GroupHealth {
    /// A log of which no replica answers.
    fn silent(log: &str) -> GroupHealth {
        GroupHealth {
            log: Some(log.to_owned()),
            voters: Vec::new(),
            learners: Vec::new(),
            leader: None,
            wanted: 0,
            is_reported: false,
        }
    }

    pub fn title(&self) -> String {
        self.log.as_ref().map_or_else(|| "the catalog".to_owned(), |log| format!("log {log}"))
    }

    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    pub fn alive(&self) -> usize {
        self.voters.iter().filter(|voter| voter.missing.is_none()).count()
    }

    /// Returns how many of the alive voters may fail without losing the majority; `None` if it is already lost.
    pub fn may_fail(&self) -> Option<usize> {
        self.alive().checked_sub(self.majority())
    }

    pub fn missing(&self) -> impl Iterator<Item = (&Voter, Missing)> {
        self.voters.iter().filter_map(|voter| Some((voter, voter.missing?)))
    }

    pub fn is_well(&self) -> bool {
        self.missing().next().is_none() && self.leader.is_some() && !self.has_too_few()
    }

    /// Returns true if the log has fewer voters than its settings say, for example while new replicas catch up.
    fn has_too_few(&self) -> bool {
        self.voters.len() < self.wanted
    }

    /// Returns how many voters are alive, and how many may fail.
    pub fn summary(&self) -> String {
        if !self.is_reported {
            return format!("{}: none of its replicas answers", self.title());
        }
        if self.voters.is_empty() {
            return format!("{}: is not created yet", self.title());
        }
        let (alive, voters) = (self.alive(), self.voters.len());
        let may_fail = match self.may_fail() {
            None => "no majority".to_owned(),
            Some(0) => "none may fail".to_owned(),
            Some(n) => format!("{n} may fail"),
        };
        let (noun, verb) = (if voters == 1 { "voter" } else { "voters" }, if alive == 1 { "is" } else { "are" });
        let no_leader = if self.may_fail().is_some() && self.leader.is_none() { ", no leader" } else { "" };
        let too_few = if self.has_too_few() { format!(", {} voters are wanted", self.wanted) } else { String::new() };
        format!("{}: {alive} of {voters} {noun} {verb} alive, {may_fail}{no_leader}{too_few}", self.title())
    }

    /// Returns the most serious finding of the group. A group of one or two voters that are all alive has none,
    /// although no voter may fail, because it was configured that way.
    fn finding(&self) -> Option<ClusterFinding> {
        let title = self.title();
        if !self.is_reported {
            let next = "start the nodes that have its replicas; if they are lost for good, `seriatim log delete` removes \
                        the log, and OPERATIONS, \"Lost quorum\", says what else is possible";
            return Some(ClusterFinding {
                kind: FindingKind::NoMajority,
                log: self.log.clone(),
                nodes: Vec::new(),
                message: format!("none of the replicas of {title} answers"),
                next: next.to_owned(),
            });
        }
        if self.voters.is_empty() {
            let message = format!("{title} is not created yet");
            let next = "try again in a moment: a new cluster creates it".to_owned();
            return Some(ClusterFinding {
                kind: FindingKind::NoLeader,
                log: self.log.clone(),
                nodes: Vec::new(),
                message,
                next,
            });
        }
        let missing: Vec<(&Voter, Missing)> = self.missing().collect();
        let next = start_again(&missing);
        let (kind, message) = match (self.may_fail(), missing.is_empty()) {
            (None, _) => (FindingKind::NoMajority, format!("no majority for {title}: {}", reasons(&missing))),
            (Some(_), _) if self.leader.is_none() => {
                let next = "an election takes a second or two: ask again".to_owned();
                let message = format!("no node leads {title}");
                return Some(ClusterFinding {
                    kind: FindingKind::NoLeader,
                    log: self.log.clone(),
                    nodes: names(&missing),
                    message,
                    next,
                });
            }
            (Some(_), true) if self.has_too_few() => {
                let (voters, wanted) = (self.voters.len(), self.wanted);
                return Some(ClusterFinding {
                    kind: FindingKind::VotersTooFew,
                    log: self.log.clone(),
                    nodes: Vec::new(),
                    message: format!("{title} has {voters} of {wanted} voters"),
                    next: "stop no node until the new replicas have caught up".to_owned(),
                });
            }
            (Some(_), true) => return None,
            (Some(0), false) => {
                (FindingKind::VoterMissing, format!("one more failure stops {title}: {}", reasons(&missing)))
            }
            (Some(n), false) => {
                let (alive, voters) = (self.alive(), self.voters.len());
                let left = format!("{alive} of {voters} voters are alive, {n} may fail");
                (FindingKind::VoterMissing, format!("{title} lacks a voter: {}; {left}", reasons(&missing)))
            }
        };
        Some(ClusterFinding { kind, log: self.log.clone(), nodes: names(&missing), message, next })
    }
}

fn names(missing: &[(&Voter, Missing)]) -> Vec<String> {
    missing.iter().map(|(voter, _)| voter.name.clone()).collect()
}

/// Returns the next step if these voters are missing.
fn start_again(missing: &[(&Voter, Missing)]) -> String {
    let silent = |why: &Missing| matches!(why, Missing::Silent | Missing::Replaced);
    let names: Vec<&str> =
        missing.iter().filter(|(_, why)| silent(why)).map(|(voter, _)| voter.name.as_str()).collect();
    let others = if names.len() < missing.len() { "the table says what is wrong with the others" } else { "" };
    match names.as_slice() {
        [] => "the table says what is wrong".to_owned(),
        names => {
            [start(names).as_str(), others].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
        }
    }
}

fn start(names: &[&str]) -> String {
    match names {
        [name] => {
            format!("start {name} again with its data directory; if that is lost, `seriatim node replace {name}` helps")
        }
        [most @ .., last] => format!(
            "start {} and {last} again with their data directories; if these are lost, OPERATIONS, \"Replace a node\" and \
             \"Lost quorum\", says what to do",
            most.join(", ")
        ),
        [] => String::new(),
    }
}

/// Formats the reasons: "B and C do not answer; D is damaged".
fn reasons(missing: &[(&Voter, Missing)]) -> String {
    let mut by_reason: BTreeMap<Missing, Vec<&str>> = BTreeMap::new();
    for (voter, why) in missing {
        by_reason.entry(*why).or_default().push(&voter.name);
    }
    let parts = by_reason.into_iter().map(|(why, names)| match names.as_slice() {
        [one] => format!("{one} {}", why.one()),
        [most @ .., last] => format!("{} and {last} {}", most.join(", "), why.several()),
        [] => String::new(),
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// Returns the health of the catalog, of every log in an answer, and of `log`. The voters of a group are those of the
/// newest conf state in any answer. `logs` are the logs of the catalog, to notice those of which no replica answers.
pub(super) fn groups(answers: &[Answer], log: &str, logs: &[LogInfo]) -> Vec<GroupHealth> {
    let mut newest: BTreeMap<&str, &GroupStatus> = BTreeMap::new();
    for status in answers.iter().filter_map(|answer| answer.node.as_ref().ok()).flat_map(|node| &node.groups) {
        // A replica that is being created has no conf state yet.
        if status.replicas.is_empty() {
            continue;
        }
        let known = newest.entry(&status.log).or_insert(status);
        let age = |status: &GroupStatus| (status.commit_index, status.term);
        if age(status) > age(known) {
            *known = status;
        }
    }
    let mut groups: Vec<GroupHealth> = newest.into_values().map(|status| group(answers, status)).collect();
    if !groups.iter().any(|group| group.log.as_deref() == Some(log)) {
        groups.push(by_members(answers, log));
    }
    let of_group: BTreeMap<&str, &LogInfo> = logs.iter().map(|log| (log.name.as_str(), log)).collect();
    for group in &mut groups {
        if let Some(log) = group.log.as_deref().and_then(|log| of_group.get(log)) {
            group.wanted = (log.config.replicas.unwrap_or_default() as usize).min(answers.len());
        }
    }
    let reported: BTreeSet<&str> = groups.iter().filter_map(|group| group.log.as_deref()).collect();
    // A new log is listed before its replicas report it.
    let is_new = |log: &LogInfo| log.state.enum_value() == Ok(LogState::LOG_STATE_CREATING);
    let silent = logs.iter().filter(|log| !reported.contains(log.name.as_str()) && !is_new(log));
    let silent: Vec<GroupHealth> = silent.map(|log| GroupHealth::silent(&log.name)).collect();
    groups.extend(silent);
    groups
}

fn group(answers: &[Answer], newest: &GroupStatus) -> GroupHealth {
    let by_id: BTreeMap<&str, &Answer> =
        answers.iter().map(|answer| (answer.server.node_id.as_str(), answer)).collect();
    let name = |replica: &Replica| match by_id.get(replica.node_id.as_str()) {
        Some(answer) => answer.server.id.clone(),
        None => format!("node {}", replica.node_id),
    };
    // An old leader that is partitioned may still believe that it leads, in an older term.
    let terms = answers.iter().filter_map(|answer| {
        let status = answer.group(&newest.log)?;
        let leads = status.role.enum_value() == Ok(Role::ROLE_LEADER);
        leads.then_some((status.term, answer))
    });
    let leader = terms.max_by_key(|(term, _)| *term);
    let mut voters: Vec<Voter> = newest
        .replicas
        .iter()
        .filter(|replica| replica.is_voter)
        .map(|replica| {
            let answer = by_id.get(replica.node_id.as_str());
            let missing = answer.map_or(Some(Missing::Silent), |answer| missing(answer, &newest.log, leader.is_some()));
            Voter { name: name(replica), missing }
        })
        .collect();
    voters.sort_by(|a, b| a.name.cmp(&b.name));
    GroupHealth {
        log: (newest.log != CATALOG).then(|| newest.log.clone()),
        voters,
        learners: newest.replicas.iter().filter(|replica| !replica.is_voter).map(name).collect(),
        leader: leader.map(|(_, answer)| answer.server.id.clone()),
        wanted: 0,
        is_reported: true,
    }
}

/// Returns why a voter does not count as alive. A candidate only counts as cut off while the group has a leader
/// (`is_led`), because otherwise every voter campaigns from time to time.
fn missing(answer: &Answer, log: &str, is_led: bool) -> Option<Missing> {
    match (&answer.node, answer.group(log)) {
        (Err(_), _) if answer.replaced => Some(Missing::Replaced),
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

/// Returns the health of a log that is in no answer. Its voters are taken from the member list of the first node.
fn by_members(answers: &[Answer], log: &str) -> GroupHealth {
    let silent = |answer: &Answer| Some(if answer.node.is_ok() { Missing::NoReplica } else { Missing::Silent });
    let voters = answers.iter().filter(|answer| answer.server.is_voter);
    GroupHealth {
        log: Some(log.to_owned()),
        voters: voters.map(|answer| Voter { name: answer.server.id.clone(), missing: silent(answer) }).collect(),
        learners: Vec::new(),
        leader: None,
        wanted: 0,
        is_reported: true,
    }
}

/// Returns all findings, the most serious first.
pub(super) fn findings(answers: &[Answer], groups: &[GroupHealth], log: &str) -> Vec<ClusterFinding> {
    let names = |wanted: &dyn Fn(&Answer) -> bool| -> Vec<String> {
        answers.iter().filter(|answer| wanted(answer)).map(|answer| answer.server.id.clone()).collect()
    };
    let mut findings: Vec<ClusterFinding> = groups.iter().filter_map(GroupHealth::finding).collect();
    let mut add = |kind, log: Option<&str>, nodes: Vec<String>, what: &str, next: &str| {
        if !nodes.is_empty() {
            let message = format!("{what} {}", nodes.join(", "));
            findings.push(ClusterFinding { kind, log: log.map(str::to_owned), nodes, message, next: next.to_owned() });
        }
    };
    let excluded = answers.iter().any(Answer::takes_no_part);
    let next = if excluded { AFTER_EXCLUSION } else { AFTER_DISK_DAMAGE };
    add(FindingKind::Damage, None, names(&Answer::is_damaged), "data is damaged on", next);
    let rival = |answer: &Answer| answer.node.as_ref().is_ok_and(|node| !node.another_cluster.is_empty());
    add(
        FindingKind::AppendsRefused,
        None,
        names(&rival),
        "appends are refused, as another cluster of this name answers, by",
        "stop one of the two clusters; the table shows the address of the other one",
    );
    let is_full = |answer: &Answer| answer.disk() == Some(DiskState::DISK_STATE_FULL);
    let full = |answer: &Answer| is_full(answer) && answer.leads(Some(log));
    add(
        FindingKind::AppendsRefused,
        Some(log),
        names(&full),
        "appends are refused: the disk is full on the leader",
        "free space on its disk, or trim the log (`seriatim log trim`); appends then resume by themselves",
    );
    let full_for_others = |answer: &Answer| is_full(answer) && !full(answer) && answer.leads(None);
    add(
        FindingKind::AppendsRefused,
        None,
        names(&full_for_others),
        "appends to other logs are refused: the disk is full on their leader",
        "free space on its disk, or trim its logs (`seriatim log trim`); appends then resume by themselves",
    );
    let voters: BTreeSet<&str> =
        groups.iter().flat_map(|group| group.missing()).map(|(v, _)| v.name.as_str()).collect();
    let silent = |answer: &Answer| answer.node.is_err() && !voters.contains(answer.server.id.as_str());
    let silent = names(&silent);
    let next = start(&silent.iter().map(String::as_str).collect::<Vec<_>>());
    add(FindingKind::MemberMissing, None, silent, "no answer from", &next);
    let low = |answer: &Answer| {
        let leads_none = is_full(answer) && !answer.leads(None);
        leads_none || answer.disk() == Some(DiskState::DISK_STATE_LOW)
    };
    let next = "free space on its disk, or trim the log (`seriatim log trim`), before appends are refused";
    add(FindingKind::DiskLow, None, names(&low), "the disk fills on", next);
    let expires = |answer: &Answer| answer.node.as_ref().is_ok_and(|node| !certificate(node).is_empty());
    let next = "issue another one, for example with `seriatim certs --use-ca`; the table says when it expires";
    add(FindingKind::CertificateExpires, None, names(&expires), "a certificate expires soon on", next);
    findings.sort_by_key(|finding| finding.kind);
    findings
}
