//! Silent disk corruption: the scrub of a running node detects it, `seriatim data verify` on a stopped node reports the same
//! place, and neither changes a byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use grpcio::RpcStatusCode as Code;

use crate::harness::{Cluster, eventually, outcome, record};

const SEGMENT: &str = "groups/1/00000000000000000001.seg";

#[test]
fn damage_is_found_by_the_scrub_and_by_verify() {
    let mut cluster = Cluster::start_with(1, &["--segment-bytes=64KiB", "--scrub-interval-seconds=1"]);
    let client = cluster.client(0);
    for n in 0..40 {
        client.produce("", vec![record(format!("record {n} {}", "x".repeat(5000)))]).expect("produces");
    }
    let data_dir = cluster.site.path().join(&client.get_node().expect("a node").name);
    let verify = |more: &[&str]| {
        let data_dir = data_dir.display().to_string();
        let all = [&["data", "verify", "--data-dir", &data_dir], more].concat();
        outcome(&cluster.site.command(&all).output().expect("runs"))
    };
    let (code, _, stderr) = verify(&[]);
    assert!(code == Some(78) && stderr.contains("in use by another process"), "{stderr}");

    let file = data_dir.join(SEGMENT);
    let bytes = fs::read(&file).expect("a segment");
    let at = bytes.windows(10).position(|part| part == b"record 3 x").expect("the record is stored");
    let write = |byte: u8| {
        let file = fs::OpenOptions::new().write(true).open(&file).expect("a segment");
        file.write_all_at(&[byte], at as u64).expect("written");
        file.sync_all().expect("synced");
    };
    write(b'R');
    let range = eventually("the scrub detects it", || {
        let node = client.get_node().map_err(|e| e.to_string())?;
        let group = node.groups.into_iter().find(|group| !group.log.is_empty()).ok_or("no group")?;
        group.damaged_ranges.first().cloned().ok_or_else(|| "nothing found yet".to_owned())
    });
    assert_eq!((range.first_offset, range.next_offset), (3, Some(4)));
    assert!(SEGMENT.ends_with(&range.file) && (range.position..range.position + range.bytes).contains(&(at as u64)));
    let lost = client.consume_at("", 3).expect_err("damaged");
    assert_eq!(lost.status().map(|status| status.code), Some(Code::DATA_LOSS));
    for intact in [2, 4, 39] {
        assert_eq!(client.consume_at("", intact).expect("the others are served").offset, intact);
    }
    client.produce("", vec![record("after the damage")]).expect("produces");
    let status = cluster.site.cli(&cluster.nodes[0].rpc_addr, &["status"]).output().expect("runs");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains(&format!("DAMAGED ON DISK: {} byte {}, record 3", range.file, range.position)), "{status}");
    assert!(
        cluster.nodes[0].log().contains("this node returns DATA_LOSS for record 3. "),
        "{}",
        cluster.nodes[0].log()
    );

    assert!(cluster.nodes[0].stop().success());
    let before = all_files(&data_dir);
    let (code, report, stderr) = verify(&[]);
    assert_eq!(code, Some(65), "{report}{stderr}");
    let line = format!("DAMAGE {SEGMENT} bytes {} to {}: ", range.position, range.position + range.bytes - 1);
    assert!(
        report.contains(&line) && report.contains("; unreadable: entry ") && report.contains(", record 3\n"),
        "{report}"
    );
    assert!(stderr.contains("damaged in 1 place;"), "{stderr}");
    write(bytes[at]);
    let (code, report, stderr) = verify(&["--json"]);
    assert!(code == Some(0) && report.contains("\"damaged\":false"), "{report}{stderr}");
    let after = all_files(&data_dir);
    let changed: Vec<_> =
        before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)).map(|(p, _)| p).collect();
    assert!(
        changed == [&file] && before.len() == after.len(),
        "only the byte that this test restored has changed: {changed:?}"
    );
    cluster.nodes[0].start_again();
    let client = cluster.client(0);
    eventually("the node serves every record", || client.consume_at("", 3).map(drop).map_err(|e| e.to_string()));
}

pub fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    files
}
