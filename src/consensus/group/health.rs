//! Whether a group takes part, and whether its records may be served.

use crate::types::{GroupId, LogIndex};

/// The health of one replica.
#[derive(Debug)]
pub struct Health {
    group: GroupId,
    damage: Option<String>,
    differs: bool,
    suspect: Option<LogIndex>,
}

impl Health {
    /// At a start. `suspect` is where the replica differed when it was last compared.
    pub fn new(group: GroupId, suspect: Option<LogIndex>) -> Health {
        Health { group, damage: None, differs: false, suspect }
    }

    pub fn set_damaged(&mut self, what: String) {
        log::error!("group {} is damaged and takes no part until repaired: {what}", self.group);
        self.damage = Some(what);
    }

    /// Another replica has other entries below the commit index. True if that was not known.
    pub fn set_differing(&mut self, what: String) -> bool {
        let is_new = !std::mem::replace(&mut self.differs, true);
        if is_new {
            self.set_damaged(what);
        } else {
            // The range in which the difference begins has become smaller.
            log::info!("group {}: {what}", self.group);
            self.damage = Some(what);
        }
        is_new
    }

    pub fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// True if this replica is known to differ from another one.
    pub fn differs(&self) -> bool {
        self.differs
    }

    /// The replica differed from a leader's at this entry or an earlier one when it was last compared, before the last restart,
    /// and has not been compared there since. It takes part, but no record may be served.
    pub fn suspect(&self) -> Option<LogIndex> {
        self.suspect
    }

    pub fn clear_suspicion(&mut self) {
        self.suspect = None;
    }

    /// What the status says.
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
