//! How `consume` writes a record.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::pb::log::Record;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The value and a newline
    Lines,
    /// The value alone
    Raw,
    /// One JSON object per line, with offset, term, time, type, key and headers; bytes that are no UTF-8 in base64, as value_base64
    Json,
}

/// Writes one record.
///
/// # Errors
/// The output's.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, record: &Record) -> String {
        let mut out = Vec::new();
        write(&mut out, format, record).expect("writes");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn formats() {
        let record =
            Record { offset: 7, term: 2, value: "a\"b".into(), key: Some(vec![0xff].into()), ..Record::default() };
        assert_eq!(written(Format::Lines, &record), "a\"b\n");
        assert_eq!(written(Format::Raw, &record), "a\"b");
        let json: Value = serde_json::from_str(&written(Format::Json, &record)).expect("JSON");
        assert_eq!(json, json!({"offset": 7, "term": 2, "append_time_us": 0, "key_base64": "/w==", "value": "a\"b"}));
    }
}
