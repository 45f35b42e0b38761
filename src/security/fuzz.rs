//! Fuzz loops of the access policy and of names in certificates.

use super::acl::{Acl, Action};
use super::identity::Principal;
use super::peer_names::{Dialled, PeerName, PeerNames};
use crate::fuzz::Loop;

/// A refused text grants nothing. An accepted one does not grant a permission that its lines don't name.
#[test]
fn policy() {
    let seeds =
        ["# rights\np, root, *, produce\np, role:readers, logs-*, consume\ng, anna, role:readers\n", "p, a, b, admin"];
    // Casbin builds a model, a parser and an interpreter for each text.
    Loop::new("policy", seeds.map(|seed| seed.as_bytes().to_vec()).into()).memory(4000).memory_fixed(4 << 20).run(
        |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let Ok(acl) = Acl::from_text(text) else { return false };
            let stranger = Principal::new("a-stranger-to-every-line").expect("a name");
            if !text.contains(stranger.as_str()) {
                for action in Action::ALL {
                    assert!(!acl.allows(&stranger, "default", *action) && !acl.allows_some(&stranger, *action));
                }
            }
            for name in ["root", "anna"] {
                let principal = Principal::new(name).expect("a name");
                assert!(!acl.allows(&principal, "default", Action::Produce) || text.contains(name));
            }
            true
        },
    );
}

/// If a name is read as a node, it is the spelling of exactly that node.
#[test]
fn peer_names() {
    let names = PeerNames::new("c");
    let seeds = ["_n__1.peer.c.seriatim.internal", "A-b.example.peer.c.seriatim.internal.", "peer.c.seriatim.internal"];
    Loop::new("peer_names", seeds.map(|seed| seed.as_bytes().to_vec()).into()).memory(400).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let nodes = match names.read([text]) {
            Some(PeerName::Nodes(nodes)) => nodes,
            Some(PeerName::Shared) => return true,
            Some(PeerName::Unproven) | None => return false,
        };
        let [node] = nodes.as_slice() else { panic!("one name, {nodes:?}") };
        let spelled = names.expected(&Dialled::Node(node.clone()));
        assert_eq!(spelled, text.trim_end_matches('.').to_ascii_lowercase());
        true
    });
}
