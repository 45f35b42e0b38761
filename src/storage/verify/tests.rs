//! `data verify` reports the file and the byte of all damage, and what a start would cut off. It changes nothing.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::storage::format::manifest::Manifest;
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::storage::format::state::Genesis;
use crate::storage::io::disk::Access;
use crate::storage::io::node::NodeFile;
use crate::storage::read::index_file::index_path;
use crate::storage::read::walk::Walk;
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::batch;
use crate::storage::write::options::LogOptions;
use crate::types::{LogIndex, NodeId, Offset};
use crate::types::{NodeName, ReplicaId};
use std::path::PathBuf;

pub(super) const SEGMENTS: usize = 4;

pub(super) struct Home {
    pub(super) dir: tempfile::TempDir,
    pub(super) disk: Disk,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 64 << 10 }
}

impl Home {
    /// A node with one group of four segments; stopped cleanly, or killed after its last sync, with more entries after
    /// that.
    pub(super) fn new(clean: bool) -> Home {
        let home = Home { dir: tempfile::tempdir().expect("a directory"), disk: Disk::real() };
        let data = DataDir::open(&home.disk, home.dir.path()).expect("a data directory");
        let genesis = Genesis::founder(ReplicaId(5));
        GroupLog::create(&home.disk, &data.groups_dir(), GroupId(3), &options(), genesis).expect("made");
        let node = NodeFile::new(NodeId(5), NodeName::new("n1").expect("a name")).with_group(GroupId(3));
        data.store(&node).expect("stored");
        let mut log = home.log();
        while home.segments().len() < SEGMENTS {
            home.append(&mut log);
        }
        home.append(&mut log);
        let job = log.begin_sync().expect("something to sync");
        job.perform(&home.disk).expect("synced");
        log.end_sync(job);
        if clean {
            log.close().expect("closed");
        } else {
            home.append(&mut log);
            home.append(&mut log);
        }
        home
    }

    pub(super) fn try_log(&self) -> Result<GroupLog, StorageError> {
        GroupLog::open(&self.disk, &self.dir.path().join("groups"), GroupId(3), &options()).map(|(log, _)| log)
    }

    fn log(&self) -> GroupLog {
        self.try_log().expect("opened")
    }

    /// Appends two records with about 11,000 bytes in total.
    fn append(&self, log: &mut GroupLog) {
        log.append(&[batch(log, 1, &[&[7; 5500], &[8; 5500]])]).expect("appended");
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("groups/3").join(name)
    }

    pub(super) fn manifest(&self) -> Manifest {
        Manifest::decode(&fs::read(self.path("manifest")).expect("a file"), Path::new("m")).expect("a manifest")
    }

    pub(super) fn segments(&self) -> Vec<String> {
        let mut names = self.disk.list(&self.path("")).expect("listed").expect("a directory");
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        names
    }

    pub(super) fn change(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).expect("a file");
        change(&mut bytes);
        fs::write(self.path(name), bytes).expect("written");
    }

    /// Checks the directory, and asserts that no byte of any file changes.
    pub(super) fn look(&self) -> Report {
        let before = all_files(self.dir.path());
        let report = verify(&self.disk, self.dir.path()).expect("a report");
        assert!(before == all_files(self.dir.path()), "nothing is changed");
        report
    }

    /// The positions of the frames of a segment.
    pub(super) fn frames(&self, name: &str) -> Vec<u64> {
        let file = self.disk.open(&self.path(name)).expect("a file");
        let bytes = fs::read(self.path(name)).expect("a file");
        let header = SegmentHeader::decode(&bytes).expect("a header");
        let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, bytes.len() as u64, Access::Blocking);
        let mut at = Vec::new();
        while let Ok(Some((position, _))) = walk.next() {
            at.push(position);
        }
        at
    }
}

pub(super) fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            files.extend(all_files(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    files
}

pub(super) fn told(report: &Report, severity: Severity) -> Vec<(String, u64, String)> {
    let told = report.findings.iter().filter(|f| f.severity == severity);
    told.map(|f| (f.file.file_name().expect("a name").to_string_lossy().into_owned(), f.position, f.to_string()))
        .collect()
}

#[test]
fn a_clean_directory() {
    let home = Home::new(true);
    let report = home.look();
    assert_eq!(report.findings, []);
    let next = home.log().bounds().next_offset;
    let group = &report.groups[0];
    assert_eq!((group.first_offset, group.next_offset, group.segments), (Offset(0), Some(next), SEGMENTS as u64));
    assert_eq!((group.entries, group.last_index), (next.0 / 2, LogIndex(1 + next.0 / 2)));
    assert!(group.log_bytes > next.0 * 5500 && group.file_bytes > group.log_bytes && group.torn_bytes == 0);
}

#[test]
fn a_torn_tail_is_not_damage() {
    let home = Home::new(false);
    let names = home.segments();
    let last = &names[SEGMENTS - 1];
    let frames = home.frames(last);
    let torn = frames[frames.len() - 1];
    assert_eq!(home.look().worst(), None, "valid, if never known to be synced");
    home.change(last, |bytes| bytes[torn as usize + 300] ^= 1);
    let report = home.look();
    let found = told(&report, Severity::Torn);
    assert!(found.len() == 1 && found[0].0 == *last && found[0].1 == torn, "{found:?}");
    assert_eq!(report.worst(), Some(Severity::Torn));
    let group = &report.groups[0];
    assert!(group.torn_bytes > 11_000, "{group:?}");
    let start = GroupLog::open(&home.disk, &home.dir.path().join("groups"), GroupId(3), &options()).expect("opened").1;
    assert_eq!((start.torn_bytes, Some(start.next_offset)), (group.torn_bytes, group.next_offset), "as a start says");
}

#[test]
fn every_flipped_byte_is_named() {
    let home = Home::new(true);
    for name in home.segments() {
        let frames = home.frames(&name);
        for (i, at) in frames.iter().enumerate() {
            // In its header, in its payload, in its padding's neighbourhood.
            for byte in [3, 20, 90, 5000] {
                home.change(&name, |bytes| bytes[*at as usize + byte] ^= 4);
                let found = told(&home.look(), Severity::Damage);
                assert!(
                    found.len() == 1 && found[0].0 == name && found[0].1 == *at,
                    "frame {i} byte {byte}: {found:?}"
                );
                home.change(&name, |bytes| bytes[*at as usize + byte] ^= 4);
            }
        }
    }
    assert_eq!(home.look().worst(), None);
}

#[test]
fn reports_all_damage_and_the_lost_records() {
    let home = Home::new(true);
    let names = home.segments();
    let (first, third) = (home.frames(&names[0]), home.frames(&names[2]));
    home.change(&names[0], |bytes| bytes[first[1] as usize + 100] ^= 1);
    home.change(&names[2], |bytes| bytes[third[0] as usize..third[2] as usize].fill(0));
    let report = home.look();
    let found = told(&report, Severity::Damage);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&found[0].0, found[0].1), (&names[0], first[1]));
    assert!(found[0].2.ends_with("; unreadable: entry 3, records 2 to 3"), "{found:?}");
    assert_eq!((&found[1].0, found[1].1), (&names[2], third[0]));
    assert!(found[0].2.starts_with(&format!("bytes {} to {}: ", first[1], first[2] - 1)), "{found:?}");
    assert!(found[1].2.starts_with(&format!("bytes {} to {}: ", third[0], third[2] - 1)), "{found:?}");
    assert!(found[1].2.contains("; unreadable: entries "), "{found:?}");
    let whole = report.groups[0].next_offset;
    assert_eq!(
        whole,
        Some(home.log().bounds().next_offset),
        "the end is known: a start reads from the durable on alone"
    );
}

/// Replaces a frame with another valid one.
fn forge(bytes: &mut [u8], at: usize, change: impl Fn(&mut crate::storage::format::frame::Header)) {
    let header = SegmentHeader::decode(bytes).expect("a header");
    let head: &[u8; 80] = bytes[at..].first_chunk().expect("a frame");
    let end = at + crate::storage::format::frame::peek_bytes(head, header.salt, at as u64).expect("a frame");
    let frame = crate::storage::format::frame::decode(&bytes[at..end], header.salt, at as u64).expect("a frame");
    let mut forged = frame.header;
    change(&mut forged);
    let mut out = Vec::new();
    crate::storage::format::frame::encode(&mut out, header.salt, at as u64, &forged, frame.payload);
    bytes[at..end].copy_from_slice(&out);
}

/// A frame that is valid but not the one that was written: a misdirected write, or a copy of another node's file.
#[test]
fn reports_a_replaced_frame_by_the_digest() {
    let home = Home::new(true);
    let (first, second) = (&home.segments()[0], &home.segments()[1]);
    let at = home.frames(first)[2] as usize;
    home.change(first, |bytes| forge(bytes, at, |header| header.producer_id += 1));
    let found = told(&home.look(), Severity::Damage);
    assert!(found.len() == 1 && found[0].0 == *second && found[0].2.contains("digest"), "{found:?}");
}

#[test]
fn reports_records_with_wrong_stamps() {
    let home = Home::new(true);
    let name = &home.segments()[0];
    let at = home.frames(name)[2] as usize;
    home.change(name, |bytes| forge(bytes, at, |header| header.append_time_us += 1));
    let found = told(&home.look(), Severity::Damage);
    assert!(found.len() == 1 && found[0].1 == at as u64 && found[0].2.contains("stamped otherwise"), "{found:?}");
}

#[test]
fn reports_missing_files() {
    for i in 0..SEGMENTS {
        let home = Home::new(true);
        let name = home.segments()[i].clone();
        fs::remove_file(home.path(&name)).expect("removed");
        let report = home.look();
        let found = told(&report, Severity::Damage);
        assert!(found.iter().any(|(file, ..)| *file == name), "{name}: {found:?}");
        assert_eq!(report.groups[0].segments, SEGMENTS as u64 - 1, "the others are read");
    }
    let home = Home::new(true);
    fs::remove_file(home.path("manifest")).expect("removed");
    assert_eq!(told(&home.look(), Severity::Damage)[0].0, "manifest");
    let home = Home::new(true);
    fs::remove_dir_all(home.path("")).expect("removed");
    assert!(told(&home.look(), Severity::Damage)[0].2.contains("directory of a group"));
    let home = Home::new(true);
    fs::remove_file(home.dir.path().join("node.toml")).expect("removed");
    let report = home.look();
    assert_eq!(told(&report, Severity::Damage)[0].0, "node.toml");
    assert_eq!(report.groups.len(), 1, "what is there is read");
}

#[test]
fn a_wrong_index_is_a_note() {
    let home = Home::new(true);
    let index = home.segments()[1].replace(".seg", ".idx");
    let whole = fs::read(home.path(&index)).expect("an index");
    for (case, change) in [
        ("an offset", Box::new(|bytes: &mut Vec<u8>| bytes[40] ^= 1) as Box<dyn Fn(&mut Vec<u8>)>),
        ("a position", Box::new(|bytes| bytes[56] ^= 8)),
        ("the salt", Box::new(|bytes| bytes[8] ^= 1)),
        ("its length", Box::new(|bytes| bytes.truncate(99))),
        ("zeros", Box::new(|bytes| bytes.fill(0))),
    ] {
        home.change(&index, change);
        let report = home.look();
        assert_eq!(report.worst(), Some(Severity::Note), "{case}");
        assert_eq!(told(&report, Severity::Note)[0].0, index, "{case}");
        fs::write(home.path(&index), &whole).expect("written");
    }
    fs::remove_file(home.path(&index)).expect("removed");
    assert!(told(&home.look(), Severity::Note)[0].2.contains("is missing"));
}

#[test]
fn leftovers_are_notes() {
    let home = Home::new(true);
    fs::write(home.path("00000000000000000099.seg"), b"").expect("a dead segment");
    fs::write(home.path("00000000000000000098.idx"), b"").expect("an index of nothing");
    fs::write(home.path("manifest.tmp"), b"half").expect("half a manifest");
    fs::write(home.path("notes.txt"), b"mine").expect("a stranger");
    fs::create_dir(home.dir.path().join("groups/8")).expect("an unlisted group");
    let report = home.look();
    let names: BTreeSet<String> = told(&report, Severity::Note).into_iter().map(|(name, ..)| name).collect();
    let expected = ["00000000000000000098.idx", "00000000000000000099.seg", "8", "manifest.tmp", "notes.txt"];
    assert_eq!(names, expected.map(str::to_owned).into());
    assert_eq!(report.worst(), Some(Severity::Note));
}

#[test]
fn foreign_used_and_missing_directories_are_refused() {
    let home = Home::new(true);
    let running = DataDir::open(&home.disk, home.dir.path()).expect("a node");
    assert!(matches!(verify(&home.disk, home.dir.path()), Err(StorageError::InUse { .. })));
    drop(running);
    let other = tempfile::tempdir().expect("a directory");
    assert_eq!(verify(&home.disk, other.path()).expect("blank").groups, []);
    assert!(all_files(other.path()).is_empty(), "no lock is made");
    assert!(verify(&home.disk, &other.path().join("nowhere")).is_err());
    fs::write(other.path().join("thesis.odt"), b"mine").expect("a file");
    assert!(matches!(verify(&home.disk, other.path()), Err(StorageError::ForeignDirectory { .. })));
}

/// A directory of the previous version. Its segments are valid, so this is neither damage nor a torn tail:
/// `data verify` and a start both name the file and its format, and change nothing.
#[test]
fn an_older_format_is_named_and_is_not_damage() {
    let home = Home::new(true);
    let old = include_bytes!("../../../tests/golden/segment-header-v1.bin");
    for segment in home.segments() {
        home.change(&segment, |bytes| bytes[..old.len()].copy_from_slice(old));
    }
    let before = all_files(home.dir.path());
    let report = home.look();
    assert_eq!((report.worst(), report.findings.len()), (Some(Severity::Format), SEGMENTS), "{report:?}");
    let error = home.try_log().err().expect("older");
    assert!(error.is_config() && !error.is_damage(), "{error:?}");
    let older = "format 1, older than what this version of seriatim reads (format 2)";
    assert!(error.to_string().contains(&format!(".seg has {older}")), "{error}");
    assert!(report.findings.iter().all(|finding| finding.what.starts_with(older)), "{report:?}");
    assert!(before == all_files(home.dir.path()), "nothing is changed");
}

/// Once, `data verify` named only one of two missing segments.
#[test]
fn each_missing_segment_is_named() {
    for gone in [vec![1, 2], vec![0, 2], vec![2, 3], vec![0, 1]] {
        let home = Home::new(true);
        let names = home.segments();
        for i in &gone {
            fs::remove_file(home.path(&names[*i])).expect("removed");
        }
        let found = told(&home.look(), Severity::Damage);
        for i in &gone {
            let of_it: Vec<_> = found.iter().filter(|(name, ..)| *name == names[*i]).collect();
            assert!(of_it.len() == 1 && !of_it[0].2.is_empty(), "{gone:?}: {found:?}");
        }
        assert!(found.iter().any(|(.., what)| what.contains("; unreadable: entries ")), "{gone:?}: {found:?}");
        assert_eq!(found.len(), gone.len(), "and nothing else: {found:?}");
    }
}

/// No later frame of a segment shows the records in its last frame, but the next segment does. Once, a loss there named
/// no records.
#[test]
fn a_loss_in_the_last_frame_names_its_records() {
    let home = Home::new(true);
    let names = home.segments();
    let frames = home.frames(&names[1]);
    let last = frames[frames.len() - 1];
    home.change(&names[1], |bytes| bytes[last as usize + 200] ^= 1);
    let found = told(&home.look(), Severity::Damage);
    assert!(found.len() == 1 && found[0].1 == last, "{found:?}");
    let bytes = fs::read(home.path(&names[2])).expect("a segment");
    let behind = SegmentHeader::decode(&bytes).expect("a header").base;
    let records = format!("records {} to {}", behind.offset.0 - 2, behind.offset.0 - 1);
    assert!(found[0].2.ends_with(&format!("; unreadable: entry {}, {records}", behind.index)), "{found:?}");
    // In the newest segment the manifest shows them.
    let (index, offset) = Home::new(true).manifest().durable_end;
    let home = Home::new(true);
    let frames = home.frames(&names[3]);
    let last = frames[frames.len() - 1];
    home.change(&names[3], |bytes| bytes[last as usize + 200] ^= 1);
    let found = told(&home.look(), Severity::Damage);
    let records = format!("records {} to {}", offset.0 - 2, offset.0 - 1);
    assert!(found.len() == 1 && found[0].1 == last, "{found:?}");
    assert!(found[0].2.ends_with(&format!("; unreadable: entry {index}, {records}")), "{found:?}");
}

/// Once, a pipe in the directory blocked `data verify` forever. A link to itself, a directory, or a sparse file of a
/// terabyte made it fail.
#[test]
fn other_kinds_of_files_stop_nothing() {
    let pipe = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    };
    let to_itself = |path: &Path| std::os::unix::fs::symlink(path, path).expect("a link");
    let directory = |path: &Path| fs::create_dir(path).expect("a directory");
    let sparse = |path: &Path| fs::File::create(path).expect("a file").set_len(1 << 40).expect("longer");
    let makes: [&dyn Fn(&Path); 4] = [&pipe, &to_itself, &directory, &sparse];
    for (i, make) in makes.iter().enumerate() {
        let look = |home: &Home| verify(&home.disk, home.dir.path()).expect("a report");
        let home = Home::new(true);
        make(&home.path("stranger"));
        make(&home.dir.path().join("groups/9"));
        assert_eq!(look(&home).worst(), Some(Severity::Note), "{i}");
        let names = home.segments();
        let instead = |name: &str| {
            let home = Home::new(true);
            fs::remove_file(home.path(name)).expect("removed");
            make(&home.path(name));
            home
        };
        let home = instead(&names[1].replace(".seg", ".idx"));
        assert_eq!(look(&home).worst(), Some(Severity::Note), "{i}: log_state");
        for name in ["manifest", &names[0], &names[1], &names[3]] {
            let report = look(&instead(name));
            let found = told(&report, Severity::Damage);
            assert!(found.iter().any(|(file, ..)| file == name), "{i}, {name}: {found:?}");
            assert_eq!(
                report.groups[0].segments,
                if name == "manifest" { 4 } else { 3 },
                "{i}, {name}: the others are read"
            );
        }
        let home = Home::new(true);
        fs::remove_file(home.dir.path().join("node.toml")).expect("removed");
        make(&home.dir.path().join("node.toml"));
        let report = look(&home);
        assert_eq!(told(&report, Severity::Damage)[0].0, "node.toml", "{i}");
        assert_eq!(report.groups.len(), 1, "{i}: what is there is read");
    }
    // A segment may be longer than its frames.
    let home = Home::new(true);
    let newest = &home.segments()[3];
    fs::OpenOptions::new().write(true).open(home.path(newest)).expect("a file").set_len(1 << 40).expect("longer");
    assert_eq!(verify(&home.disk, home.dir.path()).expect("a report").worst(), None);
}

/// Once, an I/O error on a file ended `data verify` without a result, and 4 unreadable KiB in the middle of a segment
/// were reported as damage at its first byte.
#[test]
fn reports_the_position_of_unreadable_bytes() {
    use crate::storage::io::disk::sim::Sim;
    let (groups, dir) = (Path::new("/mnt/data/groups"), Path::new("/mnt/data/groups/3"));
    let directory = || {
        let sim = Sim::default();
        let disk = sim.disk();
        let data = DataDir::open(&disk, Path::new("/mnt/data")).expect("made");
        GroupLog::create(&disk, groups, GroupId(3), &options(), Genesis::founder(ReplicaId(5))).expect("made");
        let (mut log, _) = GroupLog::open(&disk, groups, GroupId(3), &options()).expect("opened");
        while log.active.position().file < 4 {
            log.append(&[batch(&log, 1, &[&[7; 1500], &[8; 1500]])]).expect("appended");
        }
        log.close().expect("closed");
        let node = NodeFile::new(NodeId(5), NodeName::new("n1").expect("a name")).with_group(GroupId(3));
        data.store(&node).expect("stored");
        drop((data, log));
        sim.kill();
        sim
    };
    let look = |sim: &Sim| {
        let report = verify(&sim.disk(), Path::new("/mnt/data")).expect("a report");
        let segments = report.groups.first().map_or(0, |group| group.segments);
        (told(&report, Severity::Damage), segments)
    };
    for segment in 1..=3 {
        let sim = directory();
        let path = segment_path(dir, segment);
        sim.unreadable(&path, 20_480..24_576);
        let (found, segments) = look(&sim);
        assert!(segments == 4 && !found.is_empty() && found.len() <= 2, "{found:?}");
        let (name, at, what) = &found[0];
        assert!(path.ends_with(name) && (17_000..24_576).contains(at), "{found:?}");
        assert!(what.contains("Input/output error"), "{found:?}");
        assert!(found.iter().any(|(.., what)| what.contains("record")), "{found:?}");
    }
    for name in ["00000000000000000001.seg", "00000000000000000002.seg", "00000000000000000004.seg", "manifest"] {
        let sim = directory();
        sim.unreadable(&dir.join(name), 0..64);
        let (found, segments) = look(&sim);
        assert!(found.iter().any(|(file, _, what)| file == name && what.contains("Input/output")), "{found:?}");
        assert_eq!(segments, if name == "manifest" { 4 } else { 3 }, "{name}: the others are read");
    }
    let sim = directory();
    sim.unreadable(&index_path(dir, 2), 0..64);
    assert_eq!(look(&sim), (Vec::new(), 4), "an index is log_state");
    sim.unreadable(Path::new("/mnt/data/node.toml"), 0..64);
    let (found, segments) = look(&sim);
    assert!(segments == 4 && found[0].0 == "node.toml", "{found:?}");
}
