//! The options of a log.

/// How a log is stored.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment is full when it reaches this size. It may become larger, because a frame is never split.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes: 64 << 20 }
    }
}
