//! A leader that a majority hears is not replaced by an election: while its links to a majority of the voters work, its
//! term ends only if it hands over leadership. Pre-votes see to that, whatever the other nodes believe.

use super::cluster::{Cluster, id};
use super::machines::Pace;
use super::network::Weather;
use super::*;
use crate::types::Term;

/// A leader is observed once everything it needs has worked for this many rounds: no message and no election of an
/// earlier time is under way then.
const HEARD_ROUNDS: u32 = 60;

/// The newest term of a group, and its leader.
#[derive(Default)]
pub struct Reign {
    /// The newest term that any replica has seen.
    term: Term,
    /// The newest term whose leader has handed over.
    handed_over: Term,
    /// The node that leads, and for how many rounds a majority has heard it.
    heard: Option<(usize, u32)>,
}

impl Reign {
    /// The leader of a term asks another replica to campaign.
    pub fn hand_over(&mut self, term: Term) {
        self.handed_over = self.handed_over.max(term);
    }

    /// A replica on a node has seen a term.
    pub fn see(&mut self, group: GroupId, node: usize, term: Term) {
        if term > self.term {
            if let Some(leader) = self.observed() {
                panic!(
                    "group {group}: node {node} ends term {} by an election of term {term}, but a majority hears its leader on \
                     node {leader}",
                    self.term
                );
            }
            (self.term, self.heard) = (term, None);
        }
    }

    /// The process of a node has ended, or begins: then it does not know whom it has heard before.
    pub fn restart(&mut self) {
        self.heard = None;
    }

    /// The leader that must not be replaced now.
    fn observed(&self) -> Option<usize> {
        let (leader, _) = self.heard.filter(|(_, rounds)| *rounds >= HEARD_ROUNDS)?;
        (self.handed_over < self.term).then_some(leader)
    }
}

impl Cluster {
    /// Called after each round: which leaders a majority has heard all the time.
    pub fn watch_leaders(&mut self) {
        for group in self.checks.groups.keys().copied().collect::<Vec<_>>() {
            let reign = &self.checks.groups[&group].reign;
            if let Some(before) = reign.observed()
                && self.is_heard(before, group)
            {
                let leads = self.driver(before).is_some_and(|driver| driver.groups[&group].group.leads());
                assert!(leads, "group {group}: node {before} leads no longer in term {}, but is heard", reign.term);
            }
            let leads = |i: &usize| {
                let replica = self.driver(*i).and_then(|driver| driver.groups.get(&group));
                replica.is_some_and(|replica| replica.group.leads() && replica.group.term() == reign.term)
            };
            let leader = (0..self.running.len()).find(leads).filter(|i| self.is_heard(*i, group));
            let rounds = reign.heard.filter(|(before, _)| Some(*before) == leader).map_or(0, |(_, rounds)| rounds);
            let heard = leader.map(|leader| (leader, rounds + 1));
            self.checks.groups.get_mut(&group).expect("known").reign.heard = heard;
        }
    }

    /// Returns true if nothing is wrong with a node.
    fn is_well(&self, i: usize) -> bool {
        let machine = &self.machines[i];
        let has_room = |driver: &Driver| driver.host.disk.space().state() == SpaceState::Enough;
        machine.paused == 0 && machine.pace == Pace::Usual && !machine.damaged && self.driver(i).is_some_and(has_room)
    }

    /// Returns true if a majority of a group's voters can hear the replica on a node, which votes itself.
    fn is_heard(&self, i: usize, group: GroupId) -> bool {
        let Some(replica) = self.driver(i).and_then(|driver| driver.groups.get(&group)) else { return false };
        let (conf, _) = replica.group.node.store().conf();
        let hears = |voter: &&ReplicaId| {
            let node = replica.group.nodes().node_of(**voter);
            let Some(j) = (0..self.running.len()).find(|j| Some(id(*j)) == node) else { return false };
            let has_replica =
                self.driver(j).and_then(|driver| driver.groups.get(&group)).is_some_and(|r| r.group.me() == **voter);
            let is_cut = self.cut.contains(&(id(i), id(j))) || self.cut.contains(&(id(j), id(i)));
            self.is_well(j) && has_replica && !is_cut
        };
        self.weather == Weather::CALM
            && self.is_well(i)
            && conf.voters.contains(&replica.group.me())
            && conf.voters.iter().filter(hears).count() > conf.voters.len() / 2
    }
}
