//! Why this node does not accept calls yet: set by the part that waits, read by the part that refuses a call.

use std::sync::Arc;

use parking_lot::RwLock;

/// A longer reason is cut: it is sent to clients in the metadata of a status, which gRPC limits to 8 KiB.
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
    fn the_newest_reason_is_read_and_a_long_one_is_cut() {
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
