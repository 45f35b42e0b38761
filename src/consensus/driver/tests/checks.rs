//! What must hold after each step of each node of a simulated cluster:
//!
//! - each term of a group has one leader, and it has every entry that was committed before;
//! - a replica votes once in a term;
//! - a leader that a majority hears is not replaced by an election (`elections.rs`);
//! - what one node shows at an index, every node shows: nothing that is visible or acknowledged is lost or replaced;
//! - offsets have no gaps, timestamps do not decrease, and a log is not trimmed beyond its end;
//! - the hash chain of each entry continues that of the entry before;
//! - each index has one set of voters;
//! - the requests of a producer are appended once, in their order, and a cursor moves as its commands demand;
//! - no group contains a replica that the catalog lists as removed, and a node leaves the cluster without replicas.
//!
//! Only what readers of a node see counts as visible.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::eraftpb::MessageType;

use super::elections::Reign;
use super::network::{Flight, Sent};
use super::*;
use crate::catalog::Catalog;
use crate::consensus::replica::Replica;
use crate::consensus::tests::cursors::Model;
use crate::hash_chain::{ChainHash, ContentHash, EntryChain};
use crate::log_state::StateCommand;
use crate::storage::entry::Entry;
use crate::storage::log::ConfState;
use crate::storage::payload::{record_value, records};
use crate::storage::reader::Access;
use crate::types::{Offset, Term};
use crate::watermark::HighWatermark;

/// What has happened: a hash of all of it, and lines for people if they are wanted.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// From now on lines are kept.
    pub fn keep_lines(&mut self) {
        self.lines = Some(Vec::new());
    }

    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn mix(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub fn line(&mut self, line: impl FnOnce() -> String) {
        self.mix(1);
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    /// A message has arrived. There are too many for lines.
    pub fn delivered(&mut self, flight: &Flight) {
        let Flight { from, to, sent, clock_us, .. } = flight;
        [from.0, to.0, *clock_us].into_iter().for_each(|number| self.mix(number));
        match sent {
            Sent::Message(message) => {
                let numbers = [message.group, u64::from(message.type_), message.term, message.index, message.commit];
                numbers.into_iter().for_each(|number| self.mix(number));
                self.mix(message.entries.len() as u64);
            }
            Sent::Proposal(proposal) | Sent::Forward(proposal, _) => self.mix(proposal.payload.len() as u64),
            Sent::ReadIndex(group, _) => self.mix(group.0),
        }
    }
}

/// What has happened in a group, as far as any reader has seen it.
#[derive(Default)]
pub struct GroupHistory {
    committed: BTreeMap<LogIndex, (Term, Bytes)>,
    /// The value of each record.
    pub records: BTreeMap<Offset, u64>,
    /// The offsets of each value.
    pub values: BTreeMap<u64, Vec<Offset>>,
    pub next_offset: Offset,
    /// The highest end that any node has shown. A node that drops its replica may have shown entries just before, which
    /// nobody can read any more.
    pub shown: Offset,
    /// Everything below it was trimmed.
    pub trimmed: Offset,
    append_time_us: u64,
    chain: ChainHash,
    leaders: BTreeMap<Term, ReplicaId>,
    pub reign: Reign,
    voters: BTreeMap<LogIndex, ConfState>,
    /// The replicas that the catalog lists as removed, with the newest set of voters at that time.
    removed: BTreeMap<ReplicaId, LogIndex>,
    /// The last sequence of each registered producer.
    producers: BTreeMap<u64, u64>,
    pub cursors: Model,
}

/// What was seen of a replica.
#[derive(Default)]
struct Seen {
    replica: ReplicaId,
    applied: LogIndex,
    conf: Option<LogIndex>,
    leads: Option<Term>,
    first_offset: Offset,
    /// The entries that are written and not visible yet. They may be trimmed as soon as they are visible.
    tail: VecDeque<Entry>,
    watermark: HighWatermark,
}

#[derive(Default)]
pub struct Checks {
    pub trace: Trace,
    pub groups: BTreeMap<GroupId, GroupHistory>,
    seen: BTreeMap<(usize, GroupId), Seen>,
    /// The candidate that a replica has voted for, by group, replica and term.
    votes: BTreeMap<(u64, u64, u64), u64>,
    /// The catalog after all of its entries that were visible.
    pub catalog: Catalog,
    /// The nodes that an operator removes, whatever replicas they have.
    pub forced: BTreeSet<NodeId>,
    /// A rule is broken without which a leader may be replaced although a majority hears it.
    pub deposes: bool,
}

impl Checks {
    /// A node sends a message: a replica votes once in a term.
    pub fn send(&mut self, sent: &Sent) {
        if let Sent::Message(message) = sent
            && message.type_ == MessageType::MsgRequestVoteResponse as u32
            && !message.reject
        {
            let (group, voter, term, candidate) = (message.group, message.from, message.term, message.to);
            let before = *self.votes.entry((group, voter, term)).or_insert(candidate);
            assert_eq!(before, candidate, "group {group}: replica {voter} votes twice in term {term}");
        }
        if let Sent::Message(message) = sent
            && message.type_ == MessageType::MsgTimeoutNow as u32
        {
            self.groups.entry(GroupId(message.group)).or_default().reign.hand_over(Term(message.term));
        }
    }

    /// A node was started, or its process has ended: all that it has is checked again.
    pub fn restarted(&mut self, i: usize) {
        self.seen.retain(|(of, _), _| *of != i);
        self.groups.values_mut().for_each(|history| history.reign.restart());
    }

    /// Checks a node after a step. `damaged`: some of its files were damaged, or a write has failed, so reads may fail.
    pub fn observe(&mut self, i: usize, driver: &Driver, damaged: bool) {
        let Checks { trace, groups, seen, deposes, .. } = self;
        seen.retain(|(node, group), seen| {
            let stays =
                *node != i || driver.groups.get(group).is_some_and(|replica| replica.group.me() == seen.replica);
            if !stays {
                groups.entry(*group).or_default().show(&seen.watermark);
            }
            stays
        });
        let mut commands = Vec::new();
        for (group, replica) in driver.groups.iter() {
            let history = groups.entry(*group).or_default();
            let (me, term) = (replica.group.me(), replica.group.term());
            let seen = seen.entry((i, *group)).or_insert_with(|| Seen {
                replica: me,
                watermark: replica.watermark.clone(),
                ..Seen::default()
            });
            if *deposes {
                history.reign.restart();
            }
            history.reign.see(*group, i, term);
            history.show(&seen.watermark);
            assert!(damaged || !replica.group.is_damaged(), "node {i} reports damage: {:?}", replica.status().damage);
            let leads = replica.group.leads().then_some(term);
            if leads.is_some() && leads != seen.leads {
                trace.line(|| format!("node {i} leads group {group} in term {term}"));
                trace.mix(term.0);
                history.lead(*group, term, replica);
            }
            seen.leads = leads;
            let (conf, conf_index) = replica.group.node.store().conf();
            if seen.conf != Some(conf_index) {
                seen.conf = Some(conf_index);
                history.set_voters(*group, conf_index, conf);
            }
            seen.read_tail(i, *group, replica, damaged);
            let visible = replica.watermark.get();
            while let Some(entry) = seen.tail.pop_front_if(|entry| entry.index <= visible.applied) {
                let is_new = history.see(i, *group, &entry, trace);
                commands.extend(is_new.then_some(entry).filter(|_| *group == GroupId::CATALOG));
            }
            seen.applied = seen.applied.max(visible.applied);
            if visible.first_offset > seen.first_offset {
                seen.first_offset = visible.first_offset;
                let trimmed = history.trimmed;
                assert!(
                    *group == GroupId::CATALOG || visible.first_offset <= trimmed,
                    "node {i}: group {group} begins at {}, but was trimmed up to {trimmed}",
                    visible.first_offset
                );
            }
        }
        commands.iter().for_each(|entry| self.change_catalog(entry));
    }

    /// Applies a committed entry of the catalog's group.
    fn change_catalog(&mut self, entry: &Entry) {
        let Ok(stamp) = entry.stamp() else { return };
        if stamp.kind != EntryKind::Records {
            return;
        }
        for record in records(&entry.payload()) {
            let command = Command::of_record(record.expect("canonical")).expect("a command");
            let placed = |node: NodeId| self.catalog.logs().find(|log| log.placements().any(|p| p.node == node));
            match &command {
                Command::RemoveNode(node) if !self.forced.contains(node) => {
                    let leaves = self.catalog.plan(*node).leaves.is_some();
                    let log = placed(*node).filter(|_| leaves).map(|log| log.group);
                    assert_eq!(log, None, "node {node} left, and still has a replica of this group");
                }
                Command::ReplicaRemoved(group, replica) => {
                    self.groups.entry(*group).or_default().remove(*replica);
                }
                _ => {}
            }
            self.catalog.apply(&command, stamp.append_time_us);
        }
    }
}

impl Seen {
    /// Reads the entries that were written since the last step.
    fn read_tail(&mut self, i: usize, group: GroupId, replica: &Replica, damaged: bool) {
        let node = &replica.group.node;
        let (written, base) = (node.store().last_end().index, node.store().base().index);
        // Another leader may have replaced the end.
        let is_stale = |entry: &mut Entry| entry.index > written || node.term_at(entry.index) != Some(entry.term);
        while self.tail.pop_back_if(is_stale).is_some() {}
        let mut next = self.tail.back().map_or(self.applied, |last| last.index).max(base).next();
        while next <= written {
            match replica.reader.entries(next, written.next(), 1 << 20, Access::Blocking) {
                Ok(entries) => {
                    if entries.is_empty() && damaged {
                        return;
                    }
                    assert!(
                        !entries.is_empty(),
                        "node {i}, group {group}: entry {next} is missing, the last one is {written}"
                    );
                    next = entries.last().map_or(next, |last| last.index.next());
                    self.tail.extend(entries);
                }
                Err(_) if damaged => return,
                Err(error) => panic!("node {i}, group {group}: entry {next} of {written} can't be read: {error}"),
            }
        }
    }
}

impl GroupHistory {
    /// Returns the last entry that any reader has seen.
    pub fn last(&self) -> LogIndex {
        self.committed.last_key_value().map(|(index, _)| *index).unwrap_or_default()
    }

    /// Returns the entry at an index, if any reader has seen it.
    pub fn entry(&self, index: LogIndex) -> Option<Entry> {
        let (term, data) = self.committed.get(&index)?;
        Some(Entry { index, term: *term, data: data.clone() })
    }

    fn lead(&mut self, group: GroupId, term: Term, replica: &Replica) {
        let me = replica.group.me();
        let leader = *self.leaders.entry(term).or_insert(me);
        assert_eq!(leader, me, "group {group} has two leaders in term {term}");
        let last = self.committed.iter().rev().find(|(_, (of, _))| *of < term);
        if let Some((index, (of, _))) = last {
            let node = &replica.group.node;
            let has = *index < node.store().base().index || node.has_entry(*index, *of);
            assert!(has, "group {group}: replica {me} leads in term {term} without entry {index}, which is committed");
        }
    }

    fn show(&mut self, watermark: &HighWatermark) {
        self.shown = self.shown.max(watermark.get().next_offset);
    }

    /// The catalog lists a replica as removed: its node may drop it.
    fn remove(&mut self, replica: ReplicaId) {
        let newest = self.voters.last_key_value();
        let in_group =
            newest.is_some_and(|(_, conf)| conf.voters.contains(&replica) || conf.learners.contains(&replica));
        assert!(!in_group, "replica {replica} is reported as removed, but is in {newest:?}");
        self.removed.insert(replica, newest.map(|(index, _)| *index).unwrap_or_default());
    }

    fn set_voters(&mut self, group: GroupId, index: LogIndex, conf: &ConfState) {
        let mut conf = conf.clone();
        conf.voters.sort_unstable();
        conf.learners.sort_unstable();
        if !conf.voters.is_empty() {
            let again = |(replica, then): &(&ReplicaId, &LogIndex)| {
                index > **then && (conf.voters.contains(replica) || conf.learners.contains(replica))
            };
            let again = self.removed.iter().find(again);
            assert_eq!(again, None, "group {group} adds at entry {index} a replica again that was removed");
            let known = self.voters.entry(index).or_insert_with(|| conf.clone());
            assert_eq!(*known, conf, "group {group} has two sets of voters at entry {index}");
        }
    }

    /// An entry is visible on a node. Returns true if no node has shown it before.
    fn see(&mut self, i: usize, group: GroupId, entry: &Entry, trace: &mut Trace) -> bool {
        let Entry { index, term, .. } = *entry;
        if let Some((known_term, known)) = self.committed.get(&index) {
            assert!(
                (*known_term, known) == (term, &entry.data),
                "node {i} shows another entry {index} of group {group}: of term {term}, before it was of term {known_term}"
            );
            return false;
        }
        let last = self.last();
        assert!(index > last, "node {i} shows entry {index} of group {group}, which was below the base of all others");
        let is_next = last.0 == 0 || index == last.next();
        assert!(is_next, "node {i} shows entry {index} of group {group}, but nobody has shown {}", last.next());
        trace.line(|| format!("entry {index} of term {term} of group {group} is visible, on node {i} first"));
        [group.0, index.0, term.0].into_iter().for_each(|number| trace.mix(number));
        self.apply(group, entry);
        self.committed.insert(index, (term, entry.data.clone()));
        true
    }

    fn apply(&mut self, group: GroupId, entry: &Entry) {
        let Ok(stamp) = entry.stamp() else { return };
        let Entry { index, .. } = entry;
        assert_eq!(stamp.base_offset, self.next_offset, "group {group}: the offset of entry {index}");
        // The log state, from which a restarted leader knows the newest time, has that of the newest records.
        if stamp.append_time_us > 0 && stamp.kind.payload().has_records() {
            assert!(stamp.append_time_us >= self.append_time_us, "group {group}: the time of entry {index} went back");
            self.append_time_us = stamp.append_time_us;
        }
        match stamp.kind {
            EntryKind::Records | EntryKind::ChainedRecords => {
                let payload = entry.payload();
                let form = stamp.kind.payload();
                if let Some(stored) = form.chain(&payload) {
                    let end = self.next_offset.0 + u64::from(stamp.count);
                    let expected = EntryChain::of(self.chain, end, ContentHash::of(form.records(&payload)));
                    assert_eq!(stored, expected, "group {group}: the hash chain of entry {index}");
                    self.chain = stored.after;
                }
                if stamp.producer_id != 0 {
                    let last = self.producers.get_mut(&stamp.producer_id);
                    let last = last.unwrap_or_else(|| panic!("entry {index}: nobody has registered its producer"));
                    assert_eq!(stamp.sequence, *last + 1, "group {group}: the sequence of entry {index}");
                    *last = stamp.sequence;
                }
                if group != GroupId::CATALOG {
                    for (at, record) in records(form.records(&payload)).enumerate() {
                        let value = record_value(record.expect("canonical")).expect("a value");
                        let value = u64::from_le_bytes(value[..8].try_into().expect("eight bytes"));
                        let offset = Offset(self.next_offset.0 + at as u64);
                        self.records.insert(offset, value);
                        self.values.entry(value).or_default().push(offset);
                    }
                }
                self.next_offset = Offset(self.next_offset.0 + u64::from(stamp.count));
            }
            EntryKind::Trim => {
                let first = u64::from_le_bytes(entry.payload()[..].try_into().expect("eight bytes"));
                assert!(first <= self.next_offset.0, "group {group}: entry {index} trims beyond the end");
                self.trimmed = self.trimmed.max(Offset(first));
            }
            EntryKind::State => {
                for command in StateCommand::decode_all(&entry.payload()).expect("commands") {
                    if let StateCommand::InitProducer(init) = &command
                        && init.name.is_none()
                    {
                        let before = self.producers.insert(init.id.0, 0);
                        assert!(before.is_none(), "group {group}: the producer {} is registered twice", init.id);
                    }
                    self.cursors.apply(&command);
                }
            }
            EntryKind::Noop | EntryKind::ConfChange => {}
        }
    }
}
