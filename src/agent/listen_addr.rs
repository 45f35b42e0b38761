//! Checks whether this process can listen on an address, because gRPC does not report why it can't. Finds the address to
//! advertise if the node listens on all addresses.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

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

/// Returns the address at which other hosts reach a listener, if the configuration names none. `listens` is its actual
/// address, `flag` the option with which one can be named.
pub(super) fn to_advertise(flag: &'static str, listens: SocketAddr) -> Result<String, AgentError> {
    if !listens.ip().is_unspecified() {
        return Ok(listens.to_string());
    }
    let interfaces = if_addrs::get_if_addrs().map_err(|error| AgentError::ListenAddr {
        flag,
        why: format!("can't list the addresses of this host: {error}"),
    })?;
    let ips: Vec<IpAddr> = interfaces.iter().filter(|interface| interface.is_oper_up()).map(|i| i.ip()).collect();
    let ip = only_address(&ips, listens.is_ipv4()).map_err(|why| AgentError::ListenAddr { flag, why })?;
    Ok(SocketAddr::new(ip, listens.port()).to_string())
}

/// Returns the only address of the host by which other hosts may reach it. An IPv6 listener on all addresses accepts
/// IPv4, too, but an IPv4 address is used only if the host lacks one of IPv6.
fn only_address(ips: &[IpAddr], prefers_v4: bool) -> Result<IpAddr, String> {
    let is_usable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified() && !prefers_v4,
    };
    let usable: BTreeSet<IpAddr> = ips.iter().copied().filter(is_usable).collect();
    let preferred: BTreeSet<IpAddr> = usable.iter().copied().filter(|ip| ip.is_ipv4() == prefers_v4).collect();
    let found = if preferred.is_empty() { usable } else { preferred };
    let mut all = found.iter();
    match (all.next(), all.next()) {
        (Some(ip), None) => Ok(*ip),
        (None, _) => {
            Err("is missing: the node listens on all addresses, but this host has none that others reach".to_owned())
        }
        (Some(_), Some(_)) => {
            let all = found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            Err(format!("is missing: the node listens on all addresses, and this host has several ({all})"))
        }
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

    #[test]
    fn a_host_with_one_address_advertises_it() {
        let ips = |texts: &[&str]| texts.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let v4 = |texts: &[&str]| only_address(&ips(texts), true).map(|ip| ip.to_string());
        let common = ["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "10.0.0.1", "2001:db8::1"];
        assert_eq!(v4(&common), Ok("10.0.0.1".to_owned()));
        assert_eq!(only_address(&ips(&common), false).map(|ip| ip.to_string()), Ok("2001:db8::1".to_owned()));
        assert_eq!(only_address(&ips(&["10.0.0.1"]), false).map(|ip| ip.to_string()), Ok("10.0.0.1".to_owned()));
        let several = v4(&["10.0.0.1", "172.17.0.1"]).expect_err("several");
        assert!(several.contains("several (10.0.0.1, 172.17.0.1)"), "{several}");
        assert!(v4(&["127.0.0.1", "2001:db8::1"]).expect_err("none").contains("has none"));
        let named = to_advertise("advertise-bind-addr", SocketAddr::from(([10, 0, 0, 7], 8401)));
        assert_eq!(named.expect("an address"), "10.0.0.7:8401");
    }
}
