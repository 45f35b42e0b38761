//! Membership: how nodes find each other, and how a node asks to be admitted to a cluster.
//!
//! ```text
//!   join addresses ─┐                       ┌─ probe: does a cluster of this name answer anywhere?
//!                   ├─► Candidates ─► Join ─┼─ admission of a blank node, as long as it takes
//!   mDNS finds ─────┘                       └─ the new name or addresses of a member
//! ```
//!
//! Discovery suggests, consensus decides: mDNS and join addresses only say which addresses to ask. A node is a member
//! because a committed entry of the catalog says so.
//!
//! Guarantees:
//! - A node does not ask to be admitted before it has seen that a single cluster has its cluster's name. It asks one
//!   member at a time, so it can't become a member of two clusters.
//! - What mDNS finds counts only if the join addresses do not answer, and never for a cluster with another name.
//! - Nothing here removes a member.
//!
//! Parts, in reading order: `options`; `admission` (the request and its results); `mdns` and `candidates` (which
//! addresses to ask); `search` (one round of probes); `reasons` (why a node waits, in words); `driver` (the thread:
//! `driver/ask.rs` asks for admission, `driver/keep.rs` is a member's part).

pub mod admission;
mod candidates;
pub mod driver;
mod mdns;
mod options;
mod reasons;
mod search;

pub use admission::{Admission, AdmissionError, FoundCluster, Probed};
pub use driver::{Membership, MembershipHandle};
pub use options::MembershipOptions;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
