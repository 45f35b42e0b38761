//! Two of three hosts are gone for good: `seriatim recover` makes the third one the founder of a new cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use grpcio::RpcStatusCode as Code;
use rustix::process::Signal;
use serde_json::Value;
use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{CommitCursorRequest, ConsumeRequest, CreateLogRequest, LogConfig, Start};

use crate::fail_over::signal;
use crate::harness::{Cluster, Node, NodeOptions, Outcome, eventually, outcome, read_all, record, wait_for_voters};
use crate::verify::all_files;

/// Logs of one replica. Each node has one of these replicas.
const SINGLES: [&str; 3] = ["single-0", "single-1", "single-2"];

/// The acknowledged records: offset and value.
type Acknowledged = BTreeMap<u64, String>;

/// Produces through all nodes, and returns what was acknowledged. First `n2` is killed and started again; then `n1` is
/// paused, so that it misses records; at last `n2` and `n3` are killed.
fn load_until_the_quorum_is_lost(cluster: &mut Cluster) -> Acknowledged {
    let (acknowledged, stop) = (Mutex::new(Acknowledged::new()), AtomicBool::new(false));
    let failures = AtomicUsize::new(0);
    let clients = cluster.clients();
    std::thread::scope(|scope| {
        for (i, client) in clients.iter().enumerate() {
            let (acknowledged, stop, failures) = (&acknowledged, &stop, &failures);
            scope.spawn(move || {
                let client = client.within(Duration::from_secs(1));
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let value = format!("{i}-{n}");
                    match client.produce("", vec![record(&value)]) {
                        Ok(answer) => {
                            acknowledged.lock().expect("no panic").insert(answer.offset, value);
                        }
                        Err(_) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let count = || acknowledged.lock().expect("no panic").len();
        let wait_for_more = |what: &str| {
            let before = count();
            eventually(what, || {
                let more = count() - before;
                (more >= 50).then_some(()).ok_or(format!("{more} more"))
            });
        };
        wait_for_more("three nodes acknowledge");
        cluster.nodes[1].kill();
        wait_for_more("n1 and n3 acknowledge");
        cluster.nodes[1].start_again();
        wait_for_more("three nodes acknowledge again");
        signal(&cluster.nodes[0], Signal::STOP);
        wait_for_more("n2 and n3 acknowledge");
        cluster.nodes[1].kill();
        cluster.nodes[2].kill();
        let before = failures.load(Ordering::Relaxed);
        eventually("nothing is acknowledged any more", || {
            let more = failures.load(Ordering::Relaxed) - before;
            (more >= 10).then_some(()).ok_or(format!("{more} more failures"))
        });
        stop.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().expect("no panic")
}

fn create(client: &Client, log: &str, replicas: u32) -> String {
    let config = LogConfig { replicas: Some(replicas), ..LogConfig::default() };
    let request = CreateLogRequest { log: log.into(), config: Some(config).into(), ..CreateLogRequest::default() };
    client.create_log(&request).expect("created").log_id
}

fn copy_dir(from: &Path, to: &Path) {
    for (path, bytes) in all_files(from) {
        let to = to.join(path.strip_prefix(from).expect("inside"));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::write(to, bytes).expect("copied");
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (Code, String) {
    let error = result.expect_err("a refusal");
    let status = error.status().expect("a status");
    (status.code, status.reason.clone())
}

fn log_of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let logs = report["logs"].as_array().expect("logs");
    logs.iter().find(|log| log["name"] == name).expect("the log")
}

#[test]
fn one_of_three_hosts_continues_alone() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client(0);
    let single_ids = SINGLES.map(|log| create(&client, log, 1));
    for log in SINGLES {
        eventually("the log has a leader", || {
            client.produce(log, vec![record(log)]).map(drop).map_err(|e| e.to_string())
        });
    }
    let old_id = client.get_log("").expect("a log").log_id;
    client.produce("", vec![record("first")]).expect("appended");
    let commit = CommitCursorRequest { cursor: "c".to_owned(), next_offset: 1, ..CommitCursorRequest::default() };
    client.commit_cursor(&commit).expect("committed");
    let mut acknowledged = load_until_the_quorum_is_lost(&mut cluster);
    acknowledged.insert(0, "first".to_owned());
    cluster.nodes[0].kill();

    // The hosts are lost, but somebody has kept a copy of one disk.
    let (site, home) = (&cluster.site, cluster.site.path().join("n1"));
    let n3 = site.path().join("n3");
    let copy = site.path().join("copy-of-n3");
    copy_dir(&n3, &copy);
    fs::remove_dir_all(&n3).expect("removed");
    fs::remove_dir_all(site.path().join("n2")).expect("removed");

    let recover = |more: &[&str]| -> Outcome {
        let data_dir = home.display().to_string();
        let all = [&["recover", "--data-dir", &data_dir], more].concat();
        outcome(&site.command(&all).output().expect("runs"))
    };
    let before = all_files(&home);
    let (code, report, stderr) = recover(&["-o", "json"]);
    assert!(code == Some(4) && stderr.contains("decide about single-"), "{stderr}");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let (default, mine) = (log_of(&report, "default"), SINGLES.map(|log| log_of(&report, log)["fate"] == "same_id"));
    assert_eq!(mine.iter().filter(|mine| **mine).count(), 1, "each node has one: {report:#}");
    assert_eq!((&default["fate"], &report["verified"]), (&Value::from("new_id"), &Value::from(true)));
    let next = default["next_offset"].as_u64().expect("an offset");
    let committed = default["committed_offset"].as_u64().expect("an offset");
    assert!(committed > 50 && committed <= next, "{default}");
    // Above the commit index that n1 knows, it may have entries of a leader that was replaced.
    let lost = acknowledged.split_off(&committed);
    // `n1` was paused while 50 more were acknowledged, apart from requests in flight.
    assert!(
        lost.range(next..).count() >= 40 && acknowledged.len() >= 140,
        "{} kept, {} lost",
        acknowledged.len(),
        lost.len()
    );

    let (code, text, stderr) = recover(&["--drop-lost"]);
    assert!(code == Some(0) && text.contains("dry run: nothing was changed"), "{text}{stderr}");
    assert!(text.contains(&format!("records from {committed} on that only removed members have")), "{text}");
    let (code, _, stderr) = recover(&["--drop-lost", "--apply", "--remove", "n2"]);
    assert!(code == Some(4) && stderr.contains("--remove n2,n3"), "{stderr}");
    assert!(all_files(&home) == before, "nothing was changed so far");
    let (code, text, stderr) = recover(&["--drop-lost", "--apply", "--remove", "n2,n3"]);
    assert!(code == Some(0) && text.contains("done: the new cluster is"), "{text}{stderr}");
    let (code, text, stderr) =
        outcome(&site.command(&["data", "verify", "--data-dir", &home.display().to_string()]).output().expect("runs"));
    assert!(code == Some(0), "{text}{stderr}");

    // It works alone.
    let options = |name: &str, node: Option<&Node>| NodeOptions {
        name: name.to_owned(),
        bind_addr: node.map(|node| node.bind_addr.clone()),
        rpc_addr: node.map(|node| node.rpc_addr.clone()),
        ..NodeOptions::default()
    };
    let first = Node::start(site, options("n1", Some(&cluster.nodes[0])));
    let client = site.client(&first.rpc_addr, "root");
    let appended = eventually("it leads", || client.produce("", vec![record("after")]).map_err(|e| e.to_string()));
    assert_eq!(appended.offset, next, "everything that it had is there, and nothing else");
    let records = read_all(&client);
    for (offset, value) in &acknowledged {
        let record = &records[*offset as usize];
        assert_eq!((record.offset, &record.value[..]), (*offset, value.as_bytes()));
    }
    assert_eq!(client.get_cursor("", "c").expect("a cursor").next_offset, 1);
    let log = client.get_log("").expect("a log");
    assert_ne!(log.log_id, old_id);
    let by_old_id =
        ConsumeRequest { log_id: Some(old_id), start: Start::START_EARLIEST.into(), ..ConsumeRequest::default() };
    assert_eq!(reason(client.consume(&by_old_id)), (Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH".to_owned()));
    for (i, single) in SINGLES.iter().enumerate() {
        if mine[i] {
            assert_eq!(client.get_log(single).expect("a log").log_id, single_ids[i], "nothing of it is lost");
            assert_eq!(&client.consume_at(single, 0).expect("a record").value[..], single.as_bytes());
        } else {
            assert_eq!(reason(client.get_log(single)).0, Code::NOT_FOUND);
        }
    }

    // Blank nodes get replicas again, one of them under the name of a lost one.
    let join = vec![first.bind_addr.clone()];
    let others = ["n2", "n4"].map(|name| Node::start(site, NodeOptions { join: join.clone(), ..options(name, None) }));
    let mut clients = vec![client];
    clients.extend(others.iter().map(|node| site.client(&node.rpc_addr, "root")));
    wait_for_voters(&clients);
    let appended = clients[2].produce("", vec![record("by three")]).expect("appended");
    assert_eq!(appended.offset, next + 1);
    let all = read_all(&clients[0]);
    for client in &clients[1..] {
        assert!(read_all(client) == all, "the same records");
    }

    // A lost host comes back with its old disk: it is refused, and disturbs nobody.
    copy_dir(&copy, &n3);
    let terms = || clients[0].get_node().expect("a node").groups.iter().map(|group| group.term).collect::<Vec<_>>();
    let before = terms();
    let old = Node::start(site, NodeOptions { joins_later: true, ..options("n3", Some(&cluster.nodes[2])) });
    eventually("it is refused", || {
        let log = old.log();
        log.contains("belongs to cluster").then_some(()).ok_or(log)
    });
    let at_old = site.client(&old.rpc_addr, "root").within(Duration::from_secs(3));
    at_old.produce("", vec![record("lost")]).expect_err("it leads nothing");
    assert_eq!(terms(), before, "no election");
    assert_eq!(clients[1].produce("", vec![record("undisturbed")]).expect("appended").offset, next + 2);
    let names: Vec<String> = clients[0].get_servers("").expect("members").servers.into_iter().map(|s| s.id).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}
