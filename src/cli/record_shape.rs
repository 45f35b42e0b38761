//! What `produce` puts into each record besides the line: key, headers, type.

use bytes::Bytes;

use crate::pb::log::{Header, Record};

/// What a tag and a length take at most, bytes.
const FIELD_BYTES: usize = 6;

/// Options for what a record has besides its value.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Records")]
pub struct RecordArgs {
    /// The key of every record; it may be empty
    #[arg(long, value_name = "TEXT", conflicts_with = "key_separator")]
    key: Option<String>,
    /// What stands before the first SEPARATOR of a line is its key, what stands behind it its value; a line without it has no key
    #[arg(long, value_name = "SEPARATOR", conflicts_with = "whole", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// A header of every record; may be given again, and names may repeat
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// The type of every record, a number of your own
    #[arg(long = "type", value_name = "N", default_value_t = 0)]
    kind: u32,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a name, `=` and a value")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl RecordArgs {
    /// The record of a line.
    pub fn record(&self, line: Bytes) -> Record {
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
        Record { key, value, type_: self.kind, headers: headers.collect(), ..Record::default() }
    }

    /// Bytes that a record takes at most, besides those of a record that is only the line.
    pub fn more_bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| FIELD_BYTES + key.len());
        let separated = if self.key_separator.is_some() { 2 * FIELD_BYTES } else { 0 };
        let header = |(name, value): &(String, String)| 3 * FIELD_BYTES + name.len() + value.len();
        let kind = if self.kind == 0 { 0 } else { FIELD_BYTES };
        // The length of the whole may take more, too.
        let more = key + separated + self.header.iter().map(header).sum::<usize>() + kind;
        if more == 0 { 0 } else { more + FIELD_BYTES }
    }
}

fn find(line: &[u8], wanted: &[u8]) -> Option<usize> {
    line.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::lines::record_bytes;
    use crate::storage::payload::{RecordFields, encode_record};

    fn record(args: &RecordArgs, line: &str) -> Record {
        let record = args.record(Bytes::copy_from_slice(line.as_bytes()));
        let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|h| (h.name.as_str(), &h.value[..])).collect();
        let (value, key) = (&record.value[..], record.key.as_deref());
        let bytes = encode_record(&mut Vec::new(), &RecordFields { value, kind: record.type_, key, headers: &headers });
        assert!(bytes <= record_bytes(line.len()) + args.more_bytes(), "{line:?}");
        record
    }

    #[test]
    fn a_key_stands_before_the_separator() {
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
    fn every_record_has_what_is_said_of_every_record() {
        let args = RecordArgs {
            key: Some(String::new()),
            header: vec![parse_header("a=b=c").expect("one"), parse_header("a=").expect("one")],
            kind: u32::MAX,
            ..RecordArgs::default()
        };
        let made = record(&args, "line");
        assert_eq!((made.key.as_deref(), made.type_), (Some(&b""[..]), u32::MAX));
        assert_eq!((made.headers[0].name.as_str(), &made.headers[0].value[..]), ("a", &b"b=c"[..]));
        assert_eq!(made.headers.len(), 2);
        record(&args, &"x".repeat(20_000));
        assert!(parse_header("a").is_err());
        assert_eq!(RecordArgs::default().more_bytes(), 0);
        assert_eq!(record(&RecordArgs::default(), "x").key, None);
    }
}
