//! Membership: how nodes find each other, and how one asks to be admitted.
//!
//! ```text
//!   join addresses ─┐                       ┌─ probe: does a cluster of our name answer anywhere?
//!                   ├─► Candidates ─► Join ─┤─ admission of a blank node, for as long as it takes
//!   mDNS finds ─────┘                       └─ new addresses of a member
//! ```
//!
//! Discovery suggests, consensus decides: mDNS and join addresses only say where to ask. A node is a member because a
//! committed entry of the catalog says so.
//!
//! What must stay true:
//! - A node asks nobody to be admitted before it has seen that one cluster alone goes by its cluster's name. It asks one
//!   member at a time, so it can't become a member of two.
//! - What mDNS finds counts only where the join addresses give no answer, and never for a cluster of another name.
//! - Nothing here removes a member.

pub mod driver;

pub mod admission;

mod candidates;
mod reasons;
mod search;

mod mdns;

pub use admission::{Admission, AdmissionError, Found, Probed};
pub use driver::{Membership, MembershipHandle, Options};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
