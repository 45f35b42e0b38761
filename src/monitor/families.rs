//! Metrics of the logs, the disk and the cluster, collected when they are read.
//!
//! Each log with a replica on this node is a label value, so the size of a scrape grows with their number: about 0.5 KiB
//! for each. At most [`LOGS_MEASURED_MAX`] logs are measured, those that were created first. The values over all logs
//! count every log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::health::ReadyCheck;
use crate::api::core::Core;
use crate::api::service::Service;
use crate::consensus::handle::Role;
use crate::grpc::sockets::{connections, servers};
use crate::metrics::{Collected, Family, FamilyKind};
use crate::types::{GroupId, NodeId};

/// The maximum number of logs that are measured one by one.
const LOGS_MEASURED_MAX: usize = 1000;

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: FamilyKind::Gauge, labels, help }
}

const FAMILIES: &[Family] = &[
    gauge("seriatim_build_info", &["version"], "1, with the version of the program"),
    gauge("seriatim_ready", &[], "1 while the node is ready, otherwise 0"),
    gauge("seriatim_feature_level", &[], "The feature level of the cluster, as far as this node knows"),
    gauge("seriatim_connections", &[], "Connections from clients and peers that are open"),
    gauge("seriatim_members", &[], "Members of the cluster"),
    gauge("seriatim_member_heard", &["node"], "1 while the heartbeats of this member arrive, otherwise 0"),
    gauge("seriatim_another_cluster", &[], "1 while another cluster of the same name answers, otherwise 0"),
    gauge("seriatim_disk_free_bytes", &[], "Free space on the disk of the data directory"),
    gauge("seriatim_disk_total_bytes", &[], "Size of the file system of the data directory"),
    gauge("seriatim_disk_soft_limit_bytes", &[], "Free space below which the node warns"),
    gauge("seriatim_disk_hard_limit_bytes", &[], "Free space below which appends are refused"),
    gauge("seriatim_disk_full", &[], "1 while appends are refused because the disk is full, otherwise 0"),
    Family {
        name: "seriatim_disk_full_refused",
        kind: FamilyKind::Counter,
        labels: &[],
        help: "Appends that were refused because the disk was full",
    },
    gauge("seriatim_logs", &[], "Logs of the cluster that are not deleted"),
    gauge("seriatim_logs_not_measured", &[], "Logs with a replica here that have no metrics of their own"),
    gauge("seriatim_replicas", &[], "Replicas of logs on this node"),
    gauge("seriatim_replicas_leading", &[], "Replicas of logs on this node that lead"),
    gauge("seriatim_replicas_without_leader", &[], "Replicas on this node that know no leader, the catalog included"),
    gauge("seriatim_replicas_stalled", &[], "Replicas on this node whose leader can not read an entry that they lack"),
    gauge("seriatim_stored_bytes", &[], "Bytes of the files of all logs on this node"),
    gauge("seriatim_deleted_bytes", &[], "Bytes of the files of deleted logs on this node"),
    gauge("seriatim_log_leader", &["log"], "1 if this node leads the log, otherwise 0"),
    gauge("seriatim_log_leader_known", &["log"], "1 if this node knows the leader of the log, otherwise 0"),
    gauge("seriatim_log_term", &["log"], "The newest term of the log that this node knows"),
    gauge("seriatim_log_commit_index", &["log"], "The last entry of the log that this node knows as committed"),
    gauge(
        "seriatim_log_apply_lag_entries",
        &["log"],
        "Committed entries of the log that this node has not applied yet",
    ),
    gauge("seriatim_log_first_offset", &["log"], "The first offset of the log that can be read"),
    gauge("seriatim_log_next_offset", &["log"], "The offset that the next record of the log will get"),
    gauge("seriatim_log_stored_bytes", &["log"], "Bytes of the log's files on this node"),
    gauge("seriatim_log_voters", &["log"], "Voters of the log"),
    gauge("seriatim_log_voters_heard", &["log"], "Voters of the log that this node hears, itself included"),
];

pub(super) fn register(service: &Service, ready: &ReadyCheck) {
    // The core holds the registry, too. A strong reference would keep both for ever.
    let (member, ready) = (Arc::downgrade(&service.member), ready.clone());
    service.metrics.registry().collect(FAMILIES, move |collected| {
        collected.add("seriatim_build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
        collected.add("seriatim_ready", &[], flag(ready().is_ok()));
        let connections: usize = servers().iter().map(|server| connections(server.id, 0).len()).sum();
        collected.add("seriatim_connections", &[], connections as f64);
        if let Some(core) = member.upgrade().as_ref().and_then(|member| member.get()) {
            of_disk(core, collected);
            of_cluster(core, collected);
            of_logs(core, collected);
        }
    });
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

fn of_disk(core: &Core, collected: &mut Collected) {
    let space = core.space.status();
    collected.add("seriatim_disk_free_bytes", &[], space.free_bytes as f64);
    collected.add("seriatim_disk_total_bytes", &[], space.total_bytes as f64);
    collected.add("seriatim_disk_soft_limit_bytes", &[], space.soft_bytes as f64);
    collected.add("seriatim_disk_hard_limit_bytes", &[], space.hard_bytes as f64);
    collected.add("seriatim_disk_full", &[], flag(space.state == crate::storage::space::SpaceState::Full));
    collected.add("seriatim_disk_full_refused", &[], space.refused as f64);
}

fn of_cluster(core: &Core, collected: &mut Collected) {
    let catalog = core.catalog.get();
    collected.add("seriatim_feature_level", &[], f64::from(catalog.feature_level().0));
    collected.add("seriatim_members", &[], catalog.members().count() as f64);
    for member in catalog.members() {
        collected.add("seriatim_member_heard", &[&member.name.to_string()], flag(is_heard(core, member.id)));
    }
    collected.add("seriatim_another_cluster", &[], flag(core.forward.rival().is_some()));
    collected.add("seriatim_logs", &[], catalog.logs().filter(|log| log.deletion.is_none()).count() as f64);
}

fn is_heard(core: &Core, node: NodeId) -> bool {
    node == core.me.node_id || !core.consensus.is_silent(node)
}

fn of_logs(core: &Core, collected: &mut Collected) {
    let open: BTreeMap<GroupId, _> = core.logs.all().into_iter().map(|log| (log.group, log)).collect();
    let statuses: BTreeMap<GroupId, _> = core.consensus.all_statuses().into_iter().map(|s| (s.group, s)).collect();
    let (mut leading, mut leaderless, mut stalled) = (0, 0, 0);
    for (group, status) in &statuses {
        leading += u64::from(status.role == Role::Leader && *group != GroupId::CATALOG);
        leaderless += u64::from(status.leader.is_none() && status.damage.is_none());
        stalled += u64::from(status.stalled.is_some());
    }
    collected.add("seriatim_replicas", &[], open.len() as f64);
    collected.add("seriatim_replicas_leading", &[], leading as f64);
    collected.add("seriatim_replicas_without_leader", &[], leaderless as f64);
    collected.add("seriatim_replicas_stalled", &[], stalled as f64);
    collected.add("seriatim_logs_not_measured", &[], open.len().saturating_sub(LOGS_MEASURED_MAX) as f64);
    let deleted: u64 = core.logs.deleted().iter().map(|log| log.reader.stored_bytes()).sum();
    collected.add("seriatim_deleted_bytes", &[], deleted as f64);
    let mut stored = 0;
    for (position, (group, log)) in open.iter().enumerate() {
        let (visible, bytes) = (log.watermark.get(), log.reader.stored_bytes());
        stored += bytes;
        if position >= LOGS_MEASURED_MAX {
            continue;
        }
        let name = log.name.to_string();
        let mut add = |family, value| collected.add(family, &[&name], value);
        add("seriatim_log_first_offset", visible.first_offset.0 as f64);
        add("seriatim_log_next_offset", visible.next_offset.0 as f64);
        add("seriatim_log_stored_bytes", bytes as f64);
        let Some(status) = statuses.get(group) else { continue };
        add("seriatim_log_leader", flag(status.role == Role::Leader));
        add("seriatim_log_leader_known", flag(status.leader.is_some()));
        add("seriatim_log_term", status.term.0 as f64);
        add("seriatim_log_commit_index", status.commit_index.0 as f64);
        add("seriatim_log_apply_lag_entries", status.commit_index.0.saturating_sub(status.applied_index.0) as f64);
        add("seriatim_log_voters", status.voters.len() as f64);
        let heard = status.voters.iter().filter(|voter| is_heard(core, **voter)).count();
        add("seriatim_log_voters_heard", heard as f64);
    }
    collected.add("seriatim_stored_bytes", &[], stored as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_the_prefix() {
        let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        assert!(names.iter().all(|name| name.starts_with("seriatim_") && !name.ends_with("_total")), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }
}
