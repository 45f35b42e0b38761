//! Decodes a `ConsumeRequest` of either package.

use std::time::Duration;

use protobuf::EnumOrUnknown;

use super::core::WantedLogId;
use super::error::Invalid;
use super::messages::{Request, decode};
use super::package::Package;
use crate::log_state::Fence;
use crate::pb::{log, v1};
use crate::types::{CursorName, Offset};

/// The maximum number of records in one message if the request does not set it, in `seriatim.v1`.
const RECORDS_DEFAULT: u32 = 1000;
/// The minimum interval of heartbeats.
const HEARTBEAT_MS_MIN: u32 = 1000;
/// The interval of heartbeats if the request does not set it, in `seriatim.v1`.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At this record.
    Offset(Offset),
    /// At the first record that exists.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record that was appended at this time or later, in Unix microseconds.
    Time(u64),
    /// This many records before the end.
    Last(u64),
    /// At the position of the request's cursor.
    Cursor,
    /// A value that this version does not know.
    Unknown(i32),
}

/// A decoded request for records.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// The package, which determines the form of the responses.
    pub package: Package,
    /// The name of the log, not checked yet.
    pub log: String,
    /// Where reading starts.
    pub start: StartAt,
    /// The log id that the request requires.
    pub log_id: WantedLogId,
    /// Each message contains exactly one record, in the field `record`. Only in `log.v1`.
    pub one_by_one: bool,
    /// The maximum number of records in one message.
    pub records_max: u32,
    /// The maximum size of a message as the request sets it; 0 if it does not.
    pub bytes_max: u32,
    /// How long to wait for a record.
    pub wait_ms: u32,
    heartbeat_ms: u32,
    /// The cursor of the reader.
    pub cursor: Option<CursorName>,
    /// The epoch that the cursor must have; 0 if it may have any.
    pub cursor_epoch: u64,
    /// End after the records that are visible when the call arrives.
    pub stop_at_end: bool,
}

/// The method of a request. Some fields apply to one method only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMethod {
    /// `Consume`.
    Unary,
    /// `ConsumeStream`.
    Stream,
}

impl ReadRequest {
    /// Decodes the request.
    ///
    /// # Errors
    /// Those of [`decode`]. In `seriatim.v1` also [`Invalid::NotApplicable`].
    pub fn decode(request: &Request, method: ReadMethod, package: Package) -> Result<ReadRequest, Invalid> {
        match package {
            Package::LogV1 => Ok(ReadRequest::of_log_v1(decode(request, package)?)),
            Package::SeriatimV1 => ReadRequest::of_seriatim_v1(decode(request, package)?, method),
        }
    }

    fn of_log_v1(request: log::ConsumeRequest) -> ReadRequest {
        let start = match request.start.enum_value() {
            Ok(log::Start::START_OFFSET) => StartAt::Offset(Offset(request.offset)),
            Ok(log::Start::START_EARLIEST) => StartAt::Earliest,
            Ok(log::Start::START_LATEST) => StartAt::Latest,
            Ok(log::Start::START_TIME) => StartAt::Time(request.start_time_us),
            Err(value) => StartAt::Unknown(value),
        };
        ReadRequest {
            package: Package::LogV1,
            log: request.log,
            start,
            log_id: WantedLogId::of_number(request.log_id),
            one_by_one: request.max_records == 0,
            records_max: if request.max_records == 0 { u32::MAX } else { request.max_records },
            bytes_max: request.max_bytes,
            wait_ms: request.wait_ms,
            heartbeat_ms: request.heartbeat_ms,
            cursor: None,
            cursor_epoch: 0,
            stop_at_end: request.stop_at_end,
        }
    }

    fn of_seriatim_v1(request: v1::ConsumeRequest, method: ReadMethod) -> Result<ReadRequest, Invalid> {
        let inapplicable = match method {
            ReadMethod::Unary if request.heartbeat_ms != 0 => Some("heartbeat_ms"),
            ReadMethod::Unary if request.stop_at_end => Some("stop_at_end"),
            ReadMethod::Stream if request.wait_ms != 0 => Some("wait_ms"),
            ReadMethod::Unary | ReadMethod::Stream => None,
        };
        if let Some(field) = inapplicable {
            return Err(Invalid::NotApplicable { field });
        }
        let cursor = (!request.cursor.is_empty()).then(|| cursor_name(&request.cursor)).transpose()?;
        let start = start_at(request.start, request.offset, request.start_time_us);
        if cursor.is_none() && (start == StartAt::Cursor || request.cursor_epoch > 0) {
            return Err(Invalid::NoCursor);
        }
        Ok(ReadRequest {
            package: Package::SeriatimV1,
            log: request.log,
            start,
            log_id: WantedLogId::of_text(request.log_id.as_deref()),
            one_by_one: false,
            records_max: if request.max_records == 0 { RECORDS_DEFAULT } else { request.max_records },
            bytes_max: request.max_bytes,
            wait_ms: request.wait_ms,
            heartbeat_ms: request.heartbeat_ms,
            cursor,
            cursor_epoch: request.cursor_epoch,
            stop_at_end: request.stop_at_end,
        })
    }

    /// Returns the cursor and the epoch that it must keep while the request reads.
    pub fn fence(&self) -> Option<Fence> {
        let cursor = self.cursor.clone().filter(|_| self.cursor_epoch > 0)?;
        Some(Fence { cursor, epoch: self.cursor_epoch })
    }

    /// Returns the interval of heartbeats; `None` if there are none.
    ///
    /// # Errors
    /// If the interval is too short, or in `log.v1` if messages contain single records.
    pub fn heartbeat(&self) -> Result<Option<Duration>, Invalid> {
        match (self.package, self.heartbeat_ms) {
            (Package::LogV1, 0) => Ok(None),
            (Package::SeriatimV1, 0) => Ok(Some(HEARTBEAT_DEFAULT)),
            (_, ms) if ms >= HEARTBEAT_MS_MIN && !self.one_by_one => Ok(Some(Duration::from_millis(ms.into()))),
            (Package::LogV1, _) => Err(Invalid::HeartbeatOfBatches { heartbeat_ms_min: HEARTBEAT_MS_MIN }),
            (Package::SeriatimV1, _) => Err(Invalid::Heartbeat { heartbeat_ms_min: HEARTBEAT_MS_MIN }),
        }
    }
}

/// Checks the name of a cursor.
///
/// # Errors
/// [`Invalid::NoCursor`] if it is empty, and [`Invalid::Name`].
pub fn cursor_name(name: &str) -> Result<CursorName, Invalid> {
    if name.is_empty() {
        return Err(Invalid::NoCursor);
    }
    CursorName::new(name).map_err(|bad| Invalid::Name { field: "cursor", bad })
}

/// Returns where a request of `seriatim.v1` starts.
pub fn start_at(start: EnumOrUnknown<v1::Start>, offset: u64, time_us: u64) -> StartAt {
    match start.enum_value() {
        Ok(v1::Start::START_OFFSET) => StartAt::Offset(Offset(offset)),
        Ok(v1::Start::START_EARLIEST) => StartAt::Earliest,
        Ok(v1::Start::START_LATEST) => StartAt::Latest,
        Ok(v1::Start::START_TIME) => StartAt::Time(time_us),
        Ok(v1::Start::START_LAST) => StartAt::Last(offset),
        Ok(v1::Start::START_CURSOR) => StartAt::Cursor,
        Err(value) => StartAt::Unknown(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<M: protobuf::Message>(request: &M, method: ReadMethod, package: Package) -> Result<ReadRequest, Invalid> {
        ReadRequest::decode(&Request(request.write_to_bytes().expect("encoded")), method, package)
    }

    #[test]
    fn defaults_differ_between_the_packages() {
        let old = read(&log::ConsumeRequest::new(), ReadMethod::Stream, Package::LogV1).expect("valid");
        assert_eq!((old.one_by_one, old.records_max, old.heartbeat()), (true, u32::MAX, Ok(None)));
        let new = read(&v1::ConsumeRequest::new(), ReadMethod::Stream, Package::SeriatimV1).expect("valid");
        assert_eq!((new.one_by_one, new.records_max), (false, 1000));
        assert_eq!(new.heartbeat(), Ok(Some(Duration::from_secs(10))));
    }

    #[test]
    fn rejects_frequent_heartbeats_and_in_log_v1_those_without_batches() {
        let mut old = log::ConsumeRequest::new();
        old.heartbeat_ms = 1000;
        let heartbeat = |request: &log::ConsumeRequest| {
            read(request, ReadMethod::Stream, Package::LogV1).expect("valid").heartbeat()
        };
        assert!(heartbeat(&old).is_err(), "without max_records");
        old.max_records = 1;
        assert_eq!(heartbeat(&old), Ok(Some(Duration::from_secs(1))));
        old.heartbeat_ms = 999;
        assert!(heartbeat(&old).is_err());
        let new = v1::ConsumeRequest { heartbeat_ms: 999, ..v1::ConsumeRequest::default() };
        let error = read(&new, ReadMethod::Stream, Package::SeriatimV1).expect("valid").heartbeat();
        assert_eq!(error, Err(Invalid::Heartbeat { heartbeat_ms_min: 1000 }));
    }

    #[test]
    fn refuses_fields_of_the_other_method() {
        let wait = v1::ConsumeRequest { wait_ms: 1, ..v1::ConsumeRequest::default() };
        let beat = v1::ConsumeRequest { heartbeat_ms: 2000, ..v1::ConsumeRequest::default() };
        let stop = v1::ConsumeRequest { stop_at_end: true, ..v1::ConsumeRequest::default() };
        for (request, right, wrong, field) in [
            (&wait, ReadMethod::Unary, ReadMethod::Stream, "wait_ms"),
            (&beat, ReadMethod::Stream, ReadMethod::Unary, "heartbeat_ms"),
            (&stop, ReadMethod::Stream, ReadMethod::Unary, "stop_at_end"),
        ] {
            assert!(read(request, right, Package::SeriatimV1).is_ok(), "{field}");
            let error = read(request, wrong, Package::SeriatimV1).err();
            assert_eq!(error, Some(Invalid::NotApplicable { field }));
        }
    }
}
