//! Converts records to text for `consume`, and from text for `produce --format json`.

use std::io::{self, Write};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::pb::v1::{Header, Record};

/// The output format of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The value and a newline
    Lines,
    /// The value alone
    Raw,
    /// One JSON object per line, with offset, term, times, type, key and headers; bytes that are not UTF-8 in base64,
    /// as value_base64
    Json,
}

/// Writes one record.
///
/// # Errors
/// If the output can't be written.
pub fn write(out: &mut impl Write, format: Format, record: &Record) -> io::Result<()> {
    match format {
        Format::Raw => out.write_all(&record.value),
        Format::Lines => {
            out.write_all(&record.value)?;
            out.write_all(b"\n")
        }
        Format::Json => {
            serde_json::to_writer(&mut *out, &object(record))?;
            out.write_all(b"\n")
        }
    }
}

fn object(record: &Record) -> Value {
    let mut object = Map::new();
    object.insert("offset".into(), record.offset.into());
    object.insert("term".into(), record.term.into());
    object.insert("append_time_us".into(), record.append_time_us.into());
    if let Some(time_us) = record.client_time_us {
        object.insert("client_time_us".into(), time_us.into());
    }
    if record.type_ != 0 {
        object.insert("type".into(), record.type_.into());
    }
    if let Some(key) = &record.key {
        insert_bytes(&mut object, "key", key);
    }
    if !record.headers.is_empty() {
        let headers = record.headers.iter().map(|header| {
            let mut object = Map::new();
            object.insert("name".into(), json!(header.name));
            insert_bytes(&mut object, "value", &header.value);
            Value::Object(object)
        });
        object.insert("headers".into(), headers.collect());
    }
    insert_bytes(&mut object, "value", &record.value);
    Value::Object(object)
}

fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), openssl::base64::encode_block(bytes).into()),
    };
}

/// Parses a record in the JSON format of [`write`]. Offset, term and append time are ignored, because the log assigns
/// them.
///
/// # Errors
/// The reason why the line is not a record.
pub fn read_json(line: &[u8]) -> Result<Record, String> {
    let mut object = match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("not a JSON object".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    for assigned in ["offset", "term", "append_time_us"] {
        object.remove(assigned);
    }
    let type_ = match object.remove("type") {
        None => 0,
        Some(number) => number.as_u64().and_then(|n| n.try_into().ok()).ok_or("type is not a number below 2^32")?,
    };
    let client_time_us = match object.remove("client_time_us") {
        None => None,
        Some(number) => Some(number.as_u64().ok_or("client_time_us is not a number of microseconds")?),
    };
    let key = take_bytes(&mut object, "key")?;
    let headers = match object.remove("headers") {
        None => Vec::new(),
        Some(Value::Array(headers)) => headers.into_iter().map(header).collect::<Result<_, _>>()?,
        Some(_) => return Err("headers is not a list".to_owned()),
    };
    let value = take_bytes(&mut object, "value")?.ok_or("value and value_base64 are missing")?;
    nothing_else(&object)?;
    Ok(Record { value, key, type_, headers, client_time_us, ..Record::default() })
}

fn header(header: Value) -> Result<Header, String> {
    let Value::Object(mut object) = header else { return Err("a header is not an object".to_owned()) };
    let Some(Value::String(name)) = object.remove("name") else { return Err("a header has no name".to_owned()) };
    let value = take_bytes(&mut object, "value")?.unwrap_or_default();
    nothing_else(&object)?;
    Ok(Header { name, value, ..Header::default() })
}

fn take_bytes(object: &mut Map<String, Value>, name: &str) -> Result<Option<Bytes>, String> {
    let in_base64 = format!("{name}_base64");
    match (object.remove(name), object.remove(&in_base64)) {
        (None, None) => Ok(None),
        (Some(Value::String(text)), None) => Ok(Some(text.into_bytes().into())),
        (None, Some(Value::String(text))) => {
            let bytes = openssl::base64::decode_block(&text).map_err(|_| format!("{in_base64} is not base64"))?;
            Ok(Some(bytes.into()))
        }
        (Some(_), Some(_)) => Err(format!("both {name} and {in_base64} are given")),
        (Some(_), None) => Err(format!("{name} is not a string")),
        (None, Some(_)) => Err(format!("{in_base64} is not a string")),
    }
}

/// Rejects unknown fields, because they are probably misspelt.
fn nothing_else(object: &Map<String, Value>) -> Result<(), String> {
    object.keys().next().map_or(Ok(()), |name| Err(format!("{name:?} is not a field of a record")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, record: &Record) -> String {
        let mut out = Vec::new();
        write(&mut out, format, record).expect("writes");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn writes_each_format() {
        let record =
            Record { offset: 7, term: 2, value: "a\"b".into(), key: Some(vec![0xff].into()), ..Record::default() };
        assert_eq!(written(Format::Lines, &record), "a\"b\n");
        assert_eq!(written(Format::Raw, &record), "a\"b");
        let json: Value = serde_json::from_str(&written(Format::Json, &record)).expect("JSON");
        assert_eq!(json, json!({"offset": 7, "term": 2, "append_time_us": 0, "key_base64": "/w==", "value": "a\"b"}));
    }

    #[test]
    fn parses_the_json_that_it_writes() {
        let header = |name: &str, value: &[u8]| Header {
            name: name.into(),
            value: Bytes::copy_from_slice(value),
            ..Header::default()
        };
        let bytes: Vec<u8> = (0..=255).collect();
        for value in [&b""[..], b"text", &bytes, b"\xff", b"\xff\xfe"] {
            let record = Record {
                client_time_us: Some(u64::MAX),
                value: Bytes::copy_from_slice(value),
                key: Some(Bytes::copy_from_slice(value)),
                type_: u32::MAX,
                headers: vec![header("", value), header("n", b"v"), header("n", value)],
                ..Record::default()
            };
            let stored = Record { offset: 7, term: 2, append_time_us: 3, ..record.clone() };
            assert_eq!(read_json(written(Format::Json, &stored).as_bytes()), Ok(record));
        }
        let plain = Record { value: "v".into(), ..Record::default() };
        assert_eq!(read_json(br#"{"value":"v"}"#), Ok(plain.clone()));
        let at_0 = Record { client_time_us: Some(0), ..plain };
        assert_eq!(read_json(br#"{"value":"v","client_time_us":0}"#), Ok(at_0));
    }

    #[test]
    fn rejects_json_that_is_not_a_record() {
        for (line, what) in [
            ("[]", "not a JSON object"),
            ("{", "EOF"),
            ("{}", "value and value_base64 are missing"),
            (r#"{"value":1}"#, "value is not a string"),
            (r#"{"value":"a","value_base64":"YQ=="}"#, "both value and value_base64"),
            (r#"{"value_base64":"?"}"#, "not base64"),
            (r#"{"vlaue":"a","value":"b"}"#, "\"vlaue\" is not a field"),
            (r#"{"value":"b","type":-1}"#, "type is not a number"),
            (r#"{"value":"b","client_time_us":-1}"#, "client_time_us is not a number"),
            (r#"{"value":"b","client_time_us":null}"#, "client_time_us is not a number"),
            (r#"{"value":"b","type":4294967296}"#, "type is not a number"),
            (r#"{"value":"b","headers":[{"value":"c"}]}"#, "no name"),
        ] {
            let error = read_json(line.as_bytes()).expect_err(line);
            assert!(error.contains(what), "{line}: {error}");
        }
    }
}
