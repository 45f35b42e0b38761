//! Feature levels between peers: how nodes exchange the levels that they support, and which nodes are compatible.
//!
//! Every hello, every first response and every join contains `FeatureLevels`: the range of the sender's binary, and
//! the cluster's level as far as the sender knows. Levels never fall and either side may lag, so the higher one of
//! the two known levels counts for a call. Both ranges must contain it.
//!
//! Nodes from before feature levels send a protocol version instead and require it to be 2. That version is level 1,
//! so:
//!
//! - The protocol version that a node sends is 1 more than the cluster's level (or than its own lowest level, if that
//!   is higher). So an older node accepts the hello exactly while it can take part, and ignores the new fields.
//! - A node that sends protocol version 2 and no levels supports only level 1. Any other version without levels is
//!   refused.
//! - If a node sends levels, only these count; its protocol version is ignored.
//!
//! A probe (`JoinRequest.probe`) changes nothing, and is answered whatever its levels are: a founder with another
//! version must learn that the cluster exists.
//!
//! The level may rise while a stream is open. The receiver checks it at every request, and the sender on every
//! iteration of its loop. So both ends drop a peer that has become too old.

use crate::feature_level::{ClusterLevel, FeatureLevel, FeatureRange};
use crate::pb::peer as pb;
use crate::replication::refusal::{Reason, Refusal};

/// The protocol version of feature level 1. Records of version 1 had ten bytes for an offset and for a term.
pub const PROTOCOL_VERSION: u32 = 2;

/// The feature levels of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLevels {
    /// The levels that its binary supports.
    pub range: FeatureRange,
    /// The cluster's level, as far as it knows.
    pub cluster: FeatureLevel,
    /// True if the peer sent levels. A node from before feature levels sends none, and does not know the newer
    /// refusal reasons.
    said: bool,
}

impl PeerLevels {
    /// The levels of a node from before feature levels.
    const BEFORE_LEVELS: PeerLevels =
        PeerLevels { range: FeatureRange::FIRST, cluster: FeatureLevel::FIRST, said: false };

    /// Reads the levels from a hello or a join request.
    ///
    /// # Errors
    /// The refusal, if the node sent an unknown protocol version without levels, or a malformed range.
    pub fn of_request(protocol_version: u32, levels: Option<&pb::FeatureLevels>) -> Result<PeerLevels, Refusal> {
        if levels.is_none() && protocol_version != PROTOCOL_VERSION {
            let text = format!(
                "this node speaks version {PROTOCOL_VERSION} of the peer protocol to nodes that send no feature levels, not \
                 {protocol_version}"
            );
            return Err(Refusal::new(Reason::ProtocolVersion, text));
        }
        PeerLevels::of_response(levels)
    }

    /// Reads the levels from a response.
    ///
    /// # Errors
    /// The refusal, if the range is malformed.
    pub fn of_response(levels: Option<&pb::FeatureLevels>) -> Result<PeerLevels, Refusal> {
        let Some(levels) = levels else { return Ok(PeerLevels::BEFORE_LEVELS) };
        let (cluster, range) = (levels.cluster, FeatureRange::new(FeatureLevel(levels.min), FeatureLevel(levels.max)));
        match range.filter(|_| cluster > 0) {
            Some(range) => Ok(PeerLevels { range, cluster: FeatureLevel(cluster), said: true }),
            None => Err(Refusal::new(
                Reason::Malformed,
                format!("feature levels {} to {} in a cluster at {cluster}", levels.min, levels.max),
            )),
        }
    }

    /// Refuses the peer that `name` describes if one of the two nodes does not support the cluster's level.
    ///
    /// # Errors
    /// The refusal, to be sent back.
    pub fn check(&self, name: impl FnOnce() -> String, ours: &ClusterLevel) -> Result<(), Refusal> {
        let level = ours.get().max(self.cluster);
        if ours.range().contains(level) && self.range.contains(level) {
            return Ok(());
        }
        let name = name();
        if level > ours.range().max() {
            let text = format!(
                "{name} says that the cluster is at feature level {level}, and this node supports {}: start this node with a newer \
                 version",
                ours.range()
            );
            return Err(Refusal::new(Reason::OwnVersionTooOld, text));
        }
        if level > self.range.max() {
            let text = format!(
                "the cluster is at feature level {level}, and {name} supports {}: start it with a newer version",
                self.range
            );
            let reason = if self.said { Reason::VersionTooOld } else { Reason::ProtocolVersion };
            return Err(Refusal::new(reason, text));
        }
        // The level is below one of the ranges: that binary no longer supports it.
        let (name, range) =
            if level < self.range.min() { (name, self.range) } else { ("this node".to_owned(), ours.range()) };
        let text = format!(
            "the cluster is at feature level {level}, and {name} supports {range}: start it with an older version, or raise the \
             cluster's level first"
        );
        let reason = if self.said { Reason::VersionTooNew } else { Reason::ProtocolVersion };
        Err(Refusal::new(reason, text))
    }
}

/// Returns the levels that this node sends.
pub fn levels_of(ours: &ClusterLevel) -> pb::FeatureLevels {
    let range = ours.range();
    pb::FeatureLevels { min: range.min().0, max: range.max().0, cluster: ours.get().0, ..pb::FeatureLevels::default() }
}

/// Returns the protocol version that this node sends. Only nodes from before feature levels evaluate it.
pub fn protocol_version_of(ours: &ClusterLevel) -> u32 {
    let level = ours.get().max(ours.range().min());
    (PROTOCOL_VERSION - FeatureLevel::FIRST.0).saturating_add(level.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: u32, max: u32) -> FeatureRange {
        FeatureRange::new(FeatureLevel(min), FeatureLevel(max)).expect("a range")
    }

    fn node(min: u32, max: u32, level: u32) -> ClusterLevel {
        let node = ClusterLevel::new(range(min, max));
        node.set(FeatureLevel(level));
        node
    }

    /// Returns the decision of `to` about the levels that `from` sends.
    fn judge(from: &ClusterLevel, to: &ClusterLevel) -> Result<(), Reason> {
        let sent = PeerLevels::of_request(protocol_version_of(from), Some(&levels_of(from))).expect("well formed");
        sent.check(|| "node n1".to_owned(), to).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn nodes_are_compatible_if_both_support_the_higher_known_level() {
        let (old, new) = (node(1, 1, 1), node(1, 2, 1));
        assert_eq!((judge(&old, &new), judge(&new, &old)), (Ok(()), Ok(())));
        let raised = node(1, 2, 2);
        assert_eq!(judge(&raised, &new), Ok(()), "it has not heard of the level yet");
        assert_eq!(judge(&new, &raised), Ok(()));
        assert_eq!(judge(&old, &raised), Err(Reason::VersionTooOld));
        assert_eq!(judge(&raised, &old), Err(Reason::OwnVersionTooOld));
        let newer = node(2, 3, 1);
        assert_eq!(judge(&newer, &new), Err(Reason::VersionTooNew));
        assert_eq!(judge(&newer, &raised), Ok(()), "a blank node, which does not know the level yet");
        assert_eq!(judge(&node(2, 3, 2), &new), Ok(()), "a node that lags does not refuse its leader");
    }

    #[test]
    fn a_node_without_levels_is_accepted_while_the_cluster_is_at_level_1() {
        let before = PeerLevels::of_request(PROTOCOL_VERSION, None).expect("as of level 1");
        assert_eq!(before.range, range(1, 1));
        assert_eq!(before.check(|| "node n1".to_owned(), &node(1, 2, 1)), Ok(()));
        let refusal = before.check(|| "node n1".to_owned(), &node(1, 2, 2)).expect_err("too old");
        assert_eq!(refusal.reason, Reason::ProtocolVersion, "a reason that it knows");
        assert!(refusal.text.contains("feature level 2, and node n1 supports feature level 1"), "{refusal}");
        let other = PeerLevels::of_request(PROTOCOL_VERSION + 1, None).expect_err("unknown");
        assert_eq!(other.reason, Reason::ProtocolVersion);
    }

    /// Such a node requires protocol version 2.
    #[test]
    fn a_node_from_before_levels_accepts_the_protocol_version_exactly_while_it_can_take_part() {
        let accepts = |ours: &ClusterLevel| protocol_version_of(ours) == PROTOCOL_VERSION;
        assert!(accepts(&node(1, 1, 1)) && accepts(&node(1, 2, 1)));
        assert!(!accepts(&node(1, 2, 2)) && !accepts(&node(2, 3, 1)));
    }

    #[test]
    fn malformed_levels_are_refused() {
        for (min, max, cluster) in [(0, 1, 1), (2, 1, 1), (1, 1, 0)] {
            let levels = pb::FeatureLevels { min, max, cluster, ..pb::FeatureLevels::default() };
            let refusal = PeerLevels::of_request(PROTOCOL_VERSION, Some(&levels)).expect_err("malformed");
            assert_eq!(refusal.reason, Reason::Malformed);
        }
    }
}
