//! The connections of this process's gRPC servers: reads the C core's counters, aborts connections, and limits their
//! receive buffers.
//!
//! `grpcio` does not expose connections. But the C core counts the requests of each connection (channelz), including
//! those that never reach a handler. The counting itself has no measurable cost; reading the counters takes about 20
//! µs per connection.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use grpcio::channelz;
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_acceptconn};
use rustix::net::{Shutdown, SocketAddrAny, connect_unspec, getpeername, getsockname, shutdown};
use serde_json::Value;

use super::tcp_info::TcpInfo;

/// The maximum of connections in one response of the C core.
const PAGE: usize = 1000;

/// A gRPC server of this process and its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerCalls {
    /// The channelz id of the server.
    pub id: u64,
    /// The number of requests that were started and have not succeeded: open, failed and cancelled ones.
    pub not_well: u64,
}

/// A connection from a client or a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The address on this host.
    pub local: SocketAddr,
    /// The address of the client or peer.
    pub remote: SocketAddr,
    /// The certificate of the client or peer, PEM; empty without TLS.
    pub certificate: Vec<u8>,
    /// The counts of its requests.
    pub calls: Calls,
}

/// Counts of requests since a connection was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Requests that were started.
    pub started: u64,
    /// Requests that this side ended with any status.
    pub answered: u64,
    /// Requests that ended without a status. A cancelled request counts once the C core has cleaned it up.
    pub failed: u64,
    /// Messages that this side sent.
    pub messages_sent: u64,
    /// Messages that arrived.
    pub messages_received: u64,
}

/// The bytes of a connection, including those of TLS and HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The address on this host.
    pub local: SocketAddr,
    /// The address of the client or peer.
    pub remote: SocketAddr,
    /// Bytes that arrived, whether the process has read them or not.
    pub received: u64,
    /// Bytes that the other side has acknowledged.
    pub sent: u64,
}

/// Returns every gRPC server of this process.
pub fn servers() -> Vec<ServerCalls> {
    let mut servers = Vec::new();
    let mut from = 0;
    loop {
        let page = channelz::get_servers(from, parse);
        let found = page["server"].as_array().map_or(&[][..], Vec::as_slice);
        servers.extend(found.iter().map(|server| {
            let data = &server["data"];
            let not_well = number(&data["callsStarted"]).saturating_sub(number(&data["callsSucceeded"]));
            ServerCalls { id: number(&server["ref"]["serverId"]), not_well }
        }));
        match servers.last() {
            Some(last) if !found.is_empty() && page["end"] != true => from = last.id + 1,
            Some(_) | None => return servers,
        }
    }
}

/// Returns the channelz ids of a server's connections from `from` on, in ascending order. Newer connections have
/// higher ids.
pub fn connections(server: u64, mut from: u64) -> Vec<u64> {
    let mut ids = Vec::new();
    loop {
        let page = channelz::get_server_sockets(server, from, PAGE, parse);
        let found = page["socketRef"].as_array().map_or(&[][..], Vec::as_slice);
        ids.extend(found.iter().map(|socket| number(&socket["socketId"])));
        match ids.last() {
            Some(last) if !found.is_empty() && page["end"] != true => from = last + 1,
            Some(_) | None => return ids,
        }
    }
}

/// Returns the connection with this channelz id; `None` if it is closed, or not TCP.
pub fn connection(id: u64) -> Option<Connection> {
    let answer = channelz::get_socket(id, parse);
    let socket = &answer["socket"];
    let data = &socket["data"];
    let pem = socket["security"]["tls"]["remote_certificate"].as_str().unwrap_or_default();
    Some(Connection {
        local: address(&socket["local"])?,
        remote: address(&socket["remote"])?,
        certificate: openssl::base64::decode_block(pem).unwrap_or_default(),
        calls: Calls {
            started: number(&data["streamsStarted"]),
            answered: number(&data["streamsSucceeded"]),
            failed: number(&data["streamsFailed"]),
            messages_sent: number(&data["messagesSent"]),
            messages_received: number(&data["messagesReceived"]),
        },
    })
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

/// Reads a number of channelz, which writes numbers as strings and omits zeros.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn address(end: &Value) -> Option<SocketAddr> {
    let tcp = &end["tcpip_address"];
    let packed = openssl::base64::decode_block(tcp["ip_address"].as_str()?).ok()?;
    let ip = match <[u8; 4]>::try_from(&packed[..]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&packed[..]).ok()?),
    };
    Some(SocketAddr::new(ip.to_canonical(), tcp["port"].as_str()?.parse().ok()?))
}

/// Aborts a connection without the C core's help: unread data is dropped, and the other side receives a reset. The C
/// core then notices that its socket is closed. Returns false if the connection no longer exists.
///
/// # Errors
/// If a system call fails.
pub fn abort(connection: &Connection) -> io::Result<bool> {
    let (_, aborted) = abort_all(|local, remote| (local, remote) == (connection.local, connection.remote))?;
    Ok(aborted > 0)
}

/// Aborts the connections from a host to a local port, except the known ones. Returns how many file descriptors were
/// inspected, and how many connections were aborted.
///
/// # Errors
/// If a system call fails.
pub fn abort_new(host: IpAddr, port: u16, known: &HashSet<SocketAddr>) -> io::Result<(usize, usize)> {
    abort_all(|local, remote| (remote.ip(), local.port()) == (host, port) && !known.contains(&remote))
}

fn abort_all(mut which: impl FnMut(SocketAddr, SocketAddr) -> bool) -> io::Result<(usize, usize)> {
    let mut aborted = 0;
    let inspected = sockets(
        |socket| ends(socket).filter(|(local, remote)| which(*local, *remote)),
        |own| {
            aborted += 1;
            connect_unspec(&own).or_else(|_| shutdown(&own, Shutdown::Both))
        },
    )?;
    Ok((inspected, aborted))
}

/// Limits the receive buffers of future connections to an address on which this process listens. A connection that
/// already waits to be accepted is not changed. Returns how many sockets listen there.
///
/// # Errors
/// If a system call fails.
pub fn bound_receive_buffers(addr: SocketAddr, bytes: usize) -> io::Result<usize> {
    let mut bounded = 0;
    sockets(
        |socket| {
            let listens = socket_acceptconn(socket).unwrap_or(false);
            let local = getsockname(socket).ok().filter(|_| listens).and_then(canonical);
            local.filter(|local| is_same_listener(*local, addr))
        },
        |own| {
            bounded += 1;
            set_socket_recv_buffer_size(own, bytes)
        },
    )?;
    Ok(bounded)
}

/// Returns the bytes of every connection to a port on which this process listens.
///
/// # Errors
/// If a system call fails.
pub fn traffic() -> io::Result<Vec<Traffic>> {
    let (mut all, mut ports) = (Vec::new(), HashSet::new());
    sockets(
        |socket| getsockname(socket).ok().and_then(canonical),
        |own| {
            if let Some((local, remote)) = ends(&own) {
                let info = TcpInfo::of(&own).unwrap_or_default();
                all.push(Traffic { local, remote, received: info.received, sent: info.acknowledged });
            } else if socket_acceptconn(&own).unwrap_or(false) {
                ports.extend(getsockname(&own).ok().and_then(canonical).map(|local| local.port()));
            }
            Ok(())
        },
    )?;
    all.retain(|traffic| ports.contains(&traffic.local.port()));
    Ok(all)
}

/// Compares two addresses of a listener. The unspecified addresses of IPv4 and IPv6 are equal.
fn is_same_listener(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (ip == other_ip || ip.is_unspecified() && other_ip.is_unspecified())
}

/// Returns the receive buffer size of a connection of this process, as the kernel reports it.
#[cfg(test)]
pub fn receive_buffer_bytes(local: SocketAddr, remote: SocketAddr) -> Option<usize> {
    let mut bytes = None;
    let one = |socket: BorrowedFd<'_>| ends(socket).filter(|ends| *ends == (local, remote));
    sockets(one, |own| {
        bytes = Some(rustix::net::sockopt::socket_recv_buffer_size(own)?);
        Ok(())
    })
    .ok()?;
    bytes
}

/// Calls `act` with a duplicate of each socket of this process for which `which` returns `Some`. Returns how many
/// file descriptors were inspected.
pub(super) fn sockets<T: PartialEq>(
    mut which: impl FnMut(BorrowedFd<'_>) -> Option<T>,
    mut act: impl FnMut(OwnedFd) -> rustix::io::Result<()>,
) -> io::Result<usize> {
    let dir = openat(CWD, "/proc/self/fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut inspected = 0;
    for entry in Dir::new(dir)? {
        let entry = entry?;
        let number = entry.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|n| *n >= 0) else { continue };
        inspected += 1;
        // SAFETY: another thread may close the descriptor, or reuse its number for another file, at any time. It is
        // only inspected and duplicated: neither changes the file, and both fail for a closed descriptor.
        let theirs = unsafe { BorrowedFd::borrow_raw(number) };
        let Some(found) = which(theirs) else { continue };
        let Ok(own) = fcntl_dupfd_cloexec(theirs, 0) else { continue };
        // Nothing else can close or reuse the duplicate, so the socket that is inspected here is the one that `act`
        // changes.
        if which(own.as_fd()) == Some(found) {
            act(own)?;
        }
    }
    Ok(inspected)
}

/// Returns the local and the remote address of a connection.
pub(super) fn ends(socket: impl AsFd) -> Option<(SocketAddr, SocketAddr)> {
    let remote = getpeername(&socket).ok()??;
    Some((canonical(getsockname(&socket).ok()?)?, canonical(remote)?))
}

fn canonical(address: SocketAddrAny) -> Option<SocketAddr> {
    let address = SocketAddr::try_from(address).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use rustix::net::sockopt::socket_recv_buffer_size;

    use super::*;

    #[test]
    fn aborts_a_connection_and_drops_unread_bytes() {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // Over IPv4 to an IPv6 socket, as with gRPC's listeners.
        let connect = || {
            let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connected");
            client.write_all(b"abc").expect("sent");
            (client, listener.accept().expect("accepted").0)
        };
        let ((mut client, mut server), (mut other, mut other_server)) = (connect(), connect());
        let connection = Connection {
            local: SocketAddr::from(([127, 0, 0, 1], port)),
            remote: client.local_addr().expect("an address"),
            certificate: Vec::new(),
            calls: Calls::default(),
        };
        let host = connection.remote.ip();
        let both = HashSet::from([connection.remote, other.local_addr().expect("an address")]);
        assert_eq!(abort_new(host, port, &both).expect("a walk").1, 0);
        assert!(abort(&connection).expect("a walk"));
        assert!(server.read(&mut [0; 8]).is_err(), "nothing more can be read");
        assert!(client.read(&mut [0; 8]).is_err(), "a reset");
        assert!(!abort(&connection).expect("a walk"), "it is closed");

        other_server.write_all(b"x").expect("the other one stays open");
        assert_eq!(other.read(&mut [0; 8]).expect("read"), 1);
        assert_eq!(other_server.read(&mut [0; 8]).expect("read"), 3);
        assert_eq!(abort_new(host, port, &HashSet::new()).expect("a walk").1, 1);
        assert!(other.read(&mut [0; 8]).is_err(), "a reset");
    }

    #[test]
    fn connections_to_a_limited_port_have_small_buffers() {
        let bounded = TcpListener::bind("[::]:0").expect("a port");
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = |listener: &TcpListener| listener.local_addr().expect("an address");
        let accepted_bytes = |listener: &TcpListener| {
            let _client = TcpStream::connect(("127.0.0.1", addr(listener).port())).expect("connected");
            socket_recv_buffer_size(listener.accept().expect("accepted").0).expect("a size")
        };
        // Another address of the same port, and the unspecified one of the other family.
        let port = addr(&bounded).port();
        assert_eq!(bound_receive_buffers(SocketAddr::from(([127, 0, 0, 1], port)), 16 << 10).expect("a walk"), 0);
        assert_eq!(bound_receive_buffers(SocketAddr::from(([0, 0, 0, 0], port)), 16 << 10).expect("a walk"), 1);
        // The kernel doubles the size for its bookkeeping.
        assert_eq!(accepted_bytes(&bounded), 32 << 10);
        assert!(accepted_bytes(&other) > 32 << 10);
    }

    #[test]
    fn counts_received_bytes_before_they_are_read() {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        let (mut server, _) = listener.accept().expect("accepted");
        client.write_all(&[0; 1234]).expect("sent");
        server.write_all(&[0; 77]).expect("sent");
        client.read_exact(&mut [0; 77]).expect("read");
        let (local, remote) = (SocketAddr::from(([127, 0, 0, 1], port)), client.local_addr().expect("an address"));
        // An acknowledgement may still be in flight.
        let seen = loop {
            let all = traffic().expect("a walk");
            assert!(!all.iter().any(|t| t.local == remote), "not of a port that listens");
            let seen = *all.iter().find(|t| (t.local, t.remote) == (local, remote)).expect("it is there");
            if seen.sent > 0 {
                break seen;
            }
        };
        assert_eq!(seen, Traffic { local, remote, received: 1234, sent: 77 });
    }

    #[test]
    fn parses_channelz_values() {
        let end = |ip: &str| serde_json::json!({ "tcpip_address": { "port": "9", "ip_address": ip } });
        assert_eq!(address(&end("fwAAAQ==")), Some(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(address(&end("AAAAAAAAAAAAAP//fwAAAQ==")), Some(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(address(&end("fwAA")), None);
        assert_eq!(address(&serde_json::json!({ "uds_address": { "filename": "x" } })), None);
        assert_eq!((number(&Value::from("12")), number(&Value::Null), number(&Value::from("x"))), (12, 0, 0));
        assert_eq!(connection(u64::from(u32::MAX)), None);
    }
}
