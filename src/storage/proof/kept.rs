//! A data directory that an older version wrote (`tests/golden/data-dir`). This version must start with it, read all of
//! it and continue it. It must also encode everything in it to the same bytes, so that the older version could start
//! with it again.
//!
//! The directory was written by commit 86ed53a: a single node, killed while it ran. Its log has two segments, a trim
//! below record 2, three terms, records with all fields, and frames above the manifest's durable position.

use std::fs;
use std::path::{Path, PathBuf};

use crate::storage::format::frame::{self, FrameKind};
use crate::storage::format::index::Index;
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::payload::{record_value, records};
use crate::storage::format::segment_header::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_path};
use crate::storage::io::disk::{Access, Disk};
use crate::storage::io::node::{DataDir, NODE_FILE, NodeFile};
use crate::storage::read::index_file::index_path;
use crate::storage::read::walk::{Walk, WalkError};
use crate::storage::recover::unlisted::check_groups;
use crate::storage::verify::{Severity, verify};
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::append;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, Offset, Term};

const LOG: GroupId = GroupId(1);
const OPTIONS: LogOptions = LogOptions { segment_bytes: 64 << 10 };

fn kept() -> PathBuf {
    crate::golden::folder().join("data-dir")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// The values of the log's records from 2 on.
fn values() -> Vec<Vec<u8>> {
    let mut values = vec![b"line 3".to_vec(), b"value".to_vec(), vec![b'x'; 40_000], vec![b'y'; 40_000]];
    values.extend((1..=20).map(|i| format!("after {i}").into_bytes()));
    values.extend((1..=3).map(|i| format!("last {i}").into_bytes()));
    values
}

fn stored(log: &GroupLog) -> Vec<Vec<u8>> {
    let until = log.bounds().next_offset;
    let slice = log.reader().records(Offset(2), until, u32::MAX, usize::MAX, Access::Blocking).expect("records");
    records(&slice.bytes).map(|record| record_value(record.expect("canonical")).expect("a value").to_vec()).collect()
}

#[test]
fn starts_with_the_directory_of_an_older_version_and_continues_it() {
    let (home, disk) = (tempfile::tempdir().expect("a directory"), Disk::real());
    copy(&kept(), home.path());
    let report = verify(&disk, home.path()).expect("checked");
    assert!(report.worst() < Some(Severity::Torn), "{report:?}");
    let data = DataDir::open(&disk, home.path()).expect("ours");
    let node = data.load().expect("readable").expect("not blank");
    let groups: Vec<GroupId> = node.groups.keys().copied().collect();
    assert_eq!((node.node_name.to_string(), groups), ("golden".to_owned(), vec![GroupId::CATALOG, LOG]));
    check_groups(&data, Some(&node)).expect("all are listed");
    for group in node.groups.keys() {
        let (log, found) = GroupLog::open(&disk, &data.groups_dir(), *group, &OPTIONS).expect("recovered");
        assert_eq!((found.torn_bytes, found.last_term, found.hard_state.term), (0, Term(3), Term(3)), "{group}");
        let all = log.reader().entries(LogIndex(2), found.last_index.next(), u64::MAX, Access::Blocking);
        assert_eq!(all.expect("entries").len() as u64, found.last_index.0 - 1, "{group}");
    }
    let (mut log, found) = GroupLog::open(&disk, &data.groups_dir(), LOG, &OPTIONS).expect("recovered");
    assert_eq!((found.log_state.first_offset, found.next_offset), (Offset(2), Offset(29)));
    assert_eq!(stored(&log), values());
    // Enough to begin a new segment.
    for _ in 0..30 {
        append(&mut log, 4, &[&[b'n'; 3000], b"new"]);
    }
    log.close().expect("closed");
    drop(log);
    let (log, found) = GroupLog::open(&disk, &data.groups_dir(), LOG, &OPTIONS).expect("recovered");
    assert_eq!((found.next_offset, found.last_term), (Offset(89), Term(4)));
    let stored = stored(&log);
    assert_eq!((&stored[..27], &stored[86][..]), (&values()[..], &b"new"[..]));
    drop(data);
    assert!(verify(&disk, home.path()).expect("checked").worst() < Some(Severity::Torn));
}

#[test]
fn encodes_the_directory_of_an_older_version_to_the_same_bytes() {
    let (kept, disk) = (kept(), Disk::real());
    let text = fs::read(kept.join(NODE_FILE)).expect("a file");
    let node = NodeFile::decode(&text, Path::new(NODE_FILE)).expect("a node file");
    assert_eq!(node.encode().as_bytes(), text);
    let mut kinds = Vec::new();
    for (group, segments) in [(GroupId::CATALOG, 1..=1), (LOG, 1..=2)] {
        let dir = kept.join("groups").join(group.to_string());
        let bytes = fs::read(dir.join(MANIFEST)).expect("a file");
        assert!(Manifest::decode(&bytes, Path::new(MANIFEST)).expect("a manifest").encode() == bytes, "{group}");
        for number in segments {
            let bytes = fs::read(segment_path(&dir, number)).expect("a file");
            let header = SegmentHeader::decode(&bytes).expect("a header");
            let mut again = header.encode().to_vec();
            let file = disk.open_to_read(&segment_path(&dir, number)).expect("opened").expect("a file");
            let mut walk = Walk::new(&file, header.salt, SEGMENT_HEADER_BYTES, bytes.len() as u64, Access::Blocking);
            loop {
                match walk.next() {
                    Ok(Some((at, frame))) => {
                        kinds.push(frame.header.kind.code());
                        if let FrameKind::Entry(_) = frame.header.kind {
                            let entry = frame.entry().expect("an entry");
                            let stamped = frame::Header::of_entry(&entry, frame.header.durable).expect("stamped");
                            frame::encode(&mut again, header.salt, at, &stamped, &entry.payload());
                        } else {
                            frame::encode(&mut again, header.salt, at, &frame.header, frame.payload);
                        }
                    }
                    Ok(None) | Err(WalkError::Bad { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(again.len() > 300, "frames");
            assert!(bytes.starts_with(&again), "segment {number} of {group}");
            assert!(bytes[again.len()..].iter().all(|byte| *byte == 0), "nothing follows the frames");
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, [1, 2, 4, 5], "records, no-ops, trims and hard states");
    let dir = kept.join("groups/1");
    let header = SegmentHeader::decode(&fs::read(segment_path(&dir, 1)).expect("a file")).expect("a header");
    let newer = SegmentHeader::decode(&fs::read(segment_path(&dir, 2)).expect("a file")).expect("a header");
    let bytes = fs::read(index_path(&dir, 1)).expect("a file");
    let index = Index::of(Index::decode(&bytes, header.salt).expect("an index"));
    assert_eq!(index.encode(header.salt, newer.predecessor.at), bytes);
}
