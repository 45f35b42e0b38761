//! Logs of which only some nodes have replicas: every node serves each of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use grpcio::RpcStatusCode as Code;
use rustix::process::Signal;
use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{
    ConsumeRequest, CreateLogRequest, LogConfig, LogInfo, ProduceRequest, Record, Server, Start, UpdateLogRequest,
};

use crate::fail_over::signal;
use crate::harness::{Cluster, eventually, next_records, record};

fn create(client: &Client, log: &str, replicas: u32) -> LogInfo {
    let config = LogConfig { replicas: Some(replicas), ..LogConfig::default() };
    let request = CreateLogRequest { log: log.into(), config: Some(config).into(), ..CreateLogRequest::default() };
    client.create_log(&request).expect("created")
}

fn servers(client: &Client, log: &str) -> Vec<Server> {
    client.get_servers(log).expect("servers").servers
}

fn names(servers: &[Server], which: impl Fn(&Server) -> bool) -> BTreeSet<String> {
    servers.iter().filter(|server| which(server)).map(|server| server.id.clone()).collect()
}

/// Returns the nodes with a replica of a log, and its leader.
#[track_caller]
fn placed(cluster: &Cluster, log: &str) -> (Vec<usize>, usize) {
    // Nodes are called n1, n2 and so on.
    let position = |name: &String| name[1..].parse::<usize>().expect("a number") - 1;
    let client = cluster.client(0);
    let replicas = names(&servers(&client, log), |server| server.is_replica);
    let replicas: Vec<usize> = replicas.iter().map(position).collect();
    let at_replica = cluster.client(replicas[0]);
    let leader = eventually("a leader", || {
        let leaders = names(&servers(&at_replica, log), |server| server.is_leader);
        leaders.first().map(position).ok_or_else(|| "none".to_owned())
    });
    (replicas, leader)
}

fn from_start(log: &str) -> ConsumeRequest {
    ConsumeRequest { log: log.into(), start: Start::START_EARLIEST.into(), ..ConsumeRequest::default() }
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(&record.value).into_owned()
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (Code, String) {
    let error = result.expect_err("a refusal");
    let status = error.status().expect("a status");
    (status.code, status.reason.clone())
}

/// Returns all records of a log, read through one node.
#[track_caller]
fn all(client: &Client, log: &str) -> Vec<String> {
    let to_end = ConsumeRequest { stop_at_end: true, ..from_start(log) };
    let messages = client.consume_stream(&to_end, None).expect("a stream");
    messages.flat_map(|message| message.expect("no status").records).map(|record| text(&record)).collect()
}

#[test]
fn every_node_serves_every_log() {
    let cluster = Cluster::start(5);
    let clients = cluster.clients();
    for (log, replicas) in [("one", 1), ("three", 3)] {
        let created = create(&clients[0], log, replicas);
        let (nodes, leader) = placed(&cluster, log);
        assert_eq!(nodes.len(), replicas as usize, "{nodes:?}");
        assert!(nodes.contains(&leader), "{leader} of {nodes:?}");

        // Appended through each node, one after the other: the records have one order.
        let mut sent = Vec::new();
        let mut tails: Vec<_> =
            clients.iter().map(|client| client.consume_stream(&from_start(log), None).expect("a stream")).collect();
        for tail in &mut tails {
            let first = tail.next().expect("a message at once").expect("no status");
            assert_eq!((first.records.len(), first.resume_offset), (0, 0));
            assert_eq!(first.log_id, created.log_id);
        }
        for (i, client) in clients.iter().enumerate() {
            let appended = client.produce(log, vec![record(format!("{i}"))]).expect("appended");
            assert_eq!((appended.offset, &appended.log_id), (sent.len() as u64, &created.log_id), "node {i}");
            sent.push(format!("{i}"));
            let mut stream = client.produce_stream().expect("a stream");
            for part in ["a", "b", "c"] {
                let records = vec![record(format!("{i}{part}"))];
                stream.send(ProduceRequest { log: log.into(), records, ..ProduceRequest::default() });
                sent.push(format!("{i}{part}"));
            }
            stream.close();
            for k in 0..3 {
                let answer = stream.answer().expect("a response").expect("no status");
                assert_eq!(answer.offset, sent.len() as u64 - 3 + k, "node {i}");
            }
            assert!(stream.answer().is_none(), "the stream has ended");
        }
        for (i, tail) in tails.iter_mut().enumerate() {
            let mut seen = Vec::new();
            while seen.len() < sent.len() {
                seen.extend(next_records(tail).records.iter().map(text));
            }
            assert_eq!(seen, sent, "node {i}");
        }
        for (i, client) in clients.iter().enumerate() {
            // Read at once, everything acknowledged is there.
            let info = client.get_log(log).expect("a log");
            assert_eq!((info.name.as_str(), &info.log_id), (log, &created.log_id));
            assert_eq!(info.position.next_offset, sent.len() as u64, "node {i}");
            let end =
                ConsumeRequest { offset: 1, start: Start::START_LAST.into(), log: log.into(), ..Default::default() };
            let last = client.consume(&end).expect("a response").records;
            assert_eq!(last.iter().map(text).collect::<Vec<_>>(), sent[sent.len() - 1..], "node {i}");
            // Each pass trims one record.
            assert_eq!(all(client, log), sent[i..], "node {i}");

            // A long poll through each node gets what is appended through another one.
            let next = sent.len() as u64;
            let value = format!("poll{i}");
            sent.push(value.clone());
            std::thread::scope(|scope| {
                let poll = scope.spawn(|| {
                    let request =
                        ConsumeRequest { log: log.into(), offset: next, wait_ms: 10_000, ..ConsumeRequest::default() };
                    client.consume(&request).expect("a response").records
                });
                clients[(i + 1) % 5].produce(log, vec![record(&value)]).expect("appended");
                let polled = poll.join().expect("no panic");
                assert_eq!(polled.iter().map(text).collect::<Vec<_>>(), sent[sent.len() - 1..]);
            });

            // Refusals say the same through each node.
            let past = client.consume_at(log, 1000);
            assert_eq!(code(past), (Code::OUT_OF_RANGE, "OFFSET_PAST_END".to_owned()), "node {i}");
            let wrong = ProduceRequest {
                log: log.into(),
                records: vec![record("x")],
                expected_offset: Some(1),
                ..ProduceRequest::default()
            };
            let refused = client.produce_request(&wrong);
            assert_eq!(code(refused).1, "EXPECTED_OFFSET_MISMATCH", "node {i}");
            let large = client.produce(log, vec![record("x".repeat((1 << 20) + 1))]);
            assert_eq!(code(large).1, "RECORD_TOO_LARGE", "node {i}");

            let trimmed = client.trim(log, i as u64 + 1).expect("trimmed");
            assert_eq!((trimmed.trimmed_records, trimmed.log.position.first_offset), (1, i as u64 + 1), "node {i}");
            let gone = client.consume_at(log, 0);
            assert_eq!(code(gone), (Code::OUT_OF_RANGE, "OFFSET_TRIMMED".to_owned()), "node {i}");
            let known = servers(client, log);
            assert_eq!(names(&known, |server| server.is_replica).len(), replicas as usize);
            // The node has appended, so it has learned the leader.
            assert_eq!(names(&known, |server| server.is_leader).len(), 1, "node {i}: {known:?}");
        }
    }
    let listed = clients[4].list_logs(&Default::default()).expect("a list").logs;
    assert_eq!(listed.iter().map(|log| log.name.as_str()).collect::<Vec<_>>(), ["default", "one", "three"]);
}

/// A node without a replica reads from one that has it, and appends at the leader. When that node dies, the client
/// continues through the same node where it was.
#[test]
fn streams_continue_when_the_node_that_serves_them_dies() {
    let mut cluster = Cluster::start(5);
    create(&cluster.client(0), "log", 3);
    let (replicas, leader) = placed(&cluster, "log");
    let outside = (0..5).find(|node| !replicas.contains(node)).expect("a node without a replica");
    let client = cluster.client(outside);
    client.produce("log", vec![record("first")]).expect("appended");

    let mut tail = client.consume_stream(&from_start("log"), None).expect("a stream");
    let mut read: Vec<Record> = next_records(&mut tail).records.to_vec();
    let mut stream = client.produce_stream().expect("a stream");
    let send = |stream: &mut seriatim::client::ProduceStream, value: &str| {
        let records = vec![record(value)];
        stream.send(ProduceRequest { log: "log".into(), records, ..ProduceRequest::default() })
    };
    let mut acknowledged = vec!["first".to_owned()];
    for i in 0..10 {
        assert!(send(&mut stream, &format!("before {i}")));
        stream.answer().expect("a response").expect("no status");
        acknowledged.push(format!("before {i}"));
    }
    for i in 0..100 {
        send(&mut stream, &format!("during {i}"));
    }
    cluster.nodes[leader].kill();

    // Exactly the requests with a response are acknowledged.
    let mut answered = 0;
    let failed = loop {
        match stream.answer() {
            Some(Ok(_)) => {
                acknowledged.push(format!("during {answered}"));
                answered += 1;
                // All were answered before the node died.
                if answered == 100 {
                    send(&mut stream, "late");
                }
            }
            Some(Err(error)) => break error,
            None => panic!("the stream ended without a status"),
        }
    };
    let status = failed.status().expect("a status");
    assert_eq!(status.number("failed_request"), Some(10 + answered as u64), "{status:?}");

    // The tail ends with a status that says how to go on, unless another replica served it.
    let last = read.last().expect("a record").offset;
    let mut resume = last + 1;
    let after = |read: &mut Vec<Record>, resume: &mut u64, tail: &mut seriatim::client::ConsumeStream, until: &str| {
        for message in tail {
            match message {
                Ok(message) => {
                    *resume = message.resume_offset;
                    read.extend(message.records);
                    if read.last().is_some_and(|record| text(record) == until) {
                        return None;
                    }
                }
                Err(error) => return Some(error),
            }
        }
        None
    };
    eventually("it is appended through the same node", || {
        client.produce("log", vec![record("after")]).map(drop).map_err(|e| e.to_string())
    });
    if let Some(error) = after(&mut read, &mut resume, &mut tail, "after") {
        let status = error.status().expect("a status");
        assert_eq!((status.code, status.reason.as_str()), (Code::UNAVAILABLE, "REPLICA_UNREACHABLE"), "{status:?}");
        let request = ConsumeRequest { log: "log".into(), offset: resume, ..ConsumeRequest::default() };
        let mut tail = client.consume_stream(&request, None).expect("a stream");
        let again = after(&mut read, &mut resume, &mut tail, "after");
        assert!(again.is_none(), "{again:?}");
    }
    let offsets: Vec<u64> = read.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (0..offsets.len() as u64).collect::<Vec<_>>(), "none is lost or twice");
    let values: Vec<String> = read.iter().map(text).collect();
    assert_eq!(&values[..acknowledged.len()], &acknowledged[..]);
    // Without a replica, the outcome of requests without a response is unknown: those that were appended are the next
    // ones.
    let unknown = &values[acknowledged.len()..values.len() - 1];
    let sent: Vec<String> = (answered..100).map(|i| format!("during {i}")).chain(["late".to_owned()]).collect();
    assert_eq!(unknown, &sent[..unknown.len()], "in their order, without a gap");

    // A new stream goes to the new leader, through every node that is left.
    for node in (0..5).filter(|node| *node != leader) {
        let client = cluster.client(node);
        let mut stream = client.produce_stream().expect("a stream");
        send(&mut stream, &format!("node {node}"));
        stream.answer().expect("a response").expect("no status");
        assert_eq!(all(&client, "log").last(), Some(&format!("node {node}")));
    }
}

#[test]
fn a_log_without_a_running_replica_is_unavailable_and_comes_back() {
    let mut cluster = Cluster::start(3);
    create(&cluster.client(0), "log", 1);
    let (replicas, _) = placed(&cluster, "log");
    let outside = (replicas[0] + 1) % 3;
    let client = cluster.client(outside).within(Duration::from_secs(20));
    client.produce("log", vec![record("x")]).expect("appended");
    cluster.nodes[replicas[0]].kill();
    let read = client.consume_at("log", 0);
    assert_eq!(code(read), (Code::UNAVAILABLE, "REPLICA_UNREACHABLE".to_owned()));
    let appended = client.produce("log", vec![record("y")]);
    assert_eq!(code(appended).0, Code::UNAVAILABLE);
    cluster.nodes[replicas[0]].start_again();
    let found = eventually("it is back", || client.consume_at("log", 0).map_err(|e| e.to_string()));
    assert_eq!(text(&found), "x");
    eventually("it takes records", || client.produce("log", vec![record("y")]).map(drop).map_err(|e| e.to_string()));
    assert_eq!(all(&client, "log"), ["x", "y"]);
}

/// The node that the client calls checks its rights. A peer that serves the request does not know the client.
#[test]
fn rights_are_checked_by_the_node_that_is_called() {
    let cluster = Cluster::start(3);
    create(&cluster.client(0), "log", 1);
    for node in 0..3 {
        let client = |user| cluster.site.client(&cluster.nodes[node].rpc_addr, user);
        let (writer, reader, nobody) = (client("writer"), client("reader"), client("nobody"));
        for client in [&writer, &reader, &nobody] {
            // The policy of the site allows these users nothing on this log.
            assert_eq!(code(client.consume_at("log", 0)).0, Code::PERMISSION_DENIED);
            assert_eq!(code(client.produce("log", vec![record("x")])).0, Code::PERMISSION_DENIED);
            assert_eq!(code(client.get_log("log")).0, Code::PERMISSION_DENIED);
            assert_eq!(code(client.trim("log", 0)).0, Code::PERMISSION_DENIED);
            let mut tail = client.consume_stream(&from_start("log"), None).expect("a stream");
            assert_eq!(code(tail.next().expect("a status")).0, Code::PERMISSION_DENIED);
        }
        client("root").produce("log", vec![record("x")]).expect("may do everything");
    }
}

/// Such a node went on to forward new requests to the leader that hung, for 15 s, and their outcome was unknown.
#[test]
fn a_node_without_a_replica_finds_the_next_leader_when_the_leader_hangs() {
    let cluster = Cluster::start(4);
    create(&cluster.client(0), "log", 3);
    let (replicas, leader) = placed(&cluster, "log");
    let outside = (0..4).find(|node| !replicas.contains(node)).expect("a node without a replica");
    let client = cluster.client(outside);
    client.produce("log", vec![record("x")]).expect("appended");
    signal(&cluster.nodes[leader], Signal::STOP);
    let other = replicas.iter().find(|node| **node != leader).expect("a follower");
    let old = format!("n{}", leader + 1);
    let next = eventually("another leader", || {
        let leaders = names(&servers(&cluster.client(*other), "log"), |server| server.is_leader);
        leaders.first().filter(|name| **name != old).cloned().ok_or_else(|| format!("{leaders:?}"))
    });
    assert_eq!(names(&servers(&client, "log"), |server| server.is_leader), [next].into(), "not the one it used last");
    let began = Instant::now();
    client.produce("log", vec![record("y")]).expect("appended");
    // The connection to the leader that hangs ends after 15 s.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    signal(&cluster.nodes[leader], Signal::CONT);
    assert_eq!(all(&client, "log"), ["x", "y"]);
}

/// Readers were told that the log is damaged.
#[test]
fn a_replica_that_leaves_ends_reads_without_a_word_of_damage() {
    let cluster = Cluster::start(3);
    let clients = cluster.clients();
    create(&clients[0], "log", 3);
    clients[0].produce("log", vec![record("x")]).expect("appended");
    let mut tails: Vec<_> =
        clients.iter().map(|client| client.consume_stream(&from_start("log"), None).expect("a stream")).collect();
    for tail in &mut tails {
        assert_eq!(next_records(tail).records.len(), 1);
    }
    let config = LogConfig { replicas: Some(1), ..LogConfig::default() };
    let request = UpdateLogRequest { log: "log".into(), config: Some(config).into(), ..UpdateLogRequest::default() };
    clients[0].update_log(&request).expect("changed");
    let ended: Vec<_> = tails
        .into_iter()
        .enumerate()
        .filter(|(node, _)| {
            // Meanwhile every read is served, here or by the replica that stays.
            eventually("one replica", || {
                let read = clients[*node].consume_at("log", 0);
                if let Err(error) = &read {
                    assert_ne!(error.status().map(|status| status.reason.as_str()), Some("REPLICA_DAMAGED"), "{error}");
                }
                match names(&servers(&clients[*node], "log"), |server| server.is_replica).len() {
                    1 => Ok(()),
                    replicas => Err(format!("{replicas} replicas")),
                }
            });
            !names(&servers(&clients[*node], "log"), |server| server.is_replica).contains(&format!("n{}", node + 1))
        })
        .map(|(_, tail)| tail)
        .collect();
    assert_eq!(ended.len(), 2);
    for mut tail in ended {
        let error = tail.find_map(Result::err).expect("it ends");
        let status = error.status().expect("a status");
        assert_eq!((status.code, status.reason.as_str()), (Code::UNAVAILABLE, "REPLICA_UNREACHABLE"));
    }
}
