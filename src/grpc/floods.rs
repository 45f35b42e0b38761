//! The thread `flood-guard`, which closes connections that flood the process.
//!
//! It watches for two kinds of flood: requests that are cancelled as fast as they are made (`rapid_reset`), and
//! HTTP/2 frames that belong to no request (`frames`). It checks every gRPC server of the process, because a client
//! with an accepted certificate can connect to the peer listener too.
//!
//! A check costs processor time, and so does a flood. So the thread sleeps while the process is idle (`busy`), and
//! checks every few milliseconds while an owner is banned. It also returns free memory to the system after a load
//! (`free_memory`).

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::busy::{BusyTimer, Stop};
use super::frames::FrameWatch;
use super::rapid_reset::{BAN, ResetWatch, Why};
use super::received::Received;
use super::sockets::{self, Connection};
use crate::events::{EventKind, Severity};
use crate::free_memory::FreeMemory;
use crate::metrics::Metrics;
use crate::security::identity::principal_of;
use crate::thread::{FatalSender, Joiner, spawn};

/// The pause between two checks of a busy process.
const CHECK_QUIET: Duration = Duration::from_millis(25);

/// A process is idle, and is not being flooded, if it uses less than one part in this many of a core.
const BUSY_PART: u32 = 8;
/// It rests if it uses less than one part in this many.
const RESTING_PART: u32 = 64;
/// An idle process is checked once it has used the processor time with which it would be busy for this long. A process
/// that is flooded uses it sooner.
const CHECK_IDLE: Duration = Duration::from_millis(150);

/// The pause while a server has many unsuccessful requests.
const CHECK_GROWING: Duration = Duration::from_millis(10);
/// The pause while an owner is banned.
const CHECK_BANNED: Duration = Duration::from_millis(2);

/// Added to the pause for each connection that was checked, so that checks take at most a fifth of a core.
const CHECK_EACH: Duration = Duration::from_micros(100);

/// Added to the pause for each file descriptor of the process while a host is paused.
const CHECK_EACH_FILE: Duration = Duration::from_micros(5);

/// The running thread. Dropping this stops it.
pub struct FloodGuard {
    stop: Stop,
    joiner: Option<Joiner>,
}

impl FloodGuard {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system can't create a thread or a descriptor.
    pub fn start(received: Received, metrics: Arc<Metrics>, fatal: &FatalSender) -> io::Result<FloodGuard> {
        let stop = Stop::new()?;
        let stopped = stop.clone();
        let joiner = spawn("flood-guard", fatal, move || {
            let timer = BusyTimer::new(stopped);
            let mut resets = ResetWatch::default();
            // `None` while the process is idle.
            let mut pause = None;
            let (mut used, mut checked) = (processor_time(), Instant::now());
            let mut memory = FreeMemory::default();
            let mut frames = FrameWatch::new(received);
            while match pause {
                None => timer.wait_until_used(CHECK_IDLE / BUSY_PART, CHECK_IDLE),
                Some(pause) => timer.wait_for(pause),
            } {
                let before = std::mem::replace(&mut used, processor_time());
                let waited = std::mem::replace(&mut checked, Instant::now()).elapsed();
                let used_meanwhile = used.saturating_sub(before);
                if used_meanwhile < waited / RESTING_PART {
                    memory.return_while_resting();
                }
                let idle = used_meanwhile < waited / BUSY_PART;
                if !idle || frames.has_many() {
                    close_frame_floods(&mut frames, &mut resets, &metrics);
                }
                let is_checked = !idle || resets.bans();
                pause = is_checked.then(|| close_reset_floods(&mut resets, &metrics));
            }
            Ok::<(), Infallible>(())
        })?;
        Ok(FloodGuard { stop, joiner: Some(joiner) })
    }
}

impl Drop for FloodGuard {
    fn drop(&mut self) {
        self.stop.stop();
        self.joiner.take();
    }
}

/// The processor time that this process has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Checks every server once, and closes the connections that flood. Returns the pause until the next check.
fn close_reset_floods(resets: &mut ResetWatch, metrics: &Metrics) -> Duration {
    let files = keep_paused(resets, metrics);
    let mut growing = false;
    let mut connections = Vec::new();
    let servers = sockets::servers();
    for server in &servers {
        let seen = resets.update_server(server);
        growing |= seen.grows;
        let from = if seen.grows { 0 } else { seen.newest + 1 };
        let ids = sockets::connections(server.id, from);
        resets.update_newest(server, ids.last().copied());
        if seen.grows || resets.bans() {
            let found = ids.into_iter().filter_map(|id| Some((id, id > seen.newest, sockets::connection(id)?)));
            connections.extend(found);
        }
    }
    resets.forget_servers(&servers);
    let cost = CHECK_EACH * u32::try_from(connections.len()).unwrap_or(u32::MAX);
    for (connection, why) in resets.judge(connections, growing, Instant::now()) {
        let closed = sockets::abort(&connection);
        let (remote, owner) = (connection.remote, owner_name(&connection));
        match (why, closed) {
            (_, Ok(false)) => continue,
            (Why::Lost(calls), Ok(true)) => log::warn!(
                "closed the connection of {owner} from {remote}: it cancelled {calls} requests before they were answered; \
                 new connections from that host with that certificate are closed for {} s",
                BAN.as_secs()
            ),
            (Why::Banned, Ok(true)) => log::debug!("closed a new connection of {owner} from {remote}"),
            (_, Err(e)) => {
                log::warn!("can't close the connection of {owner} from {remote}, which floods this node: {e}");
                continue;
            }
        }
        flood_closed(metrics, &owner, remote.ip());
    }
    for (owner, port) in resets.owners_to_pause() {
        // Connections in the middle of a handshake are not among the known ones, and are closed: most likely they
        // belong to the flood.
        let is_from_owner = |c: &Connection| (c.remote.ip(), c.local.port()) == (owner.0, port);
        let ids = servers.iter().flat_map(|server| sockets::connections(server.id, 0));
        let known = ids.filter_map(sockets::connection).filter(is_from_owner).map(|c| c.remote).collect();
        resets.pause(&owner, port, known, Instant::now());
        log::debug!("closing new connections from {} for a second", owner.0);
    }
    let pace = match (growing, resets.bans()) {
        (_, true) => CHECK_BANNED,
        (true, false) => CHECK_GROWING,
        (false, false) => CHECK_QUIET,
    };
    pace + cost + CHECK_EACH_FILE * files
}

/// Counts a connection that was closed, and shows it as an event.
fn flood_closed(metrics: &Metrics, owner: &str, host: IpAddr) {
    metrics.flood_closed.inc();
    let text = format!("a connection of {owner} from {host} was closed: it flooded this node");
    metrics.registry().events().record(EventKind::Refusal, Severity::Warning, text);
}

/// Closes connections that flood with frames outside of requests, and bans their owners.
fn close_frame_floods(frames: &mut FrameWatch, resets: &mut ResetWatch, metrics: &Metrics) {
    let floods = frames.check().unwrap_or_else(|error| {
        log::debug!("can't read the byte counters of connections: {error}");
        Vec::new()
    });
    for (connection, bytes) in floods {
        resets.ban(&connection, Instant::now());
        let (remote, owner) = (connection.remote, owner_name(&connection));
        match sockets::abort(&connection) {
            Ok(false) => continue,
            Ok(true) => log::warn!(
                "closed the connection of {owner} from {remote}: it sent {} MiB that belong to no request; new connections \
                 from that host with that certificate are closed for {} s",
                bytes >> 20,
                BAN.as_secs()
            ),
            Err(e) => {
                log::warn!("can't close the connection of {owner} from {remote}, which floods this node: {e}");
                continue;
            }
        }
        flood_closed(metrics, &owner, remote.ip());
    }
}

/// Closes new connections from paused hosts. Returns the number of file descriptors that were inspected.
fn keep_paused(resets: &mut ResetWatch, metrics: &Metrics) -> u32 {
    let mut files = 0;
    for ((host, port), known) in resets.paused(Instant::now()) {
        match sockets::abort_new(*host, *port, known) {
            Ok((inspected, aborted)) => {
                files += u32::try_from(inspected).unwrap_or(u32::MAX);
                (0..aborted).for_each(|_| metrics.flood_closed.inc());
            }
            Err(e) => log::debug!("can't inspect the connections from {host}: {e}"),
        }
    }
    files
}

fn owner_name(connection: &Connection) -> String {
    principal_of(&connection.certificate)
        .map_or_else(|| "an unknown client".to_owned(), |principal| principal.to_string())
}
