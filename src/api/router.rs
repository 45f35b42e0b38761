//! Routing: a proposal is sent to `consensus` on this node, or forwarded once to the leader.

use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::core::Core;
use super::error::ApiError;
use super::leaders::LeaderSearch;
use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::reply::{Dropped, ReplyReceiver};
use crate::timers::TimersHandle;
use crate::types::{GroupId, LogIndex, NodeId};
use crate::watermark::{HighWatermark, Until, Visible};

/// The maximum wait of a read for this node to catch up. Then it fails with JOINING.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// If the leader can't read an entry that this node lacks, it hands over leadership to a node that can. If that takes
/// longer than this, the read fails with the reason.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// The maximum wait for the answer to a proposal. Then its outcome is unknown.
const PROPOSAL_MAX: Duration = Duration::from_secs(30);

/// The node that a proposal is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// This node.
    Here,
    /// Another node, which probably leads.
    To(NodeId),
}

/// Returns the deadline of a proposal: that of the request, but at most `PROPOSAL_MAX` from now.
pub fn proposal_deadline(request: Option<Instant>) -> Instant {
    at_most(request, PROPOSAL_MAX)
}

fn at_most(deadline: Option<Instant>, wait: Duration) -> Instant {
    let end = Instant::now() + wait;
    deadline.map_or(end, |deadline| deadline.min(end))
}

/// Returns the outcome of a proposal. If the answer was dropped, the proposal may still be appended.
pub fn outcome(answer: Result<Result<Appended, ProposeError>, Dropped>) -> Result<Appended, ProposeError> {
    answer.unwrap_or(Err(ProposeError::OutcomeUnknown))
}

impl Core {
    /// Rejects appends once another cluster of the same name has answered.
    ///
    /// # Errors
    /// [`ApiError::AnotherCluster`].
    pub fn check_rival(&self) -> Result<(), ApiError> {
        self.forward.rival().map_or(Ok(()), |what| Err(ApiError::AnotherCluster(what)))
    }

    /// Returns the leader of a group, as far as this node knows.
    pub fn known_leader(&self, group: GroupId) -> Option<NodeId> {
        match self.consensus.status(group) {
            Some(status) => status.leader,
            None => self.leaders.get(group),
        }
    }

    /// Returns the node to which a stream sends its next proposals: the leader, as far as this node knows.
    pub fn route(&self, group: GroupId) -> Route {
        let leader = match self.consensus.status(group) {
            Some(status) => status.leader,
            None => self.nodes_of(group).first().copied(),
        };
        leader.filter(|leader| *leader != self.me.node_id).map_or(Route::Here, Route::To)
    }

    /// Returns the other nodes that have replicas of a log, in the order in which they should be asked: the leader,
    /// then those that answer, then those that could not be reached a moment ago.
    pub fn nodes_of(&self, group: GroupId) -> Vec<NodeId> {
        let leader = self.known_leader(group);
        let mut nodes: Vec<NodeId> = match self.catalog.get().log(group) {
            Some(meta) => meta.placements().map(|placement| placement.node).collect(),
            None => Vec::new(),
        };
        nodes.retain(|node| *node != self.me.node_id);
        nodes.sort_by_key(|node| (self.is_unreachable(*node), leader != Some(*node)));
        nodes
    }

    /// Returns true if another node with a replica of the log answers.
    pub fn is_served_elsewhere(&self, group: GroupId) -> bool {
        self.nodes_of(group).into_iter().any(|node| !self.is_unreachable(node))
    }

    /// Returns true for a node that is asked last: it is silent, or could not be reached a moment ago.
    fn is_unreachable(&self, node: NodeId) -> bool {
        self.forward.is_suspect(node) || self.consensus.is_silent(node)
    }

    /// Asks a node next because another one says that it leads. A silent node stays last: the other may not know yet that
    /// it was replaced.
    fn prefer(&self, search: &mut LeaderSearch, leader: Option<NodeId>) {
        leader.filter(|leader| !self.is_unreachable(*leader)).into_iter().for_each(|leader| search.prefer(leader));
    }

    /// Finds the leader of a group of which this node has no replica, and remembers it.
    ///
    /// # Errors
    /// [`ApiError::NoLeader`] if no node confirms that it leads.
    pub async fn find_leader(&self, group: GroupId, deadline: Instant) -> Result<(), ApiError> {
        let mut search = LeaderSearch::new(self.nodes_of(group));
        while let Some(node) = search.next_node() {
            let index = self.forward.read_index(node, group, Some(deadline)).await;
            match index.unwrap_or(Err(ReadIndexError::Stopping)) {
                Ok(_) => {
                    self.leaders.learn(group, node);
                    return Ok(());
                }
                Err(ReadIndexError::NotLeader { leader }) => {
                    self.leaders.forget(group, node);
                    self.prefer(&mut search, leader);
                }
                Err(
                    ReadIndexError::Unconfirmed
                    | ReadIndexError::QueueFull
                    | ReadIndexError::NoSuchGroup
                    | ReadIndexError::Damaged
                    | ReadIndexError::Stopping,
                ) => self.leaders.forget(group, node),
            }
        }
        Err(ApiError::NoLeader)
    }

    /// Remembers what the answer of another node says about the leader of a group of which this node has no replica.
    /// Returns the error for the client: a node that does not lead has not appended the proposal.
    pub fn learn_from(&self, group: GroupId, route: Route, error: ProposeError) -> ProposeError {
        let Route::To(node) = route else { return error };
        match error {
            ProposeError::NotLeader { leader } => {
                self.leaders.forget(group, node);
                let is_replica = |leader: &NodeId| self.nodes_of(group).contains(leader);
                if let Some(leader) = leader.filter(|leader| *leader != node).filter(is_replica) {
                    self.leaders.learn(group, leader);
                }
                ProposeError::Dropped
            }
            ProposeError::Dropped | ProposeError::OutcomeUnknown => {
                self.leaders.forget(group, node);
                error
            }
            ProposeError::QueueFull
            | ProposeError::DiskFull
            | ProposeError::TooLarge
            | ProposeError::DeadlinePassed
            | ProposeError::ExpectedOffset { .. }
            | ProposeError::PastEnd { .. }
            | ProposeError::State(_)
            | ProposeError::LevelUnsupported { .. }
            | ProposeError::MemberSilent { .. }
            | ProposeError::NodeNeeded { .. }
            | ProposeError::NoSuchGroup
            | ProposeError::Damaged
            | ProposeError::Stopping => error,
        }
    }

    /// Sends a proposal. The caller waits for the answer.
    pub fn hand_over(
        &self,
        route: Route,
        principal: &str,
        proposal: Proposal,
    ) -> ReplyReceiver<Result<Appended, ProposeError>> {
        match route {
            Route::Here => self.consensus.propose(proposal),
            Route::To(leader) => self.forward.propose(leader, principal, proposal),
        }
    }

    /// Proposes on this node, and if another node leads, once on that node.
    ///
    /// # Errors
    /// [`ProposeError`]. Every error except `OutcomeUnknown` means that the proposal was not appended.
    pub async fn propose(&self, principal: &str, proposal: Proposal) -> Result<Appended, ProposeError> {
        let status = self.consensus.status(proposal.group);
        if status.is_none() {
            let nodes = self.nodes_of(proposal.group);
            if !nodes.is_empty() {
                return self.propose_elsewhere(nodes, principal, proposal).await;
            }
            if self.consensus.lost(proposal.group).is_some() {
                return Err(ProposeError::Damaged);
            }
        }
        if status.is_some_and(|status| status.leader == Some(self.me.node_id)) {
            // Not cloned, so that the payload is stamped in place. If leadership is lost at this moment, the client
            // retries.
            return match outcome(self.hand_over(Route::Here, principal, proposal).await) {
                Err(ProposeError::NotLeader { leader: Some(_) }) => Err(ProposeError::Dropped),
                other => other,
            };
        }
        match outcome(self.hand_over(Route::Here, principal, proposal.clone()).await) {
            Err(ProposeError::NotLeader { leader: Some(leader) }) if leader != self.me.node_id => {
                let route = Route::To(leader);
                let outcome = outcome(self.hand_over(route, principal, proposal).await);
                outcome.map_err(|error| match error {
                    ProposeError::NotLeader { .. } => ProposeError::Dropped,
                    other => other,
                })
            }
            other => other,
        }
    }

    /// Proposes to a group of which this node has no replica: on one of the nodes after the other, until one leads. A
    /// node is asked only if none of those before it can have appended the proposal.
    async fn propose_elsewhere(
        &self,
        nodes: Vec<NodeId>,
        principal: &str,
        proposal: Proposal,
    ) -> Result<Appended, ProposeError> {
        let group = proposal.group;
        let mut search = LeaderSearch::new(nodes);
        let mut result = Err(ProposeError::NotLeader { leader: None });
        while let Some(node) = search.next_node() {
            let route = Route::To(node);
            match outcome(self.hand_over(route, principal, proposal.clone()).await) {
                Ok(appended) => {
                    self.leaders.learn(group, node);
                    return Ok(appended);
                }
                Err(error @ ProposeError::NotLeader { leader }) => {
                    self.learn_from(group, route, error);
                    self.prefer(&mut search, leader);
                }
                Err(ProposeError::Dropped) => result = Err(self.learn_from(group, route, ProposeError::Dropped)),
                Err(error) => return Err(self.learn_from(group, route, error)),
            }
        }
        result
    }

    /// Returns an index that covers everything acknowledged before this call, and that the leader has confirmed.
    pub(super) async fn read_index(&self, group: GroupId, deadline: Instant) -> Result<LogIndex, ReadIndexError> {
        if self.consensus.lost(group).is_some() {
            return Err(ReadIndexError::Damaged);
        }
        let here = self.consensus.read_index(group, Some(deadline)).await;
        match here.unwrap_or(Err(ReadIndexError::Stopping)) {
            Err(ReadIndexError::NotLeader { leader: Some(leader) }) if leader != self.me.node_id => {
                let there = self.forward.read_index(leader, group, Some(deadline)).await;
                there.unwrap_or(Err(ReadIndexError::Unconfirmed))
            }
            other => other,
        }
    }

    /// Waits until this node has applied everything that was acknowledged before this call. Returns the visible range.
    ///
    /// # Errors
    /// If no leader confirmed its leadership, or this node did not catch up in time.
    pub async fn catch_up(
        &self,
        group: GroupId,
        watermark: &HighWatermark,
        timers: &TimersHandle,
        deadline: Option<Instant>,
    ) -> Result<Visible, ApiError> {
        let deadline = at_most(deadline, CATCH_UP_MAX);
        let index = match select(Box::pin(self.read_index(group, deadline)), timers.at(deadline)).await {
            Either::Left((index, _)) => index?,
            Either::Right(((), _)) => return Err(ApiError::NoLeader),
        };
        self.wait_applied(group, index, watermark, timers, deadline).await
    }

    /// Waits until this node has applied an entry. Returns the visible range.
    ///
    /// # Errors
    /// If this node did not catch up in time, or its replica has stopped.
    pub async fn wait_applied(
        &self,
        group: GroupId,
        index: LogIndex,
        watermark: &HighWatermark,
        timers: &TimersHandle,
        deadline: Instant,
    ) -> Result<Visible, ApiError> {
        for until in [deadline.min(Instant::now() + STALLED_AFTER), deadline] {
            match select(watermark.wait(Until::Applied(index), timers), timers.at(until)).await {
                Either::Left((visible, _)) => return visible.map_err(|_| ApiError::ReplicaDamaged),
                Either::Right(((), _)) => {
                    if let Some((leader, entry)) = self.consensus.status(group).and_then(|status| status.stalled) {
                        let leader = self.catalog.get().member(leader).map(|m| m.name.to_string()).unwrap_or_default();
                        return Err(ApiError::LeaderUnreadable { leader, entry });
                    }
                }
            }
        }
        Err(ApiError::Joining("this node lags behind the leader of the log, and did not catch up in time"))
    }
}
