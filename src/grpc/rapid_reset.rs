//! Finds connections whose requests are cancelled as fast as they are made ("HTTP/2 rapid reset", CVE-2023-44487).
//!
//! This version of the C core neither counts cancelled requests nor limits how many of them wait for cleanup. It
//! reads them faster than it cleans them up, so memory use and the latency of all other requests grow as long as the
//! flood lasts.
//!
//! [`ResetWatch`] counts the lost requests of each connection. A request is lost if it was started, is neither open
//! nor answered, and no message was sent for it. If a connection loses too many requests within a second, it is
//! closed and its owner is banned: for a while, every new connection from the same host with the same certificate is
//! closed too. An honest client stays below the limit: even if all its deadlines pass while a node hangs, it loses at
//! most as many requests as may be open.
//!
//! The certificate of a connection is only known after a handshake, which costs more than a few requests. So if a
//! banned owner keeps connecting, its host is paused: every new connection from it is closed at once, for one second
//! at a time. Other clients on that host then wait up to a second for a new connection.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::sockets::{Calls, Connection, ServerCalls};

/// The maximum of open requests of a connection (see `LISTENER` in `options.rs`). Open requests are not lost.
const OPEN_MAX: u64 = 1024;

/// The maximum of lost requests of one connection within [`WINDOW`]: as many as may be open at once.
const LOST_MAX: u64 = OPEN_MAX;

/// The maximum of lost requests within [`WINDOW`] of one owner: all connections from one host with one certificate.
const OWNER_LOST_MAX: u64 = 4096;

/// If an owner exceeds a limit, its connections that lost at most this many requests stay open.
const LOST_LITTLE: u64 = 64;

/// The maximum of requests of one connection that have ended but are not cleaned up. More of them are a flood,
/// whatever time they took.
const LEFT_MAX: u64 = 2048;

const WINDOW: Duration = Duration::from_secs(1);

/// How long an owner that exceeded a limit is banned.
pub(super) const BAN: Duration = Duration::from_secs(10);

/// After this many closed connections of a banned owner, its host is paused.
const CLOSED_CONNECTIONS_MAX: u32 = 4;

/// How long new connections from a paused host are closed.
const PAUSE: Duration = Duration::from_secs(1);

/// If a server has at least this many more unsuccessful requests than at the last check, each of its connections is
/// checked.
const GROWTH: u64 = 256;

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It or its owner exceeded a limit; the connection itself lost this many requests.
    Lost(u64),
    /// Its owner is banned, and it is new or has lost requests.
    Banned,
}

/// The host and the certificate of a connection.
pub(super) type Owner = (IpAddr, Vec<u8>);

#[derive(Clone, Copy, Default)]
pub(super) struct ServerSeen {
    not_well: u64,
    /// The highest channelz id of a connection that was seen.
    pub newest: u64,
    /// It has many more unsuccessful requests than at the last check, see [`GROWTH`].
    pub grows: bool,
}

/// The counters of a connection at the start of its window.
struct Window {
    begin: Instant,
    calls: Calls,
}

/// The ban of an owner, and how many of its connections were closed since.
struct Ban {
    until: Instant,
    closed_connections: u32,
    /// The local port of its connections.
    port: u16,
}

/// The pause of a host, which keeps its known connections.
struct Pause {
    until: Instant,
    known: HashSet<SocketAddr>,
}

/// The state of all servers, connections and banned owners. Its size is bounded by the numbers of servers and
/// connections, and of bans within [`BAN`].
#[derive(Default)]
pub(super) struct ResetWatch {
    servers: HashMap<u64, ServerSeen>,
    windows: HashMap<u64, Window>,
    banned: HashMap<Owner, Ban>,
    pauses: HashMap<(IpAddr, u16), Pause>,
}

impl ResetWatch {
    /// Updates a server's counters. Returns what was known about it before, but with the new value of `grows`.
    pub fn update_server(&mut self, now: &ServerCalls) -> ServerSeen {
        let server = self.servers.entry(now.id).or_default();
        server.grows = now.not_well.saturating_sub(server.not_well) >= GROWTH;
        server.not_well = now.not_well;
        *server
    }

    pub fn update_newest(&mut self, server: &ServerCalls, newest: Option<u64>) {
        if let (Some(server), Some(newest)) = (self.servers.get_mut(&server.id), newest) {
            server.newest = server.newest.max(newest);
        }
    }

    pub fn forget_servers(&mut self, now: &[ServerCalls]) {
        self.servers.retain(|id, _| now.iter().any(|server| server.id == *id));
    }

    pub fn bans(&self) -> bool {
        !self.banned.is_empty()
    }

    /// Returns the owners whose host must be paused, and the port that they connect to.
    pub fn owners_to_pause(&self) -> Vec<(Owner, u16)> {
        let often = self.banned.iter().filter(|(_, ban)| ban.closed_connections >= CLOSED_CONNECTIONS_MAX);
        often.map(|(owner, ban)| (owner.clone(), ban.port)).collect()
    }

    /// Bans the connection's owner.
    pub fn ban(&mut self, connection: &Connection, now: Instant) {
        let owner = (connection.remote.ip(), connection.certificate.clone());
        self.banned.insert(owner, Ban { until: now + BAN, closed_connections: 0, port: connection.local.port() });
    }

    /// Pauses the owner's host, and restarts its count of closed connections.
    pub fn pause(&mut self, owner: &Owner, port: u16, known: HashSet<SocketAddr>, now: Instant) {
        if let Some(ban) = self.banned.get_mut(owner) {
            ban.closed_connections = 0;
        }
        self.pauses.insert((owner.0, port), Pause { until: now + PAUSE, known });
    }

    /// Returns the paused hosts and ports, with the connections that stay open.
    pub fn paused(&mut self, now: Instant) -> impl Iterator<Item = (&(IpAddr, u16), &HashSet<SocketAddr>)> {
        self.pauses.retain(|_, pause| pause.until > now);
        self.pauses.iter().map(|(at, pause)| (at, &pause.known))
    }

    /// Returns the connections to close. `connections`: each with its channelz id, and whether it is new since the
    /// last check.
    pub fn judge(
        &mut self,
        connections: Vec<(u64, bool, Connection)>,
        growing: bool,
        now: Instant,
    ) -> Vec<(Connection, Why)> {
        self.banned.retain(|_, ban| ban.until > now);
        if growing {
            let existing: HashSet<u64> = connections.iter().map(|(id, ..)| *id).collect();
            self.windows.retain(|id, _| existing.contains(id));
        } else if !self.bans() {
            self.windows.clear();
        }
        let mut by_owner: HashMap<Owner, u64> = HashMap::new();
        let mut counted = Vec::with_capacity(connections.len());
        for (id, new, connection) in connections {
            let (lost, left) = self.count_lost(id, new, &connection.calls, now);
            let owner: Owner = (connection.remote.ip(), connection.certificate.clone());
            *by_owner.entry(owner.clone()).or_default() += lost;
            if lost > LOST_MAX || left > LEFT_MAX {
                *by_owner.entry(owner.clone()).or_default() += OWNER_LOST_MAX + 1;
            }
            counted.push((new, lost.max(left), owner, connection));
        }
        let mut gone = Vec::new();
        for (new, lost, owner, connection) in counted {
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
                (Why::Banned, Some(ban)) => ban.closed_connections += 1,
                (Why::Lost(_) | Why::Banned, _) => self.ban(connection, now),
            }
        }
        gone.into_iter().map(|(_, connection, why)| (connection, why)).collect()
    }

    /// Returns how many requests a connection lost within its window, and how many of its requests have not ended or
    /// are not cleaned up.
    fn count_lost(&mut self, id: u64, new: bool, calls: &Calls, now: Instant) -> (u64, u64) {
        // A new connection started all its requests since the last check.
        let first = if new { Calls::default() } else { *calls };
        let window = self.windows.entry(id).or_insert(Window { begin: now, calls: first });
        let then = window.calls;
        let since = |now: u64, then: u64| now.saturating_sub(then);
        let answered = since(calls.answered, then.answered);
        // A stream for which messages were sent is not lost, even if it was cancelled.
        let more_messages = since(calls.messages_sent, then.messages_sent).saturating_sub(answered);
        let over = calls.answered + calls.failed;
        let left = calls.started.saturating_sub(over);
        // Until they are cleaned up, cancelled requests look like open ones; but only OPEN_MAX of them can be open.
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
    fn answered_requests_and_cancelled_streams_are_not_a_flood() {
        let (mut watch, start) = (ResetWatch::default(), Instant::now());
        for second in 0..10 {
            for part in 0..20 {
                let n = second * 20 + part;
                // 20,000 answered calls per second; 20,000 streams per second that were cancelled after a message;
                // and 1,000 requests per second whose deadlines pass at the same time.
                let connections = vec![
                    (1, n == 0, connection(1, "a", n * 1000, n * 1000, n * 1000)),
                    (2, n == 0, connection(1, "b", n * 1000, 0, n * 1000)),
                    (3, n == 0, connection(1, "c", second * 1000, 0, 0)),
                ];
                let now = start + MS * u32::try_from(n * 50).expect("small");
                assert_eq!(watch.judge(connections, true, now), [], "at {n}");
            }
        }
    }

    #[test]
    fn closes_a_flood_and_the_next_connection_of_its_owner() {
        let (mut watch, now) = (ResetWatch::default(), Instant::now());
        let quiet = |started| (1, false, connection(1, "honest", started, started, started));
        let connections = vec![quiet(1_000_000), (2, false, connection(1, "bad", 900_000, 890_000, 0))];
        assert_eq!(watch.judge(connections, true, now), [], "requests lost before the first check do not count");
        let connections = vec![quiet(1_001_000), (2, false, connection(1, "bad", 902_049, 890_000, 0))];
        assert_eq!(why(watch.judge(connections, true, now + MS * 50)), [Why::Lost(2049)]);

        let new = |id, host, certificate| (id, true, connection(host, certificate, 0, 0, 0));
        let connections = vec![new(3, 1, "bad"), new(4, 2, "bad"), new(5, 1, "honest")];
        let gone = watch.judge(connections, false, now + MS * 60);
        assert_eq!(gone, [(connection(1, "bad", 0, 0, 0), Why::Banned)], "that host with that certificate alone");
        assert_eq!(watch.owners_to_pause(), []);
        let again = (0..u64::from(CLOSED_CONNECTIONS_MAX)).map(|i| new(10 + i, 1, "bad")).collect();
        assert_eq!(watch.judge(again, false, now + MS * 65).len(), 4);
        let [(owner, port)] = &watch.owners_to_pause()[..] else { panic!("one") };
        assert_eq!((owner.0, *port), (IpAddr::from([10, 0, 0, 1]), 8400));
        watch.pause(owner, *port, HashSet::new(), now);
        assert_eq!((watch.owners_to_pause(), watch.paused(now).count()), (Vec::new(), 1));
        assert_eq!(watch.paused(now + PAUSE).count(), 0);
        let old = vec![(6, false, connection(1, "bad", 10, 0, 0))];
        assert_eq!(watch.judge(old, false, now + MS * 70), [], "an old connection that lost few requests stays open");
        assert!(watch.bans());
        assert_eq!(watch.judge(vec![new(7, 1, "bad")], false, now + MS * 50 + BAN), [], "the ban has ended");
        assert!(!watch.bans() && watch.windows.len() == 1);
    }

    #[test]
    fn counts_a_flood_over_many_connections_as_one() {
        let (mut watch, now) = (ResetWatch::default(), Instant::now());
        let flood = |id| (id, true, connection(1, "bad", 1000, 0, 0));
        let mut connections: Vec<_> = (0..5).map(flood).collect();
        connections.push((9, true, connection(1, "bad", 10, 0, 0)));
        assert_eq!(why(watch.judge(connections, true, now)), [Why::Lost(1000); 5]);
    }

    #[test]
    fn the_largest_number_of_open_streams_is_not_a_flood() {
        let open = Calls { started: OPEN_MAX, ..Calls::default() };
        let all_at_once = |id| (id, true, Connection { calls: open, ..connection(1, "a", 0, 0, 0) });
        assert_eq!(ResetWatch::default().judge((0..12).map(all_at_once).collect(), true, Instant::now()), []);
    }

    #[test]
    fn requests_that_wait_for_cleanup_count_at_once() {
        let mut watch = ResetWatch::default();
        let mut bad = connection(1, "bad", 1_000_000, 0, 0);
        bad.calls.failed = 1_000_000 - LEFT_MAX - 1;
        let all_open = Connection { calls: Calls { started: 1024, ..Calls::default() }, ..connection(1, "x", 0, 0, 0) };
        let connections = vec![(1, false, bad), (2, false, all_open)];
        assert_eq!(why(watch.judge(connections, true, Instant::now())), [Why::Lost(LEFT_MAX + 1)]);
    }

    #[test]
    fn connections_of_a_server_are_checked_when_it_has_many_unsuccessful_requests() {
        let mut watch = ResetWatch::default();
        let server = |not_well| ServerCalls { id: 1, not_well };
        assert!(!watch.update_server(&server(GROWTH - 1)).grows);
        watch.update_newest(&server(0), Some(7));
        let seen = watch.update_server(&server(2 * GROWTH));
        assert!(seen.grows && seen.newest == 7);
        assert!(!watch.update_server(&server(2 * GROWTH)).grows);
        watch.forget_servers(&[]);
        assert!(watch.servers.is_empty());
    }
}
