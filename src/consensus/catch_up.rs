//! How much lagging followers lack, and how fast they catch up.
//!
//! A follower is listed while it lacks more than [`BEHIND_BYTES`] of committed entries. Its rate is that of the last
//! seconds and not an average since it began: a follower that stops is seen to stop. The bytes are about right: those
//! within a segment are interpolated by the index.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::types::{GroupId, NodeId};

/// A follower that lacks more bytes than these is lagging.
pub const BEHIND_BYTES: u64 = 1 << 20;
/// The time over which rates are measured.
const WINDOW: Duration = Duration::from_secs(10);

/// What a follower lacks, as its leader knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// The committed entries that it lacks.
    pub entries: u64,
    /// About the size of these entries.
    pub bytes: u64,
    /// What it has acknowledged per second, in the last seconds.
    pub bytes_per_second: u64,
    /// When it will have caught up, if both it and the producers continue like this. `None`: never.
    pub time_left: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Observed {
    at: Instant,
    /// The bytes that the follower has acknowledged since it is listed.
    acknowledged: u64,
    lacking: u64,
}

/// The observations of a lagging follower.
#[derive(Debug, Default)]
struct Track {
    observed: VecDeque<Observed>,
}

/// The lagging followers, in all groups that this node leads.
#[derive(Debug, Default)]
pub struct CatchUps(BTreeMap<(GroupId, NodeId), Track>);

impl CatchUps {
    /// Records what a follower lacks now, and how much it has acknowledged since the last call. Returns `None` for a
    /// follower that is not lagging.
    pub fn observe(
        &mut self,
        group: GroupId,
        node: NodeId,
        entries: u64,
        lacking: u64,
        acknowledged: u64,
        now: Instant,
    ) -> Option<Behind> {
        if lacking <= BEHIND_BYTES {
            self.0.remove(&(group, node));
            return None;
        }
        let track = self.0.entry((group, node)).or_default();
        let before = track.observed.back().map_or(0, |last| last.acknowledged);
        if acknowledged > 0 && track.observed.front().is_some_and(|first| first.acknowledged == before) {
            // It begins, or continues after a pause. What was missing before says nothing about how long it takes now.
            track.observed.drain(..track.observed.len() - 1);
        }
        track.observed.push_back(Observed { at: now, acknowledged: before + acknowledged, lacking });
        while track.observed.len() > 2 && track.observed.get(1).is_some_and(|next| now - next.at >= WINDOW) {
            track.observed.pop_front();
        }
        let behind = Behind { entries, bytes: lacking, ..Behind::default() };
        let (Some(first), Some(last)) = (track.observed.front(), track.observed.back()) else { return Some(behind) };
        let seconds = (last.at - first.at).as_secs_f64();
        if seconds <= 0.0 {
            return Some(behind);
        }
        let bytes_per_second = (last.acknowledged - first.acknowledged) as f64 / seconds;
        // Producers may add to it.
        let shrinks = (first.lacking as f64 - last.lacking as f64) / seconds;
        let time_left = (shrinks > 0.0).then(|| lacking as f64 / shrinks).filter(|left| *left < 1e9);
        Some(Behind {
            bytes_per_second: bytes_per_second as u64,
            time_left: time_left.map(Duration::from_secs_f64),
            ..behind
        })
    }

    /// Forgets the followers of groups that this node does not lead any more, or that rest.
    pub fn retain(&mut self, mut is_led: impl FnMut(GroupId) -> bool) {
        self.0.retain(|(group, _), _| is_led(*group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);
    const NODE: NodeId = NodeId(2);
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_follower_that_catches_up_is_listed_until_it_lacks_next_to_nothing() {
        let (mut catch_ups, begin) = (CatchUps::default(), Instant::now());
        assert_eq!(catch_ups.observe(GROUP, NODE, 3, BEHIND_BYTES, 0, begin), None);
        let mut seen = Vec::new();
        for second in 0..=30 {
            let now = begin + Duration::from_secs(second);
            let lacking = (300 - 10 * second) * MIB;
            seen.push(catch_ups.observe(GROUP, NODE, lacking / 1000, lacking, 10 * MIB, now));
        }
        let first = seen[0].expect("behind");
        assert_eq!(
            (first.bytes, first.bytes_per_second, first.time_left),
            (300 * MIB, 0, None),
            "nothing is known yet"
        );
        for (second, behind) in seen.iter().enumerate().take(30).skip(1) {
            let behind = behind.expect("behind");
            assert_eq!(behind.bytes_per_second, 10 * MIB, "second {second}");
            assert_eq!(behind.time_left, Some(Duration::from_secs(30 - second as u64)), "second {second}");
        }
        assert_eq!(seen[30], None);
    }

    /// The time left was not known for ten seconds, because producers had written while the follower was away.
    #[test]
    fn the_time_left_is_known_soon_after_a_follower_returns() {
        let (mut catch_ups, begin) = (CatchUps::default(), Instant::now());
        let mut observe = |second: u64, lacking: u64, acknowledged: u64| {
            let now = begin + Duration::from_secs(second);
            catch_ups.observe(GROUP, NODE, 1, lacking, acknowledged, now).expect("behind")
        };
        for second in 0..8 {
            assert_eq!(observe(second, (10 + 10 * second) * MIB, 0).time_left, None, "it is away");
        }
        let back = observe(8, 60 * MIB, 20 * MIB);
        assert_eq!((back.bytes_per_second, back.time_left), (20 * MIB, Some(Duration::from_secs(3))));
    }

    /// An average since the start shows a follower that has stopped as one that becomes slower.
    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut catch_ups, begin) = (CatchUps::default(), Instant::now());
        let mut observe = |second: u64, lacking: u64, acknowledged: u64| {
            let now = begin + Duration::from_secs(second);
            catch_ups.observe(GROUP, NODE, 1, lacking, acknowledged, now).expect("behind")
        };
        let _ = (0..100).map(|second| observe(second, (1000 - second) * MIB, MIB)).last();
        let stopped = (100..=110).map(|second| observe(second, 901 * MIB, 0)).last().expect("observed");
        assert_eq!((stopped.bytes_per_second, stopped.time_left), (0, None));
        let slower = (111..=125).map(|second| observe(second, (901 + second) * MIB, MIB)).last().expect("observed");
        assert_eq!((slower.bytes_per_second, slower.time_left), (MIB, None), "producers are faster");
    }
}
