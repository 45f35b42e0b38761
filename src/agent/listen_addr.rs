//! Checks whether this process can listen on an address, because gRPC does not report why it can't.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::error::AgentError;

/// Fails if this process can't listen on `addr`, the value of the option `flag`.
pub(super) fn check(flag: &'static str, addr: SocketAddr) -> Result<(), AgentError> {
    // Closed at once, so that gRPC can bind the address.
    bind(flag, addr).map(drop)
}

/// Listens on `addr`, the value of the option `flag`.
pub(super) fn bind(flag: &'static str, addr: SocketAddr) -> Result<TcpListener, AgentError> {
    TcpListener::bind(addr).map_err(|error| AgentError::ListenAddr { flag, why: why(addr, &error) })
}

fn why(addr: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{addr} is in use by another process; `ss -ltnp 'sport = {}'` names it", addr.port())
        }
        io::ErrorKind::AddrNotAvailable => format!("{addr} is not an address of this host"),
        _ => format!("can't listen on {addr}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both reasons led to the same text, with a line of nested JSON before it.
    #[test]
    fn an_address_that_is_in_use_and_one_of_another_host_have_different_reasons() {
        let used = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let addr = used.local_addr().expect("an address");
        let in_use = check("bind-addr", addr).expect_err("in use").to_string();
        assert!(in_use.starts_with(&format!("bind-addr: {addr} is in use by another process; `ss ")), "{in_use}");
        drop(used);
        check("bind-addr", addr).expect("free");
        // An address that is reserved for documentation.
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let refused = check("rpc-addr", foreign).expect_err("of another host").to_string();
        assert_eq!(refused, "rpc-addr: 192.0.2.1:0 is not an address of this host");
    }
}
