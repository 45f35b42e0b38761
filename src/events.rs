//! The latest events of a node, for the page that its HTTP listener serves: elections, joins, damage, refusals, reloads.
//!
//! A component records an event at the place where it logs it. To add a kind, add a line to [`EventKind`]. The memory is
//! bounded: each kind keeps its newest 32 events, so a flood of one kind does not displace the others. Events of a
//! kind that come in quick succession are merged into one with a count.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::codes::codes;

/// The number of events of each kind that are kept.
const KEPT: usize = 32;
/// Longer texts are cut.
const TEXT_BYTES_MAX: usize = 400;
/// An event is merged into the newest one of its kind if there were [`BURST`] of that kind within this time.
const BURST_TIME: Duration = Duration::from_secs(10);
const BURST: usize = 4;

codes! {
    /// What has happened. The code is the kind's name in the JSON and on the page.
    pub enum EventKind: str, "kind of event" {
        /// The node has started.
        Node = "node",
        /// A group got another leader.
        Leader = "leader",
        /// A node was admitted, or has left.
        Member = "member",
        /// A node is not heard, or is heard again.
        Peer = "peer",
        /// A log was created, deleted or restored, or an operator has changed the cluster.
        Admin = "admin",
        /// Data of this node is damaged, or was repaired.
        Damage = "damage",
        /// The free space has crossed a limit.
        Disk = "disk",
        /// A client or a peer was refused, or a connection was closed.
        Refusal = "refusal",
        /// Certificates, the policy or the list of denied peers were read again, or could not be read.
        Reload = "reload",
    }
}

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Part of the normal operation.
    Info,
    /// May need attention.
    Warning,
    /// Needs attention.
    Error,
}

impl Severity {
    /// The name in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One event, or several of a kind in quick succession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When the first of them was recorded.
    pub first: SystemTime,
    /// When the last of them was recorded.
    pub last: SystemTime,
    /// What has happened.
    pub kind: EventKind,
    /// How serious the most serious of them is.
    pub severity: Severity,
    /// How many were merged; 1 for a single one.
    pub count: u64,
    /// The last of them in words, as in the log.
    pub text: String,
}

/// The events of a node. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<BTreeMap<EventKind, VecDeque<Event>>>>);

impl Events {
    /// Records an event. Takes a short lock.
    pub fn record(&self, kind: EventKind, severity: Severity, text: impl Into<String>) {
        self.record_at(SystemTime::now(), kind, severity, text.into());
    }

    fn record_at(&self, now: SystemTime, kind: EventKind, severity: Severity, mut text: String) {
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push_str("...");
        }
        let mut all = self.0.lock();
        let events = all.entry(kind).or_default();
        let recent = events.iter().filter(|event| is_recent(event.last, now)).count();
        match events.back_mut() {
            // A clock that was set back starts a new event.
            Some(newest) if recent >= BURST || (newest.text == text && is_recent(newest.last, now)) => {
                newest.last = now;
                newest.count += 1;
                newest.text = text;
                if severity as u8 > newest.severity as u8 {
                    newest.severity = severity;
                }
            }
            _ => {
                if events.len() >= KEPT {
                    events.pop_front();
                }
                events.push_back(Event { first: now, last: now, kind, severity, count: 1, text });
            }
        }
    }

    /// Returns all events, the newest first.
    pub fn newest(&self) -> Vec<Event> {
        let mut all: Vec<Event> = self.0.lock().values().flatten().cloned().collect();
        all.sort_by_key(|event| std::cmp::Reverse(event.last));
        all
    }
}

fn is_recent(then: SystemTime, now: SystemTime) -> bool {
    now.duration_since(then).is_ok_and(|age| age <= BURST_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + Duration::from_millis(ms)
    }

    #[test]
    fn keeps_the_newest_events_and_returns_the_newest_first() {
        let events = Events::default();
        for n in 0..KEPT as u64 + 3 {
            events.record_at(at(n * 60_000), EventKind::Leader, Severity::Info, format!("{n}"));
        }
        let texts: Vec<String> = events.newest().into_iter().map(|event| event.text).collect();
        let expected: Vec<String> = (3..KEPT as u64 + 3).rev().map(|n| n.to_string()).collect();
        assert_eq!(texts, expected);
    }

    /// A client that is refused a thousand times a second must not displace the election that explains it.
    #[test]
    fn a_flood_of_one_kind_is_merged_and_displaces_no_other_kind() {
        let events = Events::default();
        events.record_at(at(0), EventKind::Leader, Severity::Info, "n1 leads".to_owned());
        for n in 0..100_000 {
            events.record_at(at(1 + n), EventKind::Refusal, Severity::Warning, format!("refused {n}"));
        }
        events.record_at(at(100_001), EventKind::Refusal, Severity::Error, "the last".to_owned());
        let all = events.newest();
        assert_eq!(all.last().map(|event| event.text.as_str()), Some("n1 leads"));
        let refusals: Vec<&Event> = all.iter().filter(|event| event.kind == EventKind::Refusal).collect();
        assert!(refusals.len() <= KEPT, "{}", refusals.len());
        assert_eq!(refusals.iter().map(|event| event.count).sum::<u64>(), 100_001);
        assert_eq!((refusals[0].text.as_str(), refusals[0].severity), ("the last", Severity::Error));
    }

    #[test]
    fn the_same_text_is_counted_and_a_long_one_is_cut() {
        let events = Events::default();
        (0..3).for_each(|n| events.record_at(at(n), EventKind::Disk, Severity::Warning, "the disk fills".to_owned()));
        events.record_at(at(3), EventKind::Disk, Severity::Info, "é".repeat(TEXT_BYTES_MAX));
        // Set back by an hour.
        events.record_at(at(0) - Duration::from_secs(3600), EventKind::Disk, Severity::Info, "x".to_owned());
        let all = events.newest();
        assert_eq!(all.iter().map(|event| event.count).collect::<Vec<_>>(), [1, 3, 1]);
        assert_eq!(all[0].text, "é".repeat(TEXT_BYTES_MAX / 2) + "...");
    }
}
