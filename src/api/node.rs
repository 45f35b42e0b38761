//! `GetNode`: what a node knows about itself.

use std::time::Duration;

use super::core::Core;
use super::error::ApiError;
use super::log_settings::config;
use super::messages::{Request, decode};
use super::metrics::stamp_ahead_ms;
use super::service::{Call, Service};
use super::timestamp::timestamp_of_us;
use crate::catalog::Catalog;
use crate::consensus::handle::{Behind, GroupStatus, Role};
use crate::metrics::{Distribution, Sample, SampleValue};
use crate::pb::v1;
use crate::storage::scrub::DamagedRange;
use crate::storage::space::{SpaceState, SpaceStatus};
use crate::types::{GroupId, NodeId};
use crate::watermark::Visible;

/// The maximum number of deleted logs in a response.
const DELETED_LOGS_MAX: usize = 100;

/// Serves `GetNode`, also on a node that is not a member of a cluster yet.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_node(service: Service, call: Call, request: Request) -> Result<v1::GetNodeResponse, ApiError> {
    let _: v1::GetNodeRequest = decode(&request, call.package)?;
    let mut response = v1::GetNodeResponse::new();
    response.name = service.me.node_name.to_string();
    response.node_id = service.me.node_id.to_string();
    response.cluster_name.clone_from(&service.me.cluster_name);
    response.version = env!("CARGO_PKG_VERSION").to_owned();
    response.metrics = service.metrics.registry().samples().into_iter().map(metric).collect();
    let Some(core) = service.member.get() else {
        response.waiting_for = service.waiting.get();
        return Ok(response);
    };
    let levels = core.catalog.level();
    response.feature_level = levels.get().0;
    (response.min_feature_level, response.max_feature_level) = (levels.range().min().0, levels.range().max().0);
    response.cluster_id = core.cluster_id.to_string();
    response.disk = Some(disk(&core.space.status())).into();
    response.groups = core.consensus.all_statuses().iter().map(|status| group(core, status)).collect();
    response.another_cluster = core.forward.rival().unwrap_or_default();
    let deleted = deleted_logs(core);
    response.deleted_bytes = deleted.iter().map(|log| log.stored_bytes).sum();
    response.deleted_logs = deleted;
    response.deleted_logs.truncate(DELETED_LOGS_MAX);
    Ok(response)
}

/// Returns the deleted logs that have files on this node, the largest first.
fn deleted_logs(core: &Core) -> Vec<v1::DeletedLog> {
    let catalog = core.catalog.get();
    let deleted = core.logs.deleted().into_iter().filter_map(|log| {
        let deletion = catalog.log(log.group)?.deletion?;
        Some(v1::DeletedLog {
            log: log.name.to_string(),
            log_id: log.log_id.to_string(),
            stored_bytes: log.reader.stored_bytes(),
            purge_time: Some(timestamp_of_us(deletion.purge_us)).into(),
            ..v1::DeletedLog::default()
        })
    });
    let mut deleted: Vec<_> = deleted.collect();
    deleted.sort_by(|a, b| b.stored_bytes.cmp(&a.stored_bytes).then_with(|| a.log.cmp(&b.log)));
    deleted
}

fn disk(space: &SpaceStatus) -> v1::DiskStatus {
    let state = match space.state {
        SpaceState::Enough => v1::DiskState::DISK_STATE_ENOUGH,
        SpaceState::Low => v1::DiskState::DISK_STATE_LOW,
        SpaceState::Full => v1::DiskState::DISK_STATE_FULL,
    };
    v1::DiskStatus {
        state: state.into(),
        free_bytes: space.free_bytes,
        total_bytes: space.total_bytes,
        soft_bytes: space.soft_bytes,
        hard_bytes: space.hard_bytes,
        refused: space.refused,
        reserve: space.reserve,
        ..v1::DiskStatus::default()
    }
}

fn metric(sample: Sample) -> v1::Metric {
    let mut metric = v1::Metric::new();
    metric.name = sample.name;
    metric.labels = sample.label.into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
    match sample.value {
        SampleValue::Counter(value) => metric.set_counter(value),
        SampleValue::Gauge(value) => metric.set_gauge(value),
        SampleValue::Histogram(value) => metric.set_histogram(histogram(value)),
    }
    metric
}

fn histogram(Distribution { count, sum, buckets }: Distribution) -> v1::Histogram {
    let bucket = |(upper_bound, count)| v1::Bucket { upper_bound, count, ..v1::Bucket::default() };
    let buckets = buckets.into_iter().map(bucket).collect();
    v1::Histogram { count, sum, buckets, ..v1::Histogram::default() }
}

fn group(core: &Core, status: &GroupStatus) -> v1::GroupStatus {
    let catalog = core.catalog.get();
    let meta = catalog.log(status.group);
    let mark = match meta {
        _ if status.group == GroupId::CATALOG => core.catalog_watermark.get(),
        Some(meta) => core.logs.get(&meta.name).map(|log| log.watermark.get()).unwrap_or_default(),
        None => Visible::default(),
    };
    let mut group = v1::GroupStatus::new();
    group.log = meta.map(|meta| meta.name.to_string()).unwrap_or_default();
    group.role = match status.role {
        Role::Follower => v1::Role::ROLE_FOLLOWER,
        Role::Candidate => v1::Role::ROLE_CANDIDATE,
        Role::Leader => v1::Role::ROLE_LEADER,
        Role::Learner => v1::Role::ROLE_LEARNER,
    }
    .into();
    group.term = status.term.0;
    let leader = status.leader.and_then(|leader| catalog.member(leader));
    group.leader = leader.map(|member| member.name.to_string()).unwrap_or_default();
    group.last_index = status.last_index.0;
    group.commit_index = status.commit_index.0;
    group.applied_index = status.applied_index.0;
    group.first_offset = mark.first_offset.0;
    group.next_offset = mark.next_offset.0;
    let voters = status.voters.iter().map(|id| replica(&catalog, *id, true));
    let learners = status.learners.iter().map(|id| replica(&catalog, *id, false));
    group.replicas = voters.chain(learners).collect();
    for (node, behind) in core.consensus.behind(status.group).iter().flat_map(|behind| behind.iter()) {
        let id = node.to_string();
        if let Some(replica) = group.replicas.iter_mut().find(|replica| replica.node_id == id) {
            replica.catch_up = Some(catch_up(behind)).into();
        }
    }
    if core.consensus.lost(status.group).is_some() {
        let placements = meta.into_iter().flat_map(|meta| &meta.replicas);
        group.replicas = placements.map(|placement| replica(&catalog, placement.node, true)).collect();
    }
    group.damage = status.damage.clone().unwrap_or_default();
    group.stalled = status
        .stalled
        .map(|(leader, entry)| {
            let leader = catalog.member(leader).map_or_else(|| leader.to_string(), |member| member.name.to_string());
            format!("entry {entry} is missing here, and the leader {leader} can't read it from its disk")
        })
        .unwrap_or_default();
    let defaults = &catalog.cluster_settings().log_defaults;
    group.config = meta.map(|meta| config(&meta.settings, defaults)).into();
    let log = meta.and_then(|meta| core.logs.get(&meta.name));
    if let Some(log) = log {
        group.stored_bytes = log.reader.stored_bytes();
        group.unprotected_bytes = log.reader.unprotected_bytes();
        group.last_append_time =
            (mark.last_append_time_us > 0).then(|| timestamp_of_us(mark.last_append_time_us)).into();
        group.append_time_ahead = Some(Duration::from_millis(stamp_ahead_ms(&mark)).into()).into();
    }
    group.damaged_ranges = core.scrub.damaged(status.group).iter().map(damaged_range).collect();
    group
}

fn replica(catalog: &Catalog, id: NodeId, is_voter: bool) -> v1::Replica {
    let name = catalog.member(id).map(|member| member.name.to_string()).unwrap_or_default();
    v1::Replica { node_id: id.to_string(), name, is_voter, ..v1::Replica::default() }
}

fn catch_up(behind: &Behind) -> v1::CatchUp {
    v1::CatchUp {
        entries_left: behind.entries,
        bytes_left: behind.bytes,
        bytes_per_second: behind.bytes_per_second,
        time_left: behind.time_left.map(Into::into).into(),
        ..v1::CatchUp::default()
    }
}

fn damaged_range(range: &DamagedRange) -> v1::DamagedRange {
    let mut message = v1::DamagedRange::new();
    message.file.clone_from(&range.file);
    message.position = range.position;
    message.bytes = range.bytes;
    message.first_offset = range.first_offset.0;
    message.next_offset = range.next_offset.map(|offset| offset.0);
    message.what.clone_from(&range.what);
    message
}
