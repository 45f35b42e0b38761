//! What all nodes report at one moment.

use std::time::{Duration, Instant};

use crate::cli::dialer::Dialer;
use crate::cli::exit::Failure;
use crate::cli::status::{Answer, ask_members};
use crate::pb::v1::metric::Value;
use crate::pb::v1::{GetNodeResponse, Histogram};

/// A member that does not answer within this time is shown without its values.
const NODE_MAX: Duration = Duration::from_secs(2);

pub(super) struct Sample {
    pub taken: Instant,
    pub cluster_id: String,
    /// By name.
    pub answers: Vec<Answer>,
}

impl Sample {
    /// Asks the first node that answers for the members, and then all members.
    pub fn take(dialer: &Dialer) -> Result<Sample, Failure> {
        let (_, servers) = dialer.ask(|client| client.get_servers(""))?;
        let cluster_id = servers.cluster_id.clone();
        let answers = ask_members(dialer, servers, NODE_MAX.min(dialer.timeout))?;
        Ok(Sample { taken: Instant::now(), cluster_id, answers })
    }

    pub fn node(&self, node_id: &str) -> Option<&GetNodeResponse> {
        self.answers.iter().find(|answer| answer.server.node_id == node_id)?.node.as_ref().ok()
    }

    /// Returns the end of a log, as the node that knows most has it.
    pub fn next_offset(&self, log: &str) -> Option<u64> {
        self.answers.iter().filter_map(|answer| answer.group(log)).map(|group| group.next_offset).max()
    }

    /// Returns the lag of each cursor, by `LOG/CURSOR`.
    pub fn cursors(&self) -> Vec<(&str, i64)> {
        let metrics = self.answers.iter().filter_map(|answer| answer.node.as_ref().ok()).flat_map(|node| &node.metrics);
        let cursors = metrics.filter(|metric| metric.name == "seriatim_cursor_lag_records");
        let cursors = cursors.filter_map(|metric| match (metric.labels.get("cursor"), &metric.value) {
            (Some(cursor), Some(Value::Gauge(lag))) => Some((cursor.as_str(), *lag)),
            _ => None,
        });
        let mut cursors: Vec<_> = cursors.collect();
        cursors.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        cursors
    }
}

/// Returns the value of a counter without labels.
pub(super) fn counter(node: &GetNodeResponse, name: &str) -> Option<u64> {
    let metric = node.metrics.iter().find(|metric| metric.name == name)?;
    if let Some(Value::Counter(value)) = metric.value { Some(value) } else { None }
}

pub(super) fn histogram<'a>(node: &'a GetNodeResponse, name: &str) -> Option<&'a Histogram> {
    node.metrics.iter().find(|metric| metric.name == name && metric.has_histogram()).map(|metric| metric.histogram())
}

/// Returns an upper bound of the 99th percentile of what was counted between two moments.
pub(super) fn p99(before: &Histogram, now: &Histogram) -> Option<f64> {
    let count = now.count.checked_sub(before.count).filter(|count| *count > 0)?;
    let wanted = count - count / 100;
    let counted = now.buckets.iter().zip(&before.buckets);
    let found = counted.filter(|(now, before)| now.count.saturating_sub(before.count) >= wanted);
    found.map(|(now, _)| now.upper_bound).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::v1::Bucket;

    fn of(counts: [u64; 3]) -> Histogram {
        let bucket = |(upper_bound, count)| Bucket { upper_bound, count, ..Bucket::default() };
        let buckets = [0.001, 0.01, f64::INFINITY].into_iter().zip(counts).map(bucket).collect();
        Histogram { count: counts[2], buckets, ..Histogram::default() }
    }

    #[test]
    fn the_percentile_is_that_of_the_interval() {
        assert_eq!(p99(&of([5, 5, 5]), &of([5, 105, 105])), Some(0.01), "the first five are older");
        assert_eq!(p99(&of([0, 0, 0]), &of([99, 99, 100])), Some(0.001));
        assert_eq!(p99(&of([0, 0, 0]), &of([98, 99, 100])), Some(0.01));
        assert_eq!(p99(&of([1, 1, 1]), &of([1, 1, 1])), None, "nothing was counted");
        assert_eq!(p99(&of([9, 9, 9]), &of([1, 1, 1])), None, "restarted");
    }
}
