//! Limits the appends in flight to a follower by their bytes.
//!
//! raft limits only their number. A message contains up to [`MESSAGE_BYTES`], or one larger entry, and a peer's
//! outbox drops messages over its byte budget. raft then resends everything after the last acknowledged entry,
//! although most of it is still in the outbox. (With entries of 2 MB, a link of 20 Mbit/s carried each of them ten
//! times.) So the limit on the number is lowered while larger entries are in memory.

/// The maximum size of a message with more than one entry.
pub const MESSAGE_BYTES: usize = 256 << 10;
/// The bytes that may be in flight to a follower. A peer's outbox holds 16 MiB.
const IN_FLIGHT_BYTES: usize = 12 << 20;
/// The number of messages in flight, if no entry is larger than [`MESSAGE_BYTES`].
pub const MESSAGES_MAX: usize = IN_FLIGHT_BYTES / MESSAGE_BYTES;

fn messages(largest_entry_bytes: usize) -> usize {
    (IN_FLIGHT_BYTES / largest_entry_bytes.max(MESSAGE_BYTES)).max(1)
}

/// The limit that was last set in raft.
#[derive(Debug, PartialEq, Eq)]
pub struct AppendsInFlight {
    messages: usize,
    /// The number of members for which it was set. A new member starts with raft's default.
    members: usize,
}

impl Default for AppendsInFlight {
    /// A new leader's followers start with raft's default.
    fn default() -> AppendsInFlight {
        AppendsInFlight { messages: MESSAGES_MAX, members: 0 }
    }
}

impl AppendsInFlight {
    /// The maximum number of messages in flight to each member.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Called by a leader when entries that may be sent have been added to memory. Returns the new maximum number of
    /// messages in flight to each member, if it has changed.
    pub fn bound(&mut self, largest_entry_bytes: usize, members: usize) -> Option<usize> {
        let new = AppendsInFlight { messages: messages(largest_entry_bytes), members };
        let changes = *self != new;
        *self = new;
        changes.then_some(self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_in_flight_fit_the_outbox() {
        assert_eq!((MESSAGES_MAX, messages(0), messages(MESSAGE_BYTES)), (48, 48, 48));
        assert_eq!((messages(2 << 20), messages(8 << 20), messages(16 << 20)), (6, 1, 1));
        for bytes in (0..10 << 20).step_by(100_000) {
            let sent = messages(bytes) * bytes.max(MESSAGE_BYTES);
            assert!(sent < crate::replication::mailbox::MESSAGE_BYTES_MAX, "{bytes}");
        }
    }
}
