//! The events of a history: a list of data that follows from the seed, so that a part of it can be run again.
//!
//! A new kind of event is a variant of [`Event`], a line of [`Kind::event`], and an arm of `Simulation::happen`.
//!
//! Each step has a seed of its own for what happens during it. So the other steps stay the same when one is left out.

use std::fmt;

use super::stories::Story;
use crate::consensus::tests::sim::Rng;

/// What happens to a cluster. Nodes and logs are numbers, modulo how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time.
    Nothing,
    /// Messages are lost, doubled, overtaken (of a thousand each), and late (in steps of the network).
    Weather {
        lost: u16,
        doubled: u16,
        overtaken: u16,
        delay: u16,
    },
    /// The network loses nothing, and all links work.
    Calm,
    /// One direction of a link is cut.
    CutOneWay(usize, usize),
    /// A link is cut.
    Cut(usize, usize),
    /// A node is cut off from all others.
    Isolate(usize),
    /// The network is divided: this set of nodes, as bits, and the others.
    Split(u8),
    /// All links work.
    Heal,
    /// A node's connection to another one is refused once, as if the process there had ended.
    Refuse(usize, usize),
    /// The power of a node is cut.
    Crash(usize),
    /// All nodes lose power.
    Blackout,
    /// The process of a node is killed.
    Kill(usize),
    /// The power of a node is cut after this many further changes of its disk.
    CrashAfter(usize, u64),
    /// A node is stopped, and hands over leadership first.
    Stop(usize),
    Start(usize),
    StartAll,
    /// Each sync of a node takes this many steps of the network.
    SlowDisk(usize, u8),
    /// No sync of a node ends.
    StuckDisk(usize),
    /// The disk of a node has no space left.
    FullDisk(usize),
    /// Writes to the disk of a node fail once its files have grown by this many bytes more.
    NoSpace(usize, u64),
    /// All disks have space and are fast.
    RepairDisks,
    /// A node loses its power, and a byte of what it has synced is changed.
    Rot(usize),
    /// Bytes that a running node has synced are changed, and its scrub reads them.
    RotRunning(usize),
    /// A node sends other entries than those that it should to nodes that repair their logs.
    Lie(usize),
    /// The wall clock of a node jumps by this many seconds.
    Clock(usize, i64),
    /// A node is suspended for this many rounds.
    Pause(usize, u8),
    /// Leadership of a log is handed to a node.
    Lead(usize, usize),
    /// A node hands over leadership of all groups.
    HandOver(usize),
    /// A log is created with this many replicas.
    CreateLog(u32),
    /// A log is deleted, to be purged after this many milliseconds.
    DeleteLog(usize, u64),
    UndeleteLog(usize),
    /// A log has another number of replicas from now on.
    Resize(usize, u32),
    /// A replica of a log moves to a node.
    Move(usize, usize),
    /// A log is trimmed, but for this many records. If the number is negative, that would be beyond its end.
    Trim(usize, i64),
    /// A new node joins.
    Join,
    /// A node loses its disk, and a new one joins in its place.
    Replace(usize),
    /// A node is removed from the cluster. Its process runs on.
    Remove(usize),
    /// A node hands over leadership from now on.
    Drain(usize),
    /// A node leaves: its replicas move, to a node or to any.
    Leave(usize, Option<usize>),
    /// The plan of a node ends.
    Undrain(usize),
    /// A node loses its disk, and comes back without data and with a new id.
    Wipe(usize),
    /// Replicas move until the nodes are balanced.
    Balance,
    /// Clients send this many requests in each round.
    Load(u8),
    /// See [`Story`].
    Story(Story, usize),
}

/// An event, and the rounds after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub event: Event,
    pub rounds: u8,
    /// The seed of what happens in this step.
    pub salt: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, then {} rounds", self.event, self.rounds)
    }
}

/// A history of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub seed: u64,
    pub nodes: usize,
    pub steps: Vec<Step>,
}

/// A group of similar events. A history contains only some of the groups, so that rare combinations occur.
#[derive(Clone, Copy)]
enum Kind {
    Weather,
    Links,
    Crashes,
    Kills,
    Stops,
    SlowDisks,
    FullDisks,
    Rot,
    Clocks,
    Pauses,
    Leadership,
    Logs,
    Moves,
    Trims,
    Joins,
    Replacements,
    Removals,
    Plans,
    Load,
    Stories,
}

const KINDS: [(Kind, usize); 20] = [
    (Kind::Weather, 3),
    (Kind::Links, 6),
    (Kind::Crashes, 6),
    (Kind::Kills, 2),
    (Kind::Stops, 1),
    (Kind::SlowDisks, 3),
    (Kind::FullDisks, 2),
    (Kind::Rot, 2),
    (Kind::Clocks, 1),
    (Kind::Pauses, 2),
    (Kind::Leadership, 4),
    (Kind::Logs, 4),
    (Kind::Moves, 4),
    (Kind::Trims, 3),
    (Kind::Joins, 1),
    (Kind::Replacements, 2),
    (Kind::Removals, 1),
    (Kind::Plans, 4),
    (Kind::Load, 2),
    (Kind::Stories, 2),
];

impl Kind {
    fn event(self, rng: &mut Rng) -> Event {
        // Enough for all nodes that a history may have.
        let (a, b) = (rng.below(840), rng.below(840));
        match self {
            Kind::Weather => match rng.below(4) {
                0 => Event::Calm,
                1 => Event::Weather { lost: 0, doubled: 0, overtaken: 0, delay: 1 + rng.below(12) as u16 },
                2 => Event::Weather { lost: 300, doubled: 100, overtaken: 300, delay: 2 },
                _ => Event::Weather {
                    lost: rng.below(100) as u16,
                    doubled: rng.below(50) as u16,
                    overtaken: rng.below(400) as u16,
                    delay: rng.below(4) as u16,
                },
            },
            Kind::Links => match rng.below(10) {
                0 => Event::CutOneWay(a, b),
                1 => Event::Cut(a, b),
                2 | 3 => Event::Isolate(a),
                4 | 5 => Event::Split(rng.below(256) as u8),
                6 | 7 => Event::Refuse(a, b),
                _ => Event::Heal,
            },
            Kind::Crashes => match rng.below(10) {
                0..=2 => Event::Crash(a),
                3 | 4 => Event::CrashAfter(a, rng.below(60) as u64),
                5 => Event::Blackout,
                6 => Event::Start(a),
                _ => Event::StartAll,
            },
            Kind::Kills => match rng.below(3) {
                0 | 1 => Event::Kill(a),
                _ => Event::StartAll,
            },
            Kind::Stops => match rng.below(2) {
                0 => Event::Stop(a),
                _ => Event::StartAll,
            },
            Kind::SlowDisks => match rng.below(4) {
                0 => Event::StuckDisk(a),
                1 | 2 => Event::SlowDisk(a, 1 + rng.below(60) as u8),
                _ => Event::RepairDisks,
            },
            Kind::FullDisks => match rng.below(4) {
                0 => Event::FullDisk(a),
                1 => Event::NoSpace(a, [0, 100, 5000, 20_000][rng.below(4)]),
                2 => Event::Start(a),
                _ => Event::RepairDisks,
            },
            Kind::Rot => match rng.below(5) {
                0 => Event::Rot(a),
                1 => Event::Lie(a),
                _ => Event::RotRunning(a),
            },
            Kind::Clocks => {
                let seconds = [1, 30, 90, 4000, 400_000][rng.below(5)];
                Event::Clock(a, if rng.below(2) == 0 { seconds } else { -seconds })
            }
            Kind::Pauses => Event::Pause(a, 2 + rng.below(60) as u8),
            Kind::Leadership => match rng.below(4) {
                0 => Event::HandOver(a),
                _ => Event::Lead(a, b),
            },
            Kind::Logs => match rng.below(6) {
                0 | 1 => Event::CreateLog(3),
                2 | 3 => Event::DeleteLog(a, [0, 500, 3000][rng.below(3)]),
                _ => Event::UndeleteLog(a),
            },
            Kind::Moves => match rng.below(4) {
                0 => Event::Resize(a, 1 + rng.below(5) as u32),
                _ => Event::Move(a, b),
            },
            Kind::Trims => Event::Trim(a, [-40, 0, 1, 2, 3, 5, 8, 13][rng.below(8)]),
            Kind::Joins => Event::Join,
            Kind::Replacements => Event::Replace(a),
            Kind::Removals => Event::Remove(a),
            Kind::Plans => match rng.below(8) {
                0 => Event::Drain(a),
                1 | 2 => Event::Leave(a, (b % 2 == 0).then_some(b / 2)),
                3 => Event::Undrain(a),
                4 | 5 => Event::Wipe(a),
                _ => Event::Balance,
            },
            Kind::Load => match rng.below(3) {
                0 => Event::Load(0),
                _ => Event::Load(1 + rng.below(6) as u8),
            },
            Kind::Stories => {
                let story = match rng.below(5) {
                    0 => Story::LossDuringMove,
                    1 => Story::CreationDuringDrain,
                    2 => Story::NeededNodeLeaves,
                    3 => Story::OutdatedLeader,
                    _ => Story::DamagedVoter,
                };
                Event::Story(story, b)
            }
        }
    }
}

impl History {
    /// Returns the history of a seed.
    pub fn of_seed(seed: u64) -> History {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1) | 1);
        (0..4).for_each(|_| _ = rng.below(2));
        let mut kinds: Vec<(Kind, usize)> = KINDS.into_iter().filter(|_| rng.below(2) == 0).collect();
        // Most stories need nodes without a replica.
        let tells = kinds.iter().any(|(kind, _)| matches!(kind, Kind::Stories));
        let nodes = if rng.below(if tells { 2 } else { 5 }) == 0 { 5 } else { 3 };
        if kinds.is_empty() {
            kinds.push((Kind::Crashes, 1));
        }
        let weights: usize = kinds.iter().map(|(_, weight)| weight).sum();
        let steps = (0..8 + rng.below(16)).map(|_| {
            let mut at = rng.below(weights);
            let chosen = kinds.iter().find(|(_, weight)| match at.checked_sub(*weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
            let event = chosen.map_or(Event::Nothing, |(kind, _)| kind.event(&mut rng));
            let rounds = [2, 8, 30, 60][rng.below(4)];
            let rounds = 1 + rng.below(rounds) as u8;
            let salt = (rng.below(1 << 30) as u64) << 31 | rng.below(1 << 30) as u64;
            Step { event, rounds, salt }
        });
        History { seed, nodes, steps: steps.collect() }
    }

    /// Returns the history with only these steps.
    pub fn only(&self, steps: &[usize]) -> History {
        let steps = steps.iter().filter_map(|at| self.steps.get(*at).cloned()).collect();
        History { steps, ..*self }
    }
}
