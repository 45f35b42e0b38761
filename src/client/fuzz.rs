//! Fuzz loops for the client's parsing of a node's responses.

use protobuf::Message;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::duration::Duration as PbDuration;

use grpcio::RpcStatusCode;

use super::ClientError;
use crate::fuzz::{Loop, PROTOBUF_FIXED_BYTES};
use crate::pb::error_details::{ErrorInfo, RetryInfo};
use crate::pb::v1::{
    ConsumeResponse, GetLogResponse, GetNodeResponse, GetServersResponse, GroupStatus, Header, LogInfo,
    ProduceResponse, Record, Replica, Server,
};

/// The details of a status: `google.rpc.Status` with the details that a node adds.
#[test]
fn error_details() {
    let info = ErrorInfo {
        reason: "OFFSET_TRIMMED".into(),
        domain: "seriatim".into(),
        metadata: [("first_offset".to_owned(), "7".to_owned())].into(),
        ..ErrorInfo::default()
    };
    let delay = PbDuration { seconds: 1, nanos: 5, ..PbDuration::default() };
    let retry = RetryInfo { retry_delay: Some(delay).into(), ..RetryInfo::default() };
    let mut status = crate::pb::status::Status::new();
    status.details = vec![Any::pack(&info).expect("packed"), Any::pack(&retry).expect("packed")];
    Loop::new("error_details", vec![status.write_to_bytes().expect("encoded")])
        .memory(400)
        .memory_fixed(PROTOBUF_FIXED_BYTES)
        .run(|bytes| {
            let code = RpcStatusCode::OUT_OF_RANGE;
            let status = grpcio::RpcStatus::with_details(code, "text".to_owned(), bytes.to_vec());
            let ClientError::Status(status) = ClientError::from(grpcio::Error::RpcFailure(status)) else {
                panic!("a status is a status");
            };
            assert_eq!((status.code, status.message.as_str()), (code, "text"));
            let _ = ((status.outcome(), status.retry()), status.number("first_offset"), status.to_string());
            !status.reason.is_empty() || status.retry_after.is_some()
        });
}

fn response<M: Message + PartialEq>(name: &'static str, seed: &M) {
    // A record of two encoded bytes takes the memory of a whole decoded object.
    Loop::new(name, vec![seed.write_to_bytes().expect("encoded")]).memory(600).memory_fixed(PROTOBUF_FIXED_BYTES).run(
        |bytes| {
            let Ok(message) = M::parse_from_bytes(bytes) else { return false };
            let again = message.write_to_bytes().expect("encoded");
            assert!(M::parse_from_bytes(&again).is_ok_and(|again| again == message));
            true
        },
    );
}

#[test]
fn consume_response() {
    let header = Header { name: "h".into(), value: b"x".to_vec().into(), ..Header::default() };
    let key = Some(b"k".to_vec().into());
    let record = Record { value: b"v".to_vec().into(), offset: 9, key, headers: vec![header], ..Record::default() };
    let records = vec![record.clone(), record];
    response("consume_response", &ConsumeResponse { records, next_offset: 11, ..ConsumeResponse::default() });
}

#[test]
fn produce_response() {
    response("produce_response", &ProduceResponse { offset: 9, count: 2, term: 3, ..ProduceResponse::default() });
}

#[test]
fn get_log_response() {
    response(
        "get_log_response",
        &GetLogResponse {
            log: Some(LogInfo { name: "a".into(), ..LogInfo::default() }).into(),
            ..GetLogResponse::default()
        },
    );
}

#[test]
fn get_servers_response() {
    let server = Server { id: "a".into(), rpc_addr: "a:1".into(), ..Server::default() };
    response("get_servers_response", &GetServersResponse { servers: vec![server], ..GetServersResponse::default() });
}

#[test]
fn get_node_response() {
    let replicas = vec![Replica { node_id: "1".into(), ..Replica::default() }];
    let group = GroupStatus { log: "default".into(), replicas, ..GroupStatus::default() };
    response(
        "get_node_response",
        &GetNodeResponse { name: "a".into(), groups: vec![group], ..GetNodeResponse::default() },
    );
}
