//! Random histories of a log and its crashes.
//!
//! A log is appended to, truncated, trimmed, replaced by snapshots, synced and closed, its durable position is written
//! to the manifest, and lost entries are appended again. At any change of the disk, also during recovery, the process
//! may die: by a kill (the page cache stays) or by a power cut (any part of what was not synced is lost). After each
//! restart the log must be in one of the states that it had since the last finished sync, and the start must never be
//! refused.

use super::model::Model;
use crate::storage::error::StorageError;

/// One history: eight lives of a log.
pub fn history(seed: u64) {
    let mut model = Model::new(seed);
    for _ in 0..8 {
        let deadly = model.rng.below(60);
        model.sim.die_after(Some(deadly));
        let died = loop {
            if let Err(error) = model.step() {
                break error;
            }
        };
        assert!(model.sim.died(), "it failed for another reason: {died}");
        model.restart();
    }
}

/// A history of torn ends. Some entries are synced and more are appended. A power cut follows, then the lost entries or
/// other ones are appended, and another power cut follows.
pub fn torn_ends(seed: u64) {
    let mut model = Model::new(seed);
    model.even = true;
    // Nothing changes during a sync.
    model.never = u32::MAX;
    model.turn_torn_ends().expect("nothing kills it");
}

impl Model {
    /// Restarts until the process survives the start, and compares the result.
    pub fn restart(&mut self) {
        loop {
            if self.rng.once_in(2) {
                self.sim.power_cut(&mut self.rng);
            } else {
                self.sim.kill();
            }
            self.sim.die_after(self.rng.once_in(3).then(|| self.rng.below(16)));
            if self.reopen() {
                self.sim.die_after(None);
                return;
            }
        }
    }

    /// Cuts the power, and restarts.
    fn power_cut(&mut self) {
        self.sim.power_cut(&mut self.rng);
        assert!(self.reopen(), "nothing kills it");
    }

    fn some(&mut self) -> Result<(), StorageError> {
        for _ in 0..1 + self.rng.below(3) {
            match self.rng.below(6) {
                0 => self.hard_state()?,
                _ => self.append(1)?,
            }
        }
        Ok(())
    }

    fn turn_torn_ends(&mut self) -> Result<(), StorageError> {
        for _ in 0..4 {
            self.some()?;
            self.sync()?;
            self.some()?;
            if self.rng.once_in(2) {
                self.truncate()?;
                let count = self.rng.below(3);
                self.append(count)?;
            }
            self.power_cut();
            match self.rng.below(4) {
                0 => self.some()?,
                _ => self.append_lost()?,
            }
            self.sync()?;
            if self.rng.once_in(2) {
                self.some()?;
                self.sync()?;
            }
            self.power_cut();
        }
        Ok(())
    }
}

#[test]
fn random_histories() {
    super::by_seed(3000, history);
}

#[test]
fn torn_ends_stay_torn() {
    super::by_seed(2000, torn_ends);
}
