//! The report of `seriatim status`.

use super::answer::Answer;
use super::health::{self, ClusterFinding, GroupHealth};
use crate::cli::exit::{Exit, Failure};

/// The answers of all members, the health of their groups, and the findings.
pub(super) struct ClusterReport {
    pub cluster_id: String,
    pub log: String,
    pub answers: Vec<Answer>,
    pub groups: Vec<GroupHealth>,
    pub findings: Vec<ClusterFinding>,
}

impl ClusterReport {
    pub fn new(cluster_id: &str, log: &str, answers: Vec<Answer>) -> ClusterReport {
        let groups = health::groups(&answers, log);
        let findings = health::findings(&answers, &groups, log);
        ClusterReport { cluster_id: cluster_id.to_owned(), log: log.to_owned(), answers, groups, findings }
    }

    /// The feature level of the cluster, 0 if no node tells it; and the level to which it can be raised, if every node
    /// supports a higher one.
    pub fn feature_level(&self) -> (u32, Option<u32>) {
        let nodes = || self.answers.iter().filter_map(|answer| answer.node.as_ref().ok());
        let level = nodes().map(|node| node.feature_level).max().unwrap_or(0);
        let all_answer = nodes().count() == self.answers.len();
        let max = nodes().map(|node| node.feature_level_max).min().filter(|max| all_answer && *max > level);
        (level, max)
    }

    /// Returns the exit code of the most serious finding.
    pub fn exit(&self) -> Exit {
        self.findings.first().map_or(Exit::Done, |finding| finding.kind.exit())
    }

    /// Returns a failure with all findings, and the next step for the most serious one; `None` without findings.
    pub fn failure(&self) -> Option<Failure> {
        let first = self.findings.first()?;
        let messages: Vec<&str> = self.findings.iter().map(|finding| finding.message.as_str()).collect();
        Some(Failure::new(self.exit(), messages.join("\n"), first.next.as_str()))
    }
}
