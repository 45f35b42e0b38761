//! Decodes a `ProduceRequest` into the proposal whose payload is replicated and stored.
//!
//! Only the value, key, type, headers and event time of a client's record are kept, and they are encoded again in the
//! log's own form (`storage/format/payload.rs`). So a client can neither store other fields nor forge offset, term and
//! append time.

use std::time::Instant;

use protobuf::MessageFull as _;

use super::core::{FoundLog, WantedLogId};
use super::error::{ApiError, Invalid};
use super::package::Package;
use super::router::proposal_deadline;
use super::wire::{MessageFields, Value, refused_field};
use crate::catalog::EffectiveSettings;
use crate::consensus::handle::Proposal;
use crate::feature_level::{ClusterLevel, Feature};
use crate::hash_chain::EntryChain;
use crate::pb::v1;
use crate::storage::entry::{ENTRY_BYTES_MAX, EntryKind, Stamp, Unstamped};
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, LogName, Offset};

/// A placeholder until [`AppendRequest::for_log`] sets the group. No node has a replica of this group.
const NO_GROUP: GroupId = GroupId(u64::MAX);

/// The maximum size of an entry's records.
const PAYLOAD_BYTES_MAX: usize = ENTRY_BYTES_MAX - Stamp::BYTES - EntryChain::BYTES;

/// A decoded `ProduceRequest`: its proposal, and the values to check against the log before the proposal gets its
/// group.
#[derive(Debug)]
pub struct AppendRequest {
    /// The log that the request names, or the default one.
    pub log: LogName,
    /// Whether the request names its log.
    names_log: bool,
    /// The records are appended only to the log with this id.
    log_id: WantedLogId,
    package: Package,
    sizes: RecordSizes,
    /// Its group is not set: [`AppendRequest::for_log`] sets it.
    proposal: Proposal,
    /// The response contains a receipt.
    pub wants_receipt: bool,
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
    /// Whether a record has an event time.
    has_event_times: bool,
}

/// The fields of a record that are kept. A repeated field replaces the earlier one, as protobuf requires.
#[derive(Default)]
struct Parts<'a> {
    value: &'a [u8],
    kind: u32,
    key: Option<&'a [u8]>,
    headers: Vec<(&'a str, &'a [u8])>,
    /// Of `seriatim.v1`; `log.v1` does not have this field.
    client_time_us: Option<u64>,
}

impl<'a> Parts<'a> {
    /// Adds the fields of a record. `strict` refuses unknown fields; without it they are ignored.
    fn merge(&mut self, record: &'a [u8], strict: Option<StrictRecord>) -> Result<(), Invalid> {
        for field in fields(record, strict.is_some()) {
            match (field?, strict) {
                ((1, Value::Bytes(value)), _) => self.value = value,
                // As protobuf requires, a uint32 keeps the low 32 bits.
                ((4, Value::Varint(kind)), _) => self.kind = kind as u32,
                ((6, Value::Bytes(key)), _) => self.key = Some(key),
                ((7, Value::Bytes(header)), _) => {
                    let header = read_header(header, strict, self.headers.len())?;
                    self.headers.push(header);
                }
                ((8, Value::Fixed64(time_us)), Some(_)) => self.client_time_us = Some(time_us),
                // Offset, term and time of a record that was read before. The server sets its own.
                ((2 | 3, Value::Varint(_)) | (5, Value::Fixed64(_)), Some(_)) | (_, None) => {}
                ((number, _), Some(StrictRecord { position })) => {
                    return Err(refused_field(&v1::Record::descriptor(), number, &format!("records[{position}].")));
                }
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

fn read_header(header: &[u8], strict: Option<StrictRecord>, header_position: usize) -> Result<(&str, &[u8]), Invalid> {
    let (mut name, mut value) = ("", &[][..]);
    for field in fields(header, strict.is_some()) {
        match (field?, strict) {
            ((1, Value::Bytes(bytes)), _) => name = std::str::from_utf8(bytes).map_err(|_| Invalid::Malformed)?,
            ((2, Value::Bytes(bytes)), _) => value = bytes,
            (_, None) => {}
            ((number, _), Some(StrictRecord { position })) => {
                let path = format!("records[{position}].headers[{header_position}].");
                return Err(refused_field(&v1::Header::descriptor(), number, &path));
            }
        }
    }
    Ok((name, value))
}

/// The record in which unknown fields are refused, by its position in the request.
#[derive(Clone, Copy)]
struct StrictRecord {
    position: u32,
}

fn fields(message: &[u8], is_strict: bool) -> MessageFields<'_> {
    if is_strict { MessageFields::with_groups(message) } else { MessageFields::new(message) }
}

/// A payload to which records are added. It begins with space for the stamp.
struct Payload {
    bytes: Vec<u8>,
    count: u32,
    sizes: RecordSizes,
}

/// The conditions of an append.
struct Conditions {
    expected_offset: Option<Offset>,
    producer_id: u64,
    sequence: u64,
    producer_epoch: u32,
    restored_append_time_us: Option<u64>,
    wants_receipt: bool,
}

fn text(bytes: &[u8]) -> Result<&str, Invalid> {
    std::str::from_utf8(bytes).map_err(|_| Invalid::Malformed)
}

impl Payload {
    fn for_message(message: &[u8]) -> Payload {
        // One record grows by less than this. With more records, the buffer is reallocated once or twice.
        let bytes = Unstamped::room(message.len() + 64 + EntryChain::BYTES);
        Payload { bytes, count: 0, sizes: RecordSizes::default() }
    }

    fn push(&mut self, parts: &Parts<'_>) -> Result<(), Invalid> {
        let Parts { value, kind, key, ref headers, client_time_us } = *parts;
        let fields = RecordFields { value, kind, key, headers, client_time_us };
        let stored = encode_record(&mut self.bytes, &fields);
        let content = content_bytes(parts);
        let sizes = &mut self.sizes;
        sizes.content += content;
        if content > sizes.largest.0 {
            sizes.largest = (content, self.count);
        }
        sizes.largest_stored = sizes.largest_stored.max(stored);
        sizes.has_event_times |= client_time_us.is_some();
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
    /// [`Invalid`] if the request is malformed, has no record, exceeds the size of an entry, or expects an offset that
    /// no log can have. In `log.v1`, also if it has both `record` and `records`; in `seriatim.v1`, also if it contains
    /// something unknown.
    pub fn decode(message: &[u8], package: Package) -> Result<AppendRequest, Invalid> {
        match package {
            Package::LogV1 => AppendRequest::decode_log_v1(message),
            Package::SeriatimV1 => AppendRequest::decode_seriatim_v1(message),
        }
    }

    fn decode_seriatim_v1(message: &[u8]) -> Result<AppendRequest, Invalid> {
        let (mut log, mut expected_offset, mut log_id) = ("", None, None);
        let (mut producer_id, mut sequence, mut producer_epoch) = (0, 0, 0);
        let (mut restored_append_time_us, mut wants_receipt) = (None, false);
        let mut parts = Parts::default();
        let mut payload = Payload::for_message(message);
        for field in MessageFields::with_groups(message) {
            match field? {
                (2, Value::Bytes(name)) => log = text(name)?,
                (3, Value::Bytes(record)) => {
                    parts.clear();
                    parts.merge(record, Some(StrictRecord { position: payload.count }))?;
                    payload.push(&parts)?;
                }
                (4, Value::Varint(offset)) => expected_offset = Some(Offset(offset)),
                (5, Value::Fixed64(id)) => producer_id = id,
                (6, Value::Varint(number)) => sequence = number,
                (7, Value::Bytes(id)) => log_id = Some(text(id)?),
                // As protobuf requires, a uint32 keeps the low 32 bits.
                (8, Value::Varint(number)) => producer_epoch = number as u32,
                (9, Value::Fixed64(time_us)) => restored_append_time_us = Some(time_us),
                (10, Value::Varint(flag)) => wants_receipt = flag != 0,
                (number, _) => return Err(refused_field(&v1::ProduceRequest::descriptor(), number, "")),
            }
        }
        if payload.count == 0 {
            return Err(Invalid::NoRecords);
        }
        if (producer_id == 0) != (sequence == 0) || (producer_id == 0) != (producer_epoch == 0) {
            return Err(Invalid::PartOfProducer);
        }
        if restored_append_time_us.is_some() && (expected_offset.is_none() || producer_id != 0) {
            return Err(Invalid::RestoredWhere);
        }
        let conditions = Conditions {
            expected_offset,
            producer_id,
            sequence,
            producer_epoch,
            restored_append_time_us,
            wants_receipt,
        };
        AppendRequest::new(Package::SeriatimV1, log, WantedLogId::of_text(log_id), payload, conditions)
    }

    fn decode_log_v1(message: &[u8]) -> Result<AppendRequest, Invalid> {
        let mut log = "";
        let (mut expected_offset, mut producer_id, mut sequence, mut log_id) = (None, 0, 0, None);
        let mut single: Option<Parts<'_>> = None;
        let mut parts = Parts::default();
        let mut payload = Payload::for_message(message);
        for field in MessageFields::new(message) {
            match field? {
                (1, Value::Bytes(record)) => single.get_or_insert_default().merge(record, None)?,
                (2, Value::Bytes(name)) => log = text(name)?,
                (3, Value::Bytes(record)) => {
                    parts.clear();
                    parts.merge(record, None)?;
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
            None if payload.count == 0 => return Err(Invalid::NoRecordOrRecords),
            None => {}
        }
        let conditions = Conditions {
            expected_offset,
            producer_id,
            sequence,
            producer_epoch: 0,
            restored_append_time_us: None,
            wants_receipt: false,
        };
        AppendRequest::new(Package::LogV1, log, WantedLogId::of_number(log_id), payload, conditions)
    }

    fn new(
        package: Package,
        log: &str,
        log_id: WantedLogId,
        payload: Payload,
        conditions: Conditions,
    ) -> Result<AppendRequest, Invalid> {
        let Conditions {
            expected_offset,
            producer_id,
            sequence,
            producer_epoch,
            restored_append_time_us,
            wants_receipt,
        } = conditions;
        if let Some(offset) = expected_offset.filter(|offset| *offset > Offset::MAX) {
            return Err(Invalid::ExpectedOffset(offset));
        }
        let (names_log, log) = (!log.is_empty(), LogName::new(log).map_err(Invalid::LogName)?);
        let records = Unstamped::new(payload.bytes);
        let proposal = Proposal::new(NO_GROUP, EntryKind::Records, payload.count, records);
        let proposal =
            Proposal { expected_offset, producer_id, sequence, producer_epoch, restored_append_time_us, ..proposal };
        Ok(AppendRequest { log, names_log, log_id, package, sizes: payload.sizes, proposal, wants_receipt })
    }

    /// Checks that a request of a stream is for the log of its first request. In `seriatim.v1` it need not name the log
    /// again.
    ///
    /// # Errors
    /// [`Invalid::LogChanged`].
    pub fn check_same_log(&self, log: &LogName) -> Result<(), Invalid> {
        let may_omit = match self.package {
            Package::LogV1 => false,
            Package::SeriatimV1 => true,
        };
        if self.log == *log || may_omit && !self.names_log { Ok(()) } else { Err(Invalid::LogChanged) }
    }

    /// Checks the request against its log and the cluster's feature level. Returns the proposal to the log's group.
    ///
    /// # Errors
    /// If one record or all records together are too large, the log has another id, a field needs a higher feature
    /// level, or it is not implemented yet.
    pub fn for_log(
        self,
        log: &FoundLog,
        level: &ClusterLevel,
        deadline: Option<Instant>,
    ) -> Result<Proposal, ApiError> {
        let RecordSizes { content, largest: (bytes, position), largest_stored, has_event_times } = self.sizes;
        if bytes > log.record_bytes_max as usize {
            let (bytes_max, limit) = (log.record_bytes_max, self.package.max_record_bytes());
            return Err(Invalid::RecordTooLarge { position, bytes, bytes_max, limit }.into());
        }
        if largest_stored > EffectiveSettings::STORED_RECORD_BYTES_MAX {
            return Err(Invalid::EntryTooLarge { bytes_max: EffectiveSettings::STORED_RECORD_BYTES_MAX }.into());
        }
        if content > log.request_bytes_max as usize {
            let (bytes_max, limit) = (log.request_bytes_max as usize, self.package.max_request_bytes());
            return Err(Invalid::RequestTooLarge { bytes: content, bytes_max, limit }.into());
        }
        self.log_id.check_id(&log.name, log.log_id)?;
        match (log.restoring_to, self.restores()) {
            (Some(_), false) => return Err(ApiError::LogRestoring { log: log.name.clone(), log_id: log.log_id }),
            (None, true) => return Err(Invalid::NotRestoring.into()),
            (Some(end), true) if !self.proposal.ends_by(end) => return Err(Invalid::PastBackup(end).into()),
            (Some(_), true) | (None, false) => {}
        }
        if has_event_times && !level.allows(Feature::ManyLogs) {
            return Err(ApiError::LevelTooLow(Feature::ManyLogs.level()));
        }
        if self.proposal.producer_id != 0 && self.package == Package::LogV1 {
            return Err(ApiError::Unimplemented("producer_id"));
        }
        if self.proposal.producer_id != 0 && !level.allows(Feature::Producers) {
            return Err(ApiError::LevelTooLow(Feature::Producers.level()));
        }
        let kind = if log.hash_chain { EntryKind::ChainedRecords } else { EntryKind::Records };
        Ok(Proposal { group: log.group, kind, deadline: Some(proposal_deadline(deadline)), ..self.proposal })
    }

    /// Checks a request of a stream, whose responses contain no receipts.
    ///
    /// # Errors
    /// [`Invalid::NotApplicable`].
    pub fn check_in_stream(&self) -> Result<(), Invalid> {
        if self.wants_receipt { Err(Invalid::NotApplicable { field: "receipt" }) } else { Ok(()) }
    }

    /// Returns whether the records are those of a backup.
    pub fn restores(&self) -> bool {
        self.proposal.restored_append_time_us.is_some()
    }

    /// Returns whether the records are appended only to a log with a certain id.
    pub fn requires_id(&self) -> bool {
        self.log_id != WantedLogId::Any
    }

    /// Returns the proposal as it was decoded.
    #[cfg(test)]
    pub fn proposal(&self) -> &Proposal {
        &self.proposal
    }

    /// Returns the log id that the request requires.
    #[cfg(test)]
    pub fn log_id(&self) -> WantedLogId {
        self.log_id
    }
}

#[cfg(test)]
mod tests;
