use protobuf::Message as _;

use super::*;
use crate::pb::log as pb;

const HEADERS: &[(&str, &[u8])] = &[("a", b"1"), ("", b""), ("a", &[0xff])];

fn samples() -> Vec<RecordFields<'static>> {
    vec![
        RecordFields::default(),
        RecordFields { value: b"hello", ..RecordFields::default() },
        RecordFields { value: &[7; 300], kind: u32::MAX, key: Some(b""), headers: HEADERS },
        RecordFields { value: b"", kind: 1, key: Some(b"k"), headers: &HEADERS[..1] },
    ]
}

fn stamped(base: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in samples() {
        let before = payload.len();
        assert_eq!(encode_record(&mut payload, &record), payload.len() - before);
    }
    assert_eq!(stamp_records(&mut payload, Offset(base), Term(u64::MAX), 99), Ok(4));
    payload
}

#[test]
fn a_record_is_these_bytes() {
    let mut bytes = Vec::new();
    encode_record(&mut bytes, &RecordFields { value: b"v", kind: 2, key: Some(b"k"), headers: &[("h", b"x")] });
    stamp_records(&mut bytes, Offset(300), Term(1), 0x0102).expect("canonical");
    let golden = [
        0x1a, 0x2f, 0x0a, 1, b'v', 0x10, 0xac, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0x18, 0x81, 0x80,
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0x20, 2, 0x29, 2, 1, 0, 0, 0, 0, 0, 0, 0x32, 1, b'k', 0x3a, 6,
        0x0a, 1, b'h', 0x12, 1, b'x',
    ];
    assert_eq!(bytes, golden);
}

#[test]
fn any_protobuf_reads_it() {
    let payload = stamped(u64::MAX - 9);
    let response = pb::ConsumeResponse::parse_from_bytes(&payload).expect("the field of the response");
    assert_eq!(response.records.len(), 4);
    for (i, (record, fields)) in response.records.iter().zip(samples()).enumerate() {
        assert_eq!(record.value, fields.value);
        assert_eq!((record.offset, record.term), (u64::MAX - 9 + i as u64, u64::MAX));
        assert_eq!((record.type_, record.append_time_us), (fields.kind, 99));
        assert_eq!(record.key.as_deref(), fields.key);
        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|h| (h.name.as_str(), &h.value[..])).collect();
        assert_eq!(headers, fields.headers);
    }
    for (record, fields) in records(&payload).zip(samples()) {
        let mut record = record.expect("a record").to_vec();
        assert_eq!(record_value(&record), Ok(fields.value));
        assert_eq!(record_time_us(&record), Ok(99));
        retag(&mut record);
        let response = pb::ConsumeResponse::parse_from_bytes(&record).expect("a response");
        assert_eq!(response.record.value, fields.value);
    }
}

#[test]
fn stamps_are_checked() {
    let payload = stamped(10);
    assert_eq!(check_stamped(&payload, Offset(10), Term(u64::MAX), 99, 4), Ok(()));
    assert!(check_stamped(&payload, Offset(11), Term(u64::MAX), 99, 4).is_err());
    assert!(check_stamped(&payload, Offset(10), Term(1), 99, 4).is_err());
    assert!(check_stamped(&payload, Offset(10), Term(u64::MAX), 98, 4).is_err());
    assert!(check_stamped(&payload, Offset(10), Term(u64::MAX), 99, 3).is_err());
    assert!(stamp_records(&mut payload.clone(), Offset(u64::MAX - 2), Term(1), 1).is_err(), "overflow");
}

#[test]
fn nothing_but_the_canonical_form_is_taken() {
    let payload = stamped(10);
    for length in 1..payload.len() {
        let whole = records(&payload[..length]).all(|r| r.is_ok());
        assert_eq!(stamp_records(&mut payload[..length].to_vec(), Offset(10), Term(1), 1).is_ok(), whole, "{length}");
    }
    // What other encoders write: fields in another order, plain varints, an unknown field, an empty value.
    let mut record = pb::Record::new();
    record.value = b"v".to_vec().into();
    record.offset = 3;
    let plain = record.write_to_bytes().expect("encoded");
    let unknown = [&payload[..1], &[payload[1] + 2], &payload[2..payload[1] as usize + 2], &[0x40, 1]].concat();
    let empty_value = [&payload[..1], &[payload[1] + 2, 0x0a, 0], &payload[2..payload[1] as usize + 2]].concat();
    for mut bytes in
        [[&[0x1a, plain.len() as u8], &plain[..]].concat(), unknown, empty_value, vec![0; 10], vec![0x1a; 40]]
    {
        assert!(stamp_records(&mut bytes, Offset(0), Term(1), 1).is_err(), "{bytes:?}");
    }
    // Any single byte may be wrong: an error or another record, never a panic.
    for at in 0..payload.len() {
        let mut bytes = payload.clone();
        bytes[at] ^= 0x81;
        let _ = stamp_records(&mut bytes, Offset(10), Term(1), 1);
    }
}
