//! What the API counts.

use std::sync::Arc;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;

use super::error::ApiError;
use super::status::{Counted, classify};
use crate::metrics::{BYTES, Counter, Histogram, Metrics, Registry, SECONDS};
use crate::reason::ErrorReason;

/// The metrics of requests. Clones count together.
#[derive(Clone)]
pub struct RequestMetrics {
    /// From a decoded produce request to its committed append, seconds.
    produce_seconds: Histogram,
    /// Payload bytes of a produce request.
    produce_bytes: Histogram,
    /// Payload bytes that were appended.
    appended_bytes: Counter,
    /// Reading the records of one response from the cache or the disk, seconds.
    read_seconds: Histogram,
    /// Bytes of records that were read for responses.
    read_bytes: Counter,
    refused: Arc<[Counter]>,
    shared: Arc<Metrics>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl RequestMetrics {
    /// Registers them.
    pub fn new(shared: Arc<Metrics>) -> RequestMetrics {
        let registry = shared.registry();
        let refused = registry.counters("requests_failed", "Requests that failed, by the reason in their status");
        RequestMetrics {
            produce_seconds: registry.histogram(
                "produce_seconds",
                "From a decoded produce request to its committed append",
                SECONDS,
            ),
            produce_bytes: registry.histogram("produce_bytes", "Payload bytes of a produce request", BYTES),
            appended_bytes: registry
                .counter("appended_bytes", "Payload bytes of this node's clients that were appended"),
            read_seconds: registry.histogram("read_seconds", "Reading the records of one response", SECONDS),
            read_bytes: registry.counter("read_bytes", "Bytes of records that were read for responses"),
            refused: ErrorReason::ALL
                .iter()
                .map(|reason| refused.with(&ReasonLabel { reason: reason.code() }))
                .collect(),
            shared,
        }
    }

    /// The registry of the node.
    pub fn registry(&self) -> &Registry {
        self.shared.registry()
    }

    /// Counts records that were read for a response.
    pub fn read(&self, bytes: usize, began: Instant) {
        self.read_seconds.observe(began.elapsed().as_secs_f64());
        self.read_bytes.inc_by(bytes as u64);
    }

    /// Counts a request that was appended.
    pub fn appended(&self, bytes: usize, began: Instant) {
        self.produce_seconds.observe(began.elapsed().as_secs_f64());
        self.produce_bytes.observe(bytes as f64);
        self.appended_bytes.inc_by(bytes as u64);
    }

    /// Counts an error that ends a request.
    pub fn failed(&self, error: &ApiError) {
        let class = classify(error);
        match class.counted {
            Some(Counted::Access) => self.shared.access_refused.inc(),
            Some(Counted::Limit(limit)) => self.shared.limit_refused(limit).inc(),
            None => {}
        }
        if let Some(position) = ErrorReason::ALL.iter().position(|reason| *reason == class.reason) {
            self.refused[position].inc();
        }
    }
}
