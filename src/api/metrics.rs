//! The metrics of requests.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::error::ApiError;
use super::limits::{Budgets, Usage};
use super::status::{Counted, classify};
use crate::clock::wall_us;
use crate::consensus::handle::Appended;
use crate::events::{EventKind, Severity};
use crate::metrics::{BYTES, Counter, Histogram, Metrics, Registry, SECONDS};
use crate::reason::ErrorReason;
use crate::watermark::Visible;

/// The metrics of requests. Clones count together.
#[derive(Clone)]
pub struct RequestMetrics {
    /// The time from a decoded produce request to its committed append, in seconds.
    produce_seconds: Histogram,
    /// Payload bytes of a produce request.
    produce_bytes: Histogram,
    /// Payload bytes that were appended.
    appended_bytes: Counter,
    /// Records that were appended.
    appended_records: Counter,
    /// The time to read the records of one response on a reader thread, in seconds.
    read_seconds: Histogram,
    /// Bytes of records that were read for responses.
    read_bytes: Counter,
    /// Records that were read for responses.
    read_records: Counter,
    /// Requests that this node relayed to a node with a replica.
    relayed: Counter,
    /// The failed requests by the reason's position in `ErrorReason::ALL`.
    failed: Arc<[Counter]>,
    shared: Arc<Metrics>,
}

impl RequestMetrics {
    /// Registers the metrics of requests.
    pub fn new(shared: Arc<Metrics>) -> RequestMetrics {
        let registry = shared.registry();
        let failed =
            registry.counters("requests_failed", "reason", "Requests that failed, by the reason in their status");
        RequestMetrics {
            produce_seconds: registry.histogram(
                "produce_seconds",
                "From a decoded produce request to its committed append",
                SECONDS,
            ),
            produce_bytes: registry.histogram("produce_bytes", "Payload bytes of a produce request", BYTES),
            appended_bytes: registry
                .counter("appended_bytes", "Payload bytes of this node's clients that were appended"),
            appended_records: registry.counter("appended_records", "Records of this node's clients that were appended"),
            read_seconds: registry.histogram(
                "read_seconds",
                "Reading the records of one response that were not in the page cache",
                SECONDS,
            ),
            read_bytes: registry.counter("read_bytes", "Bytes of records that were read for responses"),
            read_records: registry.counter("read_records", "Records that were read for responses"),
            relayed: registry
                .counter("requests_relayed", "Requests for logs without a replica here, which another node has served"),
            failed: ErrorReason::ALL.iter().map(|reason| failed.with(reason.code())).collect(),
            shared,
        }
    }

    /// The registry of the node.
    pub fn registry(&self) -> &Registry {
        self.shared.registry()
    }

    /// Counts records that were read for a response.
    pub fn read(&self, records: u32, bytes: usize) {
        self.read_bytes.inc_by(bytes as u64);
        self.read_records.inc_by(records.into());
    }

    /// Counts a read that had to wait for the disk. Reads from the page cache take microseconds, and a reader at the
    /// end of the log makes one for each record, so that a measurement would cost more than the read.
    pub fn disk_read(&self, began: Instant) {
        self.read_seconds.observe(began.elapsed().as_secs_f64());
    }

    /// Counts a request that was appended.
    pub fn appended(&self, appended: &Appended, bytes: usize, began: Instant) {
        self.appended_records.inc_by(appended.count.into());
        self.produce_seconds.observe(began.elapsed().as_secs_f64());
        self.produce_bytes.observe(bytes as f64);
        self.appended_bytes.inc_by(bytes as u64);
    }

    /// Counts a request that another node serves.
    pub fn relayed(&self) {
        self.relayed.inc();
    }

    fn refused(&self, error: &ApiError) {
        let text = format!("a client was refused: {error}");
        self.registry().events().record(EventKind::Refusal, Severity::Warning, text);
    }

    /// Counts an error that ends a request.
    pub fn failed(&self, error: &ApiError) {
        let class = classify(error);
        match class.counted {
            Some(Counted::Access) => {
                self.shared.access_refused.inc();
                self.refused(error);
            }
            Some(Counted::Limit(limit)) => {
                self.shared.limit_refused(limit).inc();
                self.refused(error);
            }
            None => {}
        }
        self.failed[class.reason as usize].inc();
    }
}

/// Registers the current usage of the clients' limits.
pub fn observe_usage(registry: &Registry, limits: &Budgets) {
    let observe = |name, help, part: fn(Usage) -> u64| {
        let limits = limits.clone();
        registry.observe_gauge(name, help, move || part(limits.usage()));
    };
    observe("streams_now", "Streams that are open, and long polls that wait", |usage| usage.streams);
    observe("calls_now", "Requests without a response", |usage| usage.calls);
    observe("bytes_in_flight_now", "Bytes of requests and responses in flight", Usage::all_bytes);
}

/// Registers the metrics of this node's replicas, once it is a member of a cluster.
pub fn observe_replicas(registry: &Registry, core: &Core) {
    let consensus = core.consensus.clone();
    registry.observe_counter(
        "peer_messages_dropped",
        "Messages of peers that were dropped because their queue was full",
        move || consensus.peer_messages_dropped(),
    );
    let consensus = core.consensus.clone();
    registry.observe_gauge("replicas_damaged_now", "Replicas that are damaged and take no part", move || {
        consensus.all_statuses().iter().filter(|status| status.damage.is_some()).count() as u64
    });
    let (consensus, scrub) = (core.consensus.clone(), core.scrub.clone());
    registry.observe_gauge("damaged_ranges_now", "Places on the disk that can't be read", move || {
        consensus.all_statuses().iter().map(|status| scrub.damaged(status.group).len() as u64).sum()
    });
    let logs = core.logs.clone();
    registry.observe_gauge(
        "stamp_ahead_seconds",
        "How far the newest timestamp of any log is ahead of the clock",
        move || logs.all().iter().map(|log| stamp_ahead_ms(&log.watermark.get()) / 1000).max().unwrap_or(0),
    );
    let logs = core.logs.clone();
    registry.observe_gauge(
        "unprotected_bytes_now",
        "Synced bytes of a log above the durable position in its manifest",
        move || logs.all().iter().map(|log| log.reader.unprotected_bytes()).max().unwrap_or(0),
    );
}

/// How far a log's newest timestamp is ahead of this node's clock.
pub fn stamp_ahead_ms(visible: &Visible) -> u64 {
    visible.last_append_time_us.saturating_sub(wall_us()) / 1000
}
