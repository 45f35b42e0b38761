//! How far a message may raise the term: no number of messages leads to the largest term in less than ten years.

use super::settings::TICK_MS;

/// A message whose term is further ahead is not taken. A term is an election: a sound cluster would need a century for that many.
const JUMP_MAX: u64 = 1 << 32;
/// A message whose term is further ahead than this is taken once in [`JUMP_TICKS`], as a node that lags needs it once.
const STEP_MAX: u64 = 1 << 10;
const JUMP_TICKS: usize = 1000 / TICK_MS as usize;

/// The tick of the last message that raised the term by more than [`STEP_MAX`].
#[derive(Debug, Default)]
pub struct TermJumps(Option<usize>);

impl TermJumps {
    /// True if a message of term `of` may be taken.
    pub fn admits(&self, of: u64, term: u64, tick: usize) -> bool {
        let has_jumped = self.0.is_some_and(|jumped| tick < jumped + JUMP_TICKS);
        of <= term.saturating_add(if has_jumped { STEP_MAX } else { JUMP_MAX })
    }

    /// A message has raised the term.
    pub fn raised(&mut self, from: u64, to: u64, tick: usize) {
        if to > from + STEP_MAX {
            self.0 = Some(tick);
        }
    }
}
