//! Logs with a hash chain: receipts, proofs, and what they say after a fail-over and on a stopped node.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use openssl::base64::{decode_block, encode_block};
use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{
    CreateLogRequest, LogConfig, ProduceRequest, ProduceResponse, ReadChainRequest, Record, UpdateLogRequest,
};

use crate::harness::{Cluster, eventually, outcome, record};

const LOG: &str = "audit";

fn create(client: &Client, log: &str, replicas: u32, hash_chain: bool) -> Result<(), ClientError> {
    let config = LogConfig { replicas: Some(replicas), hash_chain: hash_chain.then_some(true), ..LogConfig::default() };
    let request = CreateLogRequest { log: log.into(), config: Some(config).into(), ..CreateLogRequest::default() };
    client.create_log(&request).map(drop)
}

fn append(client: &Client, log: &str, records: Vec<Record>, receipt: bool) -> Result<ProduceResponse, ClientError> {
    client.produce_request(&ProduceRequest { log: log.into(), records, receipt, ..ProduceRequest::default() })
}

fn reason<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.status().map_or_else(|| error.to_string(), |status| status.reason.clone()),
    }
}

/// A cluster, and files in its directory.
struct Audit {
    cluster: Cluster,
}

impl Audit {
    fn file(&self, name: &str) -> PathBuf {
        self.cluster.site.path().join(name)
    }

    /// Runs a command that asks the node.
    fn ask(&self, node: usize, args: &[&str]) -> Output {
        let mut command = self.cluster.site.cli(&self.cluster.nodes[node].rpc_addr, args);
        command.current_dir(self.cluster.site.path()).output().expect("runs")
    }

    #[track_caller]
    fn ask_ok(&self, node: usize, args: &[&str]) -> String {
        let (code, stdout, stderr) = outcome(&self.ask(node, args));
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        stdout
    }

    /// Runs a command that reads files only.
    fn offline(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = self.cluster.site.command(args);
        outcome(&command.current_dir(self.cluster.site.path()).output().expect("runs"))
    }
}

/// Returns a receipt that says that it is of another log.
fn forged(receipt: &str) -> String {
    let object: serde_json::Value = serde_json::from_str(receipt).expect("JSON");
    let mut bytes = decode_block(object["receipt"].as_str().expect("a receipt")).expect("base64");
    let name = bytes.windows(LOG.len()).position(|part| part == LOG.as_bytes()).expect("the name of the log");
    bytes[name] ^= 1;
    serde_json::json!({ "receipt": encode_block(&bytes) }).to_string()
}

/// Every node, also one without a replica, signs receipts of what was appended through any other; the leader is killed on
/// the way, and the chain continues.
#[test]
fn receipts_prove_records_across_a_fail_over_and_on_a_stopped_node() {
    let mut audit = Audit { cluster: Cluster::start(4) };
    let clients = audit.cluster.clients();
    create(&clients[0], LOG, 3, true).expect("created");
    let mut next = 0;
    for batch in 0..40u64 {
        let values = (0..=batch % 4).map(|i| record(format!("value {}", next + i))).collect();
        let response = append(&clients[batch as usize % 4], LOG, values, batch % 8 == 0).expect("appended");
        assert_eq!((response.offset, response.receipt.is_some()), (next, batch % 8 == 0), "{response}");
        next += batch % 4 + 1;
    }
    let early = audit.ask_ok(3, &["log", "receipt", LOG, "--offset", "10"]);
    fs::write(audit.file("early.jsonl"), &early).expect("written");

    // The next leader continues the chain of the one before.
    let led_by = |client: &Client| {
        let servers = client.get_servers(LOG).map_err(|error| error.to_string())?.servers;
        servers.into_iter().find(|server| server.is_leader).map(|server| server.id).ok_or("no leader".to_owned())
    };
    let leader = eventually("a leader", || led_by(&clients[0]));
    let killed = audit.cluster.nodes.iter().position(|node| node.name() == leader).expect("a node");
    audit.cluster.nodes[killed].kill();
    let survivor = (killed + 1) % 4;
    let client = audit.cluster.client(survivor);
    eventually("an append", || {
        let appended = append(&client, LOG, vec![record("after the fail-over")], true);
        appended.map(drop).map_err(|error| error.to_string())
    });
    audit.cluster.nodes[killed].start_again();
    let late = audit.ask_ok(killed, &["log", "receipt", LOG]);
    fs::write(audit.file("late.jsonl"), &late).expect("written");

    let ca = audit.cluster.site.certs().join("ca.pem").display().to_string();
    for (offset, receipt) in [("0", "early.jsonl"), ("0", "late.jsonl"), ("57", "late.jsonl")] {
        let proof = audit.ask_ok(survivor, &["log", "prove", "--log", LOG, offset, "--receipt", receipt]);
        fs::write(audit.file("proof.json"), proof).expect("written");
        let (code, told, error) =
            audit.offline(&["log", "verify-receipt", "--peer-ca-file", &ca, "--proof", "proof.json"]);
        assert_eq!(code, Some(0), "{error}");
        assert!(told.contains(&format!("\nvalue {offset}\n")), "{told}");
    }
    let refused = outcome(&audit.ask(survivor, &["log", "prove", "--log", LOG, "57", "--receipt", "early.jsonl"]));
    assert!(refused.0 == Some(4) && refused.2.contains("was signed before record 57 was appended"), "{refused:?}");
    // Without a receipt, a new one is signed.
    let now = audit.ask_ok(survivor, &["log", "prove", "--log", LOG, "3"]);
    assert!(now.contains("\"receipt\""), "{now}");

    // A stopped node has the log of both receipts.
    let (code, told, error) =
        audit.offline(&["log", "verify-receipt", "--peer-ca-file", &ca, "early.jsonl", "late.jsonl"]);
    assert_eq!((code, told.matches("good: log audit").count()), (Some(0), 2), "{told}{error}");
    let name = audit.cluster.nodes[killed].name().to_owned();
    audit.cluster.nodes[killed].stop();
    let verify = ["data", "verify", "--data-dir", &name, "--peer-ca-file", &ca];
    let receipts = ["--receipts", "early.jsonl", "--receipts", "late.jsonl"];
    let (code, told, error) = audit.offline(&[&verify[..], &receipts].concat());
    assert_eq!((code, told.matches("receipt good").count()), (Some(0), 2), "{told}{error}");
    let (code, told, _) = audit.offline(&["data", "dump", "--data-dir", &name, "--group", "2"]);
    assert_eq!((code, told.lines().next()), (Some(0), Some("value 0")), "the hash chain is not printed");

    // A receipt that was changed, or that another authority would have to sign.
    fs::write(audit.file("forged.jsonl"), forged(&early)).expect("written");
    let (code, _, error) = audit.offline(&["log", "verify-receipt", "--peer-ca-file", &ca, "forged.jsonl"]);
    assert_eq!(code, Some(65), "{error}");
    fs::create_dir(audit.file("other")).expect("made");
    let other = audit.offline(&["certs", "--out", "other/certs", "--hosts", "localhost"]);
    assert_eq!(other.0, Some(0), "{other:?}");
    let (code, _, error) =
        audit.offline(&["log", "verify-receipt", "--peer-ca-file", "other/certs/ca.pem", "early.jsonl"]);
    assert!(code == Some(65) && error.contains("is not accepted"), "{error}");
}

#[test]
fn a_log_without_a_hash_chain_has_no_receipts() {
    let cluster = Cluster::start(1);
    let client = cluster.client(0);
    create(&client, "plain", 1, false).expect("created");
    create(&client, LOG, 1, true).expect("created");
    assert_eq!(reason(append(&client, "plain", vec![record("a")], true)), "NO_HASH_CHAIN");
    assert_eq!(append(&client, "plain", vec![record("a")], false).expect("appended").offset, 0, "nothing was appended");
    let read = |log: &str, offset| {
        client.read_chain(&ReadChainRequest { log: log.into(), offset, ..ReadChainRequest::default() })
    };
    assert_eq!(reason(read("plain", 0)), "NO_HASH_CHAIN");
    assert_eq!(reason(read(LOG, 0)), "OFFSET_PAST_END");
    // It is fixed when the log is created, and no default.
    let change = |log: &str, hash_chain| {
        let config = LogConfig { hash_chain: Some(hash_chain), ..LogConfig::default() };
        let update_mask = protobuf::well_known_types::field_mask::FieldMask {
            paths: vec!["hash_chain".to_owned()],
            ..Default::default()
        };
        client.update_log(&UpdateLogRequest {
            log: log.into(),
            config: Some(config).into(),
            update_mask: Some(update_mask).into(),
            ..UpdateLogRequest::default()
        })
    };
    assert_eq!([reason(change("plain", true)), reason(change(LOG, false))], ["INVALID_REQUEST", "INVALID_REQUEST"]);
    let shown = cluster.site.cli(&cluster.nodes[0].rpc_addr, &["log", "info", LOG]).output().expect("runs");
    assert!(outcome(&shown).1.contains("hash chain         yes"), "{shown:?}");
}
