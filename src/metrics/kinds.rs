//! The kinds of metrics. Each can count, can be read as [`Sample`]s, and is encoded by prometheus-client.
//!
//! Families and histograms are implemented here, because those of prometheus-client can't be read.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Metric;

/// The prefix of every name.
pub(super) const PREFIX: &str = "seriatim";

/// The value of one metric at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The full name without its label, as in Prometheus' text format.
    pub name: String,
    /// The label and its value, if it has one.
    pub label: Option<(&'static str, String)>,
    /// The value, by kind.
    pub value: SampleValue,
}

impl Sample {
    /// Returns the name with the label, as in Prometheus' text format.
    pub fn full_name(&self) -> String {
        match &self.label {
            Some((label, value)) => format!("{}{{{label}={value:?}}}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The value of a [`Sample`].
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// Starts at 0 with the process and never decreases.
    Counter(u64),
    /// Can rise and fall.
    Gauge(i64),
    /// A distribution since the process started.
    Histogram(Distribution),
}

/// What a histogram has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// The number of values.
    pub count: u64,
    /// The sum of all values.
    pub sum: f64,
    /// By ascending upper bound, the number of values at or below it. The last bound is infinity.
    pub buckets: Vec<(f64, u64)>,
}

/// A metric that can be read.
pub(super) trait Readable: Metric + Any {
    /// Adds the current values.
    fn read(&self, name: &str, label: Option<(&'static str, &str)>, samples: &mut Vec<Sample>);
}

/// A counter that starts at 0 with the process and never decreases. Clones count together.
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

impl TypedMetric for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Counter {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Counter::TYPE
    }
}

impl Readable for Counter {
    fn read(&self, name: &str, label: Option<(&'static str, &str)>, samples: &mut Vec<Sample>) {
        samples.push(counter_sample(name, label, self.get()));
    }
}

impl Readable for Gauge {
    fn read(&self, name: &str, label: Option<(&'static str, &str)>, samples: &mut Vec<Sample>) {
        samples.push(gauge_sample(name, label, self.get()));
    }
}

fn owned(label: Option<(&'static str, &str)>) -> Option<(&'static str, String)> {
    label.map(|(label, value)| (label, value.to_owned()))
}

fn counter_sample(name: &str, label: Option<(&'static str, &str)>, value: u64) -> Sample {
    Sample { name: format!("{PREFIX}_{name}_total"), label: owned(label), value: SampleValue::Counter(value) }
}

fn gauge_sample(name: &str, label: Option<(&'static str, &str)>, value: i64) -> Sample {
    Sample { name: format!("{PREFIX}_{name}"), label: owned(label), value: SampleValue::Gauge(value) }
}

/// A family of metrics that differ in the value of one label. Clones share them.
#[derive(Clone, Debug)]
pub struct Labelled<M> {
    label: &'static str,
    by_value: Arc<RwLock<BTreeMap<String, M>>>,
}

impl<M: Clone + Default> Labelled<M> {
    pub(super) fn new(label: &'static str) -> Labelled<M> {
        Labelled { label, by_value: Arc::default() }
    }

    /// Returns the metric with this value of the label. Takes a lock: callers on a hot path keep the result.
    pub fn with(&self, value: &str) -> M {
        self.by_value.write().entry(value.to_owned()).or_default().clone()
    }

    /// Removes all metrics of the family.
    pub fn clear(&self) {
        self.by_value.write().clear();
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Labelled<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (value, metric) in self.by_value.read().iter() {
            metric.encode(encoder.encode_family(&[(self.label, value.as_str())])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

impl<M: Readable + TypedMetric> Readable for Labelled<M> {
    fn read(&self, name: &str, _: Option<(&'static str, &str)>, samples: &mut Vec<Sample>) {
        for (value, metric) in self.by_value.read().iter() {
            metric.read(name, Some((self.label, value)), samples);
        }
    }
}

/// The upper bounds of a histogram's buckets, a geometric series.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    first: f64,
    factor: f64,
    count: u16,
}

impl Buckets {
    /// `count` bounds, beginning with `first`, each `factor` times the previous one.
    pub(super) const fn new(first: f64, factor: f64, count: u16) -> Buckets {
        Buckets { first, factor, count }
    }
}

/// A distribution of values. Clones count together.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    count: u64,
    sum: f64,
    /// By ascending upper bound, the number of values at or below it and above the previous bound. The last bound is
    /// infinity.
    buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn new(Buckets { first, factor, count }: Buckets) -> Histogram {
        let bounds = std::iter::successors(Some(first), |bound| Some(bound * factor)).take(count.into());
        let buckets = bounds.chain([f64::INFINITY]).map(|bound| (bound, 0)).collect();
        Histogram(Arc::new(Mutex::new(Counts { count: 0, sum: 0.0, buckets })))
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let mut counts = self.0.lock();
        counts.count += 1;
        counts.sum += value;
        if let Some((_, count)) = counts.buckets.iter_mut().find(|(bound, _)| value <= *bound) {
            *count += 1;
        }
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let counts = self.0.lock();
        encoder.encode_histogram::<NoLabelSet>(counts.sum, counts.count, &counts.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl Readable for Histogram {
    fn read(&self, name: &str, label: Option<(&'static str, &str)>, samples: &mut Vec<Sample>) {
        let counts = self.0.lock();
        let cumulative = counts.buckets.iter().scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        });
        let value = Distribution { count: counts.count, sum: counts.sum, buckets: cumulative.collect() };
        samples.push(Sample {
            name: format!("{PREFIX}_{name}"),
            label: owned(label),
            value: SampleValue::Histogram(value),
        });
    }
}

/// Returns the current value of something that is not counted here.
pub(super) type Current = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A counter or a gauge whose value is computed elsewhere whenever it is read.
#[derive(Clone)]
pub(super) struct Observed {
    is_counter: bool,
    current: Arc<Mutex<Current>>,
}

impl Observed {
    pub fn new(is_counter: bool) -> Observed {
        Observed { is_counter, current: Arc::new(Mutex::new(Arc::new(|| 0))) }
    }

    pub fn observe(&self, current: Current) {
        *self.current.lock() = current;
    }

    fn get(&self) -> u64 {
        let current = self.current.lock().clone();
        current()
    }
}

impl Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("is_counter", &self.is_counter).finish_non_exhaustive()
    }
}

impl EncodeMetric for Observed {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        if self.is_counter {
            encoder.encode_counter::<NoLabelSet, u64, u64>(&self.get(), None)
        } else {
            encoder.encode_gauge(&self.get())
        }
    }

    fn metric_type(&self) -> MetricType {
        if self.is_counter { MetricType::Counter } else { MetricType::Gauge }
    }
}

impl Readable for Observed {
    fn read(&self, name: &str, label: Option<(&'static str, &str)>, samples: &mut Vec<Sample>) {
        let value = self.get();
        samples.push(if self.is_counter {
            counter_sample(name, label, value)
        } else {
            gauge_sample(name, label, i64::try_from(value).unwrap_or(i64::MAX))
        });
    }
}
