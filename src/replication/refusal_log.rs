//! Rate-limited log lines about refused calls. A refused node retries within a second, and there may be several such
//! nodes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::replication::refusal::Refusal;

/// For this time, a refusal that passes soon is normal: a joining node is refused until it is a member.
const NORMAL: Duration = Duration::from_secs(60);
/// The same refusal is logged again after this time.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// The number of different refusals that are tracked. All further ones are treated as one.
const KEPT_MAX: usize = 16;

/// Logs refusals, each text at most once per [`LOG_AGAIN`].
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<HashMap<String, LoggedRefusal>>);

#[derive(Debug)]
struct LoggedRefusal {
    first: Instant,
    latest: Instant,
    logged: Instant,
}

impl RefusalLog {
    /// Logs that `what` was refused. The level is a warning, unless the reason passes soon and has not lasted long.
    pub(super) fn log(&self, what: &str, refusal: &Refusal) {
        if let Some(level) = self.level(format!("{what}: {refusal}"), refusal.reason.passes_soon(), Instant::now()) {
            log::log!(level, "refused {what}: {refusal}");
        }
    }

    /// Logs the refusal of a part of a call, while the call continues.
    pub(super) fn warn(&self, text: &str) {
        if let Some(level) = self.level(text.to_owned(), false, Instant::now()) {
            log::log!(level, "{text}");
        }
    }

    fn level(&self, mut text: String, passes_soon: bool, now: Instant) -> Option<log::Level> {
        let mut kept = self.0.lock();
        kept.retain(|_, refusal| now.saturating_duration_since(refusal.latest) <= LOG_AGAIN);
        if kept.len() >= KEPT_MAX && !kept.contains_key(&text) {
            // A caller may be able to influence the text, so all further texts are treated as one refusal.
            text.clear();
        }
        let Some(known) = kept.get_mut(&text) else {
            kept.insert(text, LoggedRefusal { first: now, latest: now, logged: now });
            return Some(if passes_soon { log::Level::Info } else { log::Level::Warn });
        };
        known.latest = now;
        if now.saturating_duration_since(known.logged) <= LOG_AGAIN {
            return None;
        }
        known.logged = now;
        Some(if passes_soon && now.saturating_duration_since(known.first) <= NORMAL {
            log::Level::Info
        } else {
            log::Level::Warn
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Almost every join logged "this node is not a member of a cluster yet" as a warning.
    #[test]
    fn a_refusal_that_passes_soon_is_a_warning_only_if_it_lasts() {
        let (refusals, start) = (RefusalLog::default(), Instant::now());
        let at =
            |text: &str, passes, seconds| refusals.level(text.to_owned(), passes, start + Duration::from_secs(seconds));
        assert_eq!(at("not a member yet", true, 0), Some(log::Level::Info));
        (1..=60).for_each(|second| assert_eq!(at("not a member yet", true, second), None));
        assert_eq!(at("not a member yet", true, 61), Some(log::Level::Warn), "it lasts");
        assert_eq!(at("not a member yet", true, 62), None);
        assert_eq!(at("not a member yet", true, 200), Some(log::Level::Info), "it was over in between");
        assert_eq!(at("another cluster", false, 201), Some(log::Level::Warn));
        assert_eq!(at("another cluster", false, 202), None);
        assert_eq!(at("another cluster", false, 300), Some(log::Level::Warn));
    }

    /// Only the last refusal was remembered. Two refused nodes wrote a line for each attempt: 103 lines per minute,
    /// forever.
    #[test]
    fn several_refused_nodes_write_one_line_each_and_a_flood_of_texts_writes_few() {
        let (refusals, start) = (RefusalLog::default(), Instant::now());
        let lines = |count: u64, texts: u64| {
            let attempts = (0..count).map(|n| (format!("node {}", n % texts), start + Duration::from_millis(n)));
            attempts.filter_map(|(text, at)| refusals.level(text, false, at)).count()
        };
        assert_eq!(lines(1000, 2), 2);
        assert_eq!(lines(10_000, 10_000), KEPT_MAX - 2 + 1);
    }
}
