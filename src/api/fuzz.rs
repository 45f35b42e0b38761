//! Fuzz loops of the decoders of clients' requests.

use protobuf::well_known_types::field_mask::FieldMask;
use protobuf::{Message, MessageField, MessageFull};

use super::append_request::AppendRequest;
use super::core::WantedLogId;
use super::error::Invalid;
use super::messages::{Request, decode};
use super::package::Package;
use super::wire::{canonical, check_known};
use crate::fuzz::{Loop, PROTOBUF_FIXED_BYTES, counted};
use crate::pb::{self, health, log, v1};
use crate::storage::payload::{RecordFields, check_stamped, encode_record, stamp_records};
use crate::types::{LogName, Offset, Term};
use crate::varint;

fn record(value: &[u8]) -> log::Record {
    log::Record { value: value.to_vec().into(), ..log::Record::default() }
}

fn produce_requests() -> Vec<Vec<u8>> {
    let mut full = record(b"value");
    full.type_ = 7;
    full.key = Some(b"key".to_vec().into());
    full.offset = 99;
    full.append_time_us = 98;
    let header = |name: &str| log::Header { name: name.into(), value: b"x".to_vec().into(), ..log::Header::default() };
    full.headers = vec![header("a"), header("")];
    let single = log::ProduceRequest { record: Some(full.clone()).into(), ..log::ProduceRequest::default() };
    let batch = log::ProduceRequest {
        log: "events".into(),
        records: vec![record(b""), full, record(&[9; 200])],
        expected_offset: Some(4),
        producer_id: 5,
        sequence: 6,
        log_id: Some(7),
        ..log::ProduceRequest::default()
    };
    [single, batch].iter().map(|request| request.write_to_bytes().expect("encoded")).collect()
}

/// Decodes with rust-protobuf and applies the rules of [`AppendRequest`]. Returns `Err(None)` for a malformed name.
fn by_protobuf(bytes: &[u8]) -> Result<(log::ProduceRequest, Vec<u8>), Option<Invalid>> {
    let request: log::ProduceRequest = pb::parse(bytes).map_err(|_| Some(Invalid::Malformed))?;
    let records: Vec<&log::Record> = match (request.record.as_ref(), &request.records[..]) {
        (Some(_), [_, ..]) => return Err(Some(Invalid::RecordAndRecords)),
        (Some(record), []) => vec![record],
        (None, []) => return Err(Some(Invalid::NoRecordOrRecords)),
        (None, records) => records.iter().collect(),
    };
    let mut payload = Vec::new();
    for record in records {
        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|h| (&*h.name, &h.value[..])).collect();
        let key = record.key.as_deref();
        let (value, kind) = (&record.value[..], record.type_);
        let fields = RecordFields { value, kind, key, headers: &headers, client_time_us: None };
        encode_record(&mut payload, &fields);
    }
    if let Some(offset) = request.expected_offset.map(Offset).filter(|offset| *offset > Offset::MAX) {
        return Err(Some(Invalid::ExpectedOffset(offset)));
    }
    // The name is checked last.
    LogName::new(&request.log).map_err(|_| None)?;
    Ok((request, payload))
}

/// Returns true for messages that the two decoders may treat differently. rust-protobuf rejects a varint that is longer
/// than its type needs (the standard drops the rest), skips a group, which proto3 does not have, without checking that
/// it ends, and replaces a `record` that occurs twice (the standard merges the two).
fn is_odd(message: &[u8], inside: &[u64]) -> bool {
    let mut rest = message;
    let mut singles = 0;
    let take = |rest: &mut &[u8]| {
        let (number, bytes) = varint::read(rest)?;
        let last = rest[bytes - 1];
        *rest = &rest[bytes..];
        Some((number, bytes, last))
    };
    while !rest.is_empty() {
        let Some((tag, bytes, last)) = take(&mut rest) else { return rest.len() >= 5 };
        if bytes > 5 || bytes == 5 && last > 15 || [3, 4].contains(&(tag & 7)) {
            return true;
        }
        let skipped = match tag & 7 {
            0 => match take(&mut rest) {
                // A record's `type` is a uint32.
                Some((_, bytes, last)) if inside == [7] && tag >> 3 == 4 && (bytes > 5 || bytes == 5 && last > 15) => {
                    return true;
                }
                Some((_, bytes, last)) if bytes > 9 && last > 1 => return true,
                Some(_) => 0,
                None => return rest.len() >= 5,
            },
            1 => 8,
            5 => 4,
            2 => {
                let Some((length, bytes, last)) = take(&mut rest) else { return rest.len() >= 5 };
                if bytes > 5 || bytes == 5 && last > 15 {
                    return true;
                }
                let Some(part) = rest.get(..length as usize) else { return false };
                let deeper = inside.contains(&(tag >> 3));
                singles += u32::from(inside == [1, 3] && tag >> 3 == 1);
                if singles > 1 {
                    return true;
                }
                if deeper && is_odd(part, if inside == [1, 3] { &[7] } else { &[] }) {
                    return true;
                }
                length as usize
            }
            _ => return false,
        };
        let Some(after) = rest.get(skipped..) else { return false };
        rest = after;
    }
    false
}

/// The decoder of the hot path and rust-protobuf agree on every message: whether it is accepted, and what it contains.
#[test]
fn produce_request() {
    let all = Loop::new("produce_request", produce_requests()).memory(400).memory_fixed(PROTOBUF_FIXED_BYTES);
    all.run(|bytes| {
        // rust-protobuf differs from the standard only for bytes that are not in canonical form.
        let right = canonical::<log::ProduceRequest>(bytes).map_err(Some);
        match (AppendRequest::decode(bytes, Package::LogV1), right.and_then(|right| by_protobuf(&right))) {
            (Ok(append), Ok((request, payload))) => {
                let batch = append.proposal();
                assert_eq!(batch.expected_offset, request.expected_offset.map(Offset));
                assert!(batch.payload[..] == payload[..], "the same records");
            }
            (Err(Invalid::LogName(_)), Err(None)) => {}
            (Err(ours), Err(Some(theirs))) => assert_eq!(ours, theirs),
            (ours, theirs) => panic!("ours: {ours:?}, protobuf's: {theirs:?}"),
        }
        let (ours, memory) = counted(|| AppendRequest::decode(bytes, Package::LogV1));
        assert!(memory <= 64 * bytes.len() + 1024, "{memory} bytes of memory for {}", bytes.len());
        let theirs = by_protobuf(bytes);
        let append = match (ours, theirs) {
            (Ok(append), Ok((request, payload))) if !is_odd(bytes, &[1, 3]) => {
                let batch = append.proposal();
                assert_eq!(append.log, LogName::new(&request.log).expect("a name"));
                assert_eq!(batch.expected_offset, request.expected_offset.map(Offset));
                assert_eq!((batch.producer_id, batch.sequence), (request.producer_id, request.sequence));
                assert_eq!(append.log_id(), WantedLogId::of_number(request.log_id));
                assert!(batch.payload[..] == payload[..], "the same records");
                append
            }
            (Err(Invalid::LogName(_)), Err(None)) => return false,
            (Err(ours), Err(Some(theirs))) => {
                assert!(ours == theirs || is_odd(bytes, &[1, 3]), "{ours:?} {theirs:?}");
                return false;
            }
            (Ok(append), Ok(_) | Err(_)) if is_odd(bytes, &[1, 3]) => append,
            (Err(Invalid::Malformed), Ok(_) | Err(None)) if is_odd(bytes, &[1, 3]) => return false,
            (ours, theirs) => panic!("ours: {ours:?}, protobuf's: {theirs:?}"),
        };
        // Only the canonical form reaches the log, and it is not much larger than the request.
        let batch = append.proposal();
        let mut stamped = batch.payload.to_vec();
        assert_eq!(stamp_records(&mut stamped, Offset(1), Term(2), 3), Ok(batch.count));
        assert_eq!(check_stamped(&stamped, Offset(1), Term(2), 3, batch.count), Ok(()));
        assert!(
            batch.count > 0 && batch.payload.len() <= 24 * bytes.len(),
            "{} of {}",
            batch.payload.len(),
            bytes.len()
        );
        true
    });
}

/// In `seriatim.v1`, the decoder of the hot path refuses exactly what the generic check refuses by the descriptor.
#[test]
fn strict_produce_request() {
    let header = v1::Header { name: "a".into(), value: b"x".to_vec().into(), ..v1::Header::default() };
    let record = v1::Record {
        value: b"v".to_vec().into(),
        offset: 9,
        type_: 7,
        append_time_us: 98,
        key: Some(b"key".to_vec().into()),
        headers: vec![header],
        client_time_us: Some(97),
        ..v1::Record::default()
    };
    let batch = v1::ProduceRequest {
        log: "events".into(),
        records: vec![v1::Record::default(), record],
        expected_offset: Some(4),
        log_id: Some("00000000000000ff".into()),
        restored_append_time_us: Some(96),
        ..v1::ProduceRequest::default()
    };
    let seed = batch.write_to_bytes().expect("encoded");
    Loop::new("strict_produce_request", vec![seed]).memory(400).memory_fixed(PROTOBUF_FIXED_BYTES).run(|bytes| {
        match (AppendRequest::decode(bytes, Package::SeriatimV1), check_known::<v1::ProduceRequest>(bytes)) {
            (Ok(_), Ok(())) => true,
            // The generic check looks at neither texts nor values.
            (
                Err(
                    Invalid::Malformed
                    | Invalid::NoRecords
                    | Invalid::LogName(_)
                    | Invalid::ExpectedOffset(_)
                    | Invalid::PartOfProducer
                    | Invalid::RestoredWhere,
                ),
                Ok(()),
            ) => false,
            // The first fault in the order of the bytes. A text that is not UTF-8 may come before.
            (Err(ours), Err(theirs)) => {
                assert!(ours == theirs || ours == Invalid::Malformed, "{ours:?} {theirs:?}");
                false
            }
            (ours, theirs) => panic!("ours: {ours:?}, the generic check: {theirs:?}"),
        }
    });
}

/// Fuzzes a small request: a decoded message is the same after it was encoded and decoded again.
fn small<M: MessageFull + PartialEq>(name: &'static str, seeds: Vec<M>) {
    let seeds = seeds.iter().map(|message| message.write_to_bytes().expect("encoded")).collect();
    Loop::new(name, seeds).memory(400).memory_fixed(PROTOBUF_FIXED_BYTES).run(|bytes| {
        let request = Request(bytes.to_vec());
        let Ok(message) = decode::<M>(&request, Package::LogV1) else { return false };
        let again = Request(message.write_to_bytes().expect("encoded"));
        // Unknown fields are kept and encoded too, so the second encoding may exceed the limit.
        assert!(decode::<M>(&again, Package::LogV1).is_ok_and(|again| again == message) || again.0.len() > 64 << 10);
        true
    });
}

#[test]
fn consume_request() {
    let full = log::ConsumeRequest {
        offset: 300,
        log: "events".into(),
        start_time_us: 1,
        max_records: 2,
        max_bytes: 3,
        wait_ms: 4,
        heartbeat_ms: 5,
        stop_at_end: true,
        log_id: Some(6),
        ..log::ConsumeRequest::default()
    };
    small("consume_request", vec![full]);
}

#[test]
fn log_requests() {
    small("log_requests", vec![log::GetLogRequest { log: "events".into(), ..log::GetLogRequest::default() }]);
}

#[test]
fn get_servers_request() {
    small("get_servers_request", vec![log::GetServersRequest { log: "a".into(), ..log::GetServersRequest::default() }]);
}

/// A message with every setting of a log.
fn settings() -> v1::LogConfig {
    v1::LogConfig {
        retention_age: MessageField::some(std::time::Duration::from_millis(1500).into()),
        min_retained_bytes: Some(300),
        max_record_bytes: Some(1024),
        max_request_bytes: Some(2048),
        replicas: Some(3),
        labels: [("team".to_owned(), "billing".to_owned()), ("tier".to_owned(), String::new())].into(),
        ..v1::LogConfig::default()
    }
}

#[test]
fn create_log_request() {
    let request = v1::CreateLogRequest {
        log: "events".into(),
        config: MessageField::some(settings()),
        log_id: Some("00000000000000ff".into()),
        validate_only: true,
        ..v1::CreateLogRequest::default()
    };
    small("create_log_request", vec![request]);
}

#[test]
fn delete_log_request() {
    let request = v1::DeleteLogRequest {
        log: "events".into(),
        log_id: "00000000000000ff".into(),
        expected_revision: Some(7),
        purge_after: MessageField::some(std::time::Duration::from_secs(9).into()),
        ..v1::DeleteLogRequest::default()
    };
    small("delete_log_request", vec![request]);
}

#[test]
fn update_cluster_request() {
    let paths = vec!["create_on_append".to_owned(), "log_defaults.replicas".to_owned()];
    let request = v1::UpdateClusterRequest {
        settings: MessageField::some(v1::ClusterSettings {
            log_defaults: MessageField::some(settings()),
            create_on_append: Some(true),
            ..v1::ClusterSettings::default()
        }),
        update_mask: MessageField::some(FieldMask { paths, ..FieldMask::default() }),
        expected_revision: Some(7),
        ..v1::UpdateClusterRequest::default()
    };
    small("update_cluster_request", vec![request]);
}

#[test]
fn trim_request() {
    let request = v1::TrimLogRequest { log: "events".into(), first_offset: 9, ..v1::TrimLogRequest::default() };
    small("trim_request", vec![request]);
}

#[test]
fn get_node_request() {
    small("get_node_request", vec![v1::GetNodeRequest::default()]);
}

#[test]
fn health_request() {
    let request = health::HealthCheckRequest { service: "log.v1.Log".into(), ..health::HealthCheckRequest::default() };
    small("health_request", vec![request]);
}
