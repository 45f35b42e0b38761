//! Records events about groups and members: new leaders, damage, members that join, leave, fall silent or are heard
//! again.
//!
//! `Group` is pure and the catalog has no clock, so the changes are noticed by comparing what is known on each tick.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Catalog;
use crate::consensus::status::GroupStatus;
use crate::events::{EventKind, Events, Severity};
use crate::types::{GroupId, NodeId};

/// Notices changes. For the members that the catalog has at first, nothing is recorded.
#[derive(Default)]
pub struct EventWatch {
    events: Events,
    members: Option<BTreeMap<NodeId, Known>>,
    damaged: BTreeSet<GroupId>,
}

#[derive(Clone, PartialEq, Eq)]
struct Known {
    name: String,
    is_silent: bool,
}

impl EventWatch {
    /// Records in these events.
    pub fn new(events: Events) -> EventWatch {
        EventWatch { events, ..EventWatch::default() }
    }

    /// Records that a group has another leader.
    pub fn leader(&self, status: &GroupStatus, catalog: &Catalog) {
        // While a cluster is founded, its members are not known yet.
        let Some(leader) = status.leader.and_then(|leader| catalog.member(leader)) else { return };
        let text = format!("{} is led by {} in term {}", name_of(status.group, catalog), leader.name, status.term.0);
        self.events.record(EventKind::Leader, Severity::Info, text);
    }

    /// Records that a replica of this node became damaged, or is in order again.
    pub fn damage(&mut self, status: &GroupStatus, catalog: &Catalog) {
        let group = status.group;
        match &status.damage {
            Some(what) if self.damaged.insert(group) => {
                let text = format!("the replica of {} is damaged: {what}", name_of(group, catalog));
                self.events.record(EventKind::Damage, Severity::Error, text);
            }
            None if self.damaged.remove(&group) => {
                let text = format!("the replica of {} is in order again", name_of(group, catalog));
                self.events.record(EventKind::Damage, Severity::Info, text);
            }
            Some(_) | None => {}
        }
    }

    /// Returns whether the members have been looked at.
    pub fn knows_members(&self) -> bool {
        self.members.is_some()
    }

    /// Records members that have joined, left, fallen silent, or are heard again. Does nothing before there is any member.
    pub fn members(&mut self, catalog: &Catalog, is_silent: impl Fn(NodeId) -> bool) {
        if !self.knows_members() && catalog.members().next().is_none() {
            return;
        }
        let known = |id| is_silent(id);
        let now: BTreeMap<NodeId, Known> = catalog
            .members()
            .map(|member| (member.id, Known { name: member.name.to_string(), is_silent: known(member.id) }))
            .collect();
        let Some(before) = self.members.replace(now.clone()) else { return };
        if before == now {
            return;
        }
        for (id, node) in &now {
            match before.get(id) {
                None => self.record_member(EventKind::Member, Severity::Info, &node.name, "is a member"),
                Some(old) if !old.is_silent && node.is_silent => {
                    self.record_member(EventKind::Peer, Severity::Warning, &node.name, "is not heard");
                }
                Some(old) if old.is_silent && !node.is_silent => {
                    self.record_member(EventKind::Peer, Severity::Info, &node.name, "is heard again");
                }
                Some(_) => {}
            }
        }
        for node in before.iter().filter(|(id, _)| !now.contains_key(id)).map(|(_, node)| node) {
            self.record_member(EventKind::Member, Severity::Info, &node.name, "has left the cluster");
        }
    }

    fn record_member(&self, kind: EventKind, severity: Severity, name: &str, what: &str) {
        self.events.record(kind, severity, format!("node {name} {what}"));
    }
}

fn name_of(group: GroupId, catalog: &Catalog) -> String {
    match catalog.log(group) {
        Some(log) => format!("log {}", log.name),
        None if group == GroupId::CATALOG => "the catalog".to_owned(),
        None => format!("group {group}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Command, Member};
    use crate::types::{NodeName, Term};

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for (id, name) in [(1, "n1"), (2, "n2")] {
            let addr = |port| format!("127.0.0.1:{port}");
            let name = NodeName::new(name).expect("a name");
            let member = Member { id: NodeId(id), name, bind_addr: addr(8400 + id), rpc_addr: addr(8500 + id) };
            catalog.apply(&Command::AddNode(member), 1);
        }
        catalog
    }

    #[test]
    fn a_change_is_recorded_once() {
        let events = Events::default();
        let mut watch = EventWatch::new(events.clone());
        let catalog = catalog();
        let status = |damage: Option<&str>| GroupStatus {
            group: GroupId::CATALOG,
            leader: Some(NodeId(2)),
            term: Term(7),
            damage: damage.map(str::to_owned),
            ..GroupStatus::default()
        };
        watch.leader(&status(None), &Catalog::default());
        watch.leader(&status(None), &catalog);
        for damage in [None, Some("a hole"), Some("a hole"), None, None] {
            watch.damage(&status(damage), &catalog);
        }
        let mut texts: Vec<String> = events.newest().into_iter().map(|event| event.text).collect();
        texts.sort();
        assert_eq!(
            texts,
            [
                "the catalog is led by n2 in term 7",
                "the replica of the catalog is damaged: a hole",
                "the replica of the catalog is in order again",
            ]
        );
    }

    #[test]
    fn members_that_were_known_at_first_are_no_event() {
        let events = Events::default();
        let mut watch = EventWatch::new(events.clone());
        let text = |members: &BTreeMap<NodeId, Known>| members.len();
        let catalog = catalog();
        watch.members(&Catalog::default(), |_| false);
        assert!(!watch.knows_members(), "the node has not joined yet");
        watch.members(&catalog, |_| false);
        assert_eq!((events.newest().len(), watch.members.as_ref().map(text)), (0, Some(2)));
        watch.members(&catalog, |node| node == NodeId(2));
        watch.members(&catalog, |_| false);
        watch.members(&Catalog::default(), |_| false);
        watch.members(&catalog, |_| false);
        let mut texts: Vec<(String, u64)> = events.newest().into_iter().map(|e| (e.text, e.count)).collect();
        texts.sort();
        let once = |text: &str| (text.to_owned(), 1);
        assert_eq!(
            texts,
            [
                once("node n1 has left the cluster"),
                once("node n1 is a member"),
                once("node n2 has left the cluster"),
                once("node n2 is a member"),
                once("node n2 is heard again"),
                once("node n2 is not heard"),
            ]
        );
    }
}
