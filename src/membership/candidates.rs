//! The addresses at which a cluster may answer: the join addresses, and those that mDNS found.

use std::collections::BTreeMap;

use crate::membership::mdns::Find;
use crate::types::{ClusterId, NodeId};

/// The maximum number of nodes found by mDNS. Further ones are ignored until some are withdrawn. A member takes the
/// place of a blank node.
const FINDS_MAX: usize = 64;
/// The cluster id in the announcement of a blank node.
const BLANK: ClusterId = ClusterId(0);

/// The addresses to ask. Nodes that announce another cluster's name are not included.
#[derive(Debug, Default)]
pub struct Candidates {
    cluster_name: String,
    join: Vec<String>,
    finds: BTreeMap<String, Find>,
}

impl Candidates {
    /// Starts with the join addresses.
    pub fn new(cluster_name: &str, join: &[String]) -> Candidates {
        let mut unique: Vec<String> = Vec::new();
        for addr in join {
            if !unique.contains(addr) {
                unique.push(addr.clone());
            }
        }
        Candidates { cluster_name: cluster_name.to_owned(), join: unique, finds: BTreeMap::new() }
    }

    /// Adds a node that mDNS found. Returns true if it announces this cluster's name and has changed or was not known.
    pub fn add(&mut self, find: Find) -> bool {
        if find.cluster_name != self.cluster_name {
            return false;
        }
        if self.finds.get(&find.instance) == Some(&find) {
            return false;
        }
        if self.finds.len() >= FINDS_MAX && !self.finds.contains_key(&find.instance) {
            let blank = self.finds.values().find(|other| other.cluster_id == BLANK && find.cluster_id != BLANK);
            let Some(blank) = blank.map(|other| other.instance.clone()) else { return false };
            self.finds.remove(&blank);
        }
        self.finds.insert(find.instance.clone(), find);
        true
    }

    /// Removes a node whose mDNS announcement was withdrawn.
    pub fn remove(&mut self, instance: &str) {
        self.finds.remove(instance);
    }

    /// The join addresses.
    pub fn join(&self) -> &[String] {
        &self.join
    }

    /// Returns true if mDNS has found a node with this cluster's name.
    pub fn has_finds(&self) -> bool {
        !self.finds.is_empty()
    }

    /// Returns every address to ask, the join addresses first.
    pub fn addresses(&self) -> Vec<String> {
        let mut all = self.join.clone();
        for find in self.finds.values() {
            if !all.contains(&find.bind_addr) {
                all.push(find.bind_addr.clone());
            }
        }
        all
    }

    /// Returns the addresses of members that mDNS found and that announce another cluster id.
    pub fn nodes_of_others(&self, cluster: ClusterId) -> impl Iterator<Item = &str> {
        let others = self.finds.values().filter(move |f| f.cluster_id != cluster && f.cluster_id != BLANK);
        others.map(|f| f.bind_addr.as_str())
    }

    /// Returns the nodes of one cluster that mDNS found, with their addresses.
    pub fn nodes_of(&self, cluster: ClusterId) -> impl Iterator<Item = (NodeId, &str)> {
        self.finds.values().filter(move |f| f.cluster_id == cluster).map(|f| (f.node_id, f.bind_addr.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(instance: &str, cluster: &str, addr: &str) -> Find {
        Find {
            instance: instance.to_owned(),
            cluster_name: cluster.to_owned(),
            cluster_id: ClusterId(1),
            node_id: NodeId(2),
            bind_addr: addr.to_owned(),
        }
    }

    #[test]
    fn finds_of_other_clusters_are_ignored_and_join_addresses_are_first() {
        let given = ["b:1".to_owned(), "a:1".to_owned(), "b:1".to_owned()];
        let mut candidates = Candidates::new("x", &given);
        assert!(candidates.add(find("1", "x", "c:1")));
        assert!(!candidates.add(find("1", "x", "c:1")), "not new");
        assert!(!candidates.add(find("2", "y", "d:1")), "another cluster's name");
        assert!(candidates.add(find("3", "x", "a:1")));
        assert_eq!(candidates.addresses(), ["b:1", "a:1", "c:1"]);
        candidates.remove("1");
        assert_eq!(candidates.addresses(), ["b:1", "a:1"]);
        assert_eq!(candidates.nodes_of(ClusterId(1)).count(), 1);
        for n in 0..2 * FINDS_MAX {
            candidates.add(find(&format!("n{n}"), "x", "e:1"));
        }
        assert_eq!(candidates.finds.len(), FINDS_MAX);
        // Blank nodes make room for members.
        let mut candidates = Candidates::new("x", &[]);
        let blank = |n: usize| Find { cluster_id: BLANK, ..find(&format!("n{n}"), "x", &format!("e:{n}")) };
        (0..FINDS_MAX).for_each(|n| assert!(candidates.add(blank(n))));
        assert!(!candidates.add(blank(FINDS_MAX)), "no room for another blank node");
        assert!(candidates.add(find("member", "x", "m:1")));
        assert_eq!(candidates.finds.len(), FINDS_MAX);
        assert_eq!(candidates.nodes_of_others(ClusterId(2)).collect::<Vec<_>>(), ["m:1"], "no blank nodes");
    }
}
