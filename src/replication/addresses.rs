//! What this node knows of other nodes: their names, the certificates to expect when one is dialled, what their
//! versions support, and the addresses of their peer listeners: what a node said itself, what the catalog says, what
//! discovery suggests.
//!
//! No address is trusted: the node that answers must have the certificate of the node that was dialled, and it refuses
//! a hello to another node.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

use crate::catalog::{CatalogView, Member};
use crate::feature_level::FeatureRange;
use crate::security::peer_names::{Dialled, PeerName};
use crate::security::peer_rules::PeerRules;
use crate::types::{NodeId, NodeName};

/// What this many nodes outside the catalog said is remembered. The hellos of further ones are refused.
pub const STRANGERS_MAX: usize = 64;

#[derive(Debug, Default)]
struct KnownPeer {
    /// The address in the node's last hello.
    said: Option<String>,
    /// The certificate of its last hello.
    certificate: Option<PeerName>,
    /// What its last hello says of feature levels.
    levels: Option<FeatureRange>,
    /// The address that discovery found.
    suggested: Option<String>,
}

/// What is known of all other nodes.
pub struct Addresses {
    catalog: CatalogView,
    rules: PeerRules,
    known: Mutex<HashMap<NodeId, KnownPeer>>,
    /// The members as of this node's admission. Until the catalog has arrived, nothing else maps ids to names.
    told: Mutex<Vec<Member>>,
}

impl Addresses {
    /// Starts with what the catalog says.
    pub fn new(catalog: CatalogView, rules: PeerRules) -> Addresses {
        Addresses { catalog, rules, known: Mutex::default(), told: Mutex::default() }
    }

    /// Records the members as of this node's admission.
    pub fn told(&self, members: Vec<Member>) {
        *self.told.lock() = members;
    }

    /// The name of a node, if it is known.
    pub fn name_of(&self, node: NodeId) -> Option<NodeName> {
        let named = self.catalog.get().member(node).map(|m| m.name.clone());
        named.or_else(|| self.of_told(|m| m.id == node).map(|m| m.name))
    }

    /// The node of this name.
    pub fn id_of(&self, name: &NodeName) -> Option<NodeId> {
        let named = self.catalog.get().member_named(name).map(|m| m.id);
        named.or_else(|| self.of_told(|m| m.name == *name).map(|m| m.id))
    }

    /// A member as of the admission. Counts only while the catalog is empty.
    fn of_told(&self, which: impl Fn(&Member) -> bool) -> Option<Member> {
        if self.catalog.get().members().next().is_some() {
            return None;
        }
        let told = self.told.lock();
        told.iter().find(|m| which(m)).cloned()
    }

    /// The certificates to expect when a node is dialled, the best first. Empty if the node is denied, or if nothing
    /// could prove which node answers.
    pub fn expected(&self, node: NodeId) -> Vec<Dialled> {
        if self.is_denied(node) {
            return Vec::new();
        }
        let name = self.name_of(node);
        self.rules.node(name, self.lock().get(&node).and_then(|known| known.certificate.as_ref()))
    }

    /// Whether the node's certificates are refused.
    pub fn is_denied(&self, node: NodeId) -> bool {
        self.rules.denies_any() && self.name_of(node).is_some_and(|name| self.rules.denies(&name))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, KnownPeer>> {
        self.known.lock()
    }

    /// Records what a node said in an accepted hello. False if the catalog does not contain it and too many such nodes
    /// are known.
    pub fn said(&self, node: NodeId, addr: &str, certificate: &PeerName, levels: FeatureRange) -> bool {
        self.note(node, |known| {
            known.said = Some(addr.to_owned());
            known.levels = Some(levels);
            known.certificate = Some(certificate.clone());
        })
    }

    /// The feature levels of a node's binary as of its last accepted hello; `None` if there was none since this node
    /// started.
    pub fn levels_of(&self, node: NodeId) -> Option<FeatureRange> {
        self.lock().get(&node).and_then(|known| known.levels)
    }

    /// Records an address that discovery found. False as for [`Addresses::said`].
    pub fn suggested(&self, node: NodeId, addr: &str) -> bool {
        self.note(node, |known| known.suggested = Some(addr.to_owned()))
    }

    fn note(&self, node: NodeId, note: impl FnOnce(&mut KnownPeer)) -> bool {
        let catalog = self.catalog.get();
        let mut known = self.lock();
        if !known.contains_key(&node) && catalog.member(node).is_none() {
            known.retain(|id, _| !catalog.is_removed(*id));
            if known.keys().filter(|id| catalog.member(**id).is_none()).count() >= STRANGERS_MAX {
                return false;
            }
        }
        note(known.entry(node).or_default());
        true
    }

    /// Every address to try, the best first: what a node said itself is newer than the catalog.
    pub fn of(&self, node: NodeId) -> Vec<String> {
        let catalog = self.catalog.get();
        let known = self.lock();
        let known = known.get(&node);
        let candidates = [
            known.and_then(|k| k.said.clone()),
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
        let said = |node, addr: &str| addresses.said(node, addr, &PeerName::Unproven, FeatureRange::FIRST);
        let mut catalog = Catalog::default();
        catalog.apply(Command::AddNode(Member {
            id: NodeId(1),
            name: NodeName::new("a").expect("a name"),
            bind_addr: "old:1".to_owned(),
            rpc_addr: "old:2".to_owned(),
        }));
        view.publish(catalog);
        assert_eq!(addresses.of(NodeId(1)), ["old:1"]);
        assert!(addresses.suggested(NodeId(1), "maybe:1") && said(NodeId(1), "new:1"));
        assert_eq!(addresses.of(NodeId(1)), ["new:1", "old:1", "maybe:1"]);
        assert_eq!(addresses.of(NodeId(2)), [""; 0]);
        for stranger in 0..STRANGERS_MAX as u64 {
            assert!(said(NodeId(100 + stranger), "x:1"));
        }
        assert!(!said(NodeId(99), "x:1"));
        assert!(said(NodeId(100), "y:1") && said(NodeId(1), "newer:1"));
        assert_eq!(addresses.levels_of(NodeId(1)), Some(FeatureRange::FIRST));
        assert_eq!(addresses.levels_of(NodeId(99)), None);
    }
}
