//! Converts a line of input to a record, according to the options for key, headers, type and format.

use bytes::Bytes;

use super::encode::read_json;
use super::units;
use crate::pb::v1::{Header, Record};

/// The maximum bytes of an encoded tag and length.
const FIELD_BYTES: usize = 6;
/// The maximum overhead of an encoded record: offset, term, both times, type, and its own tag and length.
const RECORD_BYTES: usize = 10 + 10 + 9 + 9 + 4 * FIELD_BYTES;

/// One byte of a record becomes at most this many bytes of JSON, as in `\u0000`.
const JSON_FACTOR: usize = 6;
const JSON_OBJECT: usize = 64 << 10;

/// The format of an input line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// The value of a record
    #[default]
    Lines,
    /// A JSON object, as `consume --format json` writes it; offset, term and append time are ignored
    Json,
}

/// Options for the parts of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Records")]
pub struct RecordArgs {
    /// Format of a line
    #[arg(long, value_enum, default_value_t = InputFormat::Lines)]
    format: InputFormat,
    /// Key of every record; it may be empty
    #[arg(long, value_name = "TEXT", conflicts_with = "key_separator")]
    key: Option<String>,
    /// Split each line at the first SEPARATOR into key and value; a line without one has no key
    #[arg(long, value_name = "SEPARATOR", conflicts_with = "whole", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Header of every record; can be repeated, also with the same name
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// Type of every record, a number that only your application interprets
    #[arg(long = "type", value_name = "N", default_value_t = 0)]
    kind: u32,
    /// Event time of every record, like 2026-01-31T12:00:00Z; the log keeps it beside the append time
    #[arg(long, value_name = "TIME", value_parser = units::moment)]
    client_time: Option<u64>,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl RecordArgs {
    /// Checks the combination of options: JSON already contains the parts of each record.
    ///
    /// # Errors
    /// The options that conflict.
    pub fn check(&self, whole: bool) -> Result<(), String> {
        let plain = RecordArgs { format: InputFormat::Json, ..RecordArgs::default() };
        match self.format {
            InputFormat::Json if whole => Err("--format json does not go with --whole".to_owned()),
            InputFormat::Json if *self != plain => {
                Err("--format json does not go with --key, --key-separator, --header, --type and --client-time"
                    .to_owned())
            }
            InputFormat::Json | InputFormat::Lines => Ok(()),
        }
    }

    /// Converts a line to a record.
    ///
    /// # Errors
    /// The reason why the line is not a record.
    pub fn record(&self, line: Bytes) -> Result<Record, String> {
        if self.format == InputFormat::Json {
            return read_json(&line);
        }
        let (key, value) = match &self.key_separator {
            Some(separator) => match find(&line, separator.as_bytes()) {
                Some(at) => (Some(line.slice(..at)), line.slice(at + separator.len()..)),
                None => (None, line),
            },
            None => (self.key.as_ref().map(|key| Bytes::copy_from_slice(key.as_bytes())), line),
        };
        let headers = self.header.iter().map(|(name, value)| Header {
            name: name.clone(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..Header::default()
        });
        let (type_, client_time_us) = (self.kind, self.client_time);
        Ok(Record { key, value, type_, headers: headers.collect(), client_time_us, ..Record::default() })
    }

    /// Returns the maximum length of a line whose record has at most `record_bytes_max` bytes of key, value and
    /// headers.
    pub fn line_bytes_max(&self, record_bytes_max: usize) -> usize {
        match self.format {
            InputFormat::Json => record_bytes_max.saturating_mul(JSON_FACTOR).saturating_add(JSON_OBJECT),
            InputFormat::Lines => record_bytes_max + self.key_separator.as_ref().map_or(0, String::len),
        }
    }
}

/// Returns the bytes that count toward the limit of a record: value, key, and the names and values of its headers.
pub fn content_bytes(record: &Record) -> usize {
    let header = |header: &Header| header.name.len() + header.value.len();
    record.value.len() + record.key.as_ref().map_or(0, Bytes::len) + record.headers.iter().map(header).sum::<usize>()
}

/// Returns an upper bound of a record's encoded size.
pub fn stored_bytes(record: &Record) -> usize {
    content_bytes(record) + RECORD_BYTES + record.headers.len() * 3 * FIELD_BYTES
}

fn find(line: &[u8], wanted: &[u8]) -> Option<usize> {
    line.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::payload::{RecordFields, encode_record};

    fn record(args: &RecordArgs, line: &str) -> Record {
        let record = args.record(Bytes::copy_from_slice(line.as_bytes())).expect("a record");
        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|h| (h.name.as_str(), &h.value[..])).collect();
        let (value, key) = (&record.value[..], record.key.as_deref());
        let Record { type_: kind, client_time_us, .. } = record;
        let fields = RecordFields { value, kind, key, headers: &headers, client_time_us };
        let bytes = encode_record(&mut Vec::new(), &fields);
        assert!(bytes <= stored_bytes(&record), "{line:?}");
        assert!(line.len() <= args.line_bytes_max(content_bytes(&record)), "{line:?}");
        record
    }

    #[test]
    fn splits_a_line_at_the_first_separator() {
        let args = RecordArgs { key_separator: Some("::".into()), ..RecordArgs::default() };
        for (line, key, value) in [
            ("k::v", Some("k"), "v"),
            ("v", None, "v"),
            ("::v", Some(""), "v"),
            ("k::", Some("k"), ""),
            ("a::b::c", Some("a"), "b::c"),
        ] {
            let record = record(&args, line);
            assert_eq!(record.key.as_deref(), key.map(str::as_bytes), "{line}");
            assert_eq!(&record.value[..], value.as_bytes(), "{line}");
        }
    }

    #[test]
    fn adds_key_headers_and_type_to_every_record() {
        let args = RecordArgs {
            key: Some(String::new()),
            header: vec![parse_header("a=b=c").expect("one"), parse_header("a=").expect("one")],
            kind: u32::MAX,
            client_time: Some(7),
            ..RecordArgs::default()
        };
        let made = record(&args, "line");
        assert_eq!((made.key.as_deref(), made.type_), (Some(&b""[..]), u32::MAX));
        assert_eq!((made.headers[0].name.as_str(), &made.headers[0].value[..]), ("a", &b"b=c"[..]));
        assert_eq!((made.headers.len(), made.client_time_us), (2, Some(7)));
        record(&args, &"x".repeat(20_000));
        assert_eq!(content_bytes(&made), 4 + 1 + 3 + 1);
        assert!(parse_header("a").is_err());
        assert_eq!(record(&RecordArgs::default(), "x").key, None);
    }

    #[test]
    fn json_conflicts_with_other_options() {
        let json = RecordArgs { format: InputFormat::Json, ..RecordArgs::default() };
        assert_eq!(json.check(false), Ok(()));
        assert!(json.check(true).is_err());
        assert!(RecordArgs { kind: 1, ..json.clone() }.check(false).is_err());
        assert!(RecordArgs { client_time: Some(1), ..json.clone() }.check(false).is_err());
        assert!(RecordArgs { key: Some("a".into()), ..json.clone() }.check(false).is_err());
        let line = format!("{{\"value\":\"{}\"}}", "\\u0000".repeat(1000));
        let record = json.record(line.clone().into()).expect("a record");
        assert!(line.len() <= json.line_bytes_max(content_bytes(&record)));
    }
}
