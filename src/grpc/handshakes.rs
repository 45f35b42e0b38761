//! Whose TLS handshake failed: the C core's line about it does not name the connection.
//!
//! The core writes the line while it handles what the other side sent, while the socket is still open. So it is a connection that
//! received something just now, and little in all. If a few match, each is named; if more than [`NAMED_MAX`] match, none is.

use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::sockets::{ends, sockets};

/// A connection received something "just now" if it did within this many milliseconds: the line is written by the thread that
/// received it.
const JUST_NOW_MS: u32 = 50;
/// Both sides' certificate chains, and a request that was sent with them.
const HANDSHAKE_BYTES_MAX: u64 = 32 << 10;
/// If more connections match, none is named.
const NAMED_MAX: usize = 4;

/// Returns the connections of this process whose handshake may have failed just now, as the end of a log line.
pub(super) fn suspects() -> Option<String> {
    let mut found = Vec::new();
    sockets(
        |socket| ends(socket),
        |own| {
            found.extend(received(&own).filter(is_handshake).and_then(|_| ends(&own)));
            Ok(())
        },
    )
    .ok()?;
    name(&found)
}

fn name(found: &[(SocketAddr, SocketAddr)]) -> Option<String> {
    let names: Vec<String> = found.iter().map(|(local, remote)| format!("{remote} to {local}")).collect();
    match names.len() {
        0 => None,
        1 => Some(format!("the connection is {}", names[0])),
        2..=NAMED_MAX => Some(format!("the connection is one of {}", names.join(", "))),
        _ => None,
    }
}

/// What a TCP connection has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Received {
    bytes: u64,
    /// Milliseconds since the latest of them.
    idle_ms: u32,
}

fn is_handshake(received: &Received) -> bool {
    received.idle_ms <= JUST_NOW_MS && (1..=HANDSHAKE_BYTES_MAX).contains(&received.bytes)
}

/// `struct tcp_info` of `linux/tcp.h` up to `tcpi_bytes_received` (Linux 4.1).
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    flags: [u8; 8],
    before_last_data_recv: [u32; 11],
    last_data_recv: u32,
    after_last_data_recv: [u32; 12],
    before_bytes_received: [u64; 3],
    bytes_received: u64,
}

fn received(socket: &OwnedFd) -> Option<Received> {
    let mut info = TcpInfo::default();
    let mut len = libc::socklen_t::try_from(size_of::<TcpInfo>()).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `info`, in which every bit pattern is valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast::<libc::c_void>(),
            &raw mut len,
        )
    };
    let complete = result == 0 && len as usize == size_of::<TcpInfo>();
    complete.then_some(Received { bytes: info.bytes_received, idle_ms: info.last_data_recv })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_a_connection_received_is_read_from_the_system() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (mut server, _) = listener.accept().expect("accepted");
        client.write_all(b"abcd").expect("sent");
        server.read_exact(&mut [0; 4]).expect("received");
        let both = (received(&server.into()).expect("TCP"), received(&client.into()).expect("TCP"));
        assert_eq!((both.0.bytes, both.1.bytes), (4, 0));
        assert!(both.0.idle_ms < 60_000, "{both:?}");
    }

    #[test]
    fn a_connection_that_received_much_or_long_ago_is_not_in_a_handshake() {
        let is = |bytes, idle_ms| is_handshake(&Received { bytes, idle_ms });
        assert!(is(1, 0) && is(HANDSHAKE_BYTES_MAX, JUST_NOW_MS));
        assert!(!is(0, 0) && !is(HANDSHAKE_BYTES_MAX + 1, 0) && !is(1, JUST_NOW_MS + 1));
    }

    #[test]
    fn few_connections_are_named_and_many_are_not() {
        let ends = |port| (SocketAddr::from(([10, 0, 0, 1], 84)), SocketAddr::from(([10, 0, 0, 2], port)));
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[ends(9)]).as_deref(), Some("the connection is 10.0.0.2:9 to 10.0.0.1:84"));
        let two = "the connection is one of 10.0.0.2:9 to 10.0.0.1:84, 10.0.0.2:8 to 10.0.0.1:84";
        assert_eq!(name(&[ends(9), ends(8)]).as_deref(), Some(two));
        assert_eq!(name(&[1, 2, 3, 4, 5].map(ends)), None);
    }
}
