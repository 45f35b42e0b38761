//! Membership: how nodes find each other, and how one asks to be admitted.
//!
//! Discovery suggests, consensus decides: mDNS and join addresses only say where to ask. A node is a member because a
//! committed entry of the catalog says so.

pub mod admission;
pub mod driver;

pub use admission::{Admission, AdmissionError, Found};
pub use driver::{Membership, MembershipHandle, Options};
