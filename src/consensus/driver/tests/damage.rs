//! Damaged files that a start finds: the replica takes no part, everything else continues, and the replica is replaced by
//! a new one from its peers.

use std::collections::BTreeSet;

use super::cluster::Cluster;
use super::*;
use crate::catalog::faults::{Fault, set};

/// The log that is damaged. All three nodes have voted for it from the beginning.
const GROUP: GroupId = GroupId(2);

fn replica_on(cluster: &Cluster, i: usize) -> Option<ReplicaId> {
    Some(cluster.driver(i)?.groups.get(&GROUP)?.group.me())
}

fn groups_on(cluster: &Cluster, i: usize) -> BTreeSet<GroupId> {
    cluster.driver(i).expect("running").groups.iter().map(|(group, _)| *group).collect()
}

fn is_lost(cluster: &Cluster, i: usize) -> bool {
    cluster.driver(i).is_some_and(|driver| driver.host.lost.contains(GROUP))
}

fn leaves(cluster: &Cluster) -> bool {
    !cluster.change_catalog(|catalog| catalog.log(GROUP).is_none_or(|log| log.leaving.is_empty()))
}

/// A cluster in which some records are acknowledged.
fn filled(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, 3, 1);
    // Nothing wonders about damage.
    cluster.machines.iter_mut().for_each(|machine| machine.damaged = true);
    cluster.until("a leader", 400, |cluster| cluster.leader(GROUP).is_some());
    acknowledge(&mut cluster, 20);
    cluster
}

fn acknowledge(cluster: &mut Cluster, more: usize) {
    let wanted = cluster.acknowledged.len() + more;
    cluster.until("acknowledged records", 2000, |cluster| {
        cluster.propose(GROUP);
        cluster.acknowledged.len() >= wanted
    });
}

type Change = fn(&mut Vec<u8>);

/// The ways in which a file is damaged. The length of a segment's header is 128 bytes.
fn damages() -> Vec<(&'static str, &'static str, Option<Change>)> {
    vec![
        ("a flipped byte of the manifest", "groups/2/manifest", Some(|bytes| bytes[30] ^= 1)),
        ("no manifest", "groups/2/manifest", None),
        ("an overwritten header", "groups/2/00000000000000000001.seg", Some(|bytes| bytes[..128].fill(0))),
        ("a flipped byte of an entry", "groups/2/00000000000000000001.seg", Some(|bytes| bytes[150] ^= 1)),
        ("no segment", "groups/2/00000000000000000001.seg", None),
        ("no directory", "groups/2", None),
    ]
}

#[test]
fn a_damaged_replica_is_replaced_under_load_and_no_other_log_is_affected() {
    for (seed, (what, path, change)) in damages().into_iter().enumerate() {
        let mut cluster = filled(seed as u64);
        let damaged = seed % 3;
        let (old, before) = (replica_on(&cluster, damaged).expect("a replica"), groups_on(&cluster, damaged));
        cluster.crash(damaged);
        cluster.damage(damaged, path, change);
        cluster.start(damaged);
        assert!(is_lost(&cluster, damaged), "{what}");
        let status = cluster.driver(damaged).expect("running").statuses.all();
        let status = status.iter().find(|status| status.group == GROUP).expect("a status");
        assert!(status.damage.as_ref().is_some_and(|text| text.contains("groups/2")), "{what}: {status:?}");
        let mut hosted = groups_on(&cluster, damaged);
        hosted.insert(GROUP);
        assert_eq!(hosted, before, "{what}");
        let mut kept = false;
        cluster.until(what, 4000, |cluster| {
            cluster.propose(GROUP);
            kept |= cluster.group_dirs(damaged).contains(&format!("2.damaged-{old}"));
            let votes = |driver: &Driver| {
                driver.groups.get(&GROUP).is_some_and(|r| r.group.me() != old && r.group.votes(r.group.me()))
            };
            cluster.driver(damaged).is_some_and(votes)
        });
        assert_eq!(kept, path != "groups/2", "{what}: its files are kept until then");
        acknowledge(&mut cluster, 20);
        cluster.until("equal replicas", 1000, |cluster| cluster.is_equal(GROUP));
        cluster.check_acknowledged();
        cluster.until("no files aside", 1000, |cluster| {
            !cluster.group_dirs(damaged).iter().any(|name| name.contains("damaged"))
        });
        assert!(cluster.driver(damaged).expect("running").statuses.all().iter().all(|status| status.damage.is_none()));
        assert!((0..3).all(|i| replica_on(&cluster, i).is_some()), "{what}: {}", cluster.show());
    }
}

/// Node 2 lacks acknowledged records, and node 1, which has them, is down. If the damaged replica of node 0 voted, node 2
/// would lead, and they would be lost.
fn a_leader_that_lacks_records(seed: u64) -> Option<usize> {
    let mut cluster = filled(seed);
    cluster.isolate(2);
    acknowledge(&mut cluster, 10);
    cluster.crash(0);
    cluster.crash(1);
    cluster.damage(0, "groups/2/manifest", None);
    cluster.start(0);
    cluster.cut.clear();
    for _ in 0..600 {
        cluster.round();
        if let Some(leader) = cluster.leader(GROUP) {
            return Some(leader);
        }
    }
    assert!(is_lost(&cluster, 0) && !leaves(&cluster), "the other two have no majority");
    cluster.start(1);
    cluster.until("a new replica", 4000, |cluster| replica_on(cluster, 0).is_some());
    acknowledge(&mut cluster, 10);
    cluster.until("equal replicas", 2000, |cluster| cluster.is_equal(GROUP));
    cluster.check_acknowledged();
    None
}

#[test]
fn a_damaged_replica_does_not_vote() {
    assert_eq!(a_leader_that_lacks_records(1), None);
    set(Some(Fault::DamagedReplicaReset));
    // The checks of the simulation find it, too.
    let found = std::panic::catch_unwind(|| a_leader_that_lacks_records(1));
    set(None);
    assert!(found.is_err() || found.is_ok_and(|leader| leader == Some(2)), "the fault is found");
}

/// Two of three replicas are damaged: neither is given up, since the group can't commit that. Once one of them is sound
/// again, the other one is replaced.
#[test]
fn nothing_is_given_up_while_a_majority_is_damaged() {
    let mut cluster = filled(5);
    for i in [0, 1] {
        cluster.crash(i);
        cluster.damage(i, "groups/2/manifest", Some(|bytes| bytes[30] ^= 1));
        cluster.start(i);
    }
    for _ in 0..600 {
        cluster.round();
        assert!(is_lost(&cluster, 0) && is_lost(&cluster, 1) && !leaves(&cluster));
        assert!(cluster.leader(GROUP) != Some(0) && cluster.leader(GROUP) != Some(1));
    }
    assert!(cluster.driver(2).is_some_and(|driver| driver.groups.contains_key(&GROUP)), "it still serves its records");
    cluster.check_acknowledged();
    cluster.crash(0);
    cluster.damage(0, "groups/2/manifest", Some(|bytes| bytes[30] ^= 1));
    cluster.start(0);
    assert!(!is_lost(&cluster, 0), "its file is sound again");
    cluster.until("a new replica", 4000, |cluster| replica_on(cluster, 1).is_some());
    acknowledge(&mut cluster, 10);
    cluster.until("equal replicas", 1000, |cluster| cluster.is_equal(GROUP));
    cluster.check_acknowledged();
}

/// Its files are not kept: no new replica will take its place.
#[test]
fn a_damaged_replica_of_a_purged_log_is_dropped() {
    let mut cluster = filled(9);
    cluster.crash(1);
    cluster.damage(1, "groups/2/manifest", None);
    cluster.until("a leader", 400, |cluster| cluster.leader(GroupId::CATALOG).is_some());
    cluster.command(Command::DeleteLog(GROUP, Some(0), None));
    cluster.until("a purged log", 2000, |cluster| cluster.change_catalog(|catalog| catalog.log(GROUP).is_none()));
    cluster.start(1);
    assert!(is_lost(&cluster, 1));
    cluster.until("a dropped replica", 1000, |cluster| {
        !is_lost(cluster, 1) && !cluster.group_dirs(1).iter().any(|name| name.starts_with('2'))
    });
    assert!(cluster.driver(1).expect("running").statuses.lost(GROUP).is_none());
    // Also if the catalog that a start loads shows it already.
    cluster.crash(1);
    cluster.start(1);
    assert!(
        !is_lost(&cluster, 1) && cluster.driver(1).expect("running").statuses.all().iter().all(|s| s.damage.is_none())
    );
}
