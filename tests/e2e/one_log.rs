//! One log on three nodes: reads by time, retention, trim, and their effects on readers.

use std::time::Duration;

use grpcio::RpcStatusCode as Code;
use seriatim::client::{Client, ClientError, Status};
use seriatim::pb::v1::UpdateLogRequest;
use seriatim::pb::v1::{ConsumeRequest, ConsumeResponse, LogPosition, Record, Start};

use crate::harness::{self, Cluster, TIMEOUT, eventually, next_records, record};

const SMALL_SEGMENTS: [&str; 2] = ["--segment-bytes", "64KiB"];

fn append(client: &Client, records: usize, bytes: usize) -> (u64, u64) {
    let batch: Vec<Record> = (0..records).map(|_| record(vec![b'x'; bytes])).collect();
    let answer = client.produce("", batch).expect("appended");
    (answer.offset, answer.append_time_us)
}

fn status(error: &ClientError) -> &Status {
    error.status().expect("a status of the node")
}

#[track_caller]
fn assert_trimmed(error: &ClientError, first_offset: u64) {
    let status = status(error);
    assert_eq!((status.code, status.reason.as_str()), (Code::OUT_OF_RANGE, "OFFSET_TRIMMED"), "{status}");
    assert!(status.number("first_offset") >= Some(first_offset), "{status:?}");
    assert!(status.number("next_offset") >= Some(first_offset), "{status:?}");
    assert!(status.metadata.contains_key("log") && status.metadata.contains_key("log_id"), "{status:?}");
}

/// Reads from that time. Returns the first offset, if any, and the number of records.
fn from_time(client: &Client, start_time_us: u64) -> (Option<u64>, usize) {
    let request = ConsumeRequest {
        start: Start::START_TIME.into(),
        start_time_us,
        max_records: 1000,
        stop_at_end: true,
        ..ConsumeRequest::default()
    };
    let answers = client.consume_stream(&request, Some(TIMEOUT)).expect("a stream");
    let answers: Vec<ConsumeResponse> = answers.collect::<Result<_, _>>().expect("records");
    let offsets: Vec<u64> = answers.iter().flat_map(|a| &a.records).map(|r| r.offset).collect();
    (offsets.first().copied(), offsets.len())
}

#[test]
fn a_stream_can_start_by_time_on_any_node() {
    let cluster = Cluster::start_with(3, &SMALL_SEGMENTS);
    let clients = cluster.clients();
    let times: Vec<(u64, u64)> = (0..60).map(|i| append(&clients[i % 3], 3, 1000 * (i % 7))).collect();
    for (i, client) in clients.iter().enumerate() {
        for &(offset, time) in &times {
            // Two batches may have the same time: then the stream starts at the first of them.
            let first = times.iter().find(|(_, t)| *t >= time).expect("at least one").0;
            assert_eq!(from_time(client, time), (Some(first), 180 - first as usize), "record {offset} on node {i}");
        }
        assert_eq!(from_time(client, 0), (Some(0), 180));
        assert_eq!(from_time(client, times[59].1 + 1), (None, 0), "later than every record: like START_LATEST");
    }
    // A record that one node has just acknowledged is found on another one at once, and a call can wait for one.
    let (offset, time) = append(&clients[0], 1, 1);
    assert_eq!(from_time(&clients[1], time).0, Some(offset));
    let waits = ConsumeRequest {
        start: Start::START_TIME.into(),
        start_time_us: u64::MAX,
        max_records: 1,
        wait_ms: 60_000,
        ..ConsumeRequest::default()
    };
    let waiting = clients[2].clone();
    let thread = std::thread::spawn(move || waiting.consume(&waits));
    eventually("the waiting call returns", || {
        append(&clients[0], 1, 1);
        if thread.is_finished() { Ok(()) } else { Err("not yet".into()) }
    });
    let answer = thread.join().expect("no panic").expect("a record");
    assert!(answer.records[0].offset > offset);
    clients[0].trim("", 100).expect("trimmed");
    assert_eq!(from_time(&clients[0], 0).0, Some(100), "the first record that is left");
}

fn log(client: &Client) -> LogPosition {
    client.get_log("").expect("a log").position.unwrap_or_default()
}

fn configure(client: &Client, bytes: Option<u64>, ms: Option<u64>) -> (u64, u64) {
    let config = client.update_log(&harness::retention(bytes, ms)).expect("configured").config.unwrap_or_default();
    let age = config.retention_age.unwrap_or_default();
    (config.min_retained_bytes.unwrap_or_default(), age.seconds as u64 * 1000 + age.nanos as u64 / 1_000_000)
}

#[track_caller]
fn assert_all_begin_at(clients: &[Client], first_offset: u64) {
    for client in clients {
        assert_eq!(log(client).first_offset, first_offset, "{}", client.addr());
    }
}

#[test]
fn retention_by_size_removes_whole_segments_on_every_node() {
    let cluster = Cluster::start_with(3, &SMALL_SEGMENTS);
    let clients = cluster.clients();
    for client in clients.iter().cycle().take(40) {
        append(client, 10, 2000);
    }
    assert_all_begin_at(&clients, 0);
    let follower = (cluster.leader() + 1) % 3;
    assert_eq!(configure(&clients[follower], Some(200 << 10), None), (200 << 10, 0));
    let first = eventually("old records and their files are removed", || {
        let log = log(&clients[cluster.leader()]);
        let (bytes, first) = (log.stored_bytes, log.first_offset);
        if bytes < (200 << 10) + (128 << 10) && first > 0 { Ok(first) } else { Err(format!("{first}, {bytes} bytes")) }
    });
    assert!(log(&clients[0]).stored_bytes >= 200 << 10, "no more than needed is removed");
    assert_all_begin_at(&clients, first);
    for client in &clients {
        assert_trimmed(&client.consume_at("", first - 1).expect_err("removed"), first);
        assert_eq!(client.consume_at("", first).expect("kept").offset, first);
        let node = client.get_node().expect("a response");
        let group = node.groups.iter().find(|g| !g.log.is_empty()).expect("the log");
        assert_eq!(group.config.min_retained_bytes, Some(200 << 10));
    }
    assert_eq!(configure(&clients[0], Some(0), None), (0, 0), "nothing more is removed");
    let error = clients[0].update_log(&harness::retention(None, Some(5))).expect_err("too short");
    assert_eq!(status(&error).code, Code::INVALID_ARGUMENT);
    let other = UpdateLogRequest { log_id: Some("0000000000000001".into()), ..harness::retention(None, Some(0)) };
    let error = clients[0].update_log(&other).expect_err("another log");
    assert_eq!(status(&error).reason, "LOG_ID_MISMATCH");
}

#[test]
fn retention_by_age_removes_only_old_segments_across_a_leader_change() {
    let mut cluster = Cluster::start_with(3, &SMALL_SEGMENTS);
    let clients = cluster.clients();
    append(&clients[0], 100, 1000);
    assert_eq!(configure(&clients[1], None, Some(4000)), (0, 4000));
    eventually("all records are old", || match log(&clients[2]).first_offset {
        100 => Ok(()),
        other => Err(format!("the log begins at {other}")),
    });
    assert_all_begin_at(&clients, 100);
    let leader = cluster.leader();
    cluster.nodes[leader].kill();
    let follower = &clients[(leader + 1) % 3];
    let (kept, _) = eventually("another node leads", || {
        follower.produce("", vec![record("new")]).map(|a| (a.offset, a.append_time_us)).map_err(|e| e.to_string())
    });
    assert_eq!(follower.consume_at("", kept).expect("a new record is kept").offset, kept);
    eventually("the new leader also removes old records", || match log(follower).first_offset {
        first if first > kept => Ok(()),
        other => Err(format!("the log begins at {other}")),
    });
}

/// Readers whose records are trimmed: a call, a slow stream, and a call and a stream that wait at the end.
#[test]
fn a_trim_under_a_reader_ends_it_with_offset_trimmed() {
    let cluster = Cluster::start_with(1, &SMALL_SEGMENTS);
    let client = cluster.client(0);
    for _ in 0..60 {
        append(&client, 10, 50_000);
    }
    let end = log(&client).next_offset;
    let request =
        |offset, max_bytes| ConsumeRequest { offset, max_bytes, max_records: 1000, ..ConsumeRequest::default() };
    let mut slow = client.consume_stream(&request(0, 1 << 16), Some(TIMEOUT)).expect("a stream");
    let first = next_records(&mut slow);
    assert_eq!(first.records[0].offset, 0);
    let mut waiting = client.consume_stream(&request(end, 0), Some(TIMEOUT)).expect("a stream");
    let waits = ConsumeRequest { wait_ms: 60_000, ..request(end, 0) };
    let other = cluster.client(0);
    let call = std::thread::spawn(move || other.consume(&waits));

    assert_eq!(client.trim("", end).expect("trimmed").log.position.first_offset, end);
    assert_trimmed(&client.consume(&request(end - 1, 0)).expect_err("trimmed"), end);
    let mut next = first.records.len() as u64;
    let error = loop {
        match slow.next().expect("a status at the end") {
            Ok(answer) => {
                assert!(answer.records.first().is_none_or(|record| record.offset == next), "no gap at {next}");
                next += answer.records.len() as u64;
            }
            Err(error) => break error,
        }
    };
    assert_trimmed(&error, end);
    assert!(next < end, "{next} of {end} records had already been sent");

    // Readers that wait at the end are not affected, and receive the next record.
    let (offset, _) = append(&client, 1, 1);
    assert_eq!(next_records(&mut waiting).records[0].offset, offset);
    assert_eq!(call.join().expect("no panic").expect("a record").records[0].offset, offset);
    // A tail that lags when everything is trimmed fails with OFFSET_TRIMMED.
    let mut tail = client.consume_stream(&request(offset, 1), Some(TIMEOUT)).expect("a stream");
    next_records(&mut tail);
    for _ in 0..100 {
        append(&client, 1, 1 << 19);
    }
    let end = log(&client).next_offset;
    client.trim("", end).expect("trimmed");
    let error = tail.find_map(Result::err).expect("a status");
    assert_trimmed(&error, end);
}

/// An idle stream with heartbeats sends one at least every `heartbeat_ms`.
#[test]
fn an_idle_tail_receives_heartbeats() {
    let cluster = Cluster::start(1);
    let client = cluster.client(0);
    let request = ConsumeRequest {
        start: Start::START_LATEST.into(),
        max_records: 10,
        heartbeat_ms: 1000,
        ..ConsumeRequest::default()
    };
    let mut tail = client.consume_stream(&request, Some(Duration::from_secs(30))).expect("a stream");
    // The first message is sent at once.
    for _ in 0..3 {
        let beat = tail.next().expect("a response").expect("a heartbeat");
        assert!(beat.records.is_empty() && !beat.log_id.is_empty());
    }
}
