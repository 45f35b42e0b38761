//! The end of the log, with its digest, at known indexes, so that no read is needed there: [`Checkpoints`] at fixed
//! indexes, which are the same on every node, and [`RecentEnds`] at every index near the end.

use std::collections::VecDeque;

use super::state::Base;
use crate::types::LogIndex;

/// Checkpoints are at multiples of this index. Small in tests, whose logs are short.
pub const CHECKPOINT_ENTRIES: u64 = if cfg!(test) { 8 } else { 256 };

/// For each power of two, about this many of the newest checkpoints at its multiples are kept.
const KEPT_OF_EACH_POWER: u64 = 16;

/// The end of the log (index, term, offset, digest) as of fixed indexes, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints(Vec<Base>);

impl Checkpoints {
    /// Restores checkpoints that [`Checkpoints::all`] returned, up to `index`.
    pub fn up_to(all: &[Base], index: LogIndex) -> Checkpoints {
        Checkpoints(all.iter().copied().filter(|at| at.index <= index).collect())
    }

    /// Notes the end of the log after one more entry.
    pub fn note(&mut self, at: Base) {
        if !at.index.0.is_multiple_of(CHECKPOINT_ENTRIES) || at.index.0 == 0 {
            return;
        }
        self.0.push(at);
        let newest = at.index.0 / CHECKPOINT_ENTRIES;
        self.0.retain(|at| {
            let number = at.index.0 / CHECKPOINT_ENTRIES;
            newest - number < KEPT_OF_EACH_POWER << number.trailing_zeros()
        });
    }

    /// Drops the checkpoints of truncated entries, from `from` on.
    pub fn truncate_suffix(&mut self, from: LogIndex) {
        self.0.retain(|at| at.index < from);
    }

    /// All checkpoints, ascending by index.
    pub fn all(&self) -> &[Base] {
        &self.0
    }

    /// The checkpoint at `index`.
    pub fn at(&self, index: LogIndex) -> Option<&Base> {
        let found = self.0.binary_search_by_key(&index, |at| at.index).ok()?;
        self.0.get(found)
    }
}

/// The end of the log after each of the newest entries: the last applied one, all after it, and some before it. A
/// leader needs the digest at every entry from its commit index on. Without it, a follower acknowledges nothing above
/// that index.
#[derive(Clone, Debug, Default)]
pub struct RecentEnds(VecDeque<Base>);

impl RecentEnds {
    /// The number of applied entries to keep, for messages that arrive late.
    const APPLIED_ENTRIES: usize = 1024;
    /// The number of applied entries to keep of a log that is idle. Messages about earlier ones do not arrive any more.
    const IDLE_ENTRIES: u64 = 16;

    /// Notes the end of the log after one more entry. Entries up to `applied` are applied.
    pub fn note(&mut self, at: Base, applied: LogIndex) {
        self.0.push_back(at);
        while self.0.len() > Self::APPLIED_ENTRIES && self.0.front().is_some_and(|first| first.index < applied) {
            self.0.pop_front();
        }
    }

    /// Frees memory of a log that is idle.
    pub fn rest(&mut self, applied: LogIndex) {
        while self.0.front().is_some_and(|first| first.index.0 + Self::IDLE_ENTRIES <= applied.0) {
            self.0.pop_front();
        }
        self.0.shrink_to_fit();
    }

    /// Drops the ends of truncated entries, from `from` on.
    pub fn truncate_suffix(&mut self, from: LogIndex) {
        let kept = self.0.partition_point(|at| at.index < from);
        self.0.truncate(kept);
    }

    /// The end of the log after the entry at `index`.
    pub fn at(&self, index: LogIndex) -> Option<&Base> {
        let number = index.0.checked_sub(self.0.front()?.index.0)?;
        self.0.get(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::format::digest::Digest;

    #[test]
    fn recent_ends_are_the_unapplied_ones_and_some_before() {
        let mut recent = RecentEnds::default();
        let at = |index| Base { index: LogIndex(index), digest: Digest(index), ..Base::default() };
        (9..=3000).for_each(|index| recent.note(at(index), LogIndex(10)));
        assert_eq!(recent.at(LogIndex(9)), None);
        assert_eq!(recent.at(LogIndex(10)), Some(&at(10)), "the last applied one");
        recent.note(at(3001), LogIndex(3001));
        assert_eq!(recent.0.len(), RecentEnds::APPLIED_ENTRIES);
        recent.truncate_suffix(LogIndex(2500));
        assert_eq!((recent.at(LogIndex(2499)), recent.at(LogIndex(2500))), (Some(&at(2499)), None));
        recent.rest(LogIndex(2480));
        assert_eq!((recent.0.len(), recent.at(LogIndex(2464)), recent.at(LogIndex(2465))), (35, None, Some(&at(2465))));
        recent.truncate_suffix(LogIndex(1));
        assert_eq!(recent.at(LogIndex(2499)), None);
        recent.note(at(7), LogIndex(7));
        assert_eq!(recent.at(LogIndex(7)), Some(&at(7)));
    }

    #[test]
    fn keeps_a_few_hundred_checkpoints_of_any_log_dense_at_its_end() {
        let mut checkpoints = Checkpoints::default();
        let last = 1_000_000 * CHECKPOINT_ENTRIES;
        for number in 1..=1_000_000 {
            let index = LogIndex(number * CHECKPOINT_ENTRIES);
            checkpoints.note(Base { index, digest: Digest(number), ..Base::default() });
        }
        assert!(checkpoints.all().len() < 400, "{}", checkpoints.all().len());
        for age in 0..KEPT_OF_EACH_POWER {
            assert!(checkpoints.at(LogIndex(last - age * CHECKPOINT_ENTRIES)).is_some());
        }
        // A node that lags far behind still has some checkpoints in common.
        let mut behind = Checkpoints::up_to(checkpoints.all(), LogIndex(last / 2));
        assert!(behind.all().len() > 5, "{}", behind.all().len());
        behind.truncate_suffix(LogIndex(last / 4));
        assert!(behind.all().iter().all(|at| at.index < LogIndex(last / 4)));
        checkpoints.note(Base { index: LogIndex(last + 1), ..Base::default() });
        assert!(checkpoints.at(LogIndex(last + 1)).is_none(), "not a multiple");
    }
}
