//! The metrics of one node: one registry that every component registers with. Nothing is global.
//!
//! A component declares the metrics that it counts as fields of its own struct, and creates them with
//! [`Registry::counter`], [`Registry::gauge`], [`Registry::histogram`] or [`Registry::counters`]: name, help text and
//! buckets are stated there and nowhere else. Counting is an atomic addition. `GetNode` and `status --verbose` read all
//! of them through [`Registry::samples`].
//!
//! Names and labels follow Prometheus: prefix `seriatim_`, base units (seconds, bytes), counters end in `_total`.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Metric, Registry as Registered};

/// The prefix of every name.
const PREFIX: &str = "seriatim";

/// A counter that starts at 0 with the process and never decreases.
#[derive(Clone, Debug, Default)]
pub struct Counter(prometheus_client::metrics::counter::Counter);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn inc_by(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// Returns the sum.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Counters that differ in the values of their labels.
#[derive(Clone, Debug)]
pub struct Counters<L: Clone + Hash + Eq>(Family<L, prometheus_client::metrics::counter::Counter>);

impl<L: Clone + Hash + Eq> Counters<L> {
    /// Returns the counter with these labels. Takes a lock: callers on a hot path keep the result.
    pub fn with(&self, labels: &L) -> Counter {
        Counter(self.0.get_or_create_owned(labels))
    }
}

/// Gauges that differ in the values of their labels.
#[derive(Clone, Debug)]
pub struct Gauges<L: Clone + Hash + Eq>(Family<L, Gauge>);

impl<L: Clone + Hash + Eq> Gauges<L> {
    /// Returns the gauge with these labels.
    pub fn with(&self, labels: &L) -> Gauge {
        self.0.get_or_create_owned(labels)
    }

    /// Removes all gauges of the family.
    pub fn clear(&self) {
        self.0.clear();
    }
}

/// Buckets of a duration in seconds: 50 µs to 26 s, each twice the one before.
pub const SECONDS: Buckets = Buckets { first: 50e-6, factor: 2.0, count: 20 };

/// Buckets of a number of items: 1 to 65,536, each four times the one before.
pub const ITEMS: Buckets = Buckets { first: 1.0, factor: 4.0, count: 9 };

/// Buckets of a size in bytes: 64 B to 16 MiB, each four times the one before.
pub const BYTES: Buckets = Buckets { first: 64.0, factor: 4.0, count: 10 };

/// The upper bounds of a histogram's buckets, a geometric series.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    first: f64,
    factor: f64,
    count: u16,
}

/// The value of one metric at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The full name with its labels, as in Prometheus' text format.
    pub name: String,
    /// A counter's or gauge's value.
    pub value: f64,
}

/// The registry of a node. Clones share it.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Entries>>);

struct Entries {
    registered: Registered,
    /// By name, so that a component that is restarted gets its earlier metrics back.
    by_name: HashMap<&'static str, Box<dyn Any + Send>>,
}

impl Default for Entries {
    fn default() -> Entries {
        Entries { registered: Registered::with_prefix(PREFIX), by_name: HashMap::new() }
    }
}

impl Registry {
    /// Returns a counter. `name` is given without the prefix and without `_total`.
    pub fn counter(&self, name: &'static str, help: &str) -> Counter {
        Counter(self.register(name, help, prometheus_client::metrics::counter::Counter::default))
    }

    /// Returns a family of counters with labels.
    pub fn counters<L>(&self, name: &'static str, help: &str) -> Counters<L>
    where
        L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
    {
        Counters(self.register(name, help, Family::default))
    }

    /// Returns a gauge: a value that can rise and fall.
    pub fn gauge(&self, name: &'static str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default)
    }

    /// Returns a family of gauges with labels.
    pub fn gauges<L>(&self, name: &'static str, help: &str) -> Gauges<L>
    where
        L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
    {
        Gauges(self.register(name, help, Family::default))
    }

    /// Returns a histogram with these buckets. `name` is given without the prefix.
    pub fn histogram(&self, name: &'static str, help: &str, buckets: Buckets) -> Histogram {
        let Buckets { first, factor, count } = buckets;
        self.register(name, help, || Histogram::new(exponential_buckets(first, factor, count)))
    }

    /// Returns the metric of that name. Creates it if it does not exist.
    fn register<M: Metric + Clone>(&self, name: &'static str, help: &str, create: impl FnOnce() -> M) -> M {
        let mut entries = self.0.lock();
        if let Some(known) = entries.by_name.get(name).and_then(|metric| metric.downcast_ref::<M>()) {
            return known.clone();
        }
        let metric = create();
        assert!(entries.by_name.insert(name, Box::new(metric.clone())).is_none(), "{name} is two kinds of metric");
        entries.registered.register(name, help, metric.clone());
        metric
    }

    /// Returns all metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let encoded = text::encode(&mut text, &self.0.lock().registered);
        debug_assert!(encoded.is_ok(), "writing to a String does not fail");
        text
    }

    /// Returns all values with their names. A histogram consists of `_count`, `_sum` and the cumulative `_bucket`s.
    pub fn samples(&self) -> Vec<Sample> {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some(Sample { name: name.to_owned(), value: value.parse().ok()? })
        };
        self.encode().lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
    }
}

impl Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.0.lock().by_name.keys()).finish()
    }
}

/// A limit that a request can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Limit {
    /// Bytes of a record.
    RecordBytes,
    /// Bytes of a request's records.
    RequestBytes,
    /// Bytes of a message that carries no records.
    MessageBytes,
    /// Open streams of one principal.
    PrincipalStreams,
    /// Open streams of all principals together.
    Streams,
    /// Unanswered calls of one principal.
    PrincipalCalls,
    /// Unanswered calls of all principals together.
    Calls,
    /// Bytes in flight of one principal.
    PrincipalBytes,
    /// Bytes in flight of all principals together.
    Bytes,
    /// A queue of the node.
    Queue,
}

impl Limit {
    /// In the order of their numbers.
    pub const ALL: [Limit; 10] = [
        Limit::RecordBytes,
        Limit::RequestBytes,
        Limit::MessageBytes,
        Limit::PrincipalStreams,
        Limit::Streams,
        Limit::PrincipalCalls,
        Limit::Calls,
        Limit::PrincipalBytes,
        Limit::Bytes,
        Limit::Queue,
    ];

    /// Returns the value of the metric's label: the name of the option that sets the limit, if one does.
    pub fn name(self) -> &'static str {
        match self {
            Limit::RecordBytes => "record_bytes_max",
            Limit::RequestBytes => "request_bytes_max",
            Limit::MessageBytes => "message_bytes",
            Limit::PrincipalStreams => "streams_per_principal_max",
            Limit::Streams => "streams_max",
            Limit::PrincipalCalls => "calls_per_principal_max",
            Limit::Calls => "calls_max",
            Limit::PrincipalBytes => "bytes_per_principal_max",
            Limit::Bytes => "bytes_max",
            Limit::Queue => "queue",
        }
    }
}

/// The label of the counter `limit_refused`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

/// The registry, and the metrics that several components share.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    limit_refused: [Counter; Limit::ALL.len()],
    /// Requests that the access list refused.
    pub access_refused: Counter,
    /// Peers that were refused because of the node that their certificate names, or does not name.
    pub peer_name_refused: Counter,
    /// Connections that were closed because they flooded the node.
    pub flood_closed: Counter,
    certificate_expires: Gauge,
}

/// The full name of a gauge: the time at which the first of the node's certificates expires, in Unix seconds. 0 if the
/// node has no certificate.
pub const CERTIFICATE_EXPIRES: &str = "seriatim_certificate_expires_unix_seconds";

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new(Registry::default())
    }
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: Registry) -> Metrics {
        let limits = registry.counters("limit_refused", "Requests refused because of a limit");
        Metrics {
            limit_refused: Limit::ALL.map(|limit| limits.with(&LimitLabel { limit: limit.name() })),
            access_refused: registry.counter("access_refused", "Requests refused by the access list"),
            peer_name_refused: registry
                .counter("peer_name_refused", "Peers refused because of the node that their certificate names"),
            flood_closed: registry
                .counter("flood_connections_closed", "Connections closed because they flooded the node"),
            certificate_expires: registry
                .gauge("certificate_expires_unix_seconds", "When the first of the node's certificates expires"),
            registry,
        }
    }

    /// Returns the registry, with which a component registers its own metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the counter of requests that were refused because of that limit.
    pub fn limit_refused(&self, limit: Limit) -> &Counter {
        &self.limit_refused[limit as usize]
    }

    /// Sets the time at which the first of the node's certificates expires.
    pub fn set_certificate_expires(&self, at: Option<SystemTime>) {
        let seconds = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |at| at.as_secs());
        self.certificate_expires.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_counter_of_its_own() {
        let metrics = Metrics::default();
        for (i, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, i);
            (0..=i).for_each(|_| metrics.limit_refused(*limit).inc());
        }
        let samples = metrics.registry().samples();
        for (i, limit) in Limit::ALL.iter().enumerate() {
            let name = format!("seriatim_limit_refused_total{{limit=\"{}\"}}", limit.name());
            let value = samples.iter().find(|sample| sample.name == name).map(|sample| sample.value);
            assert_eq!(value, Some(i as f64 + 1.0), "{name}");
        }
    }

    #[test]
    fn a_component_that_starts_again_continues_its_metrics() {
        let registry = Registry::default();
        registry.counter("appended_bytes", "Bytes appended").inc_by(5);
        registry.counter("appended_bytes", "Bytes appended").inc_by(6);
        let sample = Sample { name: "seriatim_appended_bytes_total".to_owned(), value: 11.0 };
        assert_eq!(registry.samples(), [sample]);
    }

    #[test]
    fn a_histogram_has_a_count_a_sum_and_cumulative_buckets() {
        let registry = Registry::default();
        let histogram = registry.histogram("batch_entries", "Entries per sync", ITEMS);
        [1.0, 3.0, 70_000.0].iter().for_each(|value| histogram.observe(*value));
        let value = |name: &str| registry.samples().into_iter().find(|s| s.name == name).map(|s| s.value);
        assert_eq!(value("seriatim_batch_entries_count"), Some(3.0));
        assert_eq!(value("seriatim_batch_entries_sum"), Some(70_004.0));
        assert_eq!(value("seriatim_batch_entries_bucket{le=\"4.0\"}"), Some(2.0));
        assert_eq!(value("seriatim_batch_entries_bucket{le=\"65536.0\"}"), Some(2.0));
        assert_eq!(value("seriatim_batch_entries_bucket{le=\"+Inf\"}"), Some(3.0));
    }

    #[test]
    #[should_panic(expected = "two kinds of metric")]
    fn a_name_is_one_kind_of_metric() {
        let registry = Registry::default();
        registry.counter("x", "One");
        registry.gauge("x", "Another");
    }
}
