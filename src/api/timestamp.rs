//! Times as messages.

use protobuf::well_known_types::timestamp::Timestamp;

/// Returns Unix microseconds as protobuf's type.
pub fn timestamp_of_us(us: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(us % 1_000_000 * 1000).unwrap_or_default(),
        ..Timestamp::default()
    }
}
