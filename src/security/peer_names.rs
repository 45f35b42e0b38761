//! The names in peer certificates, which identify the node and the cluster.
//!
//! ```text
//!   <node>.peer.<cluster>.seriatim.internal    one node: as a caller, and when that node is dialled
//!   member.<cluster>.seriatim.internal         any node: when the dialler does not know which node answers (joins)
//!   peer.<cluster>.seriatim.internal           the shared certificate of older clusters, the same on all nodes
//! ```
//!
//! `<node>` is the node's name, with `_x` for a capital X and `__` for `_`. This makes names unique in lower case:
//! TLS ignores the case of names, and names of nodes may differ only in their case. A certificate with a node's name
//! does not contain the shared name: otherwise a dialler that accepts the shared certificate would accept this
//! certificate for any node.

use std::fmt;

use crate::types::NodeName;

/// The domain of all names in peer certificates. Other certificates never contain names in this domain.
const DOMAIN: &str = "seriatim.internal";

/// The node that a peer's certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerName {
    /// No certificate, because TLS is off.
    Unproven,
    /// The shared certificate, with which a peer can act as any node of the cluster.
    Shared,
    /// The certificate of one node. It contains several names while the node is being renamed. Never empty.
    Nodes(Vec<NodeName>),
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerName::Unproven => f.write_str("no node (without TLS)"),
            PeerName::Shared => f.write_str("no node"),
            PeerName::Nodes(nodes) => {
                f.write_str(&nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" and "))
            }
        }
    }
}

/// The certificate that a dialler expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// The certificate of this node.
    Node(NodeName),
    /// The certificate of any node, except the shared one.
    Member,
    /// The shared certificate.
    Shared,
}

/// The names in the peer certificates of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNames {
    shared: String,
    member: String,
}

impl PeerNames {
    /// Returns the names for the cluster with this name.
    pub fn new(cluster_name: &str) -> PeerNames {
        PeerNames { shared: peer_san(cluster_name), member: format!("member.{cluster_name}.{DOMAIN}") }
    }

    /// Returns the name that the certificate of the dialled node must contain.
    pub fn expected(&self, dialled: &Dialled) -> String {
        match dialled {
            Dialled::Node(node) => format!("{}.{}", spelled(node), self.shared),
            Dialled::Member => self.member.clone(),
            Dialled::Shared => self.shared.clone(),
        }
    }

    /// Returns the two names in a node's certificate.
    pub fn of_node(&self, node: &NodeName) -> [String; 2] {
        [self.expected(&Dialled::Node(node.clone())), self.expected(&Dialled::Member)]
    }

    /// Reads the names of a certificate. Returns `None` if it is not a peer certificate of this cluster.
    pub fn read<'a>(&self, dns_names: impl IntoIterator<Item = &'a str>) -> Option<PeerName> {
        let (mut nodes, mut shared) = (Vec::new(), false);
        for name in dns_names {
            let name = normalised(name);
            shared |= name == self.shared;
            let node = name.strip_suffix(self.shared.as_str()).and_then(|name| name.strip_suffix('.'));
            nodes.extend(node.and_then(read_spelled));
        }
        if nodes.is_empty() { shared.then_some(PeerName::Shared) } else { Some(PeerName::Nodes(nodes)) }
    }

    /// Returns whether nodes that don't know which node they dial accept a certificate with these names.
    pub fn is_member<'a>(&self, dns_names: impl IntoIterator<Item = &'a str>) -> bool {
        dns_names.into_iter().any(|name| normalised(name) == self.member)
    }
}

/// Returns the name in the shared peer certificate of a cluster.
pub fn peer_san(cluster_name: &str) -> String {
    format!("peer.{cluster_name}.{DOMAIN}")
}

/// Returns whether a name is in the domain of peer certificates.
pub fn is_peers(name: &str) -> bool {
    let name = normalised(name);
    name.strip_suffix(DOMAIN).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Returns a name in the form in which TLS compares names: in lower case, and without the final dot of an absolute
/// name.
fn normalised(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn spelled(node: &NodeName) -> String {
    let mut text = String::new();
    for c in node.as_str().chars() {
        if c == '_' || c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

fn read_spelled(text: &str) -> Option<NodeName> {
    let (mut name, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        name.push(match c {
            '_' => chars.next().filter(|c| *c == '_' || c.is_ascii_lowercase())?.to_ascii_uppercase(),
            c => c,
        });
    }
    NodeName::new(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).expect("a name")
    }

    #[test]
    fn every_node_name_has_a_unique_spelling() {
        let names = PeerNames::new("c");
        let nodes =
            ["n1", "N1", "n-1", "n_1", "n__1", "N_1", "a.b", "A.b", "a.peer.c.seriatim.internal", "peer", "_", ""];
        let mut spellings = Vec::new();
        for node in nodes.iter().filter_map(|name| NodeName::new(name).ok()) {
            let [own, member] = names.of_node(&node);
            assert_eq!(own, own.to_lowercase());
            assert_eq!(names.read([own.as_str(), &member]), Some(PeerName::Nodes(vec![node])));
            spellings.push(own);
        }
        spellings.sort();
        spellings.dedup();
        assert_eq!(spellings.len(), 10);
        assert_eq!(names.of_node(&node("N_1"))[0], "_n__1.peer.c.seriatim.internal");
    }

    #[test]
    fn the_names_of_a_certificate_are_read() {
        let names = PeerNames::new("c");
        let read = |dns: &[&str]| names.read(dns.iter().copied());
        assert_eq!(read(&["peer.c.seriatim.internal"]), Some(PeerName::Shared));
        assert_eq!(read(&["PEER.C.Seriatim.Internal."]), Some(PeerName::Shared), "as TLS compares");
        assert_eq!(read(&["N1.peer.c.seriatim.INTERNAL"]), Some(PeerName::Nodes(vec![node("n1")])));
        let both = read(&["n1.peer.c.seriatim.internal", "peer.c.seriatim.internal"]);
        assert_eq!(both, Some(PeerName::Nodes(vec![node("n1")])), "it can act only as its node");
        let renamed = read(&["n1.peer.c.seriatim.internal", "n2.peer.c.seriatim.internal"]);
        assert_eq!(renamed, Some(PeerName::Nodes(vec![node("n1"), node("n2")])));
        for none in [
            "member.c.seriatim.internal",
            "peer.d.seriatim.internal",
            "n1.peer.d.seriatim.internal",
            "*.peer.c.seriatim.internal",
            "_1.peer.c.seriatim.internal",
            "-.peer.c.seriatim.internal",
            ".peer.c.seriatim.internal",
            "n1peer.c.seriatim.internal",
            "localhost",
        ] {
            assert_eq!(read(&[none]), None, "{none}");
        }
        assert!(names.is_member(["x", "Member.c.seriatim.internal"]) && !names.is_member(["peer.c.seriatim.internal"]));
    }

    #[test]
    fn names_of_peers_are_recognised_in_any_case() {
        for peers in
            ["foo.SERIATIM.INTERNAL", "seriatim.internal", "n1.peer.c.seriatim.internal.", "*.seriatim.internal"]
        {
            assert!(is_peers(peers), "{peers}");
        }
        for other in ["internal", "seriatim.internal.example", "myseriatim.internal", "root"] {
            assert!(!is_peers(other), "{other}");
        }
    }
}
