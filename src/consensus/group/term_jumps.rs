//! Limits how far a message may raise the term, so that no number of messages can reach the largest term within ten
//! years.

use super::settings::TICK_MS;

/// A message whose term is further ahead is rejected. Each term is an election, and a correct cluster needs more than
/// a century for that many.
const JUMP_MAX: u64 = 1 << 32;
/// A message whose term is further ahead than this is accepted once per [`JUMP_TICKS`]. A node that lags needs one
/// such message.
const STEP_MAX: u64 = 1 << 10;
const JUMP_TICKS: usize = 1000 / TICK_MS as usize;

/// The tick of the last message that raised the term by more than [`STEP_MAX`].
#[derive(Debug, Default)]
pub struct TermJumps(Option<usize>);

impl TermJumps {
    /// Returns true if a message of term `of` may be stepped.
    pub fn admits(&self, of: u64, term: u64, tick: usize) -> bool {
        let has_jumped = self.0.is_some_and(|jumped| tick < jumped + JUMP_TICKS);
        of <= term.saturating_add(if has_jumped { STEP_MAX } else { JUMP_MAX })
    }

    /// Records that a message has raised the term.
    pub fn record_raise(&mut self, from: u64, to: u64, tick: usize) {
        if to > from + STEP_MAX {
            self.0 = Some(tick);
        }
    }
}
