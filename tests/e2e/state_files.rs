//! State files: producers and cursors survive `kill -9` although the entries that changed them are trimmed.

use std::fs;
use std::path::{Path, PathBuf};

use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{CommitCursorRequest, InitProducerRequest, ProduceRequest, ProduceResponse, Producer};

use crate::harness::{Cluster, eventually, outcome, record};

const REQUESTS: u64 = 200;
/// The answers to this many requests of a producer are kept.
const ANSWERS: u64 = 64;

fn send(client: &Client, producer: &Producer, sequence: u64) -> Result<ProduceResponse, ClientError> {
    client.produce_request(&ProduceRequest {
        records: vec![record(format!("{sequence} {}", "x".repeat(3000))); 2],
        producer_id: producer.producer_id,
        producer_epoch: producer.epoch,
        sequence,
        ..ProduceRequest::default()
    })
}

fn commit(client: &Client, next_offset: u64) -> Result<(), String> {
    let cursor = CommitCursorRequest { cursor: "reader".into(), next_offset, ..CommitCursorRequest::default() };
    client.commit_cursor(&cursor).map(drop).map_err(|error| error.to_string())
}

/// Returns the state files of the log `default`.
fn state_files(data_dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data_dir.join("groups/1")).expect("a group").map(|file| file.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "state")).collect()
}

#[test]
fn retries_get_their_first_answers_after_trims_and_kills_and_damage_is_refused() {
    let mut cluster = Cluster::start_with(3, &["--segment-bytes=64KiB"]);
    let clients = cluster.clients();
    let named = InitProducerRequest { producer: "source".into(), instance: 7, ..InitProducerRequest::default() };
    let producer = eventually("registered", || clients[0].init_producer(&named).map_err(|error| error.to_string()));
    let mut answers = vec![0];
    for sequence in 1..=REQUESTS {
        let answer = eventually("an answer", || {
            send(&clients[sequence as usize % 3], &producer, sequence).map_err(|error| error.to_string())
        });
        answers.push(answer.offset);
        if sequence % 20 == 0 {
            eventually("committed", || commit(&clients[0], answer.offset));
            eventually("trimmed", || clients[0].trim("", answer.offset).map_err(|error| error.to_string()));
        }
    }
    let data_dirs: Vec<PathBuf> =
        clients.iter().map(|client| cluster.site.path().join(&client.get_node().expect("a node").name)).collect();
    // The followers apply the last trim a little later.
    for data_dir in &data_dirs {
        eventually("one state file", || match state_files(data_dir)[..] {
            [_] => Ok(()),
            ref files => Err(format!("{files:?}")),
        });
    }
    cluster.nodes.iter_mut().for_each(crate::harness::Node::kill);
    for data_dir in &data_dirs {
        let manifest = fs::metadata(data_dir.join("groups/1/manifest")).expect("a manifest");
        assert!(manifest.len() < 4096, "{}", manifest.len());
        assert_eq!(state_files(data_dir).len(), 1);
    }
    cluster.nodes.iter_mut().for_each(crate::harness::Node::start_again);
    for sequence in REQUESTS - ANSWERS + 1..=REQUESTS {
        let client = &clients[sequence as usize % 3];
        let retry = eventually("an answer", || send(client, &producer, sequence).map_err(|error| error.to_string()));
        assert_eq!((retry.offset, retry.duplicate), (answers[sequence as usize], true), "request {sequence}");
    }
    let cursors = clients[1].list_cursors("").expect("a list");
    assert_eq!(cursors.iter().map(|cursor| cursor.next_offset).collect::<Vec<_>>(), [answers[REQUESTS as usize]]);

    // A replica whose state file is damaged takes no part: without it, a retry could be appended twice. It is replaced.
    cluster.nodes[0].kill();
    let file = state_files(&data_dirs[0]).pop().expect("a state file");
    let mut bytes = fs::read(&file).expect("readable");
    bytes[40] ^= 1;
    fs::write(&file, bytes).expect("written");
    let data_dir = data_dirs[0].to_str().expect("text");
    let verify = cluster.site.command(&["data", "verify", "--data-dir", data_dir]).output().expect("it runs");
    let (code, found, _) = outcome(&verify);
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(code == Some(65) && found.contains(&name), "{code:?}: {found}");
    cluster.nodes[0].start_again();
    assert!(cluster.nodes[0].log().contains(&format!("{name} is damaged at byte 12")));
    eventually("a new replica", || {
        let node = clients[0].get_node().map_err(|error| error.to_string())?;
        let group = node.groups.into_iter().find(|group| group.log == "default").ok_or("none")?;
        let is_voter = group.replicas.iter().any(|replica| replica.name == node.name && replica.is_voter);
        (group.damage.is_empty() && is_voter && group.applied_index > 0)
            .then_some(())
            .ok_or(format!("{:?}", group.damage))
    });
    for sequence in REQUESTS - ANSWERS + 1..=REQUESTS {
        let retry =
            eventually("an answer", || send(&clients[0], &producer, sequence).map_err(|error| error.to_string()));
        assert_eq!((retry.offset, retry.duplicate), (answers[sequence as usize], true), "request {sequence}");
    }
}
