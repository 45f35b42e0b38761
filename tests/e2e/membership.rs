//! Nodes that are drained, removed, replaced and balanced, under load.

use std::collections::BTreeSet;

use seriatim::client::Client;
use seriatim::pb::v1::{CreateLogRequest, LogConfig, Node as Member, NodeState};

use crate::harness::{Cluster, Node, NodeOptions, eventually, wait_for_voters};
use crate::load::{Random, check, under_load};

/// The exit code of a node that was removed.
const NOT_ADMITTED: i32 = 78;

fn member(client: &Client, name: &str) -> Option<Member> {
    client.list_nodes().expect("the nodes").nodes.into_iter().find(|node| node.name == name)
}

#[track_caller]
fn id(client: &Client, name: &str) -> String {
    eventually("the id of a node", || {
        let nodes = client.list_nodes().map_err(|error| error.to_string())?.nodes;
        nodes.into_iter().find(|node| node.name == name).map(|node| node.node_id).ok_or_else(|| name.to_owned())
    })
}

/// For a moment there may be no leader that answers.
fn names(client: &Client) -> Result<BTreeSet<String>, String> {
    let nodes = client.list_nodes().map_err(|error| error.to_string())?.nodes;
    Ok(nodes.into_iter().map(|node| node.name).collect())
}

/// Waits until the cluster has exactly these nodes, and each log has all its replicas, which vote.
#[track_caller]
fn wait_for_nodes(client: &Client, wanted: &[&str]) {
    eventually("the nodes of the cluster", || {
        let answer = client.list_nodes().map_err(|error| error.to_string())?;
        let found: Vec<&str> = answer.nodes.iter().map(|node| node.name.as_str()).collect();
        let at_rest = |node: &Member| node.state == NodeState::NODE_STATE_ACTIVE.into();
        let is_done = found == wanted && answer.nodes.iter().all(at_rest);
        is_done.then_some(()).ok_or_else(|| format!("{:?}", answer.nodes))
    });
    eventually("replicas that vote", || {
        let node = client.get_node().map_err(|error| error.to_string())?;
        let votes = |group: &&seriatim::pb::v1::GroupStatus| {
            let voters = group.replicas.iter().filter(|replica| replica.is_voter).count();
            voters == group.replicas.len() && voters == wanted.len().min(if group.log.is_empty() { 5 } else { 3 })
        };
        match node.groups.iter().find(|group| !votes(group)) {
            Some(group) => Err(format!("{group:?}")),
            None => Ok(()),
        }
    });
}

fn addrs(cluster: &Cluster, nodes: &[usize]) -> Vec<String> {
    nodes.iter().map(|node| cluster.nodes[*node].rpc_addr.clone()).collect()
}

fn add(cluster: &mut Cluster, name: &str) {
    let join = vec![cluster.nodes[0].bind_addr.clone()];
    let options = NodeOptions { name: name.to_owned(), join, ..NodeOptions::default() };
    let node = Node::start(&cluster.site, options);
    cluster.nodes.push(node);
}

/// The host keeps its name and its address, and has lost its disk.
#[test]
fn a_wiped_node_is_replaced_under_load() {
    let mut cluster = Cluster::start(3);
    let old = id(&cluster.client(0), "n3");
    let mut random = Random::from_env("membership");
    let (site, served) = (cluster.site, addrs_of(&cluster.nodes[..2]));
    let nodes = &mut cluster.nodes;
    let (sent, ()) = under_load(&site, &served, &mut random, |_| {
        let client = site.client(&served[0], "root");
        nodes[2].kill();
        std::fs::remove_dir_all(site.path().join("n3")).expect("removed");
        let allowed = client.replace_node(&old, "").expect("allowed");
        assert!(allowed.expect("a node").may_be_replaced);
        nodes[2].start_again();
        wait_for_nodes(&client, &["n1", "n2", "n3"]);
    });
    let client = site.client(&served[0], "root");
    assert_ne!(id(&client, "n3"), old, "the new node has an id of its own");
    let cluster = Cluster { nodes: cluster.nodes, site };
    check(&cluster, &sent);
}

fn addrs_of(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(|node| node.rpc_addr.clone()).collect()
}

/// Without the operator's consent, the wiped node waits and says what to do. With `auto_replace_wiped` it joins.
#[test]
fn a_wiped_node_waits_for_consent() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(cluster.site.path().join("n3")).expect("removed");
    let (site, client) = (&cluster.site, cluster.client(0));
    let addr = cluster.nodes[0].rpc_addr.clone();
    let restarted = &mut cluster.nodes[2];
    std::thread::scope(|scope| {
        let log = site.path().join("n3.log");
        let starting = scope.spawn(move || restarted.start_again());
        eventually("a line that says what to do", || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.contains("seriatim node replace n3").then_some(()).ok_or(log)
        });
        assert!(!starting.is_finished());
        let set = site.cli(&addr, &["cluster", "set", "--auto-replace-wiped=on"]).output().expect("runs");
        assert!(set.status.success(), "{set:?}");
        starting.join().expect("ready");
    });
    wait_for_nodes(&client, &["n1", "n2", "n3"]);
}

/// A dead host is replaced by a new one, with one command.
#[test]
fn a_dead_host_is_replaced_by_a_new_one() {
    let mut cluster = Cluster::start(3);
    let mut random = Random::from_env("membership");
    let served = addrs(&cluster, &[0, 1]);
    cluster.nodes[2].kill();
    let dead = cluster.nodes.remove(2);
    add(&mut cluster, "n4");
    let client = cluster.client(0);
    let (site, addr) = (&cluster.site, &served[0]);
    let (sent, ()) = under_load(site, &served, &mut random, |_| {
        let words = ["node", "replace", "n3", "--by", "n4", "--wait", "60s"];
        let replaced = site.cli(addr, &words).output().expect("runs");
        assert!(replaced.status.success(), "{replaced:?}");
        wait_for_nodes(&client, &["n1", "n2", "n4"]);
    });
    check(&cluster, &sent);
    drop(dead);
}

/// Two nodes are added and two removed, one of them the leader.
#[test]
fn nodes_are_added_and_removed_under_load() {
    let mut cluster = Cluster::start(3);
    let mut random = Random::from_env("membership");
    add(&mut cluster, "n4");
    add(&mut cluster, "n5");
    wait_for_voters(&cluster.clients());
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    let leaves = BTreeSet::from([leader, other]);
    let stays: Vec<usize> = (0..5).filter(|node| !leaves.contains(node)).collect();
    let served = addrs(&cluster, &stays);
    let client = cluster.client(stays[0]);
    let (sent, ()) = under_load(&cluster.site, &served, &mut random, |_| {
        for node in [leader, other] {
            let name = format!("n{}", node + 1);
            let id = id(&client, &name);
            eventually("a decision", || client.remove_node(&id).map_err(|error| error.to_string()));
            eventually("the node is out", || match names(&client)?.contains(&name) {
                true => Err(format!("{name} is there")),
                false => Ok(()),
            });
        }
        let wanted: Vec<String> = stays.iter().map(|node| format!("n{}", node + 1)).collect();
        wait_for_nodes(&client, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    });
    // A removed node says so and ends.
    for node in leaves.into_iter().rev() {
        let mut removed = cluster.nodes.remove(node);
        assert_eq!(removed.wait().code(), Some(NOT_ADMITTED), "{}", removed.log());
        assert!(removed.log().contains("was removed"), "{}", removed.log());
    }
    check(&cluster, &sent);
}

#[test]
fn a_node_that_others_need_is_not_removed() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client(0);
    let (second, third) = (id(&client, "n2"), id(&client, "n3"));
    cluster.nodes[2].kill();
    eventually("n3 is silent", || {
        let n3 = member(&client, "n3").ok_or("no n3")?;
        if n3.is_heard { Err("heard".to_owned()) } else { Ok(()) }
    });
    eventually("n2 is needed", || match client.remove_node(&second) {
        Err(error) if error.status().is_some_and(|status| status.reason == "NODE_NEEDED") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The dead one can be removed, and then one more, but not the last one.
    client.remove_node(&third).expect("decided");
    eventually("n3 is out", || match names(&client)?.len() {
        2 => Ok(()),
        nodes => Err(format!("{nodes} nodes")),
    });
    client.remove_node(&second).expect("decided");
    wait_for_nodes(&client, &["n1"]);
    let last = client.remove_node(&id(&client, "n1")).expect_err("the last one");
    assert_eq!(last.status().expect("a status").reason, "NODE_NEEDED");
    client.produce("", vec![crate::harness::record("after")]).expect("appended");
}

#[test]
fn a_drained_node_leads_nothing_until_it_is_undrained() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let client = cluster.client((leader + 1) % 3);
    let name = format!("n{}", leader + 1);
    let drained = client.drain_node(&id(&client, &name), true).expect("drained").expect("a node");
    assert_eq!(drained.state, NodeState::NODE_STATE_DRAINED.into());
    let moved = eventually("another leader", || {
        let now = cluster.leader();
        if now == leader { Err("the same".to_owned()) } else { Ok(now) }
    });
    // It stays drained after a restart. When the leader dies, another node takes over in the end.
    cluster.nodes[leader].stop();
    cluster.nodes[leader].start_again();
    cluster.nodes[moved].kill();
    let third = 3 - leader - moved;
    let client = cluster.client(third);
    eventually("the third node leads", || {
        let servers = client.get_servers("default").map_err(|error| error.to_string())?.servers;
        let leads = servers.into_iter().find(|server| server.is_leader).map(|server| server.id);
        if leads == Some(format!("n{}", third + 1)) { Ok(()) } else { Err(format!("{leads:?}")) }
    });
    let undrained = client.drain_node(&id(&client, &name), false).expect("undrained").expect("a node");
    assert_eq!(undrained.state, NodeState::NODE_STATE_ACTIVE.into());
}

#[test]
fn replicas_move_to_a_new_node_when_the_cluster_is_balanced() {
    let mut cluster = Cluster::start(2);
    let client = cluster.client(0);
    for number in 0..8 {
        let config = LogConfig { replicas: Some(1), ..LogConfig::default() };
        let log = format!("log{number}");
        let request = CreateLogRequest { log: log.clone(), config: Some(config).into(), ..CreateLogRequest::default() };
        client.create_log(&request).expect("created");
        client.produce(&log, vec![crate::harness::record(&log)]).expect("appended");
    }
    add(&mut cluster, "n3");
    wait_for_voters(&cluster.clients());
    assert!(client.balance_cluster(false).expect("balancing"));
    eventually("balanced nodes", || {
        let answer = client.list_nodes().map_err(|error| error.to_string())?;
        let loads: Vec<u32> = answer.nodes.iter().map(|node| node.replicas).collect();
        let (least, most) = (loads.iter().min().copied(), loads.iter().max().copied());
        let even = least.zip(most).is_some_and(|(least, most)| most <= least + 1);
        if even && !answer.balancing { Ok(()) } else { Err(format!("{:?}", answer.nodes)) }
    });
    for number in 0..8 {
        let log = format!("log{number}");
        let record = cluster.client(number % 3).consume_at(&log, 0).expect("a record");
        assert_eq!(record.value, log.as_bytes(), "{log}");
    }
}

#[test]
fn leadership_is_handed_over_on_request() {
    let cluster = Cluster::start(3);
    for turn in 0..6 {
        let leader = cluster.leader();
        let to = format!("n{}", (leader + 1 + turn % 2) % 3 + 1);
        let addr = &cluster.nodes[turn % 3].rpc_addr;
        let output = cluster.site.cli(addr, &["cluster", "lead", "default", "--to", &to]).output().expect("runs");
        assert!(output.status.success(), "{output:?}");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert!(text.contains(&format!("node {to} leads log default")), "{text}");
        cluster.client(turn % 3).produce("", vec![crate::harness::record("r")]).expect("appended");
    }
    let client = cluster.client(cluster.leader());
    let nobody = client.transfer_leadership("default", "00000000000000ff").expect_err("no such node");
    assert_eq!(nobody.status().expect("a status").reason, "NO_SUCCESSOR");
}
