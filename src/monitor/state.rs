//! `/api/cluster` and `/api/logs`: what the page shows, as JSON. It may change with any version; programs use the gRPC API
//! or `/metrics`.
//!
//! Times are in Unix milliseconds. Numbers that may exceed 2^53 are offsets and counters, and JavaScript rounds them. Other
//! nodes report any numbers, so sums are saturating: an overflow would end the node.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::nodes::{LogRow, NodeAnswer, Snapshot};
use crate::events::Event;
use crate::http::{Request, Response, Status};
use crate::pb::v1::metric::Value as MetricValue;
use crate::pb::v1::{DiskState, GetNodeResponse, GroupStatus, Metric, NodeState, Role};

/// The maximum number of logs in a response.
const LOGS_MAX: usize = 200;
/// The maximum number of cursors in a response, those that lag most.
const CURSORS_MAX: usize = 200;

/// Counters of each node, from which the page computes rates.
const COUNTERS: [(&str, &str); 8] = [
    ("appended_records", "seriatim_appended_records_total"),
    ("appended_bytes", "seriatim_appended_bytes_total"),
    ("read_records", "seriatim_read_records_total"),
    ("read_bytes", "seriatim_read_bytes_total"),
    ("elections", "seriatim_elections_total"),
    ("leader_changes", "seriatim_leader_changes_total"),
    ("catch_up_bytes", "seriatim_catch_up_bytes_sent_total"),
    ("messages_dropped", "seriatim_peer_messages_dropped_total"),
];

/// Histograms of each node, from which the page computes means and quantiles.
const HISTOGRAMS: [(&str, &str); 2] =
    [("sync_seconds", "seriatim_sync_seconds"), ("produce_seconds", "seriatim_produce_seconds")];

pub(super) fn cluster(snapshot: &Snapshot) -> Response {
    Response::json(
        Status::Ok,
        &json!({
            "time_ms": unix_ms(snapshot.taken),
            "cluster": { "name": snapshot.cluster_name, "id": snapshot.cluster_id },
            "me": snapshot.me,
            "version": env!("CARGO_PKG_VERSION"),
            "balancing": snapshot.balancing,
            "logs": snapshot.logs.len(),
            "problems": problems(snapshot),
            "nodes": snapshot.nodes.iter().map(node_json).collect::<Vec<_>>(),
            "events": snapshot.events.iter().map(event_json).collect::<Vec<_>>(),
        }),
    )
}

/// The parameters `filter`, a part of the name in any case, and `from`, the number of logs to skip.
pub(super) fn logs(snapshot: &Snapshot, request: &Request) -> Response {
    let filter = request.parameter("filter").unwrap_or_default().to_lowercase();
    let from: usize = request.parameter("from").and_then(|from| from.parse().ok()).unwrap_or(0);
    let views = views(snapshot);
    let matching: Vec<&LogRow> = snapshot.logs.iter().filter(|row| row.name.to_lowercase().contains(&filter)).collect();
    let shown = matching.iter().skip(from).take(LOGS_MAX);
    let mut cursors = cursors(snapshot);
    cursors.retain(|(name, ..)| name.to_lowercase().contains(&filter));
    let all_cursors = cursors.len();
    cursors.truncate(CURSORS_MAX);
    let catalog = views.get("").map(Vec::as_slice).unwrap_or_default();
    Response::json(
        Status::Ok,
        &json!({
            "time_ms": unix_ms(snapshot.taken),
            "total": snapshot.logs.len(),
            "matching": matching.len(),
            "from": from,
            "catalog": log_json(None, catalog),
            "logs": shown
                .map(|row| log_json(Some(row), views.get(row.name.as_str()).map(Vec::as_slice).unwrap_or_default()))
                .collect::<Vec<_>>(),
            "cursors_total": all_cursors,
            "cursors": cursors
                .iter()
                .map(|(name, lag, node)| json!({ "cursor": name, "lag": lag, "node": node }))
                .collect::<Vec<_>>(),
        }),
    )
}

/// The status of each log on each node that answers, by its name; the catalog has an empty one.
type View<'a> = (&'a str, &'a GroupStatus);

fn views(snapshot: &Snapshot) -> BTreeMap<&str, Vec<View<'_>>> {
    let mut views: BTreeMap<&str, Vec<View<'_>>> = BTreeMap::new();
    for node in &snapshot.nodes {
        for group in node.answer.iter().flat_map(|answer| &answer.groups) {
            let views = views.entry(&group.log).or_default();
            // A node has one replica of a log.
            if views.last().is_none_or(|(last, _)| *last != node.member.name) {
                views.push((&node.member.name, group));
            }
        }
    }
    views
}

/// Returns the status on the leader of the newest term, or else on the node that knows most.
fn best<'a>(views: &[View<'a>]) -> Option<View<'a>> {
    let is_leader = |group: &GroupStatus| group.role.enum_value_or_default() == Role::ROLE_LEADER;
    views.iter().max_by_key(|(_, group)| (group.term, is_leader(group), group.commit_index)).copied()
}

fn log_json(row: Option<&LogRow>, views: &[View<'_>]) -> Value {
    let newest = best(views);
    let (nodes, wanted) = row.map_or((Vec::new(), None), |row| (row.nodes.clone(), Some(row.replicas_wanted)));
    let group = newest.map(|(_, group)| group);
    let commit = group.map_or(0, |group| group.commit_index);
    let replicas = views.iter().map(|(node, group)| {
        json!({
            "node": node,
            "role": role(group),
            "term": group.term,
            "commit_index": group.commit_index,
            "applied_index": group.applied_index,
            "lag": commit.saturating_sub(group.applied_index),
            "stored_bytes": group.stored_bytes,
            "damage": group.damage,
            "stalled": group.stalled,
            "damaged_ranges": group.damaged_ranges.len(),
        })
    });
    json!({
        "name": row.map(|row| row.name.as_str()),
        "placed_on": nodes,
        "replicas_wanted": wanted,
        "leader": group.map(|group| group.leader.as_str()).filter(|leader| !leader.is_empty()),
        "term": group.map(|group| group.term),
        "commit_index": group.map(|group| group.commit_index),
        "first_offset": group.map(|group| group.first_offset),
        "next_offset": group.map(|group| group.next_offset),
        "stored_bytes": group.map(|group| group.stored_bytes),
        "voters": group.map(|group| group.replicas.iter().filter(|r| r.is_voter).map(|r| r.name.as_str()).collect::<Vec<_>>()),
        "last_append_ms": group.and_then(|group| Some(group.last_append_time.as_ref()?.seconds.saturating_mul(1000))),
        "replicas": replicas.collect::<Vec<_>>(),
    })
}

fn node_json(node: &NodeAnswer) -> Value {
    let NodeAnswer { member, answer } = node;
    let mut object = json!({
        "name": member.name,
        "node_id": member.node_id,
        "rpc_addr": member.client_addr,
        "bind_addr": member.peer_addr,
        "is_heard": member.is_heard,
        "state": match member.state.enum_value_or_default() {
            NodeState::NODE_STATE_UNSPECIFIED => "unknown",
            NodeState::NODE_STATE_JOINING => "joining",
            NodeState::NODE_STATE_ACTIVE => "active",
            NodeState::NODE_STATE_DRAINED => "drained",
            NodeState::NODE_STATE_REMOVING => "removing",
        },
        "replicas": member.replicas,
        "waits_for": member.waits_for,
    });
    match answer {
        Err(why) => object["error"] = json!(why),
        Ok(answer) => add_answer(&mut object, answer),
    }
    object
}

fn add_answer(object: &mut Value, answer: &GetNodeResponse) {
    let disk = answer.disk.get_or_default();
    let is_leader = |group: &&GroupStatus| group.role.enum_value_or_default() == Role::ROLE_LEADER;
    let logs = || answer.groups.iter().filter(|group| !group.log.is_empty());
    object["version"] = json!(answer.version);
    object["waiting_for"] = json!(answer.waiting_for);
    object["another_cluster"] = json!(answer.another_cluster);
    object["leads"] = json!(logs().filter(is_leader).count());
    object["lag"] = json!(sum(logs().map(|g| g.commit_index.saturating_sub(g.applied_index))));
    object["catalog"] = answer.groups.iter().find(|group| group.log.is_empty()).map_or(
        Value::Null,
        |group| json!({ "role": role(group), "term": group.term, "commit_index": group.commit_index }),
    );
    object["disk"] = json!({
        "state": disk_state(answer),
        "free_bytes": disk.free_bytes,
        "total_bytes": disk.total_bytes,
        "soft_bytes": disk.soft_bytes,
        "hard_bytes": disk.hard_bytes,
    });
    object["counters"] = COUNTERS
        .iter()
        .map(|(name, metric)| ((*name).to_owned(), json!(sum_of(&answer.metrics, metric))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    object["histograms"] = HISTOGRAMS
        .iter()
        .map(|(name, metric)| ((*name).to_owned(), histogram_json(&answer.metrics, metric)))
        .collect::<serde_json::Map<_, _>>()
        .into();
}

fn disk_state(answer: &GetNodeResponse) -> &'static str {
    match answer.disk.get_or_default().state.enum_value_or_default() {
        DiskState::DISK_STATE_UNSPECIFIED => "unknown",
        DiskState::DISK_STATE_ENOUGH => "enough",
        DiskState::DISK_STATE_LOW => "low",
        DiskState::DISK_STATE_FULL => "full",
    }
}

fn role(group: &GroupStatus) -> &'static str {
    match group.role.enum_value_or_default() {
        Role::ROLE_UNSPECIFIED => "unknown",
        Role::ROLE_FOLLOWER => "follower",
        Role::ROLE_CANDIDATE => "candidate",
        Role::ROLE_LEADER => "leader",
        Role::ROLE_LEARNER => "learner",
    }
}

/// Returns the sum of a counter over its labels.
fn sum_of(metrics: &[Metric], name: &str) -> u64 {
    let of_name = metrics.iter().filter(|metric| metric.name == name);
    sum(of_name.map(|metric| if let Some(MetricValue::Counter(value)) = metric.value { value } else { 0 }))
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

/// Returns count, sum and cumulative buckets without the last one, whose bound is infinite.
fn histogram_json(metrics: &[Metric], name: &str) -> Value {
    let found = metrics.iter().find(|metric| metric.name == name && metric.has_histogram());
    let Some(histogram) = found.map(Metric::histogram) else { return Value::Null };
    let finite = histogram.buckets.iter().filter(|bucket| bucket.upper_bound.is_finite());
    json!({
        "count": histogram.count,
        "sum": histogram.sum,
        "buckets": finite.map(|bucket| json!([bucket.upper_bound, bucket.count])).collect::<Vec<_>>(),
    })
}

/// Returns the lag of each cursor that a leader reports, with the node that reports it; the largest lag first.
fn cursors(snapshot: &Snapshot) -> Vec<(String, i64, String)> {
    let mut cursors = Vec::new();
    for node in &snapshot.nodes {
        for metric in node.answer.iter().flat_map(|answer| &answer.metrics) {
            if metric.name == "seriatim_cursor_lag_records"
                && let (Some(cursor), Some(MetricValue::Gauge(lag))) = (metric.labels.get("cursor"), &metric.value)
            {
                cursors.push((cursor.clone(), *lag, node.member.name.clone()));
            }
        }
    }
    cursors.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    cursors
}

fn event_json(event: &Event) -> Value {
    json!({
        "first_ms": unix_ms(event.first),
        "last_ms": unix_ms(event.last),
        "kind": event.kind.code(),
        "severity": event.severity.name(),
        "count": event.count,
        "text": event.text,
    })
}

/// Returns what needs attention, the most serious first: `[severity, text]`. `seriatim status` finds more, and says what to
/// do.
fn problems(snapshot: &Snapshot) -> Vec<Value> {
    let mut found: Vec<(u8, String)> = Vec::new();
    for NodeAnswer { member, answer } in &snapshot.nodes {
        let name = &member.name;
        match answer {
            Err(_) if !member.is_heard => found.push((1, format!("node {name} is not heard"))),
            Err(why) => found.push((1, format!("node {name} does not report its state: {why}"))),
            Ok(answer) => {
                if !answer.waiting_for.is_empty() {
                    found.push((1, format!("node {name} is not ready: {}", answer.waiting_for)));
                }
                if !answer.another_cluster.is_empty() {
                    found.push((0, format!("node {name} refuses appends: another cluster of this name answers")));
                }
                match disk_state(answer) {
                    "full" => found.push((0, format!("the disk of node {name} is full: its appends are refused"))),
                    "low" => found.push((1, format!("the disk of node {name} fills"))),
                    _ => {}
                }
                let damaged = |group: &&GroupStatus| !group.damage.is_empty() || !group.damaged_ranges.is_empty();
                for group in answer.groups.iter().filter(damaged) {
                    let log = if group.log.is_empty() { "the catalog" } else { &group.log };
                    found.push((0, format!("data of {log} is damaged on node {name}")));
                }
            }
        }
    }
    let views = views(snapshot);
    let mut leaderless = snapshot.logs.iter().filter(|row| {
        let newest = views.get(row.name.as_str()).and_then(|views| best(views));
        newest.is_none_or(|(_, group)| group.leader.is_empty())
    });
    if let Some(first) = leaderless.next() {
        let more = leaderless.count();
        let others = if more > 0 { format!(" and {more} more logs") } else { String::new() };
        found.push((0, format!("no leader is known for log {}{others}", first.name)));
    }
    found.sort();
    let severity = |rank: u8| if rank == 0 { "error" } else { "warning" };
    found.iter().map(|(rank, text)| json!({ "severity": severity(*rank), "text": text })).collect()
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
