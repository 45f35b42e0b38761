//! Decides of which logs this node has a replica.

use crate::catalog::meta::LogMeta;
use crate::catalog::state::Catalog;
use crate::storage::log::Genesis;
use crate::types::{GroupId, NodeId};

/// A replica of a log that this node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedReplica<'a> {
    /// The log in the catalog.
    pub log: &'a LogMeta,
    /// Set if the replica does not exist and must be created first.
    pub create: Option<Genesis>,
    /// True if clients may use the log on this node.
    pub serves: bool,
}

/// Returns the replicas of logs that this node should have: those that exist, and those to create. The founder creates its replica immediately,
/// in order to found the log; other members create one after the log is founded. An existing replica is kept,
/// whatever the catalog says.
pub fn wanted_replicas<'a>(
    catalog: &'a Catalog,
    me: NodeId,
    hosts: impl Fn(GroupId) -> bool,
) -> impl Iterator<Item = WantedReplica<'a>> {
    let is_member = catalog.member(me).is_some();
    catalog.logs().filter_map(move |log| {
        let create = if hosts(log.group) {
            None
        } else if log.founder == me && !log.founded {
            Some(Genesis::Founder(me))
        } else if is_member && log.founded {
            Some(Genesis::Blank)
        } else {
            return None;
        };
        Some(WantedReplica { log, create, serves: log.founded })
    })
}
