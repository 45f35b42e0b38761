//! The life of named logs: creation, settings, deletion, and what each request for a deleted log gets.

use std::time::Duration;

use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{RpcStatusCode as Code, WriteFlags};
use protobuf::MessageField;
use protobuf::well_known_types::field_mask::FieldMask;

use super::node::Node;
use super::{produce, reason, refusal};
use crate::catalog::Command;
use crate::pb::v1::{self, LogState};
use crate::pb::{error_details, log};

const OWN_ID: &str = "00000000000000ff";
const OTHER_ID: &str = "00000000000000fe";

fn create(log: &str, log_id: Option<&str>) -> v1::CreateLogRequest {
    v1::CreateLogRequest { log: log.to_owned(), log_id: log_id.map(str::to_owned), ..Default::default() }
}

fn with_config(log: &str, config: v1::LogConfig) -> v1::CreateLogRequest {
    v1::CreateLogRequest { config: MessageField::some(config), ..create(log, None) }
}

fn delete(log: &str, log_id: &str) -> v1::DeleteLogRequest {
    v1::DeleteLogRequest { log: log.to_owned(), log_id: log_id.to_owned(), ..Default::default() }
}

fn undelete(log: &str, log_id: &str) -> v1::UndeleteLogRequest {
    v1::UndeleteLogRequest { log: log.to_owned(), log_id: log_id.to_owned(), ..Default::default() }
}

fn append(log: &str) -> v1::ProduceRequest {
    v1::ProduceRequest { log: log.to_owned(), records: vec![v1::Record::default()], ..Default::default() }
}

fn get(node: &Node, log: &str) -> grpcio::Result<v1::LogInfo> {
    let request = v1::GetLogRequest { log: log.to_owned(), ..Default::default() };
    node.logs.get_log(&request).map(|response| response.log.unwrap_or_default())
}

fn names(node: &Node, show_deleted: bool) -> Vec<String> {
    let request = v1::ListLogsRequest { show_deleted, ..Default::default() };
    node.logs.list_logs(&request).expect("a list").logs.into_iter().map(|log| log.name).collect()
}

/// Creates the log `a` with [`OWN_ID`].
fn node_with_a() -> Node {
    let node = Node::serving_named_logs();
    node.logs.create_log(&create("a", Some(OWN_ID))).expect("created");
    node
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: grpcio::Result<T>, code: Code, reason: &str) -> error_details::ErrorInfo {
    let (found, info) = refusal(result);
    assert_eq!((found, info.reason.as_str()), (code, reason));
    assert_eq!(info.metadata["outcome"], "none");
    info
}

#[track_caller]
fn assert_deleted<T: std::fmt::Debug>(result: grpcio::Result<T>, log_id: &str) {
    let info = assert_refused(result, Code::NOT_FOUND, "LOG_DELETED");
    assert_eq!((info.metadata["log_id"].as_str(), info.metadata["retry"].as_str()), (log_id, "no"));
    assert!(info.metadata["purge_time"].starts_with("1970-01-08T"), "seven days after the deletion: {info}");
}

#[test]
fn a_request_that_is_sent_again_with_its_id_finds_its_own_log() {
    let node = Node::serving_named_logs();
    let created = node.logs.create_log(&create("a", Some(OWN_ID))).expect("created").log.unwrap_or_default();
    assert_eq!((created.log_id.as_str(), created.state.enum_value()), (OWN_ID, Ok(LogState::LOG_STATE_ACTIVE)));
    assert_eq!((created.revision, created.create_time.is_some(), created.position.is_some()), (1, true, true));
    let again = node.logs.create_log(&create("a", Some(OWN_ID))).expect("the same log").log.unwrap_or_default();
    assert_eq!((again, node.proposed()), (created, 1));
    for id in [None, Some(OTHER_ID)] {
        let info = assert_refused(node.logs.create_log(&create("a", id)), Code::ALREADY_EXISTS, "LOG_EXISTS");
        assert_eq!((info.metadata["log"].as_str(), info.metadata["log_id"].as_str()), ("a", OWN_ID));
    }
    assert_eq!(node.logs.produce(&append("a")).expect("appended").log_id, OWN_ID);
    let random = node.logs.create_log(&create("b", None)).expect("created").log.unwrap_or_default();
    assert_eq!((random.log_id.len(), node.proposed()), (16, 3));
    assert_eq!(names(&node, false), ["a", "b", "default"]);
}

#[test]
fn a_log_that_can_t_be_created_is_refused_with_the_field_that_is_wrong() {
    let node = node_with_a();
    let field = |request: v1::CreateLogRequest| {
        let status = super::rpc_status(node.logs.create_log(&request).expect_err("a refusal"));
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status:?}");
        let details = <crate::pb::status::Status as protobuf::Message>::parse_from_bytes(status.details());
        let details = details.expect("a google.rpc.Status").details;
        let bad = details.iter().find_map(|any| any.unpack::<error_details::BadRequest>().expect("well-formed"));
        bad.expect("a field").field_violations[0].field.clone()
    };
    for replicas in [0, 3, 8] {
        let config = v1::LogConfig { replicas: Some(replicas), ..Default::default() };
        assert_eq!(field(with_config("b", config)), "config.replicas", "{replicas} replicas in a cluster of two nodes");
    }
    let labels = (0..17).map(|n| (n.to_string(), String::new())).collect();
    assert_eq!(field(with_config("b", v1::LogConfig { labels, ..Default::default() })), "config.labels");
    let config = v1::LogConfig { max_record_bytes: Some(1), ..Default::default() };
    assert_eq!(field(with_config("b", config)), "config.max_record_bytes");
    for id in ["", "ff", "0000000000000000", OWN_ID] {
        assert_eq!(field(create("b", Some(id))), "log_id", "{id}");
    }
    assert_eq!(field(create("/", None)), "log");
    let only_validated = v1::CreateLogRequest { validate_only: true, ..create("b", Some(OTHER_ID)) };
    let would = node.logs.create_log(&only_validated).expect("valid").log.unwrap_or_default();
    assert_eq!((would.log_id.as_str(), would.config.replicas), (OTHER_ID, Some(3)));
    assert_eq!((names(&node, true), node.proposed()), (vec!["a".to_owned(), "default".to_owned()], 1));
}

#[test]
fn a_deleted_log_can_be_seen_and_undeleted_and_nothing_else() {
    let node = node_with_a();
    node.logs.produce(&append("a")).expect("appended");
    assert_refused(node.logs.delete_log(&delete("a", "")), Code::INVALID_ARGUMENT, "INVALID_REQUEST");
    let other = node.logs.delete_log(&delete("a", OTHER_ID));
    let info = assert_refused(other, Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH");
    assert_eq!(info.metadata["log_id"], OWN_ID);
    assert_refused(node.logs.delete_log(&delete("none", OWN_ID)), Code::NOT_FOUND, "NO_SUCH_LOG");
    let deleted = node.logs.delete_log(&delete("a", OWN_ID)).expect("deleted").log.unwrap_or_default();
    assert_eq!((deleted.state.enum_value(), deleted.revision), (Ok(LogState::LOG_STATE_DELETED), 2));
    assert!(deleted.delete_time.is_some() && deleted.purge_time.seconds == 7 * 86_400 + 1);
    let again = node.logs.delete_log(&delete("a", OWN_ID)).expect("deleted already").log.unwrap_or_default();
    assert_eq!(again, deleted);

    assert_deleted(node.logs.produce(&append("a")), OWN_ID);
    let named = "a".to_owned();
    assert_deleted(node.logs.consume(&v1::ConsumeRequest { log: named.clone(), ..Default::default() }), OWN_ID);
    assert_deleted(node.logs.trim_log(&v1::TrimLogRequest { log: named.clone(), ..Default::default() }), OWN_ID);
    assert_deleted(node.logs.update_log(&v1::UpdateLogRequest { log: named.clone(), ..Default::default() }), OWN_ID);
    assert_deleted(node.logs.get_servers(&v1::GetServersRequest { log: named.clone(), ..Default::default() }), OWN_ID);
    assert_deleted(node.logs.create_log(&create("a", None)), OWN_ID);
    assert_deleted(node.logs.create_log(&create("a", Some(OWN_ID))), OWN_ID);
    let mut stream = node.logs.consume_stream(&v1::ConsumeRequest { log: named, ..Default::default() }).expect("sent");
    assert_deleted(block_on(stream.next()).expect("a status"), OWN_ID);
    assert_eq!(get(&node, "a").expect("it can be seen"), deleted);
    assert_eq!(
        (names(&node, false), names(&node, true)),
        (vec!["default".to_owned()], vec!["a".to_owned(), "default".to_owned()])
    );

    assert_refused(node.logs.undelete_log(&undelete("a", OTHER_ID)), Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH");
    for _ in 0..2 {
        let back = node.logs.undelete_log(&undelete("a", OWN_ID)).expect("undeleted").log.unwrap_or_default();
        assert_eq!((back.state.enum_value(), back.revision), (Ok(LogState::LOG_STATE_ACTIVE), 3));
        assert!(back.delete_time.is_none() && back.position.next_offset == 1);
    }
    assert_eq!(node.logs.produce(&append("a")).expect("appended").offset, 1);
}

#[test]
fn clients_of_log_v1_see_a_deleted_log_as_one_that_does_not_exist() {
    let node = node_with_a();
    node.logs.delete_log(&delete("a", OWN_ID)).expect("deleted");
    let refused = |result| {
        let info = assert_refused(result, Code::NOT_FOUND, "NO_SUCH_LOG");
        assert_eq!(info.metadata["log"], "a");
        assert!(!info.metadata.contains_key("purge_time"));
    };
    let mut request = produce(&["x"]);
    request.log = "a".to_owned();
    refused(node.client.produce(&request).map(drop));
    let named = "a".to_owned();
    refused(node.client.get_log(&log::GetLogRequest { log: named.clone(), ..Default::default() }).map(drop));
    refused(node.client.consume(&log::ConsumeRequest { log: named.clone(), ..Default::default() }).map(drop));
    refused(node.client.get_servers(&log::GetServersRequest { log: named, ..Default::default() }).map(drop));
}

#[test]
fn open_streams_end_when_their_log_is_deleted() {
    let node = node_with_a();
    let read = v1::ConsumeRequest { log: "a".to_owned(), ..Default::default() };
    let mut tail = node.logs.consume_stream(&read).expect("sent");
    block_on(tail.next()).expect("a message").expect("no status");
    let mut old =
        node.client.consume_stream(&log::ConsumeRequest { log: "a".to_owned(), ..Default::default() }).expect("sent");
    let (mut sender, mut receiver) = node.logs.produce_stream().expect("started");
    block_on(sender.send((append("a"), WriteFlags::default()))).expect("sent");
    assert_eq!(block_on(receiver.next()).expect("a response").expect("no status").offset, 0);
    assert_eq!(block_on(old.next()).expect("a record").expect("no status").record.offset, 0);
    block_on(tail.next()).expect("a message").expect("no status");
    let waits = v1::ConsumeRequest { offset: 1, wait_ms: 60_000, ..read };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| node.logs.consume(&waits));
        node.until("all of them wait", |node| node.waiters() == 3);
        node.logs.delete_log(&delete("a", OWN_ID)).expect("deleted");
        assert_deleted(waiting.join().expect("no panic"), OWN_ID);
    });
    assert_deleted(block_on(tail.next()).expect("a status"), OWN_ID);
    assert_deleted(block_on(receiver.next()).expect("a status"), OWN_ID);
    assert_refused(block_on(old.next()).expect("a status"), Code::NOT_FOUND, "NO_SUCH_LOG");
}

#[test]
fn a_purged_log_is_another_one_than_that_of_the_same_name() {
    let node = node_with_a();
    let at_once =
        v1::DeleteLogRequest { purge_after: MessageField::some(Duration::ZERO.into()), ..delete("a", OWN_ID) };
    let deleted = node.logs.delete_log(&at_once).expect("deleted").log.unwrap_or_default();
    assert_eq!(deleted.purge_time, deleted.delete_time);
    node.commit(Command::PurgeLog(node.group_of("a")));
    let again = node.logs.delete_log(&at_once).expect("purged already").log.unwrap_or_default();
    assert_eq!((again.log_id.as_str(), again.state.enum_value()), (OWN_ID, Ok(LogState::LOG_STATE_DELETED)));
    assert_refused(node.logs.undelete_log(&undelete("a", OWN_ID)), Code::NOT_FOUND, "NO_SUCH_LOG");
    assert_eq!(reason(get(&node, "a")).1, "NO_SUCH_LOG");
    assert_eq!(reason(node.logs.create_log(&create("a", Some(OWN_ID)))).1, "INVALID_REQUEST", "ids are used once");
    let new = node.logs.create_log(&create("a", Some(OTHER_ID))).expect("created").log.unwrap_or_default();
    assert_eq!((new.log_id.as_str(), new.revision), (OTHER_ID, 1));
    let late = node.logs.delete_log(&delete("a", OWN_ID)).expect("of the purged log").log.unwrap_or_default();
    assert_eq!(late.log_id, OWN_ID);
    assert_eq!(names(&node, false), ["a", "default"], "the new log is not deleted");
}

#[test]
fn the_purge_time_of_a_deleted_log_is_only_brought_forward() {
    let node = node_with_a();
    let after = |seconds| v1::DeleteLogRequest {
        purge_after: MessageField::some(Duration::from_secs(seconds).into()),
        ..delete("a", OWN_ID)
    };
    let purge_time = |request| node.logs.delete_log(&request).expect("deleted").log.purge_time.seconds;
    // The fake leader's clock is in 1970 and this node's is not, so of these times only 0 s is earlier than 100 years.
    let century = 3_155_760_000;
    assert_eq!(purge_time(after(century)), century as i64 + 1);
    assert_eq!(purge_time(after(century * 2)), century as i64 + 1);
    assert_eq!(purge_time(after(0)), 1);
    assert_eq!(purge_time(after(5)), 1);
}

#[test]
fn a_change_with_another_revision_than_the_expected_one_is_refused() {
    let node = node_with_a();
    let update = |config: v1::LogConfig, expected_revision| {
        let request = v1::UpdateLogRequest {
            log: "a".to_owned(),
            config: MessageField::some(config),
            expected_revision,
            ..Default::default()
        };
        node.logs.update_log(&request).map(|response| response.log.unwrap_or_default())
    };
    let bytes = |bytes| v1::LogConfig { max_record_bytes: Some(bytes), ..Default::default() };
    assert_eq!(update(bytes(2048), Some(1)).expect("changed").revision, 2);
    assert_eq!(update(bytes(2048), Some(1)).expect("the same request again").revision, 2);
    let info = assert_refused(update(bytes(4096), Some(1)), Code::FAILED_PRECONDITION, "REVISION_MISMATCH");
    assert_eq!((info.metadata["revision"].as_str(), info.metadata["log"].as_str()), ("2", "a"));
    let labels = v1::LogConfig { labels: [("team".to_owned(), "x".to_owned())].into(), ..Default::default() };
    let labelled = update(labels, None).expect("changed");
    assert_eq!((labelled.revision, labelled.config.labels["team"].as_str()), (3, "x"));
    assert_eq!((labelled.config.max_record_bytes, labelled.own_config.max_request_bytes), (Some(2048), None));
    let reset = v1::UpdateLogRequest {
        log: "a".to_owned(),
        update_mask: MessageField::some(FieldMask {
            paths: vec!["max_record_bytes".to_owned(), "labels.team".to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let reset = node.logs.update_log(&reset).expect("changed").log.unwrap_or_default();
    assert_eq!((reset.config.max_record_bytes, reset.own_config.max_record_bytes), (Some(1 << 20), None));
    assert!(reset.config.labels.is_empty());
    let wrong = v1::DeleteLogRequest { expected_revision: Some(1), ..delete("a", OWN_ID) };
    assert_refused(node.logs.delete_log(&wrong), Code::FAILED_PRECONDITION, "REVISION_MISMATCH");
    let right = v1::DeleteLogRequest { expected_revision: Some(4), ..delete("a", OWN_ID) };
    for _ in 0..2 {
        assert_eq!(node.logs.delete_log(&right).expect("deleted").log.revision, 5);
    }
}

#[test]
fn settings_of_the_cluster_are_the_defaults_of_its_logs() {
    let node = node_with_a();
    let cluster =
        || node.cluster.get_cluster(&v1::GetClusterRequest::new()).expect("a cluster").cluster.unwrap_or_default();
    let before = cluster();
    let settings = before.settings.clone().unwrap_or_default();
    assert_eq!(
        (before.revision, settings.create_on_append, settings.deleted_log_retention.seconds),
        (1, Some(false), 604_800)
    );
    assert_eq!((settings.log_defaults.replicas, settings.log_defaults.max_record_bytes), (Some(3), Some(1 << 20)));
    let update = |paths: &[&str], config: v1::LogConfig, expected_revision| {
        let settings = v1::ClusterSettings { log_defaults: MessageField::some(config), ..Default::default() };
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        node.cluster.update_cluster(&v1::UpdateClusterRequest {
            settings: MessageField::some(settings),
            update_mask: MessageField::some(FieldMask { paths, ..Default::default() }),
            expected_revision,
            ..Default::default()
        })
    };
    let small = v1::LogConfig { max_record_bytes: Some(2048), ..Default::default() };
    let changed = update(&[], small.clone(), Some(1)).expect("changed").cluster.unwrap_or_default();
    assert_eq!((changed.revision, changed.settings.log_defaults.max_record_bytes), (2, Some(2048)));
    assert_eq!(update(&[], small.clone(), Some(1)).expect("the same request again").cluster.revision, 2);
    assert_eq!(get(&node, "a").expect("a log").config.max_record_bytes, Some(2048));
    let other = v1::LogConfig { max_record_bytes: Some(4096), ..Default::default() };
    let info = assert_refused(update(&[], other, Some(1)), Code::FAILED_PRECONDITION, "REVISION_MISMATCH");
    assert!(!info.metadata.contains_key("log"));
    assert_eq!(reason(update(&["x"], small, None)).1, "INVALID_REQUEST");
    let too_many = v1::LogConfig { replicas: Some(3), ..Default::default() };
    assert_eq!(reason(update(&[], too_many, None)).1, "INVALID_REQUEST", "the cluster has two nodes");
    let labels = v1::LogConfig { labels: [("a".to_owned(), "b".to_owned())].into(), ..Default::default() };
    assert_eq!(reason(update(&[], labels, None)).1, "INVALID_REQUEST");
    assert_eq!(cluster().revision, 2);
}

#[test]
fn an_append_creates_its_log_only_if_the_cluster_is_set_to_it() {
    let node = node_with_a();
    assert_refused(node.logs.produce(&append("b")), Code::NOT_FOUND, "NO_SUCH_LOG");
    let on = v1::ClusterSettings { create_on_append: Some(true), ..Default::default() };
    let on = v1::UpdateClusterRequest { settings: MessageField::some(on), ..Default::default() };
    node.cluster.update_cluster(&on).expect("changed");
    let with_id = v1::ProduceRequest { log_id: Some(OTHER_ID.to_owned()), ..append("b") };
    assert_refused(node.logs.produce(&with_id), Code::NOT_FOUND, "NO_SUCH_LOG");
    assert_eq!(names(&node, false), ["a", "default"]);
    let appended = node.logs.produce(&append("b")).expect("appended");
    assert_eq!(get(&node, "b").expect("a log").log_id, appended.log_id);
    let (mut sender, mut receiver) = node.logs.produce_stream().expect("started");
    block_on(sender.send((append("c"), WriteFlags::default()))).expect("sent");
    block_on(receiver.next()).expect("a response").expect("no status");
    assert_eq!(names(&node, false), ["a", "b", "c", "default"]);
    assert_refused(
        node.logs.consume(&v1::ConsumeRequest { log: "d".to_owned(), ..Default::default() }),
        Code::NOT_FOUND,
        "NO_SUCH_LOG",
    );
    node.logs.delete_log(&delete("a", OWN_ID)).expect("deleted");
    assert_deleted(node.logs.produce(&append("a")), OWN_ID);
    std::fs::write(&node.policy_file, "p, anonymous, d, consume\np, anonymous, e, produce\n").expect("written");
    assert!(node.acl.reload().expect("a policy"));
    assert_eq!(reason(node.logs.produce(&append("d"))).1, "NOT_ALLOWED");
    node.logs.produce(&append("e")).expect("`produce` is enough");
}

#[test]
fn creating_and_deleting_needs_admin_on_the_name() {
    let node = Node::joining("p, anonymous, team-*, admin\np, anonymous, read, consume\n");
    node.serve();
    node.commit(Command::RaiseFeatureLevel(crate::feature_level::Feature::ManyLogs.level()));
    node.logs.create_log(&create("team-a", Some(OWN_ID))).expect("created");
    assert_eq!(reason(node.logs.create_log(&create("read", None))).1, "NOT_ALLOWED");
    assert_eq!(reason(node.logs.create_log(&create("other", None))).1, "NOT_ALLOWED");
    assert_eq!(reason(node.cluster.update_cluster(&v1::UpdateClusterRequest::new())).1, "NOT_ALLOWED");
    node.logs.delete_log(&delete("team-a", OWN_ID)).expect("deleted");
    assert_eq!(names(&node, true), ["team-a"]);
    std::fs::write(&node.policy_file, "p, anonymous, other, admin\np, anonymous, team-*, produce\n").expect("written");
    assert!(node.acl.reload().expect("a policy"));
    assert_eq!(reason(node.logs.undelete_log(&undelete("team-a", OWN_ID))).1, "NOT_ALLOWED");
    assert_eq!(get(&node, "team-a").expect("any right shows it").log_id, OWN_ID);
}

/// Members of the first level do not know the new commands, and would stop.
#[test]
fn a_cluster_of_the_first_feature_level_refuses_named_logs() {
    let node = Node::serving();
    let info =
        assert_refused(node.logs.create_log(&create("a", None)), Code::FAILED_PRECONDITION, "FEATURE_LEVEL_TOO_LOW");
    assert_eq!((info.metadata["feature_level"].as_str(), info.metadata["retry"].as_str()), ("2", "later"));
    let id = get(&node, "").expect("a log").log_id;
    assert_eq!(reason(node.logs.delete_log(&delete("", &id))).1, "FEATURE_LEVEL_TOO_LOW");
    assert_eq!(reason(node.cluster.update_cluster(&v1::UpdateClusterRequest::new())).1, "FEATURE_LEVEL_TOO_LOW");
    let update = |config| v1::UpdateLogRequest { config: MessageField::some(config), ..Default::default() };
    let labels = v1::LogConfig { labels: [("a".to_owned(), "b".to_owned())].into(), ..Default::default() };
    assert_eq!(reason(node.logs.update_log(&update(labels))).1, "FEATURE_LEVEL_TOO_LOW");
    let small = v1::LogConfig { max_record_bytes: Some(2048), ..Default::default() };
    let changed = node.logs.update_log(&update(small)).expect("changed").log.unwrap_or_default();
    assert_eq!(changed.config.max_record_bytes, Some(2048));
    assert_eq!(node.proposed(), 1);
}

#[test]
fn a_list_contains_positions_if_it_is_asked_for() {
    let node = node_with_a();
    node.logs.produce(&append("a")).expect("appended");
    let list = |with_position| {
        let request = v1::ListLogsRequest { with_position, ..Default::default() };
        node.logs.list_logs(&request).expect("a list").logs
    };
    assert!(list(false).iter().all(|log| log.position.is_none()));
    assert!(list(true).iter().all(|log| log.position.next_offset == 1));
}
