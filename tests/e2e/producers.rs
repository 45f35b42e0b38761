//! Producers: a retry is appended once, through whichever node, and `produce --producer` continues where it has stopped.

use std::io::Write as _;
use std::process::{Child, Stdio};

use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{
    ConsumeRequest, CreateLogRequest, InitProducerRequest, LogConfig, ProduceRequest, ProduceResponse, Producer,
    Record, Start,
};

use crate::harness::{Cluster, eventually, outcome, record};

const LINES: usize = 3000;

fn init(client: &Client, name: &str, instance: u64) -> Result<Producer, ClientError> {
    client.init_producer(&InitProducerRequest {
        log: "log".into(),
        producer: name.into(),
        instance,
        ..InitProducerRequest::default()
    })
}

fn send(client: &Client, producer: &Producer, sequence: u64, records: usize) -> Result<ProduceResponse, ClientError> {
    client.produce_request(&ProduceRequest {
        log: "log".into(),
        records: vec![record(format!("{sequence}")); records],
        producer_id: producer.producer_id,
        producer_epoch: producer.epoch,
        sequence,
        ..ProduceRequest::default()
    })
}

/// Sends a request until it is answered, as a client does.
#[track_caller]
fn send_until_answered(client: &Client, producer: &Producer, sequence: u64) -> ProduceResponse {
    eventually("an answer", || send(client, producer, sequence, 2).map_err(|error| error.to_string()))
}

fn reason<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.status().map_or_else(|| error.to_string(), |status| status.reason.clone()),
    }
}

fn all(client: &Client, log: &str) -> Vec<Record> {
    let request = ConsumeRequest {
        log: log.into(),
        start: Start::START_EARLIEST.into(),
        stop_at_end: true,
        ..ConsumeRequest::default()
    };
    let messages = client.consume_stream(&request, None).expect("a stream");
    messages.flat_map(|message| message.expect("no status").records).collect()
}

/// One node has no replica of the log.
#[test]
fn a_retry_is_appended_once_through_any_node_and_after_any_restart() {
    let mut cluster = Cluster::start(4);
    let clients = cluster.clients();
    let config = LogConfig { replicas: Some(3), ..LogConfig::default() };
    let request = CreateLogRequest { log: "log".into(), config: Some(config).into(), ..CreateLogRequest::default() };
    clients[0].create_log(&request).expect("created");

    let producer = init(&clients[0], "source", 7).expect("registered");
    assert_eq!((producer.epoch, producer.last_sequence, producer.records), (1, 0, 0));
    for client in &clients {
        let again = init(client, "source", 7).expect("the same one");
        assert_eq!((again.producer_id, again.epoch), (producer.producer_id, 1));
    }
    for (i, client) in clients.iter().enumerate() {
        let answer = send(client, &producer, 1, 2).expect("appended");
        assert_eq!((answer.offset, answer.count, answer.duplicate), (0, 2, i > 0), "through node {i}");
    }
    let second = send(&clients[3], &producer, 2, 2).expect("appended");
    assert_eq!((second.offset, second.duplicate), (2, false));
    assert_eq!(reason(send(&clients[1], &producer, 4, 1)), "SEQUENCE_GAP");
    assert_eq!(reason(send(&clients[2], &producer, 2, 1)), "SEQUENCE_REUSED");
    let stranger = Producer { producer_id: 5, ..producer.clone() };
    assert_eq!(reason(send(&clients[3], &stranger, 1, 1)), "PRODUCER_UNKNOWN");

    // Every node is killed once, and the log is trimmed. The first answer stays the same.
    for node in 0..cluster.nodes.len() {
        cluster.nodes[node].kill();
        let other = (node + 1) % cluster.nodes.len();
        let answer = send_until_answered(&clients[other], &producer, 3 + node as u64);
        assert_eq!(answer.count, 2);
        cluster.nodes[node].start_again();
        let retry = send_until_answered(&clients[node], &producer, 3 + node as u64);
        assert_eq!((retry.offset, retry.duplicate), (answer.offset, true));
    }
    eventually("trimmed", || clients[0].trim("log", 5).map_err(|error| error.to_string()));
    for node in &mut cluster.nodes {
        assert!(node.stop().success());
    }
    for node in &mut cluster.nodes {
        node.start_again();
    }
    let retry = send_until_answered(&clients[2], &producer, 1);
    assert_eq!((retry.offset, retry.duplicate), (0, true), "also of records that are trimmed");

    // Another process takes the producer over.
    let next = eventually("taken over", || init(&clients[3], "source", 8).map_err(|error| error.to_string()));
    assert_eq!((next.producer_id, next.epoch, next.last_sequence), (producer.producer_id, 2, 6));
    assert_eq!((next.records, next.last_offset), (12, 11));
    for client in &clients {
        assert_eq!(reason(send(client, &producer, 7, 1)), "PRODUCER_FENCED");
    }
    assert_eq!(send(&clients[1], &next, 7, 1).expect("appended").offset, 12);
    let listed = clients[0].list_producers("log").expect("a list");
    assert_eq!((listed.len(), listed[0].producer.as_str(), listed[0].records), (1, "source", 13));
    let values: Vec<Vec<u8>> = all(&clients[0], "log").iter().map(|record| record.value.to_vec()).collect();
    assert_eq!(values, ["3", "4", "4", "5", "5", "6", "6", "7"].map(|text| text.as_bytes().to_vec()));
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|line| format!("{line}\n")).collect()
}

/// An interrupted import had to be continued by hand, with the numbers of the lines that may be in the log twice.
#[test]
fn an_import_continues_where_it_has_stopped() {
    let mut cluster = Cluster::start(3);
    let addrs: Vec<&str> = cluster.nodes.iter().map(|node| node.rpc_addr.as_str()).collect();
    let addrs = addrs.join(",");
    let start = |args: &[&str]| -> Child {
        let args = [&["produce", "--producer", "import", "--timeout", "20"], args].concat();
        let mut command = cluster.site.cli(&addrs, &args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let clients = cluster.clients();
    let wait_for = |client: &Client, lines: u64| {
        eventually("the lines are there", || match client.get_log("default") {
            Ok(log) if log.position.next_offset == lines => Ok(()),
            Ok(log) => Err(format!("{} lines", log.position.next_offset)),
            Err(error) => Err(error.to_string()),
        });
    };

    // The leader is killed, which is also the node that the command talks to, and then the command itself.
    let leader = cluster.leader();
    let survivor = &clients[(leader + 1) % 3];
    let mut first = start(&[]);
    let mut input = first.stdin.take().expect("stdin");
    input.write_all(lines(0..LINES / 3).as_bytes()).expect("written");
    input.flush().expect("written");
    wait_for(survivor, LINES as u64 / 3);
    cluster.nodes[leader].kill();
    input.write_all(lines(LINES / 3..2 * LINES / 3).as_bytes()).expect("written");
    input.flush().expect("written");
    wait_for(survivor, 2 * LINES as u64 / 3);
    first.kill().expect("killed");
    first.wait().expect("it ends");

    let file = cluster.site.path().join("lines.txt");
    std::fs::write(&file, lines(0..LINES)).expect("written");
    let file = file.display().to_string();
    for (appended, before) in [(LINES / 3, 2 * LINES / 3), (0, LINES)] {
        let second = start(&[&file]).wait_with_output().expect("it ends");
        let (code, _, error) = outcome(&second);
        let expected = match appended {
            0 => "nothing appended to log default".to_owned(),
            n => format!("{n} records appended"),
        };
        let earlier = format!("{before} were appended before");
        assert_eq!((code, error.contains(&expected) && error.contains(&earlier)), (Some(0), true), "{error}");
    }
    // An input that can't be the same: its lines would be skipped without a word.
    std::fs::write(&file, lines(0..10)).expect("written");
    let (code, _, error) = outcome(&start(&[&file]).wait_with_output().expect("it ends"));
    assert_eq!((code, error.contains("it is another input")), (Some(65), true), "{error}");
    cluster.nodes[leader].start_again();
    let stored: String =
        all(&clients[leader], "default").iter().map(|r| format!("{}\n", String::from_utf8_lossy(&r.value))).collect();
    assert!(stored == lines(0..LINES), "each line once, in order");
}
