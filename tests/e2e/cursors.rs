//! Cursors: the same on every node, kept over restarts, and of one reader at a time; and `consume --cursor`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use grpcio::RpcStatusCode;
use rustix::process::{Pid, Signal, kill_process};
use seriatim::client::{Client, ClientError, ConsumeStream};
use seriatim::pb::v1::{
    AcquireCursorRequest, CommitCursorRequest, ConsumeRequest, CreateLogRequest, Cursor, DeleteCursorRequest,
    LogConfig, ProduceRequest, Start,
};

use crate::harness::{Cluster, eventually, outcome, record};

const LOG: &str = "log";

fn acquire(client: &Client, instance: u64) -> Result<Cursor, ClientError> {
    client.acquire_cursor(&AcquireCursorRequest {
        log: LOG.into(),
        cursor: "reader".into(),
        instance,
        start: Start::START_EARLIEST.into(),
        owner: format!("process {instance}"),
        ..AcquireCursorRequest::default()
    })
}

fn commit_of(cursor: &Cursor, next_offset: u64) -> CommitCursorRequest {
    CommitCursorRequest {
        log: LOG.into(),
        cursor: "reader".into(),
        next_offset,
        epoch: cursor.epoch,
        metadata: format!("at {next_offset}").into_bytes().into(),
        ..CommitCursorRequest::default()
    }
}

fn stream(client: &Client, start: Start, epoch: u64) -> ConsumeStream {
    let request = ConsumeRequest {
        log: LOG.into(),
        start: start.into(),
        cursor: "reader".into(),
        cursor_epoch: epoch,
        ..ConsumeRequest::default()
    };
    client.consume_stream(&request, Some(Duration::from_secs(60))).expect("a stream")
}

fn reason<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.status().map_or_else(|| error.to_string(), |status| status.reason.clone()),
    }
}

fn append(client: &Client, log: &str, values: impl Iterator<Item = u64>) {
    let records = values.map(|value| record(value.to_string())).collect();
    let request = ProduceRequest { log: log.into(), records, ..ProduceRequest::default() };
    client.produce_request(&request).expect("appended");
}

/// One node has no replica of the log.
#[test]
fn a_cursor_is_the_same_on_every_node_and_belongs_to_one_reader() {
    let mut cluster = Cluster::start(4);
    let clients = cluster.clients();
    let config = LogConfig { replicas: Some(3), ..LogConfig::default() };
    let request = CreateLogRequest { log: LOG.into(), config: Some(config).into(), ..CreateLogRequest::default() };
    clients[0].create_log(&request).expect("created");
    append(&clients[0], LOG, 0..20);

    let first = acquire(&clients[0], 7).expect("acquired");
    assert_eq!((first.next_offset, first.lag, first.owner.as_str()), (0, 20, "process 7"));
    for client in &clients {
        assert_eq!(acquire(client, 7).expect("the same").epoch, first.epoch, "a retry starts no epoch");
    }
    for (i, client) in clients.iter().enumerate() {
        let committed = client.commit_cursor(&commit_of(&first, i as u64 + 1)).expect("committed");
        assert_eq!((committed.next_offset, committed.lag), (i as u64 + 1, 19 - i as u64));
        let again = client.commit_cursor(&commit_of(&first, i as u64 + 1)).expect("committed before");
        assert_eq!(again.revision, committed.revision, "a retry changes nothing");
    }
    assert_eq!(reason(clients[1].commit_cursor(&commit_of(&first, 2))), "CURSOR_BEHIND");
    assert_eq!(reason(clients[3].commit_cursor(&commit_of(&first, 21))), "OFFSET_PAST_END");
    let conditional = CommitCursorRequest { expected_revision: Some(1), ..commit_of(&first, 5) };
    assert_eq!(reason(clients[2].commit_cursor(&conditional)), "REVISION_MISMATCH");
    let back = CommitCursorRequest { allow_rewind: true, ..commit_of(&first, 3) };
    assert_eq!(clients[1].commit_cursor(&back).expect("moved back").next_offset, 3);
    for client in &clients {
        let cursor = client.get_cursor(LOG, "reader").expect("there");
        assert_eq!((cursor.next_offset, &cursor.metadata[..]), (3, &b"at 3"[..]));
        assert!(client.list_cursors(LOG).expect("a list").iter().all(|cursor| cursor.metadata.is_empty()));
        assert_eq!(reason(client.get_cursor(LOG, "other")), "NO_SUCH_CURSOR");
    }

    // Each node reads from the position, and ends the stream when another process acquires the cursor.
    let mut streams: Vec<ConsumeStream> =
        clients.iter().map(|client| stream(client, Start::START_CURSOR, first.epoch)).collect();
    for stream in &mut streams {
        let records = stream.by_ref().flat_map(|message| message.expect("a message").records);
        assert_eq!(records.take(17).map(|record| record.offset).collect::<Vec<_>>(), (3..20).collect::<Vec<_>>());
    }
    let second = acquire(&clients[2], 8).expect("acquired");
    assert!(second.epoch > first.epoch);
    for stream in streams {
        let last = stream.last().expect("a status");
        assert_eq!(reason(last), "CURSOR_FENCED");
    }
    for client in &clients {
        assert_eq!(reason(client.commit_cursor(&commit_of(&first, 9))), "CURSOR_FENCED");
        let late = stream(client, Start::START_EARLIEST, first.epoch).last().expect("a status");
        assert_eq!(reason(late), "CURSOR_FENCED");
    }

    // Every node is killed once, then all are restarted.
    for node in 0..cluster.nodes.len() {
        cluster.nodes[node].kill();
        let other = &clients[(node + 1) % clients.len()];
        let next_offset = 10 + node as u64;
        let committed = eventually("a commit", || {
            other.commit_cursor(&commit_of(&second, next_offset)).map_err(|error| error.to_string())
        });
        assert_eq!(committed.next_offset, next_offset);
        cluster.nodes[node].start_again();
        let seen =
            eventually("the cursor", || clients[node].get_cursor(LOG, "reader").map_err(|error| error.to_string()));
        assert_eq!(seen.next_offset, next_offset);
    }
    eventually("trimmed", || clients[0].trim(LOG, 15).map_err(|error| error.to_string()));
    for node in &mut cluster.nodes {
        assert!(node.stop().success());
    }
    for node in &mut cluster.nodes {
        node.start_again();
    }
    let cursor = eventually("the cursor", || clients[3].get_cursor(LOG, "reader").map_err(|error| error.to_string()));
    assert_eq!((cursor.next_offset, cursor.trimmed, cursor.lag, cursor.epoch), (13, 2, 5, second.epoch));
    let trimmed = eventually("a status", || match stream(&clients[1], Start::START_CURSOR, second.epoch).last() {
        Some(Err(error)) if error.status().is_some_and(|status| status.reason == "OFFSET_TRIMMED") => Ok(error),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(trimmed.status().and_then(|status| status.number("first_offset")), Some(15));

    let delete = DeleteCursorRequest { log: LOG.into(), cursor: "reader".into(), ..DeleteCursorRequest::default() };
    let other_epoch = DeleteCursorRequest { epoch: Some(first.epoch), ..delete.clone() };
    assert_eq!(reason(clients[0].delete_cursor(&other_epoch)), "CURSOR_FENCED");
    clients[3].delete_cursor(&delete).expect("deleted");
    clients[2].delete_cursor(&delete).expect("deleted before");
    assert_eq!(reason(clients[1].commit_cursor(&commit_of(&second, 20))), "NO_SUCH_CURSOR");
    let again = acquire(&clients[0], 9).expect("created again");
    assert!(again.epoch > second.epoch, "the readers of the deleted one stay shut out");
}

#[test]
fn cursors_need_a_right_of_their_own() {
    let cluster = Cluster::start(1);
    let reader = cluster.site.client(&cluster.nodes[0].rpc_addr, "reader");
    let writer = cluster.site.client(&cluster.nodes[0].rpc_addr, "writer");
    append(&cluster.client(0), "default", 0..3);
    let request = AcquireCursorRequest { cursor: "c".into(), instance: 1, ..AcquireCursorRequest::default() };
    let code = |error: ClientError| error.status().map(|status| status.code);
    assert_eq!(reader.acquire_cursor(&request).map_err(code), Err(Some(RpcStatusCode::PERMISSION_DENIED)));
    assert_eq!(reader.list_cursors("default").expect("a reader sees them"), []);
    assert_eq!(writer.list_cursors("default").map_err(code), Err(Some(RpcStatusCode::PERMISSION_DENIED)));
    cluster.client(0).acquire_cursor(&request).expect("acquired");
    assert_eq!(reader.list_cursors("default").expect("a list").len(), 1);
}

/// A reader that is killed prints some records again the next time, and leaves none out. One that ends by itself, or by a
/// signal, prints none again.
#[test]
fn consume_continues_at_its_cursor() {
    let mut cluster = Cluster::start(3);
    let addrs: Vec<&str> = cluster.nodes.iter().map(|node| node.rpc_addr.as_str()).collect();
    let addrs = addrs.join(",");
    let site = &cluster.site;
    let consume = |args: &[&str]| {
        let args = [&["consume", "--cursor", "import", "--timeout", "20"], args].concat();
        let mut command = site.cli(&addrs, &args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    append(&cluster.client(0), "default", 0..100);
    let first = consume(&["--count", "10"]).output().expect("it ran");
    assert_eq!(String::from_utf8_lossy(&first.stdout), (0..10).map(|line| format!("{line}\n")).collect::<String>());

    // Killed while it follows.
    let mut child = consume(&["--follow"]).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut printed: Vec<u64> =
        (0..90).map(|_| lines.next().expect("a line").expect("text").parse().expect("n")).collect();
    child.kill().expect("killed");
    child.wait().expect("it ended");

    // Then a node is killed, and the reader ends with a signal.
    append(&cluster.client(0), "default", 100..120);
    let mut child = consume(&["--follow"]).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut read_until = |last: u64| loop {
        let line: u64 = lines.next().expect("a line").expect("text").parse().expect("n");
        printed.push(line);
        if line == last {
            break;
        }
    };
    read_until(119);
    cluster.nodes[0].kill();
    let other = cluster.site.client(&cluster.nodes[1].rpc_addr, "root");
    eventually("appended", || {
        let request = ProduceRequest { records: vec![record("120")], ..ProduceRequest::default() };
        other.produce_request(&request).map_err(|error| error.to_string())
    });
    read_until(120);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a signal");
    let ended = child.wait().expect("it ended");
    assert_eq!(ended.code(), Some(130));
    let all: BTreeSet<u64> = printed.iter().copied().chain(0..10).collect();
    assert_eq!(all.len(), 121, "no record is left out");
    let rest = consume(&[]).output().expect("it ran");
    assert_eq!((outcome(&rest).0, String::from_utf8_lossy(&rest.stdout).into_owned()), (Some(0), String::new()));
}
