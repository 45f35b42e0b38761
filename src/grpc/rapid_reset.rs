//! The thread that ends connections whose calls are taken back as fast as they are made ("HTTP/2 rapid reset",
//! CVE-2023-44487).
//!
//! The core of this version neither counts such calls nor bounds how many of them wait to be cleaned up; it reads them faster
//! than it gets rid of them, so memory and every other call's wait grow as long as they come. This thread looks how many a
//! connection has lost; too many within a second end it, and for a while every new one that comes from the same host with the
//! same certificate. A call counts as lost when it was begun, and is neither open, nor answered, nor was sent a message. Who loses calls for
//! a good reason (all its deadlines pass while a node hangs) loses at most as many as may be open, and stays below.
//!
//! A connection costs more than its first calls before it can be known whose it is. So when such a host comes back all the
//! same, it gets no connection at all for a second at a time: whoever else is there must wait that long for a new one.
//!
//! Looked at are all gRPC servers of the process: whoever has an accepted certificate can reach the peer listener, too.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::frames::Frames;
use super::memory::FreeMemory;
use super::received::Received;
use super::sockets::{self, Calls, Connection, ServerCalls};
use crate::metrics::Metrics;
use crate::security::identity::principal_of;
use crate::thread::{FatalSender, Joiner, spawn};

/// So many calls may be open on a connection (`LISTENER` in `grpc.rs`); they are not lost.
const OPEN_MAX: u64 = 1024;

/// Lost calls of one connection within [`WINDOW`]: all that were open, once.
const LOST_MAX: u64 = OPEN_MAX;

/// Lost calls within [`WINDOW`] of all connections from one host with one certificate.
const OWNER_LOST_MAX: u64 = 4096;

/// Who is over a limit keeps the connections that lost fewer than this.
const LOST_LITTLE: u64 = 64;

/// Calls that are over and not cleaned up yet, of one connection. More are a flood, however long it has lasted.
const LEFT_MAX: u64 = 2048;

const WINDOW: Duration = Duration::from_secs(1);

/// So long nobody who was over a limit gets a new connection.
const BAN: Duration = Duration::from_secs(10);

/// After so many closed connections of somebody who may have none, their host is paused.
const KNOCKS_MAX: u32 = 4;

/// So long a host gets no new connection.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections are looked at one by one when a server has lost so many calls since the last look.
const GROWTH: u64 = 256;

const LOOK_QUIET: Duration = Duration::from_millis(25);

/// A process that uses less than this part of a core is in no flood
const BUSY_PART: u32 = 8;
/// and is looked at after so long.
const LOOK_IDLE: Duration = Duration::from_millis(150);

const LOOK_GROWING: Duration = Duration::from_millis(10);
const LOOK_BANNED: Duration = Duration::from_millis(2);

/// And for each connection that was looked at, this much is added, so that looking takes a fifth of a core at most.
const LOOK_EACH: Duration = Duration::from_micros(100);

/// The same for each file of the process, while a host is paused.
const LOOK_EACH_FILE: Duration = Duration::from_micros(5);

/// The running thread; dropping it ends it.
pub struct RapidReset {
    stop: Sender<()>,
    joiner: Option<Joiner>,
}

impl RapidReset {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system can't make one.
    pub fn start(received: Received, metrics: Arc<Metrics>, fatal: &FatalSender) -> io::Result<RapidReset> {
        let (stop, stopped) = bounded(1);
        let joiner = spawn("resets", fatal, move || {
            let mut watch = Watch::default();
            let mut wait = LOOK_IDLE;
            let mut used = processor_time();
            let mut memory = FreeMemory::default();
            let mut frames = Frames::new(received);
            while stopped.recv_timeout(wait).is_err_and(|e| e.is_timeout()) {
                memory.look();
                let before = std::mem::replace(&mut used, processor_time());
                // A flood costs processor time, and a look costs some too: without the one there is not the other.
                let idle = used.saturating_sub(before) < wait / BUSY_PART;
                if !idle || frames.has_many() {
                    end_floods(&mut frames, &mut watch, &metrics);
                }
                wait = if idle && !watch.bans() { LOOK_IDLE } else { look(&mut watch, &metrics) };
            }
            Ok::<(), Infallible>(())
        })?;
        Ok(RapidReset { stop, joiner: Some(joiner) })
    }
}

impl Drop for RapidReset {
    fn drop(&mut self) {
        let _ = self.stop.try_send(());
        self.joiner.take();
    }
}

/// What this process has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// One look at everything; gives the time until the next.
fn look(watch: &mut Watch, metrics: &Metrics) -> Duration {
    let files = keep_paused(watch, metrics);
    let mut growing = false;
    let mut connections = Vec::new();
    let servers = sockets::servers();
    for server in &servers {
        let seen = watch.server(server);
        growing |= seen.grows;
        let from = if seen.grows { 0 } else { seen.newest + 1 };
        let ids = sockets::connections(server.id, from);
        watch.newest(server, ids.last().copied());
        if seen.grows || watch.bans() {
            let rows = ids.into_iter().filter_map(|id| Some((id, id > seen.newest, sockets::connection(id)?)));
            connections.extend(rows);
        }
    }
    watch.forget_servers(&servers);
    let looked_at = LOOK_EACH * u32::try_from(connections.len()).unwrap_or(u32::MAX);
    for (connection, why) in watch.judge(connections, growing, Instant::now()) {
        let closed = sockets::abort(&connection);
        let (remote, who) = (connection.remote, name(&connection));
        match (why, closed) {
            (_, Ok(false)) => continue,
            (Why::Lost(calls), Ok(true)) => log::warn!(
                "closed the connection of {who} from {remote}: {calls} calls were taken back before they were answered; \
                 new connections from that host with that certificate are closed for {} s",
                BAN.as_secs()
            ),
            (Why::Banned, Ok(true)) => log::debug!("closed a new connection of {who} from {remote}"),
            (_, Err(e)) => {
                log::warn!("can't close the connection of {who} from {remote}, which floods this node: {e}");
                continue;
            }
        }
        metrics.flood_closed.inc();
    }
    for (owner, port) in watch.knocked_too_often() {
        // Those in the middle of a handshake are not among them: they are most likely the same once more.
        let here = |c: &Connection| (c.remote.ip(), c.local.port()) == (owner.0, port);
        let ids = servers.iter().flat_map(|server| sockets::connections(server.id, 0));
        let known = ids.filter_map(sockets::connection).filter(here).map(|c| c.remote).collect();
        watch.pause(&owner, port, known, Instant::now());
        log::debug!("no new connection from {} for a second", owner.0);
    }
    let pace = match (growing, watch.bans()) {
        (_, true) => LOOK_BANNED,
        (true, false) => LOOK_GROWING,
        (false, false) => LOOK_QUIET,
    };
    pace + looked_at + LOOK_EACH_FILE * files
}

/// Ends connections that flood with frames of no call.
fn end_floods(frames: &mut Frames, watch: &mut Watch, metrics: &Metrics) {
    let floods = frames.look().unwrap_or_else(|error| {
        log::debug!("can't look at what connections send: {error}");
        Vec::new()
    });
    for (connection, bytes) in floods {
        watch.ban(&connection, Instant::now());
        let (remote, who) = (connection.remote, name(&connection));
        match sockets::abort(&connection) {
            Ok(false) => continue,
            Ok(true) => log::warn!(
                "closed the connection of {who} from {remote}: it sent {} MiB that belong to no call; new connections from that \
                 host with that certificate are closed for {} s",
                bytes >> 20,
                BAN.as_secs()
            ),
            Err(e) => {
                log::warn!("can't close the connection of {who} from {remote}, which floods this node: {e}");
                continue;
            }
        }
        metrics.flood_closed.inc();
    }
}

/// Ends what comes from paused hosts; gives how many files were looked at.
fn keep_paused(watch: &mut Watch, metrics: &Metrics) -> u32 {
    let mut files = 0;
    for ((host, port), known) in watch.paused(Instant::now()) {
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

fn name(connection: &Connection) -> String {
    principal_of(&connection.certificate).map_or_else(|| "somebody".to_owned(), |principal| principal.to_string())
}

/// Why a connection has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// So many of its calls, or of its owner's, were lost.
    Lost(u64),
    /// It is new, and its owner may have none.
    Banned,
}

/// A host and a certificate.
type Owner = (IpAddr, Vec<u8>);

#[derive(Clone, Copy, Default)]
struct Server {
    not_well: u64,
    newest: u64,
    grows: bool,
}

/// A connection's counts when its window began.
struct Window {
    begin: Instant,
    calls: Calls,
}

/// Who may have no new connection, and how often they tried.
struct Ban {
    until: Instant,
    knocks: u32,
    /// Our port.
    port: u16,
}

/// A host gets no connection but those that it had.
struct Pause {
    until: Instant,
    known: HashSet<SocketAddr>,
}

/// What was seen so far. Bounded by servers, connections, and offences within [`BAN`].
#[derive(Default)]
struct Watch {
    servers: HashMap<u64, Server>,
    windows: HashMap<u64, Window>,
    banned: HashMap<Owner, Ban>,
    pauses: HashMap<(IpAddr, u16), Pause>,
}

impl Watch {
    /// As it was before this look, but for `grows`.
    fn server(&mut self, now: &ServerCalls) -> Server {
        let server = self.servers.entry(now.id).or_default();
        server.grows = now.not_well.saturating_sub(server.not_well) >= GROWTH;
        server.not_well = now.not_well;
        *server
    }

    fn newest(&mut self, server: &ServerCalls, newest: Option<u64>) {
        if let (Some(server), Some(newest)) = (self.servers.get_mut(&server.id), newest) {
            server.newest = server.newest.max(newest);
        }
    }

    fn forget_servers(&mut self, now: &[ServerCalls]) {
        self.servers.retain(|id, _| now.iter().any(|server| server.id == *id));
    }

    fn bans(&self) -> bool {
        !self.banned.is_empty()
    }

    /// Those whose host is to be paused, and the port that they want.
    fn knocked_too_often(&self) -> Vec<(Owner, u16)> {
        let often = self.banned.iter().filter(|(_, ban)| ban.knocks >= KNOCKS_MAX);
        often.map(|(owner, ban)| (owner.clone(), ban.port)).collect()
    }

    /// Its owner gets no new connection for a while.
    fn ban(&mut self, connection: &Connection, now: Instant) {
        let owner = (connection.remote.ip(), connection.certificate.clone());
        self.banned.insert(owner, Ban { until: now + BAN, knocks: 0, port: connection.local.port() });
    }

    /// Pauses a host; then its owner may knock again.
    fn pause(&mut self, owner: &Owner, port: u16, known: HashSet<SocketAddr>, now: Instant) {
        if let Some(ban) = self.banned.get_mut(owner) {
            ban.knocks = 0;
        }
        self.pauses.insert((owner.0, port), Pause { until: now + PAUSE, known });
    }

    /// The hosts and ports that are paused, and what they have.
    fn paused(&mut self, now: Instant) -> impl Iterator<Item = (&(IpAddr, u16), &HashSet<SocketAddr>)> {
        self.pauses.retain(|_, pause| pause.until > now);
        self.pauses.iter().map(|(at, pause)| (at, &pause.known))
    }

    /// Which of these connections have to go. Each with its number, and whether it came since the last look.
    fn judge(
        &mut self,
        connections: Vec<(u64, bool, Connection)>,
        growing: bool,
        now: Instant,
    ) -> Vec<(Connection, Why)> {
        self.banned.retain(|_, ban| ban.until > now);
        if growing {
            let there: HashSet<u64> = connections.iter().map(|(id, ..)| *id).collect();
            self.windows.retain(|id, _| there.contains(id));
        } else if !self.bans() {
            self.windows.clear();
        }
        let mut by_owner: HashMap<Owner, u64> = HashMap::new();
        let mut rows = Vec::with_capacity(connections.len());
        for (id, new, connection) in connections {
            let (lost, left) = self.lost(id, new, &connection.calls, now);
            let owner: Owner = (connection.remote.ip(), connection.certificate.clone());
            *by_owner.entry(owner.clone()).or_default() += lost;
            if lost > LOST_MAX || left > LEFT_MAX {
                *by_owner.entry(owner.clone()).or_default() += OWNER_LOST_MAX + 1;
            }
            rows.push((new, lost.max(left), owner, connection));
        }
        let mut gone = Vec::new();
        for (new, lost, owner, connection) in rows {
            let was_banned = self.banned.contains_key(&owner);
            let over = by_owner.get(&owner).is_some_and(|lost| *lost > OWNER_LOST_MAX);
            if (over || was_banned) && lost > LOST_LITTLE {
                gone.push((owner, connection, if was_banned { Why::Banned } else { Why::Lost(lost) }));
            } else if new && was_banned {
                gone.push((owner, connection, Why::Banned));
            }
        }
        for (owner, connection, why) in &gone {
            match (why, self.banned.get_mut(owner)) {
                (Why::Banned, Some(ban)) => ban.knocks += 1,
                (Why::Lost(_) | Why::Banned, _) => self.ban(connection, now),
            }
        }
        gone.into_iter().map(|(_, connection, why)| (connection, why)).collect()
    }

    /// How many calls a connection lost within its window, and how many it lost that are not cleaned up.
    fn lost(&mut self, id: u64, new: bool, calls: &Calls, now: Instant) -> (u64, u64) {
        // All that a new one did, it did since the last look.
        let first = if new { Calls::default() } else { *calls };
        let window = self.windows.entry(id).or_insert(Window { begin: now, calls: first });
        let then = window.calls;
        let since = |now: u64, then: u64| now.saturating_sub(then);
        let answered = since(calls.answered, then.answered);
        // A stream that was answered by messages and then given up is not lost.
        let more_messages = since(calls.messages_sent, then.messages_sent).saturating_sub(answered);
        let over = calls.answered + calls.failed;
        let left = calls.started.saturating_sub(over);
        // Calls that were taken back look like open ones until they are cleaned up, but there are only so many of those.
        let well = answered + more_messages + left.min(OPEN_MAX);
        let lost = since(calls.started, then.started).saturating_sub(well);
        if now.saturating_duration_since(window.begin) >= WINDOW {
            *window = Window { begin: now, calls: *calls };
        }
        (lost, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn connection(host: u8, certificate: &str, started: u64, answered: u64, messages_sent: u64) -> Connection {
        Connection {
            local: SocketAddr::from(([127, 0, 0, 1], 8400)),
            remote: SocketAddr::from(([10, 0, 0, host], 1)),
            certificate: certificate.as_bytes().to_vec(),
            calls: Calls { started, answered, failed: started - answered, messages_sent, messages_received: 0 },
        }
    }

    fn why(gone: Vec<(Connection, Why)>) -> Vec<Why> {
        gone.into_iter().map(|(_, why)| why).collect()
    }

    #[test]
    fn who_answers_and_who_gives_up_streams_goes_on() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        for second in 0..10 {
            for part in 0..20 {
                let n = second * 20 + part;
                // 20,000 answered calls a second; 20,000 streams that were given up after a message; 1,000 deadlines at once,
                // every second.
                let rows = vec![
                    (1, n == 0, connection(1, "a", n * 1000, n * 1000, n * 1000)),
                    (2, n == 0, connection(1, "b", n * 1000, 0, n * 1000)),
                    (3, n == 0, connection(1, "c", second * 1000, 0, 0)),
                ];
                let now = start + MS * u32::try_from(n * 50).expect("small");
                assert_eq!(watch.judge(rows, true, now), [], "at {n}");
            }
        }
    }

    #[test]
    fn a_flood_ends_and_its_next_connection_does_too() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let quiet = |started| (1, false, connection(1, "honest", started, started, started));
        let rows = vec![quiet(1_000_000), (2, false, connection(1, "bad", 900_000, 890_000, 0))];
        assert_eq!(watch.judge(rows, true, now), [], "what was long ago is not held against it");
        let rows = vec![quiet(1_001_000), (2, false, connection(1, "bad", 902_049, 890_000, 0))];
        assert_eq!(why(watch.judge(rows, true, now + MS * 50)), [Why::Lost(2049)]);

        let new = |id, host, certificate| (id, true, connection(host, certificate, 0, 0, 0));
        let rows = vec![new(3, 1, "bad"), new(4, 2, "bad"), new(5, 1, "honest")];
        let gone = watch.judge(rows, false, now + MS * 60);
        assert_eq!(gone, [(connection(1, "bad", 0, 0, 0), Why::Banned)], "that host with that certificate alone");
        assert_eq!(watch.knocked_too_often(), []);
        let again = (0..u64::from(KNOCKS_MAX)).map(|i| new(10 + i, 1, "bad")).collect();
        assert_eq!(watch.judge(again, false, now + MS * 65).len(), 4);
        let [(owner, port)] = &watch.knocked_too_often()[..] else { panic!("one") };
        assert_eq!((owner.0, *port), (IpAddr::from([10, 0, 0, 1]), 8400));
        watch.pause(owner, *port, HashSet::new(), now);
        assert_eq!((watch.knocked_too_often(), watch.paused(now).count()), (Vec::new(), 1));
        assert_eq!(watch.paused(now + PAUSE).count(), 0);
        let old = vec![(6, false, connection(1, "bad", 10, 0, 0))];
        assert_eq!(watch.judge(old, false, now + MS * 70), [], "what it has and does little harm stays");
        assert!(watch.bans());
        assert_eq!(watch.judge(vec![new(7, 1, "bad")], false, now + MS * 50 + BAN), [], "and it is forgotten");
        assert!(!watch.bans() && watch.windows.len() == 1);
    }

    #[test]
    fn a_flood_over_many_connections_is_one() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let flood = |id| (id, true, connection(1, "bad", 1000, 0, 0));
        let mut rows: Vec<_> = (0..5).map(flood).collect();
        rows.push((9, true, connection(1, "bad", 10, 0, 0)));
        assert_eq!(why(watch.judge(rows, true, now)), [Why::Lost(1000); 5]);
    }

    #[test]
    fn as_many_open_streams_as_may_be_are_no_flood() {
        let open = Calls { started: OPEN_MAX, ..Calls::default() };
        let all_at_once = |id| (id, true, Connection { calls: open, ..connection(1, "a", 0, 0, 0) });
        assert_eq!(Watch::default().judge((0..12).map(all_at_once).collect(), true, Instant::now()), []);
    }

    #[test]
    fn what_waits_to_be_cleaned_up_counts_at_once() {
        let mut watch = Watch::default();
        let mut bad = connection(1, "bad", 1_000_000, 0, 0);
        bad.calls.failed = 1_000_000 - LEFT_MAX - 1;
        let all_open = Connection { calls: Calls { started: 1024, ..Calls::default() }, ..connection(1, "x", 0, 0, 0) };
        let rows = vec![(1, false, bad), (2, false, all_open)];
        assert_eq!(why(watch.judge(rows, true, Instant::now())), [Why::Lost(LEFT_MAX + 1)]);
    }

    #[test]
    fn a_server_is_looked_into_when_it_loses_calls() {
        let mut watch = Watch::default();
        let server = |not_well| ServerCalls { id: 1, not_well };
        assert!(!watch.server(&server(GROWTH - 1)).grows);
        watch.newest(&server(0), Some(7));
        let seen = watch.server(&server(2 * GROWTH));
        assert!(seen.grows && seen.newest == 7);
        assert!(!watch.server(&server(2 * GROWTH)).grows);
        watch.forget_servers(&[]);
        assert!(watch.servers.is_empty());
    }
}
