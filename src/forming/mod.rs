//! Forming: how blank nodes agree on the one that founds the cluster (`bootstrap_expect`), without a choice by the
//! operator. A pure state machine. `membership/driver/form.rs` runs it and stores what it decides, and
//! `replication/form.rs` passes on what other nodes send.
//!
//! ```text
//!   blank ── sees N blank nodes ──▶ pledged to the lowest id ── it is this node, and has N pledges ──▶ founding
//!                                     │            ▲
//!               another id is lowest  ▼            │ the next pledge
//!                                   withdrawing ── the candidate confirms that the pledge is void
//! ```
//!
//! Guarantees, for less than 2 N blank nodes (ids, wiped nodes included):
//! - **A pledge belongs to one candidate at a time.** It is stored before it is sent. It moves only after its
//!   candidate has confirmed that it does not count there any more, or never did.
//! - **A founder has N pledges**, its own included. So two founders would need a node that has pledged to both.
//! - A candidate that has decided to found confirms no withdrawal.
//!
//! A candidate keeps pledges in memory only, so it loses them at a restart. Its *incarnation*, which changes with each
//! start, is part of each pledge that is sent. So a late message does not count after a restart, when nothing shows
//! that the pledge was withdrawn. `docs/PROTOCOL.md`, "Forming", has the whole argument.
//!
//! Parts: `messages` (what nodes send), `machine` (the decisions).

pub mod machine;
pub mod messages;

pub(crate) mod faults;

use std::sync::Arc;

use parking_lot::Mutex;

pub use machine::{Forming, FormingStatus, Step};
pub use messages::{BlankNode, FormAnswer, FormMessage, StoredPledge, Word};

/// The state machine of this node, shared by the threads that receive messages and the one that decides.
pub type FormingHandle = Arc<Mutex<Forming>>;

#[cfg(test)]
mod tests;
