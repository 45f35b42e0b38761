//! Texts that say why a node is not admitted yet, for its log and for clients.

use std::collections::{BTreeMap, BTreeSet};

use log::Level;

use crate::forming::{BlankNode, FormingStatus};
use crate::types::ClusterId;

/// The state of mDNS on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MdnsState {
    /// The configuration turns it off.
    Off,
    /// It does not work on this host.
    Broken,
    /// It has not found a node with the cluster's name.
    FoundNone,
    /// It has found a node with the cluster's name.
    FoundSome,
}

impl MdnsState {
    fn text(self) -> Option<&'static str> {
        match self {
            MdnsState::Off => Some("mDNS is off"),
            MdnsState::Broken => Some("mDNS does not work on this host"),
            MdnsState::FoundNone => Some("mDNS found no node"),
            MdnsState::FoundSome => None,
        }
    }
}

/// The text if no node answered as a member. `others` contains the reasons, by address. `own` is this node's address,
/// which is omitted.
pub fn nobody(join: &[String], own: &str, others: &BTreeMap<String, String>, mdns: MdnsState) -> String {
    let asked: Vec<String> =
        others.iter().filter(|(addr, _)| *addr != own).map(|(addr, why)| format!("{addr}: {why}")).collect();
    let asked = match (asked.is_empty(), join.is_empty()) {
        (false, _) => format!("no member answers ({})", asked.join("; ")),
        (true, true) => "no join address is configured".to_owned(),
        (true, false) => format!("the only join address is this node's own ({own})"),
    };
    [Some(asked.as_str()), mdns.text()].into_iter().flatten().collect::<Vec<_>>().join(", and ")
}

/// The level of the log line that repeats the reason, and the advice at its end. Advice to set a join address is only
/// given if none is configured. Without mDNS, such a node then waits for ever.
pub fn advice(join: &[String], mdns: MdnsState) -> (Level, &'static str) {
    if !join.is_empty() {
        return (Level::Info, "");
    }
    let level = match mdns {
        MdnsState::Off | MdnsState::Broken => Level::Warn,
        MdnsState::FoundNone | MdnsState::FoundSome => Level::Info,
    };
    let advice = ". To join, start it with --join HOST:PORT, the peer address (bind_addr) of a member; to make a new cluster, \
                  start one node, once, with --bootstrap, or all of N blank nodes with --bootstrap-expect N";
    (level, advice)
}

/// The addition to the text if no node answers at all: what must be open between the hosts.
pub fn firewall(bind_addr: &str, mdns: MdnsState) -> String {
    let port = bind_addr.rsplit_once(':').map_or(bind_addr, |(_, port)| port);
    let mdns = match mdns {
        MdnsState::Off => "",
        MdnsState::Broken | MdnsState::FoundNone | MdnsState::FoundSome => {
            ", and UDP port 5353 (mDNS, multicast to 224.0.0.251 or ff02::fb)"
        }
    };
    format!(". If other nodes run, check the firewall of each host: it must accept TCP port {port} (bind_addr){mdns}")
}

/// The text while a node forms a cluster with other blank nodes. `asked` says which addresses have not answered.
pub fn forming(status: &FormingStatus, asked: &str) -> String {
    let names = |nodes: &[BlankNode]| {
        nodes.iter().map(|node| format!("{} at {}", node.name, node.addr)).collect::<Vec<_>>().join(", ")
    };
    let seen = match status.others.is_empty() {
        true => format!("sees no other blank node, and {} are to form the cluster ({asked})", status.expect),
        false => format!(
            "sees {} blank nodes of {} that are to form the cluster (itself, {})",
            status.others.len() + 1,
            status.expect,
            names(&status.others)
        ),
    };
    let pledge = match &status.candidate {
        None => String::new(),
        Some(_) if status.is_candidate => {
            format!("; has {} of {} pledges to found it", status.pledges, status.needed)
        }
        Some(candidate) if status.candidate_seen => {
            format!("; has pledged to node {} at {}, which founds it", candidate.id, candidate.addr)
        }
        Some(candidate) => format!(
            "; has pledged to node {} at {}, which does not answer: start that node. If its disk is gone for good, stop this \
             node, remove pledge.toml from its data directory, and start it again",
            candidate.id, candidate.addr
        ),
    };
    let mismatch = status.mismatch.as_ref().map_or_else(String::new, |other| {
        let why = match other.expect == status.expect {
            true => "the name or the address of this node".to_owned(),
            false => format!("bootstrap_expect = {}, not {}", other.expect, status.expect),
        };
        format!("; node {} ({}) at {} does not count, because it has {why}", other.name, other.id, other.addr)
    });
    let lacks_nodes = !status.others.is_empty() && status.others.len() + 1 < status.expect as usize;
    let missing = if lacks_nodes { format!("; {asked}") } else { String::new() };
    format!("{seen}{pledge}{mismatch}{missing}")
}

/// The text during the first round.
pub fn looking(join: &[String], mdns: MdnsState) -> String {
    let at = if join.is_empty() { "by mDNS".to_owned() } else { format!("at {}", join.join(", ")) };
    match mdns {
        MdnsState::Off | MdnsState::Broken if join.is_empty() => nobody(join, "", &BTreeMap::new(), mdns),
        _ => format!("looking for a member {at}"),
    }
}

/// The text if several clusters have the name.
pub fn several(clusters: &BTreeSet<ClusterId>) -> String {
    let ids: Vec<String> = clusters.iter().map(ToString::to_string).collect();
    format!("several clusters have this name ({}): name a member of the right one with --join", ids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forming::messages::Candidate;
    use crate::types::{NodeId, NodeName};

    /// A node with join addresses was told to set one, and one that could never join only logged it as information.
    #[test]
    fn only_a_node_without_join_addresses_is_advised_to_set_one() {
        assert_eq!(advice(&["a:1".to_owned()], MdnsState::Off), (Level::Info, ""));
        for (mdns, expected) in [
            (MdnsState::Off, Level::Warn),
            (MdnsState::Broken, Level::Warn),
            (MdnsState::FoundNone, Level::Info),
            (MdnsState::FoundSome, Level::Info),
        ] {
            let (level, advice) = advice(&[], mdns);
            assert!(level == expected && advice.contains("--join") && advice.contains("--bootstrap"), "{mdns:?}");
        }
    }

    #[test]
    fn a_node_that_forms_a_cluster_says_what_it_waits_for() {
        let node = |id: u64, expect: u32| BlankNode {
            id: NodeId(id),
            name: NodeName::new(&format!("n{id}")).expect("a name"),
            addr: format!("h{id}:1"),
            expect,
            incarnation: 1,
        };
        let candidate = |id: u64| Some(Candidate { id: NodeId(id), addr: format!("h{id}:1"), is_withdrawing: false });
        let alone = FormingStatus {
            expect: 3,
            others: Vec::new(),
            mismatch: None,
            candidate: None,
            is_candidate: false,
            candidate_seen: false,
            pledges: 0,
            needed: 3,
        };
        assert_eq!(
            forming(&alone, "mDNS found no node"),
            "sees no other blank node, and 3 are to form the cluster (mDNS found no node)"
        );
        let two = FormingStatus { others: vec![node(2, 3)], mismatch: Some(node(9, 4)), ..alone.clone() };
        let text = forming(&two, "no member answers");
        assert!(
            text.starts_with("sees 2 blank nodes of 3 that are to form the cluster (itself, n2 at h2:1)"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "n9 (0000000000000009) at h9:1 does not count, because it has bootstrap_expect = 4, not 3; no member answers"
            ),
            "{text}"
        );
        let founder = FormingStatus { candidate: candidate(1), is_candidate: true, pledges: 2, ..two.clone() };
        assert!(forming(&founder, "").contains("; has 2 of 3 pledges to found it"));
        let waits = FormingStatus { candidate: candidate(2), candidate_seen: true, ..two.clone() };
        assert!(forming(&waits, "").contains("has pledged to node 0000000000000002 at h2:1, which founds it"));
        let stuck = forming(&FormingStatus { candidate_seen: false, ..waits }, "");
        assert!(stuck.contains("which does not answer: start that node") && stuck.contains("pledge.toml"), "{stuck}");
    }

    #[test]
    fn the_firewall_is_told_by_port() {
        let mdns = firewall("10.0.0.1:8401", MdnsState::FoundNone);
        assert!(mdns.contains("TCP port 8401 (bind_addr), and UDP port 5353"), "{mdns}");
        assert!(!firewall("10.0.0.1:8401", MdnsState::Off).contains("5353"));
    }

    #[test]
    fn each_reason_names_the_addresses_and_their_answers() {
        let join = |addrs: &[&str]| addrs.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
        let others = |answers: &[(&str, &str)]| {
            answers.iter().map(|(addr, why)| ((*addr).to_owned(), (*why).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let none = others(&[]);
        assert_eq!(nobody(&[], "c:1", &none, MdnsState::Off), "no join address is configured, and mDNS is off");
        assert_eq!(
            nobody(&[], "c:1", &none, MdnsState::FoundNone),
            "no join address is configured, and mDNS found no node"
        );
        let own = others(&[("c:1", "this node is not a member of a cluster yet")]);
        assert_eq!(
            nobody(&join(&["c:1"]), "c:1", &own, MdnsState::Broken),
            "the only join address is this node's own (c:1), and mDNS does not work on this host"
        );
        let mut others = others(&[("a:1", "connection refused"), ("b:1", "another cluster")]);
        others.extend(own);
        assert_eq!(
            nobody(&join(&["a:1", "b:1", "c:1"]), "c:1", &others, MdnsState::FoundSome),
            "no member answers (a:1: connection refused; b:1: another cluster)"
        );
        assert_eq!(looking(&join(&["a:1", "b:1"]), MdnsState::Off), "looking for a member at a:1, b:1");
        assert_eq!(looking(&[], MdnsState::FoundNone), "looking for a member by mDNS");
        assert_eq!(looking(&[], MdnsState::Off), "no join address is configured, and mDNS is off");
    }
}
