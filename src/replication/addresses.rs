//! Where a node's peer listener may be reached: what it said itself, what the catalog says, what discovery suggests.
//!
//! None of them is trusted: whoever answers must have a peer's certificate, and refuses a hello that means another node.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::catalog::CatalogView;
use crate::types::NodeId;

/// This many nodes that the catalog does not know are remembered by what they said; hellos of more are refused.
pub const STRANGERS_MAX: usize = 64;

#[derive(Debug, Default)]
struct Known {
    /// From the node's last hello.
    said: Option<String>,
    /// From discovery.
    suggested: Option<String>,
}

/// What is known of everybody's address.
pub struct Addresses {
    catalog: CatalogView,
    known: Mutex<HashMap<NodeId, Known>>,
}

impl Addresses {
    /// Knows what the catalog says.
    pub fn new(catalog: CatalogView) -> Addresses {
        Addresses { catalog, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Known>> {
        // Every critical section leaves the map whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node said in an accepted hello where it is reached. False when it is a stranger too many.
    pub fn said(&self, node: NodeId, addr: &str) -> bool {
        self.note(node, |known| known.said = Some(addr.to_owned()))
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
        let addresses = Addresses::new(view.clone());
        let mut catalog = Catalog::default();
        catalog.apply(Command::AddNode(Member {
            id: NodeId(1),
            name: NodeName::new("a").expect("a name"),
            bind_addr: "old:1".to_owned(),
            rpc_addr: "old:2".to_owned(),
        }));
        view.publish(catalog);
        assert_eq!(addresses.of(NodeId(1)), ["old:1"]);
        assert!(addresses.suggested(NodeId(1), "maybe:1") && addresses.said(NodeId(1), "new:1"));
        assert_eq!(addresses.of(NodeId(1)), ["new:1", "old:1", "maybe:1"]);
        assert_eq!(addresses.of(NodeId(2)), [""; 0]);
        for stranger in 0..STRANGERS_MAX as u64 {
            assert!(addresses.said(NodeId(100 + stranger), "x:1"));
        }
        assert!(!addresses.said(NodeId(99), "x:1"));
        assert!(addresses.said(NodeId(100), "y:1") && addresses.said(NodeId(1), "newer:1"));
    }
}
