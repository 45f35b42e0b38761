//! Records as an application sends and receives them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::pb::v1;

/// A record to append.
///
/// ```
/// # use seriatim::client::Record;
/// let record = Record { key: Some("account-7".into()), ..Record::new("debit 5") };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The content, possibly empty.
    pub value: Bytes,
    /// An absent key differs from an empty one.
    pub key: Option<Bytes>,
    /// Names and values. Their order is kept, and names may repeat.
    pub headers: Vec<(String, Bytes)>,
    /// A number that the application chooses (`type` in the API).
    pub record_type: u32,
    /// When the event happened, by the clock of the application. It does not affect the order of records.
    pub event_time: Option<SystemTime>,
}

impl Record {
    /// Creates a record that has only a value.
    pub fn new(value: impl Into<Bytes>) -> Record {
        Record { value: value.into(), ..Record::default() }
    }

    /// Returns the size that the limits of a log count: value, key and headers.
    pub fn content_bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.value.len() + self.key.as_ref().map_or(0, Bytes::len) + headers
    }
}

impl<T: Into<Bytes>> From<T> for Record {
    fn from(value: T) -> Record {
        Record::new(value)
    }
}

/// A record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRecord {
    /// The position in the log.
    pub offset: u64,
    /// When it was appended, by the clock of the leader. Never decreases within a log.
    pub append_time: SystemTime,
    /// What was appended.
    pub record: Record,
}

impl From<Record> for v1::Record {
    fn from(record: Record) -> v1::Record {
        let header = |(name, value)| v1::Header { name, value, ..v1::Header::default() };
        v1::Record {
            value: record.value,
            key: record.key,
            headers: record.headers.into_iter().map(header).collect(),
            type_: record.record_type,
            client_time_us: record.event_time.map(to_us),
            ..v1::Record::default()
        }
    }
}

impl From<v1::Record> for ReceivedRecord {
    fn from(record: v1::Record) -> ReceivedRecord {
        ReceivedRecord {
            offset: record.offset,
            append_time: from_us(record.append_time_us),
            record: Record {
                value: record.value,
                key: record.key,
                headers: record.headers.into_iter().map(|header| (header.name, header.value)).collect(),
                record_type: record.type_,
                event_time: record.client_time_us.map(from_us),
            },
        }
    }
}

/// Returns the microseconds since 1970; 0 for earlier times.
pub(super) fn to_us(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn from_us(us: u64) -> SystemTime {
    // A time that the platform can't represent is not that of an event.
    UNIX_EPOCH.checked_add(Duration::from_micros(us)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_arrives() {
        let record = Record {
            key: Some(Bytes::new()),
            headers: vec![("a".to_owned(), "b".into()), ("a".to_owned(), Bytes::new())],
            record_type: 7,
            event_time: Some(UNIX_EPOCH + Duration::from_micros(9)),
            ..Record::new("value")
        };
        assert_eq!(record.content_bytes(), 8);
        let received = ReceivedRecord::from(v1::Record::from(record.clone()));
        assert_eq!(received.record, record);
    }
}
