//! Decodes how an entry changes the state of its log. Followers check a leader's entries with it, and all nodes apply
//! entries with it, so that both interpret a payload in the same way.

use crate::log_state::producers::Answer;
use crate::log_state::{StateChange, StateCommand, decode_trim};
use crate::storage::format::entry::{BadEntry, EntryKind, Stamp};
use crate::types::{GroupId, LogIndex, ProducerId, Term};

/// Returns how an entry changes the log state. Does not read the contents of records.
///
/// # Errors
/// [`BadEntry`] for an entry that a leader never proposes to this group, because it could not be applied.
pub fn state_change(
    group: GroupId,
    (index, term): (LogIndex, Term),
    stamp: &Stamp,
    payload: &[u8],
) -> Result<StateChange, BadEntry> {
    if !stamp.kind.is_proposed_to(group) {
        return Err(BadEntry("an entry of a kind that is not proposed to this group"));
    }
    if !stamp.kind.payload().fits(payload.len(), stamp.count) {
        return Err(BadEntry("a payload that does not fit the kind of the entry"));
    }
    Ok(match stamp.kind {
        EntryKind::Records | EntryKind::ChainedRecords => {
            let &Stamp { count, base_offset: offset, append_time_us, producer_id, sequence, .. } = stamp;
            let answer = Answer { offset, count, term, index, append_time_us };
            let producer = (producer_id != 0).then_some((ProducerId(producer_id), sequence, answer));
            let chain = stamp.kind.payload().chain(payload).map(|chain| chain.after);
            StateChange::Records { next_offset: stamp.end_offset()?, append_time_us, producer, chain }
        }
        EntryKind::State => {
            let commands = StateCommand::decode_all(payload).map_err(|_| BadEntry("malformed or unknown commands"))?;
            StateChange::Commands { commands, append_time_us: stamp.append_time_us }
        }
        EntryKind::Trim => StateChange::Trim(decode_trim(payload).map_err(|_| BadEntry("a malformed trim"))?),
        EntryKind::Noop | EntryKind::ConfChange => StateChange::Nothing,
    })
}
