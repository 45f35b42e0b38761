//! Campaigns that do not wait for raft's election timeout, because the leader's node is known to be lost.
//!
//! Ticks are too coarse for them: the campaigns of the voters follow each other at intervals that are shorter than a
//! tick. If all voters campaigned at once, or after random times, two of them would sometimes get one vote each, and
//! the group would wait for another timeout.
//!
//! A campaign begins with pre-votes. A voter that still hears the leader refuses them, so a campaign changes nothing if
//! the leader is only lost to this node. A voter that learns of the loss later refuses them, too: so a campaign is
//! repeated a few times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::consensus::group::{Group, quiet};
use crate::consensus::groups::Groups;
use crate::types::{GroupId, NodeId, Term};

/// A campaign is tried at most this often. After that, raft's own timeout applies.
const TRIES_MAX: u32 = 4;
/// How much later a node without room on its disk campaigns than it otherwise would.
const FULL_DISK_DELAY: Duration = Duration::from_millis(200);

/// How it is known that the leader is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its node has sent no heartbeat for an election timeout.
    Silent,
    /// The process of its node has ended.
    Gone,
    /// The node has been started again: it leads nothing from before.
    Restarted,
}

impl Loss {
    /// The time until the first voter campaigns, between two voters, and between two tries.
    fn pace(self) -> (Duration, Duration, Duration) {
        let ms = |first, gap, again| {
            (Duration::from_millis(first), Duration::from_millis(gap), Duration::from_millis(again))
        };
        match self {
            // The other voters notice it up to a tick later.
            Loss::Silent => ms(70, 110, 250),
            // They notice it within milliseconds.
            Loss::Gone | Loss::Restarted => ms(5, 60, 125),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Campaign {
    /// The lost node and the term that it led.
    node: NodeId,
    term: Term,
    loss: Loss,
    /// The place of this node among the voters, from 0.
    place: u32,
    tries: u32,
    has_room: bool,
}

impl Campaign {
    fn first_after(&self) -> Duration {
        let (first, gap, _) = self.loss.pace();
        first + gap * self.place + if self.has_room { Duration::ZERO } else { FULL_DISK_DELAY }
    }
}

/// The campaigns that are due soon, at most one for each group.
#[derive(Debug, Default)]
pub struct Campaigns {
    /// Not scheduled yet.
    new: Vec<(GroupId, Campaign)>,
    scheduled: BTreeMap<GroupId, (Instant, Campaign)>,
    due: BTreeSet<(Instant, GroupId)>,
}

impl Campaigns {
    /// Forgets the leader of a group, whose node is lost, and lets this node campaign if it is a voter. The time is
    /// chosen by the next [`Campaigns::run`].
    pub fn add(&mut self, id: GroupId, group: &mut Group, node: NodeId, loss: Loss, has_room: bool) {
        let term = group.term();
        if let Some(place) = quiet::forget_leader(group) {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            self.new.push((id, Campaign { node, term, loss, place, tries: 0, has_room }));
        }
    }

    /// Returns when the next campaign is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Starts the campaigns that are due. A campaign is dropped if the group has a leader or a new term, or if
    /// `is_lost` is false for the node that led.
    pub fn run(&mut self, groups: &mut Groups, now: Instant, is_lost: impl Fn(NodeId) -> bool) {
        for (id, campaign) in std::mem::take(&mut self.new) {
            self.schedule(id, now + campaign.first_after(), campaign);
        }
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some((_, mut campaign)) = self.scheduled.remove(&id) else { continue };
            let is_over = groups.get(&id).is_none_or(|replica| {
                replica.group.term() != campaign.term || replica.group.leader().is_some() || replica.group.leads()
            });
            if is_over || (campaign.loss != Loss::Restarted && !is_lost(campaign.node)) {
                continue;
            }
            if let Some(replica) = groups.get_mut(&id) {
                quiet::campaign(&mut replica.group);
            }
            campaign.tries += 1;
            if campaign.tries < TRIES_MAX {
                let (.., again) = campaign.loss.pace();
                self.schedule(id, now + again, campaign);
            }
        }
    }

    fn schedule(&mut self, id: GroupId, at: Instant, campaign: Campaign) {
        if let Some((before, _)) = self.scheduled.insert(id, (at, campaign)) {
            self.due.remove(&(before, id));
        }
        self.due.insert((at, id));
    }
}
