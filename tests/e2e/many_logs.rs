//! Named logs: created, used, changed, deleted, undeleted and purged through different nodes.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use seriatim::client::{Client, ClientError};
use seriatim::pb::v1::{
    ClusterSettings, ConsumeRequest, CreateLogRequest, DeleteLogRequest, ListLogsRequest, LogConfig, LogInfo, LogState,
    UpdateClusterRequest, UpdateLogRequest,
};

use crate::harness::{Cluster, eventually, outcome, record};

fn create(client: &Client, log: &str, log_id: &str) -> Result<LogInfo, ClientError> {
    let request = CreateLogRequest { log: log.into(), log_id: Some(log_id.into()), ..CreateLogRequest::default() };
    client.create_log(&request)
}

fn delete(client: &Client, log: &LogInfo, purge_after: Option<Duration>) -> Result<LogInfo, ClientError> {
    client.delete_log(&DeleteLogRequest {
        log: log.name.clone(),
        log_id: log.log_id.clone(),
        purge_after: purge_after.map(Into::into).into(),
        ..DeleteLogRequest::default()
    })
}

fn names(client: &Client) -> Vec<String> {
    client.list_logs(&ListLogsRequest::new()).expect("a list").logs.into_iter().map(|log| log.name).collect()
}

/// Returns the values of all records.
fn values(client: &Client, log: &str) -> Result<Vec<String>, ClientError> {
    let response = client.consume(&ConsumeRequest { log: log.into(), ..ConsumeRequest::default() })?;
    Ok(response.records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect())
}

/// Returns the reason of a refusal.
fn reason<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.status().map_or_else(|| error.to_string(), |status| status.reason.clone()),
    }
}

/// Waits until each node refuses a request with that reason: a node does so once it has applied the change.
#[track_caller]
fn wait_for_reason<T>(clients: &[Client], wanted: &str, ask: impl Fn(&Client) -> Result<T, ClientError>) {
    for client in clients {
        eventually(wanted, || {
            let found = reason(ask(client));
            if found == wanted { Ok(()) } else { Err(found) }
        });
    }
}

#[test]
fn named_logs_are_served_by_every_node() {
    let mut cluster = Cluster::start(3);
    let clients = cluster.clients();

    // Each log is created through another node, and at once again through the next one, as by a retry.
    let ids = ["00000000000000aa", "00000000000000bb", "00000000000000cc"];
    let logs: Vec<LogInfo> = (0..3)
        .map(|i| {
            let name = ["a", "b", "c"][i];
            let log = create(&clients[i], name, ids[i]).expect("created");
            assert_eq!((log.log_id.as_str(), log.state.enum_value()), (ids[i], Ok(LogState::LOG_STATE_ACTIVE)));
            let again = create(&clients[(i + 1) % 3], name, ids[i]).expect("the same log");
            assert_eq!((again.log_id, again.revision), (log.log_id.clone(), log.revision));
            assert_eq!(reason(create(&clients[i], name, "00000000000000ff")), "LOG_EXISTS");
            // The first append works at once.
            assert_eq!(clients[i].produce(name, vec![record("0")]).expect("appended").offset, 0);
            log
        })
        .collect();
    for name in ["a", "b", "c"] {
        for (i, client) in clients.iter().enumerate() {
            let value = (i + 1).to_string();
            let appended = client.produce(name, vec![record(&value)]).expect("appended through each node");
            assert_eq!(appended.offset, i as u64 + 1, "{name}");
        }
        for client in &clients {
            let found = eventually("all records", || {
                let found = values(client, name).map_err(|e| e.to_string())?;
                if found.len() == 4 { Ok(found) } else { Err(format!("{found:?}")) }
            });
            assert_eq!(found, ["0", "1", "2", "3"], "{name}");
        }
    }
    for client in &clients {
        assert_eq!(names(client), ["a", "b", "c", "default"]);
        let servers = client.get_servers("b").expect("members").servers;
        assert!(servers.iter().all(|server| server.is_replica && server.is_voter), "{servers:?}");
        assert_eq!(servers.iter().filter(|server| server.is_leader).count(), 1, "{servers:?}");
    }

    // Of two changes that expect the same revision, one is made.
    let update = |client: &Client, max_record_bytes| {
        let config = LogConfig { max_record_bytes: Some(max_record_bytes), ..LogConfig::default() };
        client.update_log(&UpdateLogRequest {
            log: "a".into(),
            config: Some(config).into(),
            expected_revision: Some(logs[0].revision),
            ..UpdateLogRequest::default()
        })
    };
    assert_eq!(update(&clients[0], 2048).expect("changed").revision, logs[0].revision + 1);
    assert_eq!(update(&clients[1], 2048).expect("the same request again").revision, logs[0].revision + 1);
    assert_eq!(reason(update(&clients[2], 4096)), "REVISION_MISMATCH");
    wait_for_reason(&clients, "RECORD_TOO_LARGE", |client| client.produce("a", vec![record("x".repeat(2049))]));

    // A deleted log is unreadable on every node, and its streams end.
    let tail_of = ConsumeRequest { log: "a".into(), offset: 4, ..ConsumeRequest::default() };
    let mut tail = clients[2].consume_stream(&tail_of, None).expect("a stream");
    tail.next().expect("a message").expect("no status");
    let deleted = delete(&clients[1], &logs[0], None).expect("deleted");
    assert_eq!(deleted.state.enum_value(), Ok(LogState::LOG_STATE_DELETED));
    assert_eq!(delete(&clients[0], &logs[0], None).expect("deleted already").purge_time, deleted.purge_time);
    assert_eq!(reason(tail.next().expect("a status")), "LOG_DELETED");
    wait_for_reason(&clients, "LOG_DELETED", |client| client.produce("a", vec![record("late")]));
    wait_for_reason(&clients, "LOG_DELETED", |client| values(client, "a"));
    assert_eq!(reason(create(&clients[0], "a", "00000000000000dd")), "LOG_DELETED");
    assert_eq!(clients[0].get_log("a").expect("it can be seen").log_id, ids[0]);

    // It stays deleted after a restart, is undeleted with all its records, and takes more.
    assert!(cluster.nodes[0].stop().success());
    cluster.nodes[0].start_again();
    let clients = cluster.clients();
    wait_for_reason(&clients[..1], "LOG_DELETED", |client| values(client, "a"));
    let held = eventually("the space of the deleted log", || {
        let node = clients[0].get_node().map_err(|e| e.to_string())?;
        node.deleted_logs.into_iter().next().ok_or_else(|| "no deleted log".to_owned())
    });
    assert_eq!((held.log.as_str(), held.log_id.as_str(), held.stored_bytes > 0), ("a", ids[0], true));
    let back = clients[2].undelete_log("a", ids[0]).expect("undeleted");
    assert_eq!((back.log_id.as_str(), back.state.enum_value()), (ids[0], Ok(LogState::LOG_STATE_ACTIVE)));
    for client in &clients {
        let found = eventually("the records are back", || values(client, "a").map_err(|e| e.to_string()));
        assert_eq!(found, ["0", "1", "2", "3"]);
    }
    assert_eq!(clients[0].produce("a", vec![record("4")]).expect("appended").offset, 4);

    // Once purged, the same name is another log.
    delete(&clients[0], &logs[0], Some(Duration::ZERO)).expect("deleted");
    // At once: it could be undeleted for up to a second, and its name was taken.
    assert_eq!(reason(clients[1].undelete_log("a", ids[0])), "NO_SUCH_LOG");
    assert_eq!(delete(&clients[1], &logs[0], None).expect("purged already").log_id, ids[0]);
    let new = create(&clients[1], "a", "00000000000000ee").expect("created anew");
    assert_eq!((new.log_id.as_str(), new.position.next_offset), ("00000000000000ee", 0));
    assert_eq!(clients[2].produce("a", vec![record("new")]).expect("appended").offset, 0);
    for node in &mut cluster.nodes {
        assert!(node.stop().success());
    }
    std::thread::scope(|scope| {
        for node in &mut cluster.nodes {
            scope.spawn(|| node.start_again());
        }
    });
    for client in cluster.clients() {
        let found = eventually("the new log", || values(&client, "a").map_err(|e| e.to_string()));
        assert_eq!(found, ["new"]);
        assert_eq!(names(&client), ["a", "b", "c", "default"]);
        assert!(client.get_node().expect("an answer").deleted_logs.is_empty());
    }
}

#[test]
fn an_append_creates_its_log_through_any_node() {
    let cluster = Cluster::start(3);
    let clients = cluster.clients();
    assert_eq!(reason(clients[1].produce("new", vec![record("x")])), "NO_SUCH_LOG");
    let settings = ClusterSettings { create_on_append: Some(true), ..ClusterSettings::default() };
    let on = UpdateClusterRequest { settings: Some(settings).into(), ..UpdateClusterRequest::default() };
    let set = clients[2].update_cluster(&on).expect("changed");
    assert_eq!(clients[2].update_cluster(&on).expect("set already").revision, set.revision);
    // All nodes at once: one creates the log, and all append to it.
    let appended: Vec<u64> = std::thread::scope(|scope| {
        let append = |client: &Client| {
            let client = client.clone();
            scope.spawn(move || {
                eventually("appended", || {
                    let appended = client.produce("new", vec![record("x")]);
                    appended.map(|appended| appended.offset).map_err(|e| e.to_string())
                })
            })
        };
        let threads: Vec<_> = clients.iter().map(append).collect();
        let mut offsets: Vec<u64> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        offsets.sort_unstable();
        offsets
    });
    assert_eq!(appended, [0, 1, 2]);
    assert_eq!(names(&clients[0]), ["default", "new"]);
    assert_eq!(reason(values(&clients[0], "other")), "NO_SUCH_LOG", "a read creates nothing");
}

#[test]
fn the_command_line_creates_changes_and_deletes_logs() {
    let cluster = Cluster::start(1);
    let run = |args: &[&str]| {
        let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, args);
        outcome(&command.stdin(Stdio::null()).output().expect("it ran"))
    };
    let json = |args: &[&str]| -> Value {
        let (code, out, error) = run(&[args, &["-o", "json"]].concat());
        assert_eq!(code, Some(0), "{args:?}: {error}");
        serde_json::from_str(&out).expect("JSON")
    };
    let created = json(&["log", "create", "audit", "--retention-age", "30d", "--label", "team=billing"]);
    assert_eq!((&created["log"], &created["state"]), (&"audit".into(), &"active".into()));
    assert_eq!((&created["retention_ms"], &created["labels"]["team"]), (&2_592_000_000_u64.into(), &"billing".into()));
    let (code, _, error) = run(&["log", "create", "audit"]);
    assert_eq!((code, error.contains("LOG_EXISTS") && error.contains("--if-not-exists")), (Some(4), true), "{error}");
    assert_eq!(json(&["log", "create", "audit", "--if-not-exists"])["log_id"], created["log_id"]);
    let (code, _, error) = run(&["log", "create", "audit", "--if-not-exists", "--hash-chain"]);
    assert_eq!((code, error.contains("has no hash chain")), (Some(4), true), "{error}");
    let (code, _, error) = run(&["log", "create", "big", "--replicas", "3"]);
    assert_eq!((code, error.contains("the cluster has 1 node")), (Some(65), true), "{error}");
    assert_eq!(run(&["log", "create", "big", "--replicas", "8"]).0, Some(2));

    let set =
        json(&["log", "set", "audit", "--label", "tier=1", "--default", "retention-age", "--default", "label.team"]);
    assert_eq!((&set["retention_ms"], &set["own"]["retention_ms"]), (&0.into(), &Value::Null));
    assert_eq!(set["labels"], serde_json::json!({ "tier": "1" }));
    let cluster_set = json(&["cluster", "set", "--log-default", "retention-age=1d", "--deleted-log-retention", "2d"]);
    assert_eq!(cluster_set["log_defaults"]["retention_ms"], 86_400_000);
    assert_eq!(json(&["log", "info", "audit"])["retention_ms"], 86_400_000, "the default applies to it again");
    assert_eq!(json(&["cluster", "set"])["deleted_log_retention_ms"], 172_800_000);

    // Nobody can be asked.
    let (code, _, error) = run(&["log", "delete", "audit"]);
    assert_eq!((code, error.contains("give --yes")), (Some(2), true), "{error}");
    let (code, out, error) = run(&["log", "delete", "audit", "--yes"]);
    assert_eq!((code, out.contains("undo: seriatim log undelete audit\n")), (Some(0), true), "{out}{error}");
    let (code, _, error) = run(&["consume", "--log", "audit"]);
    assert_eq!((code, error.contains("LOG_DELETED") && error.contains("undelete")), (Some(5), true), "{error}");
    assert_eq!(run(&["log", "list"]).1.lines().count(), 2, "the heading and `default`");
    let (_, list, _) = run(&["log", "list", "--deleted"]);
    assert!(list.lines().any(|line| line.starts_with("audit ") && line.contains("can be undeleted until")), "{list}");
    let (_, status, _) = run(&["status"]);
    assert!(status.contains("deleted logs hold") && status.contains("on n1: audit ("), "{status}");
    assert_eq!(json(&["log", "undelete", "audit"])["state"], "active");
    assert_eq!(run(&["log", "delete", "audit", "--purge", "--yes"]).0, Some(0));
    eventually("it is gone", || match run(&["log", "info", "audit"]) {
        (Some(5), _, error) if error.contains("NO_SUCH_LOG") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_ne!(json(&["log", "create", "audit"])["log_id"], created["log_id"]);

    let produce = |args: &[&str]| {
        let mut command = cluster.site.cli(&cluster.nodes[0].rpc_addr, &[&["produce"], args].concat());
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        child.stdin.take().expect("stdin").write_all(b"one\n").expect("written");
        outcome(&child.wait_with_output().expect("it ends"))
    };
    assert_eq!(produce(&["--log", "new"]).0, Some(5));
    assert_eq!(json(&["cluster", "set", "--create-on-append=on"])["create_on_append"], true);
    let (code, _, error) = produce(&["--log", "new"]);
    assert_eq!((code, error.contains("1 record appended to log new at offset 0")), (Some(0), true), "{error}");
}
