//! A follower is told of a commit at once only if readers wait there.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};

use super::cluster::Cluster;
use super::*;
use crate::timers::Timers;
use crate::watermark::Until;

const LOG: GroupId = GroupId(1);

fn committed(cluster: &Cluster, i: usize) -> LogIndex {
    cluster.driver(i).expect("it runs").groups[&LOG].group.commit_index()
}

/// A record is replicated to all nodes, without a tick. Returns which of them know that it is committed.
fn append(cluster: &mut Cluster) -> Vec<bool> {
    let leader = cluster.leader(LOG).expect("a leader");
    cluster.propose(LOG);
    (0..20).for_each(|_| cluster.exchange());
    let last = cluster.driver(leader).expect("it runs").groups[&LOG].group.last_index();
    (0..3).map(|i| committed(cluster, i) == last).collect()
}

/// For a lone record, a third of the messages only said that it was committed.
#[test]
fn only_nodes_with_readers_learn_of_a_commit_before_the_next_heartbeat() {
    let mut cluster = Cluster::new(20, 3, 0);
    cluster.until("a leader of the log", 400, |cluster| cluster.leader(LOG).is_some());
    (0..50).for_each(|_| cluster.round());
    append(&mut cluster);
    let leader = cluster.leader(LOG).expect("a leader");
    let only = |who: &[usize]| (0..3).map(|i| who.contains(&i)).collect::<Vec<_>>();
    assert_eq!(append(&mut cluster), only(&[leader]));
    (0..5).for_each(|_| cluster.round());
    assert!((0..3).all(|i| committed(&cluster, i) == committed(&cluster, leader)), "the heartbeat contains it");

    let reader = (leader + 1) % 3;
    let watermark = cluster.driver(reader).expect("it runs").groups[&LOG].watermark.clone();
    let (fatal, _) = fatal_channel();
    let timers = Timers::start(&fatal).expect("a thread");
    let handle = timers.handle();
    for _ in 0..3 {
        // A reader waits for each record.
        let mut wait = pin!(watermark.wait(Until::Visible(watermark.get().next_offset), &handle));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        assert_eq!(append(&mut cluster), only(&[leader, reader]));
        assert!(wait.as_mut().poll(&mut cx).is_ready());
    }
    assert_eq!(append(&mut cluster), only(&[leader, reader]), "it may come back for the next one");
    (0..40).for_each(|_| cluster.round());
    append(&mut cluster);
    assert_eq!(append(&mut cluster), only(&[leader]), "it has not come back");
}
