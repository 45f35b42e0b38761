//! One round of searching for a cluster: all candidates are asked at the same time whether a cluster of this name
//! answers.
//!
//! A probe changes nothing, so many nodes may be asked at once. [`Search::verdict`] implements the rule that a node
//! joins only if a single cluster has the name.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;

use crate::membership::admission::{FoundCluster, members_of, with_hint};
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::replication::dial::Dialer;
use crate::replication::refusal::{Consequence, Refusal, error_text};
use crate::types::ClusterId;

/// A candidate that takes longer does not count.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Once a cluster is found, slower candidates are awaited this long: they may belong to another one.
const SETTLE: Duration = Duration::from_millis(300);

type ProbeAnswer = (String, grpcio::Result<JoinResponse>);

/// The running calls of a round, and their results.
pub struct Search {
    dialer: Dialer,
    request: JoinRequest,
    /// As long as no cluster is found, the round lasts until this time: discovery takes a while.
    patience: Option<Instant>,
    asked: BTreeSet<String>,
    calls: FuturesUnordered<BoxFuture<'static, ProbeAnswer>>,
    found: Vec<FoundCluster>,
    first_found: Option<Instant>,
    /// Why the others are not members of the cluster, by address.
    others: BTreeMap<String, String>,
    /// The addresses that answered: as members, or with a refusal that rules out a member.
    answered: BTreeSet<String>,
    /// A member's refusal that ends this node: it was removed, or its version is too old.
    ended: Option<Refusal>,
}

/// The result of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchVerdict {
    /// No node answered as a member of a cluster.
    Nobody,
    /// A single cluster has the name; the nodes that answered.
    One(Vec<FoundCluster>),
    /// Several clusters have the name. Choosing one would be guessing.
    Several(BTreeSet<ClusterId>),
}

impl Search {
    /// A round that has not asked any address yet.
    pub fn new(dialer: Dialer, request: JoinRequest, patience: Option<Instant>) -> Search {
        Search {
            dialer,
            request: JoinRequest { probe: true, ..request },
            patience,
            asked: BTreeSet::new(),
            calls: FuturesUnordered::new(),
            found: Vec::new(),
            first_found: None,
            others: BTreeMap::new(),
            answered: BTreeSet::new(),
            ended: None,
        }
    }

    /// Asks the addresses that were not asked in this round.
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

    /// Takes the answers that have arrived. Ready when the round is over.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        while let Poll::Ready(Some((addr, answer))) = self.calls.poll_next_unpin(cx) {
            self.take(addr, answer, now);
        }
        let over = match self.first_found {
            Some(moment) => self.calls.is_empty() || now >= moment + SETTLE,
            None => self.calls.is_empty() && self.patience.is_none_or(|moment| now >= moment),
        };
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// When to poll again even if no answer arrives.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.first_found {
            Some(moment) => Some(moment + SETTLE),
            None => self.patience.filter(|_| self.calls.is_empty()),
        }
    }

    fn take(&mut self, addr: String, answer: grpcio::Result<JoinResponse>, now: Instant) {
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
                // A node of another version may be a member of this cluster: then its answer leaves it in doubt.
                if refusal.as_ref().is_some_and(|refusal| !refusal.reason.is_about_versions()) {
                    self.answered.insert(addr.clone());
                }
                if let Some(refusal) = refusal.as_ref().filter(|r| r.reason.consequence() == Consequence::EndsNode) {
                    self.ended = Some(Refusal::new(refusal.reason, format!("{addr}: {refusal}")));
                }
                let text = refusal.map_or_else(|| error_text(&error), |refusal| refusal.text);
                self.others.insert(addr, with_hint(&error, text));
            }
        }
    }

    /// The answers of members.
    pub fn found(&self) -> &[FoundCluster] {
        &self.found
    }

    /// Those of these addresses at which there may be a cluster nevertheless: they did not answer, or only that
    /// versions don't fit together.
    pub fn silent(&self, addresses: &[String]) -> Vec<String> {
        addresses.iter().filter(|addr| !self.answered.contains(*addr)).cloned().collect()
    }

    /// Why the other nodes are not members of the cluster, by address, for the log.
    pub fn others(&self) -> &BTreeMap<String, String> {
        &self.others
    }

    /// The refusal by which a member ends this node.
    pub fn ended(&self) -> Option<&Refusal> {
        self.ended.as_ref()
    }

    /// The result of the round. Answers of the addresses in `given` outweigh all others.
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
    use crate::replication::refusal::Reason;

    #[test]
    fn join_addresses_outweigh_discovery_and_several_clusters_are_not_chosen_from() {
        let mut search = Search::new(Dialer::nobody(), JoinRequest::new(), None);
        let given = ["a:1".to_owned(), "b:1".to_owned()];
        let now = Instant::now();
        let response = |id: u64| Ok(JoinResponse { cluster_id: id, ..JoinResponse::default() });
        assert_eq!(search.verdict(&given), SearchVerdict::Nobody);
        search.take("m:1".to_owned(), response(1), now);
        search.take("n:1".to_owned(), response(2), now);
        assert_eq!(search.verdict(&given), SearchVerdict::Several([ClusterId(1), ClusterId(2)].into()));
        search.take("a:1".to_owned(), response(3), now);
        assert!(matches!(search.verdict(&given), SearchVerdict::One(found) if found[0].addr == "a:1"));
        search.take("b:1".to_owned(), response(4), now);
        assert_eq!(search.verdict(&given), SearchVerdict::Several([ClusterId(3), ClusterId(4)].into()));
        assert_eq!(search.wake_at(), Some(now + SETTLE));
    }

    /// A founder of another version got a refusal, took it for an answer, and founded a second cluster.
    #[test]
    fn a_refusal_about_versions_leaves_in_doubt_whether_there_is_a_cluster() {
        let given = ["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned(), "d:1".to_owned()];
        let mut search = Search::new(Dialer::nobody(), JoinRequest::new(), None);
        let reasons = [Reason::ProtocolVersion, Reason::Unknown, Reason::NotReady, Reason::ClusterName];
        for (addr, reason) in given.iter().zip(reasons) {
            let refused = grpcio::Error::RpcFailure(Refusal::new(reason, "because").status());
            search.take(addr.clone(), Err(refused), Instant::now());
        }
        assert_eq!(search.verdict(&given), SearchVerdict::Nobody);
        assert_eq!(search.silent(&given), ["a:1", "b:1"]);
    }
}
