//! A random history: the catalog's commands, the nodes, the network between them, and what must hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::nodes::Node;
use crate::catalog::command::Command;
use crate::catalog::policy::Action;
use crate::catalog::policy::facts::{Now, Replicas};
use crate::catalog::state::{Applied, Catalog};
use crate::consensus::completions::ReplicaEpoch;
use crate::consensus::driver::admission::check_replicas;
use crate::consensus::group::{Effects, Group, Successor};
use crate::consensus::handle::Proposal;
use crate::consensus::tests::disk::Change;
use crate::consensus::tests::sim::{Answer, Rng, answered};
use crate::consensus::wire;
use crate::pb::peer::RaftMessage;
use crate::reply::reply;
use crate::storage::entry::{Entry, EntryKind};
use crate::storage::payload::{RecordFields, encode_record, record_value, records};
use crate::types::{GroupId, LogIndex, NodeId, Offset, ReplicaId, Term};

/// What every node must agree on in one group.
#[derive(Default)]
pub struct GroupFacts {
    pub committed: BTreeMap<LogIndex, (Term, Bytes)>,
    leaders: BTreeMap<Term, ReplicaId>,
    asked: Vec<(u64, Answer)>,
    pub acknowledged: BTreeMap<u64, Offset>,
}

/// A message on its way.
#[derive(Clone)]
pub struct Envelope {
    from: NodeId,
    to: NodeId,
    message: RaftMessage,
}

pub struct History {
    pub rng: Rng,
    pub nodes: Vec<Node>,
    /// The catalog with all commands, and the commands.
    pub catalog: Catalog,
    pub commands: Vec<(u64, Command)>,
    pub groups: BTreeMap<GroupId, GroupFacts>,
    /// Every replica that was ever created, its group and its node.
    pub made: BTreeMap<ReplicaId, (GroupId, NodeId)>,
    pub network: Vec<Envelope>,
    /// Messages that arrive much later.
    pub delayed: Vec<Envelope>,
    pub epoch: ReplicaEpoch,
    pub faulty: bool,
    pub time_us: u64,
    pub values: u64,
    now: Instant,
}

impl History {
    pub fn new(seed: u64) -> History {
        History {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            nodes: Vec::new(),
            catalog: Catalog::default(),
            commands: Vec::new(),
            groups: BTreeMap::new(),
            made: BTreeMap::new(),
            network: Vec::new(),
            delayed: Vec::new(),
            epoch: ReplicaEpoch::default(),
            faulty: true,
            time_us: 1_000_000_000,
            values: 0,
            now: Instant::now(),
        }
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.rng.below(times) == 0
    }

    /// Appends a command to the catalog's log, unless its leader would see that it changes nothing.
    pub fn command(&mut self, command: Command) {
        let is_proposed = self.catalog.would_change(&command) == Ok(true);
        if is_proposed && matches!(self.catalog.apply(&command, self.time_us), Applied::Changed(_)) {
            self.commands.push((self.time_us, command));
        }
    }

    pub fn tick(&mut self, i: usize) {
        let (now, wall_us) = (self.now, self.time_us);
        let Some(process) = &mut self.nodes[i].process else { return };
        process.ticks += 1;
        let mut facts = Replicas::new();
        for (group, replica) in &mut process.replicas {
            replica.group.tick(now);
            facts.insert(*group, replica.group.facts());
        }
        let due = process.replicas.keys().copied().collect();
        let now = Now { tick: process.ticks, at: now, wall_us };
        let mut proposed = Vec::new();
        for action in process.policy.tick(&process.catalog, &facts, &due, now) {
            match action {
                Action::Propose(command) => proposed.push(command),
                Action::ChangeMembership(group, change) => {
                    process.replicas.get_mut(&group).expect("its own").group.change_membership(change);
                }
                Action::HandOver(group) => {
                    process.replicas.get_mut(&group).expect("its own").group.hand_over(Successor::Any);
                }
                Action::Drain(group) => {
                    process.replicas.get_mut(&group).expect("its own").group.hand_over(Successor::NotAvoided);
                }
                Action::ReportRemoved(group, removed) => {
                    let replica = process.replicas.get_mut(&group).expect("its own");
                    if process.removals.is_confirmed(group, removed, &mut replica.group, now.at) {
                        proposed.push(Command::ReplicaRemoved(group, removed));
                    }
                }
                // Its disks are sound.
                Action::GiveUpDamaged(..) | Action::KeepTime { .. } | Action::Trim(..) | Action::Notice(_) => {}
            }
        }
        for command in proposed {
            if !self.faulty || self.one_in(3) {
                self.command(command);
            }
        }
        self.perform_all(i);
    }

    pub fn pass_time(&mut self) {
        self.now += Duration::from_millis(50);
        self.time_us += 50_000;
    }

    /// Syncs a group. The report may be late.
    pub fn sync(&mut self, i: usize, group: GroupId) {
        let node = &mut self.nodes[i];
        let (Some(process), Some(dir)) = (&mut node.process, node.dirs.get_mut(&group)) else { return };
        if let Some(replica) = process.replicas.get(&group) {
            let ready = dir.disk.sync();
            process.completions.persisted(group, replica.epoch.ticket(ready));
        }
    }

    pub fn take_completions(&mut self, i: usize) {
        let Some(process) = &mut self.nodes[i].process else { return };
        let (persisted, _) = process.completions.take();
        for (group, ticket) in persisted {
            if let Some(replica) = process.replicas.get_mut(&group)
                && let Some(ready) = replica.epoch.ready_of(ticket)
            {
                replica.group.persisted(ready);
            }
        }
        self.perform_all(i);
    }

    /// Delivers, drops, duplicates or delays one message.
    pub fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = if self.faulty && self.one_in(4) { self.rng.below(self.network.len()) } else { 0 };
        let envelope = self.network.remove(at);
        if self.faulty {
            match self.rng.below(100) {
                0 | 1 => return,
                2 | 3 => self.network.push(envelope.clone()),
                4..=8 if self.delayed.len() < 60 => self.delayed.push(envelope.clone()),
                9 if self.delayed.len() < 60 => return self.delayed.push(envelope),
                _ => {}
            }
        }
        self.receive(envelope);
    }

    pub fn deliver_delayed(&mut self) {
        if !self.delayed.is_empty() {
            let at = self.rng.below(self.delayed.len());
            let envelope = self.delayed.swap_remove(at);
            self.receive(envelope);
        }
    }

    /// `Driver::step`.
    fn receive(&mut self, envelope: Envelope) {
        let Some(i) = self.nodes.iter().position(|node| node.id() == envelope.to) else { return };
        let Some(process) = &mut self.nodes[i].process else { return };
        let Envelope { from, to, message } = envelope;
        let group = GroupId(message.group);
        let replica = process.replicas.get_mut(&group).map(|replica| &mut replica.group);
        match check_replicas(from, &message, replica.as_deref(), &process.catalog, to) {
            Ok(true) => {}
            Ok(false) => return,
            Err(what) => panic!("a correct node sent {what}"),
        }
        let Some(replica) = replica else { return process.early.keep(from, message) };
        replica.nodes_mut().learn(ReplicaId(message.from), from);
        replica.step(wire::message_from_pb(message).expect("our own message"));
        self.perform(i, group);
    }

    pub fn take_early(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let Some(process) = &mut node.process else { return };
        let (to, replicas) = (node.member.id, &process.replicas);
        for (from, message) in process.early.take(|group| replicas.contains_key(&group)) {
            self.receive(Envelope { from, to, message });
        }
    }

    pub fn propose(&mut self, i: usize, group: GroupId) -> Option<u64> {
        let replica = self.nodes[i].process.as_mut()?.replicas.get_mut(&group)?;
        self.values += 1;
        let value = self.values;
        let mut payload = Vec::new();
        encode_record(&mut payload, &RecordFields { value: &value.to_le_bytes(), ..RecordFields::default() });
        let (sender, answer) = reply();
        let proposal = Proposal::new(group, EntryKind::Records, 1, payload.as_slice().into());
        replica.group.propose(proposal, self.now, self.time_us, sender);
        self.groups.entry(group).or_default().asked.push((value, answer));
        self.perform(i, group);
        Some(value)
    }

    pub fn perform_all(&mut self, i: usize) {
        let Some(process) = &self.nodes[i].process else { return };
        let groups: Vec<GroupId> = process.replicas.keys().copied().collect();
        groups.into_iter().for_each(|group| self.perform(i, group));
    }

    fn group_of(&mut self, i: usize, group: GroupId) -> Option<&mut Group> {
        let process = self.nodes[i].process.as_mut()?;
        process.replicas.get_mut(&group).map(|replica| &mut replica.group)
    }

    pub fn perform(&mut self, i: usize, group: GroupId) {
        while let Some(effects) = self.group_of(i, group).and_then(Group::ready) {
            self.perform_effects(i, group, effects);
        }
        let id = self.nodes[i].id();
        let Some(replica) = self.group_of(i, group) else { return };
        let (me, term, leads) = (replica.me(), replica.term(), replica.leads());
        if let Some(damage) = replica.status().damage {
            panic!("group {group} on node {id}: {damage}");
        }
        let facts = self.groups.entry(group).or_default();
        if leads {
            let leader = *facts.leaders.entry(term).or_insert(me);
            assert_eq!(leader, me, "two leaders of group {group} in term {term}");
        }
        let asked = std::mem::take(&mut facts.asked);
        for (value, mut answer) in asked {
            match answered(&mut answer) {
                None => facts.asked.push((value, answer)),
                Some(Ok(appended)) => {
                    facts.acknowledged.insert(value, appended.offset);
                }
                Some(Err(_)) => {}
            }
        }
    }

    fn perform_effects(&mut self, i: usize, group: GroupId, effects: Effects) {
        let node = &mut self.nodes[i];
        let (from, process) = (node.member.id, node.process.as_mut().expect("running"));
        let replica = process.replicas.get_mut(&group).expect("running");
        let disk = &mut node.dirs.get_mut(&group).expect("a directory").disk;
        if let Some(write) = effects.write {
            disk.make(Change::Write(write));
        }
        if let Some((conf, index)) = effects.conf_state {
            disk.make(Change::Conf(conf, index));
        }
        if let Some(visible) = effects.visible {
            let (log_state, as_of) = replica.group.log_state();
            disk.make(Change::Applied(log_state, as_of, visible.applied));
            let before = std::mem::replace(&mut replica.applied, visible.applied);
            let committed = &mut self.groups.entry(group).or_default().committed;
            for index in before.0 + 1..=visible.applied.0 {
                let Some(entry) = disk.files.entry(LogIndex(index)) else { continue };
                let known = committed.entry(LogIndex(index)).or_insert((entry.term, entry.data.clone()));
                assert_eq!(
                    *known,
                    (entry.term, entry.data.clone()),
                    "group {group}: entry {index} differs on node {i}"
                );
            }
        }
        if let Some(ready) = effects.sync {
            disk.want(ready);
        }
        for message in effects.messages {
            if let Some(to) = replica.group.nodes().node_of(ReplicaId(message.to)) {
                self.network.push(Envelope { from, to, message: wire::message_to_pb(group, message) });
            }
        }
        for answer in effects.answers {
            answer.send();
        }
        for fetch in effects.fetches {
            let entry = |index| disk.files.entry(LogIndex(index)).cloned();
            let entries: Vec<Entry> = (fetch.low.0..fetch.high.0).map_while(entry).collect();
            replica.group.fetched(fetch.low, &entries);
        }
    }

    /// Checks that every acknowledged value is stored once, at its offset.
    pub fn check_acknowledged(&self) {
        for (group, facts) in &self.groups {
            let mut found: BTreeMap<u64, Vec<Offset>> = BTreeMap::new();
            for (index, (term, data)) in &facts.committed {
                let entry = Entry { index: *index, term: *term, data: data.clone() };
                let stamp = entry.stamp().expect("a stamp");
                if stamp.kind == EntryKind::Records {
                    let payload = entry.payload();
                    let record = records(&payload).next().expect("a record").expect("canonical");
                    let value = record_value(record).expect("a value").try_into().expect("eight bytes");
                    found.entry(u64::from_le_bytes(value)).or_default().push(stamp.base_offset);
                }
            }
            for (value, offset) in &facts.acknowledged {
                assert_eq!(found.get(value).map(Vec::as_slice), Some(&[*offset][..]), "group {group}: value {value}");
            }
        }
    }
}
