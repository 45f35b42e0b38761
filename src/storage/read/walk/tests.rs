//! Finding the next frame after bytes that are not a valid frame, or can't be read.

use std::path::Path;

use super::*;
use crate::storage::format::frame::{Header, NoteKind, Position, encode};
use crate::storage::io::disk::sim::Sim;
use crate::types::LogIndex;

const SALT: u64 = 7;
const PATH: &str = "/segment";

/// Consecutive frames with payloads of these sizes, and their positions.
fn file(payloads: &[usize]) -> (Sim, Vec<u64>, u64) {
    let sim = Sim::default();
    let (mut bytes, mut at) = (Vec::new(), Vec::new());
    for (i, payload) in payloads.iter().enumerate() {
        at.push(bytes.len() as u64);
        let header = Header { index: LogIndex(i as u64), ..Header::of_note(NoteKind::Filler, Position::default()) };
        let position = bytes.len() as u64;
        encode(&mut bytes, SALT, position, &header, &vec![0xaa; *payload]);
    }
    sim.disk().create(Path::new(PATH)).expect("created").write_at(0, &bytes).expect("written");
    (sim, at, bytes.len() as u64)
}

/// The positions of the frames that a walk finds, and of the damage.
fn walked(sim: &Sim, end: u64, access: Access) -> (Vec<u64>, Vec<u64>) {
    let file = sim.disk().open(Path::new(PATH)).expect("opened");
    let mut walk = Walk::new(&file, SALT, 0, end, access);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    loop {
        match walk.next() {
            Ok(Some((at, _))) => good.push(at),
            Ok(None) => return (good, bad),
            Err(_) => {
                bad.push(walk.position());
                if !walk.skip_bad().expect("no shortage") {
                    return (good, bad);
                }
            }
        }
    }
}

/// Once, 4 unreadable KiB in the middle of a segment made a read of 1 MiB fail: the damage was reported at the
/// beginning of that read, and the frames after it were not checked.
#[test]
fn only_the_unreadable_blocks_are_skipped() {
    let payloads: Vec<usize> = (0..200).map(|i| 40 + i * 7 % 900).collect();
    for access in [Access::Blocking, Access::Disk] {
        for block in 0..24 {
            let (sim, at, end) = file(&payloads);
            let bad = block * 4096..(block + 1) * 4096;
            sim.unreadable(Path::new(PATH), bad.clone());
            let (good, met) = walked(&sim, end, access);
            let frame_end = |i: usize| at.get(i + 1).copied().unwrap_or(end);
            let sound: Vec<u64> =
                (0..at.len()).filter(|i| frame_end(*i) <= bad.start || at[*i] >= bad.end).map(|i| at[i]).collect();
            assert_eq!(good, sound, "{access:?}, block {block}");
            let first = (0..at.len()).find(|i| frame_end(*i) > bad.start && at[*i] < bad.end);
            assert_eq!(met.first().copied(), first.map(|i| at[i]), "{access:?}, block {block}");
        }
    }
}

/// Many unreadable MiB are not searched block by block, which would take a failing disk hours. The frames after them
/// are found.
#[test]
fn a_large_unreadable_area_is_skipped_in_large_steps() {
    let payloads = [vec![4000; 10], vec![1 << 20; 20], vec![4000; 600]].concat();
    let (sim, at, end) = file(&payloads);
    sim.unreadable(Path::new(PATH), at[3] + 500..at[30]);
    let (good, met) = walked(&sim, end, Access::Blocking);
    assert_eq!((&good[..3], met[0]), (&at[..3], at[3]));
    assert_eq!(good.last(), at.last());
    assert!(good.len() > 300, "{}", good.len());
}

#[test]
fn frames_end_at_the_end_and_holes_are_skipped() {
    let (sim, at, _) = file(&[100; 20]);
    let file = sim.disk().open(Path::new(PATH)).expect("opened");
    let mut walk = Walk::new(&file, SALT, at[2] + 8, at[9], Access::Blocking);
    assert!(walk.next().is_err() && walk.skip_bad().expect("found") && walk.position() == at[3]);
    for _ in 3..9 {
        assert!(walk.next().expect("a frame").is_some());
    }
    assert!(walk.next().expect("the end").is_none(), "though more is there");
    let mut walk = Walk::new(&file, SALT, at[8] + 16, at[9], Access::Blocking);
    assert!(walk.next().is_err() && !walk.skip_bad().expect("looked"), "nor beyond it");
    let mut walk = Walk::new(&file, SALT, 1 << 30, at[9], Access::Blocking);
    assert!(walk.next().is_err() && !walk.skip_bad().expect("looked"), "from behind the end");
}

/// A disk takes seconds to report an unreadable sector. Once, it was read again for each small frame in the 16 KiB
/// before it.
#[test]
fn a_bad_sector_is_read_only_a_few_times() {
    let (sim, _, end) = file(&[40; 600]);
    sim.unreadable(Path::new(PATH), 40_960..45_056);
    let (good, met) = walked(&sim, end, Access::Blocking);
    assert!(good.len() > 550 && met.len() == 1, "{} {met:?}", good.len());
    let (_, failed) = sim.reads();
    assert!(failed < 12, "{failed} reads failed");
}

/// One in every few frames is damaged. Once, up to a MiB after each of them was read again.
#[test]
fn many_damaged_frames_cost_only_a_few_reads() {
    let (sim, at, end) = file(&[40; 8000]);
    let mut bytes = sim.files()[Path::new(PATH)].clone().expect("a file");
    (2..8000).step_by(4).for_each(|i| bytes[at[i] as usize + 90] ^= 1);
    sim.damage(Path::new(PATH), bytes);
    let (good, met) = walked(&sim, end, Access::Blocking);
    assert_eq!((good.len(), met.len()), (6000, 2000));
    let (read, _) = sim.reads();
    assert!(read < 4 * end, "{read} bytes read of {end}");
}
