//! Routing: a proposal is handed to `consensus` here, or once to the node that leads.

use std::time::{Duration, Instant};

use futures::future::{Either, select};

use super::core::Core;
use super::error::ApiError;
use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::reply::{Dropped, ReplyReceiver};
use crate::timers::TimersHandle;
use crate::types::{GroupId, LogIndex, NodeId};
use crate::watermark::{HighWatermark, Until, Visible};

/// How long a read waits for this node to catch up if its deadline is later. After that it fails with JOINING.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// A leader that can't read an entry that this node lacks hands over leadership to a node that can. If that takes
/// longer than this, the read fails with the reason.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// How long a proposal may stay unanswered if its deadline is later. After that its outcome is unknown.
const PROPOSAL_MAX: Duration = Duration::from_secs(30);

/// The node that a proposal is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// This node.
    Here,
    /// Another node, which is thought to lead.
    To(NodeId),
}

/// The deadline of a proposal: the request's, but never none.
pub fn proposal_deadline(request: Option<Instant>) -> Instant {
    at_most(request, PROPOSAL_MAX)
}

fn at_most(deadline: Option<Instant>, wait: Duration) -> Instant {
    let end = Instant::now() + wait;
    deadline.map_or(end, |deadline| deadline.min(end))
}

/// The outcome of a proposal. Without an answer it may still be appended.
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

    /// The node that a stream's next proposal is sent to, by what this node knows now.
    pub fn route(&self, group: GroupId) -> Route {
        let leader = self.consensus.status(group).and_then(|status| status.leader);
        leader.filter(|leader| *leader != self.me.node_id).map_or(Route::Here, Route::To)
    }

    /// Hands over a proposal; the caller waits for the answer.
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

    /// Proposes here, and if another node leads, once there.
    ///
    /// # Errors
    /// [`ProposeError`]; all but `OutcomeUnknown` mean "not appended".
    pub async fn propose(&self, principal: &str, proposal: Proposal) -> Result<Appended, ProposeError> {
        let status = self.consensus.status(proposal.group);
        if status.is_some_and(|status| status.leader == Some(self.me.node_id)) {
            // Nothing else shares its bytes, so they are stamped in place. If leadership is lost right now, the client
            // retries.
            return match outcome(self.hand_over(Route::Here, principal, proposal).await) {
                Err(ProposeError::NotLeader { leader: Some(_) }) => Err(ProposeError::Dropped),
                other => other,
            };
        }
        match outcome(self.hand_over(Route::Here, principal, proposal.clone()).await) {
            Err(ProposeError::NotLeader { leader: Some(leader) }) if leader != self.me.node_id => {
                outcome(self.hand_over(Route::To(leader), principal, proposal).await)
            }
            other => other,
        }
    }

    /// An index that covers everything acknowledged before this call, confirmed by the leader, here or elsewhere.
    pub(super) async fn read_index(&self, group: GroupId, deadline: Instant) -> Result<LogIndex, ReadIndexError> {
        let here = self.consensus.read_index(group, Some(deadline)).await;
        match here.unwrap_or(Err(ReadIndexError::Stopping)) {
            Err(ReadIndexError::NotLeader { leader: Some(leader) }) if leader != self.me.node_id => {
                let there = self.forward.read_index(leader, group, Some(deadline)).await;
                there.unwrap_or(Err(ReadIndexError::Unconfirmed))
            }
            other => other,
        }
    }

    /// Waits until this node has applied everything that was acknowledged before this call; returns its visible then.
    ///
    /// # Errors
    /// No leader confirmed it, or this node did not catch up in time.
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

    /// Waits until this node has applied an entry; returns its visible then.
    ///
    /// # Errors
    /// It did not catch up in time, or the group has stopped here.
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
