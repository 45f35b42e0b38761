//! Formats the report as one JSON object.

use serde_json::{Value, json};

use super::answer::{catalog_ranges, catch_up, role};
use super::finding::{CheckState, ClusterFinding};
use super::health::GroupHealth;
use super::report::ClusterReport;
use crate::cli::units;
use crate::client::metrics::full_name;
use crate::pb::v1::{CatchUp, DamagedRange, DeletedLog, DiskState, GetNodeResponse, GroupStatus, Metric, metric};

/// Returns the answers of all nodes, the groups with their voters, the findings and the state of a check.
pub(super) fn json(report: &ClusterReport) -> Value {
    let log = report.log.as_str();
    let nodes = report.answers.iter().map(|answer| {
        let mut object = json!({ "name": answer.server.id, "rpc_addr": answer.server.rpc_addr });
        match &answer.node {
            Err(error) => object["error"] = json!(error),
            Ok(node) => add_node(&mut object, node),
        }
        if let Some(group) = answer.group(log) {
            object["log"] = replica_json(group);
            if let Some(catch_up) = catch_up(&report.answers, log, &answer.server.node_id) {
                object["log"]["catch_up"] = catch_up_json(catch_up);
            }
        }
        object
    });
    let (level, raise_to) = report.feature_level();
    json!({
        "cluster_id": report.cluster_id,
        "feature_level": { "cluster": level, "raise_to": raise_to },
        "log": log,
        "nodes": nodes.collect::<Vec<_>>(),
        "groups": report.groups.iter().map(group_json).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "check": report.state().name().to_lowercase(),
    })
}

/// Adds what a node reports of itself, without its replicas.
pub fn add_node(object: &mut Value, node: &GetNodeResponse) {
    object["version"] = json!(node.version);
    object["feature_level"] = json!({
        "cluster": node.feature_level,
        "min": node.min_feature_level,
        "max": node.max_feature_level,
    });
    object["another_cluster"] = json!(node.another_cluster);
    object["waiting_for"] = json!(node.waiting_for);
    object["disk"] = disk_json(node);
    object["deleted_bytes"] = json!(node.deleted_bytes);
    object["deleted_logs"] = node.deleted_logs.iter().map(deleted_json).collect();
    object["metrics"] = Value::Object(node.metrics.iter().map(metric_json).collect());
    object["catalog_damaged_ranges"] = catalog_ranges(node).map(range_json).collect();
}

/// Returns the object of a node's replica of a log.
pub fn replica_json(group: &GroupStatus) -> Value {
    let config = group.config.get_or_default();
    json!({
        "role": role(group),
        "term": group.term,
        "commit_index": group.commit_index,
        "applied_index": group.applied_index,
        "first_offset": group.first_offset,
        "next_offset": group.next_offset,
        "stored_bytes": group.stored_bytes,
        "unprotected_bytes": group.unprotected_bytes,
        "last_append_time_us": units::us_of_timestamp(&group.last_append_time).unwrap_or_default(),
        "append_time_ahead_ms": units::ms_of_duration(&group.append_time_ahead),
        "min_retained_bytes": config.min_retained_bytes.unwrap_or_default(),
        "retention_ms": units::ms_of_duration(&config.retention_age),
        "damage": group.damage,
        "stalled": group.stalled,
        "damaged_ranges": group.damaged_ranges.iter().map(range_json).collect::<Vec<_>>(),
    })
}

/// Returns the object of what a lagging replica lacks. `seconds_left` is null if it does not get closer.
fn catch_up_json(catch_up: &CatchUp) -> Value {
    let ms = catch_up.time_left.as_ref().map(|_| units::ms_of_duration(&catch_up.time_left));
    json!({
        "entries_left": catch_up.entries_left,
        "bytes_left": catch_up.bytes_left,
        "bytes_per_second": catch_up.bytes_per_second,
        "seconds_left": ms.map(|ms| ms as f64 / 1000.0),
    })
}

/// Returns the object for a node that is not ready yet.
pub(super) fn waiting_json(log: &str, addr: &str, waiting_for: &str) -> Value {
    let finding = ClusterFinding::joining(addr, waiting_for);
    json!({
        "cluster_id": "",
        "log": log,
        "nodes": [],
        "groups": [],
        "findings": [finding_json(&finding)],
        "check": finding.kind.state().name().to_lowercase(),
        "waiting_for": waiting_for,
    })
}

/// Returns the object of a check that no node answered.
pub(super) fn not_told(state: CheckState, why: &str) -> Value {
    json!({ "check": state.name().to_lowercase(), "error": why })
}

/// Returns the object of a group. `log` is null for the catalog, and `may_fail` is null without a majority.
fn group_json(group: &GroupHealth) -> Value {
    let names = |alive: bool| {
        let voters = group.voters.iter().filter(move |voter| voter.missing.is_none() == alive);
        voters.map(|voter| json!(voter.name)).collect::<Vec<_>>()
    };
    let missing = group.missing().map(|(voter, why)| json!({ "name": voter.name, "why": why.one() }));
    json!({
        "log": group.log,
        "voters": group.voters.iter().map(|voter| voter.name.as_str()).collect::<Vec<_>>(),
        "learners": group.learners,
        "alive": names(true),
        "missing": missing.collect::<Vec<_>>(),
        "majority": group.majority(),
        "may_fail": group.may_fail(),
        "leader": group.leader,
    })
}

fn finding_json(finding: &ClusterFinding) -> Value {
    json!({
        "kind": finding.kind.name(),
        "log": finding.log,
        "nodes": finding.nodes,
        "message": finding.message,
    })
}

/// Returns the name of a metric with its labels, and its value: a number, or the count and the sum of a histogram.
fn metric_json(metric: &Metric) -> (String, Value) {
    let value = match &metric.value {
        Some(metric::Value::Counter(value)) => json!(value),
        Some(metric::Value::Gauge(value)) => json!(value),
        Some(metric::Value::Histogram(value)) => json!({ "count": value.count, "sum": value.sum }),
        None => Value::Null,
    };
    (full_name(metric), value)
}

/// Returns Unix microseconds; 0 if the time is absent.
fn deleted_json(log: &DeletedLog) -> Value {
    json!({
        "log": log.log,
        "log_id": log.log_id,
        "stored_bytes": log.stored_bytes,
        "purge_time_us": units::us_of_timestamp(&log.purge_time),
    })
}

fn disk_json(node: &GetNodeResponse) -> Value {
    let disk = node.disk.get_or_default();
    let state = match disk.state.enum_value_or_default() {
        DiskState::DISK_STATE_UNSPECIFIED => "unknown",
        DiskState::DISK_STATE_ENOUGH => "enough",
        DiskState::DISK_STATE_LOW => "low",
        DiskState::DISK_STATE_FULL => "full",
    };
    json!({
        "state": state,
        "free_bytes": disk.free_bytes,
        "total_bytes": disk.total_bytes,
        "soft_bytes": disk.soft_bytes,
        "hard_bytes": disk.hard_bytes,
        "refused": disk.refused,
        "reserve": disk.reserve,
    })
}

fn range_json(range: &DamagedRange) -> Value {
    json!({
        "file": range.file,
        "position": range.position,
        "bytes": range.bytes,
        "first_offset": range.first_offset,
        "next_offset": range.next_offset,
        "what": range.what,
    })
}
