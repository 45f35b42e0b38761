//! Commands for the log state that become one entry. Those that arrive in one turn of the loop, for example the commits
//! of many readers, so need one write and one sync.

use std::time::Instant;

use super::pending::AppendReply;
use crate::consensus::handle::Proposal;

/// The maximum size of a command. Those of clients are smaller by far.
pub const COMMAND_BYTES_MAX: usize = 256 << 10;
/// The entry is appended when its payload reaches this size.
const ENTRY_BYTES: usize = 256 << 10;

/// A request whose command is gathered.
pub struct GatheredRequest {
    pub proposal: Proposal,
    /// When it arrived.
    pub now: Instant,
    /// The same in Unix microseconds.
    pub time_us: u64,
    pub reply: AppendReply,
}

/// The gathered requests.
#[derive(Default)]
pub struct Gathered {
    requests: Vec<GatheredRequest>,
    bytes: usize,
}

impl Gathered {
    /// Adds a request. Returns true if the entry is large enough.
    pub fn insert(&mut self, request: GatheredRequest) -> bool {
        self.bytes += request.proposal.payload.len();
        self.requests.push(request);
        self.bytes >= ENTRY_BYTES
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Removes all requests.
    pub fn take(&mut self) -> Vec<GatheredRequest> {
        self.bytes = 0;
        std::mem::take(&mut self.requests)
    }
}
