//! Fuzz loops for everything that is read from the disk: a file of a data directory may contain any bytes.

use std::path::Path;

use protobuf::Message as _;

use crate::forming::StoredPledge;
use crate::forming::messages::Candidate;
use crate::fuzz::{Loop, Rng};
use crate::pb::v1 as pb;
use crate::storage::format::entry::{Entry, EntryKind, Stamp};
use crate::storage::format::frame::{self, Frame, HEADER_BYTES, Header, NoteKind, Position};
use crate::storage::format::index::{Index, Key};
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::payload::{self, RecordFields};
use crate::storage::format::segment_header::{SegmentHeader, segment_number};
use crate::storage::format::state::{Genesis, HardState, LogState, StoredLogState, TablesOrigin};
use crate::storage::format::state_file::StateFile;
use crate::storage::io::disk::Access;
use crate::storage::io::disk::Disk;
use crate::storage::io::disk::sim::Sim;
use crate::storage::io::node::NodeFile;
use crate::storage::io::pledge_file;
use crate::storage::read::walk::{Walk, WalkError};
use crate::storage::verify::{Severity, verify};
use crate::storage::write::log::GroupLog;
use crate::storage::write::log::tests::batch;
use crate::storage::write::options::LogOptions;
use crate::types::{GroupId, LogIndex, NodeId, NodeName, Offset, ReplicaId, Term};

const SALT: u64 = 0x0102_0304_0506_0708;
const AT: u64 = 128;
const HEADERS: &[(&str, &[u8])] = &[("a", b"1"), ("", b""), ("name", &[0xff; 40])];

/// Canonical records with stamps.
fn records() -> Vec<Vec<u8>> {
    let all = [
        RecordFields::default(),
        RecordFields { value: b"hello", ..RecordFields::default() },
        RecordFields {
            value: &[7; 300],
            kind: u32::MAX,
            key: Some(b""),
            headers: HEADERS,
            client_time_us: Some(u64::MAX),
        },
        RecordFields { value: b"", kind: 1, key: Some(b"k"), headers: &HEADERS[..1], client_time_us: Some(0) },
    ];
    let payload = |records: &[RecordFields<'_>]| {
        let mut bytes = Vec::new();
        for record in records {
            payload::encode_record(&mut bytes, record);
        }
        payload::stamp_records(&mut bytes, Offset(9), Term(2), 5).expect("canonical");
        bytes
    };
    (1..=all.len()).map(|n| payload(&all[..n])).chain([payload(&all[2..])]).collect()
}

fn frames() -> Vec<Vec<u8>> {
    let durable = Position { file: 1, at: AT };
    let note = Header::of_note(NoteKind::Synced, durable);
    let entry = Header { term: Term(2), index: LogIndex(3), base_offset: Offset(9), append_time_us: 5, ..note };
    let hard_state = HardState { term: Term(4), vote: Some(ReplicaId(5)), commit: LogIndex(6) };
    let (hard_state, vote) = hard_state.to_frame(durable);
    let records = &records()[2];
    let all: [(Header, &[u8]); 7] = [
        (Header { kind: EntryKind::Records.into(), count: 3, ..entry }, records),
        (Header { kind: EntryKind::Noop.into(), ..entry }, b""),
        (Header { kind: EntryKind::ConfChange.into(), ..entry }, &[0; 16]),
        (Header { kind: EntryKind::Trim.into(), ..entry }, &[1; 8]),
        (hard_state, &vote),
        (note, b""),
        (Header::of_note(NoteKind::Filler, durable), &[3; 21]),
    ];
    let encoded = all.iter().map(|(header, payload)| {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, SALT, AT, header, payload);
        bytes
    });
    encoded.collect()
}

#[test]
fn frame() {
    let mend = |bytes: &mut Vec<u8>, rng: &mut Rng| {
        if bytes.len() >= HEADER_BYTES {
            if rng.once_in(2) {
                // A multiple of eight bytes, and the length for it.
                bytes.truncate(bytes.len() / 8 * 8);
                let length = (bytes.len() - HEADER_BYTES) as u32;
                bytes[..4].copy_from_slice(&length.to_le_bytes());
            }
            frame::seal(bytes, SALT, AT);
        }
    };
    Loop::new("frame", frames()).mend(mend).run(|bytes| {
        let Ok(Frame { header, payload }) = frame::decode(bytes, SALT, AT) else { return false };
        let mut again = Vec::new();
        frame::encode(&mut again, SALT, AT, &header, payload);
        let behind = HEADER_BYTES + payload.len();
        if bytes[behind..].iter().all(|padding| *padding == 0) {
            assert!(again == bytes, "what was read is written again");
        }
        assert_eq!(frame::decode(&again, SALT, AT), Ok(Frame { header, payload }));
        let frame = Frame { header, payload };
        if let Some(entry) = frame.entry() {
            assert_eq!((entry.index, entry.term, &entry.payload()[..]), (header.index, header.term, payload));
            if let Ok(of_entry) = Header::of_entry(&entry, header.durable) {
                assert_eq!(of_entry, header);
            }
        } else if let Ok(hard_state) = HardState::of_frame(&frame) {
            assert_eq!(hard_state.commit, header.index);
        }
        true
    });
}

/// A walk over a file of frames that skips bad frames, as recovery does.
#[test]
fn walk() {
    let mut whole = Vec::new();
    for _ in 0..3 {
        for bytes in frames() {
            let Frame { header, payload } = frame::decode(&bytes, SALT, AT).expect("a frame");
            let at = AT + whole.len() as u64;
            frame::encode(&mut whole, SALT, at, &header, payload);
        }
    }
    let original = [vec![0; AT as usize], whole.clone()].concat();
    // The search for the next frame reads a mebibyte at once.
    Loop::new("walk", vec![whole]).memory_fixed(4 << 20).run(move |bytes| {
        let disk = Sim::default().disk();
        let path = Path::new("/f");
        let file = disk.create(path).expect("a file");
        file.write_at(AT, bytes).expect("written");
        let end = AT + bytes.len() as u64;
        let mut walk = Walk::new(&file, SALT, AT, end, Access::Blocking);
        let (mut last, mut good, mut steps) = (AT, 0, 0);
        loop {
            steps += 1;
            assert!(steps <= 2 + bytes.len() / 8 * 2, "it comes to an end");
            match walk.next() {
                Ok(None) => break,
                Ok(Some((at, frame))) => {
                    assert!(at >= last && at + frame::frame_bytes(frame.payload.len()) as u64 <= end);
                    let payload = &original[at as usize + HEADER_BYTES..][..frame.payload.len()];
                    assert_eq!(
                        frame.payload, payload,
                        "a checksum knows its position: it is the frame that was written"
                    );
                    last = at + HEADER_BYTES as u64;
                    good += 1;
                }
                Err(WalkError::Disk(error)) => panic!("{error}"),
                Err(WalkError::Newer(newer)) => panic!("only a forged checksum makes one: {newer}"),
                Err(WalkError::Bad { position, .. }) => {
                    assert!((last.min(position)..=end).contains(&position));
                    match walk.skip_bad() {
                        Ok(true) => assert!(walk.position() > position && walk.position() < end),
                        Ok(false) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                Err(WalkError::NotCached) => panic!("it blocks"),
            }
        }
        good > 0
    });
}

#[test]
fn segment_header() {
    let golden = include_bytes!("../../tests/golden/segment-header-v2.bin").to_vec();
    let mend = |bytes: &mut Vec<u8>, _: &mut Rng| SegmentHeader::seal(bytes);
    Loop::new("segment_header", vec![golden]).mend(mend).run(|bytes| {
        let Ok(header) = SegmentHeader::decode(bytes) else { return false };
        let again = header.encode();
        assert_eq!(SegmentHeader::decode(&again), Ok(header));
        assert_eq!(again[16..112], bytes[16..112]);
        // Recovery computes this too.
        let _ = header.base.index.next();
        true
    });
}

#[test]
fn segment_name() {
    let names = [&b"00000000000000000001.seg"[..], b"02305843009213693951.seg"];
    Loop::new("segment_name", names.map(<[u8]>::to_vec).into()).run(|bytes| {
        let Ok(name) = std::str::from_utf8(bytes) else { return false };
        let number = segment_number(name);
        if let Some(number) = number {
            assert_eq!(crate::storage::format::segment_header::segment_path(Path::new(""), number), Path::new(name));
        }
        number.is_some()
    });
}

#[test]
fn manifest() {
    let golden = include_bytes!("../../tests/golden/manifest-v2.bin").to_vec();
    let with_state_file = include_bytes!("../../tests/golden/manifest-v2-state.bin").to_vec();
    let mend = |bytes: &mut Vec<u8>, _: &mut Rng| Manifest::seal(bytes);
    Loop::new("manifest", vec![golden, with_state_file]).mend(mend).run(|bytes| {
        match Manifest::decode(bytes, Path::new("m")) {
            Ok(manifest) => {
                assert!(manifest.encode() == bytes, "what was read is written again");
                true
            }
            Err(error) => {
                assert!(error.is_damage() || error.is_config(), "{error}");
                false
            }
        }
    });
}

/// Corrects the checksum in the last line.
fn mend_lines(bytes: &mut Vec<u8>, _: &mut Rng) {
    if let Some(end) = bytes.windows(9).rposition(|part| part == b"crc32c = ") {
        bytes.truncate(end);
        let crc = crc32c::crc32c(bytes);
        bytes.extend_from_slice(format!("crc32c = \"{crc:08x}\"\n").as_bytes());
    }
}

#[test]
fn pledge_file() {
    let candidate = Candidate { id: NodeId(7), addr: "a:1".to_owned(), is_withdrawing: true };
    let pledge = StoredPledge { epoch: 3, candidate: Some(candidate) };
    let seeds = [pledge, StoredPledge::default()].map(|pledge| pledge_file::encode(&pledge).into_bytes());
    Loop::new("pledge_file", seeds.into()).mend(mend_lines).memory(400).run(|bytes| {
        let Ok(pledge) = pledge_file::decode(bytes, Path::new("p")) else { return false };
        let again = pledge_file::decode(pledge_file::encode(&pledge).as_bytes(), Path::new("p"));
        assert_eq!(again.expect("its own text"), pledge);
        true
    });
}

#[test]
fn node_file() {
    let node =
        NodeFile { cluster_name: Some("demo".to_owned()), cluster_id: Some(crate::types::ClusterId(7)), ..node() };
    Loop::new("node_file", vec![node.encode().into_bytes()]).mend(mend_lines).memory(400).run(|bytes| {
        let Ok(node) = NodeFile::decode(bytes, Path::new("n")) else { return false };
        assert_eq!(NodeFile::decode(node.encode().as_bytes(), Path::new("n")).expect("its own text"), node);
        true
    });
}

#[test]
fn stamp() {
    let stamp = Stamp {
        kind: EntryKind::Records,
        count: 2,
        base_offset: Offset(3),
        append_time_us: 4,
        producer_id: 5,
        sequence: 6,
    };
    let noop = Stamp { kind: EntryKind::Noop, count: 0, ..stamp };
    let seeds = vec![[&stamp.encode()[..], b"payload"].concat(), noop.encode().to_vec()];
    Loop::new("stamp", seeds).run(|bytes| {
        let entry = Entry { index: LogIndex(1), term: Term(1), data: bytes.to_vec().into() };
        let payload = entry.payload();
        assert_eq!(payload.len(), bytes.len().saturating_sub(Stamp::BYTES));
        let Ok(stamp) = entry.stamp() else { return false };
        assert!(stamp.encode() == bytes[..Stamp::BYTES] && stamp.end_offset().is_ok());
        true
    });
}

/// Canonical bytes are those that the encoder writes for the same fields. Any protobuf library can read them.
#[test]
fn payload() {
    Loop::new("payload", records()).memory(200).run(|bytes| {
        let mut stamped = bytes.to_vec();
        let count = payload::stamp_records(&mut stamped, Offset(9), Term(2), 5);
        let cut: Vec<_> = payload::records(bytes).collect();
        let Ok(count) = count else {
            assert!(payload::check_stamped(bytes, Offset(9), Term(2), 5, cut.len() as u32).is_err());
            return false;
        };
        assert_eq!(payload::check_stamped(&stamped, Offset(9), Term(2), 5, count), Ok(()));
        assert_eq!(cut.len(), count as usize);
        let read = pb::ConsumeResponse::parse_from_bytes(&stamped).expect("a protobuf");
        assert_eq!(read.records.len(), count as usize);
        let mut again = Vec::new();
        for (i, record) in read.records.iter().enumerate() {
            assert_eq!((record.offset, record.term, record.append_time_us), (9 + i as u64, 2, 5));
            let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|h| (&*h.name, &h.value[..])).collect();
            let key = record.key.as_deref();
            let client_time_us = record.client_time_us;
            let fields =
                RecordFields { value: &record.value, kind: record.type_, key, headers: &headers, client_time_us };
            payload::encode_record(&mut again, &fields);
        }
        payload::stamp_records(&mut again, Offset(9), Term(2), 5).expect("canonical");
        assert!(again == stamped, "there is one form");
        for record in payload::records(&stamped) {
            let record = record.expect("a record");
            assert_eq!(payload::record_time_us(record), Ok(5));
            assert!(payload::record_value(record).expect("a value").len() < record.len());
        }
        true
    });
}

#[test]
fn index() {
    let words: [u64; 13] = [u64::from_le_bytes(*b"SERIIDX2"), SALT, 2, 1 << 20, 0, 2, 0, 5, 128, 9, 40, 6, 20_000];
    let mut seed: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    Index::seal(&mut seed);
    let mend = |bytes: &mut Vec<u8>, rng: &mut Rng| {
        let entries = bytes.len().saturating_sub(40) / 32;
        bytes.truncate(40 + 32 * entries);
        if let Some(count) = bytes.get_mut(16..24).filter(|_| !rng.once_in(8)) {
            count.copy_from_slice(&(entries as u64).to_le_bytes());
        }
        Index::seal(bytes);
    };
    Loop::new("index", vec![seed]).mend(mend).run(|bytes| {
        let Ok(entries) = Index::decode(bytes, SALT) else { return false };
        assert!(entries.len() * 32 + 40 == bytes.len());
        assert!(entries.windows(2).all(|two| two[0].position < two[1].position && two[0].index < two[1].index));
        let index = Index::of(entries.clone());
        for key in [0, 5, 9, u64::MAX] {
            for key in [Key::Index(LogIndex(key)), Key::Offset(Offset(key))] {
                let at = index.position(key);
                assert!(at == AT || entries.iter().any(|entry| entry.position == at));
            }
        }
        true
    });
}

const DATA: &str = "/data";
const GROUP: GroupId = GroupId(3);

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096 }
}

fn node() -> NodeFile {
    NodeFile::new(NodeId(1), NodeName::new("a").expect("a name")).with_group(GROUP)
}

/// A disk with these files of a group, and `node.toml`.
fn disk_with(files: &[(String, Vec<u8>)]) -> Disk {
    let disk = Sim::default().disk();
    let dir = Path::new(DATA).join("groups").join(GROUP.to_string());
    for dir in [Path::new(DATA), &Path::new(DATA).join("groups"), &dir] {
        disk.create_dir(dir).expect("a directory");
    }
    disk.replace(&Path::new(DATA).join("node.toml"), node().encode().as_bytes()).expect("stored");
    for (name, bytes) in files {
        disk.create(&dir.join(name)).and_then(|file| file.write_at(0, bytes)).expect("a file");
    }
    disk
}

/// A small log of three segments, stopped cleanly: its manifest and its segments.
fn a_group() -> Vec<(String, Vec<u8>)> {
    let disk = disk_with(&[]);
    let groups = Path::new(DATA).join("groups");
    disk.remove_dir(&groups.join(GROUP.to_string())).expect("nothing there");
    GroupLog::create(&disk, &groups, GROUP, &options(), Genesis::founder(ReplicaId(1))).expect("made");
    let (mut log, _) = GroupLog::open(&disk, &groups, GROUP, &options()).expect("opened");
    for n in 0..16 {
        let value = [n; 500];
        log.append(&[batch(&log, 1, &[&value])]).expect("appended");
    }
    log.close().expect("closed");
    let dir = groups.join(GROUP.to_string());
    let mut names = disk.list(&dir).expect("listed").expect("a directory");
    names.sort();
    names.retain(|name| name == MANIFEST || segment_number(name).is_some());
    assert_eq!(names.len(), 4);
    let bytes = |name: &String| disk.read(&dir.join(name), 1 << 20).expect("read").expect("a file");
    names.iter().map(|name| (name.clone(), bytes(name))).collect()
}

/// Any file of a group is replaced by any bytes with correct checksums. A start refuses it, or serves its records.
/// `data verify` reports damage whenever a start refuses; if it reports no damage, all records can be read.
#[test]
fn group() {
    let files = a_group();
    let seeds = files.iter().enumerate().map(|(i, (_, bytes))| [&[i as u8], &bytes[..]].concat()).collect();
    let manifest = files.iter().position(|(name, _)| name == MANIFEST).expect("a manifest") as u8;
    let mend = move |bytes: &mut Vec<u8>, _: &mut Rng| {
        let Some((which, bytes)) = bytes.split_first_mut() else { return };
        if *which == manifest {
            return Manifest::seal(bytes);
        }
        SegmentHeader::seal(bytes);
        let Ok(header) = SegmentHeader::decode(bytes) else { return };
        let mut at = AT as usize;
        while let Some(length) =
            bytes.get(at..at + HEADER_BYTES).map(|head| crate::storage::format::entry::u32_at(head, 0))
        {
            let end = at.saturating_add(frame::frame_bytes(length as usize));
            let Some(frame) = bytes.get_mut(at..end).filter(|frame| frame[8] != 0) else { return };
            frame::seal(frame, header.salt, at as u64);
            at = end;
        }
    };
    Loop::new("group", seeds).mend(mend).memory_fixed(16 << 20).run(move |bytes| {
        let Some((which, bytes)) = bytes.split_first() else { return false };
        let mut files = files.clone();
        let which = usize::from(*which) % files.len();
        files[which].1 = bytes.to_vec();
        let disk = disk_with(&files);
        let report = verify(&disk, Path::new(DATA));
        let opened = GroupLog::open(&disk, &Path::new(DATA).join("groups"), GROUP, &options());
        match (report, opened) {
            (Err(report), Err(opened)) => {
                assert!(report.is_config() && opened.is_config(), "{report} {opened}");
                false
            }
            (Ok(report), Err(opened)) => {
                assert!(opened.is_damage() || opened.is_config(), "{opened}");
                let refused = if opened.is_damage() { Severity::Damage } else { Severity::Format };
                assert!(report.worst() >= Some(refused), "a start says {opened}");
                false
            }
            (Ok(report), Ok((log, found))) => {
                let reader = log.reader();
                let (from, until) = (found.base.offset, found.next_offset);
                let read = reader.records(from, until, u32::MAX, usize::MAX, Access::Blocking);
                let entries = reader.entries(found.base.index.next(), LogIndex(u64::MAX), u64::MAX, Access::Blocking);
                if report.worst() != Some(Severity::Damage) {
                    assert_eq!(report.groups[0].next_offset, Some(until));
                    assert_eq!(read.expect("no damage").next, until.max(from));
                    assert_eq!(entries.expect("no damage").len() as u64, found.last_index.0 - found.base.index.0);
                }
                true
            }
            (Err(report), Ok(_)) => panic!("a start takes what verify can't read: {report}"),
        }
    });
}

#[test]
fn log_state() {
    let log_state = LogState { first_offset: Offset(1), last_append_time_us: 2, ..LogState::default() };
    Loop::new("log_state", vec![log_state.encode()]).run(|bytes| {
        let Ok(log_state) = LogState::decode(bytes) else { return false };
        assert!(log_state.encode() == bytes);
        true
    });
}

#[test]
fn stored_log_state() {
    let tables = Some(TablesOrigin { index: LogIndex(3), in_file: true });
    let log_state = StoredLogState { first_offset: Offset(1), last_append_time_us: 2, tables };
    Loop::new("stored_log_state", vec![log_state.encode()]).run(|bytes| {
        let Ok(log_state) = StoredLogState::decode(bytes) else { return false };
        assert!(log_state.encode() == bytes);
        true
    });
}

#[test]
fn state_file() {
    let golden = include_bytes!("../../tests/golden/state-v1.bin").to_vec();
    let mend = |bytes: &mut Vec<u8>, _: &mut Rng| Manifest::seal(bytes);
    Loop::new("state_file", vec![golden]).mend(mend).memory_fixed(16 << 20).run(|bytes| {
        let Ok(state_file) = StateFile::decode(bytes, Path::new("s")) else { return false };
        let again = StateFile::decode(&state_file.encode(), Path::new("s")).expect("its own bytes");
        assert!(again == state_file);
        true
    });
}
