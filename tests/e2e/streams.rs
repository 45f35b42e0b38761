//! Interrupted streams: exactly the records that are reported as appended are in the log.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use grpcio::RpcStatusCode as Code;
use rustix::process::{Pid, Signal, kill_process};
use seriatim::pb::v1::{ConsumeRequest, ProduceRequest, Start};

use crate::harness::{Cluster, eventually, record};

/// Requests of a stream are proposed without waiting for the responses of earlier ones. When the leader refused one (here because
/// of its `expected_offset`; a full queue or an election does the same), later ones had already been sent and were appended, in 20
/// of 20 runs. No request after a failed one may be appended.
#[test]
fn nothing_after_a_failed_request_is_appended() {
    let cluster = Cluster::start(3);
    for client in cluster.clients() {
        let before = client.get_log("").expect("a log").position.next_offset;
        let mut stream = client.produce_stream().expect("a stream");
        let request = |expected_offset| ProduceRequest {
            records: vec![record("x")],
            expected_offset,
            ..ProduceRequest::default()
        };
        stream.send(request(Some(before)));
        stream.send(request(Some(before)));
        // The stream may have failed already.
        while stream.send(request(None)) && client.get_log("").expect("a log").position.next_offset == before {}
        for _ in 0..200 {
            stream.send(request(None));
        }
        assert_eq!(stream.answer().expect("a response").expect("the first request succeeds").offset, before);
        let error = stream.answer().expect("a status").expect_err("the second request fails");
        let status = error.status().expect("a status");
        assert_eq!((status.code, status.reason.as_str()), (Code::FAILED_PRECONDITION, "EXPECTED_OFFSET_MISMATCH"));
        assert_eq!((status.number("failed_request"), status.number("unknown_through")), (Some(1), None));
        assert_eq!(client.get_log("").expect("a log").position.next_offset, before + 1);
    }
}

/// A tail at the end of the log knew no offset until its first record came. If its node died before, it began at the new end,
/// without what had been appended in between.
#[test]
fn a_tail_at_the_end_that_is_cut_before_its_first_record_loses_none() {
    let mut cluster = Cluster::start(1);
    let client = cluster.client(0);
    client.produce("", vec![record("before")]).expect("produces");
    let latest = ConsumeRequest { start: Start::START_LATEST.into(), ..ConsumeRequest::default() };
    let mut tail = client.consume_stream(&latest, None).expect("a stream");
    let first = tail.next().expect("a message at once").expect("no status");
    assert_eq!((first.records.len(), first.resume_offset), (0, 1));
    cluster.nodes[0].kill();
    assert!(tail.next().expect("a status").is_err());
    cluster.nodes[0].start_again();
    let client = cluster.client(0);
    eventually("it is appended", || client.produce("", vec![record("missed")]).map(drop).map_err(|e| e.to_string()));
    let resume =
        ConsumeRequest { offset: first.resume_offset, log_id: Some(first.log_id), ..ConsumeRequest::default() };
    let messages = client.consume_stream(&resume, None).expect("a stream").map(|message| message.expect("no status"));
    let next = messages.flat_map(|message| message.records).next().expect("a record");
    assert_eq!((next.offset, &next.value[..]), (1, &b"missed"[..]));
}

/// `consume --follow` failed with "connection refused" when the connection broke after a silence longer than --timeout, although
/// another node was available: it measured the timeout from the last record.
#[test]
fn consume_follow_continues_at_another_node_after_a_long_silence() {
    let mut cluster = Cluster::start(3);
    let timeout = Duration::from_secs(2);
    let addr = format!("{},{}", cluster.nodes[0].rpc_addr, cluster.nodes[1].rpc_addr);
    let args = ["consume", "--follow", "--from=latest", "--timeout", &timeout.as_secs().to_string()];
    let mut child =
        cluster.site.cli(&addr, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (seen, stdout) = (Arc::clone(&lines), child.stdout.take().expect("stdout"));
    // Ends when the process exits.
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            seen.lock().expect("no panic").push(line);
        }
    });
    let last = || lines.lock().expect("no panic").last().cloned();
    let client = cluster.client(2);
    eventually("the command follows", || {
        client.produce("", vec![record("first")]).map_err(|e| e.to_string())?;
        last().ok_or("nothing yet".into())
    });
    let quiet = Instant::now();
    eventually("a silence longer than the timeout passes", || {
        (quiet.elapsed() > timeout * 2).then_some(()).ok_or("not yet".into())
    });
    cluster.nodes[0].kill();
    eventually("another node leads", || {
        client.produce("", vec![record("second")]).map(drop).map_err(|e| e.to_string())
    });
    eventually("the command continues", || {
        if let Some(status) = child.try_wait().expect("waits") {
            let mut stderr = String::new();
            child.stderr.take().expect("stderr").read_to_string(&mut stderr).expect("text");
            panic!("the command exited: {status}, {stderr}");
        }
        last().filter(|line| line == "second").ok_or("not yet".into())
    });
    child.kill().expect("ends");
    child.wait().expect("waits");
    reader.join().expect("no panic");
}

/// Ctrl-C stopped `produce` without a message, so that the user did not know which lines were in the log.
#[test]
fn an_interrupted_produce_reports_the_last_offset() {
    let cluster = Cluster::start(1);
    let mut child = cluster
        .site
        .cli(&cluster.nodes[0].rpc_addr, &["produce"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"one\ntwo\nno end").expect("written");
    let client = cluster.client(0);
    eventually("two lines are appended", || {
        let next = client.get_log("").expect("a log").position.next_offset;
        (next == 2).then_some(()).ok_or(format!("{next}"))
    });
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("2 records appended to log default at offsets 0 to 1"), "{stderr}");
    assert!(stderr.contains("tail -n +3 "), "{stderr}");
}

/// Retention overtook a reader that had asked for all existing records: it failed with OFFSET_TRIMMED and exit code 1, 3 of 50
/// times.
#[test]
fn consume_reports_records_trimmed_before_they_were_read() {
    let cluster = Cluster::start(1);
    let client = cluster.client(0);
    // More data than fits into all buffers between the node and a reader that does not read.
    let value = |number: u64| [format!("{number:04}").into_bytes(), vec![b'x'; 1_000_000 - 4]].concat();
    (0..96).for_each(|number| drop(client.produce("", vec![record(value(number))]).expect("appended")));
    let consume = |from: &str| {
        let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, &["consume", "--from", from]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("a record");
        (child, stdout, number(&first))
    };
    let readers = ["earliest", "-90", "0"].map(consume);
    assert_eq!(readers.each_ref().map(|(.., first)| *first), [0, 6, 0]);
    client.trim("", 94).expect("trimmed");
    for (reader, (mut child, stdout, first)) in readers.into_iter().enumerate() {
        let read: Vec<u64> = stdout.lines().map(|line| number(&line.expect("a line"))).collect();
        let mut stderr = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut stderr).expect("text");
        let code = child.wait().expect("it ends").code();
        // Records that were already sent are read; the missing offsets are reported.
        let whole = read.iter().zip(first + 1..).take_while(|(got, wanted)| *got == wanted).count() as u64;
        let next = first + 1 + whole;
        assert!(next < 94, "nothing was trimmed under reader {reader}");
        let rest = &read[usize::try_from(whole).expect("small")..];
        if reader == 2 {
            assert_eq!((code, rest), (Some(1), &[][..]), "from an explicit offset: {stderr}");
            assert!(stderr.contains("OFFSET_TRIMMED"), "{stderr}");
            continue;
        }
        assert_eq!((code, rest), (Some(0), &[94, 95][..]), "{stderr}");
        let gap = format!("records {next} to 93 of log default were trimmed before they were read; continuing at 94");
        assert!(stderr.contains(&gap), "{stderr}");
    }
}

/// Parses the number at the beginning of a line.
fn number(line: &str) -> u64 {
    line.get(..4).and_then(|digits| digits.parse().ok()).expect("a number")
}
