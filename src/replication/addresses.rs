//! What is known of other nodes: their names, whom to expect when one is dialled, and where its peer listener may be reached: what it
//! said itself, what the catalog says, what discovery suggests.
//!
//! No address is trusted: whoever answers must have that node's certificate, and refuses a hello that means another node.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

use crate::catalog::{CatalogView, Member};
use crate::security::peer_names::{Dialled, PeerName};
use crate::security::peer_rules::PeerRules;
use crate::types::{NodeId, NodeName};

/// This many nodes that the catalog does not know are remembered by what they said; hellos of more are refused.
pub const STRANGERS_MAX: usize = 64;

#[derive(Debug, Default)]
struct Known {
    /// From the node's last hello.
    said: Option<String>,
    /// The certificate with which it said that.
    certificate: Option<PeerName>,
    /// From discovery.
    suggested: Option<String>,
}

/// What is known of everybody.
pub struct Addresses {
    catalog: CatalogView,
    rules: PeerRules,
    known: Mutex<HashMap<NodeId, Known>>,
    /// The members, as whoever admitted this node named them: until the catalog is here, nothing else says who is who.
    told: Mutex<Vec<Member>>,
}

impl Addresses {
    /// Knows what the catalog says.
    pub fn new(catalog: CatalogView, rules: PeerRules) -> Addresses {
        Addresses { catalog, rules, known: Mutex::default(), told: Mutex::default() }
    }

    /// The members as of this node's admission.
    pub fn told(&self, members: Vec<Member>) {
        *self.told.lock() = members;
    }

    /// A node's name.
    pub fn name_of(&self, node: NodeId) -> Option<NodeName> {
        let named = self.catalog.get().member(node).map(|m| m.name.clone());
        named.or_else(|| self.of_told(|m| m.id == node).map(|m| m.name))
    }

    /// The node of this name.
    pub fn id_of(&self, name: &NodeName) -> Option<NodeId> {
        let named = self.catalog.get().member_named(name).map(|m| m.id);
        named.or_else(|| self.of_told(|m| m.name == *name).map(|m| m.id))
    }

    /// What counts while the catalog is empty: later it is the catalog's word alone.
    fn of_told(&self, which: impl Fn(&Member) -> bool) -> Option<Member> {
        if self.catalog.get().members().next().is_some() {
            return None;
        }
        let told = self.told.lock();
        told.iter().find(|m| which(m)).cloned()
    }

    /// Whom to expect when a node is dialled, the best first. Nobody: it is denied, or nothing could prove who answers.
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

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Known>> {
        // Every critical section leaves the map whole.
        self.known.lock()
    }

    /// A node said in an accepted hello where it is reached. False when it is a stranger too many.
    pub fn said(&self, node: NodeId, addr: &str, certificate: &PeerName) -> bool {
        self.note(node, |known| {
            known.said = Some(addr.to_owned());
            known.certificate = Some(certificate.clone());
        })
    }

    /// Discovery says where a node may be reached.
    pub fn suggested(&self, node: NodeId, addr: &str) -> bool {
        self.note(node, |known| known.suggested = Some(addr.to_owned()))
    }

    fn note(&self, node: NodeId, note: impl FnOnce(&mut Known)) -> bool {
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

    /// Every address to try, the best first: a node's own word is newer than the catalog's.
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
    fn the_best_first_and_strangers_bounded() {
        let view = CatalogView::default();
        let addresses = Addresses::new(view.clone(), PeerRules::without_tls("c"));
        let said = |node, addr: &str| addresses.said(node, addr, &PeerName::Unproven);
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
    }
}
