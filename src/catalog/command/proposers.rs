//! From which feature level on a command is proposed, and by whom.

use super::Command;
use crate::catalog::meta::{ClusterSettings, LogSettings, NewLog, Origin};
use crate::feature_level::Feature;

impl Command {
    /// Returns the feature that the command belongs to. It is proposed only once the cluster's feature level allows it.
    pub fn feature(&self) -> Feature {
        match self {
            Command::AddNode(_)
            | Command::RemoveNode(_)
            | Command::Founded(_)
            | Command::ConfigureLog(..)
            | Command::RaiseFeatureLevel(_) => Feature::Baseline,
            Command::CreateLog(NewLog { settings: LogSettings { hash_chain: Some(_), .. }, .. }) => Feature::HashChain,
            Command::CreateLog(NewLog { origin: Origin::Founder(..), .. }) => Feature::Baseline,
            Command::CreateLog(NewLog { origin: Origin::Nodes(_), restore: Some(_), .. })
            | Command::FinishRestore(_) => Feature::Restore,
            Command::CreateLog(NewLog { origin: Origin::Nodes(_), restore: None, .. })
            | Command::UpdateLog(..)
            | Command::DeleteLog(..)
            | Command::UndeleteLog(_)
            | Command::PurgeLog(_)
            | Command::PlaceReplica(..)
            | Command::RemoveReplica(..)
            | Command::ReplicaRemoved(..)
            | Command::UpdateCluster(ClusterSettings { auto_replace_wiped: false, .. }, _) => Feature::ManyLogs,
            Command::PlanNode(..)
            | Command::ReplaceNode(..)
            | Command::MoveReplica(..)
            | Command::SetBalancing(_)
            | Command::UpdateCluster(ClusterSettings { auto_replace_wiped: true, .. }, _) => Feature::Membership,
        }
    }

    /// Returns true for a command that clients and other nodes request. The leader alone proposes the others.
    pub fn is_requested(&self) -> bool {
        match self {
            Command::CreateLog(NewLog { origin: Origin::Nodes(nodes), .. }) => nodes.is_empty(),
            Command::ConfigureLog(..)
            | Command::RaiseFeatureLevel(_)
            | Command::UpdateLog(..)
            | Command::DeleteLog(..)
            | Command::UndeleteLog(_)
            | Command::RemoveReplica(..)
            | Command::ReplicaRemoved(..)
            | Command::UpdateCluster(..)
            | Command::PlanNode(..)
            | Command::SetBalancing(_)
            | Command::FinishRestore(_) => true,
            Command::AddNode(_)
            | Command::RemoveNode(_)
            | Command::CreateLog(NewLog { origin: Origin::Founder(..), .. })
            | Command::Founded(_)
            | Command::PurgeLog(_)
            | Command::PlaceReplica(..)
            | Command::ReplaceNode(..)
            | Command::MoveReplica(..) => false,
        }
    }
}
