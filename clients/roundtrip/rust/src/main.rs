//! Decodes and encodes the golden messages with the code that prost generates: roundtrip GOLDEN.

use std::error::Error;
use std::{env, fs};

use prost::Message;

use v1::*;

/// The generated code.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/seriatim.v1.rs"));
}

const UNICODE: &str = "größe 大小 😀";

fn main() -> Result<(), Box<dyn Error>> {
    let golden = env::args().nth(1).ok_or("roundtrip GOLDEN")?;
    for line in fs::read_to_string(format!("{golden}/samples.txt"))?.lines() {
        let (name, type_name) = line.split_once(' ').ok_or("a line of samples.txt has no type")?;
        let bytes = again(type_name, &fs::read(format!("{golden}/{name}.bin"))?)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        println!(r#"{{"name":"{name}","bytes":"{hex}"}}"#);
    }
    let read = |name: &str| fs::read(format!("{golden}/{name}.bin"));
    check_record(&Record::decode(&*read("record_extreme")?)?, &Record::decode(&*read("record_without_key")?)?);
    check_node(&GetNodeResponse::decode(&*read("get_node_response_full")?)?);
    check_update(&UpdateLogRequest::decode(&*read("update_log_request_full")?)?);
    check_create(&CreateLogRequest::decode(&*read("create_log_request_full")?)?);
    check_update_cluster(&UpdateClusterRequest::decode(&*read("update_cluster_request_full")?)?);
    show("Start", |n| Start::try_from(n).ok().map(|value| value.as_str_name()));
    show("LogState", |n| LogState::try_from(n).ok().map(|value| value.as_str_name()));
    show("NodeState", |n| NodeState::try_from(n).ok().map(|value| value.as_str_name()));
    show("DiskState", |n| DiskState::try_from(n).ok().map(|value| value.as_str_name()));
    show("Role", |n| Role::try_from(n).ok().map(|value| value.as_str_name()));
    show("Reason", |n| Reason::try_from(n).ok().map(|value| value.as_str_name()));
    Ok(())
}

/// Prints an enum, whose values have numbers below 1,000.
fn show(name: &str, value: impl Fn(i32) -> Option<&'static str>) {
    let values: Vec<String> = (0..1000).filter_map(|n| value(n).map(|name| format!(r#""{name}":{n}"#))).collect();
    println!(r#"{{"name":"seriatim.v1.{name}","enum":{{{}}}}}"#, values.join(","));
}

/// Decodes and encodes a message of any type.
fn again(type_name: &str, bytes: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    macro_rules! by_name {
        ($($type:ident)*) => {
            match type_name.strip_prefix("seriatim.v1.") {
                $(Some(stringify!($type)) => Ok($type::decode(bytes)?.encode_to_vec()),)*
                _ => Err(format!("main.rs does not list {type_name}").into()),
            }
        };
    }
    by_name! {
        Record Header ProduceRequest ProduceResponse ConsumeRequest ConsumeResponse GetServersRequest GetServersResponse
        Server LogInfo LogConfig LogPosition GetLogRequest GetLogResponse ListLogsRequest ListLogsResponse
        UpdateLogRequest UpdateLogResponse TrimLogRequest TrimLogResponse GetClusterRequest GetClusterResponse Cluster
        RaiseFeatureLevelRequest RaiseFeatureLevelResponse GetNodeRequest GetNodeResponse Permission Metric Histogram
        Bucket DiskStatus GroupStatus Replica DamagedRange WhoAmIRequest WhoAmIResponse CreateLogRequest CreateLogResponse
        DeleteLogRequest DeleteLogResponse UndeleteLogRequest UndeleteLogResponse ClusterSettings UpdateClusterRequest
        UpdateClusterResponse DeletedLog Producer InitProducerRequest InitProducerResponse GetProducerRequest
        GetProducerResponse ListProducersRequest ListProducersResponse Cursor AcquireCursorRequest AcquireCursorResponse
        CommitCursorRequest CommitCursorResponse GetCursorRequest GetCursorResponse ListCursorsRequest
        ListCursorsResponse DeleteCursorRequest DeleteCursorResponse Node ListNodesRequest ListNodesResponse
        DrainNodeRequest DrainNodeResponse UndrainNodeRequest UndrainNodeResponse RemoveNodeRequest RemoveNodeResponse
        ReplaceNodeRequest ReplaceNodeResponse BalanceClusterRequest BalanceClusterResponse TransferLeadershipRequest
        TransferLeadershipResponse Restore FinishRestoreRequest FinishRestoreResponse CatchUp ChainLink Receipt
        ReceiptStatement ReadChainRequest ReadChainResponse
    }
}

fn check_record(extreme: &Record, without_key: &Record) {
    assert_eq!((extreme.offset, extreme.term), (i64::MAX as u64, (1 << 53) + 1));
    assert_eq!((extreme.append_time_us, extreme.r#type), (u64::MAX, u32::MAX));
    assert_eq!((extreme.key.as_deref(), extreme.client_time_us), (Some(&[][..]), Some(u64::MAX - 1)));
    let names: Vec<&str> = extreme.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names, [UNICODE, UNICODE, ""]);
    assert_eq!((&without_key.key, without_key.client_time_us), (&None, None));
    assert_eq!(without_key.value.as_slice(), b"v");
}

fn check_node(node: &GetNodeResponse) {
    assert_eq!(node.metrics[2].value, Some(metric::Value::Gauge(-(1 << 53) - 1)));
    assert_eq!(node.metrics[0].labels["ä"], "1");
    let Some(metric::Value::Histogram(histogram)) = &node.metrics[4].value else { panic!("no histogram") };
    assert_eq!(histogram.buckets[1].upper_bound, f64::INFINITY);
    assert_eq!(node.groups[1].role(), Role::Leader);
    assert_eq!(node.disk.as_ref().map(|disk| disk.state()), Some(DiskState::Full));
    let ends: Vec<Option<u64>> = node.groups[1].damaged_ranges.iter().map(|range| range.next_offset).collect();
    assert_eq!(ends, [Some(0), None]);
}

fn check_update(request: &UpdateLogRequest) {
    let config = request.config.as_ref().expect("a config");
    assert_eq!((config.min_retained_bytes, config.max_record_bytes), (Some(0), None));
    assert_eq!(request.log_id.as_deref(), Some(""));
    assert_eq!(request.update_mask.as_ref().map(|mask| mask.paths.len()), Some(3));
}

fn check_create(request: &CreateLogRequest) {
    let config = request.config.as_ref().expect("a config");
    assert_eq!((config.replicas, config.labels["team"].as_str()), (Some(u32::MAX), UNICODE));
    assert_eq!((request.log_id.is_some(), request.validate_only), (true, true));
}

fn check_update_cluster(request: &UpdateClusterRequest) {
    let settings = request.settings.as_ref().expect("settings");
    let defaults = settings.log_defaults.as_ref().expect("defaults of logs");
    assert_eq!((settings.create_on_append, settings.deleted_log_retention.is_some()), (Some(false), true));
    assert_eq!((defaults.replicas, defaults.retention_age.is_none()), (Some(0), true));
    assert_eq!(request.expected_revision, Some(0));
    assert_eq!(request.update_mask.as_ref().map(|mask| mask.paths[0].as_str()), Some("log_defaults.retention_age"));
}
