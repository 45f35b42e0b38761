//! Blocks contain the same as reads record by record, wherever they begin and however large they are.

use super::*;
use crate::storage::format::state::Genesis;
use crate::storage::format::state::HardState;
use crate::storage::io::disk::sim::Rng;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::{GROUP, Home, append};
use crate::storage::write::options::LogOptions;
use crate::types::{LogIndex, ReplicaId, Term};

fn random_log(rng: &mut Rng, home: &Home) -> GroupLog {
    let (mut log, _) = home.open();
    for _ in 0..80 {
        if rng.once_in(6) {
            append(&mut log, 1, &[]);
        }
        let values: Vec<Vec<u8>> =
            (0..1 + rng.below(6)).map(|_| vec![rng.below(256) as u8; rng.below(400) as usize]).collect();
        append(&mut log, 1, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if rng.once_in(9) {
            let commit = LogIndex(log.bounds().last_index.0 - rng.below(3).min(log.bounds().last_index.0 - 1));
            let commit = commit.max(log.hard_state.commit);
            log.append_hard_state(&HardState { term: Term(1), vote: None, commit }).expect("appended");
            log.truncate_suffix(LogIndex(commit.0 + 1)).expect("cut");
        }
    }
    log
}

/// Reads to the end in blocks, each from where the last one ended.
fn in_blocks(log: &GroupLog, rng: &mut Rng, from: Offset, until: Offset) -> Vec<u8> {
    let reader = log.reader();
    let (mut next, mut place, mut bytes) = (from, None, Vec::new());
    while next < until {
        let bytes_max = rng.below(6000) as usize;
        let (slice, behind) =
            reader.block(next, until, bytes_max, Access::Blocking, place.filter(|_| !rng.once_in(5))).expect("records");
        assert!(slice.count > 0 && slice.next.0 == next.0 + u64::from(slice.count));
        bytes.extend_from_slice(&slice.bytes);
        (next, place) = (slice.next, behind);
    }
    bytes
}

#[test]
fn blocks_contain_the_same_as_single_reads() {
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let home = Home::new(Genesis::founder(ReplicaId(5)));
        let log = random_log(&mut rng, &home);
        let end = log.bounds().next_offset.0;
        for _ in 0..20 {
            let from = Offset(rng.below(end));
            let until = Offset(from.0 + 1 + rng.below(end - from.0));
            let whole = log.reader().records(from, until, u32::MAX, usize::MAX, Access::Blocking).expect("records");
            assert_eq!(in_blocks(&log, &mut rng, from, until), whole.bytes, "seed {seed}, {from} to {until}");
        }
    }
}

#[test]
fn a_wrong_resume_point_only_costs_time() {
    let mut rng = Rng(7);
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let log = random_log(&mut rng, &home);
    let reader = log.reader();
    let until = log.bounds().next_offset;
    let whole = reader.records(Offset(3), until, u32::MAX, 5000, Access::Blocking).expect("records");
    for _ in 0..500 {
        let position = Position { file: rng.below(40), at: rng.below(5000) };
        let place = ResumePoint { position, frame_bytes: rng.below(9000) as usize };
        let (slice, _) = reader.block(Offset(3), until, 5000, Access::Blocking, Some(place)).expect("records");
        assert!(whole.bytes.starts_with(&slice.bytes) || slice.bytes.starts_with(&whole.bytes), "{place:?}");
        assert!(slice.count > 0 && slice.next.0 == 3 + u64::from(slice.count));
    }
}

/// Small entries between large ones. Once, a response kept the bytes of a large entry that it had read but did not
/// return until the response was sent: a thousand times what was charged to the stream's budget.
#[test]
fn a_block_holds_little_more_memory_than_its_records() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let options = LogOptions { segment_bytes: 64 << 20 };
    let (mut log, _) = GroupLog::open(&home.disk, home.dir.path(), GROUP, &options).expect("opened");
    for _ in 0..20 {
        append(&mut log, 1, &[&[1; 100]]);
        append(&mut log, 1, &[&[2; 600 << 10]]);
    }
    let (reader, until) = (log.reader(), log.bounds().next_offset);
    let (mut next, mut place) = (Offset(0), None);
    while next < until {
        let (slice, behind) = reader.block(next, until, 500 << 10, Access::Blocking, place).expect("records");
        let (held, bytes) = (slice.bytes.capacity(), slice.bytes.len());
        assert!(held <= 2 * bytes + RESPONSE_END_BYTES, "{held} bytes for {bytes}");
        (next, place) = (slice.next, behind);
    }
}

/// Once the size of entries is known, only the header of the first entry that does not fit is read.
#[test]
fn a_stream_reads_only_what_it_returns() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let options = LogOptions { segment_bytes: 64 << 20 };
    let (mut log, _) = GroupLog::open(&home.disk, home.dir.path(), GROUP, &options).expect("opened");
    for _ in 0..10 {
        append(&mut log, 1, &[&[1; 300 << 10]]);
    }
    let (reader, until) = (log.reader(), log.bounds().next_offset);
    let (first, mut place) = reader.block(Offset(0), until, 500 << 10, Access::Blocking, None).expect("records");
    assert_eq!(first.count, 1);
    let mut next = first.next;
    while next < until {
        let (slice, behind) = reader.block(next, until, 500 << 10, Access::Blocking, place).expect("records");
        let (read, bytes) = (slice.bytes.capacity(), slice.bytes.len());
        assert!(read <= bytes + SLACK_BYTES + 2 * HEADER_BYTES, "{read} bytes for {bytes}");
        (next, place) = (slice.next, behind);
    }
}
