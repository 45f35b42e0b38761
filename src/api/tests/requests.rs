//! Golden requests: bytes that encoders of other languages may send, and that the protobuf standard allows. Each request is decoded
//! as the standard requires. Bytes that every parser considers malformed are rejected.
//!
//! rust-protobuf alone rejects a varint with more bits than its type has (a `max_records` of -1 has 64), replaces a message field
//! that occurs twice, and does not check that a group ends.

use super::text::text;
use crate::api::append_request::AppendRequest;
use crate::api::error::Invalid;
use crate::api::messages::{Request, decode};
use crate::api::package::Package;
use crate::api::wire::canonical;
use crate::pb::{health, log, v1};
use crate::storage::payload::{records, stamp_records};
use crate::types::{Offset, Term};
use protobuf::{Message, MessageFull};

/// Parses hexadecimal text.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(&String::from_utf8_lossy(two), 16).expect("digits")).collect()
}

fn read<M: MessageFull>(hex: &str) -> Result<String, Invalid> {
    decode::<M>(&Request(bytes(hex)), Package::LogV1).map(|message| text(&message))
}

#[test]
fn reads_small_requests_as_the_standard_says() {
    for (what, hex, expected) in [
        ("nothing", "", "{}"),
        ("the shortest form", "08 05 28 07", r#"{"offset":"5","max_records":"7"}"#),
        ("defaults that are sent", "08 00 12 00 18 00 48 00", "{}"),
        ("an optional default that is sent", "51 0000000000000000", r#"{"log_id":"0"}"#),
        ("fields in another order", "28 07 08 05", r#"{"offset":"5","max_records":"7"}"#),
        ("the last of two wins", "08 05 28 07 08 06", r#"{"offset":"6","max_records":"7"}"#),
        ("the last of two wins, the default, too", "08 05 08 00", "{}"),
        ("a padded varint", "08 85 80 80 80 80 80 80 80 80 00", r#"{"offset":"5"}"#),
        ("the largest uint64", "08 ff ff ff ff ff ff ff ff ff 01", r#"{"offset":"18446744073709551615"}"#),
        ("bits past the 64th", "08 85 80 80 80 80 80 80 80 80 7e", r#"{"offset":"5"}"#),
        ("a padded uint32", "28 85 80 80 80 80 80 80 80 80 00", r#"{"max_records":"5"}"#),
        ("bits past the 32nd", "28 85 80 80 80 10", r#"{"max_records":"5"}"#),
        ("minus one as uint32", "28 ff ff ff ff ff ff ff ff ff 01", r#"{"max_records":"4294967295"}"#),
        ("minus one as an enum", "18 ff ff ff ff ff ff ff ff ff 01", r#"{"start":"-1"}"#),
        ("a padded enum", "18 82 80 80 80 80 80 80 80 80 00", r#"{"start":"2"}"#),
        ("an unknown value of an enum", "18 07", r#"{"start":"7"}"#),
        ("any bit makes true", "48 80 80 80 80 20", r#"{"stop_at_end":true}"#),
        ("a padded true", "48 81 80 80 80 80 80 80 80 80 00", r#"{"stop_at_end":true}"#),
        ("a padded tag", "88 80 80 00 05", r#"{"offset":"5"}"#),
        ("a padded length", "12 81 80 80 80 80 80 00 61", r#"{"log":"a"}"#),
        ("unknown fields of each type", "f8 7f 01 f9 7f 0000000000000000 fa 7f 01 00 fd 7f 00000000 08 05", FIVE),
        ("an unknown group", "f3 7f 08 01 f4 7f 08 05", FIVE),
        ("a group within a group", "f3 7f 0b 12 01 00 0c 0d 00000000 f4 7f 08 05", FIVE),
        ("a group under a known number", "0b 08 09 0c 08 05", FIVE),
        ("a known number of another type", "0a 01 61 0d 00000000 09 0000000000000000 08 05", FIVE),
        ("the largest field number", "f8 ff ff ff 0f 01 08 05", FIVE),
    ] {
        assert_eq!(read::<log::ConsumeRequest>(hex), Ok(expected.to_owned()), "{what}");
    }
    assert_eq!(read::<log::GetLogRequest>("0a 81 00 61 12 01 62"), Ok(r#"{"log":"a"}"#.to_owned()));
    assert_eq!(read::<log::GetServersRequest>("0a 81 00 61"), Ok(r#"{"log":"a"}"#.to_owned()));
    assert_eq!(read::<v1::TrimLogRequest>("10 85 80 00"), Ok(r#"{"first_offset":"5"}"#.to_owned()));
    assert_eq!(read::<health::HealthCheckRequest>("0a 81 00 61"), Ok(r#"{"service":"a"}"#.to_owned()));
}

const FIVE: &str = r#"{"offset":"5"}"#;

const MALFORMED: [(&str, &str); 12] = [
    ("a cut-off tag", "88"),
    ("a cut-off varint", "08 80"),
    ("a cut-off string", "12 02 61"),
    ("a varint of eleven bytes", "08 80 80 80 80 80 80 80 80 80 80 00"),
    ("field number 0", "00 00"),
    ("wire type 6", "0e"),
    ("wire type 7", "0f"),
    ("a group without its end", "f3 7f 08 01"),
    ("the end of another group", "f3 7f f4 7e"),
    ("the end of no group", "0c"),
    ("a group that is cut off", "f3 7f 12 05 00"),
    ("a tag of 33 bits", "88 80 80 80 10 05"),
];

fn refused(message: &[u8]) -> Option<Invalid> {
    AppendRequest::decode(message, Package::LogV1).err()
}

#[test]
fn rejects_bytes_that_every_parser_rejects() {
    for (what, hex) in MALFORMED {
        assert_eq!(read::<log::ConsumeRequest>(hex), Err(Invalid::Malformed), "{what}");
        // With a record, so that this is the only fault.
        assert_eq!(refused(&bytes(&format!("0a 00 {hex}"))), Some(Invalid::Malformed), "{what}");
    }
    assert_eq!(read::<log::ConsumeRequest>("12 01 ff"), Err(Invalid::Malformed), "a name that is not UTF-8");
    assert_eq!(refused(&bytes("0a 00 12 01 ff")), Some(Invalid::Malformed), "a name that is not UTF-8");
    let cut_in_two = bytes("0a 02 0a 02 0a 02 61 62");
    assert_eq!(refused(&cut_in_two), Some(Invalid::Malformed), "a record that continues in the next one");
    assert_eq!(canonical::<log::ProduceRequest>(&cut_in_two), Err(Invalid::Malformed), "the same");
    let nested = format!("{}{}", "0b".repeat(101), "0c".repeat(101));
    assert_eq!(read::<log::ConsumeRequest>(&nested), Err(Invalid::Malformed), "groups too deep");
    let deep = format!("{}{}", "0b".repeat(100), "0c".repeat(100));
    assert_eq!(read::<log::ConsumeRequest>(&deep), Ok("{}".to_owned()), "groups as deep as other parsers allow");
}

/// Returns the records of a produce request as they are stored, without the fields that the server adds.
fn produced(hex: &str) -> Result<String, Invalid> {
    let request = AppendRequest::decode(&bytes(hex), Package::LogV1)?;
    let proposal = request.proposal();
    let mut payload = proposal.payload.to_vec();
    assert_eq!(stamp_records(&mut payload, Offset(0), Term(0), 0), Ok(proposal.count));
    let record = |bytes: &[u8]| {
        let response = log::ConsumeResponse::parse_from_bytes(bytes).expect("stored");
        text(&log::Record { offset: 0, ..response.records[0].clone() })
    };
    Ok(records(&payload).map(|bytes| record(bytes.expect("canonical"))).collect::<Vec<_>>().join(" "))
}

#[test]
fn reads_produce_requests_as_the_standard_says() {
    for (what, hex, expected) in [
        ("an empty record", "0a 00", "{}"),
        ("empty records", "1a 00 1a 00", "{} {}"),
        ("a value", "0a 03 0a 01 61", r#"{"value":"61"}"#),
        ("an empty key", "0a 02 32 00", r#"{"key":""}"#),
        ("an empty header", "0a 02 3a 00", r#"{"headers":[{}]}"#),
        ("a value that comes twice", "0a 06 0a 01 61 0a 01 62", r#"{"value":"62"}"#),
        ("a record that comes twice is merged", "0a 03 0a 01 61 0a 02 20 07", r#"{"value":"61","type":"7"}"#),
        (
            "headers of a record that comes twice follow each other",
            "0a 05 3a 03 0a 01 61 0a 08 0a 01 76 3a 03 0a 01 62",
            r#"{"value":"76","headers":[{"name":"a"},{"name":"b"}]}"#,
        ),
        ("a header's name that comes twice", "0a 08 3a 06 0a 01 61 0a 01 62", r#"{"headers":[{"name":"b"}]}"#),
        ("a padded type", "0a 0b 20 85 80 80 80 80 80 80 80 80 00", r#"{"type":"5"}"#),
        ("a type of more than 32 bits", "0a 06 20 85 80 80 80 10", r#"{"type":"5"}"#),
        ("a type of minus one", "0a 0b 20 ff ff ff ff ff ff ff ff ff 01", r#"{"type":"4294967295"}"#),
        ("offset, term and time of the client's", "0a 0d 10 09 18 09 29 0900000000000000", "{}"),
        ("unknown fields", "0a 09 f8 7f 01 fb 7f fc 7f 20 07 f3 7f 0a 01 61 f4 7f", r#"{"type":"7"}"#),
        ("fields of another type", "08 05 1d 00000000 0a 08 08 01 22 01 61 0a 01 62", r#"{"value":"62"}"#),
        ("padded lengths", "0a 85 80 80 00 0a 82 00 61 62", r#"{"value":"6162"}"#),
    ] {
        assert_eq!(produced(hex), Ok(expected.to_owned()), "{what}");
    }
    let decoded = |hex: &str| AppendRequest::decode(&bytes(hex), Package::LogV1).expect("valid");
    let expected_offset = |hex: &str| decoded(hex).proposal().expected_offset;
    assert_eq!(expected_offset("0a 00 20 05 20 00"), Some(Offset(0)), "the last one, which is set");
    assert_eq!(expected_offset("0a 00"), None);
    assert_eq!(expected_offset("0a 00 20 85 80 80 80 80 80 80 80 80 00"), Some(Offset(5)));
    assert_eq!(decoded("0a 00 12 01 61 12 01 62").log.as_str(), "b");
    let minus_one = "0a 00 20 ff ff ff ff ff ff ff ff ff 01";
    assert_eq!(produced(minus_one), Err(Invalid::ExpectedOffset(Offset(u64::MAX))));
}
