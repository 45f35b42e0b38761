//! The schedule of a run: which faults begin and end when, several at a time.
//!
//! A run consists of phases. In a phase, one to three faults begin, overlap and end. Then the cluster must acknowledge
//! appends to every log within [`RESUME_MAX`]. Faults that take copies away, or that need all nodes, have a phase of their
//! own: the cluster is whole before it and after it, so a majority of the copies is never lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::checker::Time;
use super::faults::{FAULTS, Fault, Target};
use super::progress::Injected;
use super::world::World;
use crate::harness::print_uncaptured;
use crate::load::Random;

/// The time in which appends must resume after the last fault has ended. Elections take less than a second, a start less
/// than two, and clients and peers connect again within a few; the rest is for a busy machine, and for damaged logs that
/// are copied again.
pub const RESUME_MAX: Duration = Duration::from_secs(60);
/// The time in which the cluster must be whole: every replica is there, votes, and has caught up. A removed or lost replica
/// is copied to another node first.
pub const WHOLE_MAX: Duration = Duration::from_secs(120);
/// If it takes longer, in microseconds, the schedule contains the requests that failed meanwhile.
const EXPLAINED_MIN: Time = 3_000_000;
/// How often the schedule and the processes are looked at.
const TICK: Duration = Duration::from_millis(10);
const WATCH: Duration = Duration::from_millis(250);
/// One of this many phases ends with a whole cluster, although nothing demands it.
const WHOLE_ONE_IN: u64 = 4;

/// A fault of a phase.
#[derive(Clone, Copy)]
pub struct Planned {
    pub fault: &'static Fault,
    /// When it begins, from the begin of the phase.
    pub after: Duration,
    pub lasts: Duration,
}

struct Active {
    fault: &'static Fault,
    target: Target,
    begin: Time,
    ends: Instant,
    has_majority: bool,
}

/// What happened, for the report.
#[derive(Default)]
pub struct Schedule {
    pub injected: Vec<Injected>,
    pub lines: Vec<String>,
    /// How long it took until the cluster was whole.
    pub whole: Vec<Duration>,
    verbose: bool,
}

impl Schedule {
    pub fn new(verbose: bool) -> Schedule {
        Schedule { verbose, ..Schedule::default() }
    }

    fn line(&mut self, world: &World<'_>, text: &str) {
        let line = format!("{:>9.3} s  {text}", world.field.now() as f64 / 1e6);
        match self.verbose {
            true => print_uncaptured(&line),
            false => eprintln!("{line}"),
        }
        self.lines.push(line);
    }

    /// Chooses the faults of a phase, from those whose names contain one of these texts.
    pub fn choose(only: &[String], random: &mut Random) -> Vec<Planned> {
        let is_chosen = |fault: &&Fault| only.is_empty() || only.iter().any(|text| fault.name.contains(text));
        let faults: Vec<&'static Fault> = FAULTS.iter().filter(is_chosen).collect();
        let total: u64 = faults.iter().map(|fault| fault.weight).sum();
        let mut planned: Vec<Planned> = Vec::new();
        let count = 1 + random.below(3);
        while (planned.len() as u64) < count {
            let mut chosen = random.below(total);
            let fault = faults.iter().find(|fault| {
                let is_chosen = chosen < fault.weight;
                chosen = chosen.saturating_sub(fault.weight);
                is_chosen
            });
            let fault = fault.expect("one of them");
            let after = Duration::from_millis(if planned.is_empty() { 0 } else { random.below(2_500) });
            let longest = if random.below(8) == 0 { 12_000 } else { 4_000 };
            let lasts = Duration::from_millis(200 + random.below(longest));
            let planned_fault = Planned { fault, after, lasts };
            if fault.alone {
                return vec![Planned { after: Duration::ZERO, ..planned_fault }];
            }
            planned.push(planned_fault);
        }
        planned
    }

    /// Runs a phase. Returns false if something was wrong.
    pub fn phase(&mut self, world: &mut World<'_>, mut planned: Vec<Planned>, random: &mut Random) -> bool {
        let is_alone = planned.iter().any(|planned| planned.fault.alone);
        if is_alone && !self.wait_until_whole(world, "before a fault that needs it") {
            return false;
        }
        let begin = Instant::now();
        let mut watched = begin;
        let (mut active, mut done): (Vec<Active>, Vec<(&Fault, Target)>) = (Vec::new(), Vec::new());
        while !planned.is_empty() || !active.is_empty() {
            let now = Instant::now();
            if let Some(due) = planned.iter().position(|planned| begin + planned.after <= now) {
                let planned = planned.remove(due);
                active.extend(self.begin(world, planned, random));
                let impaired: BTreeSet<usize> =
                    active.iter().flat_map(|active| active.target.impaired.iter().copied()).collect();
                // A log has three replicas.
                active.iter_mut().for_each(|active| active.has_majority &= impaired.len() <= 1);
            } else if let Some(due) = active.iter().position(|active| active.ends <= now) {
                let ended = active.remove(due);
                (ended.fault.end)(world, &ended.target);
                ended.target.hosts.iter().for_each(|host| {
                    world.busy.remove(host);
                });
                self.line(world, &format!("{} ends", ended.fault.name));
                self.injected.push(Injected {
                    fault: ended.fault.name,
                    begin: ended.begin,
                    end: world.field.now(),
                    has_majority: ended.has_majority,
                    ends_last: active.is_empty() && planned.is_empty(),
                });
                done.push((ended.fault, ended.target));
            } else {
                if watched.elapsed() > WATCH {
                    watched = now;
                    world.watch();
                }
                std::thread::park_timeout(TICK);
            }
        }
        self.settle(world, &done)
            && (!(is_alone || random.below(WHOLE_ONE_IN) == 0) || self.wait_until_whole(world, "after faults"))
    }

    fn begin(&mut self, world: &mut World<'_>, planned: Planned, random: &mut Random) -> Option<Active> {
        let begin = world.field.now();
        let Some(target) = (planned.fault.begin)(world, random) else {
            self.line(world, &format!("{}: not possible now", planned.fault.name));
            return None;
        };
        world.busy.extend(&target.hosts);
        self.line(world, &format!("{} begins: {}", planned.fault.name, target.text));
        let ends = Instant::now() + planned.lasts;
        Some(Active { fault: planned.fault, target, begin, ends, has_majority: true })
    }

    /// Appends resume, and what needs a working cluster is done.
    fn settle(&mut self, world: &mut World<'_>, done: &[(&Fault, Target)]) -> bool {
        let ended = world.field.now();
        let waits = Instant::now();
        for observed in &world.field.logs {
            loop {
                let acks = observed.acks.lock().expect("no panic");
                if let Some(taken) = acks.first_after(ended) {
                    if taken > EXPLAINED_MIN {
                        let failed = acks.explanation().join("\n             ");
                        let text = format!("log {}: appends resume after {} ms, {failed}", observed.log, taken / 1000);
                        drop(acks);
                        self.line(world, &text);
                    }
                    break;
                }
                drop(acks);
                if waits.elapsed() > RESUME_MAX {
                    world.field.problem(format!("no append to {} within {RESUME_MAX:?} after faults", observed.log));
                    return false;
                }
                world.watch();
                std::thread::park_timeout(TICK);
            }
        }
        for (fault, target) in done {
            if let Err(why) = (fault.settle)(world, target) {
                world.field.problem(format!("{}: {}: {why}", fault.name, target.text));
            }
        }
        let problems = world.field.problems();
        problems.is_empty()
    }

    /// Waits until the cluster is whole. Returns false if it is not in time.
    pub fn wait_until_whole(&mut self, world: &mut World<'_>, when: &str) -> bool {
        match world.wait_until_whole(WHOLE_MAX) {
            Ok(taken) => {
                self.line(world, &format!("whole {when}, in {taken:.1?}"));
                self.whole.push(taken);
            }
            Err(why) => world.field.problem(format!("{when}: {why}")),
        }
        world.field.problems().is_empty()
    }
}
