//! What other survivors have: the JSON that `seriatim recover -o json` prints on their hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::survey::{Found, LogCopy, Survey};
use crate::types::{ClusterId, GroupId, LogIndex, ReplicaId, Term};

/// A survivor, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its name.
    pub node_name: String,
    /// Its id.
    pub node_id: String,
    /// The id of the cluster that lost its quorum.
    pub cluster_id: String,
    /// Its replica of the catalog.
    pub catalog: SurvivorCopy,
    /// Its replicas of logs, by group.
    pub replicas: BTreeMap<u64, SurvivorCopy>,
}

/// A replica of a survivor. Of two replicas of a group, the one with the higher last term has all committed entries of the
/// other, and of those with the same last term the one with the higher last index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurvivorCopy {
    /// The id of the replica, as a text: programs may read large numbers inexactly.
    #[serde(with = "id_as_text")]
    pub replica: u64,
    /// The term of its last entry.
    pub last_term: u64,
    /// Its last entry.
    pub last_index: u64,
    /// The offset after its last record.
    pub next_offset: u64,
}

mod id_as_text {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl SurvivorCopy {
    fn of(copy: &LogCopy) -> SurvivorCopy {
        let last = copy.facts.last;
        SurvivorCopy {
            replica: copy.replica.0,
            last_term: last.term.0,
            last_index: last.index.0,
            next_offset: last.offset.0,
        }
    }

    pub(super) fn id(&self) -> ReplicaId {
        ReplicaId(self.replica)
    }

    /// True if its log is more up to date than this one, by Raft's rule for elections.
    pub(super) fn is_ahead_of(&self, copy: &LogCopy) -> bool {
        let last = copy.facts.last;
        (Term(self.last_term), LogIndex(self.last_index)) > (last.term, last.index)
    }
}

impl Survivor {
    /// Describes this node.
    #[must_use]
    pub fn of(survey: &Survey) -> Survivor {
        let copies = survey.logs.iter().filter_map(|log| match &log.found {
            Found::Copy(copy) => Some((log.group.0, SurvivorCopy::of(copy))),
            Found::Nothing | Found::Blank | Found::Refused(_) => None,
        });
        Survivor {
            node_name: survey.node.node_name.to_string(),
            node_id: survey.node.node_id.to_string(),
            cluster_id: survey.cluster_id.to_string(),
            catalog: SurvivorCopy::of(&survey.catalog_copy),
            replicas: copies.collect(),
        }
    }

    /// Its replica of a group.
    pub(super) fn copy_of(&self, group: GroupId) -> Option<&SurvivorCopy> {
        if group == GroupId::CATALOG { Some(&self.catalog) } else { self.replicas.get(&group.0) }
    }

    /// Returns an error unless it is another node of the same cluster.
    ///
    /// # Errors
    /// A text.
    pub fn check(&self, survey: &Survey) -> Result<(), String> {
        let cluster: ClusterId =
            self.cluster_id.parse().map_err(|e| format!("{} is not an id: {e}", self.cluster_id))?;
        if cluster != survey.cluster_id {
            return Err(format!("node {} is of cluster {cluster}, not of {}", self.node_name, survey.cluster_id));
        }
        if self.node_id == survey.node.node_id.to_string() {
            return Err(format!("{} is this node itself", self.node_name));
        }
        Ok(())
    }
}
