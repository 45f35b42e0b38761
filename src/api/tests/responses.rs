//! Golden responses: the bytes that the server writes, and the decoded messages. `make test-decoders` decodes the same files in
//! other languages, because some decoders once read wrong offsets (`storage/format/payload.rs`).
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
use crate::api::messages::ConsumeReply;
use crate::api::status::{FailedAt, status_of, stream_status_of};
use crate::pb::{admin, health, log, status};
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
        RecordFields { value: b"", kind: 1, key: Some(b""), headers: &HEADERS[1..2] },
        RecordFields { value: &[0xfe; 300], kind: u32::MAX, key: Some(b"k\x00"), headers: HEADERS },
        RecordFields { value: b"\x80", kind: 1 << 31, ..RecordFields::default() },
    ]
}

fn meant(fields: &RecordFields<'_>, offset: u64, term: u64, time_us: u64) -> log::Record {
    let header = |(name, value): &(&str, &[u8])| log::Header {
        name: (*name).to_owned(),
        value: Bytes::copy_from_slice(value),
        ..log::Header::default()
    };
    log::Record {
        value: Bytes::copy_from_slice(fields.value),
        offset,
        term,
        type_: fields.kind,
        append_time_us: time_us,
        key: fields.key.map(Bytes::copy_from_slice),
        headers: fields.headers.iter().map(header).collect(),
        ..log::Record::default()
    }
}

/// Returns records as they are stored and sent, and as messages.
fn stored(records: &[RecordFields<'_>], base: u64, term: u64, time_us: u64) -> (Vec<u8>, Vec<log::Record>) {
    let mut payload = Vec::new();
    records.iter().for_each(|record| _ = encode_record(&mut payload, record));
    stamp_records(&mut payload, Offset(base), Term(term), time_us).expect("canonical");
    let meant = |(i, fields)| meant(fields, base + i as u64, term, time_us);
    (payload, records.iter().enumerate().map(meant).collect())
}

fn visible(first_offset: u64, next_offset: u64) -> Visible {
    Visible {
        applied: LogIndex(1),
        first_offset: Offset(first_offset),
        next_offset: Offset(next_offset),
        last_append_time_us: 1,
    }
}

fn consumed(samples: &mut Vec<Sample>) {
    let many = |records: Vec<log::Record>, first_offset, next_offset, log_id| log::ConsumeResponse {
        records,
        first_offset,
        next_offset,
        log_id,
        ..log::ConsumeResponse::default()
    };
    for (i, number) in NUMBERS.into_iter().enumerate() {
        // Each number as offset and as term, combined with another one.
        let term = NUMBERS[NUMBERS.len() - 1 - i];
        let time_us = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let one = [RecordFields { value: b"v", ..RecordFields::default() }];
        let (mut bytes, records) = stored(&one, number, term, time_us);
        let reply = ConsumeReply::many(bytes.clone(), visible(number / 2, number + 1), LogId(u64::MAX - number));
        let expected = many(records.clone(), number / 2, number + 1, u64::MAX - number);
        samples.push(sample(&format!("consume_many_{number}"), expected, reply.bytes()));
        retag(&mut bytes);
        let expected =
            log::ConsumeResponse { record: Some(records[0].clone()).into(), ..log::ConsumeResponse::default() };
        samples.push(sample(&format!("consume_one_{number}"), expected, ConsumeReply::one(bytes).bytes()));
    }
    let (mut bytes, mut records) = stored(&shapes(), 300, 7, 1_780_000_000_000_000);
    for base in [(1 << 32) - 2, Offset::MAX.0 - shapes().len() as u64] {
        let (more, meant) = stored(&shapes(), base, 1 << 40, u64::MAX);
        bytes.extend(more);
        records.extend(meant);
    }
    let reply = ConsumeReply::part(&bytes, visible(0, Offset::MAX.0), LogId(1));
    samples.push(sample("consume_batches", many(records, 0, Offset::MAX.0, 1), reply.bytes()));
    let empty = ConsumeReply::many(Vec::new(), visible(5, 5), LogId(0x8000_0000_0000_0000));
    samples.push(sample("consume_heartbeat", many(Vec::new(), 5, 5, 1 << 63), empty.bytes()));
}

fn answers(samples: &mut Vec<Sample>) {
    for number in NUMBERS {
        let answer = log::ProduceResponse {
            offset: number,
            count: number as u32,
            term: number,
            append_time_us: number,
            log_id: !number,
            duplicate: number % 2 == 0,
            ..log::ProduceResponse::default()
        };
        samples.push(plain(&format!("produce_{number}"), answer));
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
    samples.push(plain("get_node", node()));
    let settings = admin::ConfigureLogResponse {
        settings: MessageField::some(admin::LogSettings::default()),
        ..admin::ConfigureLogResponse::default()
    };
    samples.push(plain("configure_log", settings));
    samples.push(plain("trim", admin::TrimResponse { first_offset: Offset::MAX.0, ..admin::TrimResponse::default() }));
}

fn node() -> admin::GetNodeResponse {
    let range = |next_offset| admin::DamagedRange {
        file: "00000000000000000001.seg".to_owned(),
        position: 1 << 33,
        bytes: 8,
        first_offset: 1,
        next_offset,
        what: "the checksum does not match".to_owned(),
        ..admin::DamagedRange::default()
    };
    let group = admin::GroupStatus {
        group: 1,
        log: "default".to_owned(),
        role: admin::Role::ROLE_LEADER.into(),
        term: Term::MAX.0,
        last_index: 1 << 62,
        // Packed, as proto3 encodes it.
        voters: vec![1, u64::MAX, 0],
        learners: vec![1 << 63],
        settings: MessageField::some(admin::LogSettings { retention_bytes: u64::MAX, ..Default::default() }),
        damaged_ranges: vec![range(None), range(Some(0)), range(Some(Offset::MAX.0))],
        ..admin::GroupStatus::default()
    };
    let disk = admin::DiskStatus {
        state: admin::DiskState::DISK_STATE_FULL.into(),
        total_bytes: 1 << 44,
        reserve: true,
        ..admin::DiskStatus::default()
    };
    admin::GetNodeResponse {
        name: "a".to_owned(),
        node_id: u64::MAX,
        groups: vec![admin::GroupStatus::default(), group],
        counters: vec![admin::Counter { name: "x{y=\"z\"}".to_owned(), value: u64::MAX, ..Default::default() }],
        disk: MessageField::some(disk),
        ..admin::GetNodeResponse::default()
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
    for (name, status) in [
        ("status_past_end", status_of(&ApiError::OffsetPastEnd(bounds, Offset(u64::MAX)))),
        ("status_queue_full", status_of(&ApiError::QueueFull)),
        ("status_bad_name", status_of(&Invalid::LogName(bad_name).into())),
        ("status_stream", stream_status_of(&unknown, at)),
        ("status_no_leader", status_of(&ApiError::NoLeader)),
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
