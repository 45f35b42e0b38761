use protobuf::Message as _;

use super::*;
use crate::pb::{log as pb, v1};

const HEADERS: &[(&str, &[u8])] = &[("a", b"1"), ("", b""), ("a", &[0xff])];

fn samples() -> Vec<RecordFields<'static>> {
    vec![
        RecordFields::default(),
        RecordFields { value: b"hello", ..RecordFields::default() },
        RecordFields {
            value: &[7; 300],
            kind: u32::MAX,
            key: Some(b""),
            headers: HEADERS,
            client_time_us: Some(u64::MAX),
        },
        RecordFields { value: b"", kind: 1, key: Some(b"k"), headers: &HEADERS[..1], client_time_us: Some(0) },
    ]
}

fn stamped(base: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in samples() {
        let before = payload.len();
        assert_eq!(encode_record(&mut payload, &record), payload.len() - before);
    }
    assert_eq!(stamp_records(&mut payload, Offset(base), Term::MAX, 99), Ok(4));
    payload
}

#[test]
fn the_bytes_of_a_record_never_change() {
    let mut bytes = Vec::new();
    encode_record(
        &mut bytes,
        &RecordFields { value: b"v", kind: 2, key: Some(b"k"), headers: &[("h", b"x")], client_time_us: None },
    );
    stamp_records(&mut bytes, Offset(300), Term(1), 0x0102).expect("canonical");
    let golden = [
        0x1a, 0x2d, 0x0a, 1, b'v', 0x10, 0xac, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0x18, 0x81, 0x80, 0x80,
        0x80, 0x80, 0x80, 0x80, 0x80, 0, 0x20, 2, 0x29, 2, 1, 0, 0, 0, 0, 0, 0, 0x32, 1, b'k', 0x3a, 6, 0x0a, 1, b'h',
        0x12, 1, b'x',
    ];
    assert_eq!(bytes, golden);
    let timed = RecordFields { client_time_us: Some(0x0201), ..RecordFields::default() };
    let mut bytes = Vec::new();
    encode_record(&mut bytes, &timed);
    assert_eq!(bytes[bytes.len() - 9..], [0x41, 1, 2, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn any_protobuf_library_reads_it() {
    let payload = stamped(Offset::MAX.0 - 9);
    let response = pb::ConsumeResponse::parse_from_bytes(&payload).expect("the field of the response");
    assert_eq!(response.records.len(), 4);
    for (i, (record, fields)) in response.records.iter().zip(samples()).enumerate() {
        assert_eq!(record.value, fields.value);
        assert_eq!((record.offset, record.term), (Offset::MAX.0 - 9 + i as u64, Term::MAX.0));
        assert_eq!((record.type_, record.append_time_us), (fields.kind, 99));
        assert_eq!(record.key.as_deref(), fields.key);

        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|h| (h.name.as_str(), &h.value[..])).collect();
        assert_eq!(headers, fields.headers);
    }
    let response = v1::ConsumeResponse::parse_from_bytes(&payload).expect("the same field");
    let times: Vec<_> = response.records.iter().map(|record| record.client_time_us).collect();
    assert_eq!(times, [None, None, Some(u64::MAX), Some(0)]);
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
fn refuses_wrong_stamps() {
    let payload = stamped(10);
    assert_eq!(check_stamped(&payload, Offset(10), Term::MAX, 99, 4), Ok(()));
    assert!(check_stamped(&payload, Offset(11), Term::MAX, 99, 4).is_err());
    assert!(check_stamped(&payload, Offset(10), Term(1), 99, 4).is_err());
    assert!(check_stamped(&payload, Offset(10), Term::MAX, 98, 4).is_err());
    assert!(check_stamped(&payload, Offset(10), Term::MAX, 99, 3).is_err());
}

/// protobuf-java reads the tenth byte of a varint as 1, whatever its value. Once, values were padded to ten bytes, and
/// every Java client saw offsets and terms with bit 63 set. So values are padded to nine bytes, and larger ones are
/// rejected with an error.
#[test]
fn refuses_numbers_that_need_a_tenth_byte() {
    let mut payload = stamped(0);
    let largest = Offset(Offset::MAX.0 - 4);
    assert_eq!(stamp_records(&mut payload, largest, Term::MAX, 1), Ok(4));
    assert_eq!(check_stamped(&payload, largest, Term::MAX, 1, 4), Ok(()));
    for record in records(&payload) {
        let record = record.expect("a record");
        let fields = Fields::find(record).expect("canonical");
        for at in [fields.offset, fields.term] {
            let bytes = record[at..].iter().position(|byte| byte & 0x80 == 0).expect("its end") + 1;
            assert_eq!(bytes, PADDED_BYTES);
        }
    }
    // `next_offset` after them would be too large.
    let past = Offset(largest.0 + 1);
    assert_eq!(stamp_records(&mut payload.clone(), past, Term(1), 1), Err(OFFSET_TOO_LARGE));
    assert_eq!(stamp_records(&mut payload.clone(), Offset(u64::MAX - 2), Term(1), 1), Err(OFFSET_TOO_LARGE));
    assert_eq!(stamp_records(&mut payload.clone(), Offset(0), Term(1 << 63), 1), Err(TERM_TOO_LARGE));
    assert_eq!(
        check_stamped(&payload, past, Term(1), 1, 4),
        Err(BadEntry("a record is stamped otherwise than its entry"))
    );
    assert_eq!(check_stamped(&payload, Offset(1 << 63), Term(1), 1, 4), Err(OFFSET_TOO_LARGE));
    assert_eq!(check_stamped(&payload, largest, Term(1 << 63), 1, 4), Err(TERM_TOO_LARGE));
}

/// A record of format 1 is rejected, so that no client receives a value that is padded to ten bytes.
#[test]
fn ten_bytes_for_an_offset_are_not_canonical() {
    let mut bytes = Vec::new();
    encode_record(&mut bytes, &RecordFields::default());
    let fields = Fields::find(&bytes).expect("canonical");
    bytes[fields.offset + PADDED_BYTES - 1] = 0x80;
    bytes.insert(fields.offset + PADDED_BYTES, 0);
    bytes[1] += 1;
    assert!(records(&bytes).all(|record| record.is_ok()), "its length is right");
    assert!(stamp_records(&mut bytes, Offset(0), Term(1), 1).is_err());
}

#[test]
fn refuses_any_form_but_the_canonical_one() {
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
