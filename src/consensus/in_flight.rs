//! How many appends may be on their way to a follower.
//!
//! raft bounds them by their number. A message has up to [`MESSAGE_BYTES`], or one larger entry, and a peer's outbox drops what
//! exceeds its budget: raft then sends everything from the last acknowledged entry on again, although most of it is still in the
//! outbox. With entries of 2 MB a link of 20 Mbit/s carried each of them ten times. So the number is lowered as long as larger
//! entries are in memory.

use super::group::Group;

/// The size of a message of several entries.
pub(super) const MESSAGE_BYTES: usize = 256 << 10;
/// Messages of this many bytes may be on their way to a follower. A peer's outbox takes 16 MiB.
const IN_FLIGHT_BYTES: usize = 12 << 20;
/// The number of messages, if none is larger.
pub(super) const MESSAGES_MAX: usize = IN_FLIGHT_BYTES / MESSAGE_BYTES;

fn messages(largest_entry_bytes: usize) -> usize {
    (IN_FLIGHT_BYTES / largest_entry_bytes.max(MESSAGE_BYTES)).max(1)
}

impl Group {
    /// Bounds what is on its way to each follower. Called whenever entries have come into memory that may be sent.
    pub(super) fn bound_in_flight(&mut self) {
        let messages = messages(self.node.store().largest_bytes());
        // A new member begins with raft's own bound.
        let set = (messages, self.node.raft.prs().iter().len());
        if self.in_flight == set || !self.is_leader() {
            return;
        }
        self.in_flight = set;
        let peers: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
        peers.into_iter().for_each(|id| self.node.raft.adjust_max_inflight_msgs(id, messages));
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
