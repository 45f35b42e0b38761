//! Golden responses: the bytes that the server writes, and the decoded messages. `make test-decoders` decodes the same
//! files in other languages, because some decoders once read wrong offsets (`storage/format/payload.rs`).
//!
//! If `SERIATIM_WRITE_GOLDEN` is set, the files are written instead of compared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use protobuf::well_known_types::any::Any;
use protobuf::{MessageDyn, MessageField, MessageFull};

use super::text::text;
use crate::api::error::{ApiError, Invalid, LogBounds};
use crate::api::messages::{ConsumeReply, ProduceReply, ReadState};
use crate::api::package::Package;
use crate::api::status::{FailedAt, StatusContext, status_of};
use crate::consensus::handle::Appended;
use crate::pb::{health, log, status, v1};
use crate::storage::payload::{RecordFields, encode_record, retag, stamp_records};
use crate::types::{LogId, LogIndex, LogName, Offset, Term};
use crate::watermark::Visible;

struct Sample {
    name: String,
    /// The message that the bytes encode.
    meant: Box<dyn MessageDyn>,
    bytes: Vec<u8>,
}

fn sample<M: MessageFull>(name: &str, meant: M, bytes: Vec<u8>) -> Sample {
    Sample { name: name.to_owned(), meant: Box::new(meant), bytes }
}

/// Creates a sample that gRPC's own `pb_ser` encodes.
fn plain<M: MessageFull>(name: &str, meant: M) -> Sample {
    let bytes = meant.write_to_bytes().expect("encoded");
    sample(name, meant, bytes)
}

/// Numbers at the limits of varints, of integer types in other languages, and of offsets. 1812 is from a real failure.
const NUMBERS: [u64; 17] = [
    0,
    1,
    127,
    128,
    1812,
    16_383,
    16_384,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    (1 << 53) + 1,
    (1 << 56) - 1,
    1 << 56,
    1 << 62,
    (1 << 62) + 1,
    (1 << 63) - 3,
    (1 << 63) - 2,
];

/// Records with all combinations of fields.
fn shapes() -> Vec<RecordFields<'static>> {
    const HEADERS: &[(&str, &[u8])] = &[("a", b"1"), ("", b""), ("a", &[0xff, 0]), ("n\u{e4}me \u{1f980}", b"")];
    vec![
        RecordFields::default(),
        RecordFields { value: b"hello", ..RecordFields::default() },
        RecordFields { value: b"", kind: 1, key: Some(b""), headers: &HEADERS[1..2], client_time_us: None },
        RecordFields {
            value: &[0xfe; 300],
            kind: u32::MAX,
            key: Some(b"k\x00"),
            headers: HEADERS,
            client_time_us: None,
        },
        RecordFields { value: b"\x80", kind: 1 << 31, ..RecordFields::default() },
    ]
}

fn meant(fields: &RecordFields<'_>, offset: u64, term: u64, time_us: u64) -> log::Record {
    let header = |(name, value): &(&str, &[u8])| log::Header {
        name: (*name).to_owned(),
        value: Bytes::copy_from_slice(value),
        ..log::Header::default()
    };
    let mut record = log::Record {
        value: Bytes::copy_from_slice(fields.value),
        offset,
        term,
        type_: fields.kind,
        append_time_us: time_us,
        key: fields.key.map(Bytes::copy_from_slice),
        headers: fields.headers.iter().map(header).collect(),
        ..log::Record::default()
    };
    // Clients of `log.v1` skip it.
    if let Some(time_us) = fields.client_time_us {
        protobuf::Message::mut_unknown_fields(&mut record).add_fixed64(8, time_us);
    }
    record
}

/// Returns records as they are stored and sent, and as messages.
fn stored(records: &[RecordFields<'_>], base: u64, term: u64, time_us: u64) -> (Vec<u8>, Vec<log::Record>) {
    let mut payload = Vec::new();
    records.iter().for_each(|record| _ = encode_record(&mut payload, record));
    stamp_records(&mut payload, Offset(base), Term(term), time_us).expect("canonical");
    let meant = |(i, fields)| meant(fields, base + i as u64, term, time_us);
    (payload, records.iter().enumerate().map(meant).collect())
}

fn state(package: Package, first_offset: u64, next_offset: u64, log_id: u64) -> ReadState {
    let visible = Visible {
        applied: LogIndex(1),
        first_offset: Offset(first_offset),
        next_offset: Offset(next_offset),
        last_append_time_us: 1,
    };
    ReadState { package, visible, log_id: LogId(log_id), resume: Offset(next_offset / 3) }
}

/// Returns a record of `log.v1` as one of `seriatim.v1`: the fields are the same.
fn renamed(record: &log::Record) -> v1::Record {
    let bytes = protobuf::Message::write_to_bytes(record).expect("encoded");
    protobuf::Message::parse_from_bytes(&bytes).expect("a record")
}

fn consumed(samples: &mut Vec<Sample>) {
    let old = |records: Vec<log::Record>, state: &ReadState| log::ConsumeResponse {
        records,
        first_offset: state.visible.first_offset.0,
        next_offset: state.visible.next_offset.0,
        log_id: state.log_id.0,
        ..log::ConsumeResponse::default()
    };
    let new = |records: &[log::Record], state: &ReadState| v1::ConsumeResponse {
        records: records.iter().map(renamed).collect(),
        first_offset: state.visible.first_offset.0,
        next_offset: state.visible.next_offset.0,
        log_id: state.log_id.to_string(),
        resume_offset: state.resume.0,
        ..v1::ConsumeResponse::default()
    };
    let mut both = |name: &str, bytes: &[u8], records: &[log::Record], (first, next, log_id)| {
        let of = state(Package::LogV1, first, next, log_id);
        samples.push(sample(name, old(records.to_vec(), &of), ConsumeReply::part(bytes, of).bytes()));
        let of = state(Package::SeriatimV1, first, next, log_id);
        samples.push(sample(&format!("v1_{name}"), new(records, &of), ConsumeReply::many(bytes.to_vec(), of).bytes()));
    };
    let mut single = Vec::new();
    for (i, number) in NUMBERS.into_iter().enumerate() {
        // Each number as offset and as term, combined with another one.
        let term = NUMBERS[NUMBERS.len() - 1 - i];
        let time_us = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let one = [RecordFields { value: b"v", ..RecordFields::default() }];
        let (mut bytes, records) = stored(&one, number, term, time_us);
        both(&format!("consume_many_{number}"), &bytes, &records, (number / 2, number + 1, u64::MAX - number));
        retag(&mut bytes);
        let expected =
            log::ConsumeResponse { record: Some(records[0].clone()).into(), ..log::ConsumeResponse::default() };
        single.push(sample(&format!("consume_one_{number}"), expected, ConsumeReply::one(bytes).bytes()));
    }
    let (mut bytes, mut records) = stored(&shapes(), 300, 7, 1_780_000_000_000_000);
    for base in [(1 << 32) - 2, Offset::MAX.0 - shapes().len() as u64] {
        let (more, meant) = stored(&shapes(), base, 1 << 40, u64::MAX);
        bytes.extend(more);
        records.extend(meant);
    }
    both("consume_batches", &bytes, &records, (0, Offset::MAX.0, 1));
    let timed = [Some(0), None, Some((1 << 53) + 1), Some(u64::MAX)];
    let timed = timed.map(|client_time_us| RecordFields { value: b"v", client_time_us, ..RecordFields::default() });
    let (bytes, records) = stored(&timed, 8, 3, 1_780_000_000_000_000);
    both("consume_event_times", &bytes, &records, (0, 12, 1));
    both("consume_heartbeat", &[], &[], (5, 5, 1 << 63));
    samples.extend(single);
}

fn answers(samples: &mut Vec<Sample>) {
    for number in NUMBERS {
        let appended = Appended {
            offset: Offset(number),
            count: number as u32,
            term: Term(number),
            index: LogIndex(1),
            append_time_us: number,
            duplicate: false,
        };
        let reply = |package| ProduceReply { package, appended, log_id: LogId(!number), receipt: None };
        let old = log::ProduceResponse {
            offset: number,
            count: number as u32,
            term: number,
            append_time_us: number,
            log_id: !number,
            ..log::ProduceResponse::default()
        };
        samples.push(sample(&format!("produce_{number}"), old, reply(Package::LogV1).bytes()));
        let new = v1::ProduceResponse {
            offset: number,
            count: number as u32,
            term: number,
            append_time_us: number,
            log_id: LogId(!number).to_string(),
            ..v1::ProduceResponse::default()
        };
        samples.push(sample(&format!("v1_produce_{number}"), new, reply(Package::SeriatimV1).bytes()));
    }
    let server = |node_id: u64, is_leader| log::Server {
        id: format!("n{node_id:x}"),
        rpc_addr: format!("[::1]:{}", 8400 + node_id % 7),
        is_leader,
        node_id,
        is_voter: true,
        ..log::Server::default()
    };
    let servers = log::GetServersResponse {
        servers: vec![server(1, false), server(u64::MAX, true), log::Server::default()],
        cluster_id: "0123456789abcdef".to_owned(),
        term: Term::MAX.0,
        ..log::GetServersResponse::default()
    };
    samples.push(plain("get_servers", servers));
    let log = log::GetLogResponse {
        log: "default".to_owned(),
        log_id: u64::MAX,
        first_offset: 1 << 40,
        next_offset: Offset::MAX.0,
        first_append_time_us: 1_780_000_000_000_000,
        last_append_time_us: u64::MAX,
        record_bytes_max: 1 << 20,
        request_bytes_max: u32::MAX,
        stored_bytes: u64::MAX,
        ..log::GetLogResponse::default()
    };
    samples.push(plain("get_log", log));
    let serving = health::HealthCheckResponse {
        status: health::health_check_response::ServingStatus::SERVING.into(),
        ..health::HealthCheckResponse::default()
    };
    samples.push(plain("health", serving));
    samples.push(plain("v1_get_node", node()));
    let servers = v1::GetServersResponse {
        servers: vec![v1::Server { id: "n1".to_owned(), node_id: "00000000000000ff".to_owned(), ..Default::default() }],
        term: Term::MAX.0,
        feature_level: u32::MAX,
        version: "1.0.0".to_owned(),
        ..v1::GetServersResponse::default()
    };
    samples.push(plain("v1_get_servers", servers));
    let position = v1::LogPosition {
        first_offset: 1 << 40,
        next_offset: Offset::MAX.0,
        first_append_time_us: 1_780_000_000_000_000,
        last_append_time_us: u64::MAX,
        stored_bytes: u64::MAX,
        ..v1::LogPosition::default()
    };
    let log = v1::LogInfo {
        name: "default".to_owned(),
        log_id: "fedcba9876543210".to_owned(),
        config: MessageField::some(settings()),
        position: MessageField::some(position),
        ..v1::LogInfo::default()
    };
    let log = || MessageField::some(log.clone());
    samples.push(plain("v1_get_log", v1::GetLogResponse { log: log(), ..Default::default() }));
    samples.push(plain("v1_update_log", v1::UpdateLogResponse { log: log(), ..Default::default() }));
    let trim = v1::TrimLogResponse { log: log(), trimmed_records: Offset::MAX.0, ..Default::default() };
    samples.push(plain("v1_trim_log", trim));
}

fn settings() -> v1::LogConfig {
    v1::LogConfig {
        retention_age: MessageField::some(Duration::from_millis(1500).into()),
        min_retained_bytes: Some(0),
        max_record_bytes: Some(1 << 20),
        max_request_bytes: Some(u32::MAX),
        ..v1::LogConfig::default()
    }
}

fn node() -> v1::GetNodeResponse {
    let range = |next_offset| v1::DamagedRange {
        file: "00000000000000000001.seg".to_owned(),
        position: 1 << 33,
        bytes: 8,
        first_offset: 1,
        next_offset,
        what: "the checksum does not match".to_owned(),
        ..v1::DamagedRange::default()
    };
    let group = v1::GroupStatus {
        log: "default".to_owned(),
        role: v1::Role::ROLE_LEADER.into(),
        term: Term::MAX.0,
        last_index: 1 << 62,
        replicas: vec![v1::Replica::default(), v1::Replica { is_voter: true, ..Default::default() }],
        config: MessageField::some(settings()),
        damaged_ranges: vec![range(None), range(Some(0)), range(Some(Offset::MAX.0))],
        ..v1::GroupStatus::default()
    };
    let disk = v1::DiskStatus {
        state: v1::DiskState::DISK_STATE_FULL.into(),
        total_bytes: 1 << 44,
        reserve: true,
        ..v1::DiskStatus::default()
    };
    let mut counter = v1::Metric { name: "x".to_owned(), ..Default::default() };
    counter.labels.insert("y".to_owned(), "z".to_owned());
    counter.set_counter(u64::MAX);
    let mut gauge = v1::Metric::new();
    gauge.set_gauge(i64::MIN);
    v1::GetNodeResponse {
        name: "a".to_owned(),
        node_id: "ffffffffffffffff".to_owned(),
        groups: vec![v1::GroupStatus::default(), group],
        metrics: vec![counter, gauge],
        disk: MessageField::some(disk),
        ..v1::GetNodeResponse::default()
    }
}

/// Statuses that the server creates.
fn statuses(samples: &mut Vec<Sample>) {
    let log = || LogName::new("default").expect("a name");
    let bounds = LogBounds {
        log: log(),
        log_id: LogId(0xfedc_ba98_7654_3210),
        first_offset: Offset(5),
        next_offset: Offset(Offset::MAX.0),
    };
    let bad_name = LogName::new("n\u{f6} n\u{e4}me").expect_err("no name");
    let unknown = ApiError::OutcomeUnknown { retry_is_safe: true };
    let at = FailedAt { failed_request: 3, unknown_through: Some(u64::MAX) };
    let context = StatusContext { package: Package::SeriatimV1, leader: Some("n1:8400".to_owned()), at: None };
    let failed_stream = StatusContext { at: Some(at), ..context.clone() };
    for (name, status) in [
        ("status_past_end", status_of(&ApiError::OffsetPastEnd(bounds, Offset(u64::MAX)), &context)),
        ("status_queue_full", status_of(&ApiError::QueueFull, &context)),
        ("status_bad_name", status_of(&Invalid::LogName(bad_name).into(), &context)),
        ("status_stream", status_of(&unknown, &failed_stream)),
        ("status_no_leader", status_of(&ApiError::NoLeader, &context)),
    ] {
        let details: status::Status = protobuf::Message::parse_from_bytes(status.details()).expect("a status");
        assert_eq!((details.code, details.message.as_str()), (i32::from(status.code()), status.message()), "{name}");
        samples.push(sample(name, details, status.details().to_vec()));
    }
    // A status with all kinds of details.
    let mut all = status::Status { code: -1, message: "all of them".to_owned(), ..Default::default() };
    let info = crate::pb::error_details::ErrorInfo {
        reason: "R".to_owned(),
        domain: "seriatim".to_owned(),
        metadata: [("k".to_owned(), String::new())].into(),
        ..Default::default()
    };
    let delay = Duration::from_millis(200);
    let retry =
        crate::pb::error_details::RetryInfo { retry_delay: MessageField::some(delay.into()), ..Default::default() };
    let localized = crate::pb::error_details::LocalizedMessage {
        locale: "en-US".to_owned(),
        message: "\u{e4}".to_owned(),
        ..Default::default()
    };
    let pack = |any: protobuf::Result<Any>| any.expect("packed");
    all.details = vec![pack(Any::pack(&info)), pack(Any::pack(&retry)), pack(Any::pack(&localized))];
    samples.push(plain("status_all_details", all));
}

fn golden() -> PathBuf {
    crate::golden::folder().join("wire")
}

#[test]
fn responses_are_the_golden_bytes_and_mean_the_same() {
    let mut samples = Vec::new();
    consumed(&mut samples);
    answers(&mut samples);
    statuses(&mut samples);
    let (mut list, mut expected) = (String::new(), String::new());
    let mut files = BTreeMap::new();
    for Sample { name, meant, bytes } in samples {
        let descriptor = meant.descriptor_dyn();
        let read = descriptor.parse_from_bytes(&bytes).expect("a message");
        assert_eq!(text(&*read), text(&*meant), "{name}");
        list.push_str(&format!("{name} {}\n", descriptor.full_name()));
        expected.push_str(&format!("{{\"name\":\"{name}\",\"value\":{}}}\n", text(&*meant)));
        assert!(files.insert(format!("{name}.bin"), bytes).is_none(), "two samples are called {name}");
    }
    files.insert("samples.txt".to_owned(), list.into_bytes());
    files.insert("expected.jsonl".to_owned(), expected.into_bytes());
    let is_same = |name: &str, file: &[u8], bytes: &[u8]| {
        if !(name.starts_with("status") && name.ends_with(".bin")) {
            return file == bytes;
        }
        // The entries of a map have no order, so the same status may have different bytes.
        let read = |bytes: &[u8]| status::Status::descriptor().parse_from_bytes(bytes).expect("a status");
        text(&*read(file)) == text(&*read(bytes))
    };
    for (name, bytes) in &files {
        let path = golden().join(name);
        let file = std::fs::read(&path).unwrap_or_default();
        if is_same(name, &file, bytes) {
            continue;
        }
        assert!(crate::golden::writes(), "{name} differs from what the server writes");
        std::fs::write(&path, bytes).expect("written");
    }
    let there = std::fs::read_dir(golden()).expect("listed").count();
    assert_eq!(there, files.len(), "files in {} without a sample", golden().display());
}
