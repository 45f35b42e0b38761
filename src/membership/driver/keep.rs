//! What a member does: keeps the catalog's word about it true, and looks for another cluster of its name.

use std::time::{Duration, Instant};

use super::{Driver, Goal};
use crate::membership::admission::join_request;
use crate::membership::search::Search;

/// How often a member looks whether another cluster of its name answers at its join addresses.
const WATCH: Duration = Duration::from_secs(3);
/// Another cluster that has not answered for this long is gone, and appends are taken again.
const RIVAL_GONE: Duration = Duration::from_secs(15);
/// Between two lines in the log about another cluster, with fewer members.
const REPORT: Duration = Duration::from_secs(60);
impl Driver {
    /// As a member, asks the join addresses and other clusters' nodes that mDNS found for the cluster that they are of.
    pub(super) fn watch(&mut self) {
        self.next_watch = Instant::now() + WATCH;
        let Goal::Keep { peers, .. } = &self.goal else { return };
        let mut addresses = self.candidates.join().to_vec();
        addresses.extend(self.candidates.nodes_of_others(peers.me().cluster_id).map(str::to_owned));
        addresses.retain(|addr| *addr != self.me.bind_addr);
        if addresses.is_empty() {
            return;
        }
        let request = join_request(&self.options.cluster_name, None, &self.me);
        let mut search = Search::new(self.dialer.clone(), request, None);
        search.ask(addresses);
        self.watch = Some(Box::new(search));
    }

    /// Another cluster of our name: this one takes no appends while that answers, unless it has more members. Two with as many both stop, since a
    /// client that reached either would lose what it appends to the wrong one.
    pub(super) fn watched(&mut self) {
        let (Some(search), Goal::Keep { peers, .. }) = (self.watch.take(), &self.goal) else { return };
        let (own, name) = (peers.me().cluster_id, &self.options.cluster_name);
        let catalog = peers.catalog().get();
        if catalog.member(self.me.id).is_none() {
            // What this node knows of its own cluster is not complete yet.
            return;
        }
        let members = catalog.members().count();
        let other = search.found().iter().find(|found| found.cluster_id != own);
        let what = other.map(|other| {
            format!(
                "another cluster named {name:?} answers at {} (id {}, {} members; this one is {own}, with {members}): if this node was \
                 to join that one, stop it, move its data directory aside and start it without --bootstrap; otherwise stop the \
                 other one",
                other.addr,
                other.cluster_id,
                other.members.len()
            )
        });
        if other.is_some_and(|other| other.members.len() >= members) {
            self.rival_seen = Some(Instant::now());
            let text = what.unwrap_or_default();
            if peers.set_rival(Some(text.clone())) {
                log::error!("appends are refused: {text}");
            }
            return;
        }
        if let Some(what) = what {
            self.next_watch = Instant::now() + REPORT;
            log::error!("{what}");
        }
        if self.rival_seen.is_some_and(|seen| seen.elapsed() > RIVAL_GONE) {
            self.rival_seen = None;
            peers.set_rival(None);
            log::warn!("no other cluster named {name:?} with as many members answers: appends are accepted again");
        }
    }

    /// Compares what the catalog says of this node with what it is.
    pub(super) fn keep(&mut self) {
        let Goal::Keep { peers, settled } = &mut self.goal else { return };
        let catalog = peers.catalog().get();
        match catalog.member(self.me.id) {
            Some(member) if *member == self.me => *settled = true,
            // Not heard yet that it is a member; or one no more, which is others' to say.
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
