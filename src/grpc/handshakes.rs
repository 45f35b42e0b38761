//! Names the connection whose TLS handshake failed; the C core's line about it does not.
//!
//! The C core writes the line while it handles what the other side sent, with the socket still open. So it is a
//! connection that received something just now, and little in all. If a few connections match, each is named; if more
//! than [`NAMED_MAX`] match, none is.

use std::net::SocketAddr;

use super::sockets::{ends, sockets};
use super::tcp_info::TcpInfo;

/// A connection received something "just now" if it did within this many milliseconds: the thread that received it
/// writes the line.
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
