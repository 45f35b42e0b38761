//! Whether a replica takes part in its group, and whether its records may be served.

use crate::types::{GroupId, LogIndex};

/// The health of one replica.
#[derive(Debug)]
pub struct Health {
    group: GroupId,
    damage: Option<String>,
    /// True if the damage is being repaired.
    is_repairing: bool,
    differs: bool,
    suspect: Option<LogIndex>,
}

impl Health {
    /// The health at a start. `suspect` is the entry at which the replica differed when it was last compared.
    pub fn new(group: GroupId, suspect: Option<LogIndex>) -> Health {
        Health { group, damage: None, is_repairing: false, differs: false, suspect }
    }

    pub fn set_damaged(&mut self, what: String) {
        log::error!("group {} is damaged and takes no part until repaired: {what}", self.group);
        self.damage = Some(what);
        self.is_repairing = false;
    }

    /// Records that damage is being repaired, and that the replica takes no part meanwhile.
    pub fn begin_repair(&mut self, what: String) {
        log::warn!("group {}: this replica takes no part for now: {what}", self.group);
        self.damage = Some(what);
        self.is_repairing = true;
    }

    /// Ends what [`Health::begin_repair`] began.
    pub fn end_repair(&mut self) {
        if std::mem::take(&mut self.is_repairing) {
            self.damage = None;
        }
    }

    /// Returns true while the replica takes no part only because it is being repaired.
    pub fn is_repairing(&self) -> bool {
        self.is_repairing
    }

    /// Records that this replica differs from another one below the commit index. Returns true if this is new.
    pub fn set_differing(&mut self, what: String) -> bool {
        let is_new = !std::mem::replace(&mut self.differs, true);
        if is_new {
            self.set_damaged(what);
        } else {
            // Only the range that contains the first difference has become smaller.
            log::info!("group {}: {what}", self.group);
            self.damage = Some(what);
        }
        is_new
    }

    pub fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// Returns true if this replica is known to differ from another one.
    pub fn differs(&self) -> bool {
        self.differs
    }

    /// Returns the entry at which, or before which, the replica differed from a leader's before the last restart. It
    /// has not been compared there since. Meanwhile the replica takes part, but serves no records.
    pub fn suspect(&self) -> Option<LogIndex> {
        self.suspect
    }

    pub fn clear_suspicion(&mut self) {
        self.suspect = None;
    }

    /// Returns the text for the status, if the replica is damaged or suspect.
    pub fn text(&self) -> Option<String> {
        self.damage.clone().or_else(|| {
            let index = self.suspect?;
            Some(format!(
                "this replica differed from the leader's at entry {index} or before when it was last compared: no record is \
                 served until it is compared again"
            ))
        })
    }
}
