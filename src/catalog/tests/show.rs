//! The state of the cluster as scripts print it.

use std::error::Error;
use std::fmt::Write as _;

use super::cluster::{Cluster, show_plan};
use crate::catalog::{LogMeta, Placement, Plan};
use crate::types::ReplicaId;

pub fn show_catalog(cluster: &Cluster) -> Result<String, Box<dyn Error>> {
    let mut out = String::new();
    for member in cluster.catalog.members() {
        write!(out, "member {} {} {} {}", member.id.0, member.name, member.bind_addr, member.rpc_addr)?;
        let plan = cluster.catalog.plan(member.id);
        writeln!(out, "{}{}", if plan == Plan::default() { "" } else { " " }, show_plan(&plan))?;
    }
    let catalog = &cluster.catalog;
    if catalog.is_balancing() {
        writeln!(out, "balancing")?;
    }
    let mut logs: Vec<&LogMeta> = catalog.logs().collect();
    logs.sort_by_key(|log| log.group);
    let places = |placements: &[Placement]| {
        placements.iter().map(|p| format!("{}@{}", p.replica, p.node.0)).collect::<Vec<_>>().join(",")
    };
    for log in logs {
        let settings = catalog.settings_of(log);
        write!(out, "log {} {} first={} replicas={}", log.group, log.name, places(&log.first), places(&log.replicas))?;
        if !log.leaving.is_empty() {
            write!(out, " leaving={}", places(&log.leaving))?;
        }
        write!(out, " revision={}", log.revision)?;
        if log.deletion.is_some() {
            write!(out, " deleted")?;
        }
        if let Some(restore) = log.restore {
            let state = if log.is_restoring() { "restoring" } else { "restored" };
            write!(out, " {state}={}..{}", restore.first_offset, restore.end_offset)?;
        }
        write!(out, " record={} request={}", settings.record_bytes_max, settings.request_bytes_max)?;
        writeln!(out, " retention={}B,{}ms", settings.retention_bytes, settings.retention_ms)?;
    }
    Ok(out)
}

pub fn show_groups(cluster: &Cluster) -> Result<String, Box<dyn Error>> {
    let mut out = String::new();
    let ids = |replicas: &std::collections::BTreeSet<ReplicaId>| {
        replicas.iter().map(ReplicaId::to_string).collect::<Vec<_>>().join(",")
    };
    for (id, group) in &cluster.groups {
        let leader = group.leader.map_or("none".to_owned(), |leader| leader.0.to_string());
        write!(out, "group {id}: leader={leader} term={}", group.term)?;
        write!(out, " voters={} learners={}", ids(&group.voters), ids(&group.learners))?;
        let visible = group.log.visible();
        writeln!(out, " records={}..{}", visible.first_offset, visible.next_offset)?;
    }
    Ok(out)
}
