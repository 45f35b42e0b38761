//! The simulation of a whole cluster: the real driver, catalog, policy, groups and storage of each node, over simulated
//! disks and a simulated network, in one thread, from one seed.
//!
//! ```text
//!  seed ──▶ events::History ──▶ Simulation::play ──▶ cluster.rs: nodes, disks, network, clocks
//!              (data)               │   │               └──▶ checks.rs: after each step of each node
//!                 ▲                 │   └──▶ clients.rs, commands.rs: requests, answers, reads
//!                 │                 └──▶ settle: the faults stop, and the cluster must recover
//!              shrink.rs ◀── a failure
//! ```
//!
//! `make sim SEEDS=n` runs it; `docs/RELIABILITY.md` says how. A history that fails is run again with fewer events, and
//! printed with the line that runs it again.

mod clients;
mod commands;
mod events;
mod faults;
mod happen;
mod look;
mod rot;
mod settle;
mod shrink;
mod stories;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::clients::Clients;
use self::commands::Operators;
use self::events::{Event, History};
use self::shrink::Failure;
use super::cluster::{Cluster, Image};
use super::*;

/// Small, so that segments are sealed all the time.
const SEGMENT_BYTES: u64 = 4 << 10;

/// A cluster, its clients, and what is under way.
pub struct Simulation {
    pub cluster: Cluster,
    pub clients: Clients,
    operators: Operators,
    /// Machines that ask to join until they are members.
    joining: Vec<usize>,
    /// Nodes that should be removed, until the catalog has done so.
    removing: Vec<NodeId>,
    /// Those of `joining` that replace a member whose disk was lost.
    wiped: BTreeMap<usize, NodeId>,
    rounds: u64,
    logs: u32,
}

/// What a run of a history has shown.
pub struct Outcome {
    pub hash: u64,
    pub lines: Vec<String>,
    pub failure: Option<String>,
}

thread_local! {
    static IMAGES: RefCell<BTreeMap<usize, Image>> = const { RefCell::new(BTreeMap::new()) };
}

impl Simulation {
    /// Starts a cluster that was founded before, with two logs of three replicas.
    fn start(history: &History) -> Simulation {
        let cluster = with_image(history.nodes, |image| Cluster::resume(history.seed, image, SEGMENT_BYTES));
        let (joining, removing) = (Vec::new(), Vec::new());
        Simulation {
            cluster,
            clients: Clients::default(),
            operators: Operators::default(),
            joining,
            removing,
            wiped: BTreeMap::new(),
            rounds: 0,
            logs: 0,
        }
    }

    fn play(&mut self, history: &History) {
        for step in &history.steps {
            self.cluster.seed(step.salt);
            self.cluster.checks.trace.line(|| format!("== {step}"));
            self.happen(&step.event);
            for _ in 0..step.rounds {
                self.round();
            }
        }
        self.cluster.seed(history.seed);
        self.cluster.checks.trace.line(|| "== the faults stop".to_owned());
        self.settle();
    }

    fn round(&mut self) {
        self.rounds += 1;
        if self.rounds.is_multiple_of(8) {
            self.keep_up();
        }
        let groups: Vec<GroupId> = self.log_groups();
        self.clients.round(&mut self.cluster, &groups);
        self.take_outcomes();
        self.cluster.round();
    }

    /// The groups of all logs that any running node knows and that are not deleted.
    fn log_groups(&self) -> Vec<GroupId> {
        let drivers = (0..self.cluster.running.len()).filter_map(|i| self.cluster.driver(i));
        let newest = drivers.map(|driver| driver.governor.catalog()).max_by_key(|catalog| catalog.log_count());
        let logs = newest.into_iter().flat_map(|catalog| catalog.logs());
        logs.filter(|log| log.deletion.is_none()).map(|log| log.group).collect()
    }
}

/// Calls a function with the disks of a cluster of this many nodes. Each thread founds it once.
fn with_image<T>(nodes: usize, act: impl FnOnce(&Image) -> T) -> T {
    IMAGES.with_borrow_mut(|images| {
        let image = images.entry(nodes).or_insert_with(|| {
            let mut cluster = Cluster::new(1, nodes, 1);
            (0..40).for_each(|_| cluster.round());
            cluster.image()
        });
        act(image)
    })
}

/// Founds the clusters with which all histories begin.
fn prepare() {
    [3, 5].into_iter().for_each(|nodes| with_image(nodes, |_| ()));
}

/// Runs a history, with lines for people if they are wanted.
pub fn run(history: &History, lines: bool) -> Outcome {
    let mut simulation = None;
    let result = shrink::quietly(|| {
        catch_unwind(AssertUnwindSafe(|| {
            let simulation = simulation.insert(Simulation::start(history));
            if lines {
                simulation.cluster.checks.trace.keep_lines();
            }
            simulation.play(history);
        }))
    });
    let failure = result.err().map(|panic| shrink::message(panic.as_ref()));
    let trace = simulation.as_ref().map(|simulation| &simulation.cluster.checks.trace);
    let (hash, lines) = trace.map(|trace| (trace.hash(), trace.lines().to_vec())).unwrap_or_default();
    Outcome { hash, lines, failure }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Runs the histories of these seeds. Shrinks and prints the first that fails.
fn run_seeds(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let history = History::of_seed(seed);
        if run(&history, false).failure.is_some() {
            let failure = Failure::of(&history);
            println!("{failure}");
            panic!("{}", failure.line());
        }
    }
}

/// `make sim SEED=n EVENTS=...` runs one history, or a part of it, and prints its trace.
fn run_one(seed: u64, events: &str) {
    let history = shrink::selected(&History::of_seed(seed), events);
    let outcome = run(&history, true);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("trace hash {:016x}", outcome.hash);
    if let Some(failure) = outcome.failure {
        panic!("{failure}");
    }
}

/// The seeds from `SERIATIM_SIM_SEED` on, `SERIATIM_SIM_SEEDS` of them, in four tests that may run at the same time.
fn run_part(part: u64) {
    let (first, seeds) = (number("SERIATIM_SIM_SEED", 1), number("SERIATIM_SIM_SEEDS", 1000));
    if let Ok(events) = std::env::var("SERIATIM_SIM_EVENTS") {
        if part == 0 {
            run_one(first, &events);
        }
        return;
    }
    let at = |part: u64| first + seeds * part / 4;
    run_seeds(at(part)..at(part + 1));
}

#[test]
fn random_histories_of_a_cluster_keep_every_promise_1() {
    run_part(0);
}

#[test]
fn random_histories_of_a_cluster_keep_every_promise_2() {
    run_part(1);
}

#[test]
fn random_histories_of_a_cluster_keep_every_promise_3() {
    run_part(2);
}

#[test]
fn random_histories_of_a_cluster_keep_every_promise_4() {
    run_part(3);
}

#[test]
fn a_seed_that_runs_twice_has_the_same_trace() {
    for seed in [1, 2, 3, 4, 5, 6, 7, 8] {
        let history = History::of_seed(seed);
        let (first, second) = (run(&history, true), run(&history, true));
        for (one, other) in first.lines.iter().zip(&second.lines) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.hash, second.hash, "seed {seed}");
        // Another thread founds the cluster again.
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| run(&history, true).hash).join());
        assert_eq!(first.hash, elsewhere.expect("no panic"), "seed {seed}");
        assert_ne!(first.hash, run(&History::of_seed(seed + 100), true).hash);
    }
}
