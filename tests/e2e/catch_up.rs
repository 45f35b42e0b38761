//! A follower that was away, and whose entries were trimmed, catches up while producers write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use seriatim::client::Client;
use seriatim::pb::v1::CatchUp;

use crate::harness::{Cluster, counter, counter_of, eventually, read_all, record};

const MIB: u64 = 1 << 20;
/// What the follower lacks at first.
const LACKING: u64 = 24 * MIB;
/// The rate limit of the leader.
const RATE: u64 = 6 * MIB;

/// Appends this many bytes in records of 16 KiB.
fn fill(client: &Client, bytes: u64) -> u64 {
    let batch: Vec<_> = (0..16).map(|_| record([7; 16 << 10])).collect();
    let mut end = 0;
    for _ in 0..bytes.div_ceil(256 << 10) {
        let appended = client.produce("", batch.clone()).expect("appended");
        end = appended.offset + u64::from(appended.count);
    }
    end
}

/// Returns what the leader says that the replica on a node lacks.
fn catch_up(leader: &Client, node: &str) -> Option<CatchUp> {
    let groups = leader.get_node().expect("an answer").groups;
    let log = groups.into_iter().find(|group| group.log == "default").expect("the log");
    log.replicas.into_iter().find(|replica| replica.name == node)?.catch_up.into_option()
}

#[test]
fn a_trimmed_follower_catches_up_under_load_at_the_set_rate_and_shows_it() {
    let limit = format!("--catch-up-bytes-per-second={RATE}");
    let mut cluster = Cluster::start_with(3, &["--segment-bytes=1MiB", &limit]);
    let leads = cluster.leader();
    let away = (leads + 1) % 3;
    fill(&cluster.client(leads), MIB);
    cluster.nodes[away].stop();
    let leader = cluster.client(cluster_leader(&cluster, away));
    let trimmed = fill(&leader, 4 * MIB);
    leader.trim("", trimmed).expect("trimmed");
    fill(&leader, LACKING);
    let (elections, stop, appended) =
        (counter(&leader, "seriatim_elections_total"), AtomicBool::new(false), AtomicU64::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                leader.produce("", vec![record([8; 1000])]).expect("appended while the follower catches up");
                appended.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The load must also end if an assertion fails.
        let _ending = StopOnDrop(&stop);
        cluster.nodes[away].start_later();
        let name = cluster.nodes[away].name().to_owned();
        let first = eventually("it is behind", || catch_up(&leader, &name).ok_or("it is not".into()));
        assert!((LACKING / 4..2 * LACKING).contains(&first.bytes_left), "{first}");
        let mut seen = vec![first];
        eventually("it has caught up", || match catch_up(&leader, &name) {
            None => Ok(()),
            Some(now) => {
                let text = now.to_string();
                seen.push(now);
                Err(text)
            }
        });
        let (last, fastest) = (seen.last().expect("one"), seen.iter().map(|seen| seen.bytes_per_second).max());
        assert!(last.bytes_left < LACKING / 4, "it goes down: {last}");
        let left: Vec<u64> = seen.iter().map(|seen| seen.bytes_left).collect();
        // Until the follower is back, producers add to it.
        let most = left.iter().enumerate().max_by_key(|(_, left)| **left).map_or(0, |(at, _)| at);
        assert!(left[most..].is_sorted_by(|before, after| *after <= before + 2 * MIB), "it goes down: {left:?}");
        assert!(fastest.is_some_and(|rate| (1..2 * RATE).contains(&rate)), "{fastest:?}");
        assert!(seen.iter().any(|seen| seen.time_left.is_some()), "the time is estimated");
        let metric = counter_of(&leader.get_node().expect("an answer"), "seriatim_catch_up_bytes_sent_total");
        assert!(metric > LACKING * 3 / 4, "{metric} bytes were sent");
        // The limit is of bytes that are sent; what is in flight at the end was sent before.
        assert!(begin.elapsed().as_secs_f64() > (metric - MIB) as f64 / RATE as f64, "within the rate limit");
    });
    assert!(appended.load(Ordering::Relaxed) > 100, "{appended:?} appends meanwhile");
    assert_eq!(counter(&leader, "seriatim_elections_total"), elections, "no leader was lost");
    let log = cluster.nodes[away].log();
    assert!(log.contains("snapshot installed: records"), "the leader did not have its next entry any more");
    let expected = read_all(&leader);
    assert_eq!(read_all(&cluster.client(away)).len(), expected.len());
}

/// Returns the leader, once it is not the node that was stopped.
fn cluster_leader(cluster: &Cluster, away: usize) -> usize {
    let client = cluster.client((away + 1) % 3);
    eventually("a leader", || {
        let servers = client.get_servers("default").map_err(|e| e.to_string())?.servers;
        let leader = servers.iter().find(|server| server.is_leader).ok_or("none")?;
        let found = cluster.nodes.iter().position(|node| node.name() == leader.id);
        found.filter(|node| *node != away).ok_or("the one that was stopped".into())
    })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
