//! How many appends may be on their way to a follower.
//!
//! raft bounds them by their number. A message has up to [`MESSAGE_BYTES`], or one larger entry, and a peer's outbox drops what
//! exceeds its budget: raft then sends everything from the last acknowledged entry on again, although most of it is still in the
//! outbox. With entries of 2 MB a link of 20 Mbit/s carried each of them ten times. So the number is lowered as long as larger
//! entries are in memory.

/// The size of a message of several entries.
pub const MESSAGE_BYTES: usize = 256 << 10;
/// Messages of this many bytes may be on their way to a follower. A peer's outbox takes 16 MiB.
const IN_FLIGHT_BYTES: usize = 12 << 20;
/// The number of messages, if none is larger.
pub const MESSAGES_MAX: usize = IN_FLIGHT_BYTES / MESSAGE_BYTES;

fn messages(largest_entry_bytes: usize) -> usize {
    (IN_FLIGHT_BYTES / largest_entry_bytes.max(MESSAGE_BYTES)).max(1)
}

/// The bound that raft was told last.
#[derive(Debug, PartialEq, Eq)]
pub struct AppendsInFlight {
    messages: usize,
    /// The number of followers that it was set for. A new member begins with raft's own bound.
    members: usize,
}

impl Default for AppendsInFlight {
    /// A new leader's followers begin with raft's own bound.
    fn default() -> AppendsInFlight {
        AppendsInFlight { messages: MESSAGES_MAX, members: 0 }
    }
}

impl AppendsInFlight {
    /// Called by a leader whenever entries that may be sent are in memory. Returns the maximum number of messages to
    /// each member, if it changes.
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
    fn what_is_on_its_way_fits_the_outbox() {
        assert_eq!((MESSAGES_MAX, messages(0), messages(MESSAGE_BYTES)), (48, 48, 48));
        assert_eq!((messages(2 << 20), messages(8 << 20), messages(16 << 20)), (6, 1, 1));
        for bytes in (0..10 << 20).step_by(100_000) {
            let sent = messages(bytes) * bytes.max(MESSAGE_BYTES);
            assert!(sent < crate::replication::mailbox::MESSAGE_BYTES_MAX, "{bytes}");
        }
    }
}
