//! Decodes how an entry changes the state of its log. Followers check a leader's entries with it, and all nodes apply
//! entries with it, so that both interpret a payload in the same way.

use crate::log_state::{StateChange, decode_trim};
use crate::storage::entry::{BadEntry, EntryKind, Stamp};
use crate::types::GroupId;

/// Returns how an entry changes the log state. Does not read the contents of records.
///
/// # Errors
/// [`BadEntry`] for an entry that a leader never proposes to this group, because it could not be applied.
pub(super) fn state_change(group: GroupId, stamp: &Stamp, payload: &[u8]) -> Result<StateChange, BadEntry> {
    if !stamp.kind.is_proposed_to(group) {
        return Err(BadEntry("an entry of a kind that is not proposed to this group"));
    }
    if !stamp.kind.payload().fits(payload.len(), stamp.count) {
        return Err(BadEntry("a payload that does not fit the kind of the entry"));
    }
    Ok(match stamp.kind {
        EntryKind::Records => {
            StateChange::Records { next_offset: stamp.end_offset()?, append_time_us: stamp.append_time_us }
        }
        EntryKind::Trim => StateChange::Trim(decode_trim(payload).map_err(|_| BadEntry("a malformed trim"))?),
        EntryKind::Noop | EntryKind::ConfChange => StateChange::Nothing,
    })
}
