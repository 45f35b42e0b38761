//! The payload of a records entry: its records in the exact wire form of field `records` = 3 of `log.v1`.
//!
//! Request and response share that field, so the bytes that a leader stores are replicated and sent to readers without
//! being decoded. The server encodes them; only value, key, type, headers and event time come from a client, so nothing
//! else can be forged:
//!
//! ```text
//! 1a length                the record, one of `records`
//!    0a length bytes       value            absent if empty
//!    10 nine bytes         offset           always, padded: it is set when the entry is appended
//!    18 nine bytes         term             the same
//!    20 varint             type             absent if 0
//!    29 eight bytes        append_time_us   always
//!    32 length bytes       key              absent if the record has none
//!    3a length             header, in their order
//!       0a length bytes       name          absent when empty
//!       12 length bytes       value         absent when empty
//!    41 eight bytes        client_time_us   absent if the record has none
//! ```
//!
//! Varints are as short as possible, except for the padded ones: eight bytes with the continuation bit and a ninth.
//! Nine bytes hold 63 bits, so offsets and terms have at most that many ([`Offset::MAX`]). A tenth byte would hold the
//! last bit, but protobuf-java ignores its value and assumes 1.

use crate::storage::format::entry::{BadEntry, OFFSET_TOO_LARGE, TERM_TOO_LARGE};
use crate::types::{Offset, Term};
use crate::varint::{self, PADDED_BYTES};

const RECORDS: u8 = 0x1a;
const RECORD: u8 = 0x12;
const VALUE: u8 = 0x0a;
const OFFSET: u8 = 0x10;
const TERM: u8 = 0x18;
const TYPE: u8 = 0x20;
const TIME: u8 = 0x29;
const KEY: u8 = 0x32;
const HEADER: u8 = 0x3a;
const CLIENT_TIME: u8 = 0x41;
const NAME: u8 = 0x0a;
const HEADER_VALUE: u8 = 0x12;

const TIME_BYTES: usize = 8;
/// Zero, padded: the offset and the term of a record that is not appended yet.
const UNSTAMPED: [u8; PADDED_BYTES] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0];

/// The fields of a record that the client sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordFields<'a> {
    pub value: &'a [u8],
    /// The producer's own `type`.
    pub kind: u32,
    pub key: Option<&'a [u8]>,
    /// Names and values, in their order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The event time, as the producer gave it.
    pub client_time_us: Option<u64>,
}

/// Appends a record in canonical form, unstamped; returns its length with tag and length field.
pub fn encode_record(out: &mut Vec<u8>, record: &RecordFields<'_>) -> usize {
    let header_bytes = |&(name, value): &(&str, &[u8])| bytes_field(name.len()) + bytes_field(value.len());
    let body = bytes_field(record.value.len())
        + 2 * (1 + PADDED_BYTES)
        + if record.kind == 0 { 0 } else { 1 + varint::bytes(u64::from(record.kind)) }
        + 1
        + TIME_BYTES
        + record.key.map_or(0, |key| 1 + varint::bytes(key.len() as u64) + key.len())
        + record.headers.iter().map(header_bytes).map(|n| 1 + varint::bytes(n as u64) + n).sum::<usize>()
        + record.client_time_us.map_or(0, |_| 1 + TIME_BYTES);
    let start = out.len();
    out.push(RECORDS);
    varint::put(out, body as u64);
    let body_start = out.len();
    put_bytes(out, VALUE, record.value);
    out.push(OFFSET);
    out.extend_from_slice(&UNSTAMPED);
    out.push(TERM);
    out.extend_from_slice(&UNSTAMPED);
    if record.kind != 0 {
        out.push(TYPE);
        varint::put(out, u64::from(record.kind));
    }
    out.push(TIME);
    out.extend_from_slice(&[0; TIME_BYTES]);
    if let Some(key) = record.key {
        out.push(KEY);
        varint::put(out, key.len() as u64);
        out.extend_from_slice(key);
    }
    for header in record.headers {
        out.push(HEADER);
        varint::put(out, header_bytes(header) as u64);
        put_bytes(out, NAME, header.0.as_bytes());
        put_bytes(out, HEADER_VALUE, header.1);
    }
    if let Some(time_us) = record.client_time_us {
        out.push(CLIENT_TIME);
        out.extend_from_slice(&time_us.to_le_bytes());
    }
    assert_eq!(out.len() - body_start, body);
    out.len() - start
}

/// Writes offset, term and time into every record, and returns the number of records.
///
/// # Errors
/// [`BadEntry`] if the payload is not canonical, or an offset or the term has more than 63 bits. Some records may be
/// stamped already then.
pub fn stamp_records(payload: &mut [u8], base: Offset, term: Term, append_time_us: u64) -> Result<u32, BadEntry> {
    let term = padded_term(term)?;
    let mut at = 0;
    let mut count = 0u32;
    while at < payload.len() {
        let fields = Fields::find(&payload[at..])?;
        put_at(payload, at + fields.offset, &padded_offset(base, count)?);
        put_at(payload, at + fields.term, &term);
        put_at(payload, at + fields.time, &append_time_us.to_le_bytes());
        count = count.checked_add(1).ok_or(BadEntry("too many records"))?;
        at += fields.bytes;
    }
    Ok(count)
}

/// Checks that every record is canonical and has this stamp. Followers check a leader's entries with it.
///
/// # Errors
/// [`BadEntry`] if one is not.
pub fn check_stamped(
    payload: &[u8],
    base: Offset,
    term: Term,
    append_time_us: u64,
    count: u32,
) -> Result<(), BadEntry> {
    let term = padded_term(term)?;
    let mut seen = 0u32;
    for record in records(payload) {
        let record = record?;
        let fields = Fields::find(record)?;
        let good = record[fields.offset..].starts_with(&padded_offset(base, seen)?)
            && record[fields.term..].starts_with(&term)
            && record[fields.time..].starts_with(&append_time_us.to_le_bytes());
        if !good {
            return Err(BadEntry("a record is stamped otherwise than its entry"));
        }
        seen = seen.checked_add(1).ok_or(BadEntry("too many records"))?;
    }
    if seen == count { Ok(()) } else { Err(BadEntry("a count of records that is not theirs")) }
}

/// Iterates over the records of a payload, each with its tag and length. Stops after the first error.
pub fn records(payload: &[u8]) -> impl Iterator<Item = Result<&[u8], BadEntry>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = record_bytes(rest).map(|bytes| {
            let (record, after) = rest.split_at(bytes);
            rest = after;
            record
        });
        if record.is_err() {
            rest = &[];
        }
        Some(record)
    })
}

/// The value of a canonical record, tag and length included.
///
/// # Errors
/// [`BadEntry`] if it is not canonical.
pub fn record_value(record: &[u8]) -> Result<&[u8], BadEntry> {
    let fields = Fields::find(record)?;
    Ok(&record[fields.value])
}

/// The append time of a canonical record, Unix microseconds.
///
/// # Errors
/// [`BadEntry`] if it is not canonical.
pub fn record_time_us(record: &[u8]) -> Result<u64, BadEntry> {
    let fields = Fields::find(record)?;
    Ok(crate::storage::format::entry::u64_at(record, fields.time))
}

/// Turns a record of field `records` = 3 into one of field `record` = 2.
///
/// # Panics
/// If the bytes are not a record.
pub fn retag(record: &mut [u8]) {
    assert_eq!(record.first(), Some(&RECORDS), "a record begins with its tag");
    record[0] = RECORD;
}

/// The positions of the fields of one canonical record, from its tag on.
struct Fields {
    value: std::ops::Range<usize>,
    offset: usize,
    term: usize,
    time: usize,
    bytes: usize,
}

impl Fields {
    /// Finds them in the first record of `payload`, and checks that it contains nothing else.
    fn find(payload: &[u8]) -> Result<Fields, BadEntry> {
        let bytes = record_bytes(payload)?;
        let mut walk = RecordParser { bytes: &payload[..bytes], at: 1 };
        walk.varint()?;
        let value = if walk.take(VALUE) { walk.bytes_of_length(1)? } else { walk.at..walk.at };
        walk.expect(OFFSET)?;
        let offset = walk.skip_padded()?;
        walk.expect(TERM)?;
        let term = walk.skip_padded()?;
        if walk.take(TYPE) && !(1..=u64::from(u32::MAX)).contains(&walk.varint()?) {
            return Err(BadEntry("a record's type is out of range"));
        }
        walk.expect(TIME)?;
        let time = walk.skip(TIME_BYTES)?.start;
        if walk.take(KEY) {
            walk.bytes_of_length(0)?;
        }
        while walk.take(HEADER) {
            let header = walk.bytes_of_length(0)?;
            let mut inner = RecordParser { bytes: &payload[..header.end], at: header.start };
            if inner.take(NAME) {
                let name = inner.bytes_of_length(1)?;
                std::str::from_utf8(&payload[name]).map_err(|_| BadEntry("a header's name is not UTF-8"))?;
            }
            if inner.take(HEADER_VALUE) {
                inner.bytes_of_length(1)?;
            }
            inner.end()?;
        }
        if walk.take(CLIENT_TIME) {
            walk.skip(TIME_BYTES)?;
        }
        walk.end()?;
        Ok(Fields { value, offset, term, time, bytes })
    }
}

struct RecordParser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl RecordParser<'_> {
    fn take(&mut self, tag: u8) -> bool {
        let there = self.bytes.get(self.at) == Some(&tag);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, tag: u8) -> Result<(), BadEntry> {
        if self.take(tag) { Ok(()) } else { Err(BadEntry("a record is not in canonical form")) }
    }

    fn end(&self) -> Result<(), BadEntry> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(BadEntry("a record is not in canonical form")) }
    }

    fn skip(&mut self, bytes: usize) -> Result<std::ops::Range<usize>, BadEntry> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.bytes.len());
        let range = self.at..end.ok_or(BadEntry("a record is cut off"))?;
        self.at = range.end;
        Ok(range)
    }

    fn skip_padded(&mut self) -> Result<usize, BadEntry> {
        let range = self.skip(PADDED_BYTES)?;
        if varint::is_padded(&self.bytes[range.clone()]) {
            Ok(range.start)
        } else {
            Err(BadEntry("a record is not in canonical form"))
        }
    }

    fn bytes_of_length(&mut self, least: u64) -> Result<std::ops::Range<usize>, BadEntry> {
        let length = self.varint()?;
        if length < least {
            return Err(BadEntry("a record is not in canonical form"));
        }
        self.skip(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A varint of at most five bytes, as short as can be.
    fn varint(&mut self) -> Result<u64, BadEntry> {
        let (number, bytes) = get_varint(&self.bytes[self.at..])?;
        self.at += bytes;
        Ok(number)
    }
}

/// How many bytes the first record of `payload` takes.
fn record_bytes(payload: &[u8]) -> Result<usize, BadEntry> {
    let Some((&RECORDS, rest)) = payload.split_first() else {
        return Err(BadEntry("no record where one should begin"));
    };
    let (length, bytes) = get_varint(rest)?;
    let end = usize::try_from(length).ok().and_then(|n| n.checked_add(1 + bytes));
    end.filter(|end| *end <= payload.len()).ok_or(BadEntry("a record is cut off"))
}

/// Decodes a varint of at most five bytes in its shortest form; also returns its length.
fn get_varint(from: &[u8]) -> Result<(u64, usize), BadEntry> {
    match varint::read(from) {
        Some((number, bytes)) if bytes <= 5 && bytes == varint::bytes(number) => Ok((number, bytes)),
        Some((_, bytes)) if bytes <= 5 => Err(BadEntry("a length with more bytes than it needs")),
        Some(_) | None => Err(BadEntry("a length that does not end")),
    }
}

/// Bytes of a field of bytes that is absent when empty.
fn bytes_field(length: usize) -> usize {
    if length == 0 { 0 } else { 1 + varint::bytes(length as u64) + length }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// The offset of a record, `position` records after `base`.
fn padded_offset(base: Offset, position: u32) -> Result<[u8; PADDED_BYTES], BadEntry> {
    // The offset after it must be valid too, because it becomes `next_offset`.
    let offset = base.plus(u64::from(position)).filter(|offset| *offset < Offset::MAX);
    Ok(varint::padded(offset.ok_or(OFFSET_TOO_LARGE)?.0))
}

fn padded_term(term: Term) -> Result<[u8; PADDED_BYTES], BadEntry> {
    if term <= Term::MAX { Ok(varint::padded(term.0)) } else { Err(TERM_TOO_LARGE) }
}

fn put_at(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

#[cfg(test)]
mod tests;
