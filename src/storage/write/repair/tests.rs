//! Damage of every kind in sealed segments is repaired from the entries of another log, also if the process dies at any
//! step, and never with other entries.

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::config::DiskSpace;
use crate::storage::format::state::{Genesis, HardState};
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::write::log::tests::batch;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, Offset, ReplicaId, Term};

const GROUP: GroupId = GroupId(3);
const GROUPS: &str = "/groups";
const OPTIONS: LogOptions = LogOptions { segment_bytes: 4096 };
const FIRST: u64 = 1;

fn file(number: u64) -> PathBuf {
    Path::new(GROUPS).join("3").join(format!("{number:020}.seg"))
}

fn open(sim: &Sim) -> GroupLog {
    GroupLog::open(&sim.disk(), Path::new(GROUPS), GROUP, &OPTIONS).expect("opened").0
}

/// A log of several segments, with hard states between its entries.
fn filled() -> (Sim, GroupLog) {
    let sim = Sim::default();
    sim.disk().create_dir(Path::new(GROUPS)).expect("made");
    GroupLog::create(&sim.disk(), Path::new(GROUPS), GROUP, &OPTIONS, Genesis::founder(ReplicaId(5))).expect("made");
    let mut log = open(&sim);
    for n in 0..40_u8 {
        let value = vec![n; 100 + usize::from(n)];
        let entry = batch(&log, 1 + u64::from(n / 20), &[&value[..], b"second"]);
        log.append(&[entry]).expect("appended");
        if n % 3 == 0 {
            let hard_state = HardState { term: Term(1 + u64::from(n / 20)), vote: None, commit: log.last().index };
            log.append_hard_state(&hard_state).expect("appended");
        }
    }
    log.close().expect("closed");
    assert!(log.reader().view().parts.len() > 3);
    (sim, log)
}

fn entries(log: &GroupLog, low: LogIndex, high: LogIndex) -> Vec<Entry> {
    if low >= high { Vec::new() } else { log.reader().entries(low, high, u64::MAX, Access::Blocking).expect("entries") }
}

fn all(log: &GroupLog) -> Vec<Entry> {
    entries(log, log.bounds().base.index.next(), log.last().index.next())
}

fn repaired(log: &mut GroupLog, number: u64, peer: &GroupLog) {
    let repair = survey(&log.reader(), number).expect("surveyed").expect("damaged");
    repair.write(&entries(peer, repair.low, repair.high)).expect("repaired");
    reopen(log, number);
    assert!(survey(&log.reader(), number).expect("surveyed").is_none(), "it is sound");
}

fn damage(sim: &Sim, number: u64, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = sim.files().remove(&file(number)).flatten().expect("a segment");
    change(&mut bytes);
    sim.damage(&file(number), bytes);
}

#[test]
fn every_damage_of_a_sealed_segment_is_repaired() {
    let (_peer_sim, peer) = filled();
    let wanted = all(&peer);
    let length = peer.reader().view().parts[0].end() as usize;
    let mut rng = Rng(7);
    for round in 0..60 {
        let (sim, mut log) = filled();
        let number = FIRST + round % 3;
        let (a, b) = (rng.below(length as u64) as usize, rng.below(length as u64) as usize);
        match round % 6 {
            0 => damage(&sim, number, |bytes| bytes[a] ^= 1),
            1 => damage(&sim, number, |bytes| bytes[a.min(b)..a.max(b) + 1].fill(0)),
            2 => damage(&sim, number, |bytes| bytes.truncate(a)),
            3 => damage(&sim, number, |bytes| [a, b].iter().for_each(|at| bytes[*at] ^= 0x10)),
            4 => sim.unreadable(&file(number), a as u64..a as u64 + 1),
            _ => sim.lose(&file(number)),
        }
        // A segment may end before the damage.
        if survey(&log.reader(), number).expect("surveyed").is_some() {
            repaired(&mut log, number, &peer);
        }
        assert_eq!(all(&log), wanted, "round {round}");
        drop(log);
        let log = open(&sim);
        assert_eq!((all(&log), log.last()), (wanted.clone(), peer.last()), "round {round}, after a restart");
    }
}

/// What `proof/broken.rs` breaks.
pub(crate) fn proof() {
    other_entries();
    crashes();
}

#[test]
fn other_entries_are_refused() {
    other_entries();
}

fn other_entries() {
    let (_peer_sim, peer) = filled();
    let (sim, log) = filled();
    damage(&sim, FIRST, |bytes| bytes[400..900].fill(0));
    let repair = survey(&log.reader(), FIRST).expect("surveyed").expect("damaged");
    let right = entries(&peer, repair.low, repair.high);
    assert!(right.len() > 1);
    // Of a stale peer: another record of the same length, and another term.
    let mut other = right.clone();
    let mut data = other[0].data.to_vec();
    *data.last_mut().expect("a payload") ^= 1;
    other[0].data = Bytes::from(data);
    let mut term = right.clone();
    term[0].term = Term(2);
    let more = [&right[..], &right[..1]].concat();
    for wrong in [&other[..], &term[..], &right[1..], &right[..1], &more[..], &[]] {
        let before = sim.files();
        assert!(matches!(repair.write(wrong), Err(RepairError::OtherEntries(_))));
        assert_eq!(sim.files(), before, "nothing is changed");
    }
}

/// Once, a repair on a disk that was almost full could take the space for a vote, and the process ended.
#[test]
fn a_repair_waits_for_space() {
    let (_peer_sim, peer) = filled();
    let (sim, mut log) = filled();
    damage(&sim, FIRST, |bytes| bytes[400..900].fill(0));
    let limits = DiskSpace {
        disk_free_soft_bytes: Some(1 << 20),
        disk_free_hard_bytes: Some(1 << 20),
        disk_reserve_bytes: Some(0),
    };
    log.disk.watch_space(Path::new(GROUPS), &limits).expect("watched");
    sim.set_free_bytes(1 << 19);
    log.disk.space().look();
    let before = sim.files();
    let repair = survey(&log.reader(), FIRST).expect("surveyed").expect("damaged");
    let right = entries(&peer, repair.low, repair.high);
    let full = repair.write(&right);
    assert!(matches!(full, Err(RepairError::Storage(StorageError::DiskFull { .. }))), "{full:?}");
    assert_eq!(sim.files(), before, "nothing is changed");
    sim.set_free_bytes(1 << 30);
    log.disk.space().look();
    repaired(&mut log, FIRST, &peer);
}

#[test]
fn a_crash_during_a_repair_loses_nothing() {
    crashes();
}

/// Dies at every change of the disk. The next start finds the segment as it was, or repaired, and no other file.
fn crashes() {
    let (_peer_sim, peer) = filled();
    let wanted = all(&peer);
    for changes in 0.. {
        let (sim, log) = filled();
        damage(&sim, FIRST, |bytes| bytes[400..900].fill(0));
        let repair = survey(&log.reader(), FIRST).expect("surveyed").expect("damaged");
        let right = entries(&peer, repair.low, repair.high);
        sim.die_after(Some(changes));
        let done = repair.write(&right).is_ok() && !sim.died();
        drop((repair, log));
        for seed in 0..8 {
            let left = sim.copy();
            left.die_after(None);
            left.power_cut(&mut Rng(100 * changes + seed));
            let mut log = open(&left);
            assert!(!left.files().keys().any(|path| path.extension().is_some_and(|e| e == "tmp")), "nothing is left");
            if survey(&log.reader(), FIRST).expect("surveyed").is_some() {
                assert!(!done, "it was repaired");
                assert!(left.files().contains_key(&file(FIRST)), "the old file is there");
                repaired(&mut log, FIRST, &peer);
            }
            assert_eq!(all(&log), wanted);
        }
        if done {
            return;
        }
    }
}

#[test]
fn damaged_files_are_named() {
    let (_sim, mut log) = filled();
    let reader = log.reader();
    assert_eq!(damaged_file(&reader), None);
    let report = |file: &str, position| {
        let range = crate::storage::read::damage::DamagedRange {
            file: file.to_owned(),
            position,
            bytes: 8,
            first_offset: Offset(0),
            next_offset: None,
            what: "a test".to_owned(),
        };
        reader.published().damages().report(GROUP, &range);
    };
    let newest = reader.view().parts.last().expect("a part").segment.header.number;
    let name = |number: u64| format!("{number:020}.seg");
    for (file, found) in [
        ("manifest".to_owned(), DamagedFile::Small("manifest".to_owned())),
        ("node.toml".to_owned(), DamagedFile::OfNode("node.toml".to_owned())),
        (name(FIRST), DamagedFile::Sealed(FIRST)),
        (name(newest), DamagedFile::Newest),
    ] {
        report(&file, 130);
        assert_eq!(damaged_file(&reader), Some(found));
        forget(&reader, &file);
        assert_eq!(damaged_file(&reader), None);
    }
    // The newest segment is repaired once it is sealed, and the next one is synced.
    seal(&mut log).expect("sealed");
    report(&name(newest), 130);
    assert_eq!(damaged_file(&reader), None);
    log.close().expect("synced");
    assert_eq!(damaged_file(&reader), Some(DamagedFile::Sealed(newest)));
}
