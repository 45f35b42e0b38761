//! The faults. [`FAULTS`] has an entry for each: to add one, add a line there, and its functions here or in the file of
//! its kind.
//!
//! - `links`: the network
//! - `disks`: full, damaged and lost disks
//! - `members`: nodes are added, removed and replaced
//! - this file: processes, clocks, and what operators do to logs

mod disks;
mod links;
mod members;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::world::{State, World, pick};
use crate::fail_over::signal;
use crate::load::Random;

type Begin = fn(&mut World<'_>, &mut Random) -> Option<Target>;
type End = fn(&mut World<'_>, &Target);
type Settle = fn(&mut World<'_>, &Target) -> Result<(), String>;

/// What a fault was injected into.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// For the schedule.
    pub text: String,
    /// The hosts to whose process or disk it happens. Nothing else happens to them meanwhile.
    pub hosts: Vec<usize>,
    /// The hosts that can't take part.
    pub impaired: Vec<usize>,
    /// The directions that are changed.
    links: Vec<(usize, usize)>,
    /// The connections of these links are lost in the end, as they are after a long partition.
    cuts: bool,
    /// A file, a position in it and the damaged bytes there.
    damage: Option<(PathBuf, u64, Vec<u8>)>,
}

/// A kind of fault.
pub struct Fault {
    pub name: &'static str,
    /// How often it is chosen, compared with the others.
    pub weight: u64,
    /// It begins only when the cluster is whole, nothing else happens meanwhile, and the cluster is whole again before the
    /// next fault. For faults that take a copy of records away, and for those that need all nodes.
    pub alone: bool,
    /// Injects it. `None`: there is nothing to inject it into.
    pub begin: Begin,
    /// Ends it.
    pub end: End,
    /// Does what needs a working cluster, after all faults have ended.
    pub settle: Settle,
}

/// How long an operator's request may be refused before that is a failure. A removal is refused while other nodes lag.
const REQUEST_MAX: Duration = Duration::from_secs(60);
const DAY: i64 = 86_400;

/// A name, a weight, how it begins and how it ends.
pub const FAULTS: &[Fault] = &[
    fault("kill", 10, kill, start),
    fault("kill all", 2, kill_all, start),
    fault("terminate", 5, terminate, start_after_exit),
    fault("restart all", 2, terminate_all, start_after_exit),
    fault("rolling restart", 2, rolling_restart, ends).alone(nothing),
    fault("suspend", 6, suspend, resume),
    fault("partition", 5, links::partition, links::heal),
    fault("one-way partition", 5, links::one_way, links::heal),
    fault("partial partition", 5, links::partial, links::heal),
    fault("isolated leader", 5, links::isolate_leader, links::heal),
    fault("refused links", 3, links::refuse, links::admit),
    fault("cut connections", 4, links::cut_all, ends),
    fault("host cut off", 4, links::cut_off, links::plug_in),
    fault("delay", 5, links::delay, links::no_rules),
    fault("lost connections", 4, links::lose, links::no_rules),
    fault("full disk", 4, disks::fill_one, disks::empty),
    fault("full disks", 1, disks::fill_all, disks::empty),
    fault("bit rot, running", 3, disks::rot, ends).alone(disks::is_repaired),
    fault("bit rot, stopped", 3, disks::rot_stopped, start).alone(disks::is_repaired),
    fault("file deleted", 3, disks::delete_stopped, start).alone(nothing),
    fault("wiped node", 3, disks::wipe, start).alone(nothing),
    fault("node added", 4, members::add, ends).alone(nothing),
    fault("node removed", 3, members::choose_spare, ends).alone(members::remove),
    fault("node replaced", 2, members::die_and_add, ends).alone(members::replace),
    fault("leadership transfer", 4, transfer, ends),
    fault("trim", 8, trim, ends),
    fault("clock jump", 5, jump, clock_right),
];

const fn fault(name: &'static str, weight: u64, begin: Begin, end: End) -> Fault {
    Fault { name, weight, alone: false, begin, end, settle: nothing }
}

impl Fault {
    const fn alone(self, settle: Settle) -> Fault {
        Fault { alone: true, settle, ..self }
    }
}

fn ends(_: &mut World<'_>, _: &Target) {}

fn nothing(_: &mut World<'_>, _: &Target) -> Result<(), String> {
    Ok(())
}

/// All nodes to which nothing happens, if there are any.
fn all(world: &World<'_>) -> Option<Vec<usize>> {
    Some(world.free()).filter(|hosts| !hosts.is_empty())
}

fn names(world: &World<'_>, hosts: &[usize]) -> String {
    hosts.iter().map(|host| world.name(*host)).collect::<Vec<_>>().join(", ")
}

fn on(world: &World<'_>, hosts: &[usize]) -> Target {
    Target { text: names(world, hosts), hosts: hosts.to_vec(), impaired: hosts.to_vec(), ..Target::default() }
}

/// Returns the leader of a log half of the time, and otherwise any node.
fn victim(world: &World<'_>, random: &mut Random) -> Option<usize> {
    let free = world.free();
    let log = world.field.logs[random.below(2) as usize].log;
    let leader = if random.below(2) == 0 { world.leader(log, random) } else { None };
    leader.filter(|leader| free.contains(leader)).or_else(|| pick(&free, random))
}

fn kill(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    world.kill(host);
    Some(on(world, &[host]))
}

fn kill_all(world: &mut World<'_>, _: &mut Random) -> Option<Target> {
    let hosts = all(world)?;
    hosts.iter().for_each(|host| world.kill(*host));
    Some(on(world, &hosts))
}

fn start(world: &mut World<'_>, target: &Target) {
    target.hosts.iter().for_each(|host| world.start(*host));
}

fn terminate(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    world.terminate(host);
    Some(on(world, &[host]))
}

fn terminate_all(world: &mut World<'_>, _: &mut Random) -> Option<Target> {
    let hosts = all(world)?;
    hosts.iter().for_each(|host| world.terminate(*host));
    Some(on(world, &hosts))
}

fn start_after_exit(world: &mut World<'_>, target: &Target) {
    for host in &target.hosts {
        world.wait_for_exit(*host);
        world.start(*host);
    }
}

/// As an upgrade does it: the next node is stopped once the one before is ready.
fn rolling_restart(world: &mut World<'_>, _: &mut Random) -> Option<Target> {
    let hosts = world.free();
    for host in &hosts {
        world.terminate(*host);
        world.wait_for_exit(*host);
        world.start(*host);
        if let Err(why) = world.wait_until_whole(REQUEST_MAX) {
            world.field.problem(format!("rolling restart after {}: {why}", world.name(*host)));
        }
    }
    Some(Target { text: names(world, &hosts), ..Target::default() })
}

fn suspend(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    signal(&world.host(host).node, Signal::STOP);
    world.host(host).state = State::Suspended;
    Some(on(world, &[host]))
}

fn resume(world: &mut World<'_>, target: &Target) {
    for host in &target.hosts {
        signal(&world.host(*host).node, Signal::CONT);
        world.host(*host).state = State::Runs;
    }
}

fn transfer(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let log = ["default", "race", ""][random.below(3) as usize];
    let leader = world.leader(log, random)?;
    let moved = world.client(leader).transfer_leadership(log, "");
    let result = moved.map_or_else(|error| error.to_string(), |_| "done".to_owned());
    Some(Target { text: format!("log {log:?}, from {}: {result}", world.name(leader)), ..Target::default() })
}

/// Keeps some of the newest records.
fn trim(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let observed = &world.field.logs[random.below(2) as usize];
    let end = world.field.note(observed, |checker, _| checker.known_end());
    let first = end.saturating_sub(500 + random.below(4000)).max(end / 2);
    world.field.note(observed, |checker, _| checker.trim_requested(first));
    let trimmed = world.ask(|client| client.trim(observed.log, first).ok());
    if let Some(trimmed) = &trimmed {
        let first = trimmed.log.position.first_offset;
        world.field.note(observed, |checker, _| checker.trim_acknowledged(first));
    }
    let result = if trimmed.is_some() { "done" } else { "no answer" };
    Some(Target { text: format!("log {} to {first}: {result}", observed.log), ..Target::default() })
}

/// Certificates are valid from two days ago on, for a year.
fn jump(world: &mut World<'_>, random: &mut Random) -> Option<Target> {
    let host = victim(world, random)?;
    let seconds = [-DAY, -90, -5, 5, 90, DAY, 30 * DAY][random.below(7) as usize];
    world.set_clock(host, seconds);
    Some(Target { text: format!("{} by {seconds} s", world.name(host)), ..on(world, &[host]) })
}

fn clock_right(world: &mut World<'_>, target: &Target) {
    target.hosts.iter().for_each(|host| world.set_clock(*host, 0));
}

/// Asks until it succeeds, for at most [`REQUEST_MAX`].
fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let begin = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(why) if begin.elapsed() > REQUEST_MAX => {
                return Err(format!("not within {REQUEST_MAX:?}: {what}: {why}"));
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(50)),
        }
    }
}
