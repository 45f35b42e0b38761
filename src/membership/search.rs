//! One round of looking for a cluster: every candidate is asked at the same time whether a cluster of our name answers.
//!
//! A probe changes nothing, so many may be asked at once. What comes of it is decided by [`Search::verdict`], which holds
//! the rule that a node joins only where a single cluster goes by the name.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;

use crate::membership::admission::{Found, members_of, with_hint};
use crate::pb::peer::{JoinRequest, JoinResponse};
use crate::replication::dial::Dialer;
use crate::replication::refusal::{Reason, Refusal, error_text};
use crate::types::ClusterId;

/// A candidate answers within this time, or not at all.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Once a cluster was found, slower candidates are awaited this long: they may know another one.
const SETTLE: Duration = Duration::from_millis(300);

type Answer = (String, grpcio::Result<JoinResponse>);

/// The running calls of a round, and what they gave.
pub struct Search {
    dialer: Dialer,
    request: JoinRequest,
    /// As long as nobody is found, the round lasts until then: discovery takes its time.
    patience: Option<Instant>,
    asked: BTreeSet<String>,
    calls: FuturesUnordered<BoxFuture<'static, Answer>>,
    found: Vec<Found>,
    first_found: Option<Instant>,
    /// Why the others are none, by address.
    others: BTreeMap<String, String>,
    /// Those that answered, as members or with a reason why not.
    answered: BTreeSet<String>,
    /// A member said that this node was removed; that is never undone.
    removed: Option<String>,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody answered as a member of a cluster.
    Nobody,
    /// One cluster goes by the name; where it answered.
    One(Vec<Found>),
    /// Several do. Choosing one would be guessing.
    Several(BTreeSet<ClusterId>),
}

impl Search {
    /// A round that asks nobody yet.
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
            removed: None,
        }
    }

    /// Asks those that were not asked in this round.
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

    /// Takes the answers that are there. Ready when the round is over.
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

    /// When to look again although no answer came.
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
                self.found.push(Found { cluster_id: ClusterId(response.cluster_id), addr, members });
            }
            Ok(_) => {
                self.others.insert(addr, "gave an answer that makes no sense".to_owned());
            }
            Err(error) => {
                let refusal = Refusal::from_error(&error);
                if refusal.is_some() {
                    self.answered.insert(addr.clone());
                }
                if let Some(refusal) = refusal.as_ref().filter(|r| r.reason == Reason::Removed) {
                    self.removed = Some(format!("{addr}: {refusal}"));
                }
                let text = refusal.map_or_else(|| error_text(&error), |refusal| refusal.text);
                self.others.insert(addr, with_hint(&error, text));
            }
        }
    }

    /// Every answer of a member.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// Those of these addresses that gave no answer.
    pub fn silent(&self, addresses: &[String]) -> Vec<String> {
        addresses.iter().filter(|addr| !self.answered.contains(*addr)).cloned().collect()
    }

    /// Why nobody else is a member of a cluster of ours, by address, for the log.
    pub fn others(&self) -> &BTreeMap<String, String> {
        &self.others
    }

    /// What a member said of this node's removal.
    pub fn removed(&self) -> Option<&str> {
        self.removed.as_deref()
    }

    /// What the round came to. Answers of the addresses in `given` outweigh all others.
    pub fn verdict(&self, given: &[String]) -> Verdict {
        let (by_given, by_discovery): (Vec<Found>, Vec<Found>) =
            self.found.iter().cloned().partition(|f| given.contains(&f.addr));
        let found = if by_given.is_empty() { by_discovery } else { by_given };
        let clusters: BTreeSet<ClusterId> = found.iter().map(|f| f.cluster_id).collect();
        match clusters.len() {
            0 => Verdict::Nobody,
            1 => Verdict::One(found),
            _ => Verdict::Several(clusters),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_outweigh_discovery_and_two_clusters_are_one_too_many() {
        let mut search = Search::new(Dialer::nobody(), JoinRequest::new(), None);
        let given = ["a:1".to_owned(), "b:1".to_owned()];
        let now = Instant::now();
        let response = |id: u64| Ok(JoinResponse { cluster_id: id, ..JoinResponse::default() });
        assert_eq!(search.verdict(&given), Verdict::Nobody);
        search.take("m:1".to_owned(), response(1), now);
        search.take("n:1".to_owned(), response(2), now);
        assert_eq!(search.verdict(&given), Verdict::Several([ClusterId(1), ClusterId(2)].into()));
        search.take("a:1".to_owned(), response(3), now);
        assert!(matches!(search.verdict(&given), Verdict::One(found) if found[0].addr == "a:1"));
        search.take("b:1".to_owned(), response(4), now);
        assert_eq!(search.verdict(&given), Verdict::Several([ClusterId(3), ClusterId(4)].into()));
        assert_eq!(search.wake_at(), Some(now + SETTLE));
    }
}
