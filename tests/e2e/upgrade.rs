//! Upgrading a cluster to a newer binary and back, and the feature level, after which the way back is closed.
//!
//! The newer binary is the same program with one more feature level (`SERIATIM_TEST_FEATURE_LEVEL_MAX`). Only nodes
//! without TLS accept this variable.

use std::path::PathBuf;
use std::process::Stdio;

use seriatim::client::Client;
use seriatim::feature_level::{FeatureLevel, FeatureRange};

use crate::harness::{
    Cluster, Node, NodeOptions, Outcome, Site, eventually, outcome, print_uncaptured, wait_for_voters,
};
use crate::load::{Random, check, under_load};

/// The highest level that the program supports as built.
fn top() -> FeatureLevel {
    FeatureRange::SUPPORTED.max()
}

/// The level that only the newer binary supports.
fn next() -> FeatureLevel {
    FeatureLevel(top().0 + 1)
}

fn newer() -> Vec<(String, String)> {
    vec![(FeatureRange::TEST_MAX.to_owned(), next().to_string())]
}

fn clients(site: &Site, nodes: &[Node]) -> Vec<Client> {
    nodes.iter().map(|node| site.client(&node.rpc_addr, "root")).collect()
}

/// Restarts all nodes with the same binary, one after the other. The next node is restarted once all others are voters
/// again.
fn roll(site: &Site, nodes: &mut [Node], env: &[(String, String)]) {
    for node in 0..nodes.len() {
        wait_for_voters(&clients(site, nodes));
        assert!(nodes[node].stop().success(), "it was stopped");
        nodes[node].set_env(env.to_vec());
        nodes[node].start_again();
    }
    wait_for_voters(&clients(site, nodes));
}

/// Runs `seriatim cluster upgrade` against a node.
fn upgrade(site: &Site, node: &Node) -> Outcome {
    outcome(&site.cli(&node.rpc_addr, &["cluster", "upgrade"]).output().expect("runs"))
}

/// Requests the next level from a node directly, without asking the members first.
fn raise(site: &Site, node: &Node) -> Result<u32, String> {
    let response = site.client(&node.rpc_addr, "root").raise_feature_level(next().0);
    response.map(|response| response.cluster.feature_level).map_err(|error| error.to_string())
}

/// Waits until each node knows that the cluster is at this level.
fn wait_for_level(clients: &[Client], level: FeatureLevel) {
    for client in clients {
        eventually("the node knows the level", || {
            let node = client.get_node().map_err(|e| e.to_string())?;
            (node.feature_level == level.0).then_some(()).ok_or(format!("level {}", node.feature_level))
        });
    }
}

#[test]
fn a_newer_binary_joins_and_rolls_in_both_directions_and_older_ones_are_refused_once_the_level_is_raised() {
    let mut cluster = Cluster::start_at(Site::insecure(), 3, &[], |_| Vec::new());
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect();
    let join = vec![cluster.nodes[0].bind_addr.clone()];
    let joiner = |name: &str, env| NodeOptions { name: name.into(), join: join.clone(), env, ..NodeOptions::default() };

    let Cluster { site, nodes } = &mut cluster;
    let (sent, ()) = under_load(site, &addrs, &mut Random::new(14), |_| {
        nodes.push(Node::start(site, joiner("n4", newer())));
        wait_for_voters(&clients(site, nodes));
        // The command names all members that lack the level, whichever node is asked. Without the command's check, the
        // leader refuses.
        for node in [0, 3] {
            let (code, _, error) = upgrade(site, &nodes[node]);
            assert_eq!(code, Some(1), "{error}");
            for older in ["n1", "n2", "n3"] {
                assert!(error.contains(&format!("{older} (version ")), "{error}");
            }
            let refused = raise(site, &nodes[node]).expect_err("an older member");
            let expected = format!("not raised to feature level {}: member n", next());
            assert!(refused.contains(&expected) && !refused.contains("member n4"), "{refused}");
        }

        roll(site, nodes, &newer());
        roll(site, nodes, &[]);
        roll(site, nodes, &newer());
        wait_for_level(&clients(site, nodes), top());
        let (_, status, _) = outcome(&site.cli(&nodes[0].rpc_addr, &["status"]).output().expect("runs"));
        assert!(status.contains("raise it with `seriatim cluster upgrade`"), "{status}");
        assert!(nodes[3].stop().success());
        let (code, _, error) = upgrade(site, &nodes[1]);
        assert!(code == Some(1) && error.contains("n4 does not answer"), "{error}");
        nodes[3].start_again();
        let raised = eventually("the leader has heard from every member", || {
            let (code, raised, error) = upgrade(site, &nodes[1]);
            (code == Some(0)).then_some(raised).ok_or(error)
        });
        let (from, to) = (top(), next());
        assert_eq!(
            raised,
            format!("feature level raised from {from} to {to}: older versions are refused from now on\n")
        );
        wait_for_level(&clients(site, nodes), next());
    });
    check(&cluster, &sent);
    let Cluster { site, nodes } = &mut cluster;
    let (code, again, _) = upgrade(site, &nodes[2]);
    assert_eq!((code, again), (Some(0), format!("the cluster is already at feature level {}\n", next())));
    assert!(nodes[0].log().contains(&format!("the cluster is at feature level {}", next())), "{}", nodes[0].log());

    // An older binary starts neither with the data of a member nor as a new node, and reports why.
    assert!(nodes[2].stop().success());
    nodes[2].set_env(Vec::new());
    let refused = nodes[2].try_start_again().expect_err("an older binary");
    assert_eq!(refused.code(), Some(78), "{}", nodes[2].log());
    let reason = format!("the cluster is at feature level {}, and this version supports feature level", next());
    assert!(nodes[2].log().contains(&reason), "{}", nodes[2].log());
    let mut blank = Node::start(site, NodeOptions { joins_later: true, ..joiner("n5", Vec::new()) });
    assert_eq!(blank.wait().code(), Some(78), "{}", blank.log());
    assert!(blank.log().contains("start it with a newer version"), "{}", blank.log());

    nodes[2].set_env(newer());
    nodes[2].start_again();
    wait_for_voters(&clients(site, nodes));
    check(&cluster, &sent);
}

/// The program of an earlier version, which `make upgrade` builds. Without it, the test is skipped.
const OLDER: &str = "SERIATIM_TEST_OLDER";

/// A cluster of an earlier version is upgraded under load, goes back, and is upgraded again. Then it uses what only the new
/// version has.
#[test]
fn a_cluster_of_an_earlier_version_is_upgraded_under_load() {
    let Some(older) = std::env::var_os(OLDER).map(PathBuf::from) else {
        print_uncaptured(
            "SKIPPED a_cluster_of_an_earlier_version_is_upgraded_under_load: `make upgrade` builds that version\n",
        );
        return;
    };
    let site = Site::new();
    let start = |name: &str, join: &[Node]| {
        let join: Vec<String> = join.iter().map(|node| node.bind_addr.clone()).collect();
        let (bootstrap, program) = (join.is_empty(), Some(older.clone()));
        Node::start(&site, NodeOptions { name: name.into(), bootstrap, join, program, ..NodeOptions::default() })
    };
    let mut nodes = vec![start("n1", &[])];
    for name in ["n2", "n3"] {
        nodes.push(start(name, &nodes[..1]));
    }
    wait_for_voters(&clients(&site, &nodes));
    let version = |node: &Node| {
        let server = site.client(&node.rpc_addr, "root").get_node().expect("an answer");
        (server.version, server.max_feature_level)
    };
    let before = version(&nodes[0]);
    let addrs: Vec<String> = nodes.iter().map(|node| node.rpc_addr.clone()).collect();
    let replace = |nodes: &mut [Node], program: Option<&PathBuf>| {
        for node in 0..nodes.len() {
            wait_for_voters(&clients(&site, nodes));
            assert!(nodes[node].stop().success(), "{}", nodes[node].log());
            nodes[node].set_program(program.cloned());
            nodes[node].start_again();
        }
        wait_for_voters(&clients(&site, nodes));
    };
    let (sent, ()) = under_load(&site, &addrs, &mut Random::new(15), |_| {
        replace(&mut nodes, None);
        // As long as the level is not raised, the way back is open.
        replace(&mut nodes, Some(&older));
        replace(&mut nodes, None);
        if before.1 < top().0 {
            eventually("the level is raised", || {
                let (code, _, error) = upgrade(&site, &nodes[0]);
                (code == Some(0)).then_some(()).ok_or(error)
            });
        }
        wait_for_level(&clients(&site, &nodes), top());
    });
    assert_eq!(version(&nodes[0]).1, top().0);
    let cluster = Cluster { site, nodes };
    check(&cluster, &sent);
    let create = ["log", "create", "audit", "--hash-chain"];
    for args in [&create[..], &["log", "info", "audit"]] {
        let run = cluster.site.cli(&cluster.nodes[1].rpc_addr, args).output().expect("runs");
        assert_eq!(outcome(&run).0, Some(0), "{run:?}");
    }
    let mut cluster = cluster;
    assert!(cluster.nodes[2].stop().success());
    cluster.nodes[2].set_program((before.1 < top().0).then(|| older.clone()));
    match cluster.nodes[2].try_start_again() {
        Err(refused) => assert_eq!(refused.code(), Some(78), "{}", cluster.nodes[2].log()),
        Ok(()) => assert_eq!(before.1, top().0, "a version without this level was accepted"),
    }
}

/// Once, the second of two operators was told that nothing was appended, and a monitor reported a failed upgrade.
#[test]
fn everyone_who_raises_the_level_at_the_same_time_is_told_that_it_is_raised() {
    let Cluster { site, nodes } = Cluster::start_at(Site::insecure(), 3, &[], |_| newer());
    let start = |i: usize| {
        let mut command = site.cli(&nodes[i % 3].rpc_addr, &["cluster", "upgrade"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs")
    };
    let operators: Vec<_> = (0..9).map(start).collect();
    let outcomes = operators.into_iter().map(|child| outcome(&child.wait_with_output().expect("ends")));
    let failed: Vec<_> = outcomes.filter(|(code, ..)| *code != Some(0)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
