//! The thread that closes connections which flood the process.
//!
//! It watches for two kinds of flood: requests that are cancelled as fast as they are made (`rapid_reset`), and
//! HTTP/2 frames that belong to no request (`frames`). It looks at every gRPC server of the process: a client with
//! an accepted certificate can reach the peer listener, too.
//!
//! The pace follows the load: a flood costs processor time, and so does a look, so an idle process is looked at rarely and a
//! process with banned owners every few milliseconds. The thread also returns free memory to the system
//! (`memory`), which many closed connections leave unused.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::frames::FrameWatch;
use super::memory::FreeMemory;
use super::rapid_reset::{BAN, ResetWatch, Why};
use super::received::Received;
use super::sockets::{self, Connection};
use crate::metrics::Metrics;
use crate::security::identity::principal_of;
use crate::thread::{FatalSender, Joiner, spawn};

/// The pause between two looks.
const LOOK_QUIET: Duration = Duration::from_millis(25);

/// A process that uses less than this fraction of a core (one part in eight) is not being flooded
const BUSY_PART: u32 = 8;
/// and is looked at after this pause.
const LOOK_IDLE: Duration = Duration::from_millis(150);

/// The pause while a server loses many requests,
const LOOK_GROWING: Duration = Duration::from_millis(10);
/// and while an owner is banned.
const LOOK_BANNED: Duration = Duration::from_millis(2);

/// Added to the pause for each connection that was looked at, so that looking takes a fifth of a core at most.
const LOOK_EACH: Duration = Duration::from_micros(100);

/// Added for each file of the process while a host is paused.
const LOOK_EACH_FILE: Duration = Duration::from_micros(5);

/// The running thread; dropping it stops it.
pub struct FloodGuard {
    stop: Sender<()>,
    joiner: Option<Joiner>,
}

impl FloodGuard {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system can't create a thread.
    pub fn start(received: Received, metrics: Arc<Metrics>, fatal: &FatalSender) -> io::Result<FloodGuard> {
        let (stop, stopped) = bounded(1);
        let joiner = spawn("resets", fatal, move || {
            let mut resets = ResetWatch::default();
            let mut wait = LOOK_IDLE;
            let mut used = processor_time();
            let mut memory = FreeMemory::default();
            let mut frames = FrameWatch::new(received);
            while stopped.recv_timeout(wait).is_err_and(|e| e.is_timeout()) {
                memory.look();
                let before = std::mem::replace(&mut used, processor_time());
                let idle = used.saturating_sub(before) < wait / BUSY_PART;
                if !idle || frames.has_many() {
                    close_frame_floods(&mut frames, &mut resets, &metrics);
                }
                wait = if idle && !resets.bans() { LOOK_IDLE } else { look(&mut resets, &metrics) };
            }
            Ok::<(), Infallible>(())
        })?;
        Ok(FloodGuard { stop, joiner: Some(joiner) })
    }
}

impl Drop for FloodGuard {
    fn drop(&mut self) {
        let _ = self.stop.try_send(());
        self.joiner.take();
    }
}

/// The processor time that this process has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Looks at every server once; returns the pause until the next look.
fn look(resets: &mut ResetWatch, metrics: &Metrics) -> Duration {
    let files = keep_paused(resets, metrics);
    let mut growing = false;
    let mut connections = Vec::new();
    let servers = sockets::servers();
    for server in &servers {
        let seen = resets.server(server);
        growing |= seen.grows;
        let from = if seen.grows { 0 } else { seen.newest + 1 };
        let ids = sockets::connections(server.id, from);
        resets.newest(server, ids.last().copied());
        if seen.grows || resets.bans() {
            let rows = ids.into_iter().filter_map(|id| Some((id, id > seen.newest, sockets::connection(id)?)));
            connections.extend(rows);
        }
    }
    resets.forget_servers(&servers);
    let looked_at = LOOK_EACH * u32::try_from(connections.len()).unwrap_or(u32::MAX);
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
        metrics.flood_closed.inc();
    }
    for (owner, port) in resets.knocked_too_often() {
        // Connections in the middle of a handshake are not among them: most likely they are the flood again.
        let here = |c: &Connection| (c.remote.ip(), c.local.port()) == (owner.0, port);
        let ids = servers.iter().flat_map(|server| sockets::connections(server.id, 0));
        let known = ids.filter_map(sockets::connection).filter(here).map(|c| c.remote).collect();
        resets.pause(&owner, port, known, Instant::now());
        log::debug!("no new connection from {} for a second", owner.0);
    }
    let pace = match (growing, resets.bans()) {
        (_, true) => LOOK_BANNED,
        (true, false) => LOOK_GROWING,
        (false, false) => LOOK_QUIET,
    };
    pace + looked_at + LOOK_EACH_FILE * files
}

/// Closes connections that flood with frames of no request, and bans their owners.
fn close_frame_floods(frames: &mut FrameWatch, resets: &mut ResetWatch, metrics: &Metrics) {
    let floods = frames.look().unwrap_or_else(|error| {
        log::debug!("can't look at what connections send: {error}");
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
        metrics.flood_closed.inc();
    }
}

/// Closes new connections from paused hosts; returns how many files were looked at.
fn keep_paused(resets: &mut ResetWatch, metrics: &Metrics) -> u32 {
    let mut files = 0;
    for ((host, port), known) in resets.paused(Instant::now()) {
        match sockets::abort_new(*host, *port, known) {
            Ok((looked_at, aborted)) => {
                files += u32::try_from(looked_at).unwrap_or(u32::MAX);
                (0..aborted).for_each(|_| metrics.flood_closed.inc());
            }
            Err(e) => log::debug!("can't look at the connections from {host}: {e}"),
        }
    }
    files
}

fn owner_name(connection: &Connection) -> String {
    principal_of(&connection.certificate)
        .map_or_else(|| "an unknown client".to_owned(), |principal| principal.to_string())
}
