//! The report of `seriatim status`.

use super::answer::Answer;
use super::finding::{CheckState, ClusterFinding};
use super::health::{self, GroupHealth};
use crate::pb::v1::LogInfo;

/// The answers of all members, the health of their groups, and the findings.
pub(super) struct ClusterReport {
    pub cluster_id: String,
    pub log: String,
    pub answers: Vec<Answer>,
    pub groups: Vec<GroupHealth>,
    pub findings: Vec<ClusterFinding>,
}

impl ClusterReport {
    pub fn new(cluster_id: &str, log: &str, answers: Vec<Answer>, logs: &[LogInfo]) -> ClusterReport {
        let groups = health::groups(&answers, log, logs);
        let findings = health::findings(&answers, &groups, log);
        ClusterReport { cluster_id: cluster_id.to_owned(), log: log.to_owned(), answers, groups, findings }
    }

    /// The feature level of the cluster, 0 if no node tells it; and the level to which it can be raised, if every node
    /// supports a higher one.
    pub fn feature_level(&self) -> (u32, Option<u32>) {
        let nodes = || self.answers.iter().filter_map(|answer| answer.node.as_ref().ok());
        let level = nodes().map(|node| node.feature_level).max().unwrap_or(0);
        let all_answer = nodes().count() == self.answers.len();
        let max = nodes().map(|node| node.max_feature_level).min().filter(|max| all_answer && *max > level);
        (level, max)
    }

    /// Returns the state of the most serious finding.
    pub fn state(&self) -> CheckState {
        self.findings.first().map_or(CheckState::Ok, |finding| finding.kind.state())
    }

    /// Returns all findings, and the next step for the most serious one; `None` without findings.
    pub fn problems(&self) -> Option<String> {
        let first = self.findings.first()?;
        let next = if first.next.is_empty() { String::new() } else { format!("\n  next: {}", first.next) };
        Some(format!("{}{next}", self.messages("\n")))
    }

    /// Returns the line of a monitoring plugin.
    pub fn line(&self) -> String {
        let log = self.groups.iter().find(|group| group.log.as_deref() == Some(self.log.as_str()));
        let what = if self.findings.is_empty() {
            log.map(GroupHealth::summary).unwrap_or_default()
        } else {
            self.messages("; ")
        };
        self.state().line(&what)
    }

    fn messages(&self, separator: &str) -> String {
        self.findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>().join(separator)
    }
}
