//! Entries that are hidden where only a changed index leads: a reader of one record would get them, and a walk over the
//! frames would not.

use std::fs;
use std::path::Path;

use super::Severity;
use super::tests::{Home, told};
use crate::storage::format::entry::u32_at;
use crate::storage::format::frame::{Frame, HEADER_BYTES, Header, NoteKind, Position, decode, encode, frame_bytes};
use crate::storage::format::index::{Index, IndexEntry};
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::storage::io::disk::Access;
use crate::types::Offset;

/// Appends a filler to the second segment. Its payload contains the last frames of the segment again, with another value
/// in the first one. The index leads to them. Returns the offset of the record with the other value.
fn hide(home: &Home) -> Offset {
    let [_, name, next, ..] = &home.segments()[..] else { panic!("four segments") };
    let bytes = fs::read(home.path(name)).expect("a segment");
    let salt = SegmentHeader::decode(&bytes).expect("a header").salt;
    let next_bytes = fs::read(home.path(next)).expect("a segment");
    let mut next_header = SegmentHeader::decode(&next_bytes).expect("a header");
    let limit = next_header.predecessor.at;
    let frame = |at: u64| -> Frame<'_> {
        let whole = frame_bytes(u32_at(&bytes, at as usize) as usize);
        decode(&bytes[at as usize..][..whole], salt, at).expect("a frame")
    };
    let frames: Vec<u64> =
        home.frames(name).into_iter().filter(|at| frame(*at).header.kind.is_entry() && *at < limit).collect();
    let from = frames.len() - 2;
    let (mut hidden, mut noted) = (Vec::new(), None);
    for at in &frames[from..] {
        let copied = frame(*at);
        let mut payload = copied.payload.to_vec();
        let position = limit + HEADER_BYTES as u64 + hidden.len() as u64;
        if noted.is_none() {
            payload[100] ^= 1;
            noted = Some(IndexEntry {
                index: copied.header.index.0,
                base_offset: copied.header.base_offset.0,
                append_time_us: copied.header.append_time_us,
                position,
            });
        }
        encode(&mut hidden, salt, position, &copied.header, &payload);
    }
    let noted = noted.expect("a frame");
    let mut changed = bytes[..limit as usize].to_vec();
    encode(&mut changed, salt, limit, &Header::of_note(NoteKind::Filler, Position::default()), &hidden);
    next_header.predecessor.at = limit + frame_bytes(hidden.len()) as u64;
    let index = name.replace(".seg", ".idx");
    let mut entries = Index::decode(&fs::read(home.path(&index)).expect("an index"), salt).expect("valid");
    entries.retain(|entry| entry.index < noted.index);
    entries.push(noted);
    fs::write(home.path(&index), Index::of(entries).encode(salt, next_header.predecessor.at)).expect("written");
    fs::write(home.path(name), changed).expect("written");
    home.change(next, |bytes| bytes[..SEGMENT_HEADER_BYTES as usize].copy_from_slice(&next_header.encode()));
    Offset(noted.base_offset)
}

/// Once, this was a note, and the log was called good, although readers of the record got another one.
#[test]
fn an_entry_to_which_only_the_index_leads_is_damage() {
    let read = |home: &Home, at: Offset| {
        let log = home.try_log().expect("opened");
        let slice = log.reader().records(at, Offset(at.0 + 1), 1, 1 << 20, Access::Blocking).expect("a record");
        slice.bytes
    };
    let sound = Home::new(true);
    let home = Home::new(true);
    let at = hide(&home);
    let report = home.look();
    assert!(read(&home, at) != read(&sound, at), "a reader gets the hidden record");
    let found = told(&report, Severity::Damage);
    assert!(found.len() == 1 && found[0].2.contains("hidden between those of the log"), "{found:?}");
    assert!(Path::new(&found[0].0).extension().is_some_and(|name| name == "seg"), "{found:?}");
}
