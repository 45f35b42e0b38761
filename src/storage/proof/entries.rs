//! Random entries that continue a log.

use crate::log_state::StateCommand;
use crate::log_state::cursors::CommitCursor;
use crate::log_state::producers::InitProducer;
use crate::storage::format::entry::{Entry, EntryKind, Stamp};
use crate::storage::format::frame::{self, Header, NoteKind, Position};
use crate::storage::format::payload::{RecordFields, encode_record, stamp_records};
use crate::storage::format::state::Base;
use crate::storage::io::disk::sim::Rng;
use crate::types::{CursorName, Offset, ProducerId, Term};

/// An entry that continues a log.
pub fn entry(last: Base, term: Term, rng: &mut Rng, even: bool, time: u64) -> Entry {
    let kind = match rng.below(8) {
        0 if !even => EntryKind::Noop,
        1 if !even => EntryKind::ConfChange,
        2 if !even => return commands(last, term, rng, time),
        _ => EntryKind::Records,
    };
    let mut payload = Vec::new();
    let count = match kind {
        EntryKind::Records if even => 1,
        EntryKind::Records => 1 + rng.below(3) as u32,
        _ => 0,
    };
    for _ in 0..count {
        let value = match rng.below(if even { 1 } else { 12 }) {
            0 if !even => frames(),
            _ => vec![rng.next() as u8; if even { 400 } else { rng.below(400) as usize }],
        };
        encode_record(&mut payload, &RecordFields { value: &value, ..RecordFields::default() });
    }
    stamp_records(&mut payload, last.offset, term, time).expect("canonical");
    let producer_id = if kind == EntryKind::Records && !even { rng.below(4) } else { 0 };
    let sequence = if producer_id == 0 { 0 } else { 1 + rng.below(4) };
    let stamp = Stamp { kind, count, base_offset: last.offset, append_time_us: time, producer_id, sequence };
    Entry::new(last.index.next(), term, stamp, &payload)
}

/// An entry that registers a producer and moves a cursor.
pub fn commands(last: Base, term: Term, rng: &mut Rng, time: u64) -> Entry {
    let id = 1 + rng.below(3);
    let init = InitProducer { id: ProducerId(id), instance: id, ..InitProducer::default() };
    let commit = CommitCursor {
        name: CursorName::new(&format!("c{}", rng.below(3))).expect("a name"),
        next_offset: Offset(time),
        epoch: 0,
        expected_revision: None,
        allow_rewind: true,
        metadata: vec![7; rng.below(100) as usize],
    };
    let mut payload = StateCommand::InitProducer(init).encode();
    payload.extend(StateCommand::CommitCursor(commit).encode());
    let (kind, base_offset) = (EntryKind::State, last.offset);
    let stamp = Stamp { kind, count: 0, base_offset, append_time_us: time, producer_id: 0, sequence: 0 };
    Entry::new(last.index.next(), term, stamp, &payload)
}

/// A value that consists of frames with a huge durable position. They would be valid if the checksum did not depend on
/// the position.
fn frames() -> Vec<u8> {
    let mut value = Vec::new();
    for _ in 0..8 {
        let durable = Position { file: u64::MAX / 4, at: 0 };
        let mut one = Vec::new();
        frame::encode(&mut one, 0, 0, &Header::of_note(NoteKind::Synced, durable), &[]);
        value.extend_from_slice(&one);
        // Give each frame another alignment.
        value.push(0);
    }
    value
}
