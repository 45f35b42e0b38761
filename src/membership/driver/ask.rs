//! One member is asked to admit this node, or to change its addresses: what comes of it, and whom to ask next.

use std::time::{Duration, Instant};

use futures::future::FutureExt as _;

use super::{Driver, Goal, ROUND, Stage};
use crate::membership::admission::{Admission, AdmissionError, join_request, members_of, with_hint};
use crate::pb::peer::JoinResponse;
use crate::replication::refusal::{Reason, Refusal, error_text};
use crate::types::ClusterId;

/// A member may take this long to have a join committed.
const JOIN_MAX: Duration = Duration::from_secs(6);
/// Between two rounds of asking while another node joins, for the first while: that takes well under a second on an idle cluster.
const ROUND_SHORT: Duration = Duration::from_millis(100);
const ROUNDS_SHORT: u32 = 30;

impl Driver {
    /// Asks the leader where it is known, for once, or else one of the addresses, each time the next one.
    pub(super) fn join(&mut self, addresses: Vec<String>, cluster_id: Option<ClusterId>) {
        let next = self.leader.take().or_else(|| {
            self.joins += 1;
            addresses.get((self.joins - 1) % addresses.len().max(1)).cloned()
        });
        let Some(addr) = next else { return self.rest() };
        let request = join_request(&self.options.cluster_name, cluster_id, &self.me);
        let (dialer, to) = (self.dialer.clone(), addr.clone());
        let call = async move { dialer.join_any(&to, &request, JOIN_MAX).await };
        self.stage = Stage::Joining { addr, call: call.boxed() };
    }

    pub(super) fn joined(&mut self, answer: grpcio::Result<JoinResponse>) {
        let addr = match &self.stage {
            Stage::Joining { addr, .. } => addr.clone(),
            Stage::Rest { .. } | Stage::Searching(_) => String::new(),
        };
        self.rest();
        let refusal = match answer {
            Ok(response) => return self.accepted(&addr, &response),
            Err(error) => {
                let refusal = Refusal::from_error(&error);
                let text = refusal.as_ref().map_or_else(|| error_text(&error), |refusal| refusal.text.clone());
                let text = with_hint(&error, text);
                self.trouble = format!("{addr}: {text}");
                refusal
            }
        };
        self.pace(&addr, refusal.as_ref());
        let Some(refusal) = refusal.filter(|r| r.reason.is_final()) else { return };
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Admission { reply } => {
                let text =
                    format!("not admitted to cluster {:?} by {addr}: {}", self.options.cluster_name, refusal.text);
                reply.send(Err(if refusal.reason == Reason::Removed {
                    AdmissionError::Removed(text)
                } else {
                    AdmissionError::NameTaken(text)
                }));
            }
            Goal::Keep { peers, .. } => {
                log::error!("the cluster does not take this node's name and addresses: {}", self.trouble);
                peers.exclude(refusal);
                self.goal = Goal::Keep { peers, settled: true };
            }
            goal @ (Goal::Nothing | Goal::Probe { .. }) => self.goal = goal,
        }
    }

    /// When to ask again, and whom.
    fn pace(&mut self, asked: &str, refusal: Option<&Refusal>) {
        let waits = refusal.is_some_and(|r| r.reason == Reason::AnotherJoins);
        self.waits = if waits { self.waits + 1 } else { 0 };
        self.leader = refusal.and_then(|r| r.leader.clone()).filter(|leader| leader != asked);
        if self.leader.is_some() {
            self.stage = Stage::Rest { until: Instant::now() };
        } else if waits {
            // It is the leader that says so.
            self.leader = Some(asked.to_owned());
            let pause = if self.waits < ROUNDS_SHORT { ROUND_SHORT } else { ROUND };
            self.stage = Stage::Rest { until: Instant::now() + pause };
        }
    }

    fn accepted(&mut self, addr: &str, response: &JoinResponse) {
        match std::mem::replace(&mut self.goal, Goal::Nothing) {
            Goal::Admission { reply } if response.cluster_id != 0 => {
                let cluster_id = ClusterId(response.cluster_id);
                log::info!("admitted to cluster {:?} ({cluster_id}) by {addr}", self.options.cluster_name);
                reply.send(Ok(Admission { cluster_id, members: members_of(response) }));
            }
            // Whether the catalog says so here, too, the next round sees.
            goal @ (Goal::Admission { .. } | Goal::Keep { .. } | Goal::Nothing | Goal::Probe { .. }) => {
                self.goal = goal
            }
        }
    }
}
