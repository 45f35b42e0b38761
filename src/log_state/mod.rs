//! The log state: everything that is derived from a log's applied entries. It is stored, so that a restart does not
//! have to apply them again.
//!
//! ```text
//!  applied entry ──▶ Applied::apply ──▶ LogState ──▶ encode ──▶ manifest, snapshot
//!                          │                └──────────────────▶ Visible (what readers see)
//!                          └──▶ Outcome (what the caller does about it)
//! ```
//!
//! - Every replica that has applied the same entries has the same [`LogState`], byte for byte.
//! - A new part of the state requires a field of [`LogState`], a line of [`Applied::apply`] and a new version of the
//!   codec. The formats of the manifest and of the snapshot do not change.
//! - A state of a newer version is refused by its number ([`BadLogState::Newer`]), and never interpreted.

mod applied;
mod codec;
pub mod cursors;
pub(crate) mod faults;
pub mod producers;
mod refusal;
mod tables;
mod view;

pub use applied::{Applied, BadTrim, Outcome, StateChange, Visible, decode_trim, encode_trim};
pub use codec::{BadLogState, LogState};
pub use refusal::StateRefusal;
pub use tables::{BadStateCommand, StateCommand, Tables};
pub use view::{Fence, TablesView};

#[cfg(test)]
mod tests;
