//! Bad blocks at the end of the newest segment: acknowledged records are not mistaken for a torn tail, whether the node was idle
//! or under load. `docs/RELIABILITY.md` contains the figures that these tests measure.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use seriatim::client::Client;
use seriatim::pb::v1::GroupStatus;
use seriatim::storage::log::{NOTE_BYTES, NOTE_EVERY};

use crate::harness::{Cluster, eventually, print_uncaptured, read_all, record};

const SEGMENT: &str = "groups/1/00000000000000000001.seg";
const SECTOR: usize = 512;

fn status(client: &Client) -> Result<GroupStatus, String> {
    let node = client.get_node().map_err(|e| e.to_string())?;
    node.groups.into_iter().find(|group| !group.log.is_empty()).ok_or("no group".into())
}

/// Waits until the manifest's durable position covers the whole log.
fn wait_until_protected(client: &Client) {
    eventually("the whole log is protected", || match status(client)?.unprotected_bytes {
        0 => Ok(()),
        bytes => Err(format!("{bytes} bytes are not")),
    });
}

/// A single node acknowledges 2,000 records, is idle for seconds, and is killed. Then the last sector or the last 4 or 64 KiB of
/// its segment are zeroed, or its last sectors are cut off. The start logged "were never synced: cut off", and reused
/// the offsets; `data verify` reported "torn", exit code 0.
#[test]
fn a_bad_block_in_acknowledged_records_is_damage_not_a_torn_tail() {
    let mut cluster = Cluster::start(1);
    let client = cluster.client(0);
    for n in 0..2000 / 50 {
        let records = (0..50).map(|i| record(format!("record {}", 50 * n + i))).collect();
        client.produce("", records).expect("produces");
    }
    wait_until_protected(&client);
    cluster.nodes[0].kill();
    let data_dir = cluster.site.path().join("n1");
    let file = data_dir.join(SEGMENT);
    let whole = fs::read(&file).expect("a segment");
    let used = (whole.iter().rposition(|byte| *byte != 0).expect("frames") / SECTOR + 1) * SECTOR;
    let zeroed = |bytes: usize| [&whole[..used - bytes], &vec![0; whole.len() - used + bytes]].concat();
    let mut damages: Vec<(String, Vec<u8>)> =
        [SECTOR, 4 << 10, 64 << 10].map(|bytes| (format!("the last {bytes} bytes zeroed"), zeroed(bytes))).into();
    damages.extend((1..=5).map(|n| (format!("{n} sectors cut off"), whole[..used - n * SECTOR].to_vec())));
    for (what, bytes) in damages {
        fs::write(&file, &bytes).expect("written");
        // The log takes no part, so no offset is reused. The node itself runs.
        cluster.nodes[0].start_again();
        let client = cluster.client(0);
        let damage = status(&client).expect("a status").damage;
        assert!(damage.contains(SEGMENT) && damage.contains("the durable position: lost: "), "{what}: {damage}");
        // If the last sector contains only the last commit index, no record is lost with it.
        assert!(damage.contains("to 1999") || damage.contains("lost: perhaps a term and a vote"), "{what}: {damage}");
        assert!(cluster.nodes[0].log().contains(&damage), "{what}: it is logged");
        let refused = client.produce("", vec![record("x")]).expect_err("nothing is appended");
        assert_eq!(refused.status().map(|status| status.reason.as_str()), Some("REPLICA_DAMAGED"), "{what}: {refused}");
        // What is sound stays readable.
        assert_eq!(client.consume_at("", 0).expect("served").offset, 0, "{what}");
        let refused = client.consume_at("", 2000).expect_err("nothing more becomes visible");
        assert_eq!(refused.status().map(|status| status.reason.as_str()), Some("REPLICA_DAMAGED"), "{what}: {refused}");
        assert!(cluster.nodes[0].stop().success());
        let output = cluster.site.command(&["data", "verify", "--data-dir", &data_dir.display().to_string()]).output();
        let output = output.expect("runs");
        let report = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(65), "{what}: {report}");
        assert!(report.contains(&format!("DAMAGE {SEGMENT} byte")), "{what}: {report}");
        assert_eq!(fs::read(&file).expect("a segment"), bytes, "nothing was changed");
    }
    fs::write(&file, &whole).expect("written");
    cluster.nodes[0].start_again();
    assert_eq!(read_all(&cluster.client(0)).len(), 2000);
}

/// Measures under steady load how many acknowledged bytes are above the manifest's durable position, and for how long.
#[test]
fn unprotected_bytes_and_time_stay_bounded_under_load() {
    let cluster = Cluster::start(1);
    let client = cluster.client(0);
    let manifest = cluster.site.path().join("n1/groups/1/manifest");
    let value = vec![7; 1 << 18];
    let (mut bytes_max, mut age_max, mut produced) = (0, Duration::ZERO, 0);
    let mut load = |records: usize, until: Instant, pause: Duration| {
        let (mut position, mut changed_at) = (durable(&manifest), Instant::now());
        while Instant::now() < until {
            client.produce("", vec![record(&value); records]).expect("produces");
            produced += 1;
            bytes_max = bytes_max.max(status(&client).expect("a status").unprotected_bytes);
            let now = durable(&manifest);
            if now != position {
                (position, changed_at) = (now, Instant::now());
            }
            age_max = age_max.max(changed_at.elapsed());
            // The interval between requests.
            std::thread::park_timeout(pause);
        }
    };
    // At full speed the limit in bytes applies; under a slow load that is never idle, the limit in seconds.
    load(8, Instant::now() + Duration::from_secs(4), Duration::ZERO);
    load(1, Instant::now() + 2 * NOTE_EVERY, Duration::from_millis(200));
    print_uncaptured(&format!(
        "unprotected under load: {bytes_max} bytes at most, for {age_max:.1?} at most ({produced} requests of up to 2 MiB)"
    ));
    // One group commit may exceed the limit in bytes, and a slow machine the limit in seconds.
    assert!(bytes_max < NOTE_BYTES + (8 << 20), "{bytes_max} bytes");
    assert!(age_max < 2 * NOTE_EVERY, "{age_max:?}");
    let began = Instant::now();
    wait_until_protected(&client);
    print_uncaptured(&format!("unprotected after the last record: for {:.1?}", began.elapsed()));
    let written = fs::metadata(&manifest).expect("a manifest").modified().expect("a time");
    // An idle log does not write the manifest again: it is unchanged after many heartbeats and ticks.
    let applied = status(&client).expect("a status").applied_index;
    let idle = Instant::now() + Duration::from_secs(3);
    eventually("some idle seconds pass", || (Instant::now() > idle).then_some(()).ok_or("not yet".into()));
    assert_eq!(fs::metadata(&manifest).expect("a manifest").modified().expect("a time"), written, "written once");
    assert_eq!(status(&client).expect("a status").applied_index, applied);
}

/// Returns the bytes of the durable position in the manifest.
fn durable(manifest: &Path) -> Vec<u8> {
    fs::read(manifest).ok().and_then(|bytes| bytes.get(72..88).map(<[u8]>::to_vec)).unwrap_or_default()
}
