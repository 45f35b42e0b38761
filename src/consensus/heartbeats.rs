//! Heartbeats between nodes, which replace those of quiet groups.
//!
//! A group is **quiet** while it has nothing to replicate. Its leader announces this in a last heartbeat to each
//! follower. From then on no replica of the group is ticked, and no message of the group is sent. Instead each node
//! sends one heartbeat to every other node, five times a second, for all groups together:
//!
//! - If a node is **silent** for an election timeout, the quiet groups that it leads are woken, and their replicas soon
//!   campaign. So a dead leader is noticed as early as without quiet groups. The groups that this node leads with a
//!   replica on the silent node are woken, too, so that raft checks whether a majority is left.
//! - A node is **gone** if its process is known to have ended (`replication/probe.rs`). It counts as silent at once,
//!   until it is heard again.
//! - A node that **restarts** sends another incarnation. It has forgotten which groups are quiet, so the same groups
//!   are woken. It leads none of those that it led before.
//! - A heartbeat contains a **digest** of the quiet groups that its sender leads and the receiver follows, and one of
//!   those that the receiver leads and the sender follows. If a digest of the receiver differs twice in a row by the
//!   same groups, a message was lost, or another replica than the leader's has woken a follower. Then the receiver
//!   wakes its replicas of all these groups. So a leader notices that it was replaced, and a follower hears from its
//!   leader before it campaigns.
//!
//! Any other message or request wakes a group. All of this affects only when elections are held, never their outcome.

use std::collections::{BTreeMap, BTreeSet};

use super::group::ELECTION_TICKS;
use crate::catalog::faults::{Fault, broken};
use crate::types::{GroupId, NodeId, Term};

/// The number of ticks between two heartbeats.
const HEARTBEAT_TICKS: u64 = 4;
/// A heartbeat that is due this soon is sent early, together with that of another node: all nodes of an idle cluster
/// then wake at the same time, and less often.
const EARLY_TICKS: u64 = 2;
/// The tick of the first heartbeat: early, so that the others soon notice a restart.
const FIRST_HEARTBEAT_TICK: u64 = 2;
/// A node is silent after this many ticks without a heartbeat.
pub const SILENT_TICKS: u64 = ELECTION_TICKS as u64;
/// The groups of a leader are woken after the same difference in this many digests in a row. Messages may overtake each
/// other, so a single difference means nothing; and while groups become quiet and are woken all the time, each digest
/// differs by other groups.
const MISMATCHES_MAX: u32 = 2;

/// The contents of a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Differs after each start of the sender.
    pub incarnation: u64,
    /// The quiet groups that the sender leads and the receiver follows.
    pub quiet: QuietDigest,
    /// The quiet groups that the receiver leads and the sender follows.
    pub followed: QuietDigest,
    /// The number of logs that the sender leads.
    pub led_groups: u64,
    /// The sender's disk is full: it refuses appends.
    pub disk_full: bool,
}

/// The number of groups in a set, and a digest of them. The order of additions does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuietDigest {
    /// The number of groups.
    pub groups: u64,
    /// The sum of a number for each group and its term.
    pub digest: u64,
}

impl QuietDigest {
    fn number(group: GroupId, term: Term) -> u64 {
        // The finalizer of SplitMix64, so that sums of different sets differ.
        let mut x = group.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ term.0.rotate_left(32);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn add(&mut self, group: GroupId, term: Term) {
        self.groups += 1;
        self.digest = self.digest.wrapping_add(QuietDigest::number(group, term));
    }

    fn remove(&mut self, group: GroupId, term: Term) {
        self.groups = self.groups.saturating_sub(1);
        self.digest = self.digest.wrapping_sub(QuietDigest::number(group, term));
    }

    /// Returns the digest of the groups that only one of the two sets contains.
    fn minus(self, other: QuietDigest) -> QuietDigest {
        QuietDigest { groups: self.groups.wrapping_sub(other.groups), digest: self.digest.wrapping_sub(other.digest) }
    }
}

/// The last difference between a digest of a peer and that of this node, and in how many heartbeats in a row it was the
/// same.
#[derive(Debug, Default)]
struct Difference {
    last: QuietDigest,
    in_a_row: u32,
}

impl Difference {
    /// Compares two digests. Returns true if their difference wakes the groups.
    fn lasts(&mut self, theirs: QuietDigest, ours: QuietDigest) -> bool {
        let difference = theirs.minus(ours);
        let is_same = difference == self.last;
        self.last = difference;
        if difference == QuietDigest::default() || broken(Fault::DigestsIgnored) {
            self.in_a_row = 0;
            return false;
        }
        self.in_a_row = if is_same { self.in_a_row + 1 } else { 1 };
        let wakes = self.in_a_row >= MISMATCHES_MAX;
        if wakes {
            self.in_a_row = 0;
        }
        wakes
    }
}

/// Why a group is quiet on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// This node leads it in the term, and these nodes follow.
    Leads(Term, Vec<NodeId>),
    /// The node leads it in the term.
    Follows(Term, NodeId),
}

/// What this node knows about another node.
#[derive(Debug, Default)]
struct Peer {
    /// The tick of the last heartbeat; `None` if there was none since this node's start.
    heard: Option<u64>,
    is_silent: bool,
    /// It is silent because its process has ended.
    is_gone: bool,
    /// The last heartbeat said that its disk is full.
    is_full: bool,
    incarnation: u64,
    led_groups: u64,
    /// How the digests of its last heartbeats differ from `followed` and `led`.
    followed_differs: Difference,
    led_differs: Difference,
    /// The quiet groups that this node leads and the peer follows.
    followed: QuietDigest,
    /// The quiet groups that the peer leads and this node follows.
    led: QuietDigest,
}

/// The quiet groups of this node, and the heartbeats of the others.
#[derive(Debug)]
pub struct Heartbeats {
    incarnation: u64,
    /// The tick of the next heartbeats to the others.
    next: u64,
    peers: BTreeMap<NodeId, Peer>,
    quiet: BTreeMap<GroupId, Quiet>,
}

/// The groups to wake because of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// Quiet groups.
    pub groups: BTreeSet<GroupId>,
    /// The node that leads some of them, and is silent or gone.
    pub silent: Option<NodeId>,
    /// The node that led some of them before it restarted.
    pub restarted: Option<NodeId>,
}

impl Heartbeats {
    /// `incarnation` differs from those of earlier starts of this node.
    pub fn new(incarnation: u64) -> Heartbeats {
        Heartbeats { incarnation, next: FIRST_HEARTBEAT_TICK, peers: BTreeMap::new(), quiet: BTreeMap::new() }
    }

    /// Returns true for a node that did not send a heartbeat for an election timeout, or never.
    pub fn is_silent(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_none_or(|peer| peer.is_silent || peer.heard.is_none())
    }

    /// Returns true for a node that has sent heartbeats, and then none for an election timeout.
    pub fn has_become_silent(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.is_silent)
    }

    /// Returns true for a node whose process has ended, and that was not heard since.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.is_gone)
    }

    /// Returns true for a node whose last heartbeat said that its disk is full.
    pub fn is_full(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.is_full)
    }

    /// Returns the nodes that have sent heartbeats, and then none for an election timeout.
    pub fn silent(&self) -> BTreeSet<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.is_silent).map(|(node, _)| *node).collect()
    }

    /// Returns the number of logs that a node leads, unless it is silent.
    pub fn led_groups(&self, node: NodeId) -> Option<u64> {
        self.peers.get(&node).filter(|peer| !peer.is_silent && peer.heard.is_some()).map(|peer| peer.led_groups)
    }

    /// Returns true if the group is quiet.
    pub fn is_quiet(&self, group: GroupId) -> bool {
        self.quiet.contains_key(&group)
    }

    /// Returns true if the group is quiet in this term, and led by this node or not as it was then.
    pub fn holds(&self, group: GroupId, term: Term, leads: bool) -> bool {
        match self.quiet.get(&group) {
            Some(Quiet::Leads(of, _)) => leads && *of == term,
            Some(Quiet::Follows(of, _)) => !leads && *of == term,
            None => false,
        }
    }

    /// Records that a group is quiet from now on.
    pub fn begin_quiet(&mut self, group: GroupId, quiet: Quiet) {
        self.end_quiet(group);
        match &quiet {
            Quiet::Leads(term, followers) => {
                for node in followers {
                    self.peers.entry(*node).or_default().followed.add(group, *term);
                }
            }
            Quiet::Follows(term, leader) => self.peers.entry(*leader).or_default().led.add(group, *term),
        }
        self.quiet.insert(group, quiet);
    }

    /// Records that a group is not quiet. Returns true if it was.
    pub fn end_quiet(&mut self, group: GroupId) -> bool {
        let Some(quiet) = self.quiet.remove(&group) else { return false };
        match quiet {
            Quiet::Leads(term, followers) => {
                for node in followers {
                    self.peers.entry(node).or_default().followed.remove(group, term);
                }
            }
            Quiet::Follows(term, leader) => self.peers.entry(leader).or_default().led.remove(group, term),
        }
        true
    }

    /// Returns true if heartbeats must be sent now, and expects that they are.
    pub fn take_due(&mut self, tick: u64) -> bool {
        let is_due = self.next <= tick;
        self.next = if is_due { tick + HEARTBEAT_TICKS } else { self.next };
        is_due
    }

    /// Returns the heartbeat to send to a node now. `led_groups` is the number of logs that this node leads.
    pub fn heartbeat_to(&self, node: NodeId, led_groups: u64, disk_full: bool) -> Heartbeat {
        let (quiet, followed) = self.peers.get(&node).map(|peer| (peer.followed, peer.led)).unwrap_or_default();
        Heartbeat { incarnation: self.incarnation, quiet, followed, led_groups, disk_full }
    }

    fn led_by(&self, node: NodeId) -> impl Iterator<Item = GroupId> {
        let led = move |quiet: &Quiet| matches!(quiet, Quiet::Follows(_, leader) if *leader == node);
        self.quiet.iter().filter(move |(_, quiet)| led(quiet)).map(|(group, _)| *group)
    }

    fn followed_by(&self, node: NodeId) -> impl Iterator<Item = GroupId> {
        let followed = move |quiet: &Quiet| matches!(quiet, Quiet::Leads(_, nodes) if nodes.contains(&node));
        self.quiet.iter().filter(move |(_, quiet)| followed(quiet)).map(|(group, _)| *group)
    }

    /// The quiet groups that this node leads although they have a replica on the node, whether or not it was silent
    /// when they became quiet.
    fn leading(&self) -> impl Iterator<Item = GroupId> {
        let leads = |quiet: &Quiet| matches!(quiet, Quiet::Leads(..));
        self.quiet.iter().filter(move |(_, quiet)| leads(quiet)).map(|(group, _)| *group)
    }

    /// Handles a heartbeat, and returns the groups to wake. `shares` returns true for a group with a replica on the
    /// node.
    pub fn receive(&mut self, from: NodeId, heartbeat: Heartbeat, tick: u64, shares: impl Fn(GroupId) -> bool) -> Wake {
        if self.next <= tick + EARLY_TICKS {
            self.next = tick;
        }
        let peer = self.peers.entry(from).or_default();
        let notices = !broken(Fault::DigestsIgnored);
        let returns = (peer.is_silent || peer.heard.is_none()) && notices;
        let is_restarted = peer.heard.is_some() && peer.incarnation != heartbeat.incarnation && notices;
        peer.heard = Some(tick);
        (peer.is_silent, peer.is_gone) = (false, false);
        peer.is_full = heartbeat.disk_full;
        peer.incarnation = heartbeat.incarnation;
        peer.led_groups = heartbeat.led_groups;
        let led_is_wrong = peer.led_differs.lasts(heartbeat.quiet, peer.led);
        let followed_is_wrong = peer.followed_differs.lasts(heartbeat.followed, peer.followed);
        let mut groups = BTreeSet::new();
        if is_restarted || led_is_wrong {
            groups.extend(self.led_by(from));
        }
        if followed_is_wrong {
            groups.extend(self.followed_by(from));
        }
        if is_restarted || returns {
            groups.extend(self.leading().filter(|group| shares(*group)));
        }
        Wake { groups, silent: None, restarted: is_restarted.then_some(from) }
    }

    /// Records that the process of a node has ended, and returns what to wake. `shares` returns true for a group with
    /// a replica on the node.
    pub fn lose(&mut self, node: NodeId, shares: impl Fn(GroupId) -> bool) -> Wake {
        if broken(Fault::GoneIgnored) {
            return Wake::default();
        }
        let peer = self.peers.entry(node).or_default();
        peer.is_gone = true;
        if std::mem::replace(&mut peer.is_silent, true) {
            // Its groups were woken when it became silent.
            return Wake::default();
        }
        let mut groups: BTreeSet<GroupId> = self.led_by(node).collect();
        groups.extend(self.leading().filter(|group| shares(*group)));
        Wake { groups, silent: Some(node), restarted: None }
    }

    /// Advances the time, and returns what to wake for each node that has become silent. `shares` returns true for a
    /// group with a replica on a node.
    pub fn tick(&mut self, tick: u64, shares: impl Fn(GroupId, NodeId) -> bool) -> Vec<Wake> {
        let silent = |peer: &Peer| !peer.is_silent && peer.heard.is_some_and(|heard| heard + SILENT_TICKS <= tick);
        let nodes: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| silent(peer)).map(|(node, _)| *node).collect();
        let mut wakes = Vec::new();
        for node in nodes {
            self.peers.entry(node).or_default().is_silent = true;
            if broken(Fault::SilenceIgnored) {
                continue;
            }
            let mut groups: BTreeSet<GroupId> = self.led_by(node).collect();
            groups.extend(self.leading().filter(|group| shares(*group, node)));
            wakes.push(Wake { groups, silent: Some(node), restarted: None });
        }
        wakes
    }

    /// Returns the first tick after this one at which a heartbeat is due, or a node becomes silent unless it is heard.
    pub fn next_due(&self, tick: u64) -> u64 {
        let silent = self.peers.values().filter(|peer| !peer.is_silent);
        let silent = silent.filter_map(|peer| Some(peer.heard? + SILENT_TICKS)).min();
        silent.map_or(self.next, |silent| silent.min(self.next)).max(tick + 1)
    }

    /// Called if this node's ticks are late: it has read no heartbeat meanwhile, so the other nodes are not silent.
    pub fn ticks_are_late(&mut self, tick: u64) {
        for peer in self.peers.values_mut().filter(|peer| !peer.is_silent && peer.heard.is_some()) {
            peer.heard = Some(tick);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const G: GroupId = GroupId(7);
    const T: Term = Term(3);

    /// Node A leads the quiet group G, and B follows.
    fn quiet() -> (Heartbeats, Heartbeats) {
        let (mut a, mut b) = (Heartbeats::new(10), Heartbeats::new(20));
        assert_eq!(a.receive(B, b.heartbeat_to(A, 0, false), 0, |_| true), Wake::default());
        assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), 0, |_| true), Wake::default());
        a.begin_quiet(G, Quiet::Leads(T, vec![B]));
        b.begin_quiet(G, Quiet::Follows(T, A));
        (a, b)
    }

    #[test]
    fn a_silent_node_wakes_the_groups_that_it_leads_or_follows_once() {
        const LAST: u64 = FIRST_HEARTBEAT_TICK + 4 * HEARTBEAT_TICKS;
        let (mut a, mut b) = quiet();
        for tick in 1..40 {
            if tick % HEARTBEAT_TICKS == FIRST_HEARTBEAT_TICK && tick <= LAST {
                assert_eq!(a.receive(B, b.heartbeat_to(A, 0, false), tick, |_| true), Wake::default());
                assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), tick, |_| true), Wake::default());
            }
            let (woken_a, woken_b) = (a.tick(tick, |_, _| true), b.tick(tick, |_, _| true));
            if tick == LAST + SILENT_TICKS {
                assert_eq!(woken_a, [Wake { groups: [G].into(), silent: Some(B), restarted: None }]);
                assert_eq!(woken_b, [Wake { groups: [G].into(), silent: Some(A), restarted: None }]);
                assert!(a.end_quiet(G) && b.end_quiet(G) && a.is_silent(B) && a.led_groups(B).is_none());
            } else {
                assert_eq!((woken_a, woken_b), (vec![], vec![]), "tick {tick}");
            }
        }
        a.begin_quiet(G, Quiet::Leads(T, vec![]));
        let returned = a.receive(B, b.heartbeat_to(A, 0, false), 41, |group| group == G);
        assert_eq!(returned.groups, [G].into(), "it may lack entries");
    }

    #[test]
    fn a_restart_wakes_the_groups_of_the_node() {
        let (mut a, b) = quiet();
        let again = Heartbeats::new(21);
        assert_eq!(a.receive(B, again.heartbeat_to(A, 0, false), 1, |_| true).groups, [G].into());
        let mut b = b;
        let again = Heartbeats::new(11);
        let restarted = Wake { groups: [G].into(), silent: None, restarted: Some(A) };
        assert_eq!(b.receive(A, again.heartbeat_to(B, 0, false), 1, |_| true), restarted);
        assert_eq!(b.receive(A, again.heartbeat_to(B, 0, false), 2, |_| true).restarted, None, "once");
    }

    #[test]
    fn a_node_that_is_gone_counts_as_silent_until_it_is_heard_again() {
        let (mut a, mut b) = quiet();
        assert_eq!(b.lose(A, |_| true), Wake { groups: [G].into(), silent: Some(A), restarted: None });
        assert!(b.is_gone(A) && b.has_become_silent(A) && b.led_groups(A).is_none());
        assert_eq!(b.lose(A, |_| true), Wake::default(), "its groups were woken");
        assert_eq!(b.tick(100, |_, _| true), []);
        assert_eq!(a.lose(B, |group| group == G).groups, [G].into(), "raft checks whether a majority is left");
        b.receive(A, a.heartbeat_to(B, 1, false), 101, |_| true);
        assert!(!b.is_gone(A) && !b.has_become_silent(A));
    }

    #[test]
    fn the_same_difference_twice_in_a_row_wakes_the_groups_of_a_leader() {
        let (mut a, mut b) = quiet();
        a.end_quiet(G);
        assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), 1, |_| true), Wake::default());
        assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), 3, |_| true).groups, [G].into());
        b.end_quiet(G);
        assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), 5, |_| true), Wake::default());
        a.begin_quiet(G, Quiet::Leads(Term(4), vec![B]));
        b.begin_quiet(G, Quiet::Follows(Term(3), A));
        b.receive(A, a.heartbeat_to(B, 1, false), 7, |_| true);
        assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), 9, |_| true).groups, [G].into(), "another term");
    }

    /// With a thousand logs that get a record now and then, some group is always between the two states.
    #[test]
    fn groups_that_change_all_the_time_wake_no_others() {
        let (mut a, mut b) = quiet();
        for i in 1..20 {
            let (left, entered) = (GroupId(100 + i), GroupId(101 + i));
            a.end_quiet(left);
            a.begin_quiet(entered, Quiet::Leads(T, vec![B]));
            assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), 2 * i, |_| true), Wake::default());
            b.end_quiet(left);
            b.begin_quiet(entered, Quiet::Follows(T, A));
        }
        assert_eq!(b.receive(A, a.heartbeat_to(B, 1, false), 50, |_| true), Wake::default());
        assert!(b.is_quiet(G));
    }

    #[test]
    fn a_leader_wakes_the_groups_that_a_node_no_longer_follows() {
        let (mut a, mut b) = quiet();
        b.end_quiet(G);
        assert_eq!(a.receive(B, b.heartbeat_to(A, 0, false), 1, |_| true), Wake::default());
        assert_eq!(a.receive(B, b.heartbeat_to(A, 0, false), 3, |_| true).groups, [G].into());
    }

    /// Between the ticks that it returns, the loop sleeps.
    #[test]
    fn no_heartbeat_and_no_silence_is_due_before_the_next_due_tick() {
        let (mut a, _) = quiet();
        assert!(a.take_due(0), "with the other node's first one");
        let (mut due, mut silent, mut sent) = (0, Vec::new(), Vec::new());
        for tick in 1..=16 {
            due = if due < tick { a.next_due(tick - 1) } else { due };
            silent.extend(a.tick(tick, |_, _| true).iter().map(|_| (tick, due)));
            sent.extend(a.take_due(tick).then_some((tick, due)));
        }
        assert_eq!((silent, sent), (vec![(12, 12)], vec![(4, 4), (8, 8), (12, 12), (16, 16)]));
    }

    #[test]
    fn nodes_send_their_heartbeats_at_the_same_time() {
        let (mut a, mut b) = (Heartbeats::new(10), Heartbeats::new(20));
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        for tick in 1..30 {
            if a.take_due(tick) {
                at_a.push(tick);
                b.receive(A, a.heartbeat_to(B, 0, false), tick, |_| true);
            }
            if tick > 4 && b.take_due(tick) {
                at_b.push(tick);
                a.receive(B, b.heartbeat_to(A, 0, false), tick, |_| true);
                at_a.extend(a.take_due(tick).then_some(tick));
            }
        }
        assert_eq!((at_a.len(), &at_a[..4], &at_a[1..]), (8, &[2, 5, 9, 13][..], &at_b[..]));
    }

    #[test]
    fn a_node_whose_ticks_were_late_waits_for_a_new_timeout() {
        let (mut a, _) = quiet();
        a.ticks_are_late(100);
        assert_eq!(a.tick(100, |_, _| true), []);
        assert_eq!(a.tick(100 + SILENT_TICKS, |_, _| true).len(), 1);
    }
}
