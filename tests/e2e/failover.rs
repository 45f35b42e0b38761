//! How long a log has no leader after a fault of its leader's process, as a client sees it: from the signal to the first
//! acknowledgement of a request that was sent after it, by clients of the other nodes that retry every few milliseconds.
//!
//! `make failover RUNS=100` kills that many times, terminates a fifth as often, suspends a tenth as often, and prints
//! medians and the worst times. `MINUTES=10` adds a cluster on a machine that is busy for so long: no term may change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use rustix::process::Signal;
use seriatim::client::Client;

use crate::fail_over::signal;
use crate::harness::{Cluster, Node, TIMEOUT, eventually, print_uncaptured, record, wait_for_voters};
use crate::load::StopOnDrop;

/// A request that takes longer is given up, and sent again.
const TRY_MAX: Duration = Duration::from_millis(100);
/// The pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(2);
/// A request that was sent so soon after the signal may still be answered by the old leader.
const OLD_LEADER_MAX: Duration = Duration::from_millis(10);
/// The number of loops that keep the machine busy.
const BUSY_LOOPS: usize = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaderFault {
    Kill,
    Terminate,
    Suspend,
}

impl LeaderFault {
    fn begin(self, node: &mut Node) {
        match self {
            LeaderFault::Kill => signal(node, Signal::KILL),
            LeaderFault::Terminate => node.terminate(),
            LeaderFault::Suspend => signal(node, Signal::STOP),
        }
    }

    fn end(self, node: &mut Node) {
        match self {
            LeaderFault::Suspend => return signal(node, Signal::CONT),
            LeaderFault::Kill | LeaderFault::Terminate => {}
        }
        node.wait();
        node.start_again();
    }
}

/// Produces until told to stop, and reports when each acknowledged request was sent and acknowledged.
fn produce(client: &Client, stop: &AtomicBool, acknowledged: &Sender<(Instant, Instant)>) {
    let client = client.within(TRY_MAX);
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        if client.produce("", vec![record("x")]).is_ok() && acknowledged.send((sent, Instant::now())).is_err() {
            return;
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// Returns the time without an acknowledgement after a fault of the leader.
fn time_without(cluster: &mut Cluster, fault: LeaderFault) -> Duration {
    wait_for_voters(&cluster.clients());
    let leader = cluster.leader();
    let others = [cluster.client((leader + 1) % 3), cluster.client((leader + 2) % 3)];
    let (stop, (sender, acknowledged)) = (AtomicBool::new(false), unbounded());
    let taken = std::thread::scope(|scope| {
        let _ending = StopOnDrop(&stop);
        for client in &others {
            let (stop, sender) = (&stop, sender.clone());
            scope.spawn(move || produce(client, stop, &sender));
        }
        for _ in 0..20 {
            acknowledged.recv_timeout(TIMEOUT).expect("acknowledged before the fault");
        }
        let begun = Instant::now();
        fault.begin(&mut cluster.nodes[leader]);
        if fault == LeaderFault::Terminate {
            cluster.nodes[leader].wait();
            return longest_gap(begun, acknowledged.try_iter().map(|(_, answered)| answered));
        }
        loop {
            let (sent, answered) = acknowledged.recv_timeout(TIMEOUT).expect("acknowledged after the fault");
            if sent > begun + OLD_LEADER_MAX {
                break answered - begun;
            }
        }
    });
    fault.end(&mut cluster.nodes[leader]);
    taken
}

/// A node that is asked to stop acknowledges until another one leads. Returns the longest time between two
/// acknowledgements after `begun`.
fn longest_gap(begun: Instant, answered: impl Iterator<Item = Instant>) -> Duration {
    let mut moments: Vec<Instant> = answered.filter(|at| *at > begun).chain([begun, Instant::now()]).collect();
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().expect("acknowledged during the stop")
}

fn measure(cluster: &mut Cluster, fault: LeaderFault, runs: usize) {
    let mut times: Vec<Duration> = (0..runs).map(|_| time_without(cluster, fault)).collect();
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    print_uncaptured(&format!("{fault:?}: {runs} runs, median {median:?}, worst {worst:?}"));
    let all: Vec<u128> = times.iter().map(Duration::as_millis).collect();
    print_uncaptured(&format!("  all, in milliseconds: {all:?}"));
    assert!(worst < Duration::from_secs(10), "{fault:?}: {all:?} ms");
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().map(|number| number.parse().expect("a number"))
}

#[test]
fn a_leader_that_dies_stops_or_is_silent_is_replaced() {
    let runs = number("SERIATIM_TEST_FAILOVER_RUNS").unwrap_or(3);
    let mut cluster = Cluster::start(3);
    measure(&mut cluster, LeaderFault::Kill, runs);
    measure(&mut cluster, LeaderFault::Terminate, (runs / 5).max(1));
    measure(&mut cluster, LeaderFault::Suspend, (runs / 10).max(1));
}

/// The log and the term of each replica of a node.
fn terms(client: &Client) -> Vec<(String, u64)> {
    eventually("the node answers", || {
        let node = client.get_node().map_err(|e| e.to_string())?;
        Ok(node.groups.iter().map(|group| (group.log.clone(), group.term)).collect())
    })
}

/// An election needs a reason. A busy machine is none.
#[test]
fn a_busy_machine_is_no_reason_for_an_election() {
    let Some(minutes) = number("SERIATIM_TEST_BUSY_MINUTES") else { return };
    let cluster = Cluster::start(3);
    let clients = cluster.clients();
    let before = terms(&clients[0]);
    let (stop, until) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(60 * minutes as u64));
    let (mut acknowledged, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        let _ending = StopOnDrop(&stop);
        for _ in 0..BUSY_LOOPS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        while Instant::now() < until {
            match clients[acknowledged % 3].produce("", vec![record("light")]) {
                Ok(_) => acknowledged += 1,
                Err(_) => failed += 1,
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
    });
    let after = terms(&clients[0]);
    print_uncaptured(&format!(
        "{minutes} minutes with {BUSY_LOOPS} busy loops: {acknowledged} records acknowledged, {failed} failed, terms {before:?} \
         before and {after:?} after"
    ));
    assert_eq!(before, after, "elections without a fault");
}
