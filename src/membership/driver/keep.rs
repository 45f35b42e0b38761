//! The tasks of a member: keeps its entry in the catalog up to date, and searches for another cluster with the same
//! name.

use std::time::{Duration, Instant};

use super::{Goal, MembershipDriver};
use crate::membership::admission::join_request;
use crate::membership::search::Search;

/// The interval at which a member searches for another cluster of its name.
const WATCH: Duration = Duration::from_secs(3);
/// Appends are accepted again if the other cluster has not answered for this time.
const RIVAL_GONE: Duration = Duration::from_secs(15);
/// The time between two log lines about another cluster with fewer members.
const REPORT: Duration = Duration::from_secs(60);

impl MembershipDriver {
    /// Starts a search for another cluster: asks the join addresses, and the nodes of other clusters that mDNS found,
    /// for their cluster. Members that are connected are not asked: each answer takes a handshake at both ends.
    pub(super) fn watch(&mut self) {
        self.next_watch = Instant::now() + WATCH;
        let Goal::Keep { peers, .. } = &self.goal else { return };
        let mut addresses = self.candidates.join().to_vec();
        addresses.extend(self.candidates.nodes_of_others(peers.me().cluster_id).map(str::to_owned));
        let catalog = peers.catalog().get();
        let is_own = |addr: &String| catalog.members().any(|m| m.bind_addr == *addr && peers.is_connected(m.id));
        addresses.retain(|addr| *addr != self.me.bind_addr && !is_own(addr));
        if addresses.is_empty() {
            // The announcements of the other cluster may have expired, and this node has no join addresses.
            return self.no_rival_answers();
        }
        let request = join_request(&self.options, None, &self.me);
        let mut search = Search::new(self.dialer.clone(), request, None);
        search.ask(addresses);
        self.watch = Some(Box::new(search));
    }

    /// Evaluates a search. While another cluster of this name answers, this node refuses appends, unless its own
    /// cluster has more members. If both clusters have the same number of members, both refuse appends: whichever
    /// cluster is the wrong one, records that clients append to it would be lost.
    pub(super) fn evaluate_watch(&mut self) {
        let (Some(search), Goal::Keep { peers, .. }) = (self.watch.take(), &self.goal) else { return };
        let (own, name) = (peers.me().cluster_id, &self.options.cluster_name);
        let catalog = peers.catalog().get();
        if catalog.member(self.me.id).is_none() {
            // This node's catalog is not complete yet.
            return;
        }
        let members = catalog.members().count();
        // A node that lags may not know all members of its cluster, so the largest answer counts.
        let others = search.found_clusters().iter().filter(|found| found.cluster_id != own);
        let Some(other) = others.max_by_key(|found| found.members.len()) else { return self.no_rival_answers() };
        let what = format!(
            "another cluster named {name:?} answers at {} (id {}, {} members; this one is {own}, with {members}): if this node was meant to join \
             that one, stop it, move its data directory aside and start it without --bootstrap; otherwise stop the other one",
            other.addr,
            other.cluster_id,
            other.members.len()
        );
        if other.members.len() < members {
            self.next_watch = Instant::now() + REPORT;
            log::error!("{what}");
            self.end_rivalry("the other cluster has fewer members");
        } else {
            self.rival_seen = Some(Instant::now());
            if peers.set_rival(Some(what.clone())) {
                log::error!("appends are refused: {what}");
            }
        }
    }

    fn no_rival_answers(&mut self) {
        if self.rival_seen.is_some_and(|seen| seen.elapsed() > RIVAL_GONE) {
            self.end_rivalry(&format!("no other cluster of this name has answered for {RIVAL_GONE:?}"));
        }
    }

    fn end_rivalry(&mut self, why: &str) {
        let Goal::Keep { peers, .. } = &self.goal else { return };
        if self.rival_seen.take().is_some() && peers.set_rival(None) {
            log::warn!("{why}: appends are accepted again");
        }
    }

    /// Compares the catalog's entry of this node with its current name and addresses, and asks for a change if they
    /// differ.
    pub(super) fn update_own_entry(&mut self) {
        let Goal::Keep { peers, settled } = &mut self.goal else { return };
        let catalog = peers.catalog().get();
        match catalog.member(self.me.id) {
            Some(member) if *member == self.me => *settled = true,
            // Either this node's catalog lags, or this node was removed. In the latter case other members refuse it.
            None => self.rest(),
            Some(_) => {
                let cluster_id = peers.me().cluster_id;
                let mut addresses = vec![self.me.bind_addr.clone()];
                addresses.extend(catalog.members().filter(|m| m.id != self.me.id).map(|m| m.bind_addr.clone()));
                addresses.extend(self.candidates.nodes_of(cluster_id).map(|(_, addr)| addr.to_owned()));
                addresses.extend_from_slice(self.candidates.join());
                self.join(addresses, Some(cluster_id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;

    use super::*;
    use crate::feature_level::ClusterLevel;
    use crate::membership::mdns::Find;
    use crate::membership::options::MembershipOptions;
    use crate::replication::tests::{CLUSTER, CLUSTER_ID, LONG, Setup, TestNode};
    use crate::replication::wait::block_until;
    use crate::types::{ClusterId, NodeId};
    use crate::waiting::WaitingFor;

    /// Returns the driver of a member without join addresses.
    fn member(node: &TestNode) -> MembershipDriver {
        node.knows(&[node.member()]);
        let options = MembershipOptions {
            cluster_name: CLUSTER.to_owned(),
            join: Vec::new(),
            mdns: None,
            levels: ClusterLevel::default(),
            forming: None,
        };
        let (_, inbox) = mpsc::channel(0);
        let mut driver =
            MembershipDriver::new(options, node.member(), node.dialer.clone(), WaitingFor::default(), inbox);
        driver.goal = Goal::Keep { peers: node.peers.handle(), settled: true };
        driver
    }

    fn other() -> TestNode {
        let other = Setup { cluster_id: ClusterId(78), ..Setup::node(2) }.start();
        other.knows(&[other.member()]);
        other
    }

    fn find(node: &TestNode) -> Find {
        let (cluster_name, cluster_id) = (CLUSTER.to_owned(), ClusterId(78));
        Find { instance: "other".to_owned(), cluster_name, cluster_id, node_id: node.id, bind_addr: node.addr.clone() }
    }

    /// Runs one search until it ends.
    fn search(driver: &mut MembershipDriver) {
        driver.watch();
        if let Some(search) = &mut driver.watch {
            let over = futures::future::poll_fn(|cx| search.poll(cx, Instant::now()));
            block_until(over, Instant::now() + LONG).expect("an end");
            driver.evaluate_watch();
        }
    }

    /// After the mDNS announcements of the other cluster had expired, a member without join addresses asked no node
    /// any more, and refused appends forever.
    #[test]
    fn a_rival_without_an_mdns_announcement_is_dropped_after_a_while() {
        let (node, other) = (Setup::node(1).start(), other());
        let (mut driver, peers) = (member(&node), node.peers.handle());
        assert!(driver.candidates.add(find(&other)));
        search(&mut driver);
        assert!(peers.rival().is_some());
        driver.candidates.remove("other");
        search(&mut driver);
        assert!(peers.rival().is_some(), "not at once");
        driver.rival_seen = driver.rival_seen.and_then(|seen| seen.checked_sub(RIVAL_GONE + WATCH));
        search(&mut driver);
        assert_eq!(peers.rival(), None);
    }

    /// Two clusters with the same number of members both refuse appends. Once one of them has more members, it
    /// accepts appends.
    #[test]
    fn a_rival_that_has_become_the_smaller_cluster_does_not_stop_appends() {
        let (node, other) = (Setup::node(1).start(), other());
        let (mut driver, peers) = (member(&node), node.peers.handle());
        assert!(driver.candidates.add(find(&other)));
        search(&mut driver);
        assert!(peers.rival().is_some());
        let second = crate::catalog::Member { id: NodeId(3), bind_addr: "n3:1".to_owned(), ..node.member() };
        let second = crate::catalog::Member { name: crate::types::NodeName::new("n3").expect("a name"), ..second };
        node.knows(&[second]);
        search(&mut driver);
        assert_eq!(peers.rival(), None);
        assert_eq!(peers.me().cluster_id, CLUSTER_ID);
    }
}
