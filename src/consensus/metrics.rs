//! The metrics of consensus: elections, leader changes, and the lag of followers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::groups::Groups;
use super::status::{GroupStatus, Statuses};
use super::watch::EventWatch;
use crate::catalog::Catalog;
use crate::catalog::policy::facts::Replicas;
use crate::log_state::cursors::Cursor;
use crate::metrics::{Counter, Gauge, Labelled, Registry};
use crate::types::{GroupId, NodeId, Term};

/// Ticks between two measurements of lag.
const LAG_TICKS: u64 = 10;

/// Ticks between two measurements of the lag of cursors, of which there may be many.
const CURSOR_LAG_TICKS: u64 = 100;

/// The maximum number of cursors whose lag is measured. Those with the largest lag come first.
const CURSORS_MEASURED_MAX: usize = 1000;

/// The metrics of all groups of this node.
pub struct ConsensusMetrics {
    terms: Counter,
    leader_changes: Counter,
    /// Entries that followers were sent more than once.
    pub sent_again: Counter,
    lag: Labelled<Gauge>,
    cursor_lag: Labelled<Gauge>,
    seen: BTreeMap<GroupId, (Term, Option<NodeId>)>,
    watch: EventWatch,
    statuses: Arc<Statuses>,
}

impl ConsensusMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry, statuses: Arc<Statuses>) -> ConsensusMetrics {
        ConsensusMetrics {
            terms: registry
                .counter("elections", "Elections that this node has seen, in all groups: increases of a term"),
            leader_changes: registry.counter("leader_changes", "Times that a group got another leader"),
            sent_again: registry.counter(
                "entries_sent_again",
                "Entries that this node, as a leader, sent to a follower more than once",
            ),
            lag: registry.gauges(
                "commit_lag_entries",
                "peer",
                "Committed entries that a follower lacks, in all groups that this node leads",
            ),
            cursor_lag: registry.gauges(
                "cursor_lag_records",
                "cursor",
                "Records that the reader of a cursor has still to read; on the node that leads the log",
            ),
            seen: BTreeMap::new(),
            watch: EventWatch::new(registry.events().clone()),
            statuses,
        }
    }

    /// Registers the counter of repaired files.
    pub fn repairs(registry: &Registry) -> Counter {
        registry.counter("files_repaired", "Damaged files that were repaired while the node ran")
    }

    /// Shows a replica that could not be opened as an event.
    pub fn lost(&mut self, group: GroupId, what: &str, catalog: &Catalog) {
        let status = GroupStatus { group, damage: Some(what.to_owned()), ..GroupStatus::default() };
        self.watch.damage(&status, catalog);
    }

    /// Updates the metrics. Called on each tick, with what was collected on it about the groups that are not quiet.
    pub fn tick(
        &mut self,
        tick: u64,
        statuses: &[Arc<GroupStatus>],
        replicas: &Replicas,
        groups: &Groups,
        catalog: &Catalog,
    ) {
        for status in statuses {
            self.watch.damage(status, catalog);
            let (term, leader) = (status.term, status.leader);
            let Some((last_term, last_leader)) = self.seen.insert(status.group, (term, leader)) else {
                self.watch.leader(status, catalog);
                continue;
            };
            self.terms.inc_by(term.0.saturating_sub(last_term.0));
            // While no leader is known, the last one is kept.
            if leader.is_none() {
                self.seen.insert(status.group, (term, last_leader));
            } else if leader != last_leader {
                self.leader_changes.inc();
                self.watch.leader(status, catalog);
            }
        }
        if tick.is_multiple_of(LAG_TICKS) || !self.watch.knows_members() {
            self.watch.members(catalog, |node| self.statuses.is_silent(node));
            self.measure_lag(statuses, replicas, groups, catalog);
        }
        if tick.is_multiple_of(CURSOR_LAG_TICKS) {
            self.measure_cursors(groups, catalog);
        }
    }

    fn measure_lag(&self, statuses: &[Arc<GroupStatus>], replicas: &Replicas, groups: &Groups, catalog: &Catalog) {
        let mut lags: BTreeMap<NodeId, u64> = BTreeMap::new();
        for status in statuses {
            let Some((facts, replica)) = replicas.get(&status.group).zip(groups.get(&status.group)) else { continue };
            for follower in facts.progress.iter().filter(|follower| follower.replica != facts.replica) {
                let node = replica.group.node_of(follower.replica);
                *lags.entry(node).or_default() += status.commit_index.0.saturating_sub(follower.matched.0);
            }
        }
        // Removes the followers of groups that this node no longer leads.
        self.lag.clear();
        for (node, lag) in lags {
            let peer = catalog.member(node).map_or_else(|| node.to_string(), |member| member.name.to_string());
            self.lag.with(&peer).set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
    }

    /// Measures the lag of the readers of all logs that this node leads.
    fn measure_cursors(&self, groups: &Groups, catalog: &Catalog) {
        let mut lags = Vec::new();
        for (group, replica) in groups.iter().filter(|(_, replica)| replica.group.leads()) {
            let tables = replica.tables.get();
            if tables.cursors.is_empty() {
                continue;
            }
            let Some(meta) = catalog.log(*group) else { continue };
            let visible = replica.watermark.get();
            let lag = |cursor: &Cursor| cursor.lag(visible.first_offset, visible.next_offset);
            lags.extend(tables.cursors.iter().map(|cursor| (lag(cursor), &meta.name, cursor.name.clone())));
        }
        // Each is a time series of a monitoring system.
        if lags.len() > CURSORS_MEASURED_MAX {
            lags.select_nth_unstable_by_key(CURSORS_MEASURED_MAX, |(lag, ..)| Reverse(*lag));
            lags.truncate(CURSORS_MEASURED_MAX);
        }
        // Removes those that were deleted, and those of logs that this node no longer leads.
        self.cursor_lag.clear();
        for (lag, log, cursor) in lags {
            self.cursor_lag.with(&format!("{log}/{cursor}")).set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
    }
}
