//! `seriatim.v1.Admin`: trims a log, and describes a node.

use super::configure::settings;
use super::core::{Core, bounds};
use super::error::{ApiError, FailedProposal};
use super::messages::{Request, decode, decode_change};
use super::metrics::stamp_ahead_ms;
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::consensus::handle::{GroupStatus, Proposal, Role};
use crate::metrics::{Distribution, SampleValue};
use crate::pb::admin;
use crate::storage::scrub::DamagedRange;
use crate::storage::space::{SpaceState, SpaceStatus};
use crate::types::{GroupId, Offset};
use crate::watermark::Visible;

/// Serves `Trim`. Responds once the trim is applied on this node.
///
/// # Errors
/// Those of [`super::status`].
pub async fn trim(service: Service, call: Call, request: Request) -> Result<admin::TrimResponse, ApiError> {
    let request: admin::TrimRequest = decode_change(&request)?;
    let name = call.log_name(&request.log)?;
    let core = service.core()?;
    let log = core.log(&name, &service.timers, call.deadline).await?;
    let deadline = proposal_deadline(call.deadline);
    let trim = Proposal::trim(log.group, Offset(request.first_offset));
    let proposal = Proposal { deadline: Some(deadline), ..trim };
    let applied = core.propose(call.principal().as_str(), proposal).await.map_err(|error| {
        let bounds = bounds(&log, &log.watermark.get());
        let offset = Offset(request.first_offset);
        ApiError::from_propose(error, &FailedProposal { bounds: &bounds, offset, producer_id: 0 })
    })?;
    // The trim is committed, so it is final even if this node does not apply it in time.
    let mark = core.wait_applied(log.group, applied.index, &log.watermark, &service.timers, deadline).await;
    let mark = mark.unwrap_or_else(|_| log.watermark.get());
    let mut response = admin::TrimResponse::new();
    response.first_offset = mark.first_offset.0.max(request.first_offset);
    Ok(response)
}

/// Serves `GetNode`, also on a node that is not a member of a cluster yet.
///
/// # Errors
/// Those of [`super::status`].
pub async fn get_node(service: Service, _call: Call, request: Request) -> Result<admin::GetNodeResponse, ApiError> {
    let _: admin::GetNodeRequest = decode(&request)?;
    let mut response = admin::GetNodeResponse::new();
    response.name = service.me.node_name.to_string();
    response.node_id = service.me.node_id.0;
    response.cluster_name.clone_from(&service.me.cluster_name);
    response.version = env!("CARGO_PKG_VERSION").to_owned();
    for sample in service.metrics.registry().samples() {
        match sample.value {
            SampleValue::Counter(value) => response.counters.push(counter(sample.name, value)),
            SampleValue::Gauge(value) => {
                response.counters.push(counter(sample.name, u64::try_from(value).unwrap_or(0)))
            }
            SampleValue::Histogram(value) => response.histograms.push(histogram(sample.name, value)),
        }
    }
    let Some(core) = service.member.get() else {
        response.waiting_for = service.waiting.get();
        return Ok(response);
    };
    let levels = core.catalog.level();
    response.feature_level = levels.get().0;
    (response.feature_level_min, response.feature_level_max) = (levels.range().min().0, levels.range().max().0);
    response.cluster_id = core.cluster_id.to_string();
    response.disk = Some(disk(&core.space.status())).into();
    response.groups = core.consensus.all_statuses().iter().map(|status| group(core, status)).collect();
    response.another_cluster = core.forward.rival().unwrap_or_default();
    Ok(response)
}

fn disk(space: &SpaceStatus) -> admin::DiskStatus {
    let state = match space.state {
        SpaceState::Enough => admin::DiskState::DISK_STATE_ENOUGH,
        SpaceState::Low => admin::DiskState::DISK_STATE_LOW,
        SpaceState::Full => admin::DiskState::DISK_STATE_FULL,
    };
    admin::DiskStatus {
        state: state.into(),
        free_bytes: space.free_bytes,
        total_bytes: space.total_bytes,
        soft_bytes: space.soft_bytes,
        hard_bytes: space.hard_bytes,
        refused: space.refused,
        reserve: space.reserve,
        ..admin::DiskStatus::default()
    }
}

fn counter(name: String, value: u64) -> admin::Counter {
    admin::Counter { name, value, ..admin::Counter::default() }
}

fn histogram(name: String, Distribution { count, sum, buckets }: Distribution) -> admin::Histogram {
    let bucket = |(upper_bound, count)| admin::Bucket { upper_bound, count, ..admin::Bucket::default() };
    let buckets = buckets.into_iter().map(bucket).collect();
    admin::Histogram { name, count, sum, buckets, ..admin::Histogram::default() }
}

fn group(core: &Core, status: &GroupStatus) -> admin::GroupStatus {
    let catalog = core.catalog.get();
    let meta = catalog.log(status.group);
    let mark = match meta {
        _ if status.group == GroupId::CATALOG => core.catalog_watermark.get(),
        Some(meta) => core.logs.get(&meta.name).map(|log| log.watermark.get()).unwrap_or_default(),
        None => Visible::default(),
    };
    let mut group = admin::GroupStatus::new();
    group.group = status.group.0;
    group.log = meta.map(|meta| meta.name.to_string()).unwrap_or_default();
    group.role = match status.role {
        Role::Follower => admin::Role::ROLE_FOLLOWER,
        Role::Candidate => admin::Role::ROLE_CANDIDATE,
        Role::Leader => admin::Role::ROLE_LEADER,
        Role::Learner => admin::Role::ROLE_LEARNER,
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
    group.voters = status.voters.iter().map(|id| id.0).collect();
    group.learners = status.learners.iter().map(|id| id.0).collect();
    group.damage = status.damage.clone().unwrap_or_default();
    group.stalled = status
        .stalled
        .map(|(leader, entry)| {
            let leader = catalog.member(leader).map_or_else(|| leader.to_string(), |member| member.name.to_string());
            format!("entry {entry} is missing here, and the leader {leader} can't read it from its disk")
        })
        .unwrap_or_default();
    group.settings = meta.map(settings).into();
    let log = meta.and_then(|meta| core.logs.get(&meta.name));
    if let Some(log) = log {
        group.stored_bytes = log.reader.stored_bytes();
        group.unprotected_bytes = log.reader.unprotected_bytes();
        group.last_append_time_us = mark.last_append_time_us;
        group.stamp_ahead_ms = stamp_ahead_ms(&mark);
    }
    group.damaged_ranges = core.scrub.damaged(status.group).iter().map(damaged_range).collect();
    group
}

fn damaged_range(range: &DamagedRange) -> admin::DamagedRange {
    let mut message = admin::DamagedRange::new();
    message.file.clone_from(&range.file);
    message.position = range.position;
    message.bytes = range.bytes;
    message.first_offset = range.first_offset.0;
    message.next_offset = range.next_offset.map(|offset| offset.0);
    message.what.clone_from(&range.what);
    message
}
