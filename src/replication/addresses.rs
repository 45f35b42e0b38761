//! What this node knows about other nodes: their names, their expected certificates, the feature levels that they
//! support, and the addresses of their peer listeners. Addresses come from three sources: the node's own hello, the
//! catalog, and discovery.
//!
//! No address is trusted: the node that answers must have the certificate of the dialled node, and it refuses a hello
//! that is addressed to another node.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

use crate::catalog::{CatalogView, Member};
use crate::feature_level::FeatureRange;
use crate::security::peer_names::{Dialled, PeerName};
use crate::security::peer_rules::PeerRules;
use crate::types::{NodeId, NodeName};

/// The maximum number of remembered nodes that the catalog does not contain. The hellos of further ones are refused.
pub const STRANGERS_MAX: usize = 64;

#[derive(Debug, Default)]
struct KnownPeer {
    /// The address in the node's last hello.
    hello_addr: Option<String>,
    /// The certificate of its last hello.
    certificate: Option<PeerName>,
    /// The feature levels in its last hello, or in its last answer to one.
    levels: Option<FeatureRange>,
    /// The address that discovery found, or that a member sent with a request to change its address.
    suggested: Option<String>,
}

/// What is known about all other nodes.
pub struct Addresses {
    catalog: CatalogView,
    rules: PeerRules,
    known: Mutex<HashMap<NodeId, KnownPeer>>,
    /// The members at the time of this node's admission. Until the catalog is replicated here, only this list maps
    /// ids to names.
    admission_members: Mutex<Vec<Member>>,
}

impl Addresses {
    /// Creates the table. At first only the catalog's addresses are known.
    pub fn new(catalog: CatalogView, rules: PeerRules) -> Addresses {
        Addresses { catalog, rules, known: Mutex::default(), admission_members: Mutex::default() }
    }

    /// Records the members at the time of this node's admission.
    pub fn set_admission_members(&self, members: Vec<Member>) {
        *self.admission_members.lock() = members;
    }

    /// Returns the name of a node, if it is known.
    pub fn name_of(&self, node: NodeId) -> Option<NodeName> {
        let named = self.catalog.get().member(node).map(|m| m.name.clone());
        named.or_else(|| self.admission_member(|m| m.id == node).map(|m| m.name))
    }

    /// Returns the node with this name, if it is known.
    pub fn id_of(&self, name: &NodeName) -> Option<NodeId> {
        let named = self.catalog.get().member_named(name).map(|m| m.id);
        named.or_else(|| self.admission_member(|m| m.name == *name).map(|m| m.id))
    }

    /// Returns a member as of the admission. Used only while the catalog is empty.
    fn admission_member(&self, which: impl Fn(&Member) -> bool) -> Option<Member> {
        if self.catalog.get().members().next().is_some() {
            return None;
        }
        let members = self.admission_members.lock();
        members.iter().find(|m| which(m)).cloned()
    }

    /// Returns the certificates to expect when a node is dialled, the most likely one first. Empty if the node is
    /// denied, or if no certificate could prove which node answers.
    pub fn expected(&self, node: NodeId) -> Vec<Dialled> {
        if self.is_denied(node) {
            return Vec::new();
        }
        let name = self.name_of(node);
        self.rules.node(name, self.lock().get(&node).and_then(|known| known.certificate.as_ref()))
    }

    /// Returns whether the node's certificates are refused.
    pub fn is_denied(&self, node: NodeId) -> bool {
        self.rules.denies_any() && self.name_of(node).is_some_and(|name| self.rules.denies(&name))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, KnownPeer>> {
        self.known.lock()
    }

    /// Records the content of an accepted hello. Returns false if the catalog does not contain the node and too many
    /// such nodes are known.
    pub fn record_hello(&self, node: NodeId, addr: &str, certificate: &PeerName, levels: FeatureRange) -> bool {
        self.update(node, |known| {
            known.hello_addr = Some(addr.to_owned());
            known.levels = Some(levels);
            known.certificate = Some(certificate.clone());
        })
    }

    /// Records the feature levels in a node's answer to a hello.
    pub fn set_levels(&self, node: NodeId, levels: FeatureRange) {
        if let Some(known) = self.lock().get_mut(&node) {
            known.levels = Some(levels);
        }
    }

    /// Returns the feature levels in a node's last accepted hello, or in its last answer to one; `None` if it has sent
    /// none since this node started.
    pub fn levels_of(&self, node: NodeId) -> Option<FeatureRange> {
        self.lock().get(&node).and_then(|known| known.levels)
    }

    /// Records an address that is not proven: discovery found it, or a member sent it with a request to change its
    /// address. Returns false in the same case as [`Addresses::record_hello`].
    pub fn suggest(&self, node: NodeId, addr: &str) -> bool {
        self.update(node, |known| known.suggested = Some(addr.to_owned()))
    }

    fn update(&self, node: NodeId, update: impl FnOnce(&mut KnownPeer)) -> bool {
        let catalog = self.catalog.get();
        let mut known = self.lock();
        if !known.contains_key(&node) && catalog.member(node).is_none() {
            known.retain(|id, _| !catalog.is_removed(*id));
            if known.keys().filter(|id| catalog.member(**id).is_none()).count() >= STRANGERS_MAX {
                return false;
            }
        }
        update(known.entry(node).or_default());
        true
    }

    /// Returns every address to try, in order: a node's own hello comes first, because it is newer than the catalog.
    pub fn of(&self, node: NodeId) -> Vec<String> {
        let catalog = self.catalog.get();
        let known = self.lock();
        let known = known.get(&node);
        let candidates = [
            known.and_then(|k| k.hello_addr.clone()),
            catalog.member(node).map(|m| m.bind_addr.clone()),
            known.and_then(|k| k.suggested.clone()),
        ];
        let mut addresses: Vec<String> = Vec::new();
        for candidate in candidates.into_iter().flatten().filter(|a| !a.is_empty()) {
            if !addresses.contains(&candidate) {
                addresses.push(candidate);
            }
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Command, Member};
    use crate::types::NodeName;

    #[test]
    fn addresses_are_ordered_and_unknown_nodes_are_bounded() {
        let view = CatalogView::default();
        let addresses = Addresses::new(view.clone(), PeerRules::without_tls("c"));
        let hello = |node, addr: &str| addresses.record_hello(node, addr, &PeerName::Unproven, FeatureRange::FIRST);
        let mut catalog = Catalog::default();
        catalog.apply(
            &Command::AddNode(Member {
                id: NodeId(1),
                name: NodeName::new("a").expect("a name"),
                bind_addr: "old:1".to_owned(),
                rpc_addr: "old:2".to_owned(),
            }),
            1,
        );
        view.publish(catalog);
        assert_eq!(addresses.of(NodeId(1)), ["old:1"]);
        assert!(addresses.suggest(NodeId(1), "maybe:1") && hello(NodeId(1), "new:1"));
        assert_eq!(addresses.of(NodeId(1)), ["new:1", "old:1", "maybe:1"]);
        assert_eq!(addresses.of(NodeId(2)), [""; 0]);
        for stranger in 0..STRANGERS_MAX as u64 {
            assert!(hello(NodeId(100 + stranger), "x:1"));
        }
        assert!(!hello(NodeId(99), "x:1"));
        assert!(hello(NodeId(100), "y:1") && hello(NodeId(1), "newer:1"));
        assert_eq!(addresses.levels_of(NodeId(1)), Some(FeatureRange::FIRST));
        assert_eq!(addresses.levels_of(NodeId(99)), None);
    }
}
