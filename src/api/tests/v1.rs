//! What differs in `seriatim.v1`: strict requests, the shape of its answers, and errors that tell what to do.

use std::time::Duration;

use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, ClientSStreamReceiver, RpcStatusCode as Code, WriteFlags};
use protobuf::{Message as _, MessageField, MessageFull};

use super::node::{Fate, LOG_ID, ME, Node, OTHER};
use super::raw::exchange;
use super::*;
use crate::api::wire::check_known;
use crate::catalog::Command;
use crate::consensus::handle::{ProposeError, ReadIndexError};
use crate::feature_level::Feature;
use crate::pb::v1::{self, Start};
use crate::reason::ErrorReason;

const ID: &str = "0000000000000abc";

fn batch(values: &[&str]) -> v1::ProduceRequest {
    let record = |value: &&str| v1::Record { value: value.as_bytes().to_vec().into(), ..v1::Record::default() };
    v1::ProduceRequest { records: values.iter().map(record).collect(), ..v1::ProduceRequest::default() }
}

fn texts(response: &v1::ConsumeResponse) -> Vec<String> {
    response.records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect()
}

fn next(stream: &mut ClientSStreamReceiver<v1::ConsumeResponse>) -> v1::ConsumeResponse {
    block_on(stream.next()).expect("a message").expect("no status")
}

/// Every method of `LogService` and `ClusterService`, with a valid request and the descriptor of its message.
fn methods() -> Vec<(&'static str, Vec<u8>, protobuf::reflect::MessageDescriptor)> {
    fn method<M: MessageFull>(
        name: &'static str,
        request: M,
    ) -> (&'static str, Vec<u8>, protobuf::reflect::MessageDescriptor) {
        (name, request.write_to_bytes().expect("encoded"), M::descriptor())
    }
    let read = v1::ConsumeRequest { max_records: 1, ..v1::ConsumeRequest::default() };
    vec![
        method("LogService/Produce", batch(&["a"])),
        method("LogService/ProduceStream", batch(&["a"])),
        method("LogService/Consume", read.clone()),
        method("LogService/ConsumeStream", v1::ConsumeRequest { stop_at_end: true, ..read }),
        method("LogService/GetServers", v1::GetServersRequest::new()),
        method(
            "LogService/CreateLog",
            v1::CreateLogRequest { log: "new".to_owned(), validate_only: true, ..Default::default() },
        ),
        method("LogService/GetLog", v1::GetLogRequest::new()),
        method("LogService/ListLogs", v1::ListLogsRequest::new()),
        method("LogService/UpdateLog", v1::UpdateLogRequest::new()),
        method("LogService/DeleteLog", v1::DeleteLogRequest { log_id: ID.to_owned(), ..Default::default() }),
        method("LogService/UndeleteLog", v1::UndeleteLogRequest { log_id: ID.to_owned(), ..Default::default() }),
        method("LogService/TrimLog", v1::TrimLogRequest::new()),
        method("ClusterService/GetCluster", v1::GetClusterRequest::new()),
        method("ClusterService/UpdateCluster", v1::UpdateClusterRequest::new()),
        method("ClusterService/RaiseFeatureLevel", v1::RaiseFeatureLevelRequest { level: 1, ..Default::default() }),
        method("ClusterService/WhoAmI", v1::WhoAmIRequest::new()),
        method("ClusterService/GetNode", v1::GetNodeRequest::new()),
    ]
}

/// Sends a message to a method, and returns its status if it fails.
fn send(node: &Node, name: &str, request: &[u8]) -> Result<(), RpcStatus> {
    exchange(node, &format!("/seriatim.v1.{name}"), &[request.to_vec()]).1
}

fn details(status: &RpcStatus) -> (error_details::ErrorInfo, Option<error_details::BadRequest>) {
    let details = status::Status::parse_from_bytes(status.details()).expect("a google.rpc.Status").details;
    let find = |any: &protobuf::well_known_types::any::Any| any.unpack().expect("well-formed");
    (
        details.iter().find_map(find).expect("an ErrorInfo"),
        details.iter().find_map(|any| any.unpack().expect("well-formed")),
    )
}

/// Checks the status of a refused request: its reason, the field that it names, and that nothing was done.
#[track_caller]
fn assert_refused(result: Result<(), RpcStatus>, (code, reason): (Code, &str), field: &str, what: &str) {
    let status = result.expect_err(what);
    let (info, bad) = details(&status);
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{what}");
    assert_eq!((info.metadata["outcome"].as_str(), info.metadata["retry"].as_str()), ("none", "no"), "{what}");
    let named: Vec<String> = bad.unwrap_or_default().field_violations.into_iter().map(|v| v.field).collect();
    assert_eq!(named, [field], "{what}");
}

const UNKNOWN: (Code, &str) = (Code::UNIMPLEMENTED, "UNKNOWN_FIELD");
const INVALID: (Code, &str) = (Code::INVALID_ARGUMENT, "INVALID_REQUEST");

/// A server that skips what it does not know appends without the condition that a newer client set.
#[test]
fn every_call_refuses_unknown_fields_and_other_wire_types_by_name() {
    let node = Node::serving_named_logs();
    for (name, request, descriptor) in methods() {
        let with = |more: &[u8]| [&request[..], more].concat();
        // Field 999 as each wire type: varint, fixed64, bytes, a group, fixed32.
        for unknown in [
            &[0xb8, 0x3e, 1][..],
            &[0xb9, 0x3e, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xba, 0x3e, 0],
            &[0xbb, 0x3e, 0xbc, 0x3e],
            &[0xbd, 0x3e, 0, 0, 0, 0],
        ] {
            assert_refused(send(&node, name, &with(unknown)), UNKNOWN, "999", name);
        }
        // Each field with a wire type that no field of these messages has.
        for field in descriptor.fields() {
            let tag = field.number() << 3 | 5;
            let wrong = with(&[u8::try_from(tag).expect("one byte"), 0, 0, 0, 0]);
            assert_refused(send(&node, name, &wrong), INVALID, field.name(), &format!("{name} {}", field.name()));
        }
        send(&node, name, &request).unwrap_or_else(|status| panic!("{name}: {status}"));
    }
    let of_valid_requests = ["Produce", "ProduceStream", "DeleteLog", "UndeleteLog"];
    assert_eq!(node.proposed(), of_valid_requests.len(), "the others change nothing: a trim to 0, an empty update");
}

#[test]
fn fields_within_records_headers_and_settings_are_refused_by_their_path() {
    let node = Node::serving();
    let unknown: &[u8] = &[0xb8, 0x3e, 1];
    let message = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let in_record = [message(3, &[]), message(3, unknown)].concat();
    assert_refused(send(&node, "LogService/Produce", &in_record), UNKNOWN, "records[1].999", "in a record");
    let in_header = message(3, &[message(7, &[]), message(7, unknown)].concat());
    assert_refused(send(&node, "LogService/Produce", &in_header), UNKNOWN, "records[0].headers[1].999", "in a header");
    let type_as_text = message(3, &message(4, b"x"));
    assert_refused(send(&node, "LogService/Produce", &type_as_text), INVALID, "records[0].type", "a type as text");
    let single_record_of_log_v1 = message(1, &[]);
    assert_refused(send(&node, "LogService/Produce", &single_record_of_log_v1), UNKNOWN, "1", "`record`");
    let id_as_number = [&message(3, &[])[..], &[7 << 3 | 1, 0xbc, 0xa, 0, 0, 0, 0, 0, 0]].concat();
    assert_refused(send(&node, "LogService/Produce", &id_as_number), INVALID, "log_id", "an id as a number");
    let in_settings = message(2, &message(1, unknown));
    let path = "config.retention_age.999";
    assert_refused(send(&node, "LogService/UpdateLog", &in_settings), UNKNOWN, path, "in a duration");
    let in_label = message(2, &message(6, unknown));
    assert_refused(send(&node, "LogService/UpdateLog", &in_label), UNKNOWN, "config.labels.999", "in a label");
    for (start, known) in [(4, true), (6, false), (u8::MAX >> 1, false)] {
        let result = send(&node, "LogService/Consume", &[3 << 3, start]);
        if known {
            assert!(result.is_ok(), "{start}");
        } else {
            assert_refused(result, UNKNOWN, "start", "an unknown start");
        }
    }
    assert_eq!(node.proposed(), 0, "nothing was appended");
}

#[test]
fn what_the_server_sets_may_be_sent_back_and_is_ignored() {
    let node = Node::serving();
    let mut copy = batch(&["a"]);
    (copy.records[0].offset, copy.records[0].term, copy.records[0].append_time_us) = (77, 78, 79);
    assert_eq!(node.logs.produce(&copy).expect("appended").offset, 0);
    assert!(check_known::<v1::ProduceRequest>(&copy.write_to_bytes().expect("encoded")).is_ok());
}

#[test]
fn ids_are_texts_and_any_other_text_is_another_log() {
    let node = Node::serving();
    let mut request = batch(&["a"]);
    for (id, fits) in [(ID, true), ("0000000000000ABC", false), ("abc", false), ("", false), ("no id", false)] {
        request.log_id = Some(id.to_owned());
        match node.logs.produce(&request) {
            Ok(response) => assert_eq!((fits, response.log_id.as_str()), (true, ID), "{id}"),
            refused => {
                let (code, info) = refusal(refused);
                assert_eq!(
                    (code, info.reason.as_str(), fits),
                    (Code::FAILED_PRECONDITION, "LOG_ID_MISMATCH", false),
                    "{id}"
                );
                assert_eq!(info.metadata["log_id"], ID);
            }
        }
    }
    let read = v1::ConsumeRequest { log_id: Some("x".to_owned()), ..v1::ConsumeRequest::default() };
    assert_eq!(reason(node.logs.consume(&read)).1, "LOG_ID_MISMATCH");
    let trim = v1::TrimLogRequest { log_id: Some("x".to_owned()), ..v1::TrimLogRequest::default() };
    assert_eq!(reason(node.logs.trim_log(&trim)).1, "LOG_ID_MISMATCH");
    let get = v1::GetLogRequest { log_id: Some("x".to_owned()), ..v1::GetLogRequest::default() };
    assert_eq!(reason(node.logs.get_log(&get)).1, "LOG_ID_MISMATCH");
}

#[test]
fn a_read_returns_up_to_a_thousand_records_and_where_to_resume() {
    let node = Node::serving();
    node.logs.produce(&batch(&vec!["x"; 1200])).expect("appended");
    let first = node.logs.consume(&v1::ConsumeRequest::new()).expect("records");
    assert_eq!(
        (first.records.len(), first.resume_offset, first.next_offset, first.log_id.as_str()),
        (1000, 1000, 1200, ID)
    );
    let rest = v1::ConsumeRequest { offset: first.resume_offset, ..v1::ConsumeRequest::default() };
    let rest = node.logs.consume(&rest).expect("records");
    assert_eq!((rest.records.len(), rest.resume_offset), (200, 1200));
    let end = v1::ConsumeRequest { offset: 1200, ..v1::ConsumeRequest::default() };
    let end = node.logs.consume(&end).expect("no records");
    assert_eq!((end.records.len(), end.resume_offset), (0, 1200));
    for (last, resume, count) in [(3, 1200, 3), (5000, 1000, 1000), (0, 1200, 0)] {
        let request =
            v1::ConsumeRequest { start: Start::START_LAST.into(), offset: last, ..v1::ConsumeRequest::default() };
        let response = node.logs.consume(&request).expect("an answer");
        assert_eq!((response.records.len(), response.resume_offset), (count, resume), "the last {last}");
    }
}

/// A client did not know where a tail at LATEST began until the first record came. If its connection broke before, it
/// asked for LATEST again and never got what was appended in between.
#[test]
fn a_tail_says_at_once_where_it_begins_so_that_nothing_is_lost_when_it_breaks() {
    let node = Node::serving();
    node.logs.produce(&batch(&["a", "b"])).expect("appended");
    let latest = v1::ConsumeRequest { start: Start::START_LATEST.into(), ..v1::ConsumeRequest::default() };
    let mut tail = node.logs.consume_stream(&latest).expect("sent");
    let first = next(&mut tail);
    assert_eq!((first.records.len(), first.resume_offset, first.log_id.as_str()), (0, 2, ID));
    drop(tail);
    node.logs.produce(&batch(&["c"])).expect("appended while nobody listens");
    let resumed =
        v1::ConsumeRequest { offset: first.resume_offset, log_id: Some(first.log_id), ..v1::ConsumeRequest::default() };
    let mut tail = node.logs.consume_stream(&resumed).expect("sent");
    assert_eq!((next(&mut tail).records.len(), texts(&next(&mut tail))), (0, vec!["c".to_owned()]));
}

#[test]
fn each_message_of_a_stream_says_where_to_resume() {
    let node = Node::serving();
    node.logs.produce(&batch(&["a", "b", "c", "d", "e"])).expect("appended");
    let request = v1::ConsumeRequest { max_records: 2, stop_at_end: true, ..v1::ConsumeRequest::default() };
    let mut stream = node.logs.consume_stream(&request).expect("sent");
    let mut seen = Vec::new();
    while let Some(message) = block_on(stream.next()) {
        let message = message.expect("no status");
        seen.push((message.records.len(), message.resume_offset));
    }
    assert_eq!(seen, [(0, 0), (2, 2), (2, 4), (1, 5)]);
}

#[test]
fn a_stream_from_a_trimmed_offset_fails_before_its_first_message() {
    let node = Node::serving();
    node.logs.produce(&batch(&["a", "b", "c"])).expect("appended");
    node.logs.trim_log(&v1::TrimLogRequest { first_offset: 2, ..Default::default() }).expect("trimmed");
    let mut stream = node.logs.consume_stream(&v1::ConsumeRequest { offset: 1, ..Default::default() }).expect("sent");
    assert_eq!(reason(block_on(stream.next()).expect("a status")).1, "OFFSET_TRIMMED");
}

#[test]
fn requests_of_a_stream_need_not_name_the_log_again() {
    let node = Node::serving();
    let mut named = batch(&["a"]);
    named.log = "default".to_owned();
    let (mut sender, mut receiver) = node.logs.produce_stream().expect("started");
    for request in [&named, &batch(&["b"]), &named] {
        block_on(sender.send((request.clone(), WriteFlags::default()))).expect("sent");
    }
    block_on(sender.close()).expect("closed");
    for offset in 0..3 {
        assert_eq!(block_on(receiver.next()).expect("a response").expect("no status").offset, offset);
    }
    assert!(block_on(receiver.next()).is_none());
    let (mut sender, mut receiver) = node.logs.produce_stream().expect("started");
    block_on(sender.send((batch(&["c"]), WriteFlags::default()))).expect("sent");
    assert_eq!(block_on(receiver.next()).expect("a response").expect("no status").offset, 3);
    named.log = "other".to_owned();
    // The status may arrive before the end of the send, which fails then.
    let _ = block_on(sender.send((named, WriteFlags::default())));
    let (code, info) = refusal(block_on(receiver.next()).expect("a status"));
    assert_eq!(
        (code, info.reason.as_str(), info.metadata["failed_request"].as_str()),
        (Code::INVALID_ARGUMENT, "INVALID_REQUEST", "1")
    );
}

#[test]
fn names_of_logs_are_shown_only_to_those_who_may_use_them() {
    let node = Node::joining("p, anonymous, team-*, consume\n");
    node.serve();
    let servers =
        |log: &str| node.logs.get_servers(&v1::GetServersRequest { log: log.to_owned(), ..Default::default() });
    let all = servers("").expect("for everybody");
    assert_eq!((all.servers.len(), all.servers.iter().filter(|s| s.is_leader || s.is_voter).count()), (2, 0));
    assert_eq!((all.feature_level, all.version.as_str(), all.term), (1, env!("CARGO_PKG_VERSION"), 0));
    assert_eq!(reason(servers("default")).1, "NOT_ALLOWED");
    assert_eq!(reason(servers("team-a")).1, "NO_SUCH_LOG");
    let list = || node.logs.list_logs(&v1::ListLogsRequest::new()).expect("a list").logs;
    assert_eq!(list().len(), 0);
    let who = node.cluster.who_am_i(&v1::WhoAmIRequest::new()).expect("a name");
    let permissions: Vec<_> = who.permissions.iter().map(|p| (p.log.as_str(), p.action.as_str())).collect();
    assert_eq!((who.principal.as_str(), permissions), ("anonymous", vec![("team-*", "consume")]));
    std::fs::write(&node.policy_file, "p, anonymous, d*, admin\n").expect("written");
    assert!(node.acl.reload().expect("a policy"));
    assert_eq!(list()[0].name, "default");
    let by_name = servers("default").expect("allowed");
    let flags: Vec<_> = by_name.servers.iter().map(|s| (s.node_id.as_str(), s.is_leader, s.is_voter)).collect();
    assert_eq!(flags, [("0000000000000001", true, true), ("0000000000000002", false, false)]);
}

#[test]
fn lists_logs_in_pages() {
    let node = Node::serving();
    let list = |request: v1::ListLogsRequest| node.logs.list_logs(&request);
    let page = list(v1::ListLogsRequest { page_size: 1, ..Default::default() }).expect("a page");
    let log = &page.logs[0];
    assert_eq!((log.name.as_str(), log.log_id.as_str(), page.next_page_token.as_str()), ("default", ID, ""));
    assert!(log.position.is_none() && log.config.max_record_bytes == Some(1 << 20));
    let after = list(v1::ListLogsRequest { page_token: "default".to_owned(), ..Default::default() }).expect("a page");
    assert_eq!(after.logs.len(), 0);
    let other = list(v1::ListLogsRequest { prefix: "x".to_owned(), ..Default::default() }).expect("a page");
    assert_eq!(other.logs.len(), 0);
    assert_eq!(reason(list(v1::ListLogsRequest { page_size: -1, ..Default::default() })).1, "INVALID_REQUEST");
    assert_eq!(
        reason(list(v1::ListLogsRequest { page_token: "/".to_owned(), ..Default::default() })).1,
        "INVALID_REQUEST"
    );
}

#[test]
fn validate_only_checks_and_changes_nothing() {
    let node = Node::serving();
    let config = |max_record_bytes| v1::LogConfig { max_record_bytes: Some(max_record_bytes), ..Default::default() };
    let update = |max_record_bytes| v1::UpdateLogRequest {
        config: MessageField::some(config(max_record_bytes)),
        validate_only: true,
        ..Default::default()
    };
    let would = node.logs.update_log(&update(2048)).expect("valid").log.unwrap_or_default();
    assert_eq!(would.config.max_record_bytes, Some(2048));
    assert_eq!(reason(node.logs.update_log(&update(1))).1, "INVALID_REQUEST");
    let now = node.logs.get_log(&v1::GetLogRequest::new()).expect("a log").log.unwrap_or_default();
    assert_eq!((now.config.max_record_bytes, now.log_id.as_str()), (Some(1 << 20), ID));
    assert_eq!((now.position.next_offset, LOG_ID.to_string().as_str()), (0, ID));
    assert_eq!(node.proposed(), 0);
}

/// The time is stored only once every member can read it. A node of an older version refuses the field by its name.
#[test]
fn event_times_are_kept_as_given_from_the_feature_level_that_allows_them() {
    let node = Node::serving();
    let mut request = batch(&["a", "b", "c"]);
    request.records[1].client_time_us = Some(0);
    request.records[2].client_time_us = Some(u64::MAX);
    let (code, info) = refusal(node.logs.produce(&request));
    assert_eq!((code, info.reason.as_str()), (Code::FAILED_PRECONDITION, "FEATURE_LEVEL_TOO_LOW"));
    assert_eq!(node.logs.produce(&batch(&["without"])).expect("appended").offset, 0);

    node.commit(Command::RaiseFeatureLevel(Feature::ManyLogs.level()));
    assert_eq!(node.logs.produce(&request).expect("appended").offset, 1);
    let read = v1::ConsumeRequest { max_records: 9, ..v1::ConsumeRequest::default() };
    let read = node.logs.consume(&read).expect("records");
    let times: Vec<_> = read.records.iter().map(|record| record.client_time_us).collect();
    assert_eq!(times, [None, None, Some(0), Some(u64::MAX)]);
    // `log.v1` ignores the field in requests. Its clients skip it in responses.
    let old = log::ProduceRequest::parse_from_bytes(&request.write_to_bytes().expect("encoded")).expect("decoded");
    assert_eq!(node.client.produce(&old).expect("appended").offset, 4);
    let read = v1::ConsumeRequest { offset: 4, max_records: 9, ..v1::ConsumeRequest::default() };
    assert!(node.logs.consume(&read).expect("records").records.iter().all(|record| record.client_time_us.is_none()));
    assert_eq!(values(&node.client.consume(&consume(1, 3)).expect("records")), ["a", "b", "c"]);
}

#[test]
fn a_failed_proposal_says_what_became_of_it_and_who_leads() {
    let node = Node::serving();
    node.leader_is(Some(OTHER));
    for (error, expected) in [
        (ProposeError::Dropped, ErrorReason::LeaderChanged),
        (ProposeError::QueueFull, ErrorReason::QueueFull),
        (ProposeError::DiskFull, ErrorReason::DiskFull),
        (ProposeError::OutcomeUnknown, ErrorReason::OutcomeUnknown),
        (ProposeError::DeadlinePassed, ErrorReason::DeadlinePassed),
        (ProposeError::Damaged, ErrorReason::ReplicaDamaged),
    ] {
        node.fates(&[Fate::Fail(error)]);
        let (code, info) = refusal(node.logs.produce(&batch(&["a"])));
        assert_eq!((code, info.reason.as_str()), (expected.status(), expected.code()));
        assert_eq!(info.metadata["outcome"], expected.outcome().code(), "{expected:?}");
        assert_eq!(info.metadata["retry"], expected.retry().code(), "{expected:?}");
        let leader = info.metadata.get("leader").map(String::as_str);
        assert_eq!(leader, (expected.retry() != crate::reason::Retry::No).then_some("two:2"), "{expected:?}");
    }
}

/// A trim whose result could not be read said that nothing was done, although it was committed.
#[test]
fn a_committed_trim_is_never_said_to_be_undone() {
    let node = Node::serving();
    node.logs.produce(&batch(&["a", "b", "c"])).expect("appended");
    node.fates(&[Fate::CommitElsewhere]);
    let trim = v1::TrimLogRequest { first_offset: 2, ..Default::default() };
    let short = CallOption::default().timeout(Duration::from_secs(3));
    node.read_index(Err(ReadIndexError::Unconfirmed));
    node.leader_is(Some(ME));
    let late = std::thread::scope(|scope| {
        let late = scope.spawn(|| node.logs.trim_log_opt(&trim, short));
        node.until("it is committed", |node| node.proposed() == 2);
        node.catch_up();
        late.join().expect("no panic")
    });
    let (code, info) = refusal(late);
    assert_eq!((code, info.reason.as_str()), (Code::UNAVAILABLE, "COMMITTED_NOT_APPLIED"));
    assert_eq!((info.metadata["outcome"].as_str(), info.metadata["retry"].as_str()), ("done", "same"));
    node.read_index(Ok(()));
    let again = node.logs.trim_log(&trim).expect("trimmed");
    assert_eq!(again.log.position.first_offset, 2);
}

/// The two packages have the same fields under the same numbers, except where the differences are listed here.
#[test]
fn the_packages_differ_only_where_they_are_meant_to() {
    use protobuf::descriptor::FieldDescriptorProto;
    let (old, new) = (log::file_descriptor(), crate::pb::v1_log_service_file());
    let mut differences = Vec::new();
    for message in old.messages() {
        let Some(other) = new.messages().find(|other| other.name() == message.name()) else {
            differences.push(format!("{} is only in log.v1", message.name()));
            continue;
        };
        let simple = |field: &FieldDescriptorProto| {
            let name = field.type_name().rsplit('.').next().unwrap_or_default().to_owned();
            (field.name().to_owned(), field.type_(), name, field.label(), field.proto3_optional())
        };
        for field in message.fields() {
            match other.field_by_number(field.number() as u32) {
                None => differences.push(format!("{}.{} is only in log.v1", message.name(), field.name())),
                Some(same) if simple(same.proto()) != simple(field.proto()) => {
                    let (ty, other) = (field.proto().type_(), same.proto().type_());
                    differences.push(format!("{}.{}: {ty:?}, {other:?}", message.name(), field.name()));
                }
                Some(_) => {}
            }
        }
        for field in other.fields().filter(|field| message.field_by_number(field.number() as u32).is_none()) {
            differences.push(format!("{}.{} is only in seriatim.v1", message.name(), field.name()));
        }
    }
    differences.sort();
    assert_eq!(
        differences,
        [
            "ConsumeRequest.cursor is only in seriatim.v1",
            "ConsumeRequest.cursor_epoch is only in seriatim.v1",
            "ConsumeRequest.log_id: TYPE_FIXED64, TYPE_STRING",
            "ConsumeResponse.log_id: TYPE_FIXED64, TYPE_STRING",
            "ConsumeResponse.record is only in log.v1",
            "ConsumeResponse.resume_offset is only in seriatim.v1",
            "GetLogRequest.log_id is only in seriatim.v1",
            "GetLogResponse.first_append_time_us is only in log.v1",
            "GetLogResponse.first_offset is only in log.v1",
            "GetLogResponse.last_append_time_us is only in log.v1",
            "GetLogResponse.log: TYPE_STRING, TYPE_MESSAGE",
            "GetLogResponse.log_id is only in log.v1",
            "GetLogResponse.next_offset is only in log.v1",
            "GetLogResponse.record_bytes_max is only in log.v1",
            "GetLogResponse.request_bytes_max is only in log.v1",
            "GetLogResponse.stored_bytes is only in log.v1",
            "GetServersResponse.feature_level is only in seriatim.v1",
            "GetServersResponse.version is only in seriatim.v1",
            "ProduceRequest.log_id: TYPE_FIXED64, TYPE_STRING",
            "ProduceRequest.producer_epoch is only in seriatim.v1",
            "ProduceRequest.receipt is only in seriatim.v1",
            "ProduceRequest.record is only in log.v1",
            "ProduceRequest.restored_append_time_us is only in seriatim.v1",
            "ProduceResponse.log_id: TYPE_FIXED64, TYPE_STRING",
            "ProduceResponse.receipt is only in seriatim.v1",
            "Record.client_time_us is only in seriatim.v1",
            "Server.is_replica is only in seriatim.v1",
            "Server.node_id: TYPE_FIXED64, TYPE_STRING",
        ]
    );
    let values = |file: &protobuf::reflect::FileDescriptor| {
        let start = file.enums().find(|values| values.name() == "Start").expect("an enum");
        start.values().map(|value| (value.value(), value.name().to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(values(old), values(new)[..4]);
}
