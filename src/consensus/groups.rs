//! This node's replicas, and which of them need attention: after a step of the loop only those that it has changed, on
//! a tick those that are not quiet, and once a second each of them.

use std::collections::{BTreeMap, BTreeSet};

use super::replica::Replica;
use crate::types::GroupId;

/// A quiet group is due once in this many ticks.
const SLOW_TICKS: u64 = 20;

/// This node's replicas.
#[derive(Default)]
pub struct Groups {
    replicas: BTreeMap<GroupId, Replica>,
    /// Groups that may have effects.
    touched: BTreeSet<GroupId>,
    /// Groups that are not quiet.
    awake: BTreeSet<GroupId>,
    /// All groups, by the tick at which they are due if they are quiet.
    slow: Vec<BTreeSet<GroupId>>,
    /// The number of unanswered proposals of each group that has any, as of [`Groups::count_unanswered`].
    unanswered: BTreeMap<GroupId, usize>,
}

impl Groups {
    /// Returns a replica for reading.
    pub fn get(&self, group: &GroupId) -> Option<&Replica> {
        self.replicas.get(group)
    }

    /// Returns a replica for a change, whose effects are performed next.
    pub fn get_mut(&mut self, group: &GroupId) -> Option<&mut Replica> {
        let replica = self.replicas.get_mut(group)?;
        self.touched.insert(*group);
        Some(replica)
    }

    /// Returns a replica whose effects are being performed.
    pub fn get_quietly(&mut self, group: &GroupId) -> Option<&mut Replica> {
        self.replicas.get_mut(group)
    }

    /// Returns true if this node has a replica of the group.
    pub fn contains_key(&self, group: &GroupId) -> bool {
        self.replicas.contains_key(group)
    }

    /// Iterates over all replicas for reading, ordered by group.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupId, &Replica)> {
        self.replicas.iter()
    }

    /// Iterates over all replicas for a change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.touched.extend(self.replicas.keys());
        self.replicas.values_mut()
    }

    /// Adds a replica. It is not quiet.
    pub fn insert(&mut self, group: GroupId, replica: Replica) {
        if self.slow.is_empty() {
            self.slow = (0..SLOW_TICKS).map(|_| BTreeSet::new()).collect();
        }
        self.slow[Groups::slot(group)].insert(group);
        self.touched.insert(group);
        self.awake.insert(group);
        self.replicas.insert(group, replica);
    }

    /// Removes a replica.
    pub fn remove(&mut self, group: GroupId) -> Option<Replica> {
        self.touched.remove(&group);
        self.awake.remove(&group);
        if let Some(slot) = self.slow.get_mut(Groups::slot(group)) {
            slot.remove(&group);
        }
        self.unanswered.remove(&group);
        self.replicas.remove(&group)
    }

    /// Counts the unanswered proposals of a group, after its effects were performed.
    pub fn count_unanswered(&mut self, group: GroupId) {
        match self.replicas.get(&group).map_or(0, |replica| replica.group.unanswered()) {
            0 => self.unanswered.remove(&group),
            count => self.unanswered.insert(group, count),
        };
    }

    /// Returns the number of unanswered proposals of all groups.
    pub fn unanswered(&self) -> usize {
        self.unanswered.values().sum()
    }

    fn slot(group: GroupId) -> usize {
        (group.0 % SLOW_TICKS) as usize
    }

    /// Records whether the group is quiet.
    pub fn set_awake(&mut self, group: GroupId, awake: bool) {
        if awake && self.replicas.contains_key(&group) {
            self.awake.insert(group);
        } else if !awake {
            self.awake.remove(&group);
        }
    }

    /// The groups that are not quiet.
    pub fn awake(&self) -> &BTreeSet<GroupId> {
        &self.awake
    }

    /// Returns the groups to consider on a tick: those that are not quiet, and a part of the quiet ones.
    pub fn due(&self, tick: u64) -> BTreeSet<GroupId> {
        let slot = self.slow.get((tick % SLOW_TICKS) as usize);
        self.awake.iter().chain(slot.into_iter().flatten()).copied().collect()
    }

    /// Takes the groups that may have effects.
    pub fn take_touched(&mut self) -> BTreeSet<GroupId> {
        std::mem::take(&mut self.touched)
    }
}

impl std::ops::Index<&GroupId> for Groups {
    type Output = Replica;

    fn index(&self, group: &GroupId) -> &Replica {
        &self.replicas[group]
    }
}
