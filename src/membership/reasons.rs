//! Texts that say why a node is not admitted yet, for its log and for clients.

use std::collections::{BTreeMap, BTreeSet};

use log::Level;

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
                  start one node, once, with --bootstrap";
    (level, advice)
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
