//! Where a consumer begins.

use std::time::SystemTime;

use crate::client::record::to_us;
use crate::pb::v1::Start;

/// Where reading begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record that exists.
    #[default]
    Earliest,
    /// After the last record that was acknowledged before.
    Latest,
    /// At this offset.
    Offset(u64),
    /// At the first record that was appended at this time or later.
    Time(SystemTime),
    /// This many records before the end.
    Last(u64),
}

impl StartAt {
    /// Returns the fields `start`, `offset` and `start_time_us` of requests.
    pub(super) fn fields(self) -> (Start, u64, u64) {
        match self {
            StartAt::Earliest => (Start::START_EARLIEST, 0, 0),
            StartAt::Latest => (Start::START_LATEST, 0, 0),
            StartAt::Offset(offset) => (Start::START_OFFSET, offset, 0),
            StartAt::Time(time) => (Start::START_TIME, 0, to_us(time)),
            StartAt::Last(count) => (Start::START_LAST, count, 0),
        }
    }
}
