//! Why a request is invalid, with the messages.

use std::borrow::Cow;

use crate::log_state::cursors::METADATA_BYTES_MAX;
use crate::types::{BadName, Offset};

/// Why a request is invalid, independent of the state of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The bytes are not a message of the method.
    #[error("the request is not a message of this method")]
    Malformed,
    /// The message is larger than any valid one.
    #[error("the request exceeds the {bytes_max} bytes that this method allows")]
    MessageTooLarge {
        /// The limit of the method.
        bytes_max: usize,
    },
    /// Another name is malformed.
    #[error("{bad}")]
    Name {
        /// The name of the field.
        field: &'static str,
        /// What is wrong.
        bad: BadName,
    },
    /// Only some of the three fields of a producer are set.
    #[error("`producer_id`, `producer_epoch` and `sequence` belong together: set all of them, or none")]
    PartOfProducer,
    /// `restored_append_time_us` for a log that is not being restored.
    #[error("`restored_append_time_us` is only for a log that is being restored from a backup")]
    NotRestoring,
    /// A restored record after the last one of the backup.
    #[error("`restored_append_time_us` is only for the records of the backup, which ends at offset {0}")]
    PastBackup(Offset),
    /// `FinishRestore` for a log that is not restored from a backup.
    #[error("the log was not created with `restore`")]
    NeverRestored,
    /// A restored record without `expected_offset`, or with a producer.
    #[error("`restored_append_time_us` needs `expected_offset`, and no producer")]
    RestoredWhere,
    /// The description of a backup contradicts itself.
    #[error("`restore` needs `source_log_id`, a `digest` of 32 bytes, and a `first_offset` of at most `end_offset`")]
    Restore,
    /// `instance` is missing.
    #[error("`instance` is missing: a random number, another one for each process")]
    NoInstance,
    /// `owner` is too long.
    #[error("`owner` exceeds 255 bytes")]
    Owner,
    /// A request that needs a cursor names none.
    #[error("the request names no cursor: set `cursor`")]
    NoCursor,
    /// A new cursor can't begin at a cursor.
    #[error("`start` of a new cursor can't be START_CURSOR")]
    CursorStart,
    /// `metadata` is too long.
    #[error("`metadata` exceeds {METADATA_BYTES_MAX} bytes")]
    Metadata,
    /// `next_offset` exceeds the largest offset of any log.
    #[error("`next_offset` {0} exceeds the largest offset ({max})", max = Offset::MAX)]
    NextOffset(Offset),
    /// A request for a producer names none.
    #[error("the request names no producer: set `producer` or `producer_id`")]
    NoProducer,
    /// The name of the log is malformed.
    #[error("{0}")]
    LogName(BadName),
    /// Neither `record` nor `records`, or an empty batch. Of `log.v1`.
    #[error("no record: set `record`, or at least one of `records`")]
    NoRecordOrRecords,
    /// `records` is empty. Of `seriatim.v1`.
    #[error("no record: set at least one of `records`")]
    NoRecords,
    /// Both `record` and `records`.
    #[error("both `record` and `records` are set: set one of them")]
    RecordAndRecords,
    /// A record is larger than its log allows.
    #[error(
        "record {position} has {bytes} bytes of value, key and headers, which exceeds {limit} ({bytes_max}) of its log"
    )]
    RecordTooLarge {
        /// The position in the request, from 0.
        position: u32,
        /// The size of value, key and headers.
        bytes: usize,
        /// The limit of the log.
        bytes_max: u32,
        /// The name of the limit in the package of the method.
        limit: &'static str,
    },
    /// All records together are larger than the log allows.
    #[error(
        "the records have {bytes} bytes of value, key and headers together, which exceeds {limit} ({bytes_max}) of the log"
    )]
    RequestTooLarge {
        /// The size of all values, keys and headers.
        bytes: usize,
        /// The limit of the log.
        bytes_max: usize,
        /// The name of the limit in the package of the method.
        limit: &'static str,
    },
    /// All records together are larger than any log allows.
    #[error("the records would take more than {bytes_max} bytes in the log, the limit of every log")]
    EntryTooLarge {
        /// The limit of the format.
        bytes_max: usize,
    },
    /// The message contains a field that this version does not know.
    #[error("the request contains the field {field}, which this version does not know")]
    UnknownField {
        /// The path of the message, and the number of the field.
        field: String,
    },
    /// A field of the message has another wire type.
    #[error("`{field}` has the wire type of another field")]
    WireType {
        /// The path of the field.
        field: String,
    },
    /// An enum of the message has a value that this version does not know.
    #[error("`{field}` has the value {value}, which this version does not know")]
    EnumValue {
        /// The path of the field.
        field: String,
        /// The number that was sent.
        value: i32,
    },
    /// The method does not use the field.
    #[error("`{field}` does not apply to this method")]
    NotApplicable {
        /// The name of the field.
        field: &'static str,
    },
    /// The settings of a log contradict each other or exceed their bounds.
    #[error("{what}")]
    Settings {
        /// The name of the field.
        field: String,
        /// What is wrong.
        what: String,
    },
    /// A path in `update_mask` is not a setting.
    #[error("`update_mask` contains {0:?}, which is not a setting")]
    UpdateMask(String),
    /// `log_id` is not an id that a client may choose.
    #[error("`log_id` must be 16 hexadecimal digits in lower case, and not all 0")]
    LogId,
    /// `log_id` is the id of another log, or of one that was purged.
    #[error("`log_id` is the id of another log: choose one at random for each log")]
    LogIdUsed,
    /// `log_id` is missing.
    #[error("`log_id` is missing: the id of the log, which GetLog and ListLogs return")]
    NoLogId,
    /// A page size that is negative.
    #[error("`page_size` must not be negative")]
    PageSize,
    /// A page token that this API did not return.
    #[error("`page_token` is not the `next_page_token` of a response")]
    PageToken,
    /// The feature level is 0 or missing.
    #[error("`level` must be at least 1")]
    FeatureLevel,
    /// A stream names another log than its first message did.
    #[error("the request names another log than the first request of the stream")]
    LogChanged,
    /// `expected_offset` exceeds the largest offset of any log.
    #[error("`expected_offset` {0} exceeds the largest offset ({max})", max = Offset::MAX)]
    ExpectedOffset(Offset),
    /// `start` has a value that this version does not know. Of `log.v1`.
    #[error("`start` has the unknown value {0}")]
    Start(i32),
    /// `heartbeat_ms` is below its limit.
    #[error("`heartbeat_ms` must be 0 or at least {heartbeat_ms_min}")]
    Heartbeat {
        /// The shortest interval, milliseconds.
        heartbeat_ms_min: u32,
    },
    /// `heartbeat_ms` is below its limit, or `max_records` is 0. Of `log.v1`.
    #[error("`heartbeat_ms` must be 0 or at least {heartbeat_ms_min}, and needs `max_records`")]
    HeartbeatOfBatches {
        /// The shortest interval, milliseconds.
        heartbeat_ms_min: u32,
    },
}

impl Invalid {
    /// Returns the path of the field that is wrong, if it is one.
    pub fn field(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Invalid::Malformed | Invalid::MessageTooLarge { .. } => return None,
            Invalid::RecordTooLarge { position, .. } => Cow::Owned(format!("records[{position}]")),
            Invalid::UnknownField { field } | Invalid::WireType { field } | Invalid::EnumValue { field, .. } => {
                Cow::Borrowed(field)
            }
            Invalid::Settings { field, .. } => Cow::Borrowed(field),
            Invalid::NotApplicable { field } => Cow::Borrowed(field),
            Invalid::LogName(_) | Invalid::LogChanged => "log".into(),
            Invalid::Name { field, .. } => Cow::Borrowed(field),
            Invalid::PartOfProducer => "producer_id".into(),
            Invalid::NotRestoring | Invalid::RestoredWhere | Invalid::PastBackup(_) => "restored_append_time_us".into(),
            Invalid::Restore => "restore".into(),
            Invalid::NeverRestored => "log".into(),
            Invalid::NoInstance => "instance".into(),
            Invalid::Owner => "owner".into(),
            Invalid::NoCursor => "cursor".into(),
            Invalid::CursorStart => "start".into(),
            Invalid::Metadata => "metadata".into(),
            Invalid::NextOffset(_) => "next_offset".into(),
            Invalid::NoProducer => "producer".into(),
            Invalid::NoRecordOrRecords
            | Invalid::NoRecords
            | Invalid::RecordAndRecords
            | Invalid::RequestTooLarge { .. }
            | Invalid::EntryTooLarge { .. } => "records".into(),
            Invalid::UpdateMask(_) => "update_mask".into(),
            Invalid::LogId | Invalid::LogIdUsed | Invalid::NoLogId => "log_id".into(),
            Invalid::PageSize => "page_size".into(),
            Invalid::PageToken => "page_token".into(),
            Invalid::FeatureLevel => "level".into(),
            Invalid::ExpectedOffset(_) => "expected_offset".into(),
            Invalid::Start(_) => "start".into(),
            Invalid::Heartbeat { .. } | Invalid::HeartbeatOfBatches { .. } => "heartbeat_ms".into(),
        })
    }
}
