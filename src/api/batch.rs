//! A produce request, from a client's bytes to the canonical payload that is replicated and stored.
//!
//! Of a client's record only value, key, type and headers are kept, and the log writes them in its own form
//! (`storage/payload.rs`): nothing else can be smuggled in, and offset, term and time can't be forged.

use super::core::check_log_id;
use super::errors::{ApiError, Invalid};
use super::wire::{Fields, Value};
use crate::catalog::LogMeta;
use crate::logs::OpenLog;
use crate::storage::entry::{ENTRY_BYTES_MAX, Stamp, Unstamped};
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{LogName, Offset};

/// What the records of one entry may have together.
const PAYLOAD_BYTES_MAX: usize = ENTRY_BYTES_MAX - Stamp::BYTES;

/// One request, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where to.
    pub log: LogName,
    /// The records in canonical form, unstamped.
    pub payload: Unstamped,
    /// How many; at least 1.
    pub count: u32,
    /// Content bytes of all records.
    content_bytes: usize,
    /// Content bytes of the record that has most of them, and its position.
    largest: (usize, u32),
    /// The most bytes that one record has in canonical form.
    largest_stored: usize,
    /// Append only if this is the next offset.
    pub expected_offset: Option<Offset>,
    /// 0: none.
    pub producer_id: u64,
    /// With a producer id.
    pub sequence: u64,
    /// Append only to the log with this id.
    pub log_id: Option<u64>,
}

/// One record's parts, as far as they are read. A field that comes again replaces the earlier one, as protobuf has it.
#[derive(Default)]
struct Parts<'a> {
    value: &'a [u8],
    kind: u32,
    key: Option<&'a [u8]>,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Parts<'a> {
    fn merge(&mut self, record: &'a [u8]) -> Result<(), Invalid> {
        for field in Fields::new(record) {
            match field? {
                (1, Value::Bytes(value)) => self.value = value,
                // The cast is protobuf's own: a uint32 keeps the low 32 bits.
                (4, Value::Varint(kind)) => self.kind = kind as u32,
                (6, Value::Bytes(key)) => self.key = Some(key),
                (7, Value::Bytes(header)) => self.headers.push(read_header(header)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        let headers = std::mem::take(&mut self.headers);
        *self = Parts { headers, ..Parts::default() };
        self.headers.clear();
    }
}

/// What limits count: what the client sends, without what the format adds.
fn content_bytes(parts: &Parts<'_>) -> usize {
    let headers = parts.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    parts.value.len() + parts.key.map_or(0, <[u8]>::len) + headers
}

fn read_header(header: &[u8]) -> Result<(&str, &[u8]), Invalid> {
    let (mut name, mut value) = ("", &[][..]);
    for field in Fields::new(header) {
        match field? {
            (1, Value::Bytes(bytes)) => name = std::str::from_utf8(bytes).map_err(|_| Invalid::Malformed)?,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The payload while it grows, behind the room for its stamp.
#[derive(Default)]
struct Payload {
    bytes: Vec<u8>,
    count: u32,
    content_bytes: usize,
    largest: (usize, u32),
    largest_stored: usize,
}

impl Payload {
    fn push(&mut self, parts: &Parts<'_>) -> Result<(), Invalid> {
        let fields = RecordFields { value: parts.value, kind: parts.kind, key: parts.key, headers: &parts.headers };
        let stored = encode_record(&mut self.bytes, &fields);
        let content = content_bytes(parts);
        self.content_bytes += content;
        if content > self.largest.0 {
            self.largest = (content, self.count);
        }
        self.largest_stored = self.largest_stored.max(stored);
        self.count += 1;
        if self.bytes.len() - Stamp::BYTES > PAYLOAD_BYTES_MAX {
            return Err(Invalid::EntryTooLarge { bytes_max: PAYLOAD_BYTES_MAX });
        }
        Ok(())
    }
}

impl Batch {
    /// Takes the bytes of a `ProduceRequest` apart.
    ///
    /// # Errors
    /// [`Invalid`]: malformed, without a record, with both `record` and `records`, larger than an entry can be, or with an
    /// expected offset that no log has.
    pub fn decode(message: &[u8]) -> Result<Batch, Invalid> {
        let mut log = "";
        let (mut expected_offset, mut producer_id, mut sequence, mut log_id) = (None, 0, 0, None);
        let mut single: Option<Parts<'_>> = None;
        let mut parts = Parts::default();
        // One record grows by less than this; the offsets of more make the buffer grow once or twice.
        let mut payload = Payload { bytes: Unstamped::room(message.len() + 64), ..Payload::default() };
        for field in Fields::new(message) {
            match field? {
                (1, Value::Bytes(record)) => single.get_or_insert_default().merge(record)?,
                (2, Value::Bytes(name)) => log = std::str::from_utf8(name).map_err(|_| Invalid::Malformed)?,
                (3, Value::Bytes(record)) => {
                    parts.clear();
                    parts.merge(record)?;
                    payload.push(&parts)?;
                }
                (4, Value::Varint(offset)) => expected_offset = Some(Offset(offset)),
                (5, Value::Fixed64(id)) => producer_id = id,
                (6, Value::Varint(number)) => sequence = number,
                (7, Value::Fixed64(id)) => log_id = Some(id),
                _ => {}
            }
        }
        match single {
            Some(_) if payload.count > 0 => return Err(Invalid::RecordAndRecords),
            Some(parts) => payload.push(&parts)?,
            None if payload.count == 0 => return Err(Invalid::NoRecord),
            None => {}
        }
        if let Some(offset) = expected_offset.filter(|offset| *offset > Offset::MAX) {
            return Err(Invalid::ExpectedOffset(offset));
        }
        Ok(Batch {
            log: LogName::new(log).map_err(Invalid::LogName)?,
            payload: Unstamped::new(payload.bytes),
            count: payload.count,
            content_bytes: payload.content_bytes,
            largest: payload.largest,
            largest_stored: payload.largest_stored,
            expected_offset,
            producer_id,
            sequence,
            log_id,
        })
    }

    /// Checks the request against the log that it is for.
    ///
    /// # Errors
    /// A record or all records too large, another log id, or a field that comes later.
    pub fn check(&self, log: &OpenLog) -> Result<(), ApiError> {
        let (bytes, position) = self.largest;
        if bytes > log.record_bytes_max as usize {
            let bytes_max = log.record_bytes_max;
            return Err(Invalid::RecordTooLarge { position, bytes, bytes_max }.into());
        }
        if self.largest_stored > LogMeta::STORED_RECORD_BYTES_MAX {
            return Err(Invalid::EntryTooLarge { bytes_max: LogMeta::STORED_RECORD_BYTES_MAX }.into());
        }
        if self.content_bytes > log.request_bytes_max as usize {
            let bytes_max = log.request_bytes_max as usize;
            return Err(Invalid::RequestTooLarge { bytes: self.content_bytes, bytes_max }.into());
        }
        check_log_id(log, self.log_id)?;
        if self.producer_id != 0 {
            return Err(ApiError::Unimplemented("producer_id"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
