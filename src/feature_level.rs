//! The cluster's feature level: which formats, commands and messages its nodes may use.
//!
//! - A binary supports a range of levels, [`FeatureRange::SUPPORTED`].
//! - The cluster is at one level. The catalog stores it. It starts at [`FeatureLevel::FIRST`], never falls, and is
//!   raised by an explicit admin call after every member supports the new level.
//! - A [`Feature`] of a level is used, that is written or sent, only once the cluster is at that level. So a
//!   cluster can be moved to a new binary, and back, node by node, until the level is raised.
//! - A node whose range does not contain the cluster's level takes no part. `replication/levels.rs` describes how nodes
//!   exchange their ranges.
//!
//! To introduce a feature, add an entry to the table of [`Feature`] and guard its use with [`ClusterLevel::allows`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One feature level. Levels count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// The level of every cluster until it is raised. Binaries from before feature levels support only this one.
    pub const FIRST: FeatureLevel = FeatureLevel(1);
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Declares what each level allows: one entry for each feature, with the level that introduces it.
macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $level:literal),+ $(,)?) => {
        /// What a feature level allows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Feature {
            $($(#[$doc])* $name),+
        }

        impl Feature {
            /// The first level that allows the feature.
            pub const fn level(self) -> FeatureLevel {
                match self { $(Feature::$name => FeatureLevel($level)),+ }
            }

            const TOP_LEVEL: FeatureLevel = {
                let (levels, mut top, mut i): (&[u32], u32, usize) = (&[$($level),+], 1, 0);
                while i < levels.len() {
                    if levels[i] > top {
                        top = levels[i];
                    }
                    i += 1;
                }
                FeatureLevel(top)
            };
        }
    };
}

features! {
    /// Version 2 of the peer protocol, and the formats, entry kinds and catalog commands of its nodes.
    Baseline = 1,
    /// Named logs, whose replicas have ids of their own; quiet groups; event times of records.
    ManyLogs = 2,
    /// Producers and cursors of logs.
    Producers = 3,
    /// Nodes that are drained, removed or replaced; replicas that move.
    Membership = 4,
    /// Logs that are restored from a backup.
    Restore = 5,
    /// Logs with a hash chain.
    HashChain = 6,
}

/// The feature levels that a binary supports, all from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRange {
    min: FeatureLevel,
    max: FeatureLevel,
}

impl FeatureRange {
    /// The range of this binary. When support for old formats is removed, raise its lower end, and found new clusters
    /// at that level: they begin at [`FeatureLevel::FIRST`] now.
    pub const SUPPORTED: FeatureRange = FeatureRange { min: FeatureLevel::FIRST, max: Feature::TOP_LEVEL };

    /// Only the first level: the range of binaries from before feature levels.
    pub const FIRST: FeatureRange = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::FIRST };

    /// The environment variable by which a test makes this binary act as one with a higher top level.
    pub const TEST_MAX: &'static str = "SERIATIM_TEST_FEATURE_LEVEL_MAX";

    /// Returns the range; `None` if it contains no level.
    pub fn new(min: FeatureLevel, max: FeatureLevel) -> Option<FeatureRange> {
        (FeatureLevel::FIRST <= min && min <= max).then_some(FeatureRange { min, max })
    }

    /// The range of this process: [`FeatureRange::SUPPORTED`], or with a higher top if a test says so (`test_max`, the
    /// value of [`FeatureRange::TEST_MAX`]).
    ///
    /// The variable is read at run time, since the end-to-end tests run the binary that is shipped and a second one
    /// would take minutes to build. Only a node without TLS (`insecure`) accepts it, and any other one refuses to
    /// start: a production node must not claim a level whose formats it can't read, and must not ignore what its owner
    /// has set.
    ///
    /// # Errors
    /// [`BadTestLevel`], if the value of the variable is refused.
    pub fn of_process(test_max: Option<&str>, insecure: bool) -> Result<FeatureRange, BadTestLevel> {
        let Some(text) = test_max else { return Ok(FeatureRange::SUPPORTED) };
        if !insecure {
            return Err(BadTestLevel::NotATest);
        }
        let max = text.parse().ok().map(FeatureLevel).filter(|max| *max >= Feature::TOP_LEVEL);
        let max = max.ok_or_else(|| BadTestLevel::NotALevel(text.to_owned()))?;
        Ok(FeatureRange { max, ..FeatureRange::SUPPORTED })
    }

    /// The lowest level.
    pub fn min(self) -> FeatureLevel {
        self.min
    }

    /// The highest level.
    pub fn max(self) -> FeatureLevel {
        self.max
    }

    /// Returns whether the range contains this level.
    pub fn contains(self, level: FeatureLevel) -> bool {
        self.min <= level && level <= self.max
    }
}

impl fmt::Display for FeatureRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "feature level {}", self.min)
        } else {
            write!(f, "feature levels {} to {}", self.min, self.max)
        }
    }
}

/// Why the value of [`FeatureRange::TEST_MAX`] is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTestLevel {
    /// The node uses TLS, so it does not belong to a test.
    #[error("{name} is set: it is for tests, and only a node with --insecure accepts it; unset it", name = FeatureRange::TEST_MAX)]
    NotATest,
    /// The value is not a level that this binary may claim.
    #[error("{name}={_0:?} is not a level of at least {min}", name = FeatureRange::TEST_MAX, min = Feature::TOP_LEVEL)]
    NotALevel(String),
}

/// The cluster's feature level as this node knows it, and the range of this node. Clones share the level.
///
/// The owner of the catalog sets the level after it has applied the entry that raises it. Until the catalog is known
/// here, the level is [`FeatureLevel::FIRST`]: a lower bound, so nothing is used too early.
#[derive(Clone, Debug)]
pub struct ClusterLevel {
    range: FeatureRange,
    level: Arc<AtomicU32>,
}

impl ClusterLevel {
    /// Creates the state of a cluster at the first level, for a node with this range.
    pub fn new(range: FeatureRange) -> ClusterLevel {
        ClusterLevel { range, level: Arc::new(AtomicU32::new(FeatureLevel::FIRST.0)) }
    }

    /// The range of this node.
    pub fn range(&self) -> FeatureRange {
        self.range
    }

    /// The cluster's level.
    pub fn get(&self) -> FeatureLevel {
        FeatureLevel(self.level.load(Ordering::Acquire))
    }

    /// Raises the level to that of the catalog. A lower level than the current one is ignored.
    pub fn set(&self, level: FeatureLevel) {
        self.level.fetch_max(level.0, Ordering::AcqRel);
    }

    /// Returns whether the feature may be used now.
    pub fn allows(&self, feature: Feature) -> bool {
        feature.level() <= self.get()
    }
}

impl Default for ClusterLevel {
    fn default() -> ClusterLevel {
        ClusterLevel::new(FeatureRange::SUPPORTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_never_falls_and_is_shared_by_clones() {
        let level = ClusterLevel::default();
        let clone = level.clone();
        assert_eq!(level.get(), FeatureLevel::FIRST);
        assert!(level.allows(Feature::Baseline));
        clone.set(FeatureLevel(3));
        clone.set(FeatureLevel(2));
        assert_eq!(level.get(), FeatureLevel(3));
    }

    #[test]
    fn a_range_holds_its_ends_and_is_never_empty() {
        let range = FeatureRange::new(FeatureLevel(2), FeatureLevel(3)).expect("a range");
        assert_eq!([1, 2, 3, 4].map(|level| range.contains(FeatureLevel(level))), [false, true, true, false]);
        assert_eq!(range.to_string(), "feature levels 2 to 3");
        assert_eq!(FeatureRange::new(FeatureLevel(0), FeatureLevel(3)), None);
        assert_eq!(FeatureRange::new(FeatureLevel(3), FeatureLevel(2)), None);
        assert!(FeatureRange::SUPPORTED.contains(FeatureLevel::FIRST));
    }

    #[test]
    fn only_an_insecure_node_claims_a_higher_level_for_a_test() {
        let of_process = |test_max, insecure| FeatureRange::of_process(test_max, insecure);
        assert_eq!(of_process(None, false), Ok(FeatureRange::SUPPORTED));
        assert_eq!(of_process(Some("7"), true).map(FeatureRange::max), Ok(FeatureLevel(7)));
        assert_eq!(of_process(Some("7"), false), Err(BadTestLevel::NotATest));
        for bad in ["", "0", "-1", "x", "4294967296"] {
            assert_eq!(of_process(Some(bad), true), Err(BadTestLevel::NotALevel(bad.to_owned())));
        }
    }
}
