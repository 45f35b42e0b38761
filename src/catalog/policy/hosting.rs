//! Which groups this node hosts.

use crate::catalog::meta::LogMeta;
use crate::catalog::state::Catalog;
use crate::storage::log::Genesis;
use crate::types::{GroupId, NodeId};

/// What to do about one log after the catalog has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedLog<'a> {
    /// The log in the catalog.
    pub log: &'a LogMeta,
    /// Create a replica of its group first.
    pub create: Option<Genesis>,
    /// Clients may use it on this node.
    pub serves: bool,
}

/// Returns the logs that this node hosts or should host. A founder hosts its log at once, so that it can found it; other
/// members host it once it is founded. A replica that exists stays, whatever the catalog says.
pub fn hosted_logs<'a>(
    catalog: &'a Catalog,
    me: NodeId,
    hosts: impl Fn(GroupId) -> bool,
) -> impl Iterator<Item = HostedLog<'a>> {
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
        Some(HostedLog { log, create, serves: log.founded })
    })
}
