//! Frames of a small cluster as text.

use std::time::{Duration, Instant};

use super::*;
use crate::pb::v1::{Bucket, DiskStatus, Histogram, Metric, Replica, Server};

fn metric(name: &str, value: u64) -> Metric {
    let mut metric = Metric { name: name.into(), ..Metric::default() };
    metric.set_counter(value);
    metric
}

fn cursor(name: &str, lag: i64) -> Metric {
    let mut metric = Metric { name: "seriatim_cursor_lag_records".into(), ..Metric::default() };
    metric.labels.insert("cursor".into(), name.into());
    metric.set_gauge(lag);
    metric
}

fn syncs(count: u64) -> Metric {
    let mut metric = Metric { name: "seriatim_sync_seconds".into(), ..Metric::default() };
    let bucket = |(upper_bound, count)| Bucket { upper_bound, count, ..Bucket::default() };
    let buckets = [(0.0016, count), (f64::INFINITY, count)].into_iter().map(bucket).collect();
    metric.set_histogram(Histogram { count, sum: 1.0, buckets, ..Histogram::default() });
    metric
}

fn group(log: &str, role: Role, records: u64) -> GroupStatus {
    let replica = |name: &str| Replica { name: name.into(), is_voter: true, ..Replica::default() };
    GroupStatus {
        log: log.into(),
        role: role.into(),
        term: 3,
        leader: "n1".into(),
        commit_index: records + 2,
        applied_index: records + 2,
        next_offset: records,
        stored_bytes: records * 100,
        replicas: vec![replica("n1"), replica("n2")],
        ..GroupStatus::default()
    }
}

/// Two nodes that have appended that many records to `default`, and a third one that does not answer.
fn sample(taken: Instant, records: u64) -> Sample {
    let server = |id: &str| Server { id: id.into(), node_id: format!("id-{id}"), ..Server::default() };
    let node = |id: &str, role, metrics| GetNodeResponse {
        name: id.into(),
        node_id: format!("id-{id}"),
        cluster_name: "demo".into(),
        disk: Some(DiskStatus { free_bytes: 3 << 30, total_bytes: 4 << 30, ..DiskStatus::default() }).into(),
        groups: vec![group("", role, 0), group("default", role, records), group("audit", role, 7)],
        metrics,
        ..GetNodeResponse::default()
    };
    let leads = vec![
        metric("seriatim_appended_records_total", records),
        metric("seriatim_appended_bytes_total", records * 90),
        metric("seriatim_read_records_total", 0),
        syncs(records),
        cursor("default/reader", 50 + records as i64),
    ];
    let mut follower = node("n2", Role::ROLE_FOLLOWER, Vec::new());
    follower.groups[1].applied_index -= 2;
    Sample {
        taken,
        cluster_id: "c0ffee".into(),
        answers: vec![
            Answer::new(server("n1"), Ok(node("n1", Role::ROLE_LEADER, leads))),
            Answer::new(server("n2"), Ok(follower)),
            Answer::new(server("n3"), Err("no answer\x1b[2J within 2 s".into())),
        ],
    }
}

#[test]
fn a_frame_shows_nodes_logs_cursors_and_rates() {
    let now = Instant::now();
    let (before, after) = (sample(now, 1000), sample(now + Duration::from_secs(2), 1300));
    let text = Frame::new(&after, Some(&before), "").text(Size::UNLIMITED, "q ends");
    assert_eq!(
        text,
        "\
cluster demo (c0ffee): 2 of 3 nodes answer, 2 logs; q ends

NODE  CATALOG   TERM  LEADS   LAG  APPENDED  BYTES       READ  SYNC    DISK FREE           NOTE
n1    leader    3     2 of 2  0    150/s     13.2 KiB/s  0/s   1.6 ms  3.0 GiB of 4.0 GiB
n2    follower  3     0 of 2  2    -         -           -     -       3.0 GiB of 4.0 GiB
n3    -         -     -       -    -         -           -     -       -                   no answer: no answer\u{fffd}[2J within 2 s

LOG      LEADER  OFFSETS  RECORDS  STORED   REPLICAS  LAG  NOTE
default  n1      0..1300  150/s    127 KiB  2/2       2
audit    n1      0..7     0/s      700 B    2/2       0

CURSOR          LAG   CHANGE
default/reader  1350  +150/s
"
    );
}

#[test]
fn a_frame_fits_into_the_terminal() {
    let mut one = sample(Instant::now(), 5);
    for n in 0..100 {
        let groups = &mut one.answers[0].node.as_mut().expect("an answer").groups;
        groups.push(group(&format!("log-{n:03}"), Role::ROLE_LEADER, 1));
    }
    let text = Frame::new(&one, None, "").text(Size { columns: 40, lines: 24 }, "");
    assert!(text.lines().count() <= 24 && text.lines().all(|line| line.chars().count() <= 40), "{text}");
    assert!(text.contains("... and ") && text.contains("default/reader"), "{text}");
    let filtered = Frame::new(&one, None, "log-05").text(Size::UNLIMITED, "");
    assert_eq!(filtered.matches("\nlog-").count(), 10, "{filtered}");
    assert!(!filtered.contains("CURSOR"), "{filtered}");
    let tiny = Frame::new(&one, None, "").text(Size { columns: 1, lines: 1 }, "");
    assert!(tiny.lines().all(|line| line.chars().count() <= 1));
}

#[test]
fn numbers_have_few_digits() {
    assert_eq!(
        [0.0, 0.25, 9.96, 10.0, 9999.0, 12_345.0, 2.5e6].map(rate),
        ["0/s", "0.2/s", "10.0/s", "10/s", "9999/s", "12.3 k/s", "2.5 M/s"]
    );
    assert_eq!([0, 1023, 1536, 200 << 10, u64::MAX].map(bytes), ["0 B", "1023 B", "1.5 KiB", "200 KiB", "16384 PiB"]);
    assert_eq!([2e-6, 0.0016, 1.25, f64::INFINITY].map(seconds), ["2 µs", "1.6 ms", "1.2 s", "> 26 s"]);
}
