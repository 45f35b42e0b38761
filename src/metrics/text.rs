//! The text formats: OpenMetrics, and the older one of Prometheus (0.0.4), which every monitoring system reads.
//!
//! prometheus-client writes OpenMetrics. In the older format, a counter's description has the name of its samples, and
//! the last line is missing.

use std::fmt::Write as _;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Version 0.0.4 of Prometheus' format.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// Returns the format that a client with this `Accept` header prefers.
    pub fn accepted(accept: &str) -> TextFormat {
        let wanted = accept.split(',').any(|range| range.trim().starts_with("application/openmetrics-text"));
        if wanted { TextFormat::OpenMetrics } else { TextFormat::Prometheus }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            TextFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            TextFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Adds the metrics of a registry in OpenMetrics, without the last line.
pub(super) fn append(open_metrics: &mut String, registry: &Registry) {
    let encoded = text::encode_registry(open_metrics, registry);
    debug_assert!(encoded.is_ok(), "writing to a String does not fail");
}

/// Ends a text, or converts it to the older format.
pub(super) fn finish(open_metrics: String, format: TextFormat) -> String {
    match format {
        TextFormat::OpenMetrics => open_metrics + "# EOF\n",
        TextFormat::Prometheus => older(&open_metrics),
    }
}

/// Converts OpenMetrics without its last line. A description is a HELP line, followed by a TYPE line.
fn older(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines();
    while let Some(line) = lines.next() {
        // Writing to a String does not fail.
        let _ = match line.strip_prefix("# HELP ").and_then(|described| described.split_once(' ')) {
            None => writeln!(text, "{line}"),
            Some((name, help)) => {
                let kind = lines.next().and_then(|line| line.rsplit_once(' ')).map_or("untyped", |(_, kind)| kind);
                let total = if kind == "counter" { "_total" } else { "" };
                writeln!(text, "# HELP {name}{total} {help}\n# TYPE {name}{total} {kind}")
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Buckets, Family, FamilyKind, Registry};
    use super::*;

    const FAMILIES: &[Family] = &[
        Family { name: "seriatim_log_lag", kind: FamilyKind::Gauge, labels: &["log", "node"], help: "Lag" },
        Family { name: "process_cpu_seconds", kind: FamilyKind::Counter, labels: &[], help: "CPU" },
    ];

    #[test]
    fn both_formats_have_the_same_samples_and_their_own_descriptions() {
        let registry = Registry::default();
        registry.counter("elections", "Elections").inc();
        registry.histogram("size_bytes", "Sizes", Buckets::new(1.0, 2.0, 1)).observe(1.5);
        registry.gauges("empty", "peer", "Nothing yet");
        registry.collect(FAMILIES, |collected| {
            collected.add("seriatim_log_lag", &["a\"b\\\n", "n1"], 3.0);
            collected.add("process_cpu_seconds", &[], 0.25);
        });
        let text = "\
# HELP seriatim_elections_total Elections.
# TYPE seriatim_elections_total counter
seriatim_elections_total 1
# HELP seriatim_size_bytes Sizes.
# TYPE seriatim_size_bytes histogram
seriatim_size_bytes_sum 1.5
seriatim_size_bytes_count 1
seriatim_size_bytes_bucket{le=\"1.0\"} 0
seriatim_size_bytes_bucket{le=\"+Inf\"} 1
# HELP seriatim_empty Nothing yet.
# TYPE seriatim_empty gauge
# HELP seriatim_log_lag Lag.
# TYPE seriatim_log_lag gauge
seriatim_log_lag{log=\"a\\\"b\\\\\\n\",node=\"n1\"} 3.0
# HELP process_cpu_seconds_total CPU.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 0.25
";
        assert_eq!(registry.encode(TextFormat::Prometheus), text);
        let open = registry.encode(TextFormat::OpenMetrics);
        assert!(open.ends_with("\n# EOF\n") && open.contains("# TYPE process_cpu_seconds counter\n"), "{open}");
        let samples = |text: &str| text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(&open), samples(text));
    }

    #[test]
    fn prometheus_asks_for_open_metrics_and_a_browser_does_not() {
        let of_prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(TextFormat::accepted(of_prometheus), TextFormat::OpenMetrics);
        assert_eq!(TextFormat::accepted("text/html,*/*;q=0.8"), TextFormat::Prometheus);
        assert_eq!(TextFormat::accepted(""), TextFormat::Prometheus);
    }
}
