//! Decodes a `ProduceRequest` into the proposal whose payload is replicated and stored.
//!
//! Only the value, key, type and headers of a client's record are kept, and they are encoded again in the log's own form
//! (`storage/format/payload.rs`). So a client can neither store other fields nor forge offset, term and time.

use std::time::Instant;

use super::core::check_log_id;
use super::error::{ApiError, Invalid};
use super::router::proposal_deadline;
use super::wire::{MessageFields, Value};
use crate::catalog::LogMeta;
use crate::consensus::handle::Proposal;
use crate::logs::OpenLog;
use crate::storage::entry::{ENTRY_BYTES_MAX, EntryKind, Stamp, Unstamped};
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, LogName, Offset};

/// A placeholder until [`AppendRequest::for_log`] sets the group. No node has a replica of this group.
const NO_GROUP: GroupId = GroupId(u64::MAX);

/// The maximum size of an entry's payload.
const PAYLOAD_BYTES_MAX: usize = ENTRY_BYTES_MAX - Stamp::BYTES;

/// A decoded `ProduceRequest`: its proposal, and the values to check against the log before the proposal gets its group.
#[derive(Debug)]
pub struct AppendRequest {
    /// The log that the request names.
    pub log: LogName,
    /// If set, the records are appended only to the log with this id.
    log_id: Option<u64>,
    sizes: RecordSizes,
    /// Its group is not set: [`AppendRequest::for_log`] sets it.
    proposal: Proposal,
}

/// The sizes that the settings of a log limit.
#[derive(Clone, Copy, Debug, Default)]
struct RecordSizes {
    /// The content bytes of all records.
    content: usize,
    /// The content bytes of the largest record, and its position.
    largest: (usize, u32),
    /// The size of the largest record in canonical form.
    largest_stored: usize,
}

/// The fields of a record that are kept. A repeated field replaces the earlier one, as protobuf requires.
#[derive(Default)]
struct Parts<'a> {
    value: &'a [u8],
    kind: u32,
    key: Option<&'a [u8]>,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Parts<'a> {
    fn merge(&mut self, record: &'a [u8]) -> Result<(), Invalid> {
        for field in MessageFields::new(record) {
            match field? {
                (1, Value::Bytes(value)) => self.value = value,
                // As protobuf requires, a uint32 keeps the low 32 bits.
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

/// Returns the size that limits apply to: value, key and headers, without the overhead of the format.
fn content_bytes(parts: &Parts<'_>) -> usize {
    let headers = parts.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    parts.value.len() + parts.key.map_or(0, <[u8]>::len) + headers
}

fn read_header(header: &[u8]) -> Result<(&str, &[u8]), Invalid> {
    let (mut name, mut value) = ("", &[][..]);
    for field in MessageFields::new(header) {
        match field? {
            (1, Value::Bytes(bytes)) => name = std::str::from_utf8(bytes).map_err(|_| Invalid::Malformed)?,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((name, value))
}

/// A payload to which records are added. It begins with space for the stamp.
struct Payload {
    bytes: Vec<u8>,
    count: u32,
    sizes: RecordSizes,
}

impl Payload {
    fn push(&mut self, parts: &Parts<'_>) -> Result<(), Invalid> {
        let fields = RecordFields { value: parts.value, kind: parts.kind, key: parts.key, headers: &parts.headers };
        let stored = encode_record(&mut self.bytes, &fields);
        let content = content_bytes(parts);
        let sizes = &mut self.sizes;
        sizes.content += content;
        if content > sizes.largest.0 {
            sizes.largest = (content, self.count);
        }
        sizes.largest_stored = sizes.largest_stored.max(stored);
        self.count += 1;
        if self.bytes.len() - Stamp::BYTES > PAYLOAD_BYTES_MAX {
            return Err(Invalid::EntryTooLarge { bytes_max: PAYLOAD_BYTES_MAX });
        }
        Ok(())
    }
}

impl AppendRequest {
    /// Decodes the bytes of a `ProduceRequest`.
    ///
    /// # Errors
    /// [`Invalid`] if the request is malformed, has no record, has both `record` and `records`, exceeds the size of an entry, or
    /// expects an offset that no log can have.
    pub fn decode(message: &[u8]) -> Result<AppendRequest, Invalid> {
        let mut log = "";
        let (mut expected_offset, mut producer_id, mut sequence, mut log_id) = (None, 0, 0, None);
        let mut single: Option<Parts<'_>> = None;
        let mut parts = Parts::default();
        // One record grows by less than this. With more records, the buffer is reallocated once or twice.
        let bytes = Unstamped::room(message.len() + 64);
        let mut payload = Payload { bytes, count: 0, sizes: RecordSizes::default() };
        for field in MessageFields::new(message) {
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
        let log = LogName::new(log).map_err(Invalid::LogName)?;
        let records = Unstamped::new(payload.bytes);
        let proposal = Proposal::new(NO_GROUP, EntryKind::Records, payload.count, records);
        let proposal = Proposal { expected_offset, producer_id, sequence, ..proposal };
        Ok(AppendRequest { log, log_id, sizes: payload.sizes, proposal })
    }

    /// Checks the request against its log. Returns the proposal to the log's group.
    ///
    /// # Errors
    /// If one record or all records together are too large, the log has another id, or a field is not implemented yet.
    pub fn for_log(self, log: &OpenLog, deadline: Option<Instant>) -> Result<Proposal, ApiError> {
        let RecordSizes { content, largest: (bytes, position), largest_stored } = self.sizes;
        if bytes > log.record_bytes_max as usize {
            let bytes_max = log.record_bytes_max;
            return Err(Invalid::RecordTooLarge { position, bytes, bytes_max }.into());
        }
        if largest_stored > LogMeta::STORED_RECORD_BYTES_MAX {
            return Err(Invalid::EntryTooLarge { bytes_max: LogMeta::STORED_RECORD_BYTES_MAX }.into());
        }
        if content > log.request_bytes_max as usize {
            let bytes_max = log.request_bytes_max as usize;
            return Err(Invalid::RequestTooLarge { bytes: content, bytes_max }.into());
        }
        check_log_id(log, self.log_id)?;
        if self.proposal.producer_id != 0 {
            return Err(ApiError::Unimplemented("producer_id"));
        }
        Ok(Proposal { group: log.group, deadline: Some(proposal_deadline(deadline)), ..self.proposal })
    }

    /// Returns the proposal as it was decoded.
    #[cfg(test)]
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// Returns the log id that the request requires.
    #[cfg(test)]
    pub fn log_id(&self) -> Option<u64> {
        self.log_id
    }
}

#[cfg(test)]
mod tests;
