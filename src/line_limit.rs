//! A limit for log lines that others can cause: so many per window for each key, and the number of those that were left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Each key may write this many lines ...
pub const LINES_MAX: u32 = 10;
/// ... in this time.
pub const WINDOW: Duration = Duration::from_secs(60);
/// If more keys wrote a line in a window, further ones write none: others may choose the keys.
const KEYS_MAX: usize = 1024;

/// Admits [`LINES_MAX`] lines per key in each [`WINDOW`].
#[derive(Debug)]
pub struct LineLimit<K>(HashMap<K, Written>);

#[derive(Debug)]
struct Written {
    since: Instant,
    lines: u32,
    hidden: u64,
}

impl<K> Default for LineLimit<K> {
    fn default() -> LineLimit<K> {
        LineLimit(HashMap::new())
    }
}

impl<K: Hash + Eq> LineLimit<K> {
    /// `None`: the line is not written. Otherwise the number of lines of this key that were left out since its last one.
    pub fn admit(&mut self, key: K, now: Instant) -> Option<u64> {
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, written| now.duration_since(written.since) < WINDOW);
            if self.0.len() >= KEYS_MAX {
                return None;
            }
        }
        let written = self.0.entry(key).or_insert(Written { since: now, lines: 0, hidden: 0 });
        if now.duration_since(written.since) >= WINDOW {
            (written.since, written.lines) = (now, 0);
        }
        if written.lines == LINES_MAX {
            written.hidden += 1;
            return None;
        }
        written.lines += 1;
        Some(std::mem::take(&mut written.hidden))
    }

    /// The lines of a key that were admitted in its current window.
    #[cfg(test)]
    pub fn lines(&self, key: &K) -> u64 {
        self.0.get(key).map_or(0, |written| written.lines.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_hides_nothing_else() {
        let mut limit = LineLimit::default();
        let start = Instant::now();
        let shown = (0..1000).filter(|_| limit.admit(1, start).is_some()).count();
        assert_eq!(shown, 10);
        assert_eq!(limit.admit(2, start), Some(0));
        assert_eq!(limit.admit(1, start + WINDOW), Some(990));
        assert_eq!(limit.admit(1, start + WINDOW), Some(0));
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_memory() {
        let mut limit = LineLimit::default();
        let start = Instant::now();
        let shown = (0..10 * KEYS_MAX).filter(|key| limit.admit(*key, start).is_some()).count();
        assert_eq!((shown, limit.0.len()), (KEYS_MAX, KEYS_MAX));
        assert_eq!(limit.admit(usize::MAX, start + WINDOW), Some(0));
        assert_eq!(limit.0.len(), 1);
    }
}
