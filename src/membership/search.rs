//! One round of a search for a cluster: sends a probe to all candidates at the same time.
//!
//! A probe changes nothing, so many nodes can be asked at once. [`Search::verdict`] implements the rule that a node
//! joins only if exactly one cluster has the name.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;

use crate::membership::admission::{FoundCluster, members_of, with_hint};
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::replication::dial::Dialer;
use crate::replication::refusal::{Consequence, Reason, Refusal, error_text};
use crate::types::ClusterId;

/// The timeout of a probe.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The wait for slower candidates after a cluster is found, because they may belong to another cluster.
const SETTLE: Duration = Duration::from_millis(300);

type ProbeAnswer = (String, grpcio::Result<JoinResponse>);

/// The probes of a round, and their results.
pub struct Search {
    dialer: Dialer,
    request: JoinRequest,
    /// While no cluster is found, the round lasts at least until this time, because discovery takes a while.
    until: Option<Instant>,
    asked: BTreeSet<String>,
    calls: FuturesUnordered<BoxFuture<'static, ProbeAnswer>>,
    found: Vec<FoundCluster>,
    first_found: Option<Instant>,
    /// The errors of the other candidates, by address.
    others: BTreeMap<String, String>,
    /// The addresses at which no unknown cluster can exist: they answered as a member, or with a refusal that
    /// excludes that they are a member.
    answered: BTreeSet<String>,
    /// The addresses of nodes that are not members yet.
    blank: BTreeSet<String>,
    /// A member's refusal because of which this node must exit: it was removed, or its version is too old.
    ended: Option<Refusal>,
}

/// The result of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchVerdict {
    /// No node answered as a member of a cluster.
    Nobody,
    /// Exactly one cluster has the name. Contains the nodes that answered.
    One(Vec<FoundCluster>),
    /// Several clusters have the name. This node must not choose one of them.
    Several(BTreeSet<ClusterId>),
}

impl Search {
    /// Creates a round. No address is asked yet.
    pub fn new(dialer: Dialer, request: JoinRequest, until: Option<Instant>) -> Search {
        Search {
            dialer,
            request: JoinRequest { probe: true, ..request },
            until,
            asked: BTreeSet::new(),
            calls: FuturesUnordered::new(),
            found: Vec::new(),
            first_found: None,
            others: BTreeMap::new(),
            answered: BTreeSet::new(),
            blank: BTreeSet::new(),
            ended: None,
        }
    }

    /// Sends a probe to the addresses that were not asked in this round yet.
    pub fn ask(&mut self, addresses: Vec<String>) {
        for addr in addresses {
            if self.asked.insert(addr.clone()) {
                let (dialer, request) = (self.dialer.clone(), self.request.clone());
                let call = async move {
                    let answer = dialer.join_any(&addr, &request, ANSWER_MAX).await;
                    (addr, answer)
                };
                self.calls.push(call.boxed());
            }
        }
    }

    /// Processes the answers that have arrived. Ready when the round is over.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        while let Poll::Ready(Some((addr, answer))) = self.calls.poll_next_unpin(cx) {
            self.record_answer(addr, answer, now);
        }
        let over = match self.first_found {
            Some(moment) => self.calls.is_empty() || now >= moment + SETTLE,
            None => self.calls.is_empty() && self.until.is_none_or(|moment| now >= moment),
        };
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Returns when to poll again even if no answer arrives.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.first_found {
            Some(moment) => Some(moment + SETTLE),
            None => self.until.filter(|_| self.calls.is_empty()),
        }
    }

    fn record_answer(&mut self, addr: String, answer: grpcio::Result<JoinResponse>, now: Instant) {
        match answer {
            Ok(response) if response.cluster_id != 0 => {
                self.first_found.get_or_insert(now);
                let members = members_of(&response);
                self.answered.insert(addr.clone());
                self.found.push(FoundCluster { cluster_id: ClusterId(response.cluster_id), addr, members });
            }
            Ok(_) => {
                self.others.insert(addr, "sent a malformed answer".to_owned());
            }
            Err(error) => {
                let refusal = Refusal::from_error(&error);
                // A refusal because of versions does not count as an answer: the node may be a member of this cluster.
                if refusal.as_ref().is_some_and(|refusal| !refusal.reason.is_about_versions()) {
                    self.answered.insert(addr.clone());
                }
                if refusal.as_ref().is_some_and(|refusal| refusal.reason == Reason::NotReady) {
                    self.blank.insert(addr.clone());
                }
                if let Some(refusal) = refusal.as_ref().filter(|r| r.reason.consequence() == Consequence::EndsNode) {
                    self.ended = Some(Refusal::new(refusal.reason, format!("{addr}: {refusal}")));
                }
                let text = refusal.map_or_else(|| error_text(&error), |refusal| refusal.text);
                self.others.insert(addr, with_hint(&error, text));
            }
        }
    }

    /// Returns the answers of members.
    pub fn found_clusters(&self) -> &[FoundCluster] {
        &self.found
    }

    /// Returns those of the addresses at which a cluster may exist nevertheless: they did not answer, or refused
    /// because of incompatible versions.
    pub fn silent(&self, addresses: &[String]) -> Vec<String> {
        addresses.iter().filter(|addr| !self.answered.contains(*addr)).cloned().collect()
    }

    /// Returns the addresses of nodes that are not members yet.
    pub fn blank(&self) -> &BTreeSet<String> {
        &self.blank
    }

    /// Returns true if a node has answered at an address other than `own`.
    pub fn has_answer(&self, own: &str) -> bool {
        self.answered.iter().any(|addr| addr != own)
    }

    /// Returns the errors of the other candidates, by address, for the log.
    pub fn others(&self) -> &BTreeMap<String, String> {
        &self.others
    }

    /// Returns the member's refusal because of which this node must exit.
    pub fn ended(&self) -> Option<&Refusal> {
        self.ended.as_ref()
    }

    /// Returns the result of the round. If an address in `given` answered, all other answers are ignored.
    pub fn verdict(&self, given: &[String]) -> SearchVerdict {
        let (by_given, by_discovery): (Vec<FoundCluster>, Vec<FoundCluster>) =
            self.found.iter().cloned().partition(|f| given.contains(&f.addr));
        let found = if by_given.is_empty() { by_discovery } else { by_given };
        let clusters: BTreeSet<ClusterId> = found.iter().map(|f| f.cluster_id).collect();
        match clusters.len() {
            0 => SearchVerdict::Nobody,
            1 => SearchVerdict::One(found),
            _ => SearchVerdict::Several(clusters),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_addresses_override_discovery_and_no_choice_is_made_among_several_clusters() {
        let mut search = Search::new(Dialer::nobody(), JoinRequest::new(), None);
        let given = ["a:1".to_owned(), "b:1".to_owned()];
        let now = Instant::now();
        let response = |id: u64| Ok(JoinResponse { cluster_id: id, ..JoinResponse::default() });
        assert_eq!(search.verdict(&given), SearchVerdict::Nobody);
        search.record_answer("m:1".to_owned(), response(1), now);
        search.record_answer("n:1".to_owned(), response(2), now);
        assert_eq!(search.verdict(&given), SearchVerdict::Several([ClusterId(1), ClusterId(2)].into()));
        search.record_answer("a:1".to_owned(), response(3), now);
        assert!(matches!(search.verdict(&given), SearchVerdict::One(found) if found[0].addr == "a:1"));
        search.record_answer("b:1".to_owned(), response(4), now);
        assert_eq!(search.verdict(&given), SearchVerdict::Several([ClusterId(3), ClusterId(4)].into()));
        assert_eq!(search.wake_at(), Some(now + SETTLE));
    }

    /// A founder with another version was refused, treated this as an answer, and founded a second cluster.
    #[test]
    fn a_refusal_because_of_versions_does_not_prove_that_no_cluster_exists() {
        let given = ["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned(), "d:1".to_owned()];
        let mut search = Search::new(Dialer::nobody(), JoinRequest::new(), None);
        let reasons = [Reason::ProtocolVersion, Reason::Unknown, Reason::NotReady, Reason::ClusterName];
        for (addr, reason) in given.iter().zip(reasons) {
            let refused = grpcio::Error::RpcFailure(Refusal::new(reason, "because").status());
            search.record_answer(addr.clone(), Err(refused), Instant::now());
        }
        assert_eq!(search.verdict(&given), SearchVerdict::Nobody);
        assert_eq!(search.silent(&given), ["a:1", "b:1"]);
    }
}
