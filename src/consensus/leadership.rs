//! The log lines about a group's leadership: which node leads, or why none does.
//!
//! A leader is logged once per term. A missing leader is logged after [`VACANT_MAX`], with the silent voters, and
//! then once per [`REMINDER`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::Level;

use super::handle::{GroupStatus, Role};
use crate::types::{NodeId, Term};

/// A missing leader is logged after this time. With fast disks an election takes 1 to 2 s.
const VACANT_MAX: Duration = Duration::from_secs(3);
/// The time until a missing leader is logged again.
const REMINDER: Duration = Duration::from_secs(60);
/// A voter is considered silent after this time. Without a leader, each voter requests votes, or answers such
/// requests, about once a second.
const SILENT_MIN: Duration = Duration::from_secs(2);

/// When this node last received a raft message of any group from each node.
pub type Heard = BTreeMap<NodeId, Instant>;

/// Remembers what was logged about one group's leadership.
#[derive(Debug, Default)]
pub struct LeadershipLines {
    leader: Option<(NodeId, Term)>,
    vacancy: Option<Vacancy>,
}

#[derive(Clone, Copy, Debug)]
struct Vacancy {
    since: Instant,
    logged: Option<Instant>,
}

impl LeadershipLines {
    /// Returns the line that is due, if any. `group` is the group's name in the line; `name` returns the name of a
    /// node.
    pub fn due_line(
        &mut self,
        group: &str,
        status: &GroupStatus,
        me: NodeId,
        heard: &Heard,
        name: impl Fn(NodeId) -> String,
        now: Instant,
    ) -> Option<(Level, String)> {
        if status.voters.is_empty() {
            return None;
        }
        if let Some(leader) = status.leader {
            let vacancy = self.vacancy.take().filter(|vacancy| vacancy.logged.is_some());
            let led = (leader, status.term);
            if self.leader == Some(led) && vacancy.is_none() {
                return None;
            }
            self.leader = Some(led);
            let after = vacancy
                .map(|v| format!(", after {} s without a leader", now.duration_since(v.since).as_secs()))
                .unwrap_or_default();
            let whose = if status.role == Role::Leader { " (this node)" } else { "" };
            let text = format!("{group}: {}{whose} leads in term {}{after}", name(leader), status.term);
            return Some((Level::Info, text));
        }
        if status.damage.is_some() {
            // The damage itself has been logged, and a damaged replica processes no messages.
            return None;
        }
        let is_voter = status.voters.contains(&me);
        let vacancy = self.vacancy.get_or_insert(Vacancy { since: now, logged: None });
        let due = vacancy.logged.map_or(vacancy.since + VACANT_MAX, |logged| logged + REMINDER);
        if now < due {
            return None;
        }
        vacancy.logged = Some(now);
        let time = now.duration_since(vacancy.since).as_secs();
        // Without a leader, voters receive messages from each other, but a learner receives none.
        let is_heard = |voter: &NodeId| heard.get(voter).is_some_and(|heard| now.duration_since(*heard) <= SILENT_MIN);
        let is_silent = |voter: &&NodeId| **voter != me && !is_heard(voter);
        let silent: Vec<String> = status.voters.iter().filter(is_silent).map(|voter| name(*voter)).collect();
        let text = if !is_voter {
            format!("{group}: no leader is known for {time} s")
        } else if status.voters.len() - silent.len() <= status.voters.len() / 2 {
            format!("{group}: no majority for {time} s: no answer from {}", silent.join(", "))
        } else if silent.is_empty() {
            format!("{group}: no leader for {time} s, although every voter answers")
        } else {
            format!(
                "{group}: no leader for {time} s, although a majority answers; no answer from {}",
                silent.join(", ")
            )
        };
        Some((Level::Warn, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Scene {
        lines: LeadershipLines,
        status: GroupStatus,
        heard: Heard,
        now: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            let status = GroupStatus { voters: vec![NodeId(1), NodeId(2), NodeId(3)], ..GroupStatus::default() };
            Scene { lines: LeadershipLines::default(), status, heard: Heard::default(), now: Instant::now() }
        }

        fn leads(&mut self, leader: Option<u64>, term: u64) {
            (self.status.leader, self.status.term) = (leader.map(NodeId), Term(term));
        }

        /// Advances the time in steps of a tenth of a second, and returns the log lines.
        fn pass(&mut self, time: Duration) -> Vec<(Level, String)> {
            let end = self.now + time;
            let mut lines = Vec::new();
            while self.now < end {
                self.now += SECOND / 10;
                let name = |node: NodeId| format!("n{}", node.0);
                lines.extend(self.lines.due_line("log a", &self.status, NodeId(1), &self.heard, name, self.now));
            }
            lines
        }
    }

    fn info(text: &str) -> Vec<(Level, String)> {
        vec![(Level::Info, text.to_owned())]
    }

    fn warn(text: &str) -> Vec<(Level, String)> {
        vec![(Level::Warn, text.to_owned())]
    }

    #[test]
    fn a_leader_is_logged_once_per_term() {
        let mut scene = Scene::new();
        scene.leads(Some(2), 5);
        assert_eq!(scene.pass(SECOND * 300), info("log a: n2 leads in term 5"));
        scene.leads(None, 5);
        assert_eq!(scene.pass(SECOND * 2), [], "an election");
        scene.leads(Some(2), 5);
        assert_eq!(scene.pass(SECOND), [], "the same leader is known again");
        (scene.status.role, scene.status.leader, scene.status.term) = (Role::Leader, Some(NodeId(1)), Term(6));
        assert_eq!(scene.pass(SECOND), info("log a: n1 (this node) leads in term 6"));
    }

    /// A node without a majority logged a line for each unreachable peer, but none about the missing majority.
    #[test]
    fn a_missing_majority_is_logged_with_the_silent_voters() {
        let mut scene = Scene::new();
        scene.heard.insert(NodeId(2), scene.now);
        assert_eq!(scene.pass(SECOND * 4), warn("log a: no majority for 3 s: no answer from n2, n3"));
        assert_eq!(scene.pass(SECOND * 59), []);
        assert_eq!(scene.pass(SECOND), warn("log a: no majority for 63 s: no answer from n2, n3"));
        scene.leads(Some(3), 7);
        assert_eq!(scene.pass(SECOND), info("log a: n3 leads in term 7, after 64 s without a leader"));
    }

    #[test]
    fn failing_elections_among_answering_voters_are_logged_as_such() {
        let mut scene = Scene::new();
        scene.heard.insert(NodeId(2), scene.now + SECOND * 3);
        assert_eq!(
            scene.pass(SECOND * 4),
            warn("log a: no leader for 3 s, although a majority answers; no answer from n3")
        );
        scene.heard.insert(NodeId(2), scene.now + SECOND * 60);
        scene.heard.insert(NodeId(3), scene.now + SECOND * 60);
        assert_eq!(scene.pass(SECOND * 60), warn("log a: no leader for 63 s, although every voter answers"));
    }

    /// Voters request votes from each other, but not from learners.
    #[test]
    fn a_learner_does_not_report_silent_voters() {
        let mut scene = Scene::new();
        scene.status.voters = vec![NodeId(2), NodeId(3)];
        assert_eq!(scene.pass(SECOND * 4), warn("log a: no leader is known for 3 s"));
    }

    #[test]
    fn blank_and_damaged_replicas_log_nothing() {
        let mut scene = Scene::new();
        scene.status.damage = Some("a file is missing".to_owned());
        assert_eq!(scene.pass(SECOND * 100), []);
        scene.status = GroupStatus::default();
        assert_eq!(scene.pass(SECOND * 100), []);
    }
}
