//! The behaviour of a running log after a part of it was damaged.

use super::tests::{Home, append, sync, values};
use super::*;
use crate::storage::format::state::Genesis;
use crate::types::ReplicaId;

/// The digest at a truncation was computed from the checkpoint before it. Once, a damaged entry in between ended the
/// process.
#[test]
fn a_suffix_is_cut_after_damage() {
    let home = Home::new(Genesis::founder(ReplicaId(5)));
    let (mut log, _) = home.open();
    let mut at_19 = None;
    for value in 2..=30 {
        append(&mut log, 1, &[&[value; 100]]);
        at_19 = at_19.or(Some(log.last()).filter(|last| last.index == LogIndex(19)));
    }
    sync(&mut log, &home);
    let path = home.path("00000000000000000001.seg");
    let mut bytes = std::fs::read(&path).expect("a segment");
    let entry_18 = bytes.windows(100).position(|value| value == [18; 100]).expect("the value of entry 18");
    bytes[entry_18] = 0;
    std::fs::write(&path, bytes).expect("written");
    log.truncate_suffix(LogIndex(20)).expect("cut");
    assert_eq!(Some(log.last()), at_19);
    append(&mut log, 2, &[b"new"]);
    assert_eq!(values(&log, 17, 19), [&[19; 100][..], b"new"]);
}
