//! Chaos: a cluster of real processes, each in a network namespace of its own, with everything that can fail failing at
//! random moments, while clients append and read. `make chaos MINUTES=20` runs it for so long, and prints its seed.
//!
//! ```text
//!   clients (producers.rs, readers.rs)                       schedule.rs ──► faults/
//!      │ observations                 gRPC, not forwarded                       │ kill, fill, damage, add, remove ...
//!      ▼                                    │                                   ▼
//!   checker.rs                              └───────────────► world.rs: nodes n1 .. n5 ◄──► forwarder.rs ◄──► nodes
//! ```
//!
//! `checker.rs` says which properties are checked, `faults/` which faults there are. A run also fails if
//!
//! - no append is acknowledged within [`schedule::RESUME_MAX`] after faults have ended, or the cluster is not whole
//!   within [`schedule::WHOLE_MAX`];
//! - a process ends by itself, or does not end when it is asked to;
//! - a consumer of the client library ends with an error;
//! - two nodes are connected around the forwarder;
//! - `seriatim data verify` finds damage in the directory of a stopped node.
//!
//! After a failure, the seed, the schedule and the path of all logs and data directories are printed. The same seed
//! chooses the same faults at the same times, as far as the cluster takes the same time to become whole; which node leads,
//! and how threads and processes run, still varies.
//!
//! Needs root for namespaces and disks; otherwise it is skipped with a message. `SERIATIM_TEST_NETNS=required` (CI) makes
//! that a failure.

mod checker;
mod faults;
mod field;
mod forwarder;
mod producers;
mod progress;
mod readers;
mod schedule;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use seriatim::client::Client;
use seriatim::pb::v1::{ConsumeRequest, CreateLogRequest, Start};

use self::checker::FinalLog;
use self::faults::FAULTS;
use self::field::{Field, Observed, found};
use self::schedule::{Planned, Schedule};
use self::world::{World, connected, network};
use crate::bridge::bridge;
use crate::harness::{Node, NodeOptions, Site, eventually, outcome, print_uncaptured};
use crate::load::{Random, StopOnDrop};

/// The phases of the short run: each kind of fault is in one of them.
const SHORT: [&[&str]; 18] = [
    &["kill", "delay"],
    &["partition", "clock jump"],
    &["rolling restart"],
    &["one-way partition", "terminate"],
    &["bit rot, running"],
    &["suspend", "lost connections"],
    &["kill all", "trim"],
    &["file deleted"],
    &["wiped node"],
    &["isolated leader", "leadership transfer"],
    &["node added"],
    &["full disk", "partial partition"],
    &["host cut off", "refused links"],
    &["bit rot, stopped"],
    &["full disks", "cut connections"],
    &["restart all"],
    &["node removed"],
    &["node replaced"],
];
/// How long a fault of the short run lasts, and when the second one of a phase begins.
const SHORT_LASTS: Duration = Duration::from_millis(700);
const SHORT_AFTER: Duration = Duration::from_millis(300);

/// `SERIATIM_TEST_CHAOS_MINUTES` runs random phases for so long instead, and `SERIATIM_TEST_CHAOS_ONLY` chooses the faults by
/// parts of their names.
#[test]
fn promises_hold_whatever_fails() {
    let minutes = std::env::var("SERIATIM_TEST_CHAOS_MINUTES").ok().map(|minutes| minutes.parse().expect("a number"));
    let length = minutes.map(|minutes: u64| Duration::from_secs(60 * minutes));
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).filter(|seed| *seed != 0);
    let seed = seed.unwrap_or_else(|| seriatim::clock::wall_us() % 1_000_000_000);
    let Some((bridge, site)) = network() else { return };
    if length.is_some() {
        print_uncaptured(&format!("chaos, SEED={seed}"));
    }
    let field = Field::new(site.client_files("root"));
    let mut schedule = Schedule::new(length.is_some());
    let Some(mut world) = World::new(bridge, &site, &field, seed) else { return };
    // A panic is a failure like others: the directories are kept.
    let run = catch_unwind(AssertUnwindSafe(|| run(&mut world, &mut schedule, length, seed)));
    let mut problems = field.problems();
    if let Err(panic) = &run {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        problems.push(format!("a panic: {}", text.unwrap_or_default()));
    }
    problems.extend(run.unwrap_or_default());
    let acks: Vec<_> = field.logs.iter().map(|observed| observed.acks.lock().expect("no panic")).collect();
    let table = progress::table(&schedule.injected, &acks.iter().map(|acks| &**acks).collect::<Vec<_>>());
    let whole = schedule.whole.iter().max().copied().unwrap_or_default();
    let report = format!("{table}whole again {} times, at most {whole:.1?} later", schedule.whole.len());
    if problems.is_empty() {
        print_uncaptured(&format!("{report}\nchaos: nothing wrong in {:.0?}", field.begin.elapsed()));
        return;
    }
    let kept = keep(&world, seed);
    drop(world);
    panic!(
        "SEED={seed}\n{}\n{report}\nlogs and data directories: {}\n{}",
        schedule.lines.join("\n"),
        kept.display(),
        problems.join("\n")
    );
}

fn keep(world: &World<'_>, seed: u64) -> PathBuf {
    let kept = std::env::temp_dir().join(format!("seriatim-chaos-{seed}-{}", std::process::id()));
    world.keep(&kept);
    kept
}

/// Runs the clients and the schedule. Returns what the checkers find in the end; other problems are in the field.
fn run(world: &mut World<'_>, schedule: &mut Schedule, length: Option<Duration>, seed: u64) -> Vec<String> {
    let field = world.field;
    let mut random = Random::new(seed);
    world.found(if length.is_some() && random.below(2) == 0 { 5 } else { 3 });
    prepare(world);
    let is_good = std::thread::scope(|scope| {
        let _ending = StopOnDrop(field.stop_flag());
        let [default, race] = &field.logs;
        let mut client = |run: fn(&Field, &Observed, Random), observed| {
            let random = Random::new(random.next());
            scope.spawn(move || run(field, observed, random));
        };
        client(|field, observed, random| producers::plain(field, observed, 0, random), default);
        client(|field, observed, random| producers::idempotent(field, observed, 1, random), default);
        client(|field, observed, random| producers::idempotent(field, observed, 2, random), default);
        client(|field, observed, random| producers::idempotent(field, observed, 3, random), race);
        client(|field, observed, random| producers::expecting(field, observed, 4, random), race);
        client(|field, observed, random| producers::expecting(field, observed, 5, random), race);
        client(|field, observed, random| producers::plain(field, observed, 6, random), race);
        for observed in [default, race] {
            client(readers::tail, observed);
            client(readers::sweep, observed);
        }
        client(readers::committer, default);
        match length {
            None => SHORT.iter().all(|phase| schedule.phase(world, short(phase), &mut random)),
            Some(length) => {
                let only = std::env::var("SERIATIM_TEST_CHAOS_ONLY").unwrap_or_default();
                let only: Vec<String> = only.split_terminator(',').map(str::to_owned).collect();
                let mut is_good = true;
                while is_good && field.begin.elapsed() < length {
                    let planned = Schedule::choose(&only, &mut random);
                    // What a phase draws depends on the state of the cluster. The faults of the next ones must not.
                    let mut of_phase = Random::new(random.next());
                    is_good = schedule.phase(world, planned, &mut of_phase);
                }
                is_good
            }
        }
    });
    // After a failure, the cluster may serve nothing.
    if is_good && schedule.wait_until_whole(world, "in the end") { check_end(world) } else { Vec::new() }
}

fn short(names: &[&str]) -> Vec<Planned> {
    let find = |name: &str| FAULTS.iter().find(|fault| fault.name == name).expect("a fault");
    let planned = |(number, name): (usize, &&str)| Planned {
        fault: find(name),
        after: SHORT_AFTER * number as u32,
        lasts: SHORT_LASTS,
    };
    names.iter().enumerate().map(planned).collect()
}

/// Creates the logs, lets wiped nodes join again, and waits until everything is there.
fn prepare(world: &mut World<'_>) {
    for observed in &world.field.logs {
        eventually("a log", || {
            let request = CreateLogRequest { log: observed.log.to_owned(), ..CreateLogRequest::default() };
            match world.client(0).create_log(&request) {
                Err(error) if error.status().is_none_or(|status| status.reason != "LOG_EXISTS") => {
                    Err(error.to_string())
                }
                Ok(_) | Err(_) => Ok(()),
            }
        });
    }
    let addr = world.host(0).node.rpc_addr.clone();
    eventually("wiped nodes may join again", || {
        let set = world.site.cli(&addr, &["cluster", "set", "--auto-replace-wiped=on"]).output().expect("runs");
        set.status.success().then_some(()).ok_or_else(|| format!("{set:?}"))
    });
    world.wait_until_whole(schedule::WHOLE_MAX).expect("a new cluster");
}

/// Reads every log from every node, then stops all nodes and verifies their directories.
fn check_end(world: &mut World<'_>) -> Vec<String> {
    let field = world.field;
    let mut problems = Vec::new();
    for observed in &field.logs {
        let logs: Vec<FinalLog> = world
            .members()
            .into_iter()
            .map(|host| {
                let (name, client) = (world.name(host), field.client(&world.host(host).node.rpc_addr));
                eventually("a whole log", || read_whole(&name, &client, observed.log))
            })
            .collect();
        let checker = field.take_checker(observed);
        let (known, acknowledged) = checker.counts();
        print_uncaptured(&format!(
            "log {}: {known} records observed, acknowledged up to {acknowledged}, {} of them left after trims",
            observed.log,
            logs.first().map_or(0, |log| log.records.len()),
        ));
        problems.extend(checker.finish(&logs).iter().map(|wrong| format!("log {}: {wrong:?}", observed.log)));
    }
    let members = world.members();
    members.iter().for_each(|host| world.terminate(*host));
    members.iter().for_each(|host| world.wait_for_exit(*host));
    for host in members {
        let dir = world.data(host).display().to_string();
        let verified = world.site.command(&["data", "verify", "--data-dir", &dir]).output().expect("it ran");
        let (code, report, error) = outcome(&verified);
        if code != Some(0) {
            problems.push(format!("data verify of {}: {code:?} {report}{error}", world.name(host)));
        }
    }
    problems.extend(field.problems());
    problems
}

fn read_whole(node: &str, client: &Client, log: &str) -> Result<FinalLog, String> {
    let request = ConsumeRequest {
        log: log.to_owned(),
        start: Start::START_EARLIEST.into(),
        stop_at_end: true,
        ..ConsumeRequest::default()
    };
    let mut read = FinalLog { node: node.to_owned(), ..FinalLog::default() };
    for message in client.consume_stream(&request, Some(Duration::from_secs(60))).map_err(|e| e.to_string())? {
        let message = message.map_err(|error| error.to_string())?;
        (read.first_offset, read.next_offset) = (message.first_offset, message.next_offset);
        read.records.extend(message.records.iter().map(found));
    }
    Ok(read)
}

#[test]
fn the_short_run_has_every_fault() {
    for fault in FAULTS {
        assert!(SHORT.iter().any(|phase| phase.contains(&fault.name)), "{}", fault.name);
    }
    for phase in SHORT {
        assert!(phase.len() == 1 || short(phase).iter().all(|planned| !planned.fault.alone), "{phase:?}");
    }
}

/// Without the addresses of the forwarder, nodes connect with each other directly. A run would then inject nothing into
/// the links.
#[test]
fn a_way_around_the_forwarder_is_noticed() {
    let Some(bridge) = bridge("a way around the forwarder", 2) else { return };
    let hosts = bridge.hosts();
    let site = Site::of_cluster("seriatim", &hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let first = Node::start(&site, NodeOptions { bootstrap: true, ..bridge.options(0, "n1".to_owned()) });
    let join = vec![first.bind_addr.clone()];
    let second = Node::start(&site, NodeOptions { join, ..bridge.options(1, "n2".to_owned()) });
    for (node, other) in [(&first, 1), (&second, 0)] {
        let other = bridge.addr(other).parse().expect("an address");
        eventually("a connection", || {
            let found = connected(node.pid());
            found.contains(&other).then_some(()).ok_or(format!("{found:?}"))
        });
    }
}
