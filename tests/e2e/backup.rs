//! `seriatim backup`: a log is copied while it is used, and restored with its offsets and times, also after the restore
//! was interrupted.

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{
    AcquireCursorRequest, CommitCursorRequest, ConsumeRequest, ConsumeResponse, CreateLogRequest, Header,
    InitProducerRequest, LogConfig, LogState, ProduceRequest, Record, Start,
};

use crate::harness::{Cluster, TIMEOUT, eventually, outcome, record};

const LOG: &str = "audit";

fn full_record(number: u64) -> Record {
    Record {
        value: format!("value {number}").into_bytes().into(),
        key: number.is_multiple_of(3).then(|| format!("key {number}").into_bytes().into()),
        type_: u32::try_from(number % 5).expect("small"),
        client_time_us: number.is_multiple_of(2).then_some(number),
        headers: vec![Header { name: "h".into(), value: b"v".to_vec().into(), ..Header::default() }],
        ..Record::default()
    }
}

fn create(client: &Client, replicas: u32) {
    let config = LogConfig { replicas: Some(replicas), ..LogConfig::default() };
    let request = CreateLogRequest { log: LOG.into(), config: Some(config).into(), ..CreateLogRequest::default() };
    client.create_log(&request).expect("created");
}

fn append(client: &Client, records: Vec<Record>) {
    let request = ProduceRequest { log: LOG.into(), records, ..ProduceRequest::default() };
    client.produce_request(&request).expect("appended");
}

/// Returns all records that a log has now, without their terms.
fn records_of(client: &Client, log: &str) -> Vec<Record> {
    let request = ConsumeRequest {
        log: log.into(),
        start: Start::START_EARLIEST.into(),
        max_records: 10_000,
        stop_at_end: true,
        ..ConsumeRequest::default()
    };
    let messages = client.consume_stream(&request, Some(TIMEOUT)).expect("a stream");
    let messages: Vec<ConsumeResponse> = messages.map(|message| message.expect("a message")).collect();
    let records = messages.into_iter().flat_map(|message| message.records);
    records.map(|record| Record { term: 0, ..record }).collect()
}

fn reason<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.status().map_or_else(|| error.to_string(), |status| status.reason.clone()),
    }
}

/// A cluster, and files in its directory.
struct Backups {
    cluster: Cluster,
}

impl Backups {
    fn file(&self, name: &str) -> PathBuf {
        self.cluster.site.path().join(name)
    }

    fn addrs(&self) -> String {
        self.cluster.nodes.iter().map(|node| node.rpc_addr.clone()).collect::<Vec<_>>().join(",")
    }

    /// Runs `seriatim backup` in the directory.
    fn backup(&self, args: &[&str]) -> Output {
        let args: Vec<&str> = ["backup"].iter().chain(args).copied().collect();
        self.cluster.site.cli(&self.addrs(), &args).current_dir(self.cluster.site.path()).output().expect("runs")
    }

    #[track_caller]
    fn backup_ok(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = outcome(&self.backup(args));
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        stdout
    }

    /// Runs a command that reads files only.
    fn offline(&self, args: &[&str]) -> Output {
        let args: Vec<&str> = ["backup"].iter().chain(args).copied().collect();
        self.cluster.site.command(&args).current_dir(self.cluster.site.path()).output().expect("runs")
    }
}

/// The log is trimmed, has records of every form, and is appended to during the copy. One node has no replica.
#[test]
fn a_log_is_restored_with_its_offsets_times_and_cursors() {
    let backups = Backups { cluster: Cluster::start(4) };
    let clients = backups.cluster.clients();
    create(&clients[0], 3);
    for batch in 0..20 {
        append(&clients[batch % 4], (0..50).map(|i| full_record(batch as u64 * 50 + i)).collect());
    }
    clients[1].trim(LOG, 123).expect("trimmed");
    let cursor = AcquireCursorRequest {
        log: LOG.into(),
        cursor: "reader".into(),
        instance: 7,
        start: Start::START_EARLIEST.into(),
        ..AcquireCursorRequest::default()
    };
    let acquired = clients[2].acquire_cursor(&cursor).expect("acquired");
    let commit = CommitCursorRequest {
        log: LOG.into(),
        cursor: "reader".into(),
        next_offset: 777,
        epoch: acquired.epoch,
        metadata: b"state".to_vec().into(),
        ..CommitCursorRequest::default()
    };
    clients[2].commit_cursor(&commit).expect("committed");

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let appending = clients[3].clone();
        let stop = &stop;
        scope.spawn(move || {
            let mut number = 1000;
            while !stop.load(Ordering::Relaxed) {
                append(&appending, vec![full_record(number)]);
                number += 1;
            }
        });
        backups.backup_ok(&["create", LOG, "-f", "1.backup"]);
        backups.backup_ok(&["create", LOG, "-f", "2.backup", "--continue", "1.backup"]);
        stop.store(true, Ordering::Relaxed);
    });
    backups.backup_ok(&["create", LOG, "-f", "3.backup", "--continue", "2.backup"]);
    let original = records_of(&clients[0], LOG);
    assert!(original.len() > 877 && original[0].offset == 123, "{} from {}", original.len(), original[0].offset);
    let files = ["1.backup", "2.backup", "3.backup"];
    let checked = outcome(&backups.offline(&[&["verify"][..], &files].concat()));
    assert_eq!((checked.0, checked.1.matches("whole").count()), (Some(0), 3), "{checked:?}");

    let restore = [&["restore"][..], &files, &["--as", "copy", "--with-cursors"]].concat();
    let told = backups.backup_ok(&restore);
    assert!(told.starts_with(&format!("restored {} records", original.len())), "{told}");
    for client in &clients {
        assert_eq!(records_of(client, "copy"), original);
        let cursor = client.get_cursor("copy", "reader").expect("restored");
        assert_eq!((cursor.next_offset, &cursor.metadata[..]), (777, &b"state"[..]));
    }
    let (source, copy) = (clients[0].get_log(LOG).expect("a log"), clients[3].get_log("copy").expect("a log"));
    assert_ne!(source.log_id, copy.log_id);
    assert_eq!(
        (copy.state.enum_value(), &copy.restore.source_log_id),
        (Ok(LogState::LOG_STATE_ACTIVE), &source.log_id)
    );
    // It is a log as any other, whose records continue at the same offset.
    let next = ProduceRequest { log: "copy".into(), records: vec![record("next")], ..ProduceRequest::default() };
    assert_eq!(clients[2].produce_request(&next).expect("appended").offset, source.position.next_offset);
    // The same command again changes nothing.
    backups.backup_ok(&restore);
    assert_eq!(records_of(&clients[0], "copy").len(), original.len() + 1);
    // A late record of the restore, and one without the right to say when it was appended.
    let late = ProduceRequest {
        expected_offset: Some(source.position.next_offset + 1),
        restored_append_time_us: Some(u64::MAX >> 1),
        ..next
    };
    assert_eq!(reason(clients[0].produce_request(&late)), "INVALID_REQUEST");

    // A restarted node has it, too.
    let mut cluster = backups.cluster;
    for node in &mut cluster.nodes {
        node.stop();
        let data = cluster.site.path().join(node.name());
        let verified = cluster.site.command(&["data", "verify", "--data-dir"]).arg(data).output().expect("runs");
        assert_eq!(verified.status.code(), Some(0), "{:?}", outcome(&verified));
        node.start_again();
    }
    for client in cluster.clients() {
        let records = eventually("the records", || {
            client.get_log("copy").map_err(|error| error.to_string())?;
            Ok(records_of(&client, "copy"))
        });
        assert_eq!((records[0].offset, records.len()), (123, original.len() + 1));
    }
}

/// The command is killed, then the leader of the new log, and the restore still ends with the records of the backup.
#[test]
fn an_interrupted_restore_continues_and_is_closed_to_clients() {
    let mut backups = Backups { cluster: Cluster::start(3) };
    let clients = backups.cluster.clients();
    create(&clients[0], 3);
    // Each record has a time of its own, so the restore has as many entries.
    for batch in 0..2000_u64 {
        append(&clients[0], vec![full_record(batch)]);
    }
    let original = records_of(&clients[0], LOG);
    backups.backup_ok(&["create", LOG, "-f", "a.backup"]);
    append(&clients[0], vec![record("more")]);
    backups.backup_ok(&["create", LOG, "-f", "b.backup"]);

    let args = ["backup", "restore", "a.backup", "--as", "copy"];
    let mut command = backups.cluster.site.cli(&backups.addrs(), &args);
    let mut child = command.current_dir(backups.cluster.site.path()).spawn().expect("runs");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    let log_id = eventually("some records", || {
        let log = clients[1].get_log("copy").map_err(|error| error.to_string())?;
        let next = log.position.next_offset;
        if next > 0 { Ok(log.log_id) } else { Err(format!("{next} records")) }
    });
    kill_process(pid, Signal::KILL).expect("killed");
    child.wait().expect("ended");
    let log = clients[1].get_log("copy").expect("a log");
    assert!(log.position.next_offset < 2000, "the restore was too fast to be interrupted");
    assert_eq!(log.state.enum_value(), Ok(LogState::LOG_STATE_RESTORING));
    for client in &clients {
        assert_eq!(reason(client.produce("copy", vec![record("x")])), "LOG_RESTORING");
        assert_eq!(
            reason(client.consume(&ConsumeRequest { log: "copy".into(), ..Default::default() })),
            "LOG_RESTORING"
        );
        assert_eq!(reason(client.finish_restore("copy", &log_id)), "EXPECTED_OFFSET_MISMATCH");
        // A producer that registered moved the time of the log forward, and the records that were restored after it got
        // that time.
        let producer = InitProducerRequest { log: "copy".into(), instance: 7, ..InitProducerRequest::default() };
        assert_eq!(reason(client.init_producer(&producer)), "LOG_RESTORING");
    }
    let other = outcome(&backups.backup(&["restore", "b.backup", "--as", "copy"]));
    assert_eq!(other.0, Some(4), "{other:?}");
    assert!(other.2.contains("from another backup"), "{other:?}");
    let taken = outcome(&backups.backup(&["restore", "a.backup", "--as", LOG]));
    assert_eq!(taken.0, Some(4), "{taken:?}");

    // The leader is killed while the restore continues.
    let mut child = backups.cluster.site.cli(&backups.addrs(), &args);
    let mut child = child.current_dir(backups.cluster.site.path()).spawn().expect("runs");
    let leader = eventually("a leader", || {
        let servers = clients[0].get_servers("copy").map_err(|error| error.to_string())?.servers;
        let leader = servers.iter().find(|server| server.is_leader).ok_or("none")?;
        backups.cluster.nodes.iter().position(|node| node.name() == leader.id).ok_or("unknown".to_owned())
    });
    backups.cluster.nodes[leader].kill();
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    backups.cluster.nodes[leader].start_again();
    for client in backups.cluster.clients() {
        let restored = eventually("the log", || match client.get_log("copy") {
            Ok(log) if log.state.enum_value() == Ok(LogState::LOG_STATE_ACTIVE) => Ok(records_of(&client, "copy")),
            Ok(log) => Err(format!("{:?}", log.state)),
            Err(error) => Err(error.to_string()),
        });
        assert_eq!(restored, original);
    }
}

#[test]
fn a_file_that_is_not_whole_restores_nothing() {
    let backups = Backups { cluster: Cluster::start(1) };
    let client = backups.cluster.client(0);
    create(&client, 1);
    append(&client, (0..100).map(full_record).collect());
    backups.backup_ok(&["create", LOG, "-f", "1.backup"]);
    append(&client, (100..110).map(full_record).collect());
    backups.backup_ok(&["create", LOG, "-f", "2.backup", "--continue", "1.backup"]);
    let sound = std::fs::read(backups.file("1.backup")).expect("a file");
    std::fs::write(backups.file("cut.backup"), &sound[..sound.len() - 1]).expect("written");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    std::fs::write(backups.file("flipped.backup"), &flipped).expect("written");
    for (files, text) in [
        (&["cut.backup"][..], "without a trailer"),
        (&["flipped.backup"], "damaged at byte"),
        (&["2.backup"], "continues another file"),
        (&["2.backup", "1.backup"], "does not continue"),
        (&["1.backup", "1.backup"], "does not continue"),
    ] {
        let restored = outcome(&backups.backup(&[&["restore"][..], files, &["--as", "copy"]].concat()));
        assert_eq!(restored.0, Some(65), "{files:?}: {restored:?}");
        assert!(restored.2.contains(text), "{files:?}: {restored:?}");
        assert_eq!(reason(client.get_log("copy")), "NO_SUCH_LOG", "{files:?}");
    }
    let again = outcome(&backups.backup(&["create", LOG, "-f", "1.backup"]));
    assert_eq!(again.0, Some(4), "never replaced: {again:?}");
    // The records in between are trimmed, so the file can't be continued.
    append(&client, (110..120).map(full_record).collect());
    client.trim(LOG, 115).expect("trimmed");
    let gap = outcome(&backups.backup(&["create", LOG, "-f", "3.backup", "--continue", "2.backup"]));
    assert_eq!(gap.0, Some(4), "{gap:?}");
    assert!(gap.2.contains("trimmed already"), "{gap:?}");
    let left: Vec<_> = std::fs::read_dir(backups.cluster.site.path()).expect("a directory").flatten().collect();
    assert!(left.iter().all(|file| !file.file_name().to_string_lossy().ends_with(".partial")), "{left:?}");
    // With its own id, the log must be gone for good first.
    let same_id = outcome(&backups.backup(&["restore", "1.backup", "2.backup", "--as", "copy", "--keep-log-id"]));
    assert_eq!(same_id.0, Some(65), "{same_id:?}");
}
