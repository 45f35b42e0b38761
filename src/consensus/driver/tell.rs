//! What this thread logs about its groups by name: recovery, and who leads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Driver;
use crate::consensus::leadership::{Heard, LeadershipLines};
use crate::line_limit::LineLimit;
use crate::types::{GroupId, NodeId};

/// What was heard, and what was logged about each group's leadership.
#[derive(Debug, Default)]
pub(super) struct Told {
    heard: Heard,
    leaders: BTreeMap<GroupId, LeadershipLines>,
    refused: LineLimit<NodeId>,
}

impl Driver {
    /// Notes that a node sent a raft message. Others than members and voters are not kept, as their ids are of their own choice.
    pub(super) fn heard(&mut self, from: NodeId) {
        let known = || self.groups.values().any(|replica| replica.group.conf_contains(from));
        if self.catalog.member(from).is_some() || known() {
            self.told.heard.insert(from, Instant::now());
        }
    }

    /// A message of a peer was dropped. A faulty peer may send thousands per second.
    pub(super) fn tell_refused(&mut self, from: NodeId, what: &str) {
        match self.told.refused.admit(from, Instant::now()) {
            Some(0) => log::warn!("node {from} sent {what}: dropped"),
            Some(hidden) => log::warn!("node {from} sent {what}: dropped (and {hidden} more messages before it)"),
            None => {}
        }
    }

    /// How many lines about dropped messages of a peer were written in the current window.
    #[cfg(test)]
    pub(super) fn refused_lines(&self, from: NodeId) -> u64 {
        self.told.refused.lines(&from)
    }

    pub(super) fn tell_leaders(&mut self, now: Instant) {
        for status in self.statuses.all() {
            let group = self.label(status.group);
            let name = |node| match self.catalog.member(node) {
                Some(member) => member.name.to_string(),
                // A founder is not in the catalog yet.
                None if node == self.me.id => self.me.name.to_string(),
                None => node.to_string(),
            };
            let lines = self.told.leaders.entry(status.group).or_default();
            if let Some((level, text)) = lines.look(&group, &status, self.me.id, &self.told.heard, name, now) {
                log::log!(level, "{text}");
            }
        }
    }

    pub(super) fn tell_recovery(&self, took: Duration) {
        for (id, replica) in self.groups.iter().filter(|(_, replica)| !replica.group.is_blank()) {
            let status = replica.group.status();
            log::info!(
                "{}: recovered last_index={} commit_index={} term={}",
                self.label(*id),
                status.last_index,
                status.commit_index,
                status.term
            );
        }
        log::info!("recovery ended after {} ms", took.as_millis());
    }

    /// How log lines name a group. Until the catalog is replayed a log's name may not be known.
    fn label(&self, group: GroupId) -> String {
        match self.catalog.log(group) {
            Some(log) => format!("log {} (group {group})", log.name),
            None if group == GroupId::CATALOG => format!("catalog (group {group})"),
            None => format!("group {group}"),
        }
    }
}
