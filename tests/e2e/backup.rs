//! `seriatim backup`: a log is copied while it is used, and restored with its offsets and times, also after the restore
//! was interrupted.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{
    AcquireCursorRequest, CommitCursorRequest, ConsumeRequest, ConsumeResponse, CreateLogRequest, Header,
    InitProducerRequest, LogConfig, LogState, ProduceRequest, Record, Restore, Start,
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
    let read =
        || client.consume_stream(&request, Some(TIMEOUT))?.collect::<Result<Vec<ConsumeResponse>, ClientError>>();
    // On a busy machine, a leader may hand over meanwhile.
    let messages = eventually("the log has a leader", || match read() {
        Err(error) if error.status().is_some_and(|status| status.reason == "NO_LEADER") => Err(error.to_string()),
        result => Ok(result),
    });
    let messages = messages.expect("messages");
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
    assert_eq!((checked.0, checked.1.matches(": complete; ").count()), (Some(0), 3), "{checked:?}");

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
    // A replica that is created later, on the node without one, begins at the same offset.
    let client = cluster.client(0);
    let servers = client.get_servers("copy").expect("an answer").servers;
    let (with, without): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.is_replica);
    let leaving = with.iter().find(|server| server.id != cluster.nodes[0].name()).expect("a replica");
    let new = without.first().expect("a node without a replica");
    client.remove_node(&leaving.node_id).expect("removed");
    eventually("a replica", || {
        let servers = client.get_servers("copy").map_err(|error| error.to_string())?.servers;
        let is_there = servers.iter().any(|server| server.id == new.id && server.is_voter);
        if is_there { Ok(()) } else { Err(format!("{servers:?}")) }
    });
    let node = cluster.nodes.iter_mut().find(|node| node.name() == new.id).expect("a node");
    let expected = records_of(&client, "copy");
    assert_eq!(records_of(&cluster.site.client(&node.rpc_addr, "root"), "copy"), expected);
    node.stop();
    let data = cluster.site.path().join(node.name());
    let verified = cluster.site.command(&["data", "verify", "--data-dir"]).arg(data).output().expect("runs");
    assert_eq!(verified.status.code(), Some(0), "{:?}", outcome(&verified));
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
    assert!(gap.2.contains("already trimmed"), "{gap:?}");
    let left: Vec<_> = std::fs::read_dir(backups.cluster.site.path()).expect("a directory").flatten().collect();
    assert!(left.iter().all(|file| !file.file_name().to_string_lossy().ends_with(".partial")), "{left:?}");
    // With its own id, the log must be gone for good first.
    let same_id = outcome(&backups.backup(&["restore", "1.backup", "2.backup", "--as", "copy", "--keep-log-id"]));
    assert_eq!(same_id.0, Some(65), "{same_id:?}");
}

/// `InitProducer` was possible, and its entry had the present time: all records that were restored after it got that
/// time, too. Records after the end of the backup were taken, and the restore could never be finished.
#[test]
fn a_log_that_is_being_restored_takes_only_the_records_of_its_backup() {
    let cluster = Cluster::start(1);
    let client = cluster.client(0);
    let (log, log_id) = ("copy".to_owned(), "0000000000000abc".to_owned());
    let restore = Restore {
        source_log_id: log_id.clone(),
        first_offset: 10,
        end_offset: 12,
        digest: vec![7; 32].into(),
        ..Restore::default()
    };
    let request = |restore: Restore| CreateLogRequest {
        log: log.clone(),
        log_id: Some(log_id.clone()),
        restore: Some(restore).into(),
        ..CreateLogRequest::default()
    };
    let huge = Restore { end_offset: 1 << 62, ..restore.clone() };
    assert_eq!(reason(client.create_log(&request(huge))), "INVALID_REQUEST", "no offsets would be left");
    client.create_log(&request(restore.clone())).expect("created");
    client.create_log(&request(restore.clone())).expect("the same");
    // The log of another backup was taken for that of this one.
    let other = Restore { digest: vec![8; 32].into(), ..restore };
    assert_eq!(reason(client.create_log(&request(other))), "LOG_EXISTS");
    let none = CreateLogRequest { restore: None.into(), ..request(Restore::default()) };
    assert_eq!(reason(client.create_log(&none)), "LOG_EXISTS");

    let init = InitProducerRequest { log: log.clone(), instance: 1, ..InitProducerRequest::default() };
    assert_eq!(reason(client.init_producer(&init)), "LOG_RESTORING");
    let acquire = AcquireCursorRequest { log: log.clone(), cursor: "c".into(), instance: 1, ..Default::default() };
    assert_eq!(reason(client.acquire_cursor(&acquire)), "LOG_RESTORING");
    let commit = CommitCursorRequest { log: log.clone(), cursor: "c".into(), ..CommitCursorRequest::default() };
    assert_eq!(reason(client.commit_cursor(&commit)), "LOG_RESTORING");
    assert_eq!(reason(client.list_cursors(&log)), "LOG_RESTORING");
    assert_eq!(reason(client.list_producers(&log)), "LOG_RESTORING");
    assert_eq!(reason(client.trim(&log, 10)), "LOG_RESTORING");
    assert_eq!(reason(client.produce(&log, vec![record("x")])), "LOG_RESTORING");

    let restored = |offset, count| ProduceRequest {
        log: log.clone(),
        records: vec![record("r"); count],
        expected_offset: Some(offset),
        restored_append_time_us: Some(offset),
        ..ProduceRequest::default()
    };
    assert_eq!(reason(client.produce_request(&restored(10, 3))), "INVALID_REQUEST");
    assert_eq!(reason(client.produce_request(&restored(12, 1))), "INVALID_REQUEST");
    assert_eq!(reason(client.produce_request(&restored(u64::MAX, 1))), "INVALID_REQUEST");
    let mut stream = client.produce_stream().expect("a stream");
    for offset in [10, 11] {
        stream.send(restored(offset, 1));
        let answer = stream.answer().expect("an answer").expect("appended");
        assert_eq!((answer.offset, answer.append_time_us), (offset, offset));
    }
    client.finish_restore(&log, &log_id).expect("finished");
    // The stream began while records could be restored.
    stream.send(restored(12, 1));
    assert_eq!(reason(stream.answer().expect("an answer")), "INVALID_REQUEST");
    let times: Vec<u64> = records_of(&client, &log).iter().map(|record| record.append_time_us).collect();
    assert_eq!(times, [10, 11]);
    assert_eq!(client.produce(&log, vec![record("x")]).expect("appended").offset, 12);
}

/// With the id of a log that exists, CreateLog returned that log, and nothing was restored without a word.
#[test]
fn a_log_keeps_its_id_only_in_another_cluster() {
    let (here, there) = (Backups { cluster: Cluster::start(1) }, Backups { cluster: Cluster::start(1) });
    let (client, target) = (here.cluster.client(0), there.cluster.client(0));
    create(&client, 1);
    append(&client, (0..20).map(full_record).collect());
    let commit = |log: &str, next_offset| CommitCursorRequest {
        log: log.into(),
        cursor: "reader".into(),
        next_offset,
        metadata: b"state".to_vec().into(),
        ..CommitCursorRequest::default()
    };
    client.commit_cursor(&commit(LOG, 3)).expect("committed");
    // The reader has lost records.
    client.trim(LOG, 5).expect("trimmed");
    here.backup_ok(&["create", LOG, "-f", "1.backup"]);
    let file = here.file("1.backup");
    let args = ["restore", file.to_str().expect("a path"), "--keep-log-id", "--with-cursors"];
    let present = outcome(&here.backup(&args));
    assert_eq!(present.0, Some(4), "{present:?}");
    assert!(present.2.contains("exists: it is active"), "{present:?}");

    there.backup_ok(&args);
    assert_eq!(target.get_log(LOG).expect("a log").log_id, client.get_log(LOG).expect("a log").log_id);
    assert_eq!(records_of(&target, LOG), records_of(&client, LOG));
    let cursor = target.get_cursor(LOG, "reader").expect("restored");
    assert_eq!((cursor.next_offset, cursor.trimmed, &cursor.metadata[..]), (3, 2, &b"state"[..]));
    // The log is in use. The same command again does not move the reader back.
    target.commit_cursor(&commit(LOG, 15)).expect("committed");
    there.backup_ok(&args);
    assert_eq!(target.get_cursor(LOG, "reader").expect("a cursor").next_offset, 15);
    // From here on, the two logs have other records at the same offsets.
    append(&target, vec![record("there")]);
    append(&client, vec![record("here")]);
    let mixed = outcome(&there.backup(&["create", LOG, "-f", "2.backup", "--continue", args[1]]));
    assert_eq!(mixed.0, Some(4), "{mixed:?}");
    assert!(mixed.2.contains("from another cluster"), "{mixed:?}");
    let directory = outcome(&here.backup(&["create", LOG, "-f", "3.backup/"]));
    assert_eq!(directory.0, Some(2), "{directory:?}");
}

/// Two operators restore the same files into the same log at the same time, and clients use it as soon as it is open.
#[test]
fn a_restore_that_runs_twice_restores_each_record_once() {
    let backups = Backups { cluster: Cluster::start(3) };
    let client = backups.cluster.client(0);
    create(&client, 3);
    for number in 0..500 {
        append(&client, vec![full_record(number)]);
    }
    backups.backup_ok(&["create", LOG, "-f", "a.backup"]);
    let original = records_of(&client, LOG);
    let children = [0, 1].map(|_| {
        let mut command =
            backups.cluster.site.cli(&backups.addrs(), &["backup", "restore", "a.backup", "--as", "copy"]);
        command.current_dir(backups.cluster.site.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("runs")
    });
    let appended = eventually("the log is open", || {
        let appended = client.produce("copy", vec![record("next")]);
        appended.map(|answer| answer.offset).map_err(|error| error.to_string())
    });
    for child in children {
        let restored = outcome(&child.wait_with_output().expect("ended"));
        assert_eq!(restored.0, Some(0), "{restored:?}");
    }
    assert_eq!(appended, 500);
    let mut records = records_of(&client, "copy");
    records.pop();
    assert_eq!(records, original);
}
