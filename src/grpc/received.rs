//! Counts how many of the bytes that a connection sent belong to messages of requests. `frames` limits the other bytes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use grpcio::RpcContext;
use parking_lot::{Mutex, MutexGuard};

/// Bytes that are added for each message: its frame headers, and the headers of its request.
const PER_MESSAGE: u64 = 512;

/// One part in this many of a message's bytes is added for TLS and frames.
const OVERHEAD_PART: u64 = 64;

/// An account is removed when its connection was missing in this many checks, and none of its requests is left.
const MISSING_MAX: u32 = 2;

/// Above this many accounts, the accounts of closed connections are removed even while the process is idle.
const ACCOUNTS_KEPT: usize = 1024;

/// The accounts of all client connections. Clones share them. Their number is bounded by the connections that are
/// open or were closed since the last check.
#[derive(Clone, Default)]
pub struct Received(Arc<Mutex<HashMap<SocketAddr, Arc<Account>>>>);

/// The bytes that the messages of one connection explain.
#[derive(Debug, Default)]
pub struct Account {
    bytes: AtomicU64,
    missing: AtomicU32,
}

impl Account {
    /// Counts a message of this size.
    pub fn add(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes.fetch_add(bytes + bytes / OVERHEAD_PART + PER_MESSAGE, Ordering::Relaxed);
    }
}

impl Received {
    /// Returns the account of a request's connection.
    pub fn account(&self, ctx: &RpcContext<'_>) -> Arc<Account> {
        // If the address can't be parsed, returns an account that nothing reads: such a connection is not judged.
        peer_address(&ctx.peer()).map_or_else(Arc::default, |remote| self.lock().entry(remote).or_default().clone())
    }

    /// Returns the bytes that the messages of the connection from `remote` explain.
    pub fn explained(&self, remote: SocketAddr) -> u64 {
        self.lock().get(&remote).map_or(0, |account| account.bytes.load(Ordering::Relaxed))
    }

    /// Returns true if there may be many accounts of closed connections.
    pub fn has_many(&self, connections: usize) -> bool {
        self.lock().len() > ACCOUNTS_KEPT + 2 * connections
    }

    /// Removes the accounts of closed connections.
    pub fn retain(&self, connects: impl Fn(&SocketAddr) -> bool) {
        self.lock().retain(|remote, account| {
            if connects(remote) {
                account.missing.store(0, Ordering::Relaxed);
                return true;
            }
            let missing = account.missing.fetch_add(1, Ordering::Relaxed) + 1;
            missing < MISSING_MAX || Arc::strong_count(account) > 1
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Account>>> {
        self.0.lock()
    }
}

/// Parses a peer address of gRPC, such as `ipv4:192.0.2.1:5` or `ipv6:%5B2001:db8::1%5D:5`. The scope of an IPv6
/// address is ignored.
fn peer_address(peer: &str) -> Option<SocketAddr> {
    if let Some(v4) = peer.strip_prefix("ipv4:") {
        return v4.parse().ok();
    }
    let v6 = peer.strip_prefix("ipv6:")?.replace("%5B", "[").replace("%5D", "]");
    let (ip, port) = v6.strip_prefix('[')?.rsplit_once("]:")?;
    let ip: Ipv6Addr = ip.split('%').next()?.parse().ok()?;
    Some(SocketAddr::new(IpAddr::from(ip).to_canonical(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_of_the_core() {
        let v4 = Some(SocketAddr::from(([192, 0, 2, 1], 5)));
        assert_eq!(peer_address("ipv4:192.0.2.1:5"), v4);
        assert_eq!(peer_address("ipv6:%5B::ffff:192.0.2.1%5D:5"), v4);
        let v6 = "[fe80::1]:5".parse().ok();
        assert_eq!(peer_address("ipv6:%5Bfe80::1%5D:5"), v6);
        assert_eq!(peer_address("ipv6:[fe80::1%25eth0]:5"), v6);
        for other in ["", "unix:/x", "ipv4:x:5", "ipv6:::1", "ipv6:%5B::1%5D"] {
            assert_eq!(peer_address(other), None, "{other}");
        }
    }

    #[test]
    fn accounts_are_removed_with_their_connections_and_requests() {
        let received = Received::default();
        let remote = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let open = |port: u16| received.lock().entry(remote(port)).or_default().clone();
        let (call, _) = (open(1), open(2));
        call.add(64_000);
        assert_eq!((received.explained(remote(1)), received.explained(remote(3))), (64_000 + 1000 + 512, 0));
        received.retain(|_| false);
        assert_eq!(received.lock().len(), 2, "they may be newer than the list of connections");
        received.retain(|_| false);
        assert_eq!(received.lock().len(), 1, "one has a request");
        drop(call);
        received.retain(|at| *at == remote(1));
        received.retain(|_| false);
        assert_eq!(received.explained(remote(1)), 65_512);
        received.retain(|_| false);
        assert!(received.lock().is_empty());
        (0..2000).for_each(|port| drop(open(port)));
        assert!(received.has_many(100) && !received.has_many(500));
    }
}
