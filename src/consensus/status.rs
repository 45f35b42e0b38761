//! What `consensus` publishes about its groups, for everybody who asks: leaders, terms, positions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::handle::GroupStatus;
use crate::types::GroupId;

/// The newest status of each group that this node carries.
#[derive(Debug, Default)]
pub struct Statuses(RwLock<BTreeMap<GroupId, Arc<GroupStatus>>>);

impl Statuses {
    /// One group's.
    pub fn get(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        self.0.read().get(&group).cloned()
    }

    /// All groups', by id.
    pub fn all(&self) -> Vec<Arc<GroupStatus>> {
        self.0.read().values().cloned().collect()
    }

    /// Replaces one group's.
    pub fn publish(&self, status: GroupStatus) {
        let mut all = self.0.write();
        if all.get(&status.group).is_none_or(|old| **old != status) {
            all.insert(status.group, Arc::new(status));
        }
    }
}
