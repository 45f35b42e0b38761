//! The metrics that `GetNode` and `status --verbose` show.

use crate::harness::{Cluster, counter, eventually, record};

#[test]
fn appends_syncs_elections_and_failures_are_measured() {
    let cluster = Cluster::start(3);
    let client = cluster.client(0);
    eventually("a record is appended", || client.produce("", vec![record("a")]).map(drop).map_err(|e| e.to_string()));
    client.consume_at("", 1000).expect_err("past the end");

    assert!(counter(&client, "seriatim_appended_bytes_total") > 0);
    assert_eq!(counter(&client, "seriatim_appended_records_total"), 1);
    assert_eq!(counter(&client, "seriatim_requests_failed_total{reason=\"OFFSET_PAST_END\"}"), 1);
    let node = client.get_node().expect("a response");
    for name in ["seriatim_produce_seconds", "seriatim_sync_seconds", "seriatim_sync_entries"] {
        let metric = node.metrics.iter().find(|metric| metric.name == name && metric.has_histogram());
        let histogram = metric.unwrap_or_else(|| panic!("{name} is measured")).histogram();
        let last = histogram.buckets.last().expect("a bucket");
        assert!(histogram.count > 0 && last.upper_bound.is_infinite(), "{name}: {histogram:?}");
        assert_eq!(last.count, histogram.count, "{name}");
    }
    assert!((0..3).any(|i| counter(&cluster.client(i), "seriatim_elections_total") > 0), "a log elected its leader");
    eventually("a leader measures the lag of its followers", || {
        let measured = (0..3).filter_map(|i| cluster.client(i).get_node().ok()).any(|node| {
            node.metrics
                .iter()
                .any(|metric| metric.name == "seriatim_commit_lag_entries" && metric.labels.contains_key("peer"))
        });
        measured.then_some(()).ok_or("none yet".into())
    });
}
