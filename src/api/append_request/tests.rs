//! Requests are decoded into canonical payloads, or rejected with a reason.

use bytes::Bytes;
use protobuf::Message;

use super::*;
use crate::pb::log::{Header, ProduceRequest, Record};
use crate::storage::payload::{records, stamp_records};
use crate::types::Term;

fn record(value: &[u8]) -> Record {
    let mut record = Record::new();
    record.value = Bytes::copy_from_slice(value);
    record
}

fn bytes(request: &ProduceRequest) -> Vec<u8> {
    request.write_to_bytes().expect("a message")
}

/// Returns the records that a consumer would receive: stamped and decoded.
fn stored(request: &AppendRequest) -> Vec<Record> {
    let proposal = request.proposal();
    let mut payload = proposal.payload.to_vec();
    assert_eq!(stamp_records(&mut payload, Offset(5), Term(2), 77), Ok(proposal.count));
    let stored = records(&payload).map(|record| {
        let record = record.expect("canonical");
        let (_, body) = record.split_at(1);
        let mut input = protobuf::CodedInputStream::from_bytes(body);
        input.read_message::<Record>().expect("a record")
    });
    stored.collect()
}

#[test]
fn one_record_keeps_only_value_key_type_and_headers() {
    let mut given = record(b"foo");
    given.type_ = 9;
    given.key = Some(Bytes::new());
    for value in ["1", "2"] {
        let mut header = Header::new();
        header.name = "h".to_owned();
        header.value = Bytes::from(value);
        given.headers.push(header);
    }
    let mut forged = given.clone();
    (forged.offset, forged.term, forged.append_time_us) = (1 << 40, 99, 1);
    forged.mut_unknown_fields().add_varint(100, 1);
    let mut request = ProduceRequest::new();
    request.record = Some(forged).into();
    request.log = "other".to_owned();
    request.expected_offset = Some(0);
    request.log_id = Some(8);
    let decoded = AppendRequest::decode(&bytes(&request), Package::LogV1).expect("valid");
    let proposal = decoded.proposal();
    assert_eq!((decoded.log.as_str(), decoded.log_id, proposal.count), ("other", WantedLogId::of_number(Some(8)), 1));
    assert_eq!((proposal.expected_offset, proposal.producer_id), (Some(Offset(0)), 0));

    (given.offset, given.term, given.append_time_us) = (5, 2, 77);
    assert_eq!(stored(&decoded), [given]);
}

#[test]
fn a_batch_keeps_its_order_and_empty_records() {
    let mut request = ProduceRequest::new();
    request.records = vec![record(b"a"), record(b""), record(b"c")];
    let decoded = AppendRequest::decode(&bytes(&request), Package::LogV1).expect("valid");
    assert_eq!((decoded.proposal().count, decoded.log.as_str()), (3, "default"));
    let values: Vec<(u64, Vec<u8>)> = stored(&decoded).iter().map(|r| (r.offset, r.value.to_vec())).collect();
    assert_eq!(values, [(5, b"a".to_vec()), (6, Vec::new()), (7, b"c".to_vec())]);
}

#[test]
fn merges_repeated_fields_as_protobuf_requires() {
    let mut first = ProduceRequest::new();
    first.record = Some(record(b"old")).into();
    let mut second = ProduceRequest::new();
    let mut typed = record(b"new");
    typed.type_ = 3;
    second.record = Some(typed).into();
    let mut both = bytes(&first);
    both.extend(bytes(&second));
    let decoded = AppendRequest::decode(&both, Package::LogV1).expect("valid");
    let stored = stored(&decoded);
    assert_eq!((stored.len(), &stored[0].value[..], stored[0].type_), (1, &b"new"[..], 3));
}

fn error(message: &[u8]) -> Option<Invalid> {
    AppendRequest::decode(message, Package::LogV1).err()
}

#[test]
fn rejects_malformed_and_contradictory_requests() {
    assert_eq!(error(b""), Some(Invalid::NoRecordOrRecords));
    let mut request = ProduceRequest::new();
    request.log = "default".to_owned();
    assert_eq!(error(&bytes(&request)), Some(Invalid::NoRecordOrRecords));
    request.record = Some(record(b"a")).into();
    request.records.push(record(b"b"));
    assert_eq!(error(&bytes(&request)), Some(Invalid::RecordAndRecords));
    request.records.clear();
    request.log = "a b".to_owned();
    assert!(matches!(error(&bytes(&request)), Some(Invalid::LogName(_))));
    request.log.clear();
    let good = bytes(&request);
    assert_eq!(error(&good[..good.len() - 1]), Some(Invalid::Malformed));
    request.expected_offset = Some(1 << 63);
    assert_eq!(error(&bytes(&request)), Some(Invalid::ExpectedOffset(Offset(1 << 63))));
    // A header whose name is not UTF-8.
    let header = [0x0a, 7, 0x3a, 5, 0x0a, 1, 0xff, 0x12, 0];
    assert_eq!(error(&header), Some(Invalid::Malformed));
}

#[test]
fn two_million_empty_records_exceed_the_largest_entry() {
    let message: Vec<u8> = std::iter::repeat_n([0x1a, 0], 2 << 20).flatten().collect();
    match AppendRequest::decode(&message, Package::LogV1) {
        Err(Invalid::EntryTooLarge { bytes_max }) => assert_eq!(bytes_max, PAYLOAD_BYTES_MAX),
        other => panic!("{:?}", other.map(|decoded| decoded.proposal().count)),
    }
}
