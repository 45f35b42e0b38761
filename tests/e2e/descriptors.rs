//! A node with few file descriptors: neither a long log nor connections that use all of them stop it or cause wrong responses.

use std::net::TcpStream;
use std::time::Duration;

use grpcio::RpcStatusCode as Code;
use seriatim::client::Client;

use crate::harness::{Node, NodeOptions, Site, eventually, read_all, record, wait_for_voters};

const RECORD_BYTES: usize = 60_000;

/// Starts a node with this limit of open files. Each record fills a segment.
fn start(site: &Site, open_files: u64) -> (Node, Client) {
    let more = ["--segment-bytes=65536"].map(str::to_owned).to_vec();
    let options = NodeOptions {
        name: "n1".to_owned(),
        bootstrap: true,
        more,
        wrapper: ["sh", "-c", &format!("ulimit -n {open_files}; exec \"$0\" \"$@\"")].map(str::to_owned).to_vec(),
        ..NodeOptions::default()
    };
    let node = Node::start(site, options);
    let client = site.client(&node.rpc_addr, "root");
    wait_for_voters(std::slice::from_ref(&client));
    (node, client)
}

fn descriptors(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.pid())).map_or(0, Iterator::count)
}

#[track_caller]
fn append(client: &Client, records: usize) {
    for _ in 0..records {
        client.produce("", vec![record(vec![b'x'; RECORD_BYTES])]).expect("appended");
    }
}

#[track_caller]
fn check(client: &Client, records: u64) {
    let all = read_all(client);
    assert_eq!(all.iter().map(|r| r.offset).collect::<Vec<_>>(), (0..records).collect::<Vec<_>>());
    assert!(all.iter().all(|r| r.value.len() == RECORD_BYTES));
}

/// Each segment written since the start stayed open: a node exited when it had written as many as it had descriptors.
#[test]
fn a_log_can_have_more_segments_than_file_descriptors() {
    let site = Site::new();
    let (mut node, client) = start(&site, 100);
    append(&client, 300);
    check(&client, 300);
    append(&client, 1);
    assert!(node.stop().success());
    node.start_again();
    check(&site.client(&node.rpc_addr, "root"), 301);
}

/// A connection uses a descriptor before the client is authenticated. A node without descriptors could not roll a segment, and
/// exited.
#[test]
fn connections_that_use_every_descriptor_do_not_stop_the_node() {
    let site = Site::new();
    let (mut node, client) = start(&site, 200);
    append(&client, 30);
    // A quarter of the 200 descriptors is reserved for files.
    let usable = 150;
    let addr = node.rpc_addr.parse().expect("an address");
    let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_secs(10)).expect("a connection");
    let strangers: Vec<TcpStream> = (0..300).map(connect).collect();
    eventually("connections use every free descriptor", || {
        let taken = descriptors(&node);
        (taken >= usable).then_some(()).ok_or(format!("{taken} of {usable}"))
    });
    append(&client, 100);
    // A reload of the policy, which may revoke permissions, still works.
    let policy = std::fs::read_to_string(site.policy()).expect("a policy");
    std::fs::write(site.policy(), policy + "p, somebody, *, consume\n").expect("written");
    node.reload();
    eventually("the new policy is in use", || {
        let log = node.log();
        log.contains("access policy reloaded").then_some(()).ok_or(log)
    });
    assert!(descriptors(&node) >= usable - 10, "they were still in use: {}", descriptors(&node));
    // A record in a closed segment is returned, or refused for now; it is never reported as lost.
    for offset in 0..30 {
        match client.consume_at("", offset) {
            Ok(record) => assert_eq!(record.offset, offset),
            Err(error) => {
                let status = error.status().expect("a status of the node");
                assert_eq!((status.code, status.reason.as_str()), (Code::RESOURCE_EXHAUSTED, "SHORTAGE"), "{status}");
            }
        }
    }
    drop(strangers);
    eventually("descriptors are free again", || {
        let taken = descriptors(&node);
        (taken < usable).then_some(()).ok_or(format!("{taken}"))
    });
    check(&client, 130);
    assert!(node.stop().success());
}
