//! Finds the connection whose TLS handshake failed, because the C core's log line does not name it.
//!
//! The C core writes the line while it handles what the other side sent, and the socket is still open. So the
//! connection has received something just now, and little in total. If up to [`NAMED_MAX`] connections match, all of
//! them are named; if more match, none.

use std::net::SocketAddr;

use super::sockets::{ends, sockets};
use super::tcp_info::TcpInfo;

/// A connection has received something "just now" if it did so within this many milliseconds. This is short because
/// the receiving thread itself writes the line.
const JUST_NOW_MS: u32 = 50;
/// The maximum of bytes that a connection received in its handshake: certificate chains, and a request sent with them.
const HANDSHAKE_BYTES_MAX: u64 = 32 << 10;
/// The maximum of connections that are named.
const NAMED_MAX: usize = 4;

/// Returns the connections of this process whose handshake may have failed just now, as text for the end of a log line.
pub(super) fn suspects() -> Option<String> {
    let mut found = Vec::new();
    sockets(
        |socket| ends(socket),
        |own| {
            found.extend(TcpInfo::of(&own).filter(is_handshake).and_then(|_| ends(&own)));
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

fn is_handshake(info: &TcpInfo) -> bool {
    info.idle_ms <= JUST_NOW_MS && (1..=HANDSHAKE_BYTES_MAX).contains(&info.received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_received_much_or_long_ago_is_not_in_a_handshake() {
        let is = |bytes, idle_ms| is_handshake(&TcpInfo { received: bytes, idle_ms, ..TcpInfo::default() });
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
