//! The network of a simulated cluster: messages are lost, delayed, duplicated and reordered.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::consensus::handle::{Appended, Proposal, ProposeError, ReadIndexError};
use crate::consensus::sinks::Outbound;
use crate::consensus::tests::sim::Rng;
use crate::feature_level::FeatureRange;
use crate::pb::peer::RaftMessage;
use crate::reply::{ReplyReceiver, ReplySender, reply};
use crate::types::{GroupId, LogIndex, NodeId};

/// What a node sends to another one.
pub enum Sent {
    Message(RaftMessage),
    Proposal(Proposal),
    /// A client's request, from a node that does not lead the group to the one that does. It arrives at most once.
    Forward(Proposal, ReplySender<Result<Appended, ProposeError>>),
    /// Without a reply: the second delivery of a request that is duplicated.
    ReadIndex(GroupId, Option<ReplySender<Result<LogIndex, ReadIndexError>>>),
}

impl Sent {
    fn again(&self) -> Option<Sent> {
        match self {
            Sent::Message(message) => Some(Sent::Message(message.clone())),
            Sent::Proposal(proposal) => Some(Sent::Proposal(proposal.clone())),
            Sent::Forward(..) => None,
            Sent::ReadIndex(group, _) => Some(Sent::ReadIndex(*group, None)),
        }
    }
}

/// What a node has sent and the network has not taken yet.
#[derive(Default)]
pub struct Outbox(Mutex<Vec<(NodeId, Sent)>>);

impl Outbox {
    pub fn take(&self) -> Vec<(NodeId, Sent)> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Outbound for Outbox {
    fn send(&self, to: NodeId, message: RaftMessage) {
        self.0.lock().push((to, Sent::Message(message)));
    }

    fn propose(&self, to: NodeId, proposal: Proposal) {
        self.0.lock().push((to, Sent::Proposal(proposal)));
    }

    fn read_index(&self, to: NodeId, group: GroupId) -> ReplyReceiver<Result<LogIndex, ReadIndexError>> {
        let (sender, answer) = reply();
        self.0.lock().push((to, Sent::ReadIndex(group, Some(sender))));
        answer
    }

    fn levels_of(&self, _node: NodeId) -> Option<FeatureRange> {
        Some(FeatureRange::SUPPORTED)
    }
}

/// What happens to messages on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Of a thousand messages, how many are lost.
    pub lost: u16,
    /// Of a thousand messages, how many arrive twice.
    pub doubled: u16,
    /// Of a thousand messages, how many are overtaken by later ones.
    pub overtaken: u16,
    /// The maximum delay, in steps of the network.
    pub delay: u16,
    /// Disks and nodes are slower than the network.
    pub busy: bool,
}

impl Weather {
    /// Each message arrives soon, once, and in order.
    pub const CALM: Weather = Weather { lost: 0, doubled: 0, overtaken: 0, delay: 0, busy: false };
    pub const ROUGH: Weather = Weather { lost: 30, doubled: 20, overtaken: 250, delay: 2, busy: true };
}

/// A message on its way.
pub struct Flight {
    pub from: NodeId,
    pub to: NodeId,
    pub sent: Sent,
    /// The sender's wall clock.
    pub clock_us: u64,
    due: u64,
}

/// All messages on their way.
#[derive(Default)]
pub struct Network {
    flights: Vec<Flight>,
    step: u64,
}

impl Network {
    pub fn send(&mut self, weather: Weather, rng: &mut Rng, from: NodeId, to: NodeId, sent: Sent, clock_us: u64) {
        let delay = if weather.delay == 0 { 0 } else { rng.below(usize::from(weather.delay) + 1) as u64 };
        self.flights.push(Flight { from, to, sent, clock_us, due: self.step + 1 + delay });
    }

    /// Returns the messages that arrive in the next step, in the order in which they arrive.
    pub fn arriving(&mut self, weather: Weather, rng: &mut Rng) -> Vec<Flight> {
        self.step += 1;
        let step = self.step;
        let mut arriving: Vec<Flight> = self.flights.extract_if(.., |flight| flight.due <= step).collect();
        let mut happens = |per_mille: u16| per_mille > 0 && rng.below(1000) < usize::from(per_mille);
        arriving.retain(|_| !happens(weather.lost));
        let mut again = Vec::new();
        for flight in &arriving {
            if happens(weather.doubled)
                && let Some(sent) = flight.sent.again()
            {
                let Flight { from, to, clock_us, .. } = *flight;
                again.push(Flight { from, to, clock_us, sent, due: step + 1 });
            }
        }
        let overtaken: Vec<usize> = (0..arriving.len()).filter(|_| happens(weather.overtaken)).collect();
        for at in overtaken {
            let with = at + rng.below(arriving.len() - at);
            arriving.swap(at, with);
        }
        self.flights.extend(again);
        arriving
    }

    /// Keeps a message for the next step.
    pub fn put_off(&mut self, flight: Flight) {
        if self.flights.len() < 10_000 {
            self.flights.push(Flight { due: self.step + 1, ..flight });
        }
    }

    /// Loses all messages to a node, because its process has ended.
    pub fn lose(&mut self, to: NodeId) {
        self.flights.retain(|flight| flight.to != to);
    }
}

/// The outbox of a node that was just started.
pub fn outbox() -> Arc<Outbox> {
    Arc::default()
}
