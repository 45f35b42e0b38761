//! The log state: everything that is derived from a log's applied entries. It is stored, so that a restart does not
//! have to apply them again.
//!
//! ```text
//!  applied entry ──▶ Applied::apply ──▶ LogState ──▶ LogState::encode ──▶ snapshot
//!                          │                │  ├────▶ StoredLogState ────▶ manifest: all but the tables
//!                          │                │  └────▶ Tables::encode ─────▶ state file: the tables, less often
//!                          │                └───────▶ Visible (what readers see)
//!                          └──▶ Outcome (what the caller does about it)
//! ```
//!
//! - Every replica that has applied the same entries has the same [`LogState`], byte for byte.
//! - A new part of the state requires a field of [`LogState`], a line of [`Applied::apply`] and a new version of the
//!   codecs. The formats of the manifest and of the snapshot do not change.
//! - A state of a newer version is refused by its number ([`BadLogState::Newer`]), and never interpreted.

mod applied;
mod codec;
pub mod cursors;
pub(crate) mod faults;
pub mod producers;
mod refusal;
mod stored;
mod tables;
mod view;

pub use applied::{Applied, BadTrim, Outcome, StateChange, Visible, apply_to_tables, decode_trim, encode_trim};
pub use codec::{BadLogState, LogState};
pub use refusal::StateRefusal;
pub use stored::{StoredLogState, TablesOrigin};
pub use tables::{BadStateCommand, StateCommand, Tables};
pub use view::{Fence, TablesView};

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;
