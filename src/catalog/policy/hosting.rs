//! Decides which replicas of a log this node creates and drops.

use crate::catalog::faults::{Fault, broken};
use crate::catalog::meta::Placement;
use crate::catalog::state::Catalog;
use crate::feature_level::Feature;
use crate::storage::log::Genesis;
use crate::types::{GroupId, NodeId, ReplicaId};

/// What this node does about one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostingStep {
    /// The replica to drop, before another one is created.
    pub drop: Option<ReplicaId>,
    /// The replica to create.
    pub create: Option<NewReplica>,
}

/// A replica to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplica {
    /// Its id.
    pub replica: ReplicaId,
    /// How its log begins.
    pub genesis: Genesis,
    /// True for the replica that leads the group at first, in the term of the genesis, without an election. This is
    /// safe because no replica can vote in that term, and this one leads it only in the process that creates it.
    pub leads: bool,
}

/// Returns what this node does about a group. `hosted` is this node's present replica of the group. `may_create`
/// returns false for a replica that this node had before: the catalog is replayed at each start, and may be older than
/// what this node did.
///
/// A replica is dropped only if the catalog proves that it was given up. One that a lagging catalog does not contain
/// yet is kept.
pub fn hosting_step(
    catalog: &Catalog,
    me: NodeId,
    group: GroupId,
    hosted: Option<ReplicaId>,
    may_create: impl Fn(ReplicaId) -> bool,
) -> HostingStep {
    let Some(log) = catalog.log(group) else {
        let drop = hosted.filter(|_| catalog.is_purged_group(group) && !broken(Fault::PurgedStay));
        return HostingStep { drop, create: None };
    };
    let was_placed = |replica: ReplicaId| match replica == ReplicaId::of_node(me) {
        // Placed at level 1, which the catalog has left.
        true => catalog.feature_level() >= Feature::ManyLogs.level(),
        false => catalog.was_placed(replica),
    };
    let has_left = |replica: ReplicaId| match broken(Fault::DroppedTooEarly) {
        true => log.replicas.iter().all(|placement| placement.replica != replica),
        false => log.node_of(replica).is_none(),
    };
    let drop = hosted.filter(|replica| has_left(*replica) && was_placed(*replica));
    let is_first = |placement: &&Placement| log.first.contains(placement);
    // A first replica votes in its group, so it is created even if it should leave: without it, the others may lack a
    // majority, and could not remove it.
    let mut needed = log.replicas.iter().chain(log.leaving.iter().filter(is_first));
    let mine = needed.find(|placement| placement.node == me).map(|placement| placement.replica);
    let vacant = hosted.is_none() || drop.is_some();
    let is_member = catalog.member(me).is_some();
    let may_create = |replica| may_create(replica) || broken(Fault::ReplayResurrects);
    let create = mine.filter(|replica| vacant && is_member && may_create(*replica)).map(|replica| {
        let voters: Vec<ReplicaId> = log.first.iter().map(|placement| placement.replica).collect();
        let leads = voters.first() == Some(&replica) && !log.is_of_level_1();
        let genesis = match voters.contains(&replica) {
            true => Genesis::Voters(sorted(voters), log.begins_at()),
            false => Genesis::Blank,
        };
        NewReplica { replica, genesis, leads }
    });
    HostingStep { drop, create }
}

fn sorted(mut replicas: Vec<ReplicaId>) -> Vec<ReplicaId> {
    replicas.sort_unstable();
    replicas
}

/// Returns this node's replica of a log, as the catalog lists it.
pub fn placed_on(catalog: &Catalog, group: GroupId, node: NodeId) -> Option<Placement> {
    catalog.log(group)?.placements().find(|placement| placement.node == node).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::command::Command;
    use crate::catalog::meta::{LogSettings, Member, NewLog, Origin};
    use crate::types::{LogId, LogName, NodeName, Offset};

    /// Once, the node did not create the replica, and the other one of the two never had a majority.
    #[test]
    fn a_first_replica_that_should_leave_is_created() {
        let mut catalog = Catalog::default();
        let nodes = [NodeId(100), NodeId(200)];
        for id in nodes {
            let name = NodeName::new(&format!("n{id}")).expect("a name");
            let member = Member { id, name, bind_addr: "a:1".to_owned(), rpc_addr: "a:2".to_owned() };
            catalog.apply(&Command::AddNode(member), 1);
        }
        catalog.apply(&Command::RaiseFeatureLevel(Feature::ManyLogs.level()), 1);
        let name = LogName::new("a").expect("a name");
        let origin = Origin::Nodes(nodes.to_vec());
        let new = NewLog { name, log_id: LogId(7), origin, settings: LogSettings::default(), restore: None };
        catalog.apply(&Command::CreateLog(new), 1);
        let (group, second) = (GroupId(1), ReplicaId(2));
        catalog.apply(&Command::RemoveReplica(group, second), 1);
        assert_eq!(catalog.log(group).map(|log| log.leaving.len()), Some(1));
        let create = hosting_step(&catalog, nodes[1], group, None, |_| true).create.expect("created");
        assert_eq!((create.replica, create.leads), (second, false));
        assert_eq!(create.genesis, Genesis::Voters(vec![ReplicaId(1), second], Offset(0)));
        // It was created here before.
        assert_eq!(hosting_step(&catalog, nodes[1], group, None, |_| false), HostingStep::default());
        catalog.apply(&Command::ReplicaRemoved(group, second), 1);
        assert_eq!(hosting_step(&catalog, nodes[1], group, None, |_| true), HostingStep::default());
        assert_eq!(hosting_step(&catalog, nodes[1], group, Some(second), |_| true).drop, Some(second));
    }
}
