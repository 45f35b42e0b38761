//! The metrics of one node: one registry that every component registers with. Nothing is global.
//!
//! A component declares the metrics that it counts as fields of its own struct, and creates them with
//! [`Registry::counter`], [`Registry::gauge`], [`Registry::histogram`] or [`Registry::counters`], where name, help text
//! and buckets are stated once. Counting is an atomic addition, or a short lock for a histogram. A value that a
//! component already keeps is not counted again but read on demand: [`Registry::observe_gauge`]. `GetNode` and
//! `status --verbose` read all metrics through [`Registry::samples`]. Values with several labels, or one for each log, are
//! collected when they are read: [`Registry::collect`]; only the text formats contain them (`metrics/text.rs`).
//!
//! Names and labels follow Prometheus: prefix `seriatim_`, base units (seconds, bytes), counters end in `_total`.

mod families;
mod kinds;
mod text;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

pub use self::families::{Collected, Family, FamilyKind};
pub use self::kinds::{Buckets, Counter, Distribution, Gauge, Histogram, Labelled, Sample, SampleValue};
use self::kinds::{Observed, PREFIX, Readable};
pub use self::text::TextFormat;
use crate::codes::codes;
use crate::events::Events;

/// Buckets of a duration in seconds: 50 µs to 26 s, each twice the previous one.
pub const SECONDS: Buckets = Buckets::new(50e-6, 2.0, 20);

/// Buckets of a number of items: 1 to 65,536, each four times the previous one.
pub const ITEMS: Buckets = Buckets::new(1.0, 4.0, 9);

/// Buckets of a size in bytes: 64 B to 16 MiB, each four times the previous one.
pub const BYTES: Buckets = Buckets::new(64.0, 4.0, 10);

/// The registry of a node, and its latest events. Clones share it.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Arc<Mutex<Entries>>,
    /// Locked for longer than the entries, which `GetNode` reads.
    collectors: Arc<Mutex<prometheus_client::registry::Registry>>,
    events: Events,
}

#[derive(Default)]
struct Entries {
    /// Encodes the text format.
    registered: prometheus_client::registry::Registry,
    /// The metrics by name, so that a restarted component gets its earlier metrics back.
    by_name: BTreeMap<&'static str, Box<dyn Readable>>,
}

impl Registry {
    /// Returns a counter. `name` is given without the prefix and without `_total`.
    pub fn counter(&self, name: &'static str, help: &str) -> Counter {
        self.register(name, help, Counter::default)
    }

    /// Returns a family of counters with a label.
    pub fn counters(&self, name: &'static str, label: &'static str, help: &str) -> Labelled<Counter> {
        self.register(name, help, || Labelled::new(label))
    }

    /// Returns a gauge: a value that can rise and fall.
    pub fn gauge(&self, name: &'static str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default)
    }

    /// Returns a family of gauges with a label.
    pub fn gauges(&self, name: &'static str, label: &'static str, help: &str) -> Labelled<Gauge> {
        self.register(name, help, || Labelled::new(label))
    }

    /// Returns a histogram with these buckets. `name` is given without the prefix.
    pub fn histogram(&self, name: &'static str, help: &str, buckets: Buckets) -> Histogram {
        self.register(name, help, || Histogram::new(buckets))
    }

    /// Registers a gauge whose value `current` returns. It is called whenever the registry is read, must not block, and
    /// must not use the registry, which is locked at that time. It should not own more of its component than it needs.
    pub fn observe_gauge(&self, name: &'static str, help: &str, current: impl Fn() -> u64 + Send + Sync + 'static) {
        self.register(name, help, || Observed::new(false)).observe(Arc::new(current));
    }

    /// Registers a counter whose value `current` returns, with the same restrictions.
    pub fn observe_counter(&self, name: &'static str, help: &str, current: impl Fn() -> u64 + Send + Sync + 'static) {
        self.register(name, help, || Observed::new(true)).observe(Arc::new(current));
    }

    /// Returns the metric with this name, and creates it if it does not exist.
    fn register<M: Readable + Clone>(&self, name: &'static str, help: &str, create: impl FnOnce() -> M) -> M {
        let mut entries = self.entries.lock();
        if let Some(known) = entries.by_name.get(name) {
            let known: &dyn Any = &**known;
            if let Some(known) = known.downcast_ref::<M>() {
                return known.clone();
            }
        }
        let metric = create();
        let other = entries.by_name.insert(name, Box::new(metric.clone()));
        assert!(other.is_none(), "{name} is two kinds of metric");
        entries.registered.register(format!("{PREFIX}_{name}"), help, metric.clone());
        metric
    }

    /// Registers families whose values `collect` adds whenever a text is encoded. It must not block, and must not encode
    /// the registry.
    pub fn collect(&self, families: &'static [Family], collect: impl Fn(&mut Collected) + Send + Sync + 'static) {
        families::register(&mut self.collectors.lock(), families, collect);
    }

    /// Returns all metrics as text.
    pub fn encode(&self, format: TextFormat) -> String {
        let mut open_metrics = String::new();
        text::append(&mut open_metrics, &self.entries.lock().registered);
        text::append(&mut open_metrics, &self.collectors.lock());
        text::finish(open_metrics, format)
    }

    /// The latest events of the node.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Returns all values except those of [`Registry::collect`], in the order of their names.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        self.entries.lock().by_name.iter().for_each(|(name, metric)| metric.read(name, None, &mut samples));
        samples
    }
}

impl Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.entries.lock().by_name.keys()).finish()
    }
}

codes! {
    /// A limit that a request can reach. The code is the value of the metric's label, and `limit` in the metadata of a
    /// status: the name of the option that sets the limit, if one does.
    pub enum Limit: str, "limit" {
        /// Bytes of a record.
        RecordBytes = "record_bytes_max",
        /// Bytes of a request's records.
        RequestBytes = "request_bytes_max",
        /// Bytes of a message that carries no records.
        MessageBytes = "message_bytes",
        /// Open streams of one principal.
        PrincipalStreams = "streams_per_principal_max",
        /// Open streams of all principals together.
        Streams = "streams_max",
        /// Unanswered calls of one principal.
        PrincipalCalls = "calls_per_principal_max",
        /// Unanswered calls of all principals together.
        Calls = "calls_max",
        /// Bytes in flight of one principal.
        PrincipalBytes = "bytes_per_principal_max",
        /// Bytes in flight of all principals together.
        Bytes = "bytes_max",
        /// A queue of the node.
        Queue = "queue",
    }
}

/// The files of a node that are read again when they have changed.
pub const RELOADED: [&str; 4] = ["certificates", "access policy", "denied peers", "configuration"];

/// The registry, and the metrics that several components share.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The counters by the limit's position in `Limit::ALL`.
    limit_refused: Box<[Counter]>,
    /// Requests that the access list refused.
    pub access_refused: Counter,
    /// Peers that were refused because their certificate names another node or none.
    pub peer_name_refused: Counter,
    /// Connections that were closed because they flooded the node.
    pub flood_closed: Counter,
    certificate_expires: Gauge,
    certificates: Labelled<Gauge>,
    /// Files that were read again because they had changed.
    pub reloads: Labelled<Counter>,
    /// Files that had changed and could not be used.
    pub reload_failures: Labelled<Counter>,
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
        let limits = registry.counters("limit_refused", "limit", "Requests refused because of a limit");
        let reloads = registry.counters("reloads", "file", "Changed files that were read again and are in use");
        let reload_failures = registry.counters(
            "reload_failures",
            "file",
            "Attempts to read a changed file that failed, so that its earlier version stays in use",
        );
        // An increase is only noticed if there was a value before.
        for file in RELOADED {
            let _ = (reloads.with(file), reload_failures.with(file));
        }
        Metrics {
            limit_refused: Limit::ALL.iter().map(|limit| limits.with(limit.code())).collect(),
            access_refused: registry.counter("access_refused", "Requests refused by the access list"),
            peer_name_refused: registry
                .counter("peer_name_refused", "Peers refused because of the node that their certificate names"),
            flood_closed: registry
                .counter("flood_connections_closed", "Connections closed because they flooded the node"),
            certificate_expires: registry
                .gauge("certificate_expires_unix_seconds", "When the first of the node's certificates expires"),
            certificates: registry.gauges(
                "certificate_not_after_unix_seconds",
                "certificate",
                "When a certificate of the node expires, by its option",
            ),
            reloads,
            reload_failures,
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

    /// Sets the times at which the node's certificates expire, by the option that names their file.
    pub fn set_certificates_expire(&self, certificates: &[(&'static str, SystemTime)]) {
        let first = certificates.iter().map(|(_, at)| *at).min();
        self.certificate_expires.set(first.map_or(0, unix_seconds));
        certificates.iter().for_each(|(option, at)| _ = self.certificates.with(option).set(unix_seconds(*at)));
    }
}

fn unix_seconds(at: SystemTime) -> i64 {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(registry: &Registry, name: &str) -> Option<SampleValue> {
        registry.samples().into_iter().find(|sample| sample.full_name() == name).map(|sample| sample.value)
    }

    #[test]
    fn every_limit_has_a_counter_of_its_own() {
        let metrics = Metrics::default();
        for (i, limit) in Limit::ALL.iter().enumerate() {
            (0..=i).for_each(|_| metrics.limit_refused(*limit).inc());
        }
        for (i, limit) in Limit::ALL.iter().enumerate() {
            let name = format!("seriatim_limit_refused_total{{limit=\"{}\"}}", limit.code());
            assert_eq!(value(metrics.registry(), &name), Some(SampleValue::Counter(i as u64 + 1)), "{name}");
        }
    }

    #[test]
    fn a_component_that_starts_again_continues_its_metrics() {
        let registry = Registry::default();
        registry.counter("appended_bytes", "Bytes appended").inc_by(5);
        registry.counter("appended_bytes", "Bytes appended").inc_by(6);
        let name = "seriatim_appended_bytes_total".to_owned();
        assert_eq!(registry.samples(), [Sample { name, label: None, value: SampleValue::Counter(11) }]);
    }

    #[test]
    fn an_observed_value_is_that_of_the_moment_and_of_the_last_component() {
        let registry = Registry::default();
        let held = registry.gauge("held", "Held");
        let current = held.clone();
        registry.observe_gauge("streams_now", "Open streams", move || current.get() as u64);
        held.set(7);
        assert_eq!(value(&registry, "seriatim_streams_now"), Some(SampleValue::Gauge(7)));
        held.set(8);
        assert_eq!(value(&registry, "seriatim_streams_now"), Some(SampleValue::Gauge(8)));
        registry.observe_gauge("streams_now", "Open streams", || 1);
        assert_eq!(value(&registry, "seriatim_streams_now"), Some(SampleValue::Gauge(1)));
    }

    /// Once, samples were parsed from the text format, and a gauge whose name ends like a part of a histogram was
    /// mistaken for one.
    #[test]
    fn the_kind_of_a_metric_does_not_follow_from_its_name() {
        let registry = Registry::default();
        registry.gauge("lag_sum", "A gauge").set(3);
        registry.counter("bucket", "A counter").inc();
        registry.histogram("parts_count", "A histogram", ITEMS).observe(2.0);
        assert_eq!(value(&registry, "seriatim_lag_sum"), Some(SampleValue::Gauge(3)));
        assert_eq!(value(&registry, "seriatim_bucket_total"), Some(SampleValue::Counter(1)));
        let Some(SampleValue::Histogram(parts)) = value(&registry, "seriatim_parts_count") else { panic!("missing") };
        assert_eq!((parts.count, parts.sum), (1, 2.0));
    }

    #[test]
    fn a_histogram_has_a_count_a_sum_and_cumulative_buckets() {
        let registry = Registry::default();
        let histogram = registry.histogram("batch_entries", "Entries per sync", ITEMS);
        [1.0, 3.0, 70_000.0].iter().for_each(|value| histogram.observe(*value));
        let bounds = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, f64::INFINITY];
        let buckets = bounds.into_iter().zip([1, 2, 2, 2, 2, 2, 2, 2, 2, 3]).collect();
        let expected = SampleValue::Histogram(Distribution { count: 3, sum: 70_004.0, buckets });
        assert_eq!(value(&registry, "seriatim_batch_entries"), Some(expected));
    }

    #[test]
    fn the_text_has_every_metric_and_its_kind() {
        let registry = Registry::default();
        registry.counters("refused", "why", "Refusals").with("a \"b\"").inc();
        registry.gauges("lag", "peer", "Lag").with("n2").set(-1);
        registry.histogram("size", "Sizes", Buckets::new(1.0, 2.0, 2)).observe(1.5);
        registry.observe_gauge("calls_now", "Calls", || 4);
        registry.observe_counter("dropped", "Dropped", || 5);
        let text = "\
# HELP seriatim_refused Refusals.
# TYPE seriatim_refused counter
seriatim_refused_total{why=\"a \\\"b\\\"\"} 1
# HELP seriatim_lag Lag.
# TYPE seriatim_lag gauge
seriatim_lag{peer=\"n2\"} -1
# HELP seriatim_size Sizes.
# TYPE seriatim_size histogram
seriatim_size_sum 1.5
seriatim_size_count 1
seriatim_size_bucket{le=\"1.0\"} 0
seriatim_size_bucket{le=\"2.0\"} 1
seriatim_size_bucket{le=\"+Inf\"} 1
# HELP seriatim_calls_now Calls.
# TYPE seriatim_calls_now gauge
seriatim_calls_now 4
# HELP seriatim_dropped Dropped.
# TYPE seriatim_dropped counter
seriatim_dropped_total 5
# EOF
";
        assert_eq!(registry.encode(TextFormat::OpenMetrics), text);
        // The names of samples are those in the text format.
        for sample in registry.samples() {
            let line = match sample.value {
                SampleValue::Counter(value) => format!("{} {value}\n", sample.full_name()),
                SampleValue::Gauge(value) => format!("{} {value}\n", sample.full_name()),
                SampleValue::Histogram(value) => format!("{}_count {}\n", sample.name, value.count),
            };
            assert!(text.contains(&line), "{line}");
        }
    }

    #[test]
    #[should_panic(expected = "two kinds of metric")]
    fn a_name_is_one_kind_of_metric() {
        let registry = Registry::default();
        registry.counter("x", "One");
        registry.gauge("x", "Another");
    }
}
