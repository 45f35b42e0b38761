//! Decides which damaged replicas are given up. The log then has fewer replicas than its setting, so the catalog's
//! leader places a new one ([`super::placement`]). The new one has another id, so no vote is given twice.
//!
//! - The leader of the group decides, after a majority has confirmed that it leads. The damaged replica takes no part,
//!   so the other replicas have a majority without it.
//! - The catalog's leader checks that a majority of the log's replicas is on other nodes that it hears from, and that no
//!   other replica of the log is leaving.
//! - At most `REBUILDS_MAX` logs of the cluster lose a replica at the same time, and a node leads at most
//!   `LEARNERS_MAX` groups with replicas that catch up.

use super::facts::{ReplicaFacts, Replicas};
use crate::catalog::command::Command;
use crate::catalog::meta::LogMeta;
use crate::catalog::state::Catalog;
use crate::types::{GroupId, NodeId, ReplicaId};

/// The maximum number of logs with a replica that is leaving while a damaged replica is given up.
const REBUILDS_MAX: usize = 4;
/// The maximum number of groups that a node leads and that have learners while a damaged replica is given up.
const LEARNERS_MAX: usize = 2;

/// Returns the damaged replica that the leader of a group asks the catalog to remove next.
pub(super) fn damaged_replica(log: &LogMeta, leader: &ReplicaFacts, replicas: &Replicas) -> Option<ReplicaId> {
    if !leader.leads || leader.is_changing || !may_lose_one(log) {
        return None;
    }
    let is_damaged = |node: NodeId, replica: ReplicaId| leader.damaged.contains(&(node, replica));
    let damaged = log.replicas.iter().find(|placement| is_damaged(placement.node, placement.replica))?;
    let learns = |facts: &&ReplicaFacts| facts.leads && facts.progress.iter().any(|progress| !progress.voter);
    (replicas.values().filter(learns).count() < LEARNERS_MAX).then_some(damaged.replica)
}

/// Returns true if the catalog's leader may ask a group to remove a damaged replica. `of_catalog` are the facts of the
/// catalog's leader, which hears from every member.
pub fn may_give_up(catalog: &Catalog, of_catalog: &ReplicaFacts, group: GroupId, replica: ReplicaId) -> bool {
    let Some(log) = catalog.log(group).filter(|log| may_lose_one(log)) else { return false };
    let is_active = |node: NodeId| {
        let id = ReplicaId::of_node(node);
        of_catalog.progress.iter().any(|progress| progress.replica == id && progress.active)
    };
    let others = log.replicas.iter().filter(|placement| placement.replica != replica);
    let heard = others.filter(|placement| is_active(placement.node)).count();
    let losing = catalog.logs().filter(|log| !log.leaving.is_empty()).count();
    of_catalog.is_idle
        && heard > log.replicas.len() / 2
        && losing < REBUILDS_MAX
        && catalog.would_change(&Command::RemoveReplica(group, replica)) == Ok(true)
}

fn may_lose_one(log: &LogMeta) -> bool {
    log.leaving.is_empty() && log.deletion.is_none() && log.replicas.len() > 1
}

#[cfg(test)]
mod tests {
    use super::super::facts::ReplicaProgress;
    use super::*;
    use crate::catalog::meta::{LogSettings, Member, NewLog, Origin};
    use crate::feature_level::Feature;
    use crate::types::{LogId, LogName, NodeName};

    const GROUP: GroupId = GroupId(1);

    fn catalog(nodes: u64) -> Catalog {
        let mut catalog = Catalog::default();
        for id in 1..=nodes {
            let name = NodeName::new(&format!("n{id}")).expect("a name");
            let member = Member { id: NodeId(id << 40), name, bind_addr: "a:1".to_owned(), rpc_addr: "a:2".to_owned() };
            catalog.apply(&Command::AddNode(member), 1);
        }
        catalog.apply(&Command::RaiseFeatureLevel(Feature::ManyLogs.level()), 1);
        let origin = Origin::Nodes((1..=nodes).map(|id| NodeId(id << 40)).collect());
        let name = LogName::new("a").expect("a name");
        let new = NewLog { name, log_id: LogId(7), origin, settings: LogSettings::default(), restore: None };
        catalog.apply(&Command::CreateLog(new), 1);
        catalog
    }

    fn hearing(nodes: &[u64]) -> ReplicaFacts {
        let progress = |id: &u64| ReplicaProgress {
            replica: ReplicaId(id << 40),
            voter: true,
            matched: Default::default(),
            active: true,
        };
        ReplicaFacts {
            leads: true,
            is_idle: true,
            progress: nodes.iter().map(progress).collect(),
            ..ReplicaFacts::default()
        }
    }

    #[test]
    fn a_replica_is_given_up_only_if_a_majority_is_heard_without_it() {
        let may = |nodes: u64, heard: &[u64]| may_give_up(&catalog(nodes), &hearing(heard), GROUP, ReplicaId(1));
        assert!(may(3, &[2, 3]) && may(3, &[1, 2, 3]));
        assert!(!may(3, &[1, 2]) && !may(3, &[1]), "the other two are needed");
        assert!(!may(1, &[1]), "the last one");
        assert!(!may(2, &[1, 2]), "the other one can't commit alone");
        assert!(may(5, &[2, 3, 4]) && !may(5, &[1, 2, 3]));
        let mut leaving = catalog(3);
        leaving.apply(&Command::RemoveReplica(GROUP, ReplicaId(2)), 1);
        assert!(!may_give_up(&leaving, &hearing(&[1, 2, 3]), GROUP, ReplicaId(1)));
        assert!(!may_give_up(&catalog(3), &hearing(&[1, 2, 3]), GROUP, ReplicaId(9)), "no such replica");
        let busy = ReplicaFacts { is_idle: false, ..hearing(&[1, 2, 3]) };
        assert!(!may_give_up(&catalog(3), &busy, GROUP, ReplicaId(1)));
    }

    #[test]
    fn the_leader_believes_only_the_node_of_the_replica() {
        let catalog = catalog(3);
        let log = catalog.log(GROUP).expect("a log");
        let facts = |damaged: &[(u64, u64)]| ReplicaFacts {
            damaged: damaged.iter().map(|(node, replica)| (NodeId(node << 40), ReplicaId(*replica))).collect(),
            ..hearing(&[1, 2, 3])
        };
        let none = Replicas::new();
        assert_eq!(damaged_replica(log, &facts(&[(2, 2)]), &none), Some(ReplicaId(2)));
        assert_eq!(damaged_replica(log, &facts(&[(3, 2)]), &none), None, "it is on another node");
        assert_eq!(damaged_replica(log, &facts(&[]), &none), None);
        let mut learning = hearing(&[1, 2]);
        learning.progress[1].voter = false;
        let learning: Replicas = [(GroupId(2), learning.clone()), (GroupId(3), learning)].into();
        assert_eq!(damaged_replica(log, &facts(&[(2, 2)]), &learning), None, "two others are catching up");
    }
}
