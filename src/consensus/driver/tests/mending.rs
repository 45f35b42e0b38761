//! Damage that is found while a replica runs: its files are written again, from memory or with the entries of a peer.

use super::cluster::{Cluster, id, other_entries};
use super::network::Weather;
use super::*;
use crate::storage::damage::DamagedRange;
use crate::storage::reader::Access;
use crate::storage::repair::{DamagedFile, damaged_file};
use crate::types::Offset;

const GROUP: GroupId = GroupId(2);
const SEGMENT: &str = "groups/2/00000000000000000001.seg";

/// A cluster in which the first segment of the log is sealed everywhere.
fn filled(seed: u64) -> Cluster {
    filled_with(seed, &[1 << 16; 3])
}

/// `segment_bytes`: the size of each node's segments.
fn filled_with(seed: u64, segment_bytes: &[u64]) -> Cluster {
    let mut cluster = Cluster::new(seed, segment_bytes.len(), 1);
    // Nothing wonders about damage.
    cluster.machines.iter_mut().for_each(|machine| machine.damaged = true);
    for (i, bytes) in segment_bytes.iter().enumerate() {
        cluster.segment_bytes = *bytes;
        cluster.crash(i);
        cluster.start(i);
    }
    cluster.until("a leader", 400, |cluster| cluster.leader(GROUP).is_some());
    acknowledge(&mut cluster, 700);
    cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
    let has_second = |i| cluster.file(i, "groups/2/00000000000000000002.seg").is_some();
    assert!((0..segment_bytes.len()).all(has_second), "a second segment");
    cluster
}

/// A cluster in which the first segment of node 0 is damaged where it contains entries that all other nodes have trimmed.
fn damaged_where_others_trimmed(seed: u64, nodes: usize) -> Cluster {
    let mut segment_bytes = vec![1 << 14; nodes];
    segment_bytes[0] = 1 << 16;
    let mut cluster = filled_with(seed, &segment_bytes);
    let leader = cluster.leader(GROUP).expect("a leader");
    let is_trimmed = |cluster: &Cluster| (1..nodes).all(|i| cluster.file(i, SEGMENT).is_none());
    cluster.handle(leader, ConsensusMsg::Propose(Proposal::trim(GROUP, Offset(450)), reply().0));
    cluster.until("a trim", 1000, |cluster| {
        cluster.propose(GROUP);
        is_trimmed(cluster)
    });
    cluster.damage(0, SEGMENT, Some(|bytes| bytes[20_000..20_400].fill(0)));
    let reader = cluster.driver(0).expect("running").groups[&GROUP].reader.clone();
    let mut low = reader.view().base.index.next();
    while let Ok(entries) = reader.entries(low, LogIndex(low.0 + 1000), 1 << 20, Access::Blocking) {
        low = LogIndex(low.0 + entries.len() as u64);
    }
    assert_eq!(damage_on(&cluster, 0), Some(DamagedFile::Sealed(1)));
    cluster
}

fn acknowledge(cluster: &mut Cluster, more: usize) {
    let wanted = cluster.acknowledged.len() + more;
    cluster.until("acknowledged records", 4000, |cluster| {
        (0..(more / 20).max(1)).for_each(|_| cluster.propose(GROUP));
        cluster.acknowledged.len() >= wanted
    });
}

/// Damages a record in the middle of the segment, and reads it.
fn damage(cluster: &Cluster, i: usize) {
    cluster.damage(i, SEGMENT, Some(|bytes| bytes[20_000..20_400].fill(0)));
    find(cluster, i);
    assert_eq!(damage_on(cluster, i), Some(DamagedFile::Sealed(1)));
}

fn find(cluster: &Cluster, i: usize) {
    let replica = &cluster.driver(i).expect("running").groups[&GROUP];
    let mut offset = Offset(0);
    while offset < Offset(500) {
        let read = replica.reader.records(offset, Offset(500), 500, 1 << 20, Access::Blocking);
        offset = read.map_or(Offset(offset.0 + 1), |slice| Offset(offset.0 + u64::from(slice.count.max(1))));
    }
}

fn damage_on(cluster: &Cluster, i: usize) -> Option<DamagedFile> {
    damaged_file(&cluster.driver(i).expect("running").groups[&GROUP].reader)
}

fn is_whole(cluster: &Cluster, i: usize) -> bool {
    let replica = cluster.driver(i).and_then(|driver| driver.groups.get(&GROUP));
    replica.is_some_and(|replica| !replica.group.is_damaged() && damaged_file(&replica.reader).is_none())
}

#[test]
fn a_replica_takes_no_part_until_its_segment_is_repaired_from_a_peer() {
    for (seed, of_leader) in [(1, true), (2, false)] {
        let mut cluster = filled(seed);
        let sound = cluster.file(0, SEGMENT).expect("a segment");
        let leader = cluster.leader(GROUP).expect("a leader");
        let i = if of_leader { leader } else { (leader + 1) % 3 };
        let me = cluster.driver(i).expect("running").groups[&GROUP].group.me();
        damage(&cluster, i);
        let mut was_excluded = false;
        cluster.until("a repaired replica", 1000, |cluster| {
            cluster.propose(GROUP);
            let group = &cluster.driver(i).expect("running").groups[&GROUP].group;
            was_excluded |= group.is_repairing() && !group.leads();
            is_whole(cluster, i)
        });
        assert!(was_excluded, "it neither leads nor counts");
        assert_eq!(cluster.driver(i).expect("running").groups[&GROUP].group.me(), me, "it is the same replica");
        acknowledge(&mut cluster, 20);
        cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
        cluster.check_acknowledged();
        assert!(cluster.file(i, SEGMENT).is_some_and(|bytes| bytes.len() <= sound.len()));
        // The next start reads the repaired file.
        cluster.crash(i);
        cluster.start(i);
        cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
        cluster.check_acknowledged();
    }
}

/// Once, a sync that ended during the repair was forgotten, and the replica never acknowledged anything again.
#[test]
fn a_repaired_replica_catches_up_whatever_the_disks_and_the_network_do() {
    for seed in [10, 11] {
        let mut cluster = filled(seed);
        cluster.weather = Weather::ROUGH;
        for i in 0..2 {
            damage(&cluster, i);
            cluster.until("a repaired replica", 12_000, |cluster| {
                cluster.propose(GROUP);
                is_whole(cluster, i)
            });
        }
        cluster.weather = Weather::CALM;
        acknowledge(&mut cluster, 20);
        cluster.until("equal replicas", 1000, |cluster| cluster.is_equal(GROUP));
        cluster.check_acknowledged();
    }
}

/// Two of three replicas lack the same records. Both are repaired from the third.
#[test]
fn a_majority_is_repaired_from_the_last_sound_replica() {
    let mut cluster = filled(3);
    damage(&cluster, 0);
    damage(&cluster, 1);
    cluster.until("repaired replicas", 4000, |cluster| (0..3).all(|i| is_whole(cluster, i)));
    acknowledge(&mut cluster, 20);
    cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
    cluster.check_acknowledged();
}

/// No replica has these records. Everything else stays readable, and appends continue.
#[test]
fn records_that_every_replica_has_lost_stop_nothing_else() {
    let mut cluster = filled(4);
    (0..3).for_each(|i| damage(&cluster, i));
    for _ in 0..1500 {
        cluster.round();
    }
    assert!(
        (0..3).all(|i| damage_on(&cluster, i).is_some()
            && !cluster.driver(i).expect("running").groups[&GROUP].group.is_damaged())
    );
    acknowledge(&mut cluster, 50);
    cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
    assert!(cluster.change_catalog(|catalog| catalog.log(GROUP).is_some_and(|log| log.leaving.is_empty())));
    for i in 0..3 {
        let reader = &cluster.driver(i).expect("running").groups[&GROUP].reader;
        let read = |offset| reader.records(Offset(offset), Offset(700), 1, 1 << 20, Access::Blocking);
        let lost = (0..700).filter(|offset| read(*offset).is_err()).count();
        assert!((1..10).contains(&lost), "{lost} records");
    }
}

/// Both peers send other entries than those that were stored here, as a stale or faulty peer does. They are refused,
/// and the replica is replaced by a new one.
fn refuses_other_entries(seed: u64) -> bool {
    let mut cluster = filled(seed);
    damage(&cluster, 0);
    let old = cluster.driver(0).expect("running").groups[&GROUP].group.me();
    cluster.tamper = Some(other_entries);
    cluster.until("a new replica, or a wrong one", 4000, |cluster| {
        is_whole(cluster, 0)
            && cluster
                .driver(0)
                .is_some_and(|driver| driver.groups[&GROUP].group.votes(driver.groups[&GROUP].group.me()))
    });
    let is_new = cluster.driver(0).expect("running").groups[&GROUP].group.me() != old;
    acknowledge(&mut cluster, 5);
    cluster.until("equal replicas", 1000, |cluster| cluster.is_equal(GROUP));
    is_new && std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.check_acknowledged())).is_ok()
}

/// Once, the replica asked for these entries again and again, until its first segment was trimmed.
#[test]
fn a_segment_whose_entries_all_others_have_trimmed_is_copied_with_the_log() {
    let mut cluster = damaged_where_others_trimmed(12, 3);
    let old = cluster.driver(0).expect("running").groups[&GROUP].group.me();
    // While one of the others is away, it might have the entries.
    cluster.crash(2);
    for _ in 0..300 {
        cluster.round();
    }
    assert!(cluster.driver(0).is_some_and(|driver| !driver.groups[&GROUP].group.is_damaged()));
    cluster.start(2);
    cluster.until("a new replica", 8000, |cluster| {
        let driver = cluster.driver(0).expect("running");
        driver.groups.get(&GROUP).is_some_and(|new| new.group.me() != old && new.group.votes(new.group.me()))
    });
    assert!(is_whole(&cluster, 0));
    acknowledge(&mut cluster, 20);
    cluster.until("equal replicas", 1000, |cluster| cluster.is_equal(GROUP));
    cluster.acknowledged.retain(|record| record.offset >= Offset(450));
    cluster.check_acknowledged();
}

/// With two voters, the other one has no majority without the damaged one, so no leader can replace it. Once, the log
/// stopped for ever, because of entries that nobody needs.
#[test]
fn a_replica_that_the_others_need_for_a_majority_takes_part_without_trimmed_entries() {
    let mut cluster = damaged_where_others_trimmed(13, 2);
    for _ in 0..600 {
        cluster.round();
    }
    acknowledge(&mut cluster, 20);
    cluster.until("equal replicas", 1000, |cluster| cluster.is_equal(GROUP));
}

/// A damaged replica can't be a part of the majority without this one. Once, both took no part, and the third one had no
/// majority.
#[test]
fn a_damaged_replica_does_not_confirm_that_entries_are_trimmed() {
    let mut cluster = damaged_where_others_trimmed(14, 3);
    cluster.replica(1, GROUP).group.set_damaged("a test".to_owned());
    cluster.until("new replicas", 12_000, |cluster| (0..2).all(|i| is_whole(cluster, i)));
    acknowledge(&mut cluster, 20);
    cluster.until("equal replicas", 1000, |cluster| cluster.is_equal(GROUP));
}

/// One peer sends other entries, and the next one is away: it may have the right ones. Once, the replica was given up, and
/// the first peer had no majority.
#[test]
fn a_replica_whose_entries_one_peer_contradicts_waits_for_the_other_one() {
    let mut cluster = filled(15);
    cluster.crash(2);
    cluster.until("a leader", 400, |cluster| cluster.leader(GROUP).is_some());
    let old = cluster.driver(0).expect("running").groups[&GROUP].group.me();
    damage(&cluster, 0);
    cluster.liar = Some(id(1));
    for _ in 0..400 {
        cluster.round();
    }
    acknowledge(&mut cluster, 20);
    cluster.start(2);
    cluster.until("a repaired replica", 4000, |cluster| is_whole(cluster, 0));
    assert_eq!(cluster.driver(0).expect("running").groups[&GROUP].group.me(), old);
    cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
    cluster.check_acknowledged();
}

#[test]
fn entries_of_a_stale_peer_are_refused() {
    use crate::storage::faults::{Fault, set};
    assert!(refuses_other_entries(6));
    set(Some(Fault::RepairUnverified));
    let refused = refuses_other_entries(6);
    set(None);
    assert!(!refused, "the fault is found");
}

/// The newest segment is ended first, so that it can be repaired.
#[test]
fn damage_in_the_newest_segment_is_repaired() {
    let mut cluster = filled(7);
    let leader = cluster.leader(GROUP).expect("a leader");
    let newest = "groups/2/00000000000000000002.seg";
    cluster.until("a durable segment", 400, |cluster| cluster.is_equal(GROUP));
    cluster.damage(leader, newest, Some(|bytes| bytes[1000..1200].fill(0)));
    let replica = &cluster.driver(leader).expect("running").groups[&GROUP];
    let until = replica.group.visible().next_offset;
    (0..until.0).for_each(|offset| {
        let _ = replica.reader.records(Offset(offset), until, 1, 1 << 20, Access::Blocking);
    });
    assert_eq!(damage_on(&cluster, leader), Some(DamagedFile::Newest));
    cluster.until("a repaired replica", 1000, |cluster| is_whole(cluster, leader));
    acknowledge(&mut cluster, 20);
    cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
    cluster.check_acknowledged();
}

/// A leader that is about to repair its replica is suspended, and meanwhile the replica is replaced by another one on the
/// same node. Once, the repair that had not begun never ended, and no file of the node was repaired any more.
#[test]
fn a_repair_ends_if_the_replica_is_replaced_before_it_begins() {
    let mut cluster = filled(9);
    let i = cluster.leader(GROUP).expect("a leader");
    let replica_on = |cluster: &Cluster| cluster.driver(i)?.groups.get(&GROUP).map(|replica| replica.group.me());
    let old = replica_on(&cluster).expect("a replica");
    damage(&cluster, i);
    cluster.until("a repair", 100, |cluster| cluster.driver(i).expect("running").mending.is_busy());
    cluster.machines[i].paused = u32::MAX;
    let others: Vec<usize> = (0..3).filter(|other| *other != i).collect();
    let change = |cluster: &mut Cluster, command: &Command, holds: &dyn Fn(&crate::catalog::LogMeta) -> bool| {
        cluster.until("a change of the catalog", 400, |cluster| {
            let leader = others.iter().copied().find(|other| {
                let catalog = cluster.driver(*other).expect("running").groups.get(&GroupId::CATALOG);
                catalog.is_some_and(|catalog| catalog.group.leads())
            });
            let changed = |other: &usize| {
                cluster.driver(*other).expect("running").governor.catalog().log(GROUP).is_some_and(holds)
            };
            let is_done = others.iter().all(changed);
            leader.filter(|_| !is_done).into_iter().for_each(|leader| cluster.decide(leader, command));
            is_done
        });
    };
    change(&mut cluster, &Command::RemoveReplica(GROUP, old), &|log| !log.placements().any(|p| p.node == id(i)));
    change(&mut cluster, &Command::PlaceReplica(GROUP, id(i)), &|log| log.placements().any(|p| p.node == id(i)));
    // It receives the news before its next tick.
    cluster.machines[i].paused = 0;
    for _ in 0..200 {
        others.iter().for_each(|other| cluster.tick(*other));
        (0..5).for_each(|_| cluster.exchange());
        if replica_on(&cluster).is_some_and(|replica| replica != old) {
            break;
        }
    }
    assert!(replica_on(&cluster).is_some_and(|replica| replica != old), "another replica: {}", cluster.show());
    assert!(cluster.driver(i).expect("running").mending.is_busy(), "the repair has not begun");
    cluster.until("the end of the repair", 100, |cluster| !cluster.driver(i).expect("running").mending.is_busy());
}

/// Once, the next start would have refused such a file.
#[test]
fn small_files_are_written_again_from_memory() {
    let mut cluster = filled(8);
    for (group, file, path) in [
        (GROUP, "manifest", "groups/2/manifest"),
        (GroupId::CATALOG, "manifest", "groups/0/manifest"),
        (GroupId::CATALOG, "node.toml", "node.toml"),
    ] {
        cluster.damage(0, path, Some(|bytes| bytes.fill(0)));
        let range = DamagedRange {
            file: file.to_owned(),
            position: 0,
            bytes: 0,
            first_offset: Offset(0),
            next_offset: Some(Offset(0)),
            what: "a test".to_owned(),
        };
        let reader = cluster.driver(0).expect("running").groups[&group].reader.clone();
        reader.published().damages().report(group, &range);
        cluster.until("a file that is written again", 200, |cluster| {
            damaged_file(&reader).is_none()
                && cluster.file(0, path).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
        });
    }
    cluster.crash(0);
    cluster.start(0);
    assert!(cluster.driver(0).expect("running").statuses.all().iter().all(|status| status.damage.is_none()));
    cluster.until("equal replicas", 400, |cluster| cluster.is_equal(GROUP));
    cluster.check_acknowledged();
}
