//! Finds connections that flood with HTTP/2 frames that belong to no request (SETTINGS, PING, PRIORITY,
//! WINDOW_UPDATE, unknown frame types, empty DATA and CONTINUATION).
//!
//! This version of the C core reads such frames as fast as they arrive, about a million per second, on a thread that
//! also serves other connections, and does not count them. Two such connections delayed an honest request by 50 to
//! 500 ms, sometimes by seconds.
//!
//! Without the C core's help, it is known how many bytes a connection has sent (`TCP_INFO`), and how many of these
//! belong to messages ([`Received`]). The difference, the unexplained bytes, may grow at a limited rate, far above
//! the rate of an honest client's control frames, and by the bytes that open requests may still be sending. If the
//! unexplained bytes exceed the limit, the connection is aborted and its owner is banned, as after other floods
//! ([`super::rapid_reset`]).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::options::CLIENT_MESSAGE_BYTES_MAX;
use super::received::Received;
use super::sockets::{self, Connection, Traffic};

/// The bytes per second that a connection may send outside of requests.
const FREE_BYTES_PER_SECOND: u64 = 64 << 10;

/// In addition, a connection may send one part in this many of what it was sent, because it answers that with
/// WINDOW_UPDATE and PING frames.
const SENT_PART: u64 = 32;

/// The bytes that each started request explains, even if its message is never read: the largest headers that the
/// listener accepts.
const PER_CALL: u64 = 16 << 10;

/// A connection with more unexplained bytes than this is a suspect.
const SUSPECT_BYTES: u64 = 1 << 20;

/// The maximum of unexplained bytes of all connections from one host with one certificate. In addition, each request
/// that is open or was cancelled explains one message of the largest size, up to [`ON_ITS_WAY_BYTES_MAX`].
const OWNER_BYTES: u64 = 8 << 20;

/// The maximum of bytes that messages of unanswered requests explain, see [`OWNER_BYTES`].
const ON_ITS_WAY_BYTES_MAX: u64 = 256 << 20;

/// A flooding client may reconnect, so the unexplained bytes of closed connections still count for their host. They
/// decay at this rate.
const GONE_BYTES_PER_SECOND: u64 = 1 << 20;

/// The shortest interval between two checks.
const PACE: Duration = Duration::from_millis(100);

/// The shortest interval between two checks, as a multiple of the duration of the last one.
const PACE_PER_CHECK: u32 = 20;

/// If the last check was longer ago than this, the bytes that a new connection sent before this check are not judged.
const RECENT: Duration = Duration::from_secs(1);

/// The maximum of connections whose channelz ids are remembered.
const IDS_MAX: usize = 1 << 16;

/// The local and the remote address of a connection.
type Ends = (SocketAddr, SocketAddr);

/// The unexplained bytes of every connection. The memory is bounded by the number of connections.
pub(super) struct FrameWatch {
    received: Received,
    ledger: Ledger,
    ids: HashMap<Ends, u64>,
    newest: HashMap<u64, u64>,
    checked: Option<Instant>,
    next: Instant,
}

impl FrameWatch {
    pub fn new(received: Received) -> FrameWatch {
        FrameWatch {
            received,
            ledger: Ledger::default(),
            ids: HashMap::new(),
            newest: HashMap::new(),
            checked: None,
            next: Instant::now(),
        }
    }

    /// Returns true if a check is needed only to bound the memory of [`Received`].
    pub fn has_many(&self) -> bool {
        self.received.has_many(self.ledger.tracks.len())
    }

    /// Checks all connections, unless the last check was too recent. Returns the connections that flood, and their
    /// unexplained bytes.
    pub fn check(&mut self) -> std::io::Result<Vec<(Connection, u64)>> {
        let begin = Instant::now();
        if begin < self.next {
            return Ok(Vec::new());
        }
        let traffic = sockets::traffic()?;
        let since = self.checked.replace(begin).map(|last| begin.duration_since(last));
        let suspects = self.ledger.update(&traffic, |remote| self.received.explained(remote), since);
        let remotes: HashSet<SocketAddr> = traffic.iter().map(|t| t.remote).collect();
        self.received.retain(|remote| remotes.contains(remote));
        let suspects = suspects.into_iter().filter_map(|ends| self.connection(ends)).collect();
        let floods = self.ledger.judge(suspects);
        self.next = begin + PACE.max(begin.elapsed() * PACE_PER_CHECK);
        Ok(floods)
    }

    /// Returns a connection with the C core's counters.
    fn connection(&mut self, ends: Ends) -> Option<Connection> {
        let is_it = |c: &Connection| (c.local, c.remote) == ends;
        if let Some(known) = self.ids.get(&ends).copied().and_then(sockets::connection).filter(is_it) {
            return Some(known);
        }
        if self.ids.len() > IDS_MAX {
            self.ids.clear();
            self.newest.clear();
        }
        let mut found = None;
        for server in sockets::servers() {
            let newest = self.newest.entry(server.id).or_default();
            for id in sockets::connections(server.id, *newest + 1) {
                *newest = id;
                let Some(connection) = sockets::connection(id) else { continue };
                self.ids.insert((connection.local, connection.remote), id);
                if is_it(&connection) {
                    found = Some(connection);
                }
            }
        }
        found
    }
}

/// The unexplained bytes of each connection.
#[derive(Default)]
struct Ledger {
    tracks: HashMap<Ends, Track>,
    /// The unexplained bytes of suspects that are closed, by host.
    gone: HashMap<IpAddr, u64>,
}

/// The unexplained bytes of all suspects of one owner.
#[derive(Default)]
struct Owner {
    left: u64,
    /// Requests that are open or were cancelled.
    unanswered: u64,
    connections: Vec<(Connection, u64)>,
}

#[derive(Default)]
struct Track {
    received: u64,
    sent: u64,
    explained: u64,
    /// Unexplained bytes.
    left: u64,
    /// The number of requests that were started before `left` began to grow; `None` if unknown.
    calls: Option<u64>,
    /// The part of `left` that its requests do not explain either, from the last time that it was judged.
    judged: Option<u64>,
}

impl Ledger {
    /// Records what all connections have sent. `since` is the time since the last check, `None` at the first one.
    /// Returns the suspects.
    fn update(&mut self, now: &[Traffic], explained: impl Fn(SocketAddr) -> u64, since: Option<Duration>) -> Vec<Ends> {
        let mut before = std::mem::take(&mut self.tracks);
        let recent = since.is_some_and(|since| since < RECENT);
        let millis = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let part = |per_second: u64| per_second.saturating_mul(millis) / 1000;
        let free = part(FREE_BYTES_PER_SECOND);
        let mut suspects = Vec::new();
        for Traffic { local, remote, received, sent } in now.iter().copied() {
            let ends = (local, remote);
            let explained = explained(remote);
            // A new connection between the same addresses starts from zero.
            let known = before.remove(&ends).filter(|track| track.received <= received && track.sent <= sent);
            let then = match known {
                Some(track) => track,
                // A new connection sent all its bytes since the last check.
                None if recent => Track { calls: Some(0), ..Track::default() },
                None => Track { received, sent, explained, ..Track::default() },
            };
            let allowed = explained.saturating_sub(then.explained) + (sent - then.sent) / SENT_PART + free;
            let left = (then.left + (received - then.received)).saturating_sub(allowed);
            let calls = then.calls.filter(|_| left > 0);
            if left > SUSPECT_BYTES {
                suspects.push(ends);
            }
            let judged = then.judged.filter(|_| left > 0);
            self.tracks.insert(ends, Track { received, sent, explained, left, calls, judged });
        }
        for ((_, remote), track) in before {
            let left = track.judged.unwrap_or(track.left).min(track.left);
            if left > SUSPECT_BYTES {
                *self.gone.entry(remote.ip()).or_default() += left;
            }
        }
        self.gone.retain(|_, left| {
            *left = left.saturating_sub(part(GONE_BYTES_PER_SECOND));
            *left > 0
        });
        suspects
    }

    /// Returns those of the suspects that flood, with their unexplained bytes.
    fn judge(&mut self, suspects: Vec<Connection>) -> Vec<(Connection, u64)> {
        let mut owners: HashMap<(IpAddr, Vec<u8>), Owner> = HashMap::new();
        for connection in suspects {
            let Some(track) = self.tracks.get_mut(&(connection.local, connection.remote)) else { continue };
            let calls = connection.calls;
            // Nothing counts its messages: it is a peer's connection, or the C core reports its address in an unknown
            // form.
            if track.explained == 0 && calls.messages_received > 0 {
                track.judged = Some(0);
                continue;
            }
            let Some(before) = track.calls else {
                // From now on, the number of its requests is known.
                (track.calls, track.left, track.judged) = (Some(calls.started), 0, None);
                continue;
            };
            let counted = calls.started.saturating_sub(before);
            let left = track.left.saturating_sub(PER_CALL.saturating_mul(counted));
            track.judged = Some(left);
            // Other connections from its host do not make this one a flood.
            if left <= SUSPECT_BYTES {
                continue;
            }
            let owner = owners.entry((connection.remote.ip(), connection.certificate.clone())).or_default();
            owner.left += left;
            owner.unanswered += calls.started.saturating_sub(calls.answered);
            owner.connections.push((connection, left));
        }
        let mut floods = Vec::new();
        for ((host, _), owner) in owners {
            let on_its_way = owner.unanswered.saturating_mul(CLIENT_MESSAGE_BYTES_MAX as u64).min(ON_ITS_WAY_BYTES_MAX);
            let gone = self.gone.get(&host).copied().unwrap_or_default();
            if owner.left.saturating_add(gone) > OWNER_BYTES + on_its_way {
                floods.extend(owner.connections);
            }
        }
        floods
    }
}

#[cfg(test)]
mod tests {
    use super::super::sockets::Calls;
    use super::*;

    const TENTH: Option<Duration> = Some(Duration::from_millis(100));
    const MIB: u64 = 1 << 20;

    fn ends(port: u16) -> Ends {
        (SocketAddr::from(([127, 0, 0, 1], 8400)), SocketAddr::from(([10, 0, 0, 1], port)))
    }

    fn traffic(port: u16, received: u64, sent: u64) -> Traffic {
        Traffic { local: ends(port).0, remote: ends(port).1, received, sent }
    }

    fn connection(port: u16, certificate: &str, calls: Calls) -> Connection {
        let (local, remote) = ends(port);
        Connection { local, remote, certificate: certificate.as_bytes().to_vec(), calls }
    }

    fn nothing(_: SocketAddr) -> u64 {
        0
    }

    #[test]
    fn bytes_of_messages_are_not_a_flood() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.update(&[traffic(1, 500 * MIB, 0)], nothing, None), [], "what was sent before is unknown");
        for tenth in 1..100 {
            // Messages of 100 MB/s; one message of 1 MiB that is still arriving; a tail that receives 320 MB/s; and a
            // few control frames.
            let now = [
                traffic(1, 500 * MIB + tenth * 10 * MIB, 0),
                traffic(2, MIB, 0),
                traffic(3, tenth * MIB, tenth * 32 * MIB),
                traffic(4, tenth * 6000, 0),
            ];
            let explained = |at: SocketAddr| if at.port() == 1 { 500 * MIB + tenth * 10 * MIB } else { 0 };
            assert_eq!(ledger.update(&now, explained, TENTH), [], "at {tenth}");
        }
        assert_eq!(ledger.tracks.len(), 4);
        ledger.update(&[], nothing, TENTH);
        assert!(ledger.tracks.is_empty(), "they are closed");
    }

    #[test]
    fn bytes_outside_of_requests_are_a_flood_also_on_a_new_connection() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.update(&[], nothing, None), []);
        assert_eq!(ledger.update(&[traffic(1, 5 * MIB, 0)], nothing, TENTH), [ends(1)]);
        let quiet = Calls::default();
        assert_eq!(ledger.judge(vec![connection(1, "bad", quiet)]), [], "a little more is needed");
        assert_eq!(ledger.update(&[traffic(1, 10 * MIB, 0)], nothing, TENTH), [ends(1)]);
        let floods = ledger.judge(vec![connection(1, "bad", quiet)]);
        assert!(matches!(&floods[..], [(c, left)] if *c == connection(1, "bad", quiet) && *left > OWNER_BYTES));
        // A connection between the same addresses starts from zero.
        assert_eq!(ledger.update(&[traffic(1, MIB, 0)], nothing, TENTH), []);
    }

    #[test]
    fn a_reconnecting_flood_is_remembered_for_a_while() {
        let mut ledger = Ledger::default();
        ledger.update(&[], nothing, None);
        ledger.update(&[traffic(1, 5 * MIB, 0)], nothing, TENTH);
        assert_eq!(ledger.update(&[traffic(2, 5 * MIB, 0)], nothing, TENTH), [ends(2)]);
        assert_eq!(ledger.judge(vec![connection(2, "bad", Calls::default())]).len(), 1);
        for _ in 0..200 {
            ledger.update(&[], nothing, TENTH);
        }
        assert!(ledger.gone.is_empty());
    }

    #[test]
    fn many_connections_of_one_owner_are_one_flood() {
        let mut ledger = Ledger::default();
        ledger.update(&[], nothing, None);
        let now: Vec<Traffic> = (1..4).map(|port| traffic(port, 5 * MIB, 0)).collect();
        assert_eq!(ledger.update(&now, nothing, TENTH).len(), 3);
        let of = |names: [&str; 3]| (1..4).zip(names).map(|(p, n)| connection(p, n, Calls::default())).collect();
        assert_eq!(ledger.judge(of(["a", "b", "c"])).len(), 0);
        assert_eq!(ledger.judge(of(["a", "b", "a"])).len(), 2);
    }

    #[test]
    fn requests_account_for_headers_and_messages_in_flight() {
        let mut ledger = Ledger::default();
        ledger.update(&[], nothing, None);
        ledger.update(&[traffic(1, 60 * MIB, 0)], nothing, TENTH);
        let open = |calls| Calls { started: calls, ..Calls::default() };
        assert_eq!(ledger.judge(vec![connection(1, "a", open(6))]), [], "six messages may be in flight");
        assert_eq!(ledger.judge(vec![connection(1, "a", open(5))]).len(), 1);
        ledger.update(&[traffic(1, 400 * MIB, 0)], nothing, TENTH);
        assert_eq!(ledger.judge(vec![connection(1, "a", open(1000))]).len(), 1, "but not more than the maximum");
        // Rejected requests, whose messages were not read.
        let refused = |calls| Calls { started: calls, answered: calls, ..Calls::default() };
        let mut ledger = Ledger::default();
        ledger.update(&[traffic(1, 0, 0)], nothing, None);
        assert_eq!(ledger.update(&[traffic(1, 20 * MIB, 0)], nothing, TENTH), [ends(1)]);
        assert_eq!(
            ledger.judge(vec![connection(1, "a", refused(1_000_000))]),
            [],
            "it may be headers of many requests"
        );
        assert_eq!(ledger.update(&[traffic(1, 40 * MIB, 0)], nothing, TENTH), [ends(1)]);
        assert_eq!(ledger.judge(vec![connection(1, "a", refused(1_001_000))]), [], "1,000 requests since");
        assert_eq!(
            ledger.judge(vec![connection(1, "a", refused(1_000_100))]).len(),
            1,
            "earlier requests explain nothing"
        );
    }

    #[test]
    fn connections_whose_messages_are_not_counted_are_not_judged() {
        let mut ledger = Ledger::default();
        ledger.update(&[], nothing, None);
        ledger.update(&[traffic(1, 100 * MIB, 0)], nothing, TENTH);
        let peer = Calls { started: 1, messages_received: 1, ..Calls::default() };
        assert_eq!(ledger.judge(vec![connection(1, "peer", peer)]), []);
    }

    /// Once, a client was banned because a node on its host had restarted.
    #[test]
    fn a_closed_connection_of_a_peer_is_not_held_against_clients_on_its_host() {
        let mut ledger = Ledger::default();
        ledger.update(&[], nothing, None);
        ledger.update(&[traffic(1, 100 * MIB, 0)], nothing, TENTH);
        let peer = Calls { started: 1, messages_received: 1, ..Calls::default() };
        assert_eq!(ledger.judge(vec![connection(1, "peer", peer)]), []);
        assert_eq!(ledger.update(&[traffic(2, 2 * MIB, 0)], nothing, TENTH), [ends(2)]);
        assert_eq!(ledger.judge(vec![connection(2, "client", Calls::default())]), []);
    }

    #[test]
    fn a_connection_is_not_closed_for_the_bytes_of_others() {
        let mut ledger = Ledger::default();
        ledger.update(&[], nothing, None);
        ledger.update(&[traffic(1, 20 * MIB, 0)], nothing, TENTH);
        assert_eq!(ledger.judge(vec![connection(1, "bad", Calls::default())]).len(), 1);
        assert_eq!(ledger.update(&[traffic(2, 2 * MIB, 0)], nothing, TENTH), [ends(2)]);
        let requests = Calls { started: 100, answered: 100, ..Calls::default() };
        assert_eq!(ledger.judge(vec![connection(2, "client", requests)]), []);
    }
}
