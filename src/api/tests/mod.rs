//! The client listener over real gRPC without TLS, with real storage and a fake `consensus` that commits immediately,
//! rejects, or does not answer, as each test requires.

mod calls;
mod fake;
mod limits;
mod named_logs;
mod node;
mod old_clients;
mod raw;
mod relays;
mod requests;
mod responses;
mod streams;
mod text;
mod v1;

use grpcio::{Error, RpcStatus, RpcStatusCode};
use protobuf::Message;

use crate::pb::{error_details, log, status};

fn rpc_status(error: Error) -> RpcStatus {
    match error {
        Error::RpcFailure(status) => status,
        other => panic!("no status, but {other}"),
    }
}

/// Returns the code and the `ErrorInfo` of a rejection.
fn refusal<T: std::fmt::Debug>(result: grpcio::Result<T>) -> (RpcStatusCode, error_details::ErrorInfo) {
    let status = rpc_status(result.expect_err("a refusal"));
    let details = status::Status::parse_from_bytes(status.details()).expect("a google.rpc.Status");
    let info = details.details.iter().find_map(|any| any.unpack::<error_details::ErrorInfo>().expect("well-formed"));
    (status.code(), info.unwrap_or_default())
}

fn reason<T: std::fmt::Debug>(result: grpcio::Result<T>) -> (RpcStatusCode, String) {
    let (code, info) = refusal(result);
    (code, info.reason)
}

fn produce(values: &[&str]) -> log::ProduceRequest {
    let mut request = log::ProduceRequest::new();
    request.records = values.iter().map(|value| record(value)).collect();
    request
}

fn record(value: &str) -> log::Record {
    let mut record = log::Record::new();
    record.value = bytes::Bytes::copy_from_slice(value.as_bytes());
    record
}

fn consume(offset: u64, max_records: u32) -> log::ConsumeRequest {
    let mut request = log::ConsumeRequest::new();
    request.offset = offset;
    request.max_records = max_records;
    request
}

fn values(response: &log::ConsumeResponse) -> Vec<String> {
    response.records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect()
}
