//! Each damage is one finding, with one byte range and the records in it. A file that can't be used does not hide
//! findings in other files.

use std::fs;

use super::tests::{Home, SEGMENTS, told};
use super::*;
use crate::forming::StoredPledge;
use crate::storage::format::manifest::{MANIFEST, Manifest};
use crate::storage::format::segment_header::SegmentHeader;
use crate::storage::format::state::Base;
use crate::storage::io::node::NodeFile;
use crate::types::{ClusterId, NodeId, NodeName};

fn bases(home: &Home) -> Vec<Base> {
    let header = |name: &String| SegmentHeader::decode(&fs::read(home.path(name)).expect("a file")).expect("a header");
    home.segments().iter().map(|name| header(name).base).collect()
}

/// The part of a finding about the entries and records between two positions.
fn unreadable(from: &Base, to: &Base) -> String {
    format!("; unreadable: {}", Unreadable::between(from, to))
}

fn durable_end(home: &Home) -> Base {
    let (index, offset) = home.manifest().durable_end;
    Base { index, offset, ..Base::default() }
}

/// Once, one flipped bit in the version of a segment header was reported as a newer format (exit code 78), and nothing
/// else was checked.
#[test]
fn a_damaged_version_of_a_segment_is_damage() {
    for i in 0..SEGMENTS {
        for bit in [0, 1, 3, 31] {
            let home = Home::new(true);
            let names = home.segments();
            home.change(&names[i], |bytes| bytes[8 + bit / 8] ^= 1 << (bit % 8));
            let other = (i + 1) % SEGMENTS;
            let at = home.frames(&names[other])[1];
            home.change(&names[other], |bytes| bytes[at as usize + 200] ^= 1);
            let report = home.look();
            let found = told(&report, Severity::Damage);
            assert_eq!(found.len(), 2, "{found:?}");
            let version = found.iter().find(|(name, ..)| *name == names[i]).expect("the version");
            assert!(version.2.starts_with("bytes 8 to 11: the version is damaged"), "{found:?}");
            assert!(found.iter().any(|(name, position, _)| *name == names[other] && *position == at), "{found:?}");
            assert_eq!((report.findings.len(), report.groups[0].segments), (2, SEGMENTS as u64));
        }
    }
}

#[test]
fn a_damaged_version_of_the_manifest_is_damage() {
    for bit in [0, 1, 3, 31] {
        let home = Home::new(true);
        let next = home.look().groups[0].next_offset;
        home.change(MANIFEST, |bytes| bytes[8 + bit / 8] ^= 1 << (bit % 8));
        let report = home.look();
        let found = told(&report, Severity::Damage);
        assert!(found.len() == 1 && found[0].2.starts_with("bytes 8 to 11: the version is damaged"), "{found:?}");
        assert_eq!(
            (report.groups[0].next_offset, report.groups[0].segments),
            (next, SEGMENTS as u64),
            "all is checked"
        );
    }
}

#[test]
fn a_damaged_format_of_node_toml_is_damage() {
    let home = Home::new(true);
    let node = home.dir.path().join("node.toml");
    let text = fs::read_to_string(&node).expect("a file");
    fs::write(&node, text.replace("format = 1", "format = 3")).expect("written");
    let report = home.look();
    let found = told(&report, Severity::Damage);
    assert!(found.len() == 1 && found[0].0 == "node.toml" && found[0].1 == 9, "{found:?}");
    assert_eq!(report.groups[0].segments, SEGMENTS as u64, "the groups are checked");
}

/// Once, the check ended at the first file with a newer format.
#[test]
fn a_newer_format_is_named_and_the_rest_is_checked() {
    for i in 0..SEGMENTS {
        let home = Home::new(true);
        let names = home.segments();
        home.change(&names[i], |bytes| {
            bytes[8] = 3;
            SegmentHeader::seal(bytes);
        });
        let report = home.look();
        assert_eq!(report.worst(), Some(Severity::Format), "segment {i}: {report:?}");
        let found = told(&report, Severity::Format);
        assert!(found.len() == 1 && found[0].0 == names[i] && found[0].2.contains("format 3, newer than"), "{found:?}");
        assert_eq!(report.groups[0].segments, SEGMENTS as u64 - 1, "segment {i}: {report:?}");
        let other = (i + 1) % SEGMENTS;
        let at = home.frames(&names[other])[1];
        home.change(&names[other], |bytes| bytes[at as usize + 200] ^= 1);
        let found = told(&home.look(), Severity::Damage);
        assert!(found.len() == 1 && found[0].0 == names[other] && found[0].1 == at, "segment {i}: {found:?}");
    }
    let home = Home::new(true);
    home.change(MANIFEST, |bytes| {
        bytes[8] = 9;
        Manifest::seal(bytes);
    });
    let node = home.dir.path().join("node.toml");
    let text = fs::read_to_string(&node).expect("a file");
    fs::write(&node, text.replace("format = 1\n", "format = 3\nnew = 1\n")).expect("written");
    let report = home.look();
    let found = told(&report, Severity::Format);
    assert!(found.len() == 2 && found[0].0 == "node.toml" && found[1].0 == MANIFEST, "{found:?}");
    assert_eq!((report.worst(), report.groups[0].segments), (Some(Severity::Format), SEGMENTS as u64));
}

/// The first and the newest segment have only one neighbour. Once, if one of them was missing, the finding named no
/// records.
#[test]
fn a_missing_segment_names_its_records() {
    let bases = bases(&Home::new(true));
    let newest = durable_end(&Home::new(true));
    let end = |i: usize| bases.get(i).copied().unwrap_or(newest);
    for (gone, first) in [(vec![0], 0), (vec![1], 1), (vec![3], 3), (vec![0, 1], 0), (vec![2, 3], 2)] {
        let home = Home::new(true);
        let names = home.segments();
        for i in &gone {
            fs::remove_file(home.path(&names[*i])).expect("removed");
        }
        let found = told(&home.look(), Severity::Damage);
        assert_eq!(found.len(), gone.len(), "{found:?}");
        let expected = unreadable(&bases[first], &end(first + gone.len()));
        let line = found.iter().find(|(name, ..)| *name == names[first]).expect("a finding");
        // Whether more was synced after the manifest was written is unknown.
        let more = if gone.contains(&3) { ", possibly more" } else { "" };
        assert!(line.2.ends_with(&format!("{expected}{more}")), "{gone:?}: {found:?}, not {expected}");
        if gone.len() == 2 {
            let other = found.iter().find(|(name, ..)| *name == names[first + 1]).expect("a finding");
            assert!(
                other.2.ends_with(&format!(
                    "its entries are among those named at {}{}",
                    names[first],
                    vote_lost(first + 1)
                )),
                "{found:?}"
            );
        }
    }
}

/// Once, one damage was reported with two record ranges ("lost: records a to b" and "up to byte n: records c to d").
#[test]
fn a_damage_has_one_byte_range_and_one_record_range() {
    let whole = Home::new(true);
    let (durable, end) = (whole.manifest().durable, durable_end(&whole));
    let name = whole.segments()[3].clone();
    let frames = whole.frames(&name);
    let base = bases(&whole)[3];
    // The file ends early; zeros from there on; a bad frame before valid ones.
    let from = frames[0];
    for (case, until) in [("cut", durable.at), ("zeros", durable.at), ("flipped", frames[1])] {
        let home = Home::new(true);
        home.change(&name, |bytes| match case {
            "cut" => bytes.truncate(from as usize),
            "zeros" => bytes[from as usize..].fill(0),
            _ => bytes[from as usize + 200] ^= 1,
        });
        let report = home.look();
        let found: Vec<_> = report.findings.iter().filter(|f| f.severity == Severity::Damage).collect();
        assert_eq!(found.len(), 1, "{case}: {found:?}");
        assert_eq!((found[0].position, found[0].end), (from, Some(until)), "{case}: {found:?}");
        let text = found[0].to_string();
        assert_eq!(text.matches("record").count(), 1, "{case}: {text}");
        if until == durable.at {
            assert!(text.ends_with(&format!("{}{}", vote_lost(3), unreadable(&base, &end))), "{case}: {text}");
        } else {
            assert!(text.ends_with(&two_records(&base)), "{case}: {text}");
        }
    }
}

/// The two records after a position.
fn two_records(base: &Base) -> String {
    format!("records {} to {}", base.offset, base.offset.0 + 1)
}

/// The hard state in the newest segment is stored nowhere else.
fn vote_lost(segment: usize) -> &'static str {
    if segment == SEGMENTS - 1 { "; a term and a vote may be lost" } else { "" }
}

/// Once, two files with swapped names were reported as "the segment has no valid header".
#[test]
fn swapped_segments_are_named_with_their_records() {
    for (a, b) in [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)] {
        let home = Home::new(true);
        let (names, bases, newest) = (home.segments(), bases(&home), durable_end(&home));
        let (path_a, path_b) = (home.path(&names[a]), home.path(&names[b]));
        fs::rename(&path_a, home.path("x")).expect("renamed");
        fs::rename(&path_b, &path_a).expect("renamed");
        fs::rename(home.path("x"), &path_b).expect("renamed");
        let report = home.look();
        let found = told(&report, Severity::Damage);
        assert_eq!(found.len(), 2, "{a} and {b}: {found:?}");
        for (i, other) in [(a, b), (b, a)] {
            let (_, position, line) = found.iter().find(|(name, ..)| *name == names[i]).expect("a finding");
            assert_eq!(*position, 24);
            assert!(line.contains(&format!("the number in the header is {}, not the one in", other + 1)), "{line}");
            assert!(
                line.contains(&format!("{} has the number of this file: the two files are swapped", names[other])),
                "{line}"
            );
            let to = bases.get(i + 1).copied().unwrap_or(newest);
            let more = if i == 3 { ", possibly more" } else { "" };
            assert!(line.ends_with(&format!("{}{more}", unreadable(&bases[i], &to))), "{a} and {b}: {line}");
        }
        assert_eq!(report.groups[0].segments, SEGMENTS as u64 - 2, "the others are read");
    }
}

/// Once, no segment was checked if the manifest was missing.
#[test]
fn segments_are_checked_without_a_manifest() {
    for what in ["missing", "empty", "damaged"] {
        let home = Home::new(true);
        match what {
            "missing" => fs::remove_file(home.path(MANIFEST)).expect("removed"),
            "empty" => fs::write(home.path(MANIFEST), b"").expect("cut"),
            _ => home.change(MANIFEST, |bytes| bytes[20] ^= 1),
        }
        let report = home.look();
        let found = told(&report, Severity::Damage);
        assert!(found.len() == 1 && found[0].0 == MANIFEST, "{found:?}");
        assert!(what == "damaged" || found[0].2 == format!("byte 0: the file is {what}"), "{found:?}");
        assert_eq!((report.findings.len(), report.groups[0].segments), (1, SEGMENTS as u64));
        let name = &home.segments()[1];
        let at = home.frames(name)[1];
        home.change(name, |bytes| bytes[at as usize + 200] ^= 1);
        let found = told(&home.look(), Severity::Damage);
        assert!(found.len() == 2 && found[1].0 == *name && found[1].1 == at, "{found:?}");
    }
}

/// A start of a blank node refuses a damaged pledge, and a member does not read it.
#[test]
fn a_damaged_pledge_of_a_blank_node_is_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Disk::real();
    let node = NodeFile::new(NodeId(7), NodeName::new("a").expect("a name"));
    let data = DataDir::open(&disk, dir.path()).expect("a data directory");
    data.store(&node).expect("stored");
    data.store_pledge(&StoredPledge::default()).expect("stored");
    drop(data);
    let found = || told(&verify(&disk, dir.path()).expect("a report"), Severity::Damage);
    assert_eq!(found(), []);
    fs::write(dir.path().join("pledge.toml"), "format = 1\n").expect("damaged");
    assert_eq!(found()[0].0, "pledge.toml");
    let member = NodeFile { cluster_id: Some(ClusterId(7)), ..node }.with_group(GroupId::CATALOG);
    DataDir::open(&disk, dir.path()).expect("a data directory").store(&member).expect("stored");
    assert!(found().iter().all(|(file, ..)| file != "pledge.toml"));
}
