//! The producers of a log: which requests they have appended, so that a retry is recognized.
//!
//! - A producer is registered by a command, with an id that is never used again in this log. A request with another id
//!   is refused and never appended, so no retry can be appended twice, however late it is.
//! - A producer numbers its requests from 1, without gaps, whatever its epoch. The answers to its last 64 requests are
//!   kept. A retry gets the first answer again.
//! - A named producer has an epoch. Each new instance starts a new one, and requests of earlier epochs are refused.
//! - A log has at most 1,024 producers. A new one replaces the unnamed producer that was used least recently.

use std::collections::VecDeque;
use std::sync::Arc;

use super::faults::{Fault, broken};
use super::refusal::StateRefusal;
use crate::bucket_map::{BucketKey, BucketMap};
use crate::types::{LogIndex, Offset, ProducerId, ProducerName, Term};

/// The maximum number of producers of a log.
pub const PRODUCERS_MAX: usize = 1024;
/// The answers to this many requests of a producer are kept.
pub const ANSWERS_MAX: usize = 64;

impl BucketKey for ProducerId {
    fn bucket(&self) -> u64 {
        self.0
    }
}

/// The answer to a request of a producer: where its records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The first record.
    pub offset: Offset,
    /// The number of records.
    pub count: u32,
    /// The term of their entry.
    pub term: Term,
    /// The index of their entry.
    pub index: LogIndex,
    /// Their timestamp, Unix microseconds.
    pub append_time_us: u64,
}

/// A producer of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id, never 0.
    pub id: ProducerId,
    /// Its name, which a later process may take over.
    pub name: Option<ProducerName>,
    /// Starts at 1. Rises when another instance takes the name over.
    pub epoch: u32,
    /// The process that has registered it or taken it over.
    pub instance: u64,
    /// What that process says about itself, for people.
    pub owner: String,
    /// The sequence of its last request; 0 if it has appended nothing.
    pub last_sequence: u64,
    /// The number of records that it has appended.
    pub records: u64,
    /// Its last entry.
    pub used: LogIndex,
    /// The answers to its last requests, the newest last.
    pub answers: VecDeque<Answer>,
}

impl Producer {
    /// Returns the answer to its last request, if it is kept.
    pub fn last_answer(&self) -> Option<&Answer> {
        self.answers.back()
    }

    fn answer_to(&self, sequence: u64) -> Option<&Answer> {
        let back = usize::try_from(self.last_sequence.checked_sub(sequence)?).ok()?;
        self.answers.len().checked_sub(back + 1).and_then(|at| self.answers.get(at))
    }
}

/// The part of a request that identifies its producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerRequest {
    /// The producer.
    pub id: ProducerId,
    /// The epoch in which the producer sends the request.
    pub epoch: u32,
    /// The number of the request, from 1.
    pub sequence: u64,
}

/// The producers of a log. Clones share their contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BucketMap<ProducerId, Arc<Producer>>,
}

/// A new or an existing producer that a process wants to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitProducer {
    /// The id of the producer if it is a new one. Random.
    pub id: ProducerId,
    /// The name; `None` for an unnamed producer.
    pub name: Option<ProducerName>,
    /// The process. A retry of the same process changes nothing.
    pub instance: u64,
    /// Only if the producer has this epoch; 0: only if it does not exist.
    pub expected_epoch: Option<u32>,
    /// What the process says about itself.
    pub owner: String,
}

impl Producers {
    /// The number of producers.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns a producer by its id.
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.by_id.get(&id).map(|producer| &**producer)
    }

    /// Returns a producer by its name.
    pub fn named(&self, name: &ProducerName) -> Option<&Producer> {
        self.iter().find(|producer| producer.name.as_ref() == Some(name))
    }

    /// Iterates over the producers, in no useful order.
    pub fn iter(&self) -> impl Iterator<Item = &Producer> {
        self.by_id.iter().map(|(_, producer)| &**producer)
    }

    /// Decides about a request of `count` records. Returns the first answer if it was appended before, and `None` if it
    /// is the producer's next request.
    ///
    /// # Errors
    /// [`StateRefusal`] if it must not be appended.
    pub fn check(&self, request: ProducerRequest, count: u32) -> Result<Option<Answer>, StateRefusal> {
        let producer = match self.get(request.id) {
            Some(producer) => producer,
            None if broken(Fault::UnregisteredAppended) => return Ok(None),
            None => return Err(StateRefusal::ProducerUnknown(request.id.0)),
        };
        let last_sequence = producer.last_sequence;
        if request.epoch != producer.epoch && !broken(Fault::EpochIgnored) {
            return Err(StateRefusal::ProducerFenced(producer.epoch.into()));
        }
        if request.sequence == last_sequence + 1 {
            return Ok(None);
        }
        if request.sequence > last_sequence {
            return Err(StateRefusal::SequenceGap(last_sequence));
        }
        if broken(Fault::RetryAppended) {
            return Ok(None);
        }
        match producer.answer_to(request.sequence) {
            Some(answer) if answer.count == count => Ok(Some(*answer)),
            Some(answer) => Err(StateRefusal::SequenceReused(answer.count.into())),
            None => Err(StateRefusal::SequenceTooOld(last_sequence)),
        }
    }

    /// Records that a request was appended. One that does not follow the last one has no effect: no leader appends it.
    pub fn appended(&mut self, id: ProducerId, sequence: u64, answer: Answer) {
        let follows = |producer: &&mut Arc<Producer>| producer.last_sequence + 1 == sequence;
        let Some(producer) = self.by_id.get_mut(&id).filter(follows) else { return };
        let changed = Arc::make_mut(producer);
        changed.last_sequence = sequence;
        changed.used = answer.index;
        changed.records = changed.records.saturating_add(answer.count.into());
        if changed.answers.len() == ANSWERS_MAX {
            changed.answers.pop_front();
        }
        changed.answers.push_back(answer);
    }

    /// Returns the producer that a command is about, if it exists.
    fn existing(&self, init: &InitProducer) -> Option<&Producer> {
        match &init.name {
            Some(name) => self.named(name),
            None => self.iter().find(|producer| producer.name.is_none() && producer.instance == init.instance),
        }
    }

    /// Returns the producer as it is after the command; `None` if the command changes nothing.
    fn initialized(&self, init: &InitProducer, index: LogIndex) -> Result<Option<Producer>, StateRefusal> {
        let existing = self.existing(init);
        if existing.is_some_and(|producer| producer.instance == init.instance) {
            return Ok(None);
        }
        let epoch = existing.map_or(0, |producer| producer.epoch);
        if init.expected_epoch.is_some_and(|expected| expected != epoch) {
            return Err(StateRefusal::ProducerEpoch(epoch.into()));
        }
        let Some(existing) = existing else {
            if self.get(init.id).is_some() || init.id == ProducerId(0) {
                return Err(StateRefusal::ProducerIdTaken(init.id.0));
            }
            if self.len() >= PRODUCERS_MAX && self.least_used().is_none() {
                return Err(StateRefusal::ProducersFull(PRODUCERS_MAX as u64));
            }
            return Ok(Some(Producer {
                id: init.id,
                name: init.name.clone(),
                epoch: 1,
                instance: init.instance,
                owner: init.owner.clone(),
                last_sequence: 0,
                records: 0,
                used: index,
                answers: VecDeque::new(),
            }));
        };
        let epoch = epoch.checked_add(1).ok_or(StateRefusal::ProducersFull(PRODUCERS_MAX as u64))?;
        let (instance, owner) = (init.instance, init.owner.clone());
        Ok(Some(Producer { epoch, instance, owner, used: index, ..existing.clone() }))
    }

    /// Checks whether a producer can be registered or taken over. Returns false if that is done already.
    ///
    /// # Errors
    /// [`StateRefusal`].
    pub fn check_init(&self, init: &InitProducer) -> Result<bool, StateRefusal> {
        self.initialized(init, LogIndex(0)).map(|producer| producer.is_some())
    }

    /// Registers a producer or takes one over, by the command in the entry at `index`. A command that does not fit has
    /// no effect.
    pub fn init(&mut self, init: &InitProducer, index: LogIndex) {
        let Ok(Some(producer)) = self.initialized(init, index) else { return };
        if self.get(producer.id).is_none()
            && self.len() >= PRODUCERS_MAX
            && let Some(least_used) = self.least_used()
        {
            self.by_id.remove(&least_used);
        }
        self.by_id.insert(producer.id, Arc::new(producer));
    }

    /// Adds a producer that was stored. Returns false if its id or its name is there already, or there are too many.
    #[must_use]
    pub fn restore(&mut self, producer: Producer) -> bool {
        let taken = producer.name.as_ref().is_some_and(|name| self.named(name).is_some());
        let fits = !taken && self.get(producer.id).is_none() && self.len() < PRODUCERS_MAX;
        if fits {
            self.by_id.insert(producer.id, Arc::new(producer));
        }
        fits
    }

    /// Forgets the producers whose last request was appended before this time. Only a broken rule does that.
    pub(super) fn forget_older(&mut self, time_us: u64) {
        let is_old = |producer: &&Producer| producer.last_answer().is_some_and(|last| last.append_time_us < time_us);
        let old: Vec<ProducerId> = self.iter().filter(is_old).map(|producer| producer.id).collect();
        old.iter().for_each(|id| self.by_id.remove(id));
    }

    /// Returns the unnamed producer that was used least recently.
    fn least_used(&self) -> Option<ProducerId> {
        let unnamed = self.iter().filter(|producer| producer.name.is_none());
        unnamed.min_by_key(|producer| (producer.used, producer.id)).map(|producer| producer.id)
    }
}
