//! The catalog of a cluster that one node continues alone, after the majority of its cluster is lost for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::meta::{LogMeta, LogSettings, Placement};
use super::state::Catalog;
use crate::feature_level::Feature;
use crate::types::{GroupId, LogId, LogName, NodeId, ReplicaId};

/// A log that continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLog {
    /// Its replica on the node that continues.
    pub replica: ReplicaId,
    /// The new id, if other nodes may have had other records at the same offsets.
    pub new_id: Option<LogId>,
}

/// Returns the catalog with `node` as the only member.
///
/// - All other members are removed for good.
/// - The logs of the groups in `kept` continue with one replica, that of `node`. The ids that are replaced are never
///   used again.
/// - A group in `kept` that has no log gets one with the name `recovered-<group>`: its creation is lost.
/// - All other logs are purged.
///
/// `next_replica` is above every replica id that the node knows, and `now_us` is the current time.
#[must_use]
pub fn recovered(
    before: &Catalog,
    node: NodeId,
    kept: &BTreeMap<GroupId, KeptLog>,
    next_replica: ReplicaId,
    now_us: u64,
) -> Catalog {
    let others = before.members.keys().filter(|id| **id != node);
    let mut after = Catalog {
        feature_level: before.feature_level.max(Feature::ManyLogs.level()),
        members: before.members.iter().filter(|(id, _)| **id == node).map(|(id, m)| (*id, m.clone())).collect(),
        removed: Arc::new(
            before.removed.iter().chain(&before.replaced).chain(others).copied().collect::<BTreeSet<NodeId>>(),
        ),
        next_group: kept.keys().fold(before.next_group, |next, group| next.max(GroupId(group.0 + 1))),
        next_replica: before.next_replica.max(next_replica),
        settings: before.settings.clone(),
        settings_revision: before.settings_revision,
        // Plans of nodes and balancing end: no other node is left.
        ..Catalog::default()
    };
    before.purged.iter().for_each(|log_id| after.add_purged(*log_id));
    let mut logs: Vec<&LogMeta> = before.logs().collect();
    logs.sort_unstable_by_key(|log| log.group);
    let gone = logs.iter().filter(|log| kept.get(&log.group).is_none_or(|kept| kept.new_id.is_some()));
    gone.for_each(|log| after.add_purged(log.log_id));
    for (group, KeptLog { replica, new_id }) in kept {
        let placement = Placement { replica: *replica, node };
        let log = match before.log(*group) {
            Some(log) => log.clone(),
            None => {
                let Some(name) = free_name(before, *group) else { continue };
                LogMeta {
                    name,
                    group: *group,
                    log_id: LogId(0),
                    first: Vec::new(),
                    replicas: Vec::new(),
                    leaving: Vec::new(),
                    settings: LogSettings::default(),
                    revision: 0,
                    created_us: now_us.max(1),
                    deletion: None,
                    restore: None,
                }
            }
        };
        after.set_log(LogMeta {
            log_id: new_id.unwrap_or(log.log_id),
            first: vec![placement],
            replicas: vec![placement],
            leaving: Vec::new(),
            revision: log.revision + 1,
            ..log
        });
    }
    after.check_invariants();
    after
}

/// Returns the name of a log whose creation is lost.
#[must_use]
pub fn free_name(catalog: &Catalog, group: GroupId) -> Option<LogName> {
    let names = std::iter::once(format!("recovered-{group}")).chain((2..).map(|n| format!("recovered-{group}-{n}")));
    names.map_while(|name| LogName::new(&name).ok()).find(|name| catalog.log_named(name).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::command::Command;
    use crate::catalog::conflict::Conflict;
    use crate::catalog::meta::{Member, NewLog, Origin};
    use crate::feature_level::FeatureLevel;
    use crate::types::NodeName;

    const NODES: [NodeId; 3] = [NodeId(100), NodeId(200), NodeId(300)];

    fn member(id: NodeId) -> Member {
        let name = NodeName::new(&format!("n{id}")).expect("a name");
        Member { id, name, bind_addr: "a:1".to_owned(), rpc_addr: "a:2".to_owned() }
    }

    fn create(name: &str, log_id: u64) -> Command {
        let name = LogName::new(name).expect("a name");
        let origin = Origin::Nodes(NODES.to_vec());
        Command::CreateLog(NewLog {
            name,
            log_id: LogId(log_id),
            origin,
            settings: LogSettings::default(),
            restore: None,
        })
    }

    fn three_nodes(level: FeatureLevel) -> Catalog {
        let mut catalog = Catalog::default();
        for id in NODES {
            catalog.apply(&Command::AddNode(member(id)), 1);
        }
        catalog.apply(&Command::RaiseFeatureLevel(level), 1);
        catalog
    }

    #[test]
    fn one_node_continues_with_the_kept_logs() {
        let mut before = three_nodes(Feature::Producers.level());
        for (name, id) in [("same", 1), ("other", 2), ("lost", 3)] {
            before.apply(&create(name, id), 9);
        }
        let replica = |group: u64| before.log(GroupId(group)).expect("a log").replicas[1].replica;
        let kept = BTreeMap::from([
            (GroupId(1), KeptLog { replica: replica(1), new_id: None }),
            (GroupId(2), KeptLog { replica: replica(2), new_id: Some(LogId(12)) }),
            // The entry that created it is lost.
            (GroupId(7), KeptLog { replica: ReplicaId(40), new_id: Some(LogId(17)) }),
        ]);
        let mut after = recovered(&before, NODES[1], &kept, ReplicaId(41), 77);
        let ids: Vec<(&str, u64)> = {
            let mut logs: Vec<&LogMeta> = after.logs().collect();
            logs.sort_by_key(|log| log.group);
            logs.into_iter().map(|log| (log.name.as_str(), log.log_id.0)).collect()
        };
        assert_eq!(ids, [("same", 1), ("other", 12), ("recovered-7", 17)]);
        for log in after.logs() {
            let mine = Placement { replica: kept[&log.group].replica, node: NODES[1] };
            assert_eq!((&log.first, &log.replicas, &log.leaving), (&vec![mine], &vec![mine], &Vec::new()));
        }
        // What is gone never comes back: neither the members, nor the ids of logs, nor those of replicas.
        assert_eq!(after.members().map(|member| member.id).collect::<Vec<_>>(), [NODES[1]]);
        let back = after.would_change(&Command::AddNode(member(NODES[0])));
        assert_eq!(back, Err(Conflict::NodeRemoved(NODES[0])));
        assert!(after.is_purged(LogId(2)) && after.is_purged(LogId(3)) && !after.is_purged(LogId(1)));
        assert!(after.was_placed(ReplicaId(40)) && after.is_purged_group(GroupId(3)));
        assert_eq!(Catalog::decode(&after.encode()).expect("its own bytes"), after);
        // It goes on: new nodes get replicas.
        after.apply(&Command::AddNode(member(NodeId(400))), 1);
        assert!(after.would_change(&Command::PlaceReplica(GroupId(1), NodeId(400))).expect("placed"));
    }

    #[test]
    fn a_cluster_of_level_1_is_raised_to_a_level_with_snapshots() {
        let mut before = three_nodes(FeatureLevel::FIRST);
        before.apply(&Command::CreateLog(NewLog::of_level_1(NODES[0], LogSettings::default())), 1);
        let replica = ReplicaId::of_node(NODES[1]);
        let kept = BTreeMap::from([(GroupId(1), KeptLog { replica, new_id: Some(LogId(8)) })]);
        let after = recovered(&before, NODES[1], &kept, ReplicaId(0), 1);
        assert_eq!(after.feature_level(), Feature::ManyLogs.level());
        assert!(after.log(GroupId(1)).expect("kept").is_of_level_1());
        assert_eq!(Catalog::decode(&after.encode()).expect("its own bytes"), after);
    }

    #[test]
    fn the_name_of_a_log_whose_creation_is_lost_is_free() {
        let mut catalog = three_nodes(Feature::Producers.level());
        catalog.apply(&create("recovered-7", 1), 1);
        assert_eq!(free_name(&catalog, GroupId(7)).expect("a name").as_str(), "recovered-7-2");
        assert_eq!(free_name(&catalog, GroupId(8)).expect("a name").as_str(), "recovered-8");
    }
}
