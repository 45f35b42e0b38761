//! Formats the report as a table: one line per node, with its problems in the last column.

use std::fmt::Write as _;
use std::time::Duration;

use super::answer::{CATALOG, catalog_ranges, catch_up, certificate, role};
use super::report::ClusterReport;
use crate::cli::{output, units};
use crate::client::metrics::{full_name, number};
use crate::clock::AHEAD_MAX;
use crate::pb::v1::{CatchUp, DamagedRange, DiskState, GetNodeResponse, GroupStatus, Histogram};
use crate::storage::space::accepting_again_bytes;

/// Returns the table, followed by a summary of the log's voters, and of every other group that has a problem.
pub(super) fn table(report: &ClusterReport) -> String {
    let (cluster_id, log, answers) = (&report.cluster_id, report.log.as_str(), report.answers.as_slice());
    let name =
        answers.iter().find_map(|answer| answer.node.as_ref().ok()).map_or("?", |node| node.cluster_name.as_str());
    let commit = answers.iter().filter_map(|answer| answer.group(log)).map(|g| g.commit_index).max().unwrap_or(0);
    let mut rows = vec![["NODE", "ADDRESS", "ROLE", "TERM", "COMMIT", "LAG", "RECORDS", "NOTE"].map(str::to_owned)];
    for answer in answers {
        let mut row = std::array::from_fn(|_| "-".to_owned());
        row[0].clone_from(&answer.server.id);
        row[1].clone_from(&answer.server.rpc_addr);
        row[7] = String::new();
        match (&answer.node, answer.group(log)) {
            (Err(error), _) => row[7] = format!("no answer: {error}"),
            (Ok(node), None) if !node.waiting_for.is_empty() => {
                row[7] = format!("is not ready yet: {}", node.waiting_for);
            }
            (Ok(_), None) if answer.server.is_replica => row[7] = format!("has no replica of log {log} yet"),
            // Every node serves every log, and some have a replica of it.
            (Ok(node), None) => row[7] = note(node, None),
            (Ok(node), Some(group)) => {
                row[2] = role(group).to_owned();
                row[3] = group.term.to_string();
                row[4] = group.commit_index.to_string();
                row[5] = commit.saturating_sub(group.applied_index).to_string();
                row[6] = format!("{}..{}", group.first_offset, group.next_offset);
                row[7] = note(node, Some(group));
                if let Some(catch_up) = catch_up(answers, log, &answer.server.node_id) {
                    row[7] = [row[7].as_str(), &catching_up(catch_up)].join("; ").trim_start_matches("; ").to_owned();
                }
            }
        }
        rows.push(row);
    }
    let mut text = format!("cluster {name} ({cluster_id}), log {log}\n{}", output::columns(&rows));
    for group in report.groups.iter().filter(|group| group.log.as_deref() == Some(log) || !group.is_well()) {
        let _ = writeln!(text, "{}", group.summary());
    }
    text += &deleted(report);
    if let (level, Some(max)) = report.feature_level() {
        let _ = writeln!(
            text,
            "every node supports feature level {max}, and the cluster is at {level}: raise it with `seriatim cluster upgrade`"
        );
    }
    text
}

/// The maximum number of deleted logs that a line names.
const DELETED_NAMES_MAX: usize = 3;

/// Returns a line for each node whose disk still holds deleted logs.
fn deleted(report: &ClusterReport) -> String {
    let mut text = String::new();
    for answer in &report.answers {
        let Ok(node) = &answer.node else { continue };
        if node.deleted_bytes == 0 {
            continue;
        }
        let largest = node.deleted_logs.iter().take(DELETED_NAMES_MAX);
        let mut names: Vec<String> = largest.map(|log| format!("{} ({})", log.log, mib(log.stored_bytes))).collect();
        if node.deleted_logs.len() > DELETED_NAMES_MAX {
            names.push("others".to_owned());
        }
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "deleted logs hold {} on {}: {}; `seriatim log delete --purge` frees it",
            mib(node.deleted_bytes),
            answer.server.id,
            names.join(", ")
        );
    }
    text
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Returns all problems of a node: in its replicas of the log and of the catalog, its disk, its clock and its
/// certificates.
pub fn note(node: &GetNodeResponse, group: Option<&GroupStatus>) -> String {
    let catalog = node.groups.iter().find(|other| other.log == CATALOG);
    let damage = [(group, ""), (catalog, "catalog ")].into_iter().filter_map(|(group, of)| {
        let damage = group.map(|group| &group.damage).filter(|damage| !damage.is_empty())?;
        Some(format!("DAMAGED: {of}{damage}"))
    });
    let ranges = group.into_iter().flat_map(|group| &group.damaged_ranges).map(range);
    let ranges: Vec<_> = ranges.chain(catalog_ranges(node).map(|of| format!("catalog {}", range(of)))).collect();
    let ranges = Some(ranges.join("; ")).filter(|ranges| !ranges.is_empty());
    let stalled = group.map(|group| &group.stalled).filter(|stalled| !stalled.is_empty());
    let other = Some(&node.another_cluster).filter(|other| !other.is_empty());
    let notes = other
        .map(|other| format!("ANOTHER CLUSTER: {other}"))
        .into_iter()
        .chain(damage)
        .chain(ranges.map(|ranges| format!("DAMAGED ON DISK: {ranges}")))
        .chain(stalled.map(|stalled| format!("STALLED: {stalled}")))
        .chain(
            [disk(node), group.map(stamps).unwrap_or_default(), certificate(node)]
                .into_iter()
                .filter(|note| !note.is_empty()),
        );
    notes.collect::<Vec<_>>().join("; ")
}

/// Formats what a replica lacks, and how fast it catches up.
fn catching_up(catch_up: &CatchUp) -> String {
    let rate = if catch_up.bytes_per_second == 0 {
        "and nothing was acknowledged in the last seconds".to_owned()
    } else {
        let rate = mib(catch_up.bytes_per_second);
        match units::ms_of_duration(&catch_up.time_left) {
            0 => format!("at {rate}/s, which is not faster than the producers"),
            ms => format!("at {rate}/s, {} left", units::rough(Duration::from_millis(ms))),
        }
    };
    format!("catching up: {} behind, {rate}", mib(catch_up.bytes_left))
}

/// Formats the position of a damaged range, and its records.
fn range(range: &DamagedRange) -> String {
    let records = match range.next_offset {
        Some(next) if next <= range.first_offset => "no records".to_owned(),
        Some(next) if next == range.first_offset + 1 => format!("record {}", range.first_offset),
        Some(next) => format!("records {} to {}", range.first_offset, next - 1),
        None => format!("records from {} on", range.first_offset),
    };
    format!("{} byte {}, {records}", range.file, range.position)
}

fn disk(node: &GetNodeResponse) -> String {
    let disk = node.disk.get_or_default();
    let (free, needed) = (mib(disk.free_bytes), mib(accepting_again_bytes(disk.hard_bytes)));
    match disk.state.enum_value_or_default() {
        DiskState::DISK_STATE_UNSPECIFIED | DiskState::DISK_STATE_ENOUGH => String::new(),
        DiskState::DISK_STATE_LOW => format!("disk low: {free} free"),
        DiskState::DISK_STATE_FULL => format!("DISK FULL: {free} free; appends are refused until {needed} are free"),
    }
}

/// Returns a note if the newest timestamp is ahead of the node's clock by more than the permitted clock difference.
fn stamps(group: &GroupStatus) -> String {
    let ahead = Duration::from_millis(units::ms_of_duration(&group.append_time_ahead));
    if ahead <= AHEAD_MAX {
        return String::new();
    }
    format!("newest timestamp is {} ahead of the clock", units::rough(ahead))
}

/// Returns the details of each node, for --verbose. Counters that are 0 are omitted.
pub(super) fn details(report: &ClusterReport) -> String {
    let log = report.log.as_str();
    let mut text = String::new();
    for answer in &report.answers {
        let Ok(node) = &answer.node else { continue };
        let levels = match node.feature_level {
            0 => String::new(),
            level => {
                let supported = units::feature_levels(node.min_feature_level, node.max_feature_level);
                format!(", cluster at feature level {level}, supports {supported}")
            }
        };
        // Writing to a string can't fail.
        let _ = writeln!(text, "\n{} (version {}{levels})", answer.server.id, node.version);
        if let Some(group) = answer.group(log) {
            let config = group.config.get_or_default();
            let or_all = |n: u64, unit: &str| if n == 0 { "all".to_owned() } else { format!("{n} {unit}") };
            let bytes = or_all(config.min_retained_bytes.unwrap_or_default(), "bytes");
            let age = or_all(units::ms_of_duration(&config.retention_age), "ms");
            let _ = writeln!(text, "  {} bytes stored; kept by size: {bytes}, by age: {age}", group.stored_bytes);
            if group.unprotected_bytes > 0 {
                let _ = writeln!(text, "  {} synced bytes not covered by the manifest yet", group.unprotected_bytes);
            }
        }
        text += &metrics(node);
    }
    text
}

/// Returns a line for each counter, gauge and histogram that is not 0.
pub fn metrics(node: &GetNodeResponse) -> String {
    let mut text = String::new();
    for (metric, value) in node.metrics.iter().filter_map(|metric| Some((metric, number(metric)?))) {
        if value > 0 {
            // Writing to a string can't fail.
            let _ = writeln!(text, "  {} {value}", full_name(metric));
        }
    }
    for metric in node.metrics.iter().filter(|metric| metric.histogram().count > 0) {
        let histogram = metric.histogram();
        let (count, mean) = (histogram.count, histogram.sum / histogram.count as f64);
        let _ = writeln!(text, "  {} {count} values, mean {mean:.6}, {}", full_name(metric), quantile(histogram, 99));
    }
    text
}

/// Formats the upper bound of the bucket that contains the percentile.
fn quantile(histogram: &Histogram, percent: u64) -> String {
    let rank = (u128::from(histogram.count) * u128::from(percent)).div_ceil(100);
    let bucket = histogram.buckets.iter().find(|bucket| u128::from(bucket.count) >= rank);
    match bucket.map(|bucket| bucket.upper_bound).filter(|bound| bound.is_finite()) {
        Some(bound) => format!("{percent} % at most {bound}"),
        None => format!("{percent} % above the last bucket"),
    }
}
