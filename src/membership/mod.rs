//! Membership: how nodes find each other, and how a node asks to be admitted to a cluster.
//!
//! ```text
//!   join addresses ─┐                       ┌─ probe: does a cluster of this name answer?
//!                   ├─► Candidates ─► Join ─┼─ admission of a blank node, until it succeeds
//!   mDNS ───────────┘                       └─ the new name or addresses of a member
//! ```
//!
//! Discovery suggests, consensus decides: mDNS and join addresses only determine which addresses are asked. A node
//! becomes a member only by a committed entry of the catalog.
//!
//! Guarantees:
//! - A node requests admission only after it has seen that exactly one cluster has its cluster's name. It asks one
//!   member at a time, so it can't become a member of two clusters.
//! - Nodes found by mDNS are used only if no join address answers, and only if they announce this cluster's name.
//! - Nothing here removes a member.
//!
//! Parts, in reading order: `options`; `admission` (the request and its results); `mdns` and `candidates` (the
//! addresses to ask); `search` (one round of probes); `reasons` (texts that say why a node waits); `driver` (the
//! thread: `driver/ask.rs` requests admission, `driver/form.rs` exchanges messages with other blank nodes,
//! `driver/keep.rs` contains the tasks of a member).

pub mod admission;
mod candidates;
pub mod driver;
mod mdns;
mod options;
mod reasons;
mod search;

pub use admission::{Admission, AdmissionError, Entrance, FoundCluster, Probed};
pub use driver::{Membership, MembershipHandle};
pub use options::{FormingOptions, MembershipOptions};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
