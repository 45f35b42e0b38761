//! Damages every byte of a small data directory, one at a time: flips or zeroes it, truncates the file there, extends
//! files, and removes every file and directory. Then it starts and reads everything. The result must be the same bytes,
//! or a refusal that names the file, and the position if the damage is inside the file. Derived files are rebuilt:
//! damage to an index changes no result.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::entries::entry;
use crate::storage::faults;
use crate::storage::format::entry::Entry;
use crate::storage::format::state::{Genesis, HardState, LogState, Recovered};
use crate::storage::io::disk::Access;
use crate::storage::io::disk::sim::{Rng, Sim};
use crate::storage::io::node::{DataDir, NodeFile};
use crate::storage::recover::tables::replay;
use crate::storage::write::log::GroupLog;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, NodeId, NodeName, Offset, ReplicaId, Term};

const HOME: &str = "/mnt/data";
/// The bytes by which a file is extended.
const LONGER: [usize; 4] = [1, 8, 80, 600];

/// How the node was stopped.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Stopped: its manifests contain the ends of the logs.
    Stopped,
    /// Killed after a second of idleness: the manifests contain the current durable position, too.
    Killed,
    /// Killed under load: only frames show that the newest records are synced.
    Busy,
}

/// Files and directories, by name.
type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// The contents of a directory.
#[derive(Debug, PartialEq)]
struct Held {
    node: Option<NodeFile>,
    groups: Vec<(Recovered, Vec<Entry>, Vec<Vec<u8>>)>,
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Bit(usize, usize),
    Byte(usize),
    Zero(usize),
    Cut(usize),
    Zeros(usize),
    Garbage(usize),
    Gone,
}

impl Damage {
    /// Returns the damaged bytes; `None` if the damage changes nothing.
    fn apply(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        match self {
            Damage::Bit(at, bit) => bytes[at] ^= 1 << bit,
            Damage::Byte(at) => bytes[at] ^= 0xff,
            Damage::Zero(at) if bytes[at] == 0 => return None,
            Damage::Zero(at) => bytes[at] = 0,
            Damage::Cut(at) => bytes.truncate(at),
            Damage::Zeros(more) => bytes.resize(bytes.len() + more, 0),
            Damage::Garbage(more) => (0..more).for_each(|i| bytes.push(i as u8 ^ 0x5a)),
            Damage::Gone => return None,
        }
        Some(bytes)
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4000 }
}

fn groups_dir() -> PathBuf {
    Path::new(HOME).join("groups")
}

/// Two groups with some segments each; one begins after a trim.
fn directory(end: End) -> Sim {
    let sim = Sim::default();
    let disk = sim.disk();
    let data = DataDir::open(&disk, Path::new(HOME)).expect("made");
    let groups = vec![GroupId::CATALOG, GroupId(1)];
    let mut rng = Rng(3);
    for group in &groups {
        let genesis = Genesis::founder(ReplicaId(1));
        GroupLog::create(&disk, &groups_dir(), *group, &options(), genesis).expect("made");
        let (mut log, found) = GroupLog::open(&disk, &groups_dir(), *group, &options()).expect("opened");
        let mut tables = found.log_state.tables;
        for time in 0..if group.0 == 0 { 6 } else { 26 } {
            let next = entry(log.last, Term(1 + time / 10), &mut rng, false, time);
            if group.0 > 0 {
                replay(&mut tables, *group, std::slice::from_ref(&next)).expect("applied");
            }
            log.append(&[next]).expect("appended");
            let commit = log.bounds().last_index;
            if time == 12 {
                // Truncated again, so that the index of a segment contains frames that are not part of the log any
                // more.
                for _ in 0..5 {
                    let next = entry(log.last, Term(2), &mut rng, true, time);
                    log.append(&[next]).expect("appended");
                }
                log.truncate_suffix(commit.next()).expect("cut");
            }
            let hard_state = HardState { term: log.bounds().last_term, vote: Some(ReplicaId(1)), commit };
            log.append_hard_state(&hard_state).expect("appended");
            log.set_applied(commit);
            let first_offset = log.log_state.first_offset;
            log.set_log_state(LogState { first_offset, last_append_time_us: time, tables: tables.clone() }, commit);
            if time == 16 {
                let first_offset = Offset(log.bounds().next_offset.0 / 2);
                log.set_log_state(LogState { first_offset, last_append_time_us: time, tables: tables.clone() }, commit);
                log.trim(first_offset, commit).expect("trimmed");
            }
            if time.is_multiple_of(5) || time == 25 {
                let job = log.begin_sync().expect("something to sync");
                job.perform(&disk).expect("synced");
                log.end_sync(job);
            }
        }
        match end {
            End::Stopped => log.close().expect("closed"),
            End::Killed | End::Busy => {
                let sync = |log: &mut GroupLog| {
                    let job = log.begin_sync().expect("something to sync");
                    job.perform(&disk).expect("synced");
                    let noted = job.manifest.is_some();
                    log.end_sync(job);
                    noted
                };
                // Append until the log extends beyond the manifest's durable position.
                for time in 30.. {
                    let next = entry(log.last, Term(9), &mut rng, false, time);
                    log.append(&[next]).expect("appended");
                    if !sync(&mut log) {
                        break;
                    }
                }
                if matches!(end, End::Killed) {
                    if let Some(job) = log.begin_note() {
                        job.perform(&disk).expect("noted");
                        log.end_sync(job);
                    }
                } else {
                    // Another hard state, equal to the previous one. Its frame contains the durable position, and may
                    // be lost.
                    let hard_state = log.hard_state;
                    log.append_hard_state(&hard_state).expect("appended");
                    sync(&mut log);
                }
            }
        }
    }
    let blank = NodeFile::new(NodeId(1), NodeName::new("a").expect("a name"));
    let node = groups.into_iter().fold(blank, NodeFile::with_group);
    data.store(&NodeFile { cluster_name: Some("demo".to_owned()), ..node }).expect("stored");
    drop(data);
    sim.kill();
    sim
}

/// Starts as a node does, and reads everything, or returns the error. The flag in the error is true if nothing was
/// served.
fn read(sim: &Sim, only: Option<&Path>) -> Result<Held, (String, bool)> {
    let disk = sim.disk();
    let refused = |error: &dyn std::fmt::Display| (error.to_string(), true);
    let data = DataDir::open(&disk, Path::new(HOME)).map_err(|e| refused(&e))?;
    let node = data.load().map_err(|e| refused(&e))?;
    let mut groups = Vec::new();
    for group in node.iter().flat_map(|node| node.groups.keys()) {
        let (log, mut found) = GroupLog::open(&disk, &groups_dir(), *group, &options()).map_err(|e| refused(&e))?;
        found.torn_bytes = 0;
        let (reader, failed) =
            (log.reader(), |error: crate::storage::read::error::ReadError| (error.to_string(), false));
        let (mut entries, mut records) = (Vec::new(), Vec::new());
        // Read record by record through the index where the damage is, and everything at once elsewhere.
        let here = only.is_none_or(|path| path.starts_with(groups_dir().join(group.to_string())));
        let (step, bytes) = if here { (1, 0) } else { (u64::MAX / 2, u64::MAX) };
        let mut low = found.base.index.next();
        while low <= found.last_index {
            let high = LogIndex(low.0 + step);
            let some = reader.entries(low, high, bytes, Access::Blocking).map_err(failed)?;
            low = LogIndex(low.0 + some.len() as u64);
            assert!(!some.is_empty(), "entry {low} of group {group} is silently missing");
            entries.extend(some);
        }
        let mut from = found.base.offset;
        while from < found.next_offset {
            let slice = reader.records(from, found.next_offset, step as u32, bytes as usize, Access::Blocking);
            let slice = slice.map_err(failed)?;
            assert!(slice.next > from, "record {from} of group {group} is silently missing");
            from = slice.next;
            let parts = crate::storage::format::payload::records(&slice.bytes);
            records.extend(parts.map(|record| record.expect("a record").to_vec()));
        }
        groups.push((found, entries, records));
    }
    Ok(Held { node, groups })
}

/// Applies one damage, and describes what is wrong with the result.
fn suffer(sim: &Sim, files: &Files, held: &Held, path: &Path, damage: Damage) -> Result<(), String> {
    let bytes = files[path].as_deref();
    let sim = sim.copy();
    let mut before = files.clone();
    match (bytes.and_then(|bytes| damage.apply(bytes)), damage) {
        (Some(bytes), _) => {
            sim.damage(path, bytes.clone());
            before.insert(path.to_owned(), Some(bytes));
        }
        (None, Damage::Gone) => {
            sim.lose(path);
            before.retain(|name, _| !name.starts_with(path));
            // A start creates this before it checks the directory.
            if path == Path::new(HOME).join("lock") || path == groups_dir() {
                before.insert(path.to_owned(), bytes.map(|_| Vec::new()));
            }
        }
        (None, _) => return Ok(()),
    }
    let told = catch_unwind(AssertUnwindSafe(|| read(&sim, Some(path))));
    let is_index = path.extension().is_some_and(|e| e == "idx");
    match told {
        Err(panic) => Err(format!("a panic: {:?}", panic.downcast_ref::<String>())),
        Ok(Ok(now)) if now == *held => Ok(()),
        Ok(Ok(now)) => Err(format!("other data: {now:?}")),
        Ok(Err((told, _))) if is_index => Err(format!("an index matters: {told}")),
        Ok(Err((told, at_start))) => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // Of a newer version's file only the first bytes are known, so the error contains no position.
            let placed = told.contains("byte ") || told.contains(" has format ");
            if !told.contains(&name) || !placed && bytes.is_some() && !matches!(damage, Damage::Gone) {
                return Err(format!("it does not name file and place: {told}"));
            }
            // Group 0 is opened before group 1 is refused, so its newest index is rebuilt.
            let changed = at_start && !told.contains("/groups/1") && sim.files() != before;
            if changed { Err(format!("refused, and changed: {told}")) } else { Ok(()) }
        }
    }
}

/// Damages one position in `stride`. Returns the number of damages and the failures, up to a limit.
pub fn sweep(end: End, stride: usize, wrong_max: usize) -> (usize, Vec<String>) {
    let sim = directory(end);
    let held = read(&sim.copy(), None).expect("it is whole");
    let all = sim.files();
    let files = || all.iter().filter(|(path, _)| *path != Path::new(HOME) && path.starts_with(HOME));
    let mut damages = Vec::new();
    for (path, bytes) in files() {
        damages.push((path, Damage::Gone));
        let Some(bytes) = bytes.as_deref() else { continue };
        let is_index = path.extension().is_some_and(|e| e == "idx");
        // In this case only the last frame of the newest segment proves that the others are synced. If it is cut off,
        // the loss can't be detected.
        let cuts = !matches!(end, End::Busy) || path.extension().is_none_or(|e| e != "seg");
        for at in (0..bytes.len()).step_by(stride) {
            for damage in [Damage::Bit(at, at % 8), Damage::Byte(at), Damage::Zero(at), Damage::Cut(at)] {
                if cuts || !matches!(damage, Damage::Cut(_)) {
                    damages.push((path, damage));
                }
            }
        }
        // Every bit of an index is damaged.
        for at in (0..bytes.len()).filter(|at| is_index && bytes[*at] != 0) {
            (0..8).for_each(|bit| damages.push((path, Damage::Bit(at, bit))));
        }
        for more in LONGER {
            damages.push((path, Damage::Zeros(more)));
            damages.push((path, Damage::Garbage(more)));
        }
    }
    let (fault, threads) = (faults::get(), 2);
    let part = |number: usize| {
        faults::set(fault);
        let mine = damages.iter().skip(number).step_by(threads);
        let wrong = mine.filter_map(|(path, damage)| {
            let wrong = suffer(&sim, &all, &held, path, *damage).err()?;
            Some(format!("{end:?}: {} {damage:?}: {wrong}", path.display()))
        });
        wrong.take(wrong_max).collect::<Vec<String>>()
    };
    let wrong = std::thread::scope(|scope| {
        let part = &part;
        let parts: Vec<_> = (0..threads).map(|number| scope.spawn(move || part(number))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
    });
    (damages.len(), wrong)
}

#[test]
fn no_damage_is_silent() {
    let whole = super::asked("SERIATIM_SWEEP", 0) == 1;
    for end in [End::Stopped, End::Killed, End::Busy] {
        let (damages, wrong) = sweep(end, if whole { 1 } else { 13 }, 8);
        assert!(damages > 5_000, "{damages}");
        assert!(wrong.is_empty(), "of {damages}: {wrong:#?}");
    }
}
