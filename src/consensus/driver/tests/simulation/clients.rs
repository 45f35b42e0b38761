//! The clients of a simulated cluster: they append, with and without a producer, read, trim, and keep their positions in
//! cursors. They send requests to any node, do not always get the answer, and try again elsewhere. They know what they
//! were told, and check that it stays true.

use std::collections::BTreeMap;

use super::super::cluster::Cluster;
use super::super::*;
use super::look::{ask, check_records, cursor_on, is_purged, read_anywhere, target};
use crate::consensus::handle::ReadIndexError;
use crate::consensus::tests::sim::{Answer, Fate, answered};
use crate::log_state::cursors::{AcquireCursor, CommitCursor};
use crate::log_state::producers::InitProducer;
use crate::log_state::{StateCommand, StateRefusal};
use crate::reply::ReplyReceiver;
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{CursorName, Offset, ProducerId};
use futures::FutureExt as _;

/// A request of a client that does not try again.
struct Plain {
    group: GroupId,
    value: u64,
    count: u32,
    /// The committed end of the log when it was sent.
    end: Offset,
    expected: Option<Offset>,
    /// Its deadline had passed when it was sent.
    late: bool,
    answer: Answer,
}

/// A client with a registered id. Its requests are appended one after the other.
struct Producer {
    group: GroupId,
    id: ProducerId,
    instance: u64,
    registering: Option<Answer>,
    is_registered: bool,
    sequence: u64,
    /// The first value of the present request.
    value: u64,
    /// The attempts without an answer, also those to send earlier requests.
    attempts: Vec<(u64, Answer)>,
    acknowledged: BTreeMap<u64, Offset>,
}

/// A client that keeps its position in a cursor. When it restarts, it is another instance.
struct Reader {
    group: GroupId,
    cursor: CursorName,
    instance: u64,
    acquiring: Option<Answer>,
    /// The epoch and the revision that it knows.
    has: Option<(u64, u64)>,
    position: u64,
    attempts: Vec<(StateCommand, Answer)>,
}

/// A linearizable read.
struct Read {
    group: GroupId,
    /// The newest entry that was acknowledged before.
    known: LogIndex,
    /// The newest record that was acknowledged before.
    offset: Option<Offset>,
    answer: ReplyReceiver<Result<LogIndex, ReadIndexError>>,
    /// The entry that a node must have applied.
    confirmed: Option<LogIndex>,
}

pub struct Clients {
    /// The number of requests in each round.
    pub load: usize,
    values: u64,
    instances: u64,
    plain: Vec<Plain>,
    producers: Vec<Producer>,
    readers: Vec<Reader>,
    reads: Vec<Read>,
    /// Requests that must never be appended.
    strangers: Vec<Answer>,
    /// What became of each value that is not a producer's.
    fates: BTreeMap<u64, (GroupId, Fate)>,
    /// The newest entry and record of each log that were acknowledged.
    acknowledged: BTreeMap<GroupId, (LogIndex, Option<Offset>)>,
}

/// Returns `count` records with the values from this one on. Their lengths differ, so that segments end soon.
fn payload(value: u64, count: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    for value in value..value + u64::from(count) {
        let mut bytes = value.to_le_bytes().to_vec();
        bytes.resize(8 + (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize, 0);
        encode_record(&mut payload, &RecordFields { value: &bytes, ..RecordFields::default() });
    }
    payload
}

fn proposal(group: GroupId, value: u64, count: u32) -> Proposal {
    // Every second log has a hash chain.
    let is_chained = group != GroupId::CATALOG && group.0.is_multiple_of(2);
    let kind = if is_chained { EntryKind::ChainedRecords } else { EntryKind::Records };
    Proposal::new(group, kind, count, payload(value, count).as_slice().into())
}

/// A request has this many records.
fn count_of(value: u64) -> u32 {
    1 + (value % 3) as u32
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            load: 2,
            values: 1,
            instances: 1,
            plain: Vec::new(),
            producers: Vec::new(),
            readers: Vec::new(),
            reads: Vec::new(),
            strangers: Vec::new(),
            fates: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        }
    }
}

impl Clients {
    /// Takes the answers that have arrived, and sends requests to nodes.
    pub fn round(&mut self, cluster: &mut Cluster, groups: &[GroupId]) {
        self.take_answers(cluster);
        if groups.is_empty() {
            return;
        }
        for _ in 0..self.load {
            let group = groups[cluster.rng.below(groups.len())];
            let Some(node) = target(cluster, group) else { continue };
            match cluster.rng.below(16) {
                0..=3 => self.append(cluster, group, node),
                4..=8 => self.produce(cluster, group, node),
                9 | 10 => self.read_index(cluster, group, node),
                11 | 12 => self.move_cursor(cluster, group, node),
                _ => read_anywhere(cluster, group),
            }
        }
    }

    /// Appends records without a producer.
    pub fn append(&mut self, cluster: &mut Cluster, group: GroupId, node: usize) {
        let (value, count) = (self.values, count_of(self.values));
        self.values += u64::from(count);
        let end = cluster.checks.groups.get(&group).map(|history| history.next_offset).unwrap_or_default();
        let expected = cluster.one_in(6).then(|| Offset((end.0 + cluster.rng.below(4) as u64).saturating_sub(1)));
        let late = cluster.one_in(16);
        let soon = cluster.one_in(8).then(|| cluster.now() + Duration::from_millis(500));
        let deadline = if late { Some(cluster.now()) } else { soon };
        let request = Proposal { expected_offset: expected, deadline, ..proposal(group, value, count) };
        let answer = ask(cluster, node, request);
        self.plain.push(Plain { group, value, count, end, expected, late, answer });
    }

    fn produce(&mut self, cluster: &mut Cluster, group: GroupId, node: usize) {
        let which = cluster.rng.below(2);
        let at = self.producers.iter().enumerate().filter(|(_, of)| of.group == group).nth(which).map(|(at, _)| at);
        let at = at.unwrap_or_else(|| self.new_producer(group));
        let producer = &mut self.producers[at];
        if !producer.is_registered {
            if producer.registering.is_none() {
                let init = InitProducer { id: producer.id, instance: producer.instance, ..InitProducer::default() };
                let request = Proposal::state(group, &StateCommand::InitProducer(init));
                producer.registering = Some(ask(cluster, node, request));
            }
            return;
        }
        let (sequence, value) = (producer.sequence, producer.value);
        let records = proposal(group, value, count_of(value));
        let request = Proposal { producer_id: producer.id.0, sequence, producer_epoch: 1, ..records };
        match cluster.rng.below(16) {
            0 => {
                let stranger = Proposal { producer_id: 7, sequence: 1, ..request };
                self.strangers.push(ask(cluster, node, stranger));
            }
            1 => {
                let stranger = Proposal { producer_epoch: 2, ..request };
                self.strangers.push(ask(cluster, node, stranger));
            }
            _ if producer.attempts.len() < 6 => {
                let answer = ask(cluster, node, request);
                self.producers[at].attempts.push((sequence, answer));
            }
            // The client has lost its connections.
            _ => producer.attempts.clear(),
        }
    }

    fn new_producer(&mut self, group: GroupId) -> usize {
        self.instances += 1;
        let value = self.values;
        self.values += 3;
        self.producers.push(Producer {
            group,
            id: ProducerId(100 + self.instances),
            instance: self.instances,
            registering: None,
            is_registered: false,
            sequence: 1,
            value,
            attempts: Vec::new(),
            acknowledged: BTreeMap::new(),
        });
        self.producers.len() - 1
    }

    fn read_index(&mut self, cluster: &mut Cluster, group: GroupId, node: usize) {
        let (known, offset) = self.acknowledged.get(&group).copied().unwrap_or_default();
        let (sender, answer) = reply();
        cluster.handle(node, ConsensusMsg::ReadIndex(group, None, sender));
        self.reads.push(Read { group, known, offset, answer, confirmed: None });
    }

    fn move_cursor(&mut self, cluster: &mut Cluster, group: GroupId, node: usize) {
        let which = cluster.rng.below(3);
        let at = self.readers.iter().enumerate().filter(|(_, of)| of.group == group).nth(which).map(|(at, _)| at);
        if at.is_none() || cluster.one_in(12) {
            self.instances += 1;
            let name = if cluster.one_in(2) { "a" } else { "b" };
            let cursor = CursorName::new(name).expect("a name");
            let instance = self.instances;
            let reader =
                Reader { group, cursor, instance, acquiring: None, has: None, position: 0, attempts: Vec::new() };
            match at {
                Some(at) => self.readers[at] = reader,
                None => self.readers.push(reader),
            }
            return;
        }
        let Some(reader) = at.map(|at| &mut self.readers[at]) else { return };
        let Some((epoch, revision)) = reader.has else {
            if reader.acquiring.is_none() {
                let request = Proposal::state(group, &reader.acquire());
                reader.acquiring = Some(ask(cluster, node, request));
            }
            return;
        };
        let (step, expects, rewinds) = (cluster.rng.below(4) as u64, cluster.one_in(2), cluster.one_in(2));
        reader.position += step;
        let seen = cursor_on(cluster, node, group, &reader.cursor).filter(|cursor| cursor.epoch == epoch);
        let revision = seen.map_or(revision, |cursor| cursor.revision);
        let position = if step == 0 { reader.position.saturating_sub(2) } else { reader.position };
        let command = StateCommand::CommitCursor(CommitCursor {
            name: reader.cursor.clone(),
            next_offset: Offset(position),
            epoch,
            expected_revision: expects.then_some(revision),
            allow_rewind: step == 0 && rewinds,
            metadata: Vec::new(),
        });
        if reader.attempts.len() >= 8 {
            reader.attempts.clear();
        }
        let answer = ask(cluster, node, Proposal::state(group, &command));
        reader.attempts.push((command, answer));
    }

    /// Records that an entry was acknowledged. It must have been visible then.
    fn acknowledge(&mut self, cluster: &mut Cluster, group: GroupId, appended: &Appended, what: &str) {
        let Appended { index, term, offset, count, .. } = *appended;
        cluster
            .checks
            .trace
            .line(|| format!("{what} of group {group} is acknowledged: entry {index}, offset {offset}"));
        [group.0, index.0, offset.0].into_iter().for_each(|number| cluster.checks.trace.mix(number));
        let entry = cluster.checks.groups.get(&group).and_then(|history| history.entry(index));
        // A node that drops its replica shows nothing any more.
        let is_there = is_purged(cluster, group) || entry.is_some_and(|entry| entry.term == term);
        assert!(
            is_there,
            "{what} of group {group} was acknowledged as entry {index} of term {term}, which nobody shows"
        );
        let newest = self.acknowledged.entry(group).or_default();
        newest.0 = newest.0.max(index);
        if count > 0 {
            newest.1 = newest.1.max(Some(Offset(offset.0 + u64::from(count) - 1)));
        }
    }

    fn take_answers(&mut self, cluster: &mut Cluster) {
        self.take_plain(cluster);
        self.take_producers(cluster);
        self.take_readers(cluster);
        self.take_reads(cluster);
        self.strangers.retain_mut(|answer| match answered(answer) {
            Some(Ok(_)) => panic!("a request of a producer that is not registered, or of another epoch, was appended"),
            Some(Err(_)) => false,
            None => true,
        });
    }

    fn take_plain(&mut self, cluster: &mut Cluster) {
        for mut plain in std::mem::take(&mut self.plain) {
            let Plain { group, value, count, end, expected, late, .. } = plain;
            let fate = match answered(&mut plain.answer) {
                None => {
                    self.plain.push(plain);
                    continue;
                }
                Some(Ok(appended)) => {
                    self.acknowledge(cluster, group, &appended, &format!("value {value}"));
                    assert!(!late, "value {value} of group {group} was appended after its deadline");
                    assert_eq!(appended.count, count);
                    assert!(expected.is_none_or(|expected| expected == appended.offset), "at another offset");
                    Fate::Appended(appended.offset)
                }
                Some(Err(ProposeError::OutcomeUnknown)) => Fate::Unknown,
                Some(Err(error)) => {
                    if let ProposeError::ExpectedOffset { next_offset } = error {
                        let committed = cluster
                            .checks
                            .groups
                            .get(&group)
                            .map(|of| of.next_offset.max(of.shown))
                            .unwrap_or_default();
                        assert!(next_offset <= committed, "refused by {next_offset}, only {committed} is committed");
                        assert!(next_offset >= end, "refused by {next_offset}, though {end} was committed before");
                        assert_ne!(Some(next_offset), expected, "refused although it is the next offset");
                    }
                    Fate::Not
                }
            };
            for (value, at) in (value..).zip(0..u64::from(count)) {
                let fate = match fate {
                    Fate::Appended(offset) => Fate::Appended(Offset(offset.0 + at)),
                    other => other,
                };
                self.fates.insert(value, (group, fate));
            }
        }
    }

    fn take_producers(&mut self, cluster: &mut Cluster) {
        for at in 0..self.producers.len() {
            let producer = &mut self.producers[at];
            let group = producer.group;
            if let Some(answer) = producer.registering.as_mut().and_then(answered) {
                producer.registering = None;
                producer.is_registered = match answer {
                    Ok(_) | Err(ProposeError::State(StateRefusal::Unchanged(_))) => true,
                    Err(ProposeError::State(other)) => panic!("a producer is not registered: {other}"),
                    Err(_) => false,
                };
                if let Ok(appended) = answer {
                    self.acknowledge(cluster, group, &appended, "a producer");
                }
            }
            for (sequence, mut answer) in std::mem::take(&mut self.producers[at].attempts) {
                match answered(&mut answer) {
                    None => self.producers[at].attempts.push((sequence, answer)),
                    Some(Ok(appended)) => {
                        self.acknowledge(cluster, group, &appended, &format!("request {sequence} of a producer"));
                        let value = self.values;
                        let producer = &mut self.producers[at];
                        let first = *producer.acknowledged.entry(sequence).or_insert(appended.offset);
                        assert_eq!(appended.offset, first, "request {sequence} of a producer has two offsets");
                        if sequence >= producer.sequence {
                            producer.sequence = sequence + 1;
                            producer.value = value;
                            self.values += 3;
                        }
                    }
                    Some(Err(ProposeError::State(refusal))) => {
                        panic!("request {sequence} of a registered producer is refused: {refusal}");
                    }
                    Some(Err(_)) => {}
                }
            }
        }
    }

    fn take_readers(&mut self, cluster: &mut Cluster) {
        for at in 0..self.readers.len() {
            let reader = &mut self.readers[at];
            let (group, cursor, instance) = (reader.group, reader.cursor.clone(), reader.instance);
            if let Some(answer) = reader.acquiring.as_mut().and_then(answered) {
                reader.acquiring = None;
                let is_there = matches!(answer, Ok(_) | Err(ProposeError::State(StateRefusal::Unchanged(_))));
                let nodes = 0..cluster.running.len();
                let found = nodes.filter_map(|node| cursor_on(cluster, node, group, &cursor));
                let mine = found.filter(|cursor| cursor.instance == instance).max_by_key(|cursor| cursor.revision);
                if let Some(cursor) = mine.filter(|_| is_there) {
                    reader.has = Some((cursor.epoch, cursor.revision));
                    reader.position = cursor.next_offset.0;
                }
                if let Ok(appended) = answer {
                    self.acknowledge(cluster, group, &appended, "a cursor");
                }
            }
            for (command, mut answer) in std::mem::take(&mut self.readers[at].attempts) {
                match answered(&mut answer) {
                    None => self.readers[at].attempts.push((command, answer)),
                    Some(Ok(appended)) => {
                        self.acknowledge(cluster, group, &appended, "a position");
                        let entry = cluster.checks.groups.get(&group).and_then(|of| of.entry(appended.index));
                        let Some(entry) = entry else { continue };
                        let commands = StateCommand::decode_all(&entry.payload()).expect("commands");
                        assert!(commands.contains(&command), "an acknowledged position was replaced");
                    }
                    Some(Err(_)) => {}
                }
            }
        }
    }

    fn take_reads(&mut self, cluster: &mut Cluster) {
        let reads = std::mem::take(&mut self.reads);
        for mut read in reads {
            let Read { group, known, offset, .. } = read;
            if read.confirmed.is_none() {
                match (&mut read.answer).now_or_never() {
                    None => {
                        self.reads.push(read);
                        continue;
                    }
                    Some(Ok(Ok(index))) => {
                        cluster
                            .checks
                            .trace
                            .line(|| format!("a read of group {group} is confirmed up to entry {index}"));
                        cluster.checks.trace.mix(index.0);
                        assert!(
                            index >= known,
                            "a read of group {group} up to {index}: {known} was acknowledged before"
                        );
                        read.confirmed = Some(index);
                    }
                    Some(_) => continue,
                }
            }
            let (Some(index), node) = (read.confirmed, cluster.rng.below(cluster.running.len())) else { continue };
            let Some(replica) = cluster.driver(node).and_then(|driver| driver.groups.get(&group)) else { continue };
            if replica.watermark.is_withdrawn() || replica.watermark.get().applied < index {
                if self.reads.len() < 32 {
                    self.reads.push(read);
                }
                continue;
            }
            if let Some(offset) = offset {
                check_records(cluster, node, group, offset, 1);
            }
        }
    }

    /// Checks what the clients were told about their requests.
    pub fn check_fates(&self, cluster: &Cluster) {
        let nowhere = Vec::new();
        let kept = self.fates.iter().filter(|(_, (group, _))| !is_purged(cluster, *group));
        for (value, (group, fate)) in kept {
            let found = cluster.checks.groups.get(group).and_then(|of| of.values.get(value)).unwrap_or(&nowhere);
            match fate {
                Fate::Appended(offset) => {
                    assert_eq!(found, &[*offset], "value {value} of group {group} was acknowledged")
                }
                Fate::Not => {
                    assert!(found.is_empty(), "value {value} of group {group} was refused, and is at {found:?}")
                }
                Fate::Unknown => assert!(found.len() <= 1, "value {value} of group {group} is at {found:?}"),
            }
        }
        for producer in self.producers.iter().filter(|producer| !is_purged(cluster, producer.group)) {
            let Some(history) = cluster.checks.groups.get(&producer.group) else { continue };
            for (sequence, offset) in &producer.acknowledged {
                assert!(history.records.contains_key(offset), "request {sequence} of producer {} is lost", producer.id);
            }
        }
    }

    /// Returns the value of a request that was just sent without a producer.
    pub fn last_value(&self) -> u64 {
        self.plain.last().map_or(0, |plain| plain.value)
    }

    /// Returns true if the request of this value was acknowledged.
    pub fn is_acknowledged(&self, value: u64) -> bool {
        matches!(self.fates.get(&value), Some((_, Fate::Appended(_))))
    }
}

impl Reader {
    fn acquire(&self) -> StateCommand {
        StateCommand::AcquireCursor(AcquireCursor {
            name: self.cursor.clone(),
            instance: self.instance,
            expected_epoch: None,
            next_offset: Offset(0),
            owner: String::new(),
        })
    }
}
