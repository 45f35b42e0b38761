//! Reads the metrics in a `GetNodeResponse`.

use crate::pb::v1::Metric;
use crate::pb::v1::metric::Value;

/// Returns the name with its labels, as in Prometheus' text format.
pub fn full_name(metric: &Metric) -> String {
    let mut labels: Vec<String> = metric.labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
    labels.sort();
    if labels.is_empty() { metric.name.clone() } else { format!("{}{{{}}}", metric.name, labels.join(",")) }
}

/// Returns the value of a counter or a gauge.
pub fn number(metric: &Metric) -> Option<i128> {
    match metric.value {
        Some(Value::Counter(value)) => Some(value.into()),
        Some(Value::Gauge(value)) => Some(value.into()),
        Some(Value::Histogram(_)) | None => None,
    }
}
