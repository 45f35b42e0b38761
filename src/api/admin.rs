//! `seriatim.v1.Admin`: trims a log, and describes a node.

use super::configure::settings;
use super::core::{Core, bounds};
use super::error::{ApiError, FailedProposal};
use super::messages::{Request, decode, decode_change};
use super::router::proposal_deadline;
use super::service::{Call, Service};
use crate::clock::wall_us;
use crate::consensus::handle::{GroupStatus, Proposal, Role};
use crate::metrics::Sample;
use crate::pb::admin;
use crate::storage::scrub::DamagedRange;
use crate::storage::space::{SpaceState, SpaceStatus};
use crate::types::{GroupId, Offset};
use crate::watermark::Visible;

/// Serves `Trim`: answered once it is applied on this node.
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
    // It is committed, and so final, even if this node does not apply it in time.
    let mark = core.applied(log.group, applied.index, &log.watermark, &service.timers, deadline).await;
    let mark = mark.unwrap_or_else(|_| log.watermark.get());
    let mut response = admin::TrimResponse::new();
    response.first_offset = mark.first_offset.0.max(request.first_offset);
    Ok(response)
}

/// Serves `GetNode`; also on a node that is not a member yet.
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
    let held = service.limits.usage();
    let now = [("streams", held.streams), ("calls", held.calls), ("bytes_in_flight", held.all_bytes())];
    let now = now.map(|(what, value)| (format!("seriatim_{what}_now"), value));
    let (counters, histograms) = metrics(&service.metrics.registry().samples());
    response.counters = counters;
    response.histograms = histograms;
    response.counters.extend(now.map(counter));
    let Some(core) = service.member.get() else {
        response.waiting_for = service.waiting.get();
        return Ok(response);
    };
    let levels = core.catalog.level();
    response.feature_level = levels.get().0;
    (response.feature_level_min, response.feature_level_max) = (levels.range().min().0, levels.range().max().0);
    response.cluster_id = core.cluster_id.to_string();
    let dropped = core.consensus.peer_messages_dropped();
    response.counters.push(counter(("seriatim_peer_messages_dropped_total".to_owned(), dropped)));
    response.disk = Some(disk(&core.space.status())).into();
    response.groups = core.consensus.all_statuses().iter().map(|status| group(core, status)).collect();
    let damaged = response.groups.iter().filter(|group| !group.damage.is_empty()).count();
    let ranges: usize = response.groups.iter().map(|group| group.damaged_ranges.len()).sum();
    let most = |of: fn(&admin::GroupStatus) -> u64| response.groups.iter().map(of).max().unwrap_or(0);
    let now = [
        ("replicas_damaged", damaged as u64),
        ("damaged_ranges", ranges as u64),
        ("stamp_ahead_ms", most(|g| g.stamp_ahead_ms)),
        ("unprotected_bytes", most(|g| g.unprotected_bytes)),
    ];
    response.counters.extend(now.map(|(what, value)| counter((format!("seriatim_{what}_now"), value))));
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

/// Splits samples into counters (gauges too) and histograms, whose samples follow each other.
fn metrics(samples: &[Sample]) -> (Vec<admin::Counter>, Vec<admin::Histogram>) {
    let (mut counters, mut histograms) = (Vec::new(), Vec::<admin::Histogram>::new());
    for sample in samples {
        let (base, labels) =
            sample.name.split_once('{').map_or((sample.name.as_str(), ""), |(base, rest)| (base, rest));
        let of = |suffix: &str, histograms: &mut Vec<admin::Histogram>| -> Option<usize> {
            let name = base.strip_suffix(suffix)?;
            if suffix == "_sum" || histograms.last().is_none_or(|last| last.name != name) {
                histograms.push(admin::Histogram { name: name.to_owned(), ..Default::default() });
            }
            Some(histograms.len() - 1)
        };
        if let Some(i) = of("_sum", &mut histograms) {
            histograms[i].sum = sample.value;
        } else if let Some(i) = of("_count", &mut histograms) {
            histograms[i].count = sample.value as u64;
        } else if let Some(i) = of("_bucket", &mut histograms) {
            let bound = labels.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(bound, _)| bound);
            let Some(bound) = bound.and_then(|bound| bound.parse::<f64>().ok()) else { continue };
            let bucket = admin::Bucket { upper_bound: bound, count: sample.value as u64, ..Default::default() };
            histograms[i].buckets.push(bucket);
        } else {
            counters.push(counter((sample.name.clone(), sample.value.max(0.0) as u64)));
        }
    }
    (counters, histograms)
}

fn counter((name, value): (String, u64)) -> admin::Counter {
    let mut counter = admin::Counter::new();
    (counter.name, counter.value) = (name, value);
    counter
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
        group.stamp_ahead_ms = mark.last_append_time_us.saturating_sub(wall_us()) / 1000;
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
