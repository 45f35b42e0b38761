//! Invalid input: offsets, requests, data directories, configurations and arguments are rejected with a clear error.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use grpcio::RpcStatusCode as Code;
use seriatim::client::{ClientError, Status};
use seriatim::pb::v1::{ConsumeRequest, ProduceRequest, Record};

use crate::harness::{Cluster, Node, NodeOptions, Site, eventually, record, wait_for_voters};

#[test]
fn rejects_offsets_past_the_end_and_below_the_first() {
    let cluster = Cluster::start(3);
    let clients = cluster.clients();
    clients[0].produce("", (0..10).map(|n| record(n.to_string())).collect()).expect("produces");
    clients[1].trim("", 4).expect("trims");
    for client in &clients {
        let past = status(client.consume_at("", 11));
        assert_eq!((past.code, past.reason.as_str()), (Code::OUT_OF_RANGE, "OFFSET_PAST_END"));
        assert_eq!(
            (past.number("next_offset"), past.metadata.get("log").map(String::as_str)),
            (Some(10), Some("default"))
        );
        // The next offset has no record yet, and this client does not wait.
        assert!(matches!(client.consume_at("", 10), Err(ClientError::NoRecord(10))));
        let mut stream = client.consume_stream(&at(11), None).expect("a stream");
        assert_eq!(
            status(stream.next().expect("a status")).reason,
            "OFFSET_PAST_END",
            "a stream fails instead of retrying"
        );

        let trimmed = eventually("the trim is applied on this node", || match client.consume_at("", 3) {
            Err(error) => Ok(status(Err::<(), _>(error))),
            Ok(_) => Err("not trimmed yet".into()),
        });
        assert_eq!((trimmed.code, trimmed.reason.as_str()), (Code::OUT_OF_RANGE, "OFFSET_TRIMMED"));
        assert_eq!(trimmed.number("first_offset"), Some(4));
        assert_eq!(client.consume_at("", 4).expect("kept").value, "4");
    }
    assert_eq!(status(clients[2].trim("", 11)).code, Code::OUT_OF_RANGE);
    assert_eq!(clients[2].trim("", 2).expect("trims nothing").log.position.first_offset, 4, "never lower than before");
}

#[test]
fn rejects_invalid_requests() {
    let cluster = Cluster::start(1);
    let client = cluster.client(0);
    let refused = |request: ProduceRequest| {
        let unary = status(client.produce_request(&request));
        let mut stream = client.produce_stream().expect("a stream");
        stream.send(request);
        stream.close();
        let streamed = status(stream.answer().expect("a status"));
        assert_eq!((unary.code, &unary.reason), (streamed.code, &streamed.reason), "the same status on a stream");
        (unary.code, unary.reason)
    };
    assert_eq!(refused(ProduceRequest::default()).0, Code::INVALID_ARGUMENT, "no record, an empty batch");
    for name in ["/", "a b", "-a", "ä", &"x".repeat(256)] {
        let request = ProduceRequest { log: name.into(), records: vec![record("a")], ..ProduceRequest::default() };
        assert_eq!(refused(request).0, Code::INVALID_ARGUMENT, "{name}");
        assert_eq!(status(client.consume_at(name, 0)).code, Code::INVALID_ARGUMENT, "{name}");
        assert_eq!(status(client.get_log(name)).code, Code::INVALID_ARGUMENT, "{name}");
    }
    let nowhere = ProduceRequest { log: "nowhere".into(), records: vec![record("a")], ..ProduceRequest::default() };
    assert_eq!(refused(nowhere), (Code::NOT_FOUND, "NO_SUCH_LOG".into()));

    let limits = client.get_log("").expect("a log");
    let limits = limits.config.unwrap_or_default();
    let limit = |limit: Option<u32>| limit.expect("all settings are set") as usize;
    let (of_record, of_request) = (limit(limits.max_record_bytes), limit(limits.max_request_bytes));
    let large =
        ProduceRequest { records: vec![record("a"), record(vec![0; of_record + 1])], ..ProduceRequest::default() };
    assert_eq!(refused(large), (Code::INVALID_ARGUMENT, "RECORD_TOO_LARGE".into()));
    let many: Vec<Record> = (0..of_request / (of_record / 2) + 2).map(|_| record(vec![0; of_record / 2])).collect();
    let many = ProduceRequest { records: many, ..ProduceRequest::default() };
    assert_eq!(refused(many), (Code::INVALID_ARGUMENT, "REQUEST_TOO_LARGE".into()));
    let message = ProduceRequest { records: vec![record(vec![0; 20 << 20])], ..ProduceRequest::default() };
    let code = refused(message).0;
    assert!(code == Code::RESOURCE_EXHAUSTED || code == Code::INVALID_ARGUMENT, "{code}");

    assert_eq!(client.get_log("").expect("a log").position.next_offset, 0, "nothing was appended");
    client.produce("", vec![record("a")]).expect("valid requests are served");
}

#[test]
fn refuses_to_start_on_an_unusable_data_directory() {
    let site = Site::new();
    let mut node = Node::start(&site, NodeOptions { name: "n1".into(), bootstrap: true, ..NodeOptions::default() });
    wait_for_voters(&[site.client(&node.rpc_addr, "root")]);
    assert_bad_config(&serve(&site, &["--data-dir", "n1"]), &["n1", "in use"]);

    assert!(node.stop().success());
    fs::create_dir(site.path().join("photos")).expect("a folder");
    fs::write(site.path().join("photos/holiday.jpg"), "not ours").expect("a file");
    assert_bad_config(&serve(&site, &["--data-dir", "photos"]), &["photos"]);
    assert_eq!(fs::read_dir(site.path().join("photos")).expect("a folder").count(), 1, "it is unchanged");

    assert_bad_config(&serve(&site, &["--data-dir", "photos/holiday.jpg"]), &["holiday.jpg"]);

    let file = site.path().join("n1/node.toml");
    let text = fs::read_to_string(&file).expect("a file");
    let (body, _) = text.split_once("crc32c").expect("a CRC line");
    let newer = body.replace("format = 2", "format = 3");
    assert_ne!(newer, body);
    let newer = format!("{newer}crc32c = \"{:08x}\"\n", crc32c::crc32c(newer.as_bytes()));
    fs::write(&file, newer).expect("writes");
    assert_bad_config(&serve(&site, &["--data-dir", "n1"]), &["node.toml", "format", "3"]);

    // A changed file with the old CRC is damage, and the start fails.
    fs::write(&file, text.replace("groups = [", "groups = [7, ")).expect("writes");
    let output = serve(&site, &["--data-dir", "n1"]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");

    fs::write(&file, text).expect("writes");
    node.start_again();
}

#[test]
fn reports_every_mistake_in_a_configuration() {
    let site = Site::new();
    let mistakes = ["--bind-addr=here", "--segment-bytes=many", "--node-name=a/b"];
    assert_bad_config(&serve(&site, &mistakes), &["bind-addr", "segment-bytes", "node-name"]);
    let file = site.path().join("seriatim.toml");
    fs::write(&file, "[listen.peer]\naddr = \"here\"\n[storage]\nsegment_size = 5\n[cluster]\nname = \"A B\"\n")
        .expect("a file");
    let output = site.command(&["serve", "--config", "seriatim.toml"]).output().expect("runs");
    assert_bad_config(&output, &["seriatim.toml:2: listen.peer.addr", "segment_size", "seriatim.toml:6: cluster.name"]);
}

#[test]
fn exits_with_code_1_when_a_port_is_busy() {
    let site = Site::new();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = busy.local_addr().expect("an address").to_string();
    for listener in ["--rpc-addr", "--bind-addr", "--http-addr"] {
        let output = serve(&site, &[&format!("{listener}={addr}"), "--data-dir", "n1"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // Not a bad configuration: the port may become free, so systemd should retry.
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&addr), "{stderr}");
    }
}

#[test]
fn cli_errors_name_the_next_step() {
    let cluster = Cluster::start(1);
    let run = |args: &[&str]| {
        let output = cluster.site.cli(&cluster.nodes[0].rpc_addr, args).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, stderr) = run(&["consume", "--from", "5"]);
    assert_eq!(
        (code, stderr.contains("OFFSET_PAST_END"), stderr.contains("log info")),
        (Some(1), true, true),
        "{stderr}"
    );
    cluster.client(0).produce("", vec![record("a"), record("b")]).expect("produces");
    cluster.client(0).trim("", 1).expect("trims");
    let (code, stderr) = run(&["consume", "--from", "0"]);
    assert_eq!((code, stderr.contains("--from earliest")), (Some(1), true), "{stderr}");
    let (code, stderr) = run(&["consume", "--log", "other"]);
    assert_eq!((code, stderr.contains("log list")), (Some(5), true), "{stderr}");
    for id in ["12028844426381751448", "xyz", "1"] {
        let (code, stderr) = run(&["consume", "--log-id", id]);
        assert_eq!((code, stderr.contains("16 hexadecimal digits")), (Some(2), true), "{stderr}");
    }
    std::fs::write(cluster.site.path().join("line"), "a line\n").expect("a file");
    let (code, stderr) = run(&["produce", "--user", "nobody", "line"]);
    assert_eq!((code, stderr.contains("acl_policy_file")), (Some(77), true), "{stderr}");
    let (code, stderr) = run(&["produce", "no/such/file"]);
    assert_eq!((code, stderr.contains("no/such/file")), (Some(1), true), "{stderr}");
    let (code, stderr) = run(&["produce", "--certs", "no/such/folder"]);
    assert_eq!((code, stderr.contains("seriatim certs")), (Some(78), true), "{stderr}");
    let (code, stderr) = run(&["status", "--addr", "127.0.0.1:1", "--timeout", "1"]);
    assert_eq!((code, stderr.contains("nothing listens at this address")), (Some(69), true), "{stderr}");
    assert_eq!(run(&["produce", "--no-such-option"]).0, Some(2));
}

/// A data directory was copied (or a machine cloned), and the copy replaced the node in the cluster while it still ran:
/// two processes acknowledged and voted as one node, which loses acknowledged records.
#[test]
fn refuses_a_copied_data_directory_as_a_second_member() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[2].kill();
    let dir = cluster.site.path().to_owned();
    let copied = Command::new("cp").arg("-r").arg(dir.join("n3")).arg(dir.join("copy")).status().expect("runs");
    assert!(copied.success());
    cluster.nodes[2].start_again();
    // The copy has another name, and the node's certificate too: otherwise it would be refused earlier.
    cluster.site.name_peer("copy+n3");
    let mut copy = Node::start(
        &cluster.site,
        NodeOptions { name: "copy".to_owned(), joins_later: true, ..NodeOptions::default() },
    );
    let (status, log) = (copy.wait(), copy.log());
    let address = format!("runs at {} already", cluster.nodes[2].bind_addr);
    let named = log.contains(&address) && log.contains("with an empty data directory");
    assert_eq!((status.code(), named), (Some(78), true), "{log}");
    let servers = cluster.client(0).get_servers("default").expect("a response").servers;
    let third = servers.iter().find(|server| server.id == "n3").expect("n3 is still a member");
    assert_eq!(third.rpc_addr, cluster.nodes[2].rpc_addr, "n3 keeps its address");
}

fn at(offset: u64) -> ConsumeRequest {
    ConsumeRequest { offset, max_records: 10, ..ConsumeRequest::default() }
}

#[track_caller]
fn status<T>(result: Result<T, ClientError>) -> Status {
    result.err().expect("is refused").status().expect("a status").clone()
}

/// Runs `serve` with these arguments and defaults for the others, until it exits.
fn serve(site: &Site, args: &[&str]) -> Output {
    let files = site.node_files("n1");
    let file = |file: &Path| file.display().to_string();
    let given = |name: &str| args.iter().any(|arg| arg.starts_with(name));
    let mut all = vec!["serve".to_owned()];
    for (name, value) in [
        ("--node-name", "n1".to_owned()),
        ("--data-dir", "data".to_owned()),
        ("--bind-addr", "127.0.0.1:0".to_owned()),
        ("--rpc-addr", "127.0.0.1:0".to_owned()),
        ("--http-addr", "127.0.0.1:0".to_owned()),
        ("--acl-policy-file", site.policy().display().to_string()),
        ("--client-ca-file", file(&files.client_ca_file)),
        ("--server-cert-file", file(&files.server_cert_file)),
        ("--server-key-file", file(&files.server_key_file)),
        ("--peer-cert-file", file(&files.peer_cert_file)),
        ("--peer-key-file", file(&files.peer_key_file)),
    ] {
        if !given(name) {
            all.push(format!("{name}={value}"));
        }
    }
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    site.command(&all).output().expect("runs")
}

/// Asserts the exit code of a bad configuration, and that stderr contains these words.
#[track_caller]
fn assert_bad_config(output: &Output, named: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    for word in named {
        assert!(stderr.contains(word), "{word:?} is not named: {stderr}");
    }
}
