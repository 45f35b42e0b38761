//! A rate limit for log lines that remote hosts can cause: a number of lines per key and time window. Suppressed
//! lines are counted.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Lines per key in one [`WINDOW`].
pub const LINES_MAX: u32 = 10;
/// The time window of the limit.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Keys per window. Further keys write no lines, because a remote host may choose the keys.
const KEYS_MAX: usize = 1024;

/// Admits [`LINES_MAX`] lines per key in each [`WINDOW`].
#[derive(Debug)]
pub struct LineLimit<K>(HashMap<K, Written>);

#[derive(Debug)]
struct Written {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl<K> Default for LineLimit<K> {
    fn default() -> LineLimit<K> {
        LineLimit(HashMap::new())
    }
}

impl<K: Hash + Eq> LineLimit<K> {
    /// Returns `None` if the line must not be written, otherwise the number of suppressed lines of this key since the
    /// last one.
    pub fn admit(&mut self, key: K, now: Instant) -> Option<u64> {
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, written| now.duration_since(written.since) < WINDOW);
            if self.0.len() >= KEYS_MAX {
                return None;
            }
        }
        let written = self.0.entry(key).or_insert(Written { since: now, lines: 0, suppressed: 0 });
        if now.duration_since(written.since) >= WINDOW {
            (written.since, written.lines) = (now, 0);
        }
        if written.lines == LINES_MAX {
            written.suppressed += 1;
            return None;
        }
        written.lines += 1;
        Some(std::mem::take(&mut written.suppressed))
    }

    /// The number of admitted lines of a key in its current window.
    #[cfg(test)]
    pub fn lines(&self, key: &K) -> u64 {
        self.0.get(key).map_or(0, |written| written.lines.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_suppressed_lines_and_admits_other_keys() {
        let mut limit = LineLimit::default();
        let start = Instant::now();
        let shown = (0..1000).filter(|_| limit.admit(1, start).is_some()).count();
        assert_eq!(shown, 10);
        assert_eq!(limit.admit(2, start), Some(0));
        assert_eq!(limit.admit(1, start + WINDOW), Some(990));
        assert_eq!(limit.admit(1, start + WINDOW), Some(0));
    }

    #[test]
    fn a_flood_of_keys_does_not_use_more_memory() {
        let mut limit = LineLimit::default();
        let start = Instant::now();
        let shown = (0..10 * KEYS_MAX).filter(|key| limit.admit(*key, start).is_some()).count();
        assert_eq!((shown, limit.0.len()), (KEYS_MAX, KEYS_MAX));
        assert_eq!(limit.admit(usize::MAX, start + WINDOW), Some(0));
        assert_eq!(limit.0.len(), 1);
    }
}
