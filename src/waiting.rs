//! Why this node does not accept requests yet. The component that waits sets the reason; the one that refuses a request
//! reads it.

use std::sync::Arc;

use parking_lot::RwLock;

/// Longer reasons are truncated: a reason is sent to clients in the metadata of a status, which gRPC limits to 8 KiB.
const BYTES_MAX: usize = 1000;

/// The newest reason. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct WaitingFor(Arc<RwLock<String>>);

impl WaitingFor {
    /// Replaces the reason.
    pub fn set(&self, reason: impl Into<String>) {
        let mut reason = reason.into();
        if reason.len() > BYTES_MAX {
            reason.truncate(reason.floor_char_boundary(BYTES_MAX));
            reason.push_str("...");
        }
        *self.0.write() = reason;
    }

    /// The newest reason. Empty before the first one.
    pub fn get(&self) -> String {
        self.0.read().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_newest_reason_and_truncates_a_long_one() {
        let waiting = WaitingFor::default();
        let reader = waiting.clone();
        assert_eq!(reader.get(), "");
        waiting.set("a");
        waiting.set("no answer from a:1");
        assert_eq!(reader.get(), "no answer from a:1");
        waiting.set("é".repeat(BYTES_MAX));
        assert_eq!(reader.get(), "é".repeat(BYTES_MAX / 2) + "...");
    }
}
