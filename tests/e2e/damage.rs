//! Damage under a running node loses only the records that it hits: a damaged index does not stop reads, and a stream returns the
//! valid records before the damage and the offset at which to resume.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use grpcio::RpcStatusCode as Code;
use seriatim::pb::v1::{ConsumeRequest, Start};

use crate::harness::{Cluster, Site, eventually, outcome, record};
use crate::shim::{Fault, Shim};

const SEGMENT: &str = "groups/1/00000000000000000001.seg";

fn filled() -> Cluster {
    let cluster = Cluster::start_with(1, &["--segment-bytes=64KiB"]);
    let client = cluster.client(0);
    for n in 0..60 {
        client.produce("", vec![record(format!("record {n} {}", "x".repeat(3000)))]).expect("produces");
    }
    cluster
}

fn flip(file: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

/// One bad frame failed the whole read that contained it, and the records between the frame and the next index entry could not be
/// read.
#[test]
fn a_stream_returns_records_before_damage_and_the_offset_to_resume() {
    let cluster = filled();
    let client = cluster.client(0);
    let file = cluster.site.path().join(&client.get_node().expect("a node").name).join(SEGMENT);
    let bytes = fs::read(&file).expect("a segment");
    let at = |n: u64| {
        let wanted = format!("record {n} x");
        bytes.windows(wanted.len()).position(|part| part == wanted.as_bytes()).expect("the record is stored") as u64
    };
    flip(&file, at(5));
    flip(&file, at(6));
    for max_records in [0, 1000] {
        let request = ConsumeRequest {
            start: Start::START_EARLIEST.into(),
            max_records,
            stop_at_end: true,
            ..ConsumeRequest::default()
        };
        let stream = |offset: u64| {
            let start = Start::START_OFFSET.into();
            let mut got = Vec::new();
            for answer in
                client.consume_stream(&ConsumeRequest { offset, start, ..request.clone() }, None).expect("opens")
            {
                match answer {
                    Ok(answer) => got.extend(answer.records.iter().map(|r| r.offset)),
                    Err(error) => return (got, Some(error)),
                }
            }
            (got, None)
        };
        let (got, error) = stream(0);
        assert_eq!(got, [0, 1, 2, 3, 4]);
        let status = error.as_ref().and_then(|error| error.status()).expect("a status");
        assert_eq!((status.code, status.reason.as_str()), (Code::DATA_LOSS, "RECORD_DAMAGED"));
        let metadata = |key: &str| status.metadata.get(key).map(String::as_str);
        assert_eq!((metadata("offset"), metadata("resume_offset")), (Some("5"), Some("7")), "{}", status.message);
        assert!(status.message.starts_with("records 5 to 6 of log default are damaged"), "{}", status.message);
        let (got, error) = stream(7);
        assert!(error.is_none() && got == (7..60).collect::<Vec<u64>>(), "{got:?}");
    }
    let consume = |from: &str| {
        let args = ["consume", "--from", from];
        let output = cluster.site.cli(&cluster.nodes[0].rpc_addr, &args).output().expect("runs");
        let (code, stdout, stderr) = outcome(&output);
        (code, stdout.lines().count(), stderr)
    };
    let (code, lines, stderr) = consume("2");
    assert_eq!((code, lines), (Some(65), 3), "{stderr}");
    assert!(stderr.contains("records 5 to 6 of log default are damaged on this node"), "{stderr}");
    assert!(stderr.contains("`seriatim consume --from 7` continues after them"), "{stderr}");
    assert_eq!(consume("7").1, 53);
    // The read reported the damage once, without waiting for a scrub.
    let node = client.get_node().expect("a node");
    let group = node.groups.into_iter().find(|group| !group.log.is_empty()).expect("a group");
    let ranges: Vec<_> = group.damaged_ranges.iter().map(|r| (r.first_offset, r.next_offset)).collect();
    assert_eq!(ranges, [(5, Some(7))]);
    assert_eq!(
        cluster.nodes[0].log().matches("this node returns DATA_LOSS for").count(),
        1,
        "{}",
        cluster.nodes[0].log()
    );
}

/// Makes the frame of the first record with this text one of a kind that no version knows yet, with right checksums.
fn make_newer(file: &Path, text: &str) {
    let mut bytes = fs::read(file).expect("a segment");
    let wanted = bytes.windows(text.len()).position(|part| part == text.as_bytes()).expect("the record is stored");
    let length = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize;
    let (mut at, mut end) = (0, 128);
    while end <= wanted {
        (at, end) = (end, end + 80 + length(end).next_multiple_of(8));
    }
    bytes[at + 8] = 99;
    let seed = [&bytes[32..40], &(at as u64).to_le_bytes(), &bytes[at..at + 4]].concat();
    let checksum = |seed: u32, parts: [&[u8]; 2]| parts.iter().fold(seed, |crc, part| crc32c::crc32c_append(crc, part));
    let seed = crc32c::crc32c(&seed);
    let check = checksum(seed, [&bytes[at + 8..at + 9], &bytes[at + 12..at + 80]]).to_le_bytes();
    bytes[at + 9..at + 12].copy_from_slice(&check[..3]);
    let crc = checksum(seed, [&bytes[at + 8..end], &[]]).to_le_bytes();
    bytes[at + 4..at + 8].copy_from_slice(&crc);
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|file| file.write_all_at(&bytes[at..end], at as u64))
        .expect("written");
}

/// A record that a newer version wrote stopped the reading of everything up to the next index entry, and the command line did not
/// say what to do.
#[test]
fn a_stream_returns_records_around_one_of_a_newer_version() {
    let mut cluster = filled();
    let file = cluster.site.path().join(&cluster.client(0).get_node().expect("a node").name).join(SEGMENT);
    make_newer(&file, "record 5 x");
    let consume = |cluster: &Cluster, from: &str| {
        let args = ["consume", "--from", from];
        let (code, stdout, stderr) =
            outcome(&cluster.site.cli(&cluster.nodes[0].rpc_addr, &args).output().expect("runs"));
        (code, stdout.lines().count(), stderr)
    };
    for restarted in [false, true] {
        if restarted {
            assert!(cluster.nodes[0].stop().success());
            cluster.nodes[0].start_again();
            let client = cluster.client(0);
            eventually("the node serves again", || client.consume_at("", 3).map(drop).map_err(|e| e.to_string()));
        }
        let (code, lines, stderr) = consume(&cluster, "2");
        assert_eq!((code, lines), (Some(78), 3), "{stderr}");
        assert!(stderr.contains("can't read record 5 of log default, which a newer version wrote"), "{stderr}");
        assert!(stderr.contains("start a newer version of seriatim on that node"), "{stderr}");
        assert!(stderr.contains("`seriatim consume --from 6` continues after them"), "{stderr}");
        assert_eq!((consume(&cluster, "5").1, consume(&cluster, "6").1), (0, 54));
    }
    let node = cluster.client(0).get_node().expect("a node");
    assert!(node.groups.iter().all(|group| group.damaged_ranges.is_empty()), "it is not damage: {node:?}");
    let told = "contains at byte";
    assert!(cluster.nodes[0].log().contains(told), "{}", cluster.nodes[0].log());
}

/// An index file that was truncated while it was mapped killed the process at every read of the segment, without a log line.
#[test]
fn a_damaged_index_does_not_stop_reads() {
    let mut cluster = filled();
    let index = cluster.site.path().join(&cluster.client(0).get_node().expect("a node").name).join(SEGMENT);
    let index = index.with_extension("idx");
    let read_all = |cluster: &Cluster| {
        let client = cluster.client(0);
        for offset in 0..60 {
            assert_eq!(client.consume_at("", offset).expect("served").offset, offset);
        }
    };
    read_all(&cluster);
    let truncate =
        |bytes| fs::OpenOptions::new().write(true).open(&index).expect("an index").set_len(bytes).expect("cut");
    for bytes in [50, 0, 1 << 40] {
        truncate(bytes);
        read_all(&cluster);
    }
    assert!(cluster.nodes[0].stop().success());
    truncate(10);
    cluster.nodes[0].start_again();
    let client = cluster.client(0);
    eventually("the node serves again", || client.consume_at("", 3).map(drop).map_err(|e| e.to_string()));
    read_all(&cluster);
    assert!(fs::metadata(&index).expect("rebuilt").len() > 40);
}

/// A bad sector in the index of a sealed segment killed the process; one in the segment itself failed the whole read.
#[test]
fn a_bad_sector_loses_only_its_own_records() {
    let site = Site::new();
    let shim = Shim::compile(&site);
    let dir = site.path().join("n1");
    let mut cluster = Cluster::start_at(site, 1, &["--segment-bytes=64KiB"], |_| shim.env(&dir, None, 7));
    let client = cluster.client(0);
    for n in 0..60 {
        client.produce("", vec![record(format!("record {n} {}", "x".repeat(3000)))]).expect("produces");
    }
    // After a restart, no sealed segment is open.
    assert!(cluster.nodes[0].stop().success());
    cluster.nodes[0].start_again();
    let client = cluster.client(0);
    eventually("the node serves again", || client.consume_at("", 59).map(drop).map_err(|e| e.to_string()));
    let injected = || {
        let control = dir.with_extension("control");
        eventually("the shim reads its control file", || {
            if control.exists() { Err("not yet".to_owned()) } else { Ok(()) }
        });
    };
    shim.inject(&dir, &Fault::ReadError("groups/1/00000000000000000001.idx", 0));
    injected();
    for offset in 0..60 {
        assert_eq!(client.consume_at("", offset).expect("served").offset, offset);
    }
    shim.inject(&dir, &Fault::ReadError("groups/1/00000000000000000001.seg", 8));
    injected();
    let lost = (0..60).filter(|offset| match client.consume_at("", *offset) {
        Ok(record) => {
            assert_eq!(record.offset, *offset);
            false
        }
        Err(error) => {
            assert_eq!(error.status().map(|status| status.code), Some(Code::DATA_LOSS), "{error}");
            true
        }
    });
    let lost: Vec<u64> = lost.collect();
    assert!((1..=3).contains(&lost.len()), "a block of 4 KiB hits at most three records of 3 KB: {lost:?}");
    let request = ConsumeRequest { max_records: 1000, stop_at_end: true, ..ConsumeRequest::default() };
    let mut got = 0;
    let mut failed = None;
    for answer in client.consume_stream(&request, None).expect("opens") {
        match answer {
            Ok(answer) => got += answer.records.len() as u64,
            Err(error) => failed = error.status().cloned(),
        }
    }
    let failed = failed.expect("a status");
    let metadata = |key: &str| failed.metadata.get(key).and_then(|offset| offset.parse().ok());
    let (first, resume) = (lost[0], lost[lost.len() - 1] + 1);
    assert_eq!(
        (got, metadata("offset"), metadata("resume_offset")),
        (first, Some(first), Some(resume)),
        "{}",
        failed.message
    );
    assert!(cluster.nodes[0].log().contains("Input/output error"), "{}", cluster.nodes[0].log());
    assert!(cluster.nodes[0].stop().success());
}
