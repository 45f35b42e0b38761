//! How clients look at nodes: to whom they send a request, and what they read.

use super::super::cluster::{Cluster, id};
use super::super::network::Sent;
use super::super::*;
use crate::consensus::tests::sim::Answer;
use crate::log_state::cursors::Cursor;
use crate::storage::payload::{record_value, records};
use crate::storage::reader::{Access, ReadError};
use crate::types::{CursorName, Offset};

/// Sends a request to a node. One that does not lead the group passes it on to the leader that it knows.
pub fn ask(cluster: &mut Cluster, node: usize, proposal: Proposal) -> Answer {
    let (sender, answer) = reply();
    let replica = cluster.driver(node).and_then(|driver| driver.groups.get(&proposal.group));
    let leader = replica.and_then(|replica| replica.leader_node()).filter(|leader| *leader != id(node));
    match leader {
        Some(leader) => {
            let (weather, clock_us) = (cluster.weather, cluster.wall_us(node));
            let sent = Sent::Forward(proposal, sender);
            cluster.network.send(weather, &mut cluster.rng, id(node), leader, sent, clock_us);
        }
        None => cluster.handle(node, ConsensusMsg::Propose(proposal, sender)),
    }
    answer
}

/// Returns a cursor as a node shows it.
pub fn cursor_on(cluster: &Cluster, node: usize, group: GroupId, cursor: &CursorName) -> Option<Cursor> {
    let replica = cluster.driver(node)?.groups.get(&group)?;
    replica.tables.get().cursors.get(cursor).cloned()
}

/// Returns a node to send a request to: mostly one that leads, also one that was replaced and does not know it.
pub fn target(cluster: &mut Cluster, group: GroupId) -> Option<usize> {
    let nodes = cluster.running.len();
    let leads = |i: &usize| {
        let replica = cluster.driver(*i).and_then(|driver| driver.groups.get(&group));
        replica.is_some_and(|replica| replica.group.leads())
    };
    let leaders: Vec<usize> = (0..nodes).filter(leads).collect();
    let any = cluster.one_in(10) || leaders.is_empty();
    let node = if any { cluster.rng.below(nodes) } else { leaders[cluster.rng.below(leaders.len())] };
    (cluster.running[node].is_some() && cluster.machines[node].paused == 0).then_some(node)
}

/// Reads some records from a node, as a client without demands does.
pub fn read_anywhere(cluster: &mut Cluster, group: GroupId) {
    let node = cluster.rng.below(cluster.running.len());
    let Some(replica) = cluster.driver(node).and_then(|driver| driver.groups.get(&group)) else { return };
    let visible = replica.watermark.get();
    if replica.watermark.is_withdrawn() || visible.next_offset <= visible.first_offset {
        return;
    }
    let all = visible.next_offset.0 - visible.first_offset.0;
    let from = visible.first_offset.0 + cluster.rng.below(all as usize) as u64;
    check_records(cluster, node, group, Offset(from), 8);
}

/// Reads records from a node, and compares them with what was committed.
pub fn check_records(cluster: &Cluster, node: usize, group: GroupId, from: Offset, records_max: u32) {
    let Some(replica) = cluster.driver(node).and_then(|driver| driver.groups.get(&group)) else { return };
    let visible = replica.watermark.get();
    if from < visible.first_offset {
        return;
    }
    assert!(from < visible.next_offset, "node {node} lacks record {from} of group {group}");
    let slice = match replica.reader.records(from, visible.next_offset, records_max, 1 << 16, Access::Blocking) {
        Ok(slice) => slice,
        Err(ReadError::Trimmed { first_offset }) if first_offset > from => return,
        Err(_) if cluster.machines[node].damaged => return,
        Err(error) => panic!("record {from} of group {group} can't be read on node {node}: {error}"),
    };
    assert!(slice.count > 0, "record {from} of group {group} is missing on node {node}");
    let history = &cluster.checks.groups[&group];
    for (offset, record) in (from.0..).map(Offset).zip(records(&slice.bytes)) {
        let value = record_value(record.expect("canonical")).expect("a value");
        let value = u64::from_le_bytes(value[..8].try_into().expect("eight bytes"));
        assert_eq!(history.records.get(&offset), Some(&value), "record {offset} of group {group} on node {node}");
    }
}

/// Returns true if a node knows that the log of this group is purged.
pub fn is_purged(cluster: &Cluster, group: GroupId) -> bool {
    !cluster.change_catalog(|catalog| !catalog.is_purged_group(group))
}
