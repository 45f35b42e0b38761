//! Everything that is derived from a log's applied entries, and stored so that a restart need not apply them again.
//!
//! ```text
//!  applied entry ──▶ Applied::apply ──▶ LogState ──▶ encode ──▶ manifest, snapshot
//!                          │                └──────────────────▶ Visible (what readers see)
//!                          └──▶ Outcome (what the caller does about it)
//! ```
//!
//! - Every replica that has applied the same entries has the same [`LogState`], byte for byte.
//! - A new part of the state is a field of [`LogState`], a line of [`Applied::apply`] and a new version of the codec; neither
//!   the manifest nor the snapshot changes for it.
//! - A state of a newer version is refused by its number ([`BadLogState::Newer`]), and never guessed at.

mod applied;
mod codec;

pub use applied::{Applied, BadTrim, Outcome, StateChange, Visible, decode_trim, encode_trim};
pub use codec::{BadLogState, LogState};
