//! Random histories of many logs: logs are created, deleted, undeleted, purged, created again under the same name, and
//! moved between nodes, back to earlier ones, too. Nodes crash, also between the steps of creating and dropping a
//! replica; they replay the catalog from its beginning or from a snapshot, lag behind, or lose their disks and return
//! under other ids. Messages are lost, duplicated, and delivered long after their sender or receiver has left.
//!
//! The catalog's own group is simulated elsewhere: here its committed commands are one sequence, of which each node
//! applies a prefix. What a node decides, sends and accepts is decided by the code of the program: the catalog, the
//! policy, `hosting.rs`, `admission.rs`, the groups, the epochs of replicas and `node.toml`.

mod events;
mod history;
mod nodes;

use std::time::Instant;

use self::events::run;
use self::nodes::Node;
use crate::catalog::command::Command;
use crate::catalog::faults::{Fault, set};
use crate::catalog::meta::{LogSettings, NewLog, Origin};
use crate::catalog::policy::Action;
use crate::catalog::policy::facts::{Now, ReplicaFacts, ReplicaProgress};
use crate::catalog::policy::voters::MembershipChange;
use crate::catalog::state::Catalog;
use crate::consensus::driver::admission::check_replicas;
use crate::feature_level::Feature;
use crate::pb::peer::RaftMessage;
use crate::storage::faults as storage;
use crate::types::{GroupId, LogId, LogIndex, LogName, ReplicaId, Term};

#[test]
fn random_histories_of_many_logs_keep_every_invariant() {
    let seeds = number("PLACEMENT_SEEDS", 300);
    let (mut settled, mut failed) = (0, Vec::new());
    for seed in 1..=seeds {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(all) => settled += u64::from(all),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{} of {seeds} histories break an invariant: {failed:?}", failed.len());
    assert!(settled * 10 >= seeds * 8, "only {settled} of {seeds} histories kept a majority of every log");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Returns the first history that breaks an invariant.
fn first_violation(seeds: u64, begin: impl Fn() + std::panic::RefUnwindSafe) -> Option<u64> {
    let is_broken = |seed: &u64| std::panic::catch_unwind(|| (begin(), run(*seed))).is_err();
    let seed = (1..=seeds).find(is_broken);
    set(None);
    storage::set(None);
    seed
}

#[test]
fn each_fault_is_found() {
    let seeds = number("PLACEMENT_FAULT_SEEDS", 400);
    let faults =
        [Fault::ReplayResurrects, Fault::PurgedStay, Fault::DroppedTooEarly, Fault::ReplicaIdReused, Fault::LeadsAgain];
    let mut found: Vec<(String, Option<u64>)> =
        faults.into_iter().map(|fault| (format!("{fault:?}"), first_violation(seeds, || set(Some(fault))))).collect();
    let forgotten = storage::Fault::TombstoneForgotten;
    found.push((format!("{forgotten:?}"), first_violation(seeds, || storage::set(Some(forgotten)))));
    println!("the first seeds that find them: {found:?}");
    assert!(found.iter().all(|(_, seed)| seed.is_some()), "within {seeds} histories: {found:?}");
}

#[test]
fn a_late_message_of_a_replica_that_has_left_is_dropped() {
    let (catalog, nodes) = with_a_log();
    let (from, me) = (nodes[2].id(), nodes[0].id());
    let message = RaftMessage { group: 1, from: 3, to: 1, ..RaftMessage::default() };
    let check = |catalog: &Catalog| check_replicas(from, &message, None, catalog, me);
    assert_eq!(check(&catalog), Ok(true));
    let mut moved = catalog.clone();
    moved.apply(&Command::RemoveReplica(GroupId(1), ReplicaId(3)), 1);
    assert_eq!(check(&moved), Ok(true), "it may still be in the group");
    moved.apply(&Command::ReplicaRemoved(GroupId(1), ReplicaId(3)), 1);
    assert_eq!(check(&moved), Ok(false));
    set(Some(Fault::LateMessagesAccepted));
    assert_eq!(check(&moved), Ok(true), "the fault is found");
    set(None);
}

/// Returns a catalog of three nodes and a log with replicas 1 to 3, of which it needs two.
fn with_a_log() -> (Catalog, Vec<Node>) {
    let mut catalog = Catalog::default();
    let nodes: Vec<Node> = (1..=3).map(Node::new).collect();
    for node in &nodes {
        catalog.apply(&Command::AddNode(node.member.clone()), 1);
    }
    catalog.apply(&Command::RaiseFeatureLevel(Feature::ManyLogs.level()), 1);
    let origin = Origin::Nodes(nodes.iter().map(Node::id).collect());
    let name = LogName::new("a").expect("a name");
    let settings = LogSettings { replicas: Some(2), ..LogSettings::default() };
    catalog.apply(&Command::CreateLog(NewLog { name, log_id: LogId(7), origin, settings, restore: None }), 1);
    (catalog, nodes)
}

/// Returns the learners of the catalog that the leader makes voters while there are six members and five voters.
fn promoted() -> Vec<ReplicaId> {
    let mut catalog = Catalog::default();
    let nodes: Vec<Node> = (1..=6).map(Node::new).collect();
    for node in &nodes {
        catalog.apply(&Command::AddNode(node.member.clone()), 1);
    }
    let ids: Vec<ReplicaId> = nodes.iter().map(|node| ReplicaId::of_node(node.id())).collect();
    let last = LogIndex(20);
    let progress =
        |(i, id): (usize, &ReplicaId)| ReplicaProgress { replica: *id, voter: i < 5, matched: last, active: true };
    let facts = ReplicaFacts {
        replica: ids[0],
        leads: true,
        is_idle: true,
        term: Term(2),
        last_index: last,
        voters: ids[..5].to_vec(),
        progress: ids.iter().enumerate().map(progress).collect(),
        ..ReplicaFacts::default()
    };
    let replicas = [(GroupId::CATALOG, facts)].into();
    let mut policy = nodes[0].policy();
    let mut promoted = Vec::new();
    for tick in 1..30 {
        let now = Now { tick, at: Instant::now(), wall_us: 1 };
        for action in policy.tick(&catalog, &replicas, &[GroupId::CATALOG].into(), now) {
            if let Action::ChangeMembership(_, MembershipChange::AddVoter(id)) = action {
                promoted.push(id);
            }
        }
    }
    promoted
}

#[test]
fn a_sixth_member_does_not_vote_in_the_catalog() {
    assert_eq!(promoted(), []);
    set(Some(Fault::LearnersVote));
    assert!(!promoted().is_empty(), "the fault is found");
    set(None);
}

/// Once, a replica that a leader with an older catalog had added to its group again was never removed: its node drops
/// it, and the group keeps a voter that never answers.
#[test]
fn a_replica_that_was_given_up_is_removed_from_its_group_again() {
    let (mut catalog, nodes) = with_a_log();
    let (group, left) = (GroupId(1), ReplicaId(3));
    let changes = |catalog: &Catalog| {
        let last = LogIndex(20);
        let progress = |id| ReplicaProgress { replica: ReplicaId(id), voter: true, matched: last, active: id < 3 };
        let facts = ReplicaFacts {
            replica: ReplicaId(1),
            leads: true,
            is_idle: true,
            term: Term(2),
            last_index: last,
            voters: (1..=3).map(ReplicaId).collect(),
            progress: (1..=3).map(progress).collect(),
            ..ReplicaFacts::default()
        };
        let now = Now { tick: 1, at: Instant::now(), wall_us: 1 };
        let actions = nodes[0].policy().tick(catalog, &[(group, facts)].into(), &[group].into(), now);
        let change = |action| match action {
            Action::ChangeMembership(_, change) => Some(change),
            _ => None,
        };
        actions.into_iter().filter_map(change).collect::<Vec<_>>()
    };
    assert_eq!(changes(&catalog), []);
    catalog.apply(&Command::RemoveReplica(group, left), 1);
    assert_eq!(changes(&catalog), [MembershipChange::Remove(left)]);
    catalog.apply(&Command::ReplicaRemoved(group, left), 1);
    assert_eq!(changes(&catalog), [MembershipChange::Remove(left)], "it is in the group again");
}

/// Of six members one voter is removed: the sixth gets a vote, but only while it is heard.
#[test]
fn a_learner_of_the_catalog_votes_once_a_voter_was_removed() {
    let mut catalog = Catalog::default();
    let nodes: Vec<Node> = (1..=6).map(Node::new).collect();
    for node in &nodes {
        catalog.apply(&Command::AddNode(node.member.clone()), 1);
    }
    catalog.apply(&Command::RemoveNode(nodes[1].id()), 1);
    let ids: Vec<ReplicaId> = nodes.iter().map(|node| ReplicaId::of_node(node.id())).collect();
    let last = LogIndex(20);
    let changes = |has_left: bool, is_heard: bool| {
        let voters: Vec<ReplicaId> = ids[..5].iter().copied().filter(|id| !has_left || *id != ids[1]).collect();
        let progress = |id: &ReplicaId| ReplicaProgress {
            replica: *id,
            voter: voters.contains(id),
            matched: last,
            active: *id != ids[5] || is_heard,
        };
        let facts = ReplicaFacts {
            replica: ids[0],
            leads: true,
            is_idle: true,
            term: Term(2),
            last_index: last,
            progress: voters.iter().chain(&ids[5..]).map(progress).collect(),
            voters: voters.clone(),
            ..ReplicaFacts::default()
        };
        let replicas = [(GroupId::CATALOG, facts)].into();
        let mut policy = nodes[0].policy();
        let mut changes = Vec::new();
        for tick in 1..30 {
            let now = Now { tick, at: Instant::now(), wall_us: 1 };
            for action in policy.tick(&catalog, &replicas, &[GroupId::CATALOG].into(), now) {
                if let Action::ChangeMembership(_, change) = action {
                    changes.push(change);
                }
            }
        }
        changes.dedup();
        changes
    };
    assert_eq!(changes(false, true), [MembershipChange::Remove(ids[1])]);
    assert_eq!(changes(true, true), [MembershipChange::AddVoter(ids[5])]);
    assert_eq!(changes(true, false), []);
}
