//! Random histories of producers: each sends its requests until they are acknowledged, to any leader and several times,
//! while nodes crash, the network is cut and the log is trimmed. In the end, each request was appended once, in the
//! producer's order, and every answer says where.

use std::collections::BTreeMap;

use super::sim::{Answer, World, answered};
use super::violations;
use crate::consensus::group::Rules;
use crate::consensus::handle::{Proposal, ProposeError};
use crate::log_state::faults::{Fault, set};
use crate::log_state::producers::InitProducer;
use crate::log_state::{LogState, StateCommand, StateRefusal};
use crate::storage::entry::{Entry, EntryKind};
use crate::storage::faults as storage;
use crate::storage::payload::{RecordFields, encode_record};
use crate::types::{GroupId, Offset, ProducerId, ProducerName};

const NODES: usize = 3;

/// A producer. Its requests are appended one after the other.
struct Source {
    id: ProducerId,
    name: Option<ProducerName>,
    epoch: u32,
    instance: u64,
    registering: Option<Answer>,
    is_registered: bool,
    sequence: u64,
    /// The attempts without an answer, also those to send earlier requests.
    attempts: Vec<(u64, Answer)>,
    acknowledged: BTreeMap<u64, Offset>,
}

struct History {
    world: World,
    sources: Vec<Source>,
    /// A request of a producer that nobody has registered, and of one whose epoch is over: never appended.
    strangers: Vec<Answer>,
    trims: u64,
}

fn records(sequence: u64) -> Proposal {
    let count = 1 + (sequence % 3) as u32;
    let mut payload = Vec::new();
    for _ in 0..count {
        encode_record(&mut payload, &RecordFields { value: &sequence.to_le_bytes(), ..RecordFields::default() });
    }
    Proposal::new(GroupId(1), EntryKind::Records, count, payload.as_slice().into())
}

impl Source {
    fn new(number: u64, named: bool) -> Source {
        Source {
            id: ProducerId(100 + number),
            name: named.then(|| ProducerName::new("a").expect("a name")),
            epoch: 1,
            instance: number,
            registering: None,
            is_registered: false,
            sequence: 1,
            attempts: Vec::new(),
            acknowledged: BTreeMap::new(),
        }
    }

    fn init(&self) -> Proposal {
        let (id, name, instance) = (self.id, self.name.clone(), self.instance);
        let init = InitProducer { id, name, instance, ..InitProducer::default() };
        Proposal::state(GroupId(1), &StateCommand::InitProducer(init))
    }

    fn request(&self, epoch: u32) -> Proposal {
        let (producer_id, sequence) = (self.id.0, self.sequence);
        Proposal { producer_id, sequence, producer_epoch: epoch, ..records(sequence) }
    }

    fn take_answers(&mut self) {
        if let Some(answer) = self.registering.as_mut().and_then(answered) {
            self.registering = None;
            self.is_registered = match answer {
                Ok(_) | Err(ProposeError::State(StateRefusal::Unchanged(_))) => true,
                Err(ProposeError::State(other)) => panic!("not registered: {other}"),
                Err(_) => false,
            };
        }
        for (sequence, mut answer) in std::mem::take(&mut self.attempts) {
            match answered(&mut answer) {
                None => self.attempts.push((sequence, answer)),
                Some(Ok(appended)) => {
                    let first = *self.acknowledged.entry(sequence).or_insert(appended.offset);
                    assert_eq!(appended.offset, first, "request {sequence} has two offsets");
                    self.sequence = self.sequence.max(sequence + 1);
                }
                Some(Err(ProposeError::State(refusal))) => panic!("request {sequence} is refused: {refusal}"),
                Some(Err(_)) => {}
            }
        }
    }
}

impl History {
    fn new(seed: u64) -> History {
        let world = World::new(seed, NODES as u64, Rules::default());
        let sources = (0..3).map(|number| Source::new(number, number == 0)).collect();
        History { world, sources, strangers: Vec::new(), trims: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.world.rng.below(n)
    }

    fn round(&mut self) {
        for i in 0..NODES {
            self.world.tick(i);
            self.world.sync(i);
            // Also one that was replaced and does not know it yet.
            let leads = self.world.nodes[i].group.as_ref().is_some_and(|group| group.leads());
            if leads && self.below(2) == 0 {
                self.act(i);
            }
        }
        for _ in 0..self.world.network.len().min(60) {
            self.world.deliver();
            let i = self.below(NODES);
            if self.below(3) == 0 {
                self.world.sync(i);
            }
        }
        self.sources.iter_mut().for_each(Source::take_answers);
        self.strangers.retain_mut(|answer| match answered(answer) {
            Some(Ok(_)) => panic!("a request of a producer that is not registered was appended"),
            Some(Err(_)) => false,
            None => true,
        });
    }

    fn act(&mut self, leader: usize) {
        let number = self.below(self.sources.len());
        let source = &mut self.sources[number];
        if !source.is_registered {
            if source.registering.is_none() {
                let answer = self.world.ask(leader, source.init());
                source.registering = Some(answer);
            }
            return;
        }
        let request = source.request(source.epoch);
        let (sequence, waiting) = (source.sequence, source.attempts.len());
        match self.below(12) {
            0 => {
                let stranger = Proposal { producer_id: 7, ..request };
                self.strangers.push(self.world.ask(leader, stranger));
            }
            1 => {
                let other_epoch = Proposal { producer_epoch: request.producer_epoch + 1, ..request };
                self.strangers.push(self.world.ask(leader, other_epoch));
            }
            2 => {
                let end = self.world.nodes[leader].group.as_ref().map(|group| group.visible().next_offset);
                self.trims += 1;
                let keep = end.unwrap_or_default().0.saturating_sub(self.trims % 4);
                self.world.trim(leader, 1_000_000 + self.trims, Offset(keep));
            }
            _ if waiting < 8 => {
                let answer = self.world.ask(leader, request);
                self.sources[number].attempts.push((sequence, answer));
            }
            _ => {}
        }
    }

    fn episode(&mut self) {
        self.world.disturb();
        let rounds = 20 + self.below(60);
        (0..rounds).for_each(|_| self.round());
        self.world.start_some();
    }

    /// Checks that each request was appended once, in order, where its answer says.
    fn check(&self) {
        for source in &self.sources {
            let mut next = 1;
            for (index, (term, data)) in &self.world.committed {
                let entry = Entry { index: *index, term: *term, data: data.clone() };
                let Ok(stamp) = entry.stamp() else { continue };
                if stamp.kind != EntryKind::Records || stamp.producer_id != source.id.0 {
                    continue;
                }
                assert_eq!(stamp.sequence, next, "producer {}", source.id);
                if let Some(offset) = source.acknowledged.get(&next) {
                    assert_eq!(*offset, stamp.base_offset, "producer {}: request {next}", source.id);
                }
                next += 1;
            }
            assert!(source.acknowledged.keys().all(|sequence| *sequence < next), "an acknowledged request is missing");
        }
        let states: Vec<LogState> =
            self.world.nodes.iter().filter_map(|node| Some(node.group.as_ref()?.log_state().0)).collect();
        assert!(states.iter().all(|state| state.tables == states[0].tables), "the replicas differ");
    }
}

fn history(seed: u64) {
    let mut history = History::new(seed);
    (0..100).for_each(|_| history.round());
    for _ in 0..8 {
        history.episode();
    }
    assert!(history.world.settle(4000), "the nodes do not converge");
    history.sources.iter_mut().for_each(Source::take_answers);
    history.check();
}

fn seeds() -> u64 {
    std::env::var("SERIATIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

#[test]
fn each_request_of_a_producer_is_appended_once() {
    for seed in 1..=seeds() {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn histories_of_producers_detect_each_broken_rule() {
    for fault in [
        Fault::UnregisteredAppended,
        Fault::NotRolledBack,
        Fault::NotInSnapshot,
        Fault::RetryAppended,
        Fault::EpochIgnored,
    ] {
        set(Some(fault));
        let found = violations(400, history);
        set(None);
        println!("{fault:?}: {found} of 400 histories");
        assert!(found > 0, "no history detects {fault:?}");
    }
}

/// The simulated disk stores the tables as `storage/write/state_files.rs` does.
#[test]
fn histories_of_producers_detect_a_missing_state_file() {
    for fault in [storage::Fault::TrimBeyondState, storage::Fault::SnapshotWithoutState] {
        storage::set(Some(fault));
        let found = violations(400, history);
        storage::set(None);
        println!("{fault:?}: {found} of 400 histories");
        assert!(found > 0, "no history detects {fault:?}");
    }
}
