//! Log lines of the policy. They are actions, because the policy performs no I/O.

use std::fmt;
use std::time::Duration;

use log::Level;

use crate::types::{GroupId, LogName, NodeId};

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A learner has not caught up in many rounds.
    SlowLearner {
        /// The group that the learner copies.
        group: GroupId,
        /// The learner.
        node: NodeId,
        /// The number of rounds so far.
        rounds: u32,
    },
    /// A node that has abandoned its join is removed, because another one asks to join.
    JoinAbandoned(NodeId),
    /// The newest record's timestamp is ahead of this node's clock by this duration.
    StampsAhead(LogName, Duration),
    /// This node's clock has passed the newest record's timestamp.
    StampsPlausible(LogName),
}

impl Notice {
    /// Returns the level of the log line.
    pub fn level(&self) -> Level {
        match self {
            Notice::SlowLearner { .. } | Notice::StampsPlausible(_) => Level::Info,
            Notice::JoinAbandoned(_) | Notice::StampsAhead(..) => Level::Warn,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::SlowLearner { group, node, rounds } => {
                write!(f, "group {group}: node {node} has not caught up in {rounds} rounds: it is slower than the load")
            }
            Notice::JoinAbandoned(node) => write!(
                f,
                "removing node {node}: it has not finished its join and is silent, and another node asks to join"
            ),
            Notice::StampsAhead(log, ahead) => write!(
                f,
                "log {log}: the newest record's timestamp is {ahead:.0?} ahead of this node's clock, and new records repeat it \
                 until the clock reaches it; if this node's clock is right, a leader's was wrong: see docs/RELIABILITY.md, \
                 \"Clocks\""
            ),
            Notice::StampsPlausible(log) => {
                write!(f, "log {log}: the newest record's timestamp is no longer ahead of this node's clock")
            }
        }
    }
}
