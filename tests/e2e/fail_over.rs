//! Client-visible behaviour while a leader is paused, cut off or restarted, and when all nodes change addresses.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Cluster, Node, NodeOptions, Site, eventually, record, wait_for_voters};
use crate::shim::{Fault, Shim};
use seriatim::client::Client;

/// Sends a signal to the process of a node.
pub fn signal(node: &Node, signal: Signal) {
    let pid = Pid::from_raw(node.pid().cast_signed()).expect("a process");
    kill_process(pid, signal).expect("a signal");
}

/// A client that sent one request at a time through a follower saw the fail-over of a paused leader as one call of 15 to 16 s with
/// an unknown outcome.
#[test]
fn a_forwarded_request_fails_over_quickly_when_the_leader_is_paused() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    signal(&cluster.nodes[leader], Signal::STOP);
    let slowest = slowest_until_appended(&cluster.client((leader + 1) % 3), || true);
    signal(&cluster.nodes[leader], Signal::CONT);
    assert!(slowest < Duration::from_secs(8), "a call took {slowest:?}");
}

/// The same with a leader whose disk hangs took 20 to 30 s.
#[test]
fn a_forwarded_request_fails_over_quickly_when_the_leader_disk_hangs() {
    let (shim, cluster) = Shim::cluster(3);
    let leader = cluster.leader();
    shim.inject_node(&cluster, leader, &Fault::SyncHang(".seg"));
    let hangs = || cluster.nodes[leader].log().contains("shim: a sync hangs");
    let slowest = std::thread::scope(|scope| {
        // A client of the leader itself waited until its disk responded, or for 30 s.
        let client = cluster.client(leader);
        let own = scope.spawn(move || {
            let call = Instant::now();
            let _ = client.produce("", vec![record("own")]);
            call.elapsed()
        });
        slowest_until_appended(&cluster.client((leader + 1) % 3), hangs).max(own.join().expect("no panic"))
    });
    assert!(slowest < Duration::from_secs(8), "a call took {slowest:?}");
}

/// Produces one record at a time, until a request that began after the failure is appended. Returns the duration of the slowest
/// call.
pub fn slowest_until_appended(client: &Client, failed: impl Fn() -> bool) -> Duration {
    let (mut slowest, mut number) = (Duration::ZERO, 0);
    let begin = Instant::now();
    loop {
        number += 1;
        let (call, after_failure) = (Instant::now(), failed());
        let answer = client.produce("", vec![record(format!("{number}"))]);
        slowest = slowest.max(call.elapsed());
        match answer {
            Ok(_) if after_failure => return slowest,
            Ok(_) => assert!(begin.elapsed() < Duration::from_secs(40), "the fault has no effect"),
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(40), "no other node was elected: {error}"),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Returns how often the main thread has gone to sleep. Apart from the watchdog, which runs every second, it rarely wakes.
fn main_thread_wakes(node: &Node) -> u64 {
    let pid = node.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/task/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("counted");
    line.trim().parse().expect("a number")
}

/// The watchdog of a process that was suspended for longer than `hang_max` took that for a hanging disk, and aborted the
/// process.
#[test]
fn a_suspended_node_resumes() {
    let mut cluster = Cluster::start_with(1, &["--hang-seconds-max=5"]);
    let client = cluster.client(0);
    for pause in 0..4 {
        client.produce("", vec![record(format!("{pause}"))]).expect("produces");
        signal(&cluster.nodes[0], Signal::STOP);
        // The pause itself is the test.
        std::thread::sleep(Duration::from_millis(6500));
        signal(&cluster.nodes[0], Signal::CONT);
        eventually("the node resumes", || client.produce("", vec![record("on")]).map_err(|e| e.to_string()));
        let before = main_thread_wakes(&cluster.nodes[0]);
        // Two, because the first one may be due to the end of the pause.
        eventually("the watchdog has run", || match main_thread_wakes(&cluster.nodes[0]) - before {
            2.. => Ok(()),
            n => Err(format!("{n} times awake")),
        });
    }
    assert!(cluster.nodes[0].stop().success(), "{}", cluster.nodes[0].log());
}

/// The ready line was printed up to half a second too early, and the first produce failed with JOINING.
#[test]
fn the_first_produce_after_the_ready_line_succeeds() {
    let site = Site::new();
    let produce = |node: &Node| site.client(&node.rpc_addr, "root").produce("", vec![record("first")]).map(drop);
    let mut first = Node::start(&site, NodeOptions { name: "n1".into(), bootstrap: true, ..NodeOptions::default() });
    produce(&first).expect("the first node accepts it");
    first.kill();
    first.start_again();
    produce(&first).expect("also after a restart");
    let join = vec![first.bind_addr.clone()];
    let second = Node::start(&site, NodeOptions { name: "n2".into(), join, ..NodeOptions::default() });
    produce(&second).expect("a new member accepts it");
}

fn free_addr() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").to_string()
}

/// All addresses were changed at once. The members reached each other through the new join addresses, but dialled the old ones for
/// raft, and no leader was elected.
#[test]
fn all_members_can_change_addresses_at_once() {
    let Cluster { nodes, site } = Cluster::start(3);
    site.client(&nodes[0].rpc_addr, "root").produce("", vec![record("before")]).expect("produces");
    drop(nodes);
    let addresses = [(); 3].map(|()| free_addr());
    let nodes: Vec<Node> = (0..3)
        .map(|i| {
            let bind_addr = Some(addresses[i].clone());
            Node::start(
                &site,
                NodeOptions {
                    name: format!("n{}", i + 1),
                    bind_addr,
                    join: addresses.to_vec(),
                    ..NodeOptions::default()
                },
            )
        })
        .collect();
    let clients: Vec<_> = nodes.iter().map(|node| site.client(&node.rpc_addr, "root")).collect();
    wait_for_voters(&clients);
    eventually("a record is appended", || clients[0].produce("", vec![record("after")]).map_err(|e| e.to_string()));
}

/// A node with `--bootstrap` and an empty disk, started while its join addresses were unreachable, founded a second cluster, and
/// continued to acknowledge records when they were reachable again.
#[test]
fn does_not_found_a_cluster_while_a_join_address_is_silent() {
    let site = Site::new();
    // Accepts connections but never responds, like a host whose node is suspended.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = silent.local_addr().expect("an address").to_string();
    let options = NodeOptions {
        name: "n1".into(),
        bootstrap: true,
        join: vec![addr.clone()],
        joins_later: true,
        ..NodeOptions::default()
    };
    let node = Node::start(&site, options);
    eventually("the log names what it waits for", || {
        let log = node.log();
        (log.contains("not founding cluster") && log.contains(&addr)).then_some(()).ok_or(log)
    });
    let client = site.client(&node.rpc_addr, "root");
    let refused = client.produce("", vec![record("a")]).expect_err("the cluster is not founded yet").to_string();
    assert!(refused.contains("not founding cluster") && refused.contains(&addr), "{refused}");
    drop(silent);
    assert!(TcpStream::connect(&addr).is_err());
    eventually("the cluster is founded", || client.produce("", vec![record("a")]).map_err(|e| e.to_string()));
}

/// Two clusters of one name, one founded while the other was unreachable, both acknowledged records forever.
#[test]
fn a_second_cluster_of_the_same_name_refuses_appends() {
    let site = Site::new();
    let addr = free_addr();
    let found = |name: &str, bind_addr: Option<String>, join: Vec<String>| {
        Node::start(
            &site,
            NodeOptions { name: name.into(), bootstrap: true, bind_addr, join, ..NodeOptions::default() },
        )
    };
    // The join address refuses connections, since no node listens there yet.
    let stray = found("n1", None, vec![addr.clone()]);
    let client = site.client(&stray.rpc_addr, "root");
    client.produce("", vec![record("a")]).expect("the only cluster accepts it");
    let other = found("n2", Some(addr), Vec::new());
    let refused = eventually("appends are refused", || match client.produce("", vec![record("b")]) {
        Ok(_) => Err("accepted".into()),
        Err(error) => Ok(error.to_string()),
    });
    assert!(refused.contains("another cluster named"), "{refused}");
    assert!(!client.get_node().expect("a response").another_cluster.is_empty());
    assert!(stray.log().contains("appends are refused: another cluster named"), "{}", stray.log());
    // Appends were refused until a restart, so that one host with a wrong response could stop a cluster permanently.
    drop(other);
    eventually("appends are accepted again", || client.produce("", vec![record("c")]).map_err(|e| e.to_string()));
}
