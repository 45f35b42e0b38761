//! A replica that takes no part while a part of its log is repaired from a peer. Unlike other damage, this ends.

use super::Group;

/// Stops taking part. The group must not lead: its leader hands over first.
pub fn begin(group: &mut Group, what: String) {
    group.health.begin_repair(what);
    group.retire();
}

/// Takes part again, unless other damage was found meanwhile.
pub fn end(group: &mut Group) {
    group.health.end_repair();
    if !group.health.is_damaged() {
        // What was synced meanwhile.
        group.settle();
    }
}
